"""What `tf-lottery prune` is to do, checked before TensorFlow is loaded: flags, files, and an unfinished run of the same command."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_lottery.base import guard
from tf_lottery.base.errors import LotteryError
from tf_lottery.base.files import free, whole_file
from tf_lottery.rules import criteria, masks, patterns
from tf_lottery.runs.own_data import Origin

VARIANTS = ("float32", "sparse_float32", "float16", "sparse_float16", "dynamic_int8", "int8")
# Keras' own names, so that a mistyped one is refused before Keras is loaded; a test compares.
OPTIMIZERS = (
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "ftrl",
    "lion",
    "muon",
    "nadam",
    "rmsprop",
    "schedulefreeadamw",
    "sgd",
)
LOSSES = (
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_hinge",
    "cosine_similarity",
    "hinge",
    "huber",
    "kl_divergence",
    "log_cosh",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "poisson",
    "sparse_categorical_crossentropy",
    "squared_hinge",
    "mae",
    "mse",
)


@dataclass(frozen=True)
class Plan:
    """A command that is possible as far as one can tell without TensorFlow.

    Attributes:
      source, how, training, target: The flags.
      options: The arguments of `prune`, but for the density.
      density: The density, or None with a 2:4 pattern.
      origin: Where the data come from, or None.
      variants: The TFLite files to write.
      output: The `.keras` file to write; the others have its name and another ending.
      spec: What decides the result.
    """

    source: Any
    how: Any
    training: Any
    target: Any
    options: Mapping[str, Any]
    density: float | Mapping[str, float] | None
    origin: Origin | None
    variants: tuple[str, ...]
    output: Path
    spec: Mapping[str, Any]

    @property
    def unfinished(self) -> Path:
        """The folder that holds what a killed run had come to; it is gone when the run is done."""
        return self.output.with_suffix(".unfinished")

    def beside(self, ending: str) -> Path:
        """Another file of the same name."""
        return self.output.with_suffix(ending)

    @property
    def files(self) -> list[Path]:
        """All that is written, the model last."""
        tflite = [self.beside(f".{variant}.tflite") for variant in self.variants]
        return [*tflite, self.beside(".json"), self.beside(".html"), self.output]

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """While it runs: the files may be written, or an unfinished run goes on; what fails before it has come to anything leaves nothing.

        Raises:
          LotteryError: If a file is there, or a run with other flags is unfinished.
        """
        spec = self.unfinished / "spec.json"
        if spec.is_file():
            other = _differences(json.loads(spec.read_text()), json.loads(json.dumps(self.spec)))
            if other and not self.target.overwrite:
                raise LotteryError(
                    f"Expected the run that {self.unfinished} is left of to go on as it began, but {'; '.join(other)}: give the same flags and "
                    "files, begin anew with --overwrite, or remove that folder."
                )
            if other:
                self.state.unlink(missing_ok=True)
                spec.unlink()
        if not spec.is_file():
            for path in self.files:
                free(path, self.target.overwrite)
            with whole_file(spec) as unfinished:
                unfinished.write_text(json.dumps(self.spec, indent=2) + "\n")
        try:
            yield
        except BaseException:
            if not self.state.is_file():
                spec.unlink()
            raise
        shutil.rmtree(self.unfinished)

    @property
    def state(self) -> Path:
        """The file that a killed training goes on from."""
        return self.unfinished / "state.checkpoint"


def checked(source, how, training, target, origin: Origin | None, has_plugin: bool) -> Plan:
    """The plan that the flags make.

    Raises:
      LotteryError: If they make none; the sentence says why.
    """
    density, options = _how(how)
    path = _keras_file(source.keras)
    variants = tuple(dict.fromkeys(name.strip() for name in target.export.split(",") if name.strip()))
    if unknown := [name for name in variants if name not in VARIANTS]:
        raise LotteryError(f"Expected --export of {', '.join(VARIANTS)}, but received {unknown[0]!r}.")
    _training(training, how, origin, variants, _compiled_with(path), has_plugin)
    if target.threads < 1:
        raise LotteryError(f"Expected --threads of at least 1, but received {target.threads}.")
    output = Path(target.output) if target.output else path.with_suffix(".pruned.keras")
    if output.suffix != ".keras":
        raise LotteryError(f"Expected --output as a file that ends in .keras, but received {target.output!r}.")
    if output.resolve() == path.resolve():
        raise LotteryError(
            f"Expected --output beside the model before, but received {target.output!r}, which is that model."
        )
    spec = {
        "model": guard.digest(path),
        "data": origin.identity if origin else None,
        **{f"--{name}": value for part in (how, training) for name, value in dataclasses.asdict(part).items()},
        "versions": {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")},
    }
    return Plan(source, how, training, target, options, density, origin, variants, output, spec)


def _how(how) -> tuple[Any, dict[str, Any]]:
    """The density and the other arguments of `prune`."""
    options: dict[str, Any] = {"criterion": how.criterion, "scope": how.scope}
    masks.check_scope(how.scope, {})
    criterion = criteria.get(how.criterion)
    if not how.one_shot:
        criteria.without_gradient(criterion, "gradual pruning (without --one_shot)")
    kind, _, sides = (how.pattern or "").partition(":")
    if kind == "block":
        try:
            height, width = (int(side) for side in sides.split("x"))
        except ValueError:
            raise LotteryError(f"Expected --pattern as block:1x4, but received {how.pattern!r}.") from None
        options["block_size"] = patterns.check_block((height, width), "AVG")
    elif kind:
        if not (kind.isdigit() and sides.isdigit()):
            raise LotteryError(f"Expected --pattern as 2:4 or block:1x4, but received {how.pattern!r}.")
        options["sparsity_m_by_n"] = patterns.check_m_by_n((int(kind), int(sides)))
    if (how.density is None) == ("sparsity_m_by_n" not in options):
        told = "both" if how.density is not None else "neither"
        raise LotteryError(
            f"Expected --density, the share of the weights that stays, or --pattern=2:4, but received {told}."
        )
    if "block_size" in options and how.scope in masks.CHANNEL_SCOPES:
        raise LotteryError(
            f"Expected either --pattern=block or --scope={how.scope}, where whole channels are pruned, not both."
        )
    if "sparsity_m_by_n" in options and how.scope != "layer":
        raise LotteryError(
            f"Expected --pattern={how.pattern} alone, but received it together with --scope={how.scope}."
        )
    for value in how.density.values() if isinstance(how.density, Mapping) else [how.density]:
        if value is not None and not 0 < value <= 1:
            raise LotteryError(
                f"Expected --density, the share of the weights that stays, in (0, 1], but received {value:g}."
            )
    if isinstance(how.density, Mapping) and how.scope.startswith("global"):
        raise LotteryError(
            f"Expected one --density with --scope={how.scope}, where the scores decide, but received several."
        )
    return how.density, options


def _keras_file(name: str | None) -> Path:
    if not name:
        raise LotteryError("Expected --keras, the .keras file to prune, but received none.")
    path = Path(name)
    if path.is_dir() and (path / "saved_model.pb").is_file():
        raise LotteryError(
            f"Expected a .keras file, but {name!r} is a SavedModel, which Keras cannot train: give the .keras file that it was made of."
        )
    if path.suffix in (".h5", ".hdf5"):
        raise LotteryError(
            f"Expected a .keras file, but received {name!r}: load it with keras.models.load_model, and save it as .keras."
        )
    if not path.is_file():
        raise LotteryError(f"Expected a .keras file, but there is none at {name!r}.")
    return path


def _compiled_with(path: Path) -> Mapping[str, Any]:
    """What the model in a file was compiled with, as text; nothing of it is made."""
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json")).get("compile_config") or {}
    except (zipfile.BadZipFile, KeyError, ValueError, AttributeError, OSError) as error:
        raise LotteryError(f"Expected a .keras file, but {str(path)!r} is not one ({error}).") from None


def _training(training, how, origin: Origin | None, variants, compiled: Mapping[str, Any], has_plugin: bool) -> None:
    if training.epochs < 0 or (training.epochs == 0 and not how.one_shot):
        raise LotteryError(
            f"Expected --epochs of at least 1, or with --one_shot of at least 0, but received {training.epochs}."
        )
    if training.batch_size < 1:
        raise LotteryError(f"Expected --batch_size of at least 1, but received {training.batch_size}.")
    if training.learning_rate is not None and not training.learning_rate > 0:
        raise LotteryError(f"Expected --learning_rate above 0, but received {training.learning_rate:g}.")
    if origin is None:
        needs = "fine-tune on" if training.epochs else "compare TFLite files on"
        if training.epochs or variants or criteria.needs(criteria.get(how.criterion)).gradient:
            raise LotteryError(
                f"Expected --dataset or --data, to {needs}, but received neither; --one_shot --epochs=0 prunes without data."
            )
    if not has_plugin:
        for name, known in (("optimizer", OPTIMIZERS), ("loss", LOSSES)):
            if (value := getattr(training, name)) is not None and value not in known:
                raise LotteryError(
                    f"Expected --{name} of {', '.join(known)}, or of a --plugin, but received {value!r}."
                )
    if origin is not None and not training.loss and not compiled:
        raise LotteryError("Expected a file that was compiled with a loss, or --loss, but received neither.")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How a spec differs from one before, in words."""
    told = {"model": "the model is another one", "data": "the data are others", "versions": "the versions are others"}
    return [
        told.get(name) or f"{name} was {before.get(name)} and is {now.get(name)}"
        for name in now
        if before.get(name) != now[name]
    ]
