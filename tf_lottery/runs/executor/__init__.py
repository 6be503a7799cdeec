"""Many tasks at once, in processes of this machine or on a Ray cluster.

task        a task, the queue it waits in, how one is done, and who is told: Task, Queue, Event, Display, Relay
processes   one process of this machine for each worker
ray         the machines of a Ray cluster
executor    the one call, `run`, that chooses among them
"""
