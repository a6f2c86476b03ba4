"""A live `nn.Module` of PyTorch as a `Graph`: by `torch.export`, which records what it computes, operator by operator.

PyTorch's operators are told to the reader of ONNX files in ONNX's words, each as one node: it knows how images lie,
what a view of a flattened image is, and which layer computes what. Batch-norm and dropout stay what they are, whatever
mode the module is in, so that the network can be trained further.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..encoding import ModelFormatError, harmless, printable
from ..graph import Graph
from .folding import Refusal
from .onnx_file import FileInput, FileNode, OnnxFile, UnsupportedOperatorError
from .onnx_operators import MAP_DROPOUT
from .onnx_reader import Row, Walk
from .torch_state import UNREAD, array_of, evaluating, first_of, imported, state_of

OPSET = 21


def from_torch(module: Any, example: Any, backend: str | None = None) -> Graph:
    """The network that a module computes, with its weights: same predictions, any batch size, trainable.

    example: one batch such as the module takes, a tensor or an array (N, C, H, W); its numbers do not matter. Images
    go into the model as (N, H, W, C), and nodes are called as the modules. The module is not changed, nor is its mode.
    Raises UnsupportedOperatorError, by operator and module, for what has no counterpart here; ModelFormatError where
    torch.export cannot record the module, and where torch is not there; TypeError for what is no module.
    """
    torch = imported()
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"from_torch: module is a {type(module).__name__}, expected a torch.nn.Module")
    x = example if isinstance(example, torch.Tensor) else torch.from_numpy(np.array(example))
    if x.ndim < 2:
        raise ValueError(f"from_torch: example has shape {tuple(x.shape)}, expected a batch of samples")
    # Of a batch of one, the record would hold that there is one sample.
    x = torch.cat([x[:1], x[:1]])
    for parameter in module.parameters():
        x = x.to(parameter.device, parameter.dtype if x.is_floating_point() else x.dtype)
    name = type(module).__name__
    try:
        with evaluating(module):
            program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},), strict=False)
    except Exception as error:  # whatever the module's own code raises
        reason = printable(ValueError(str(error).strip().partition("\n")[0]))
        raise ModelFormatError(f"{name}: torch.export cannot record it ({type(error).__name__}: {reason})") from error
    model = _Walk(_Recorder(program, name).file()).graph(backend)
    _check_way_back(model, module)
    return model


def _check_way_back(model: Graph, module: Any) -> None:
    """Warn where `to_torch` would not give back what came in."""
    held = {name: array_of(tensor) for name, tensor in module.state_dict().items()}
    try:
        back = state_of(model, held)
    except ModelFormatError:
        return  # as to_torch will say
    names = [name for name in held if not name.endswith(UNREAD) and not np.array_equal(held[name], back[name])]
    if names:
        warnings.warn(f"{', '.join(names)} lie otherwise here, and to_torch cannot give them back", stacklevel=3)


class _Walk(Walk):
    def _start(self, given: Sequence[int] | None) -> None:
        super()._start(given)
        self.net.exact = True

    def _unsupported(self, row: Row) -> ModelFormatError:
        return UnsupportedOperatorError(f"{self.file.path}: {row.node}, {row.node.operator}, {harmless(row.reason)}")


class _Recorder:
    """Writes the nodes of an exported program down as those of an ONNX file."""

    def __init__(self, program: Any, name: str) -> None:
        self.name = name
        self.nodes: list[FileNode] = []
        self.constants: dict[str, np.ndarray] = {}
        self._program = program
        self._names: dict[Any, str] = {}
        """What each node of the program is called: constants as in the state dict."""
        self._owner: dict[str, str] = {}
        self._parts: dict[Any, list[str]] = {}

    def file(self) -> OnnxFile:
        """The whole program."""
        program = self._program
        signature = program.graph_signature
        held = dict(program.state_dict) | dict(program.constants)
        targets = (
            signature.inputs_to_parameters | signature.inputs_to_buffers | signature.inputs_to_lifted_tensor_constants
        )
        inputs = []
        for node in program.graph.nodes:
            if node.op == "placeholder" and node.name in targets:
                self._names[node] = targets[node.name]
                self.constants[targets[node.name]] = array_of(held[targets[node.name]])
            elif node.op == "placeholder":
                self._names[node] = node.name
                inputs.append(FileInput(node.name, np.dtype(np.float32), _sizes(node)))
            elif node.op == "call_function":
                self._record(node)
            elif node.op == "output":
                first = first_of(node.args[0])
        if first not in self._names:
            raise ModelFormatError(f"{self.name}: its output is no tensor")
        output = FileInput(self._names[first], np.dtype(np.float32), _sizes(first))
        return OnnxFile(Path(self.name), "PyTorch", OPSET, tuple(self.nodes), tuple(inputs), (output,), self.constants)

    def _record(self, node: Any) -> None:
        target = str(node.target)
        if not hasattr(node.meta.get("val"), "shape") and not isinstance(node.meta.get("val"), tuple | list):
            return  # arithmetic on sizes, which the shapes of what is made from them tell
        if target == "<built-in function getitem>":
            self._names[node] = self._parts[node.args[0]][node.args[1]]
            return
        operator = target.removeprefix("aten.")
        base = operator.partition(".")[0]
        write = WRITERS.get(operator) or WRITERS.get(base.rstrip("_"))
        try:
            if write is None:
                raise Refusal("is not supported")
            self._names[node] = node.name
            write(self, node, *node.args, **node.kwargs)
        except Refusal as refusal:
            where = self.module(node)
            raise UnsupportedOperatorError(f"{self.name}: node {where!r}, operator {operator}, {refusal}") from None
        except TypeError as error:
            raise UnsupportedOperatorError(
                f"{self.name}: operator {operator} has arguments that are not understood ({printable(error)})"
            ) from error
        if base.endswith("_") and not base.endswith(
            "__"
        ):  # whoever reads what was there before reads what is there now
            self._names[node.args[0]] = self._names[node]

    def module(self, node: Any) -> str:
        """The path of the module whose whole work a node is, or the node's own name."""
        stack = list(node.meta.get("nn_module_stack", {}).values())
        path, kind = (str(part) for part in stack[-1]) if stack else ("", "")
        return path if path and kind.startswith("torch.nn.modules.") else str(node.name)

    # What writers use --------------------------------------------------------------------------------------

    def read(self, value: Any) -> str:
        """The name of an argument that is a tensor or a number; "" for None."""
        if value is None:
            return ""
        if isinstance(value, bool | int | float):
            return self.constant(np.asarray(value, np.float32))
        if value not in self._names:
            raise Refusal(f"reads {value}, which is no tensor")
        return self._names[value]

    def constant(self, array: np.ndarray, name: str = "") -> str:
        """A constant of its own."""
        name = name or f"constant.{len(self.constants)}"
        self.constants[name] = array
        return name

    def weight(self, value: Any, node: Any) -> str:
        """A parameter, which no other operator may read: each layer has weights of its own here."""
        name = self.read(value)
        if name and name not in self.constants:
            raise Refusal(f"has weights {name!r} that are computed, expected parameters")
        if name and self._owner.setdefault(name, node.name) != node.name:
            raise Refusal(f"shares {name!r} with another operator, and layers here have weights of their own")
        return name

    def put(self, node: Any, operator: str, *inputs: str, **attributes: Any) -> None:
        """One node of a file, whose output is the node's."""
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in attributes.items()}
        self.nodes.append(FileNode(self.module(node), operator, inputs, (self._names[node],), given))

    def step(self, node: Any, operator: str, *inputs: str, **attributes: Any) -> str:
        """One node of a file on the way to the node's output; the name of its own."""
        name = f"{node.name}.{len(self.nodes)}"
        self.nodes.append(FileNode(self.module(node), operator, inputs, (name,), attributes))
        return name

    def parts(self, node: Any, sizes: Sequence[int], x: Any, axis: int) -> None:
        """Parts of an axis, each an output."""
        self._parts[node] = names = [f"{node.name}.{i}" for i in range(len(sizes))]
        given = {"axis": axis, "split": tuple(sizes)}
        self.nodes.append(FileNode(self.module(node), "Split", (self.read(x),), tuple(names), given))


