"""Many tasks at once: replicates, branches and sweeps in processes on this machine, or on a Ray cluster.

Tasks write into the same folder as one process alone would, and find the same, bit for bit, as one with as many threads; see
`docs/scale.md`. No TensorFlow is loaded here.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from tf_lottery.base.errors import LotteryError
from tf_lottery.runs.executor.task import Display, Event, Queue, Task, do

EXECUTORS = ("local", "ray")


def run(
    tasks: Sequence[Task],
    folder: Path,
    display: Display,
    *,
    workers: int = 1,
    executor: str = "local",
    address: str | None = None,
    plugins: Sequence[str] = (),
) -> dict[str, Exception]:
    """Does all tasks, several at once; the next start goes on with what is left.

    A task that fails ends alone: the others are finished, but for those that come after it.

    Args:
      tasks: What to do, in an order in which it can be done one by one.
      folder: The folder of all runs.
      display: Is told about progress.
      workers: How many tasks to do at once; they share the processors of this machine, or of the cluster.
      executor: `"local"`, in processes of this machine (with one worker in this one), or `"ray"`; see `ray`.
      address: Of the Ray cluster.
      plugins: What each process imports first; see `registry.import_plugin`.

    Returns:
      The errors of the tasks that failed, by name.

    Raises:
      LotteryError: If an argument is out of range, or Ray is not there.
    """
    if not isinstance(workers, int) or workers < 1:
        raise LotteryError(f"Expected workers of at least 1, a whole number, but received {workers!r}.")
    if executor not in EXECUTORS:
        raise LotteryError(f"Expected executor to be one of {', '.join(EXECUTORS)}, but received {executor!r}.")
    queue = Queue(tasks)
    if executor == "ray":
        from tf_lottery.runs.executor import ray

        ray.work(queue, folder, display, workers, address, plugins)
    elif workers == 1:
        _here(queue, folder, display)
    else:
        from tf_lottery.runs.executor import processes

        processes.work(queue, folder, display, workers, plugins)
    return queue.failed


def _here(queue: Queue, folder: Path, display: Display) -> None:
    while task := queue.next():
        try:
            do(task, folder, functools.partial(_tell, display, task))
        except (LotteryError, OSError) as error:
            queue.fail(task, error)
        else:
            queue.finish(task)


def _tell(display: Display, task: Task, event: Event) -> None:
    getattr(display, event[0])(task, *event[1:])
