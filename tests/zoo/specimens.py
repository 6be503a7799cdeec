"""The zoo: models that nobody here wrote, as small as their makers let them be, with inputs and targets made up from a seed.

Each specimen is a function that builds a model with random weights, registered under a name in `SPECIMENS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import own_steps

BATCH = 4


@dataclass(frozen=True)
class Specimen:
    """A model and what it is trained on.

    Attributes:
      name: As in the table; a test of the default run takes it as its id.
      source: The package it comes from.
      build: Makes it, with random weights.
      inputs: `(random generator) -> inputs` for a batch.
      targets: `(random generator) -> targets`; by default normal numbers in the shapes of the outputs.
      compile: Compiles the model; by default SGD with the squared error.
      known: What does not hold, and is no defect of this library: the name of a trial, and a word of its reason.
      daily: Whether it belongs to the default run of the tests.
    """

    name: str
    source: str
    build: Callable[[], keras.Model]
    inputs: Callable[[np.random.Generator], Any]
    known: dict[str, str]
    daily: bool = False
    targets: Callable[[np.random.Generator], Any] | None = None
    compile: Callable[[keras.Model], None] | None = None


SPECIMENS: dict[str, Specimen] = {}
PACKAGES = {
    "examples": "own_steps",
    "keras.applications": "keras",
    "keras-hub": "keras_hub",
    "kimm": "kimm",
}  # where each source is imported from


def specimen(name: str, source: str, build, inputs, *, daily: bool = False, **known: str) -> None:
    SPECIMENS[name] = Specimen(name, source, build, inputs, known, daily)


def example(name: str, **known: str) -> None:
    """One of the models with a step of their own, with the data that it is tested on."""
    build, compile, data = own_steps.MODELS[name]
    x, *targets = keras.tree.map_structure(lambda array: array[:16], data)
    SPECIMENS[name] = Specimen(
        name, "examples", build, lambda rng: x, known, False, lambda rng: targets[0] if targets else None, compile
    )


def images(side: int, channels: int = 3):
    return lambda rng: rng.normal(size=(BATCH, side, side, channels)).astype("float32")


def tokens(*names: str, length: int = 8, vocabulary: int = 32):
    """Token ids and what goes with them, under the names that a backbone has for its inputs."""

    def draw(rng):
        drawn = {
            "ids": rng.integers(1, vocabulary, (BATCH, length)),
            "mask": np.ones((BATCH, length), int),
            "zeros": np.zeros((BATCH, length), int),
        }
        kind = {"padding": "mask", "segment": "zeros"}
        return {name: drawn[next((kind[k] for k in kind if k in name), "ids")].astype("int32") for name in names}

    return draw


# Models that bring a step, a loss or a compile of their own; the GAN is never called, so it is in tests/masking alone

for _name in own_steps.MODELS:
    if _name != "gan":
        example(_name, **({} if _name == "ocr" else {"compact": "is subclassed"}))


# keras.applications: fourteen families, with the weights of a first day

APPLICATIONS: dict[str, tuple[int, dict]] = {
    "MobileNet": (32, {"alpha": 0.25}),
    "MobileNetV2": (32, {"alpha": 0.35}),
    "MobileNetV3Small": (32, {"alpha": 0.75, "include_preprocessing": False}),
    "EfficientNetB0": (32, {}),
    "EfficientNetV2B0": (32, {"include_preprocessing": False}),
    "NASNetMobile": (32, {}),
    "DenseNet121": (32, {}),
    "ResNet50": (32, {}),
    "ResNet50V2": (32, {}),
    "ConvNeXtTiny": (32, {"include_preprocessing": False}),
    "Xception": (71, {}),
    "InceptionV3": (75, {}),
    "InceptionResNetV2": (75, {}),
    "VGG16": (32, {}),
}
for _name, (_side, _options) in APPLICATIONS.items():
    specimen(
        _name,
        "keras.applications",
        lambda kind=_name, side=_side, options=_options: keras.models.Sequential(
            [
                keras.Input((side, side, 3)),
                getattr(keras.applications, kind)(
                    input_shape=(side, side, 3), weights=None, include_top=False, pooling="avg", **options
                ),
                keras.layers.Dense(5),
            ],
            name=f"{kind.lower()}_net",
        ),
        images(_side),
        daily=_name == "MobileNetV2",
    )


# keras-hub: backbones and tasks, with one or two layers of a few units

TEXT = {"vocabulary_size": 32, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}
DECODER = {
    "vocabulary_size": 32,
    "num_layers": 2,
    "num_query_heads": 2,
    "num_key_value_heads": 1,
    "hidden_dim": 16,
    "intermediate_dim": 32,
}
BERT = ("token_ids", "segment_ids", "padding_mask")
GPT = ("token_ids", "padding_mask")
HUB_BACKBONES: dict[str, tuple[dict, tuple[str, ...]]] = {
    "BertBackbone": ({**TEXT, "max_sequence_length": 8}, BERT),
    "RobertaBackbone": ({**TEXT, "max_sequence_length": 8}, GPT),
    "AlbertBackbone": ({**TEXT, "embedding_dim": 8, "max_sequence_length": 8}, BERT),
    "DistilBertBackbone": ({**TEXT, "max_sequence_length": 8}, GPT),
    "DebertaV3Backbone": ({**TEXT, "max_sequence_length": 8, "bucket_size": 4}, GPT),
    "ElectraBackbone": (
        {
            "vocab_size": 32,
            "num_layers": 2,
            "num_heads": 2,
            "hidden_dim": 16,
            "embedding_dim": 16,
            "intermediate_dim": 32,
            "max_sequence_length": 8,
        },
        BERT,
    ),
    "FNetBackbone": (
        {"vocabulary_size": 32, "num_layers": 2, "hidden_dim": 16, "intermediate_dim": 32, "max_sequence_length": 8},
        ("token_ids", "segment_ids"),
    ),
    "GPT2Backbone": ({**TEXT, "max_sequence_length": 8}, GPT),
    "OPTBackbone": ({**TEXT, "max_sequence_length": 8}, GPT),
    "T5Backbone": (
        {**TEXT, "use_gated_activation": False},
        ("encoder_token_ids", "encoder_padding_mask", "decoder_token_ids", "decoder_padding_mask"),
    ),
    "BartBackbone": (
        {**TEXT, "max_sequence_length": 8},
        ("encoder_token_ids", "encoder_padding_mask", "decoder_token_ids", "decoder_padding_mask"),
    ),
    "LlamaBackbone": (DECODER, GPT),
    "MistralBackbone": ({**DECODER, "sliding_window": 4}, GPT),
    "GemmaBackbone": ({**DECODER, "head_dim": 8}, GPT),
}


def _hub(kind: str, **options):
    def build():
        import keras_hub

        return getattr(keras_hub.models, kind)(**options)

    return build


def _task(kind: str, backbone: str, **options):
    return lambda: _hub(kind, backbone=_hub(backbone, **HUB_BACKBONES[backbone][0])(), preprocessor=None, **options)()


def _vit():
    import keras_hub

    return keras_hub.models.ViTBackbone(
        image_shape=(16, 16, 3), patch_size=(4, 4), num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
    )


def _resnet_classifier():
    import keras_hub

    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(16, 16, 3),
    )
    return keras_hub.models.ResNetImageClassifier(backbone=backbone, num_classes=3, preprocessor=None)


for _name, (_options, _inputs) in HUB_BACKBONES.items():
    _known = {"tflite": "FFT2D"} if _name == "FNetBackbone" else {}
    specimen(_name, "keras-hub", _hub(_name, **_options), tokens(*_inputs), **_known)
specimen("ViTBackbone", "keras-hub", _vit, images(16))
specimen(
    "BertTextClassifier",
    "keras-hub",
    _task("BertTextClassifier", "BertBackbone", num_classes=3),
    tokens(*BERT),
    daily=True,
)
specimen("GPT2CausalLM", "keras-hub", _task("GPT2CausalLM", "GPT2Backbone"), tokens(*GPT))
specimen(
    "BertMaskedLM",
    "keras-hub",
    _task("BertMaskedLM", "BertBackbone"),
    lambda rng: {
        **tokens(*BERT)(rng),
        "mask_positions": np.tile(np.arange(1, 3, dtype="int32"), (BATCH, 1)),
    },
)
specimen("ResNetImageClassifier", "keras-hub", _resnet_classifier, images(16))


# kimm: small members of families that Keras has not

KIMM = {
    "LCNet035": 32,
    "GhostNetW050": 32,
    "TinyNetE": 32,
    "MobileViTXXS": 64,
    "VisionTransformerTiny16": 32,
    "RepVGGA0": 32,
}


def _kimm(kind: str, side: int):
    def build():
        import kimm

        return getattr(kimm.models, kind)(
            input_shape=(side, side, 3),
            weights=None,
            classes=5,
            include_preprocessing=False,
            classifier_activation=None,
        )

    return build


for _name, _side in KIMM.items():
    specimen(_name, "kimm", _kimm(_name, _side), images(_side))
