"""Many tasks at once, in processes of this machine or on a Ray cluster.

What stands here, and after a colon the names that other rooms take from it:

    task        a task, the queue it waits in, how one is done, and who is told: Task, named, steps_callback
    processes   one process of this machine for each worker
    ray         the machines of a Ray cluster
    executor    the one call that chooses among them
"""
