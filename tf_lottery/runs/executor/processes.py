"""Tasks in processes of this machine: each does one task after the other, with its share of the processors."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tf_lottery.base.errors import LotteryError
from tf_lottery.runs.executor.task import Display, Queue, Task, TaskError, begin, do, threads_each

PATIENCE = 10.0  # seconds that a process has to end in when it is told to


def work(queue: Queue, folder: Path, display: Display, workers: int, plugins: Sequence[str]) -> None:
    """Does the tasks, at most `workers` at once. The arguments are those of `executor.run`."""
    _Pool(folder, workers, plugins).work(queue, display)


class _Pool:
    def __init__(self, folder: Path, workers: int, plugins: Sequence[str]):
        self.folder, self.workers, self.plugins = folder, workers, tuple(plugins)
        self.threads = threads_each(workers)
        self.idle: list[_Worker] = []
        self.busy: dict[Connection, tuple[_Worker, Task]] = {}

    def work(self, queue: Queue, display: Display) -> None:
        try:
            while True:
                while len(self.busy) < self.workers and (task := queue.next()):
                    self.idle = [worker for worker in self.idle if worker.process.is_alive()]
                    worker = self.idle.pop() if self.idle else self._new()
                    with contextlib.suppress(OSError):  # ended this moment: its pipe says so when it is heard
                        worker.pipe.send(task)
                    self.busy[worker.pipe] = worker, task
                if not self.busy:
                    return
                for pipe in wait(list(self.busy)):
                    self._hear(pipe, queue, display)
        finally:
            self._end()

    def _new(self) -> _Worker:
        used = {worker.index for worker, _ in self.busy.values()}
        index = next(i for i in range(self.workers) if i not in used)
        return _Worker(index, self.threads, self.folder, self.plugins)

    def _hear(self, pipe: Any, queue: Queue, display: Display) -> None:
        worker, task = self.busy[pipe]
        try:
            name, *rest = pipe.recv()
        except (EOFError, OSError):  # at the end of a message, within one, or before it took its task
            del self.busy[pipe]
            worker.process.join()
            status = worker.process.exitcode or 0
            ended = (
                f"its process was ended by signal {-status}"
                if status < 0
                else f"its process ended with status {status}"
            )
            queue.fail(
                task,
                TaskError(f"{task.name} is not finished, because {ended}; the same command goes on with it."),
            )
            return
        if name not in ("finished", "failed"):
            getattr(display, name)(task, *rest)
            return
        del self.busy[pipe]
        self.idle.append(worker)
        if name == "finished":
            queue.finish(task)
        else:
            queue.fail(task, *rest)

    def _end(self) -> None:
        """Whatever is still at work is told to end: it removes what it had not finished."""
        workers = [*self.idle, *(worker for worker, _ in self.busy.values())]
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join(PATIENCE)
            worker.process.kill()
            worker.process.join()


class _Worker:
    """A process that waits for tasks."""

    def __init__(self, index: int, threads: int, folder: Path, plugins: tuple[str, ...]):
        self.index = index
        context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
        self.pipe, other = context.Pipe()
        arguments = (other, index, threads, folder, plugins)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        with _interrupts_held():
            self.process.start()
        other.close()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until this ends; a process begun in between never hears of it, for it inherits the mask of signals."""
    resource_tracker.ensure_running()  # begun with the first process otherwise, and unblocks the signal
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))  # where another thread gets it
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        signal.signal(signal.SIGINT, before)
        if heard:
            signal.raise_signal(signal.SIGINT)


def _serve(pipe: Connection, index: int, threads: int, folder: Path, plugins: tuple[str, ...]) -> None:
    """The life of a worker: tasks come through the pipe, events go back; it ends with the process that asked for it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # on the way out files are cleaned up
    threading.Thread(target=_end_with, args=[multiprocessing.parent_process()], daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        begun = False
        while True:
            task = pipe.recv()
            try:
                if not begun:
                    begin(threads, plugins, index)
                    begun = True
                do(task, folder, pipe.send)
            except (BrokenPipeError, ConnectionResetError):
                return
            except (LotteryError, OSError) as error:
                pipe.send(("failed", error))
            except Exception:
                pipe.send(("failed", RuntimeError(f"{task.name} failed:\n{traceback.format_exc()}")))
            else:
                pipe.send(("finished",))


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """Ends this process at once when the one that began it was killed, so that the next command finds nobody at work."""
    parent.join()
    os._exit(1)