def _sizes(node: Any) -> tuple[int | str, ...]:
    """The shape of a node's output, sizes that are open by name."""
    return tuple(size if type(size) is int else str(size) for size in node.meta["val"].shape)


def _fixed(node: Any) -> tuple[int, ...]:
    """The shape of one sample of a node's output."""
    sizes = _sizes(node)[1:]
    if any(isinstance(size, str) for size in sizes):
        raise Refusal(f"makes a tensor of shape {_sizes(node)}, expected the batch on the first axis alone")
    return sizes  # type: ignore[return-value]


# Operators ------------------------------------------------------------------------------------------------------------

Writer = Callable[..., None]
WRITERS: dict[str, Writer] = {}
"""By PyTorch's name, without the underscore of what works in place; with its overload where they differ."""


def _writes(*names: str) -> Callable[[Writer], Writer]:
    def register(write: Writer) -> Writer:
        WRITERS.update(dict.fromkeys(names, write))
        return write

    return register


def _renamed(name: str, operator: str, *attributes: str) -> None:
    """An operator of one input that ONNX has too; attributes: what its further arguments are called there."""

    def write(to: _Recorder, node: Any, x: Any, *rest: Any, **named: Any) -> None:
        if len(rest) > len(attributes) or named:
            raise Refusal(f"has arguments {rest} {named}, which are not known")
        to.put(node, operator, to.read(x), **{key: float(value) for key, value in zip(attributes, rest, strict=False)})

    WRITERS[name] = write


