"""What a model does with its matrices: which are its outputs, which read its inputs, which are no matrices at all.

A model is asked by running it: its call is traced once, on inputs of no value, and the graph that TensorFlow makes of it is read.
So it does not matter how the model is written (Functional, subclassed, nested, with loops and conditions), nor in which order
it made its layers.

Along the graph each tensor carries the matrices whose channels are its channels: those that a product with a matrix has just
made, and what elementwise operations, reshapes, concatenations, reductions and attention pass on. A product with another
matrix mixes them, so that only its own are left; a depthwise convolution mixes none.

>>> hidden = keras.layers.Dense(8, "relu", name="body")(inputs := keras.Input((4,)))
>>> heads = [keras.layers.Dense(2, name="one")(hidden), keras.layers.Softmax()(keras.layers.Dense(3, name="other")(hidden))]
>>> model = keras.Model(inputs, heads)
>>> sorted(variable.path for variable in model.variables if Roles(model).is_output(variable))
['one/kernel', 'other/kernel']
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_lottery.base.errors import LotteryError

MIXES = {"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "SparseTensorDenseMatMul", "Einsum"}
MIXES |= {"Conv", "Conv2D", "Conv3D", "Conv2DBackpropInput", "Conv3DBackpropInput", "Conv3DBackpropInputV2"}
MIXES |= {"XlaConv", "XlaConvV2", "XlaDot", "XlaDotV2", "CudnnRNN", "CudnnRNNV2", "CudnnRNNV3"}
DEPTHWISE = "DepthwiseConv2dNative"
SUMS = {"Sum", "Mean"}
VALUELESS = {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"}  # depend on the form of a tensor alone


class _Carried(NamedTuple):
    """Whether a tensor depends on the model's inputs, and the matrices (`id`s of variables) that it carries."""

    data: bool = False
    matrices: frozenset[int] = frozenset()

    def __or__(self, other: _Carried) -> _Carried:
        return _Carried(self.data or other.data, self.matrices | other.matrices)


NOTHING = _Carried()


class Roles:
    """The parts that the matrices of a built model or layer play; it is traced when they are first asked for.

    Args:
      model: A plain Keras model or layer, or one with wrapped layers inside.
    """

    def __init__(self, model: keras.layers.Layer):
        self._model = model

    @functools.cached_property
    def _read(self) -> _Graph | LotteryError:
        try:
            return _Graph(self._model)
        except Exception as error:  # whatever a call of somebody else's raises
            return LotteryError(
                f"Expected to run {self._model.name!r} on an input of the shape that it was built with, to see which kernels are its "
                f"outputs, but it failed ({' '.join(str(error).split())[:200]}): build or call it on data first."
            )

    def check(self) -> None:
        """
        Raises:
          LotteryError: If the model cannot be asked; the sentence says why.
        """
        if isinstance(self._read, LotteryError):
            raise self._read

    @property
    def known(self) -> bool:
        return isinstance(self._read, _Graph)

    def is_output(self, variable: keras.Variable) -> bool:
        """Whether channels of this matrix reach an output of the model with no other matrix in between."""
        return id(variable) in self._graph.outputs

    def reads_input(self, variable: keras.Variable) -> bool:
        """Whether this matrix is multiplied with inputs of the model that no other matrix has been multiplied with."""
        return id(variable) in self._graph.first

    def is_depthwise(self, variable: keras.Variable) -> bool:
        """Whether it is the kernel of a depthwise convolution."""
        return id(variable) in self._graph.depthwise

    def is_no_matrix(self, variable: keras.Variable) -> bool:
        """Whether activations meet it, but no matrix product or convolution does: a table that is added to them, say."""
        return id(variable) in self._graph.met - self._graph.multiplied

    @property
    def _graph(self) -> _Graph:
        self.check()
        return self._read  # type: ignore[return-value]


