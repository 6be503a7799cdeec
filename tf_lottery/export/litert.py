"""Running TFLite files with LiteRT, and what can be read from them: outputs, zeros, latency."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tf_lottery.base.errors import ExportError
from tf_lottery.base.quiet import silenced
from tf_lottery.export.formats import first_line

ROUND = 0.002  # seconds that a file runs in each round of a latency measurement, about
STORED = {  # the types of weights, and how many bytes hold one
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT8: np.int8,
}


class Loaded:
    """A TFLite file in LiteRT's interpreter, with the XNNPACK delegate that it applies by default.

    With one thread, time is that in which the thread has a processor, so that other processes do not count.

    Args:
      content: The bytes of the file.
      threads: How many threads it may use.

    Raises:
      ExportError: If LiteRT refuses it.
    """

    def __init__(self, content: bytes, threads: int = 1):
        try:
            with silenced():
                self.interpreter = Interpreter(model_content=content, num_threads=threads)
                self.interpreter.allocate_tensors()
                runner = self.interpreter.get_signature_runner()  # knows which tensor has which name
        except (RuntimeError, ValueError) as error:
            raise ExportError(
                f"Expected a file that LiteRT runs, but it refuses this one ({first_line(error)})."
            ) from error
        inputs, outputs = runner.get_input_details(), runner.get_output_details()
        self._clock = time.thread_time if threads == 1 else time.perf_counter
        self._inputs = [inputs[f"input_{i}"]["index"] for i in range(len(inputs))]
        self._outputs = [outputs[f"output_{i}"]["index"] for i in range(len(outputs))]

    def outputs(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs for each example, stacked; inputs are arrays (N, ...) in order.

        Raises:
          ExportError: If it fails on one of them.
        """
        found: list[list[np.ndarray]] = [[] for _ in self._outputs]
        for n in range(len(inputs[0])):
            for tensor, array in zip(self._inputs, inputs, strict=True):
                self.interpreter.set_tensor(tensor, array[n : n + 1])
            try:
                self.interpreter.invoke()
            except RuntimeError as error:
                raise ExportError(
                    f"Expected a file that LiteRT runs, but it fails on input {n} ({first_line(error)})."
                ) from error
            for tensor, examples in zip(self._outputs, found):
                examples.append(self.interpreter.get_tensor(tensor))
        return [np.concatenate(examples) for examples in found]

    def seconds(self, times: int) -> float:
        """Seconds an inference takes, over so many of them, on the inputs that were there last."""
        began = self._clock()
        for _ in range(times):
            self.interpreter.invoke()
        return (self._clock() - began) / times


def latencies(files: Mapping[str, Loaded], rounds: int = 100) -> dict[str, float]:
    """The median latency of each file in microseconds, measured side by side: all in turn, each round in another order."""
    times = {name: max(1, round(ROUND / max(loaded.seconds(3), 1e-9))) for name, loaded in files.items()}
    found: dict[str, list[float]] = {name: [] for name in files}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(files)):
            found[name].append(files[name].seconds(times[name]))
    return {name: 1e6 * float(np.median(seconds)) for name, seconds in found.items()}


def share_of_zeros(content: bytes) -> float:
    """The share of exact zeros in the weights of a TFLite file: its constants of rank 2 and more, also where they are stored sparsely."""
    model = schema.Model.GetRootAs(content, 0)
    weights = nonzero = 0
    for number in range(model.SubgraphsLength()):
        graph = model.Subgraphs(number)
        tensors = {
            graph.Tensors(i).Buffer(): graph.Tensors(i) for i in range(graph.TensorsLength())
        }  # shared ones once
        for buffer, tensor in tensors.items():
            values = model.Buffers(buffer)
            if tensor.ShapeLength() >= 2 and tensor.Type() in STORED and values.DataLength():
                weights += int(np.prod(tensor.ShapeAsNumpy()))
                nonzero += int(np.count_nonzero(values.DataAsNumpy().view(STORED[tensor.Type()])))
    return 1 - nonzero / max(weights, 1)
