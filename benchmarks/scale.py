"""What many and long trainings cost: workers, replicates, replicas, checkpoints, fifty levels, a thousand networks, growth with size.

    python benchmarks/scale.py                  # all of it, about 20 minutes on two cores
    python benchmarks/scale.py workers          # one of them

Writes docs/results/scale/scale.json, scale.md and levels.png.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from side_by_side import alternate, find, images, machine, row

import tf_lottery as tfl
from tf_lottery import report
from tf_lottery.runs import experiment
from tf_lottery.runs.results import Run
from tf_lottery.runs.settings import Settings
from tf_lottery.training import checkpoint
from tf_lottery.training.trainer import Trainer

tf.get_logger().setLevel("ERROR")
RESULTS = Path(__file__).parents[1] / "docs" / "results" / "scale"


LENET = "--model=lenet_300_100"


def workers() -> list[dict]:
    """Two replicates of three levels, in two processes side by side, and in one."""
    flags = [LENET, "--levels=2", "--replicates=2", "--steps=20000"]
    times = alternate(
        2,
        warm=False,  # each command is a process of its own
        workers_2=find(*flags, "--workers=2"),
        one_process=find(*flags),
    )
    name = "LeNet-300-100, two replicates of three levels of 20,000 steps: --workers=2 / one after the other"
    return [row(name, times, "workers_2", "one_process", "<= 0.80", "s")]


def more_workers() -> list[dict]:
    """Four replicates on two cores: as many processes as cores, and twice as many."""
    flags = [LENET, "--levels=1", "--replicates=4", "--steps=5000"]
    times = alternate(
        2,
        warm=False,
        one_process=find(*flags),
        **{f"workers_{n}": find(*flags, f"--workers={n}") for n in (2, 4)},
    )
    name = "LeNet-300-100, four replicates of two levels of 5,000 steps on two cores"
    return [
        row(f"{name}: --workers={n} / one after the other", times, f"workers_{n}", "one_process", "", "s")
        for n in (2, 4)
    ]


def replicates() -> list[dict]:
    """One to eight replicates in one process, two levels of 3,000 steps each."""
    counts = [1, 2, 4, 8]
    costs = [find(LENET, "--levels=1", f"--replicates={count}", "--steps=3000")() for count in counts]
    return [
        _slope(
            "tf-lottery find, replicates of two levels of 3,000 steps, LeNet-300-100", counts, costs, "replicate", "s"
        )
    ]


def mirrored() -> list[dict]:
    """conv2, batch 60 in all, on two logical devices of this CPU and on one."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
    data, steps = images((32, 32, 3), 1_200), 20

    def side(strategy: tf.distribute.Strategy | None) -> Callable[[], float]:
        with strategy.scope() if strategy else tf.device("CPU:0"):
            model = tfl.wrap(tfl.models.get("conv2")(seed=0))
        trainer = Trainer(*data, steps=steps, optimizer=keras.optimizers.Adam(2e-4), strategy=strategy)
        return lambda: 1e3 * trainer(model)["seconds"] / steps

    times = alternate(12, mirrored=side(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])), one_device=side(None))
    name = "conv2, batch 60: MirroredStrategy over two logical CPU devices / one device"
    return [row(name, times, "mirrored", "one_device", "<= 1.25", "ms a step")]


def checkpoints() -> list[dict]:
    """All that a training does for its checkpoints at the default interval, against all it does: of one run, so of the same noise."""
    return [_checkpoints("LeNet-300-100, 250,000 steps", (28, 28, 1), "lenet_300_100", 250_000, examples=55_000)]


def _checkpoints(name: str, shape, model: str, steps: int, examples: int) -> dict:
    spent: dict[str, list[float]] = {"_checkpoint_of": [], "save": [], "load": [], "remove": []}

    def timed(owner: type, method: str) -> None:
        real = getattr(owner, method)

        def call(*args, **kwargs):
            began = time.perf_counter()
            try:
                return real(*args, **kwargs)
            finally:
                spent[method].append(time.perf_counter() - began)

        setattr(owner, method, call)

    timed(Trainer, "_checkpoint_of")
    for method in ("save", "load", "remove"):
        timed(checkpoint.Checkpoint, method)
    with tempfile.TemporaryDirectory() as folder:
        validation = images(shape, 1_000)
        kept = {"validation": validation, "checkpoint": Path(folder) / "checkpoint.safetensors"}
        trainer = Trainer(*images(shape, examples), steps=steps, eval_every=100, **kept)
        began = time.perf_counter()
        trainer(tfl.wrap(tfl.models.get(model)(seed=0)))
        whole = time.perf_counter() - began
    writing = sum(map(sum, spent.values()))
    return {
        "name": f"{name} of Trainer: with / without its checkpoints, {len(spent['save'])} written",
        "ratio": round(whole / (whole - writing), 4),
        "target": "<= 1.03",
        "fastest": {"with": round(whole, 2), "without": round(whole - writing, 2)},
        "rounds": 1,
        "unit": "s",
    }