class _Graph:
    """The call of a model as TensorFlow sees it, read from its inputs to its outputs."""

    def __init__(self, model: keras.layers.Layer):
        self.first: set[int] = set()
        self.depthwise: set[int] = set()
        self.met: set[int] = set()  # what activations meet
        self.multiplied: set[int] = set()  # of these, what a product sums over
        self._scaled: set[int] = set()  # what activations are multiplied with elementwise: with a sum it is a product
        variables = [v for v in model.variables if len(v.shape) >= 2 and v.value.dtype.is_floating]
        concrete = _traced(model, variables)
        definition = concrete.graph.as_graph_def()
        self._functions = {function.signature.name: function for function in definition.library.function}
        start = {tensor.op.name: _Carried(data=True) for tensor in concrete.inputs}
        known = {tensor.op.name: variable for tensor, variable in zip(concrete.inputs, variables)}
        handles = {id(v.value.handle): v for v in variables if hasattr(v.value, "handle")}
        captured = concrete.captured_inputs  # where a call that was traced before reads variables itself
        for tensor, outside in zip(concrete.inputs[len(concrete.inputs) - len(captured) :], captured):
            start[tensor.op.name] = NOTHING
            if id(outside) in handles:
                known[tensor.op.name] = handles[id(outside)]
        start |= {name: _Carried(matrices=frozenset({id(variable)})) for name, variable in known.items()}
        carried = self._run(definition.node, start, [tensor.name for tensor in concrete.outputs])
        self.outputs = functools.reduce(_Carried.__or__, carried, NOTHING).matrices

    def _run(self, nodes: Iterable, start: Mapping[str, _Carried], wanted: Sequence[str]) -> list[_Carried]:
        """What the wanted tensors carry, given what the arguments carry."""
        found: dict[str, _Carried | list[_Carried]] = dict(start)
        waiting = [node for node in nodes if node.name not in found]
        while waiting:
            left = []
            for node in waiting:
                inputs = [ref for ref in node.input if ref[0] != "^"]
                if all(ref.partition(":")[0] in found for ref in inputs):
                    found[node.name] = self._applied(node, [_at(found, ref) for ref in inputs])
                else:
                    left.append(node)
            if len(left) == len(waiting):
                raise ValueError(f"a circle in the graph, at {left[0].name}")
            waiting = left
        return [_at(found, ref) for ref in wanted]

    def _applied(self, node, inputs: list[_Carried]) -> _Carried | list[_Carried]:
        if node.op in ("PartitionedCall", "StatefulPartitionedCall"):
            return self._called(node.attr["f"].func.name, inputs)
        if node.op in ("While", "StatelessWhile"):
            state = inputs
            while (after := _either(state, self._called(node.attr["body"].func.name, state))) != state:
                state = after
            return state
        if node.op in ("If", "StatelessIf"):
            branches = [node.attr[name].func.name for name in ("then_branch", "else_branch")]
            return functools.reduce(_either, [self._called(name, inputs[1:]) for name in branches])
        if node.op in ("Case", "StatelessCase"):
            branches = [function.name for function in node.attr["branches"].list.func]
            return functools.reduce(_either, [self._called(name, inputs[1:]) for name in branches])
        return NOTHING if node.op in VALUELESS else self._met(node, inputs)

    def _called(self, name: str, inputs: Sequence[_Carried]) -> list[_Carried]:
        function = self._functions[name]
        start = {argument.name: carried for argument, carried in zip(function.signature.input_arg, inputs)}
        wanted = [function.ret[output.name] for output in function.signature.output_arg]
        return self._run(function.node_def, start, wanted)

    def _met(self, node, inputs: Sequence[_Carried]) -> _Carried:
        data = functools.reduce(_Carried.__or__, [carried for carried in inputs if carried.data], NOTHING)
        matrices = frozenset().union(*(carried.matrices for carried in inputs if not carried.data))
        if node.op in SUMS:
            self.multiplied |= data.matrices & self._scaled
        if not data.data or not matrices:
            return _Carried(data.data, data.matrices | matrices)
        self.met |= matrices
        if node.op == "Mul":
            self._scaled |= matrices
        if node.op in MIXES or node.op == DEPTHWISE:
            if not data.matrices & self.multiplied:
                self.first |= matrices
            self.multiplied |= matrices
            if node.op == DEPTHWISE:
                self.depthwise |= matrices
            else:
                return _Carried(True, matrices)
        return _Carried(True, data.matrices | matrices)


def _at(found: Mapping[str, _Carried | list[_Carried]], reference: str) -> _Carried:
    """What `name`, `name:1` or within functions `name:output:1` carries; only calls have outputs that differ."""
    name, *place = reference.split(":")
    carried = found[name]
    return carried[int(place[-1]) if place else 0] if isinstance(carried, list) else carried


def _either(one: Sequence[_Carried], other: Sequence[_Carried]) -> list[_Carried]:
    return [a | b for a, b in zip(one, other)]


def _traced(model: keras.layers.Layer, variables: Sequence[keras.Variable]):
    """The model's call as a function of the values of these variables and of its inputs."""
    values = [tf.TensorSpec(variable.shape, variable.value.dtype) for variable in variables]

    def call(values, args, kwargs):
        with keras.StatelessScope(list(zip(variables, values)), collect_losses=True):
            outputs = keras.tree.flatten(model(*args, **kwargs))
        return [tf.identity(tf.convert_to_tensor(output)) for output in outputs if output is not None]

    error: Exception = ValueError("the shape of its inputs is not known")
    for args, kwargs in _inputs(model):
        try:
            return tf.function(call, autograph=False).get_concrete_function(values, args, kwargs)
        except Exception as raised:
            error = raised
    raise error


def _inputs(model: keras.layers.Layer) -> Iterator[tuple[list, dict]]:
    """What the model can be called on, as arguments: what it says, or of the shapes it was built with, numbers or indices."""
    with contextlib.suppress(AttributeError, ValueError, TypeError):  # neither Functional nor Sequential
        yield [keras.tree.map_structure(lambda like: tf.TensorSpec(like.shape, like.dtype), model.input)], {}
    built: Any = model.get_build_config() or {}
    for dtype in (model.compute_dtype, "int32"):

        def spec(shape, dtype=dtype):
            return tf.TensorSpec(shape, dtype)

        if built.get("input_shape") is not None:
            yield [keras.tree.map_shape_structure(spec, built["input_shape"])], {}
        elif shapes := built.get("shapes_dict"):
            named = {name.removesuffix("_shape"): shape for name, shape in shapes.items() if shape is not None}
            yield [], {name: keras.tree.map_shape_structure(spec, shape) for name, shape in named.items()}
