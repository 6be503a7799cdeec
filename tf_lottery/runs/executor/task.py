"""A task, the queue it waits in, and what is told of it: what all executors share.

A task is work that a process of its own can do, and go on with where it was interrupted: one replicate of a run. No TensorFlow is
loaded before one is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tf_lottery.base.errors import LotteryError

Event = tuple  # (the name of a method of the display, its arguments but for the task)


@dataclass(frozen=True)
class Task:
    """One replicate of a run.

    Attributes:
      name: What it is called in messages; no two have the same.
      work: `work(experiment, folder, display)` does it; a function that can be pickled, as a `functools.partial` of one of a
        module. `experiment` is the module of that name, which loads TensorFlow.
      run: The folder that it writes, in the folder of all runs.
      replicate: Which one; None for all of them.
      left: (replicate, level) of what it has to train.
      steps: Training steps of all that together.
      after: The names of tasks that must be finished before it begins.
      reads: The run that it reads beside its own, for a branch that of its search.
      shares: A pattern of the names of runs whose trainings it does not do again, those of its sweep.
    """

    name: str
    work: Callable
    run: str
    replicate: int | None
    left: tuple[tuple[int, int], ...]
    steps: int
    after: frozenset[str] = frozenset()
    reads: str | None = None
    shares: str | None = None


class Display(Protocol):
    """What is told about the progress of tasks; the methods are those of `levels.Display`, with the task first."""

    def begin(
        self, task: Task, replicate: int, level: int, density: float | None, steps: int | None, search: int
    ) -> None: ...

    def advance(self, task: Task, steps: int, reached: int) -> None: ...

    def skipped(self, task: Task, steps: int) -> None: ...

    def done(self, task: Task, row: dict[str, Any]) -> None: ...

    def tell(self, task: Task, sentence: str, about: Sequence[str] = ()) -> None: ...


class TaskError(LotteryError):
    """A task whose process was ended from outside, or that was not begun because another one failed."""


class Relay:
    """The display of a task that runs elsewhere: sends what it is told as events."""

    def __init__(self, send: Callable[[Event], None]):
        self.send = send

    def begin(
        self, replicate: int, level: int, density: float | None, steps: int | None = None, search: int = 0
    ) -> Sequence:
        self.send(("begin", replicate, level, density, steps, search))
        what = f"replicate {replicate}, {named(level, search)}"
        return [steps_callback(lambda steps, reached: self.send(("advance", steps, reached)), self.tell, what)]

    def skipped(self, steps: int) -> None:
        self.send(("skipped", steps))

    def done(self, row) -> None:
        self.send(("done", dict(row)))

    def tell(self, sentence: str, about: Sequence[str] = ()) -> None:
        self.send(("tell", sentence, *([tuple(about)] if about else [])))


def named(level: int, search: int) -> str:
    """A training in words."""
    return f"search of level {level}" if search else f"level {level}"


def steps_callback(advance: Callable[[int, int], None], tell: Callable[[str], None], what: str) -> Any:
    """A Keras callback that says how far a training is: `advance(steps, reached)`; and that it was not begun anew, if so."""
    import keras

    class Steps(keras.callbacks.Callback):
        last = 0

        def on_train_batch_end(self, batch, logs=None):
            advance(batch + 1 - self.last, batch + 1)
            self.last = batch + 1

        def saved(self):
            return {"step": np.asarray(self.last)}

        def resume(self, values):
            self.last = int(values["step"])
            advance(self.last, self.last)
            tell(f"{what} goes on from step {self.last:,}.")

    return Steps()


class Queue:
    """Which tasks can begin, and which failed."""

    def __init__(self, tasks: Iterable[Task]):
        self.waiting = list(tasks)
        self.unfinished = {task.name for task in self.waiting}
        self.failed: dict[str, Exception] = {}

    def next(self) -> Task | None:
        """A task whose time has come; None if there is none now."""
        for task in list(self.waiting):
            if lost := task.after & self.failed.keys():
                self.waiting.remove(task)
                self.fail(task, TaskError(f"{task.name} was not begun, because {min(lost)} is not finished."))
            elif not task.after & self.unfinished:
                self.waiting.remove(task)
                return task
        return None

    def finish(self, task: Task) -> None:
        self.unfinished.discard(task.name)

    def fail(self, task: Task, error: Exception) -> None:
        self.unfinished.discard(task.name)
        self.failed[task.name] = error


def do(task: Task, folder: Path, send: Callable[[Event], None]) -> None:
    """Does a task in this process; what its display is told is sent as events."""
    from tf_lottery.base.quiet import native_stderr_off, warnings_told

    with native_stderr_off():
        from tf_lottery.runs import experiment
    relay = Relay(send)
    with warnings_told(lambda sentence: relay.tell(f"warning: {sentence}")):
        task.work(experiment, folder, relay)


def begin(threads: int, plugins: Sequence[str], index: int = 0) -> None:
    """Readies a fresh process for tasks: its share of the processors, a GPU of its own if there are several, plugins.

    Args:
      threads: How many threads TensorFlow may use for one operation.
      plugins: What to import.
      index: The number of the process among those of this machine.
    """
    from tf_lottery.base.quiet import native_stderr_off
    from tf_lottery.base.registry import import_plugin

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with native_stderr_off():
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        if gpus := tf.config.list_physical_devices("GPU"):
            tf.config.set_visible_devices(own := gpus[index % len(gpus)], "GPU")
            tf.config.experimental.set_memory_growth(own, True)  # several processes may share it
    for plugin in plugins:
        import_plugin(plugin)


def threads_each(workers: int) -> int:
    """The threads of each of so many processes, which together keep the processors of this machine busy."""
    return max(1, len(os.sched_getaffinity(0)) // workers)