class Watch:
    """A display that notes when each level is done, and the memory of the process then."""

    def __init__(self):
        self.rows: list[dict] = []

    def begin(self, replicate, level, density, steps=None, search=0):
        return ()

    def skipped(self, steps):
        pass

    def done(self, row) -> None:
        self.rows.append(
            {"level": row["level"], "at": time.perf_counter(), "training": row["seconds"], "MB": resident()}
        )

    def tell(self, sentence) -> None:
        print(sentence, file=sys.stderr)


def resident() -> float:
    """Megabytes of memory that this process holds."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1e3


def levels() -> list[dict]:
    """Fifty levels of LeNet on MNIST, 1,000 steps each, a tenth of the weights pruned in a round."""
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings("lenet_300_100", replicates=1, levels=50, steps=1_000, eval_every=100, prune_fraction=0.1)
        began = time.perf_counter()
        experiment.run_find(Run(Path(folder) / "fifty"), settings.resolved(), watch)
    ends = [began, *(r["at"] for r in watch.rows)]
    whole = [end - start for start, end in itertools.pairwise(ends)]
    between = [1e3 * (seconds - r["training"]) for seconds, r in zip(whole, watch.rows)]
    _draw_levels(watch.rows, between)
    early, late = slice(1, 11), slice(41, 51)
    memory = [r["MB"] for r in watch.rows]
    since_dense = [end - ends[1] for end in ends[2:]]  # the dense level loads and compiles
    return [
        _two(
            "LeNet-300-100, 51 levels of 1,000 steps: a level, the last ten / levels 1 to 10", whole, late, early, "s"
        ),
        _two("the same, all of a level but its training, the last ten / levels 1 to 10", between, late, early, "ms"),
        _two("the same, memory of the process, the last ten / levels 1 to 10", memory, late, early, "MB"),
        _slope(
            "LeNet-300-100, levels of 1,000 steps: the search after its dense level",
            range(1, 51),
            since_dense,
            "level",
            "s",
        ),
    ]


def _two(name: str, values: list[float], above: slice, below: slice, unit: str, target: str = "about 1") -> dict:
    sides = {"last": statistics.median(values[above]), "first": statistics.median(values[below])}
    return {
        "name": name,
        "ratio": round(sides["last"] / sides["first"], 3),
        "target": target,
        "fastest": {side: round(value, 3) for side, value in sides.items()},
        "rounds": 10,
        "unit": f"{unit}, medians",
    }


def _draw_levels(rows: list[dict], between: list[float]) -> None:
    import matplotlib.pyplot as plt

    with plt.rc_context({**report.STYLE, "figure.figsize": (8, 3)}):
        figure, (left, right) = plt.subplots(1, 2, layout="constrained")
        at = [r["level"] for r in rows]
        left.plot(at, [r["MB"] for r in rows], color=report.COLOURS[0], marker=".")
        left.set(xlabel="level", ylabel="memory of the process (MB)", ylim=(0, None))
        right.plot(at[1:], between[1:], color=report.COLOURS[1], marker=".")
        right.set(xlabel="level", ylabel="a level without its training (ms)", ylim=(0, None))
        RESULTS.mkdir(parents=True, exist_ok=True)
        report.save(figure, RESULTS / "levels.png")


def thousand() -> list[dict]:
    """The report of 1,000 trained networks: 40 replicates of 25 levels, LeNet's masks and weights."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "thousand")
        settings = Settings("lenet_300_100", replicates=40, levels=24).resolved()
        run.open(vars(settings), {})
        model = tfl.models.get("lenet_300_100")
        curve = [
            {"step": s, "train_loss": 1 / s, "validation_loss": 1 / s, "validation_accuracy": 0.9, "test_accuracy": 0.9}
            for s in range(1_000, 51_000, 1_000)
        ]
        metrics = {
            "early_stop_step": 4_000,
            "early_stop_test_accuracy": 0.98,
            "final_test_accuracy": 0.98,
            "seconds": 20.0,
        }
        for replicate in range(40):
            masked = tfl.wrap(model(seed=replicate))
            rng = np.random.default_rng(replicate)

            def train(model, callbacks, rng=rng):
                for variable in model.trainable_variables:
                    variable.assign_add(0.05 * rng.normal(size=variable.shape))
                return metrics

            for ticket in tfl.find_ticket(masked, train, levels=24, prune_fraction={"output": 0.1, "Dense": 0.2}):
                run.write_level(replicate, ticket, curve)
        assert len(run.finished()) == 1_000

        def words(*command: str) -> float:
            """The processor time of a command."""
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [sys.executable, "-m", "tf_lottery.bin.main", *command], check=True, stdout=subprocess.DEVNULL
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

        place = [f"--results_dir={folder}", "--name=thousand"]
        times = alternate(
            2,
            warm=False,
            report=lambda: words("report", *place),
            nothing=lambda: words("report", "--help"),
        )
    return [
        row(
            "tf-lottery report on 1,000 trained LeNets / --help",
            times,
            "report",
            "nothing",
            "report < 10 s",
            "s of processor time",
        ),
    ]


