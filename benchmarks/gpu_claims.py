"""The claims on convolutional networks, level by level, in pieces of any length: for a GPU that is there for an hour, or for ten minutes.

    python benchmarks/gpu_claims.py --minutes=60          # the most valuable missing levels; goes on where the last piece stopped
    python benchmarks/gpu_claims.py --dry_run             # what is missing, in the order in which it is taken
    python benchmarks/gpu_claims.py pack results parts    # a folder, results or prepared data, in archives of less than 60 MB
    python benchmarks/gpu_claims.py unpack parts results  # and back

Every level that is finished is a whole file in RESULTS_DIR/claims_conv, as `tf-lottery claims --scale=conv` leaves them: that command with
`--notrain` writes the page of all pieces. A level that is not expected to end in time is not begun; one that does not is stopped, and
goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tf_lottery.base.errors import LotteryError
from tf_lottery.claims.plan import plan as plan_of
from tf_lottery.claims.planned import Plan
from tf_lottery.runs.settings import Settings

MEGABYTES = 59
FIRST = ("resnet18_rewind_0", "resnet18_rewind_500")  # of one replicate: does late rewinding help at all?
THEN = ("conv2", "conv4", "conv6")
SAFETY = 1.2  # a level is begun if so many times what the last one of its network took is left


class Stop(Exception):
    """The time is over."""


class Clock:
    """The display of the runs: tells of each level how long it took, and stops in time.

    Args:
      minutes: From now on.
    """

    def __init__(self, minutes: float):
        self.deadline = time.monotonic() + 60 * minutes
        self.per_step: dict[str, float] = {}  # seconds, wall time, by network
        self.levels, self.training, self.wall = 0, 0.0, 0.0
        self.network = ""

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    def enter(self, name: str, network: str) -> None:
        self.name, self.network, self.began = name, network, time.monotonic()

    def begin(self, replicate: int, level: int, density: float | None, steps: int | None = None, search: int = 0):
        import keras

        expected = SAFETY * self.per_step.get(self.network, 0.0) * (steps or 0)
        if self.left <= expected:
            raise Stop(f"{self.name}, replicate {replicate}, level {level} would take about {expected:,.0f} s")
        clock, self.steps = self, steps or 0

        class Deadline(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                if clock.left <= 0:
                    raise Stop(f"{clock.name}, replicate {replicate}, level {level} goes on from its checkpoint")

        return [Deadline()]

    def skipped(self, steps: int) -> None:
        self.steps = 0

    def done(self, row: Mapping[str, Any]) -> None:
        wall = time.monotonic() - self.began
        self.began = time.monotonic()
        if self.steps:
            self.per_step[self.network] = wall / self.steps
        self.levels, self.training, self.wall = self.levels + 1, self.training + row["seconds"], self.wall + wall
        print(
            f"{self.name}, replicate {row['replicate']}, level {row['level']}: {100 * row['density']:.3g} % of the weights, test accuracy "
            f"{100 * row['early_stop_test_accuracy']:.2f} %, {wall:.1f} s, {100 * row['seconds'] / wall:.0f} % of it in training",
            flush=True,
        )

    def tell(self, sentence: str) -> None:
        print(sentence, flush=True)


def order(plan: Plan) -> list[tuple[str, int]]:
    """(experiment, replicate) of the whole plan, the most valuable first."""
    replicates = max(experiment.replicates for experiment in plan.experiments)
    wanted = [(name, 0) for name in FIRST] + [(name, r) for name in THEN for r in range(replicates)]
    wanted += [(name, r) for r in range(replicates) for name in plan.names()]
    known = {name: plan[name].replicates for name in plan.names()}
    return [(name, r) for name, r in dict.fromkeys(wanted) if r < known.get(name, 0)]


def missing(plan: Plan, folder: Path) -> Iterator[tuple[str, int, list[tuple[int, int]]]]:
    for name, replicate in order(plan):
        if left := plan[name].missing(folder, replicate):
            yield name, replicate, left


def work(plan: Plan, folder: Path, minutes: float, data_dir: str | None = None) -> Clock:
    """Trains what is missing until the time is over; returns the clock."""
    from tf_lottery.runs import experiment

    clock = Clock(minutes)
    plan.check(folder)
    try:
        for name, replicate, _ in missing(plan, folder):
            clock.enter(name, plan[name].trunk.settings.model)
            own = plan[name]
            if own.of is not None and own.of.missing(folder, replicate):
                continue  # its search was not finished: it could not be
            own.work(experiment, folder, clock, data_dir=data_dir, replicate=replicate)
        print("Nothing is missing any more.")
    except Stop as stop:
        print(f"Stopped in time: {stop}.")
    if clock.levels:
        share = 100 * clock.training / clock.wall
        print(
            f"{clock.levels} levels in {clock.wall:,.0f} s, {share:.0f} % of it in training; {max(clock.left, 0):,.0f} s were left."
        )
    return clock


def tiny(plan: Plan) -> Plan:
    """The same plan on MNIST-1D in steps that take a moment: to try this script where there is no GPU and no CIFAR-10."""
    made: dict[str, Any] = {}
    for own in plan.experiments:
        short: dict[str, Any] = {
            "model": "residual_mlp",
            "dataset": "mnist1d",
            "steps": 20,
            "eval_every": 10,
            "test_every": 20,
        }
        settings = own.settings
        if isinstance(settings, Settings):
            levels = min(settings.levels, 4)
            late = {
                "levels": levels,
                "rewind_to": min(settings.rewind_to, 5),
                "prune_fraction": 0.3,
                "lr_drops": (),
                "warmup": 0,
            }
            settings = dataclasses.replace(settings, **short, **late, augment=False)
        elif own.of is None:
            settings = dataclasses.replace(settings, **short, samples=2)
        of = own.of and made[own.of.name]
        retrained = tuple(level for level in own.retrained if not of or level <= of.settings.levels)
        made[own.name] = dataclasses.replace(own, settings=settings, of=of, retrained=retrained)
    return dataclasses.replace(plan, experiments=tuple(made.values()))


class Parts(io.RawIOBase):
    """A file to write that is cut into parts of a size: `archive.tar.000`, `archive.tar.001`, ..."""

    def __init__(self, folder: Path, size: int):
        self.folder, self.size, self.count, self.room = folder, size, 0, 0
        self.part: Any = None

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        view = memoryview(data).cast("B")
        for at in range(0, len(view), 1 << 20):
            self._write(view[at : at + (1 << 20)])
        return len(view)

    def _write(self, piece: memoryview) -> None:
        while len(piece):
            if not self.room:
                if self.part:
                    self.part.close()
                self.part, self.room = (self.folder / f"archive.tar.{self.count:03d}").open("wb"), self.size
                self.count += 1
            taken = piece[: self.room]
            self.part.write(taken)
            piece, self.room = piece[len(taken) :], self.room - len(taken)

    def close(self) -> None:
        if self.part:
            self.part.close()
        super().close()


def pack(folder: Path, parts: Path, megabytes: float = MEGABYTES) -> int:
    """Writes a folder into archives of at most so many megabytes; returns their number."""
    if not folder.is_dir():
        raise LotteryError(f"Expected a folder to pack, but there is none at {folder}.")
    if parts.exists() and any(parts.iterdir()):
        raise LotteryError(f"Expected an empty folder for the archives, but there are files in {parts}.")
    parts.mkdir(parents=True, exist_ok=True)
    with Parts(parts, int(megabytes * 1e6)) as file, tarfile.open(fileobj=file, mode="w|") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != ".lock":
                archive.add(path, path.relative_to(folder).as_posix())
    return file.count


class Joined(io.RawIOBase):
    """The parts as one file to read."""

    def __init__(self, paths: Sequence[Path]):
        self.files = [path.open("rb") for path in paths]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while self.files:
            if count := self.files[0].readinto(buffer):
                return count
            self.files.pop(0).close()
        return 0


def unpack(parts: Path, folder: Path) -> None:
    """Puts what `pack` wrote into a folder, over what is there."""
    paths = sorted(parts.glob("archive.tar.*"))
    if [path.name for path in paths] != [f"archive.tar.{i:03d}" for i in range(len(paths))] or not paths:
        raise LotteryError(
            f"Expected all archives that `pack` wrote, from archive.tar.000 on, but received {len(paths)} of them in {parts}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=io.BufferedReader(Joined(paths)), mode="r|") as archive:
            archive.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise LotteryError(
            f"Expected all archives that `pack` wrote, but they end too early or are damaged ({error})."
        ) from None


def main(argv: Sequence[str]) -> None:
    if argv[:1] == ["pack"] or argv[:1] == ["unpack"]:
        parser = argparse.ArgumentParser(prog=f"gpu_claims.py {argv[0]}")
        parser.add_argument("source", type=Path)
        parser.add_argument("target", type=Path)
        given = parser.parse_args(argv[1:])
        if argv[0] == "pack":
            print(f"{pack(given.source, given.target)} archives in {given.target}.")
        else:
            unpack(given.source, given.target)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long to work, the start not counted")
    parser.add_argument("--results_dir", type=Path, default=Path("results"))
    parser.add_argument("--data_dir", default=None, help="where TFDS data are prepared")
    parser.add_argument("--only", default=None, help="these experiments, as in conv2,conv2/reinit")
    parser.add_argument("--dry_run", action="store_true")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if not given.minutes > 0:
        raise LotteryError(f"Expected --minutes above 0, but received {given.minutes:g}.")
    plan = tiny(plan_of("conv")) if given.tiny else plan_of("conv")
    if given.only:
        names = [name.strip() for name in given.only.split(",")]
        if unknown := [name for name in names if name not in plan.names()]:
            raise LotteryError(
                f"Expected --only to name experiments ({', '.join(plan.names())}), but received {unknown[0]!r}."
            )
        plan = dataclasses.replace(plan, experiments=tuple(plan.needed(names)))
    folder = given.results_dir / "claims_conv"
    if given.dry_run:
        for name, replicate, left in missing(plan, folder):
            print(f"{name}, replicate {replicate}: levels {', '.join(str(level) for _, level in left)}")
        return
    work(plan, folder, given.minutes, given.data_dir)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LotteryError as error:
        sys.exit(str(error))
