"""Tasks on a Ray cluster, local or remote: each works on a copy of the files it needs, and what it finishes comes back.

The machines of the cluster need no file system in common with this one, only tf_lottery and the data. Ray is imported when
it is asked for.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import re
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_lottery.base.errors import LotteryError
from tf_lottery.base.files import whole_file
from tf_lottery.runs.executor.task import Display, Event, Queue, Task, TaskError, begin, do
from tf_lottery.runs.results import Run

PATIENCE = 10.0  # seconds for a cluster to answer
Files = Mapping[str, bytes]  # by their path in the folder of all runs


def work(
    tasks: Queue,
    folder: Path,
    display: Display,
    workers: int,
    address: str | None,
    plugins: Sequence[str],
) -> None:
    """Does the tasks, at most `workers` at once. The arguments are those of `executor.run`.

    Raises:
      LotteryError: If Ray is not installed, or there is no cluster at the address.
    """
    ray = _ray(address)
    try:
        remote = ray.remote(**_share(ray, workers))(_stream).options(num_returns="streaming")
        threads = max(1, int(_share(ray, workers)["num_cpus"]))
        with contextlib.ExitStack() as held:
            running: dict[Any, tuple[Task, contextlib.ExitStack]] = {}
            while True:
                while len(running) < workers and (task := tasks.next()):
                    run, own = Run(folder / task.run), held.enter_context(contextlib.ExitStack())
                    try:
                        if task.replicate is not None:
                            for sentence in run.set_aside_damaged(task.replicate):
                                display.tell(task, sentence)
                            own.enter_context(run.alone(task.replicate))
                        stream = remote.remote(task, _gathered(folder, task), threads, tuple(plugins))
                    except LotteryError as error:
                        tasks.fail(task, error)
                        continue
                    running[stream] = task, own
                if not running:
                    return
                for stream in ray.wait(list(running), num_returns=1)[0]:
                    task, own = running[stream]
                    if _hear(ray, stream, task, folder, tasks, display):
                        del running[stream]
                        own.close()
    finally:
        ray.shutdown()


def _ray(address: str | None):
    try:
        import ray
    except ImportError:
        raise LotteryError(
            "Expected Ray for --executor=ray, but it is not installed: python -m pip install 'tf_lottery[ray]'."
        ) from None
    try:
        if place := re.fullmatch(r"(?:ray://)?\[?(.+?)\]?:(\d+)", address or ""):
            socket.create_connection((place[1], int(place[2])), PATIENCE).close()  # Ray itself waits for minutes
        options: dict[str, Any] = {} if address else {"include_dashboard": False}
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise LotteryError(
            f"Expected a Ray cluster at {address!r}, but there is none ({' '.join(str(error).split())[:200]})."
        ) from None
    return ray


def _share(ray, workers: int) -> dict[str, float]:
    """What each task asks of the cluster: its part of the processors, within one machine, and of the GPUs."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    total = sum(machine.get("CPU", 0) for machine in machines)
    cpus = max(1, int(min(total // workers, *(machine.get("CPU", 1) for machine in machines))))
    gpus = sum(machine.get("GPU", 0) for machine in machines)
    return {"num_cpus": cpus, "num_gpus": min(1.0, gpus / workers)} if gpus else {"num_cpus": cpus}


def _hear(ray, stream, task: Task, folder: Path, tasks, display) -> bool:
    """Takes the next event of a task; returns whether it was the last one."""
    try:
        (name, *rest), files = ray.get(next(stream))
    except StopIteration:
        tasks.finish(task)
        return True
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[-200:]
        tasks.fail(
            task,
            TaskError(
                f"{task.name} is not finished, because Ray lost it ({reason}); the same command goes on with it."
            ),
        )
        return True
    for path, content in sorted(files.items(), key=lambda item: item[0].endswith(".ticket")):  # a ticket ends a level
        with whole_file(folder / path) as unfinished:
            unfinished.write_bytes(content)
    if files:
        Run(folder / task.run).write_summary()
    if name == "failed":
        tasks.fail(task, *rest)
    elif name != "finished":
        getattr(display, name)(task, *rest)
    return False


def _gathered(folder: Path, task: Task) -> Files:
    """The files that a task goes on from: settings and finished levels of its replicate, and what others of its sweep share."""
    found: dict[str, bytes] = {}
    for run in filter(None, (task.reads, task.run)):
        replicate = "replicate_*" if task.replicate is None else f"replicate_{task.replicate}"
        paths = [folder / run / name for name in ("spec.json", "supermask_by_rule.csv")]
        paths += (folder / run).glob(f"{replicate}/level_*/*")
        found |= {str(path.relative_to(folder)): path.read_bytes() for path in paths if _counts(path)}
    if task.shares:  # the dense networks, which most runs of a sweep have in common
        paths = list(folder.glob(f"{task.shares}/replicate_{task.replicate}/level_00/*"))
        found |= {str(path.relative_to(folder)): path.read_bytes() for path in paths if _counts(path)}
    return found


def _counts(path: Path) -> bool:
    """Whether a file is a result: not a table, which is made of results, nor what is still being written."""
    names = ("spec.json", "curve.csv", "level.ticket", "supermask_by_rule.csv")
    return path.is_file() and (path.name in names or re.fullmatch(r"search(_\d+)?\.safetensors", path.name) is not None)


def _version(path: Path) -> tuple[int, ...]:
    """What tells a file from one that took its place, without reading it."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _stream(task: Task, files: Files, threads: int, plugins: tuple[str, ...]) -> Iterator[tuple[Event, Files]]:
    """What runs on the cluster: yields events, each with the files that are new since the last one."""
    begin(threads, plugins)
    events: queue.Queue = queue.Queue()
    with tempfile.TemporaryDirectory() as name:
        folder, seen = Path(name), {}
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
            seen[path] = _version(folder / path)

        def work_on() -> None:
            try:
                do(task, folder, events.put)
            except (LotteryError, OSError) as error:
                events.put(("failed", error))
            except Exception as error:
                events.put(("failed", TaskError(f"{task.name} failed: {type(error).__name__}: {error}")))
            else:
                events.put(("finished",))

        threading.Thread(target=work_on, daemon=True).start()
        while True:
            event = events.get()
            new = {}
            if event[0] in ("done", "finished", "failed"):
                for file in filter(_counts, folder.rglob("*")):
                    at, version = str(file.relative_to(folder)), _version(file)
                    if seen.get(at) != version:
                        new[at], seen[at] = file.read_bytes(), version
            yield event, new
            if event[0] in ("finished", "failed"):
                return