def weights() -> list[dict]:
    """What a round and its ticket cost as a network of one hidden layer grows; no training."""
    sizes = [2**k for k in range(17, 26)]
    costs: dict[str, list[float]] = {"round": [], "save": [], "load": []}
    for size in sizes:
        inputs = keras.Input((1_024,))
        masked = tfl.wrap(keras.Sequential([inputs, keras.layers.Dense(size // 1_024, use_bias=False)]))
        times: dict[str, list[float]] = {name: [] for name in costs}
        with tempfile.TemporaryDirectory() as folder:
            path, began = Path(folder) / "one.ticket", time.perf_counter()
            for ticket in tfl.find_ticket(masked, lambda model, callbacks: {}, levels=4):
                times["round"].append(time.perf_counter() - began)
                began = time.perf_counter()
                ticket.save(path)
                times["save"].append(time.perf_counter() - began)
                began = time.perf_counter()
                tfl.Ticket.load(path)
                times["load"].append(time.perf_counter() - began)
                began = time.perf_counter()
        for name, own in times.items():
            costs[name].append(min(own[1:]))
    told = {"round": "a round of find_ticket without its training", "save": "Ticket.save", "load": "Ticket.load"}
    per_million = [size / 1e6 for size in sizes]
    return [
        _slope(f"{told[name]}, 0.13 to 33.6 million weights", per_million, own, "million weights", "s")
        for name, own in costs.items()
    ]


def _slope(name: str, sizes, costs: list[float], each: str, unit: str) -> dict:
    """A straight line through what was measured; `exponent` is the slope between logarithms: 1 where cost is proportional."""
    slope, _ = np.polyfit(sizes, costs, 1)
    exponent, _ = np.polyfit(np.log(np.asarray(sizes, float)), np.log(costs), 1)
    points = {f"{size:g}": round(cost, 4) for size, cost in zip(sizes, costs)}
    return {
        "name": name,
        "slope": float(f"{slope:.3g}"),
        "per": each,
        "unit": unit,
        "exponent": round(exponent, 2),
        "points": points,
    }


BENCHMARKS = [workers, more_workers, replicates, mirrored, checkpoints, levels, thousand, weights]


def _table(rows: list[dict]) -> list[str]:
    ratios = [r for r in rows if "ratio" in r]
    slopes = [r for r in rows if "slope" in r]
    lines = ["| what | ratio | target | seconds, milliseconds or megabytes |", "|---|--:|---|---|"]
    for r in ratios:
        behind = ", ".join(f"{side.replace('_', ' ')} {value:g}" for side, value in r["fastest"].items())
        lines.append(f"| {r['name']} | **{r['ratio']:.3g}** | {r['target']} | {behind} {r['unit']} |")
    lines += ["", "| cost of | grows by | exponent |", "|---|--:|--:|"]
    lines += [f"| {r['name']} | {r['slope']:g} {r['unit']} a {r['per']} | {r['exponent']:.2f} |" for r in slopes]
    return lines


def main(names: list[str]) -> None:
    known = {benchmark.__name__: benchmark for benchmark in BENCHMARKS}
    if unknown := set(names) - set(known):
        sys.exit(f"Expected benchmarks among {', '.join(known)}, but received {', '.join(sorted(unknown))}.")
    if len(names) != 1:  # each in a process of its own
        for name in names or known:
            subprocess.run([sys.executable, __file__, name], check=True)
        return
    path = RESULTS / "scale.json"
    results = json.loads(path.read_text()) if path.is_file() else {"results": {}}
    results["results"][names[0]] = known[names[0]]()
    results["machine"] = machine()
    results["results"] = {name: results["results"][name] for name in known if name in results["results"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    print("\n".join(_table(results["results"][names[0]])))
    where = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines = _table([row for rows in results["results"].values() for row in rows])
    (RESULTS / "scale.md").write_text("\n".join([*lines, "", f"Machine: {where}.", ""]))


if __name__ == "__main__":
    main(sys.argv[1:])