for _name, _operator in {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "selu": "Selu",
    "hardswish": "HardSwish",
    "mish": "Mish",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "abs": "Abs",
    "neg": "Neg",
    "reciprocal": "Reciprocal",
    "erf": "Erf",
    "sin": "Sin",
    "cos": "Cos",
    "contiguous": "Identity",
    "clone": "Identity",
    "detach": "Identity",
    "alias": "Identity",
    "lift_fresh_copy": "Identity",
    "silu": "Swish",
}.items():
    _renamed(_name, _operator)
_renamed("celu", "Celu", "alpha")


@_writes("leaky_relu")
def _leaky_relu(to: _Recorder, node: Any, x: Any, negative_slope: float = 0.01) -> None:
    to.put(node, "LeakyRelu", to.read(x), alpha=float(negative_slope))


@_writes("elu")
def _elu(to: _Recorder, node: Any, x: Any, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> None:
    if (scale, input_scale) != (1, 1):
        raise Refusal(f"has scale {scale} and input_scale {input_scale}, expected 1")
    to.put(node, "Elu", to.read(x), alpha=float(alpha))


@_writes("softplus")
def _softplus(to: _Recorder, node: Any, x: Any, beta: float = 1.0, threshold: float = 20.0) -> None:
    if beta != 1 or threshold < 20:
        raise Refusal(f"has beta {beta} and threshold {threshold}, expected 1 and 20")
    to.put(node, "Softplus", to.read(x))


@_writes("gelu")
def _gelu(to: _Recorder, node: Any, x: Any, *, approximate: str = "none") -> None:
    to.put(node, "Gelu", to.read(x), approximate=approximate)


@_writes("log_sigmoid")
def _log_sigmoid(to: _Recorder, node: Any, x: Any) -> None:
    """−softplus(−x)."""
    minus = to.step(node, "Neg", to.read(x))
    to.put(node, "Neg", to.step(node, "Softplus", minus))


@_writes("hardsigmoid")
def _hard_sigmoid(to: _Recorder, node: Any, x: Any) -> None:
    to.put(node, "HardSigmoid", to.read(x), alpha=1 / 6, beta=0.5)


@_writes("hardtanh")
def _hard_tanh(to: _Recorder, node: Any, x: Any, low: float = -1.0, high: float = 1.0) -> None:
    to.put(node, "Clip", to.read(x), to.read(low), to.read(high))


@_writes("relu6")
def _relu6(to: _Recorder, node: Any, x: Any) -> None:
    _hard_tanh(to, node, x, 0.0, 6.0)


@_writes("clamp", "clip")
def _clamp(to: _Recorder, node: Any, x: Any, min: float | None = None, max: float | None = None) -> None:
    to.put(node, "Clip", to.read(x), to.read(min), to.read(max))


@_writes("clamp_min")
def _clamp_min(to: _Recorder, node: Any, x: Any, low: float) -> None:
    to.put(node, "Clip", to.read(x), to.read(low))


@_writes("pow.Tensor_Scalar")
def _power(to: _Recorder, node: Any, x: Any, exponent: float) -> None:
    to.put(node, "Pow", to.read(x), to.read(exponent))


@_writes("square")
def _square(to: _Recorder, node: Any, x: Any) -> None:
    _power(to, node, x, 2.0)


@_writes("prelu")
def _prelu(to: _Recorder, node: Any, x: Any, weight: Any) -> None:
    name = to.weight(weight, node)
    slopes = to.constants[name]
    shape = (-1, *(1,) * (len(_sizes(node)) - 2))
    to.put(node, "PRelu", to.read(x), to.constant(slopes.reshape(shape), name))


@_writes("softmax", "log_softmax")
def _softmax(to: _Recorder, node: Any, x: Any, dim: int, dtype: Any = None) -> None:
    kind = "LogSoftmax" if "log_" in str(node.target) else "Softmax"
    to.put(node, kind, to.read(x), axis=dim)


@_writes("dropout")
def _dropout(to: _Recorder, node: Any, x: Any, rate: float, train: bool) -> None:
    to.put(node, "Dropout", to.read(x), ratio=float(rate))


@_writes("feature_dropout")
def _feature_dropout(to: _Recorder, node: Any, x: Any, rate: float, train: bool) -> None:
    to.put(node, MAP_DROPOUT if len(_sizes(x)) > 2 else "Dropout", to.read(x), ratio=float(rate))


@_writes("to", "_to_copy")
def _to(to: _Recorder, node: Any, x: Any, *_: Any, **__: Any) -> None:
    if not node.meta["val"].dtype.is_floating_point:
        raise Refusal(f"makes {node.meta['val'].dtype} of its input, expected floats")
    to.put(node, "Identity", to.read(x))


# Layers with weights --------------------------------------------------------------------------------------------------


def _pair(value: Any, axes: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


@_writes("conv1d", "conv2d")
def _convolution(
    to: _Recorder,
    node: Any,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> None:
    w, b = to.weight(weight, node), to.weight(bias, node)
    size = to.constants[w].shape[2:]
    dilations = _pair(dilation, len(size))
    if padding == "same":  # the odd one at the end
        totals = [d * (k - 1) for d, k in zip(dilations, size, strict=True)]
        pads = [total // 2 for total in totals] + [total - total // 2 for total in totals]
    else:
        pads = [
            0 if padding == "valid" else each for each in _pair(0 if padding == "valid" else padding, len(size))
        ] * 2
    strides = _pair(stride, len(size))
    given: dict[str, Any] = {"kernel_shape": size, "strides": strides, "pads": pads, "dilations": dilations}
    to.put(node, "Conv", to.read(x), w, *([b] if b else []), **given, group=groups)


@_writes("conv_transpose1d", "conv_transpose2d")
def _transposed(
    to: _Recorder,
    node: Any,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> None:
    w, b = to.weight(weight, node), to.weight(bias, node)
    size = to.constants[w].shape[2:]
    axes = len(size)
    given: dict[str, Any] = {"kernel_shape": size, "strides": _pair(stride, axes), "pads": _pair(padding, axes) * 2}
    given |= {"output_padding": _pair(output_padding, axes), "dilations": _pair(dilation, axes), "group": groups}
    to.put(node, "ConvTranspose", to.read(x), w, *([b] if b else []), **given)


@_writes("linear")
def _linear(to: _Recorder, node: Any, x: Any, weight: Any, bias: Any = None) -> None:
    w, b = to.weight(weight, node), to.weight(bias, node)
    to.put(node, "Gemm", to.read(x), w, *([b] if b else []), transB=1)


@_writes("matmul", "mm")
def _matmul(to: _Recorder, node: Any, x: Any, other: Any) -> None:
    to.put(node, "MatMul", to.read(x), to.weight(other, node))


@_writes("addmm")
def _addmm(to: _Recorder, node: Any, bias: Any, x: Any, weight: Any) -> None:
    to.put(node, "Gemm", to.read(x), to.weight(weight, node), to.weight(bias, node))


@_writes("batch_norm")
def _batch_norm(
    to: _Recorder,
    node: Any,
    x: Any,
    weight: Any,
    bias: Any,
    mean: Any,
    var: Any,
    training: bool,
    momentum: float,
    eps: float,
    cudnn: bool,
) -> None:
    if mean is None or var is None:
        raise Refusal("normalises by the batch's own statistics, and keeps none (track_running_stats=False)")
    if momentum is None:
        raise Refusal("averages its statistics over all batches (momentum=None), expected a momentum")
    names = [to.weight(each, node) for each in (weight, bias, mean, var)]
    ones = np.ones_like(to.constants[names[2]])
    prefix = names[2].removesuffix("running_mean")
    names[0] = names[0] or to.constant(ones, f"{prefix}weight")
    names[1] = names[1] or to.constant(0 * ones, f"{prefix}bias")
    to.put(node, "BatchNormalization", to.read(x), *names, epsilon=float(eps), momentum=1 - float(momentum))


@_writes("layer_norm")
def _layer_norm(
    to: _Recorder,
    node: Any,
    x: Any,
    shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    _: bool = True,
) -> None:
    w = to.weight(weight, node) or to.constant(np.ones(shape, np.float32))
    b = to.weight(bias, node) or to.constant(np.zeros(shape, np.float32))
    to.put(node, "LayerNormalization", to.read(x), w, b, axis=-len(shape), epsilon=float(eps))


@_writes("group_norm")
def _group_norm(
    to: _Recorder,
    node: Any,
    x: Any,
    groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    _: bool = True,
) -> None:
    channels = _fixed(node)[0]
    w = to.weight(weight, node) or to.constant(np.ones(channels, np.float32))
    b = to.weight(bias, node) or to.constant(np.zeros(channels, np.float32))
    to.put(node, "GroupNormalization", to.read(x), w, b, num_groups=groups, epsilon=float(eps))


@_writes("instance_norm")
def _instance_norm(
    to: _Recorder,
    node: Any,
    x: Any,
    weight: Any,
    bias: Any,
    mean: Any,
    var: Any,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn: bool,
) -> None:
    if not use_input_stats:
        raise Refusal("normalises by running statistics, which are not supported")
    channels = _fixed(node)[0]
    w = to.weight(weight, node) or to.constant(np.ones(channels, np.float32))
    b = to.weight(bias, node) or to.constant(np.zeros(channels, np.float32))
    to.put(node, "InstanceNormalization", to.read(x), w, b, epsilon=float(eps))


# Pools and means ------------------------------------------------------------------------------------------------------


@_writes("max_pool1d", "max_pool2d")
def _max_pool(
    to: _Recorder,
    node: Any,
    x: Any,
    size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> None:
    axes = len(_sizes(node)) - 2
    kernel = _pair(size, axes)
    given = {"kernel_shape": kernel, "strides": _pair(stride or kernel, axes), "pads": _pair(padding, axes) * 2}
    to.put(node, "MaxPool", to.read(x), **given, dilations=_pair(dilation, axes), ceil_mode=int(ceil_mode))


@_writes("avg_pool1d", "avg_pool2d")
def _avg_pool(
    to: _Recorder,
    node: Any,
    x: Any,
    size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> None:
    if divisor_override is not None:
        raise Refusal("has a divisor of its own, which is not supported")
    axes = len(_sizes(node)) - 2
    kernel = _pair(size, axes)
    given = {"kernel_shape": kernel, "strides": _pair(stride or kernel, axes), "pads": _pair(padding, axes) * 2}
    include = int(count_include_pad)
    to.put(node, "AveragePool", to.read(x), **given, ceil_mode=int(ceil_mode), count_include_pad=include)


@_writes("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d")
def _adaptive(to: _Recorder, node: Any, x: Any, size: Any) -> None:
    kind = "MaxPool" if "max" in str(node.target) else "AveragePool"
    if kind == "MaxPool":  # its second output is the places of the maxima
        to._parts[node] = [node.name]
    held = _sizes(x)[2:]
    wanted = _pair(size, len(held))
    if all(out == 1 for out in wanted):
        to.put(node, f"Global{kind}", to.read(x))
        return
    if any(type(n) is not int or n % out for n, out in zip(held, wanted, strict=True)):
        raise Refusal(f"makes {tuple(wanted)} of {held}, expected a divisor of each")
    kernel = [int(n) // out for n, out in zip(held, wanted, strict=True)]
    to.put(node, kind, to.read(x), kernel_shape=kernel, strides=kernel)


@_writes("mean.dim", "amax")
def _mean(to: _Recorder, node: Any, x: Any, dim: Any, keepdim: bool = False, *, dtype: Any = None) -> None:
    axes = _pair(dim, 1) if dim not in (None, []) else list(range(len(_sizes(x))))
    kind = "ReduceMax" if "amax" in str(node.target) else "ReduceMean"
    to.put(node, kind, to.read(x), axes=axes, keepdims=int(keepdim))


# Shapes ---------------------------------------------------------------------------------------------------------------


@_writes("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")
def _reshape(to: _Recorder, node: Any, x: Any, *_: Any) -> None:
    first = _sizes(node)[0]
    shape = (-1 if isinstance(first, str) else first, *_fixed(node))
    to.put(node, "Reshape", to.read(x), to.constant(np.array(shape, np.int64)))


@_writes("pixel_shuffle")
def _pixel_shuffle(to: _Recorder, node: Any, x: Any, factor: int) -> None:
    """(N, C r², H, W) to (N, C, H r, W r)."""
    channels, height, width = _fixed(x)
    split = np.array([-1, channels // factor**2, factor, factor, height, width], np.int64)
    whole = np.array([-1, *_fixed(node)], np.int64)
    parts = to.step(node, "Reshape", to.read(x), to.constant(split))
    to.put(node, "Reshape", to.step(node, "Transpose", parts, perm=(0, 1, 4, 2, 5, 3)), to.constant(whole))


@_writes("upsample_nearest2d")
def _upsample(to: _Recorder, node: Any, x: Any, size: Any = None, *_: Any, **__: Any) -> None:
    scales = [1.0, 1.0]
    for held, made in zip(_fixed(x)[1:], _fixed(node)[1:], strict=True):
        if made % held:
            raise Refusal(f"makes {made} of {held}, expected a whole multiple")
        scales.append(float(made // held))
    given = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    to.put(node, "Resize", to.read(x), "", to.constant(np.array(scales, np.float32)), **given)


@_writes("permute")
def _permute(to: _Recorder, node: Any, x: Any, dims: Any) -> None:
    rank = len(_sizes(x))
    to.put(node, "Transpose", to.read(x), perm=[dim % rank for dim in dims])


@_writes("transpose")
def _transpose(to: _Recorder, node: Any, x: Any, first: int, second: int) -> None:
    order = list(range(len(_sizes(x))))
    order[first], order[second] = order[second], order[first]
    to.put(node, "Transpose", to.read(x), perm=order)


@_writes("cat", "concat")
def _concat(to: _Recorder, node: Any, tensors: Any, dim: int = 0) -> None:
    to.put(node, "Concat", *map(to.read, tensors), axis=dim)


@_writes("chunk", "split", "split_with_sizes", "tensor_split")
def _split(to: _Recorder, node: Any, x: Any, sizes: Any, dim: int = 0) -> None:
    widths = [_sizes_of(part)[dim] for part in node.meta["val"]]
    if any(not isinstance(width, int) for width in widths):
        raise Refusal("splits the batch")
    to.parts(node, [int(width) for width in widths], x, dim)


def _sizes_of(tensor: Any) -> tuple[int | str, ...]:
    return tuple(size if type(size) is int else str(size) for size in tensor.shape)


@_writes("slice")
def _slice(
    to: _Recorder, node: Any, x: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> None:
    if any(each is not None and type(each) is not int for each in (start, end)):
        raise Refusal("takes a part of the batch")
    given = [start or 0, np.iinfo(np.int64).max if end is None else end, dim, step]
    begin, stop, axis, by = (to.constant(np.array([each], np.int64)) for each in given)
    to.put(node, "Slice", to.read(x), begin, stop, axis, by)


@_writes("select")
def _select(to: _Recorder, node: Any, x: Any, dim: int, index: int) -> None:
    to.put(node, "Gather", to.read(x), to.constant(np.array(index, np.int64)), axis=dim)


@_writes("pad", "constant_pad_nd")
def _pad(
    to: _Recorder, node: Any, x: Any, pad: Sequence[int], mode: Any = "constant", value: float | None = None
) -> None:
    if not isinstance(mode, str):  # constant_pad_nd has the value here
        mode, value = "constant", mode
    if mode not in ("constant", "reflect", "replicate"):
        raise Refusal(f"pads by mode {mode!r}, expected constant, reflect or replicate")
    rank = len(_sizes(x))
    before, after = [0] * rank, [0] * rank
    for at in range(len(pad) // 2):  # the last axis first
        before[rank - 1 - at], after[rank - 1 - at] = pad[2 * at], pad[2 * at + 1]
    pads = to.constant(np.array(before + after, np.int64))
    to.put(node, "Pad", to.read(x), pads, to.read(float(value or 0.0)), mode="edge" if mode == "replicate" else mode)


# Arithmetic -----------------------------------------------------------------------------------------------------------


@_writes("add", "sub", "rsub")
def _sum(to: _Recorder, node: Any, x: Any, other: Any, *, alpha: float = 1) -> None:
    if alpha != 1:
        raise Refusal(f"has alpha {alpha}, expected 1")
    kind = str(node.target).removeprefix("aten.").partition(".")[0].rstrip("_")
    if kind == "rsub":
        x, other = other, x
    to.put(node, "Add" if kind == "add" else "Sub", to.read(x), to.read(other))


@_writes("mul")
def _product(to: _Recorder, node: Any, x: Any, other: Any) -> None:
    to.put(node, "Mul", to.read(x), to.read(other))


@_writes("div")
def _quotient(to: _Recorder, node: Any, x: Any, other: Any, *, rounding_mode: str | None = None) -> None:
    if rounding_mode is not None:
        raise Refusal("rounds, which is not supported")
    to.put(node, "Div", to.read(x), to.read(other))
