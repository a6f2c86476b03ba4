"""Each layer of Keras as one of ours, or several."""

from __future__ import annotations

import graphlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..encoding import ModelFormatError, printable
from .assembly import Assembly
from .folding import Refusal
from .keras_file import (
    MAX_DEPTH,
    MODELS,
    Call,
    File,
    Leaf,
    call_of,
    layers_of,
    leaves_of,
    name_of,
    placed,
    references,
    variables_of,
)
from .onnx_file import UnsupportedOperatorError

TRAINING_ALONE = (
    *("ActivityRegularization", "AlphaDropout", "GaussianDropout", "GaussianNoise", "RandomBrightness"),
    *(
        "RandomContrast",
        "RandomFlip",
        "RandomHeight",
        "RandomRotation",
        "RandomTranslation",
        "RandomWidth",
        "RandomZoom",
    ),
)
"""Layers that change nothing in inference."""


# Layer by layer -----------------------------------------------------------------------------------------------------


Config: TypeAlias = Mapping[str, Any]
Arrays: TypeAlias = Mapping[str, np.ndarray]


class Held(NamedTuple):
    """What a file has of a layer: its name, its configuration and its arrays."""

    name: str
    config: Config
    arrays: Arrays


class Network:
    """Puts the layers of a file into an assembly, each under its own name, inner ones behind that of their model."""

    def __init__(self, file: File, assembly: Assembly) -> None:
        self.file, self.assembly = file, assembly

    def model(
        self, entry: Mapping[str, Any], place: str, inputs: Sequence[str], prefix: str, trainable: bool, depth: int
    ) -> list[str]:
        """The outputs of a model that reads these nodes."""
        if depth == MAX_DEPTH:
            raise ModelFormatError(f"models in models, more than {MAX_DEPTH} deep")
        entries = list(placed(layers_of(entry), place))
        if entry["class_name"] == "Sequential":
            (x,) = inputs
            for inner, where in entries:
                (x, *_) = self.layer(inner, where, [x], prefix, trainable, depth)
            return [x]
        return self._functional(entry["config"], entries, inputs, prefix, trainable, depth)

    def _functional(
        self,
        config: Mapping[str, Any],
        entries: Sequence[tuple[Mapping[str, Any], str]],
        inputs: Sequence[str],
        prefix: str,
        trainable: bool,
        depth: int,
    ) -> list[str]:
        outputs: dict[tuple[str, int], list[str]] = {}
        given = [name for name, *_ in references(config.get("input_layers"))]
        if len(given) != len(inputs):
            raise ModelFormatError(
                f"model {name_of({'config': config, 'class_name': 'Functional'})!r} is given {len(inputs)}"
                f" inputs, and has {len(given)}"
            )
        outputs |= {(name, 0): [node] for name, node in zip(given, inputs, strict=True)}
        named = {name_of(inner): (inner, where) for inner, where in entries}
        calls = {
            (name, index): (call_of(told), inner, where)
            for name, (inner, where) in named.items()
            if name not in given
            for index, told in enumerate(inner.get("inbound_nodes") or [])
        }

        def resolved(reference: tuple[str, int, int]) -> tuple[str, int]:
            name, index, _ = reference
            if (name, index) in calls or (name, index) in outputs:
                return name, index
            if (name, 0) in calls and (name, 1) not in calls:  # Keras 2 counts a model's own making as its first call
                return name, 0
            raise ModelFormatError(f"call {index} of layer {name!r} is read, and is not in the file")

        sorter = graphlib.TopologicalSorter(
            {key: [resolved(r) for r in call.inputs] for key, (call, _, _) in calls.items()}
        )
        try:
            order = list(sorter.static_order())
        except graphlib.CycleError as error:
            raise ModelFormatError(f"its layers read each other in a cycle: {error.args[1]}") from None
        for key in order:
            if key in outputs:
                continue
            call, inner, where = calls[key]
            if key[1] and any(map(variables_of, leaves_of(inner, where, True, depth))):
                raise ModelFormatError(
                    f"layer {key[0]!r} is used more than once; weights that are shared cannot be kept so here"
                )
            sources = [outputs[resolved(r)][r[2]] for r in call.inputs]
            outputs[key] = self.layer(inner, where, sources, prefix, trainable, depth, call)
        return [outputs[resolved(r)][r[2]] for r in references(config.get("output_layers"))]

    def layer(
        self,
        entry: Mapping[str, Any],
        place: str,
        inputs: Sequence[str],
        prefix: str,
        trainable: bool,
        depth: int,
        call: Call | None = None,
    ) -> list[str]:
        """The outputs of a layer, or of a model as a layer."""
        name, kind, config = name_of(entry), entry["class_name"], entry["config"]
        trainable = trainable and bool(config.get("trainable", True))
        if kind in MODELS:
            return self.model(entry, place, inputs, f"{prefix}{name}/", trainable, depth + 1)
        try:
            return [self._leaf(Leaf(kind, config, place, trainable), prefix + name, inputs, call)]
        except Refusal as refusal:
            raise UnsupportedOperatorError(f"layer {prefix + name!r} ({kind}) {refusal}") from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise ModelFormatError(f"layer {prefix + name!r} ({kind}): {error}") from error

    def _leaf(self, leaf: Leaf, name: str, inputs: Sequence[str], call: Call | None) -> str:
        kind, config = leaf.kind, leaf.config
        if kind == "InputLayer":
            return inputs[0]
        if kind == "TFOpLambda":  # an operator between layers, as TensorFlow's Keras 2 wrote it
            kind = OPERATORS.get(str(config.get("function")), kind)
        if kind in FUNCTIONS:
            return self.activation(name, FUNCTIONS[kind], inputs[0])
        write = WRITERS.get(kind)
        if write is None:
            raise Refusal(_unknown(kind))
        if config.get("data_format") == "channels_first":
            raise Refusal("is channels_first; save it with channels_last, or export it to ONNX")
        numbers = call.numbers if call else []
        if numbers and kind in SCALINGS and len(inputs) == 1 == len(numbers):
            scale, offset = SCALINGS[kind](numbers[0], call is not None and call.number_first)
            return self.scaled(name, inputs[0], np.asarray(scale), np.asarray(offset))
        if numbers:
            raise Refusal(f"is given numbers beside its inputs ({numbers}), which is not understood")
        y: str = write(self, Held(name, config, self.file.arrays(leaf)), *inputs)
        return self.activation(name, config["activation"], y) if kind in ACTIVATED and config.get("activation") else y

    def add(self, name: str, layer: str, *inputs: str, arrays: Arrays | None = None, **settings: Any) -> str:
        """Append one of our layers, by name."""
        return self.assembly.add(name, layer, *inputs, arrays=dict(arrays or {}), **settings)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one sample of a node's output, or of "input"."""
        return self.assembly.shape(name)

    def activation(self, name: str, told: Any, x: str) -> str:
        """An activation that stands in a configuration: a name, a function, or a layer."""
        if isinstance(told, dict) and isinstance(told.get("config"), dict) and told.get("class_name") in WRITERS:
            inner = Leaf(told["class_name"], told["config"], "", True)
            return self._leaf(inner, f"{name}/{name_of(told)}", [x], None)
        if isinstance(told, dict):
            told = told["config"] if isinstance(told.get("config"), str) else told.get("class_name")
        function = str(told)
        if function == "linear":
            return x
        if function not in ACTIVATIONS:
            raise Refusal(f"has activation {printable(ValueError(function))!r}, which is not supported")
        layer, settings = ACTIVATIONS[function]
        if function == "hard_sigmoid" and self.file.version.startswith("2"):
            settings = {"alpha": 0.2, "beta": 0.5}
        return self.add(f"{name}/{function}", layer, x, **settings)

    def scaled(self, name: str, x: str, scale: np.ndarray, offset: np.ndarray) -> str:
        """scale x + offset, each a number or one a channel."""
        channels = (self.shape(x)[-1],)
        arrays = {"gamma": np.broadcast_to(scale, channels), "beta": np.broadcast_to(offset, channels)}
        return self.add(name, "Affine", x, arrays=arrays)

    def pads(self, x: str, config: Mapping[str, Any], size: Sequence[int]) -> Any:
        """What `padding` of a window is here: 0, equal pads on both sides, or "same" where they are not equal."""
        padding = config.get("padding", config.get("border_mode", "valid"))
        if padding not in ("valid", "same"):
            raise Refusal(f"has padding {padding!r}, expected 'valid' or 'same'")
        if padding == "valid":
            return 0
        strides, dilation = _pair(config.get("strides") or size), _pair(config.get("dilation_rate", 1))
        pads = []
        for n, k, s, d in zip(self.shape(x)[:2], size, strides, dilation, strict=True):
            pads.append(max((-(-int(n) // s) - 1) * s + d * (k - 1) + 1 - int(n), 0))
        return "same" if any(total % 2 for total in pads) else _size([total // 2 for total in pads])


def reason_against(kind: str) -> str:
    """Why a class of layers cannot run here, "" for one that can."""
    known = kind in WRITERS or kind in FUNCTIONS or kind in ("InputLayer", "TFOpLambda")
    return "" if known else _unknown(kind).partition(";")[0]


def _unknown(kind: str) -> str:
    if kind == "Lambda":
        return "holds code, which is not executed; write it with layers of Keras, or export the network to ONNX"
    return "is not supported; a layer of your own in a models.Graph, with the other layers' weights, can take its place"


def _size(value: Any) -> int | tuple[int, int]:
    """The sizes of an axis each, as one writes them: one number where they are equal."""
    first, second = _pair(value)
    return first if first == second else (first, second)


def _pair(value: Any) -> tuple[int, int]:
    if type(value) is int:
        return value, value
    first, second = value
    return int(first), int(second)


def _number(value: Any) -> float:
    """A number, however Keras wrapped it."""
    while isinstance(value, dict):
        value = value.get("value", value.get("config"))
    return float(value)


OPERATORS = {
    "__operators__.add": "Add",
    "math.add": "Add",
    "__operators__.sub": "Subtract",
    "math.subtract": "Subtract",
    "__operators__.mul": "Multiply",
    "math.multiply": "Multiply",
    "__operators__.truediv": "Divide",
    "math.truediv": "Divide",
}


def _divided(number: float, first: bool) -> tuple[float, float]:
    if first:
        raise Refusal("divides a number by its input, which is not supported")
    return 1 / number, 0.0


SCALINGS: dict[str, Callable[[float, bool], tuple[float, float]]] = {
    "Add": lambda number, first: (1.0, number),
    "Subtract": lambda number, first: (-1.0, number) if first else (1.0, -number),
    "Multiply": lambda number, first: (number, 0.0),
    "Divide": _divided,
    "TrueDivide": _divided,
}
"""Arithmetic with a number: the scale and the offset."""

ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("ReLU", {}),
    "relu6": ("Clip", {"low": 0.0, "high": 6.0}),
    "leaky_relu": ("LeakyReLU", {"negative_slope": 0.2}),
    "elu": ("ELU", {}),
    "selu": ("SELU", {}),
    "celu": ("CELU", {}),
    "gelu": ("GELU", {}),
    "silu": ("SiLU", {}),
    "swish": ("SiLU", {}),
    "hard_silu": ("HardSwish", {}),
    "hard_swish": ("HardSwish", {}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "hard_tanh": ("Clip", {"low": -1.0, "high": 1.0}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "softplus": ("Softplus", {}),
    "softsign": ("Softsign", {}),
    "exponential": ("Exp", {}),
    "mish": ("Mish", {}),
    "softmax": ("Softmax", {}),
    "log_softmax": ("LogSoftmax", {}),
}
"""Keras' functions, with the constants that they have when named alone: our layer and its settings."""

WRITERS: dict[str, Callable[..., str]] = {}
FUNCTIONS = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Silu": "silu",
    "Softplus": "softplus",
    "Exp": "exponential",
}
"""Functions of keras.ops between layers that are activations."""

ACTIVATED = (
    *("Dense", "Conv2D", "Convolution2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose"),
    *("Conv1D", "DepthwiseConv1D", "SeparableConv1D"),
)
"""Layers that an activation may be an argument of."""


def _writes(*kinds: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
    def register(write: Callable[..., str]) -> Callable[..., str]:
        WRITERS.update(dict.fromkeys(kinds, write))
        return write

    return register


def _weights(kernel: np.ndarray, arrays: Arrays) -> dict[str, np.ndarray]:
    return {"w": kernel} | ({"b": arrays["bias"]} if "bias" in arrays else {})


@_writes("Dense")
def _dense(net: Network, at: Held, x: str) -> str:
    if at.config.get("quantization_config"):
        raise Refusal("has quantised weights, which are not read")
    kernel, shape = at.arrays["kernel"], net.shape(x)
    units = int(at.config.get("units", at.config.get("output_dim")))
    if len(shape) == 1:
        return net.add(
            at.name, "Linear", x, arrays=_weights(kernel, at.arrays), outputs=units, bias="bias" in at.arrays
        )
    if len(shape) > 3:
        raise Refusal(f"reads samples of shape {shape}, expected one to three axes")
    if len(shape) == 2:
        x = net.add(f"{at.name}/in", "Reshape", x, shape=(shape[0], 1, shape[1]))
    weights = _weights(kernel[np.newaxis, np.newaxis], at.arrays)  # a convolution of one pixel does it to every place
    y = net.add(at.name, "Conv2d", x, arrays=weights, filters=units, size=1, bias="bias" in at.arrays)
    return y if len(shape) == 3 else net.add(f"{at.name}/out", "Reshape", y, shape=(shape[0], units))


def _convolution(
    net: Network, name: str, config: Config, x: str, kernel: np.ndarray, arrays: Arrays, groups: int
) -> str:
    size = _pair(config["kernel_size"])
    return net.add(
        name,
        "Conv2d",
        x,
        arrays=_weights(kernel, arrays),
        filters=kernel.shape[-1],
        size=_size(size),
        stride=_size(config.get("strides", 1)),
        padding=net.pads(x, config, size),
        dilation=_size(config.get("dilation_rate", 1)),
        groups=groups,
        bias="bias" in arrays,
    )


@_writes("Conv2D", "Convolution2D")
def _conv2d(net: Network, at: Held, x: str) -> str:
    if at.arrays["kernel"].ndim != 4 or at.arrays["kernel"].shape[-1] != at.config.get("filters"):
        raise ModelFormatError(
            f"kernel has shape {at.arrays['kernel'].shape}, expected {at.config.get('filters')} filters at its end"
        )
    return _convolution(net, at.name, at.config, x, at.arrays["kernel"], at.arrays, int(at.config.get("groups", 1)))


def _depthwise_kernel(kernel: np.ndarray, channels: int) -> np.ndarray:
    """(KH, KW, C, M) as the weights (KH, KW, 1, C M) of a convolution in C groups."""
    if kernel.ndim != 4 or kernel.shape[2] != channels:
        raise ModelFormatError(f"depthwise_kernel has shape {kernel.shape}, expected {channels} channels")
    return kernel.reshape(*kernel.shape[:2], 1, -1)


@_writes("DepthwiseConv2D")
def _depthwise(net: Network, at: Held, x: str) -> str:
    channels = net.shape(x)[-1]
    return _convolution(
        net, at.name, at.config, x, _depthwise_kernel(at.arrays["depthwise_kernel"], channels), at.arrays, channels
    )


@_writes("SeparableConv2D")
def _separable(net: Network, at: Held, x: str) -> str:
    channels = net.shape(x)[-1]
    kernel = _depthwise_kernel(at.arrays["depthwise_kernel"], channels)
    deep = _convolution(net, f"{at.name}/depthwise", at.config, x, kernel, {}, channels)
    return _convolution(net, at.name, {"kernel_size": 1}, deep, at.arrays["pointwise_kernel"], at.arrays, 1)


@_writes("Conv2DTranspose")
def _transposed(net: Network, at: Held, x: str) -> str:
    size, strides, dilation = (
        _pair(at.config["kernel_size"]),
        _pair(at.config["strides"]),
        _pair(at.config["dilation_rate"]),
    )
    told = at.config.get("output_padding")
    extra = (None, None) if told is None else _pair(told)
    pads = [_transposed_pads(at.config, k, s, d, e) for k, s, d, e in zip(size, strides, dilation, extra, strict=True)]
    return net.add(
        at.name,
        "ConvTranspose2d",
        x,
        arrays=_weights(at.arrays["kernel"], at.arrays),
        filters=int(at.config["filters"]),
        size=_size(size),
        stride=strides,
        padding=tuple((before, max(after, 0)) for before, after in pads),
        output_padding=tuple(max(-after, 0) for _, after in pads),
        dilation=dilation,
        bias="bias" in at.arrays,
    )


def _transposed_pads(config: Config, size: int, stride: int, dilation: int, extra: int | None) -> tuple[int, int]:
    """What a transposed convolution leaves away at both ends of an axis; less than nothing is added.

    Keras: "valid" gives (n − 1) stride + max(k, stride), "same" gives n stride, unless output_padding says otherwise.
    """
    k = (size - 1) * dilation + 1
    if config.get("padding", "valid") == "valid":
        return 0, -(max(k, stride) - k if extra is None else extra)
    total = stride + k - 2 if extra is None else k + k % 2 - 2 + extra
    before = min(total // 2 + total % 2, k - 1)
    return k - 1 - before, k - 1 - (total - before)


@_writes("BatchNormalization")
def _batchnorm(net: Network, at: Held, x: str) -> str:
    _last_axis(net, at.config, x)
    if at.config.get("renorm"):
        raise Refusal("renormalises, which is not supported")
    mean = at.arrays["moving_mean"]
    held = {
        "gamma": at.arrays.get("gamma", np.ones_like(mean)),
        "beta": at.arrays.get("beta", np.zeros_like(mean)),
        "running_mean": mean,
        "running_var": at.arrays["moving_variance"],
    }
    # Keras' momentum is the weight of the old statistic.
    momentum = round(1 - _number(at.config.get("momentum", 0.99)), 12)
    return net.add(at.name, "BatchNorm", x, arrays=held, eps=_number(at.config.get("epsilon", 1e-3)), momentum=momentum)


def _last_axis(net: Network, config: Config, x: str) -> None:
    axes = config.get("axis", -1)
    axes = axes if isinstance(axes, list) else [axes]
    if axes not in ([-1], [len(net.shape(x))]):
        raise Refusal(f"works along axis {axes}, expected the last one")


@_writes("LayerNormalization")
def _layernorm(net: Network, at: Held, x: str) -> str:
    if at.config.get("rms_scaling"):
        raise Refusal("scales without a mean, which is not supported")
    shape = (0, *net.shape(x))
    axes = at.config.get("axis", -1)
    axes = sorted(axis % len(shape) for axis in (axes if isinstance(axes, list) else [axes]))
    sizes = tuple(shape[axis] for axis in axes)
    held = {"gamma": at.arrays.get("gamma", np.ones(sizes)), "beta": at.arrays.get("beta", np.zeros(sizes))}
    settings = {} if axes == [len(shape) - 1] else {"axes": tuple(axis - len(shape) for axis in axes)}
    return net.add(at.name, "LayerNorm", x, arrays=held, eps=_number(at.config.get("epsilon", 1e-3)), **settings)


@_writes("GroupNormalization")
def _groupnorm(net: Network, at: Held, x: str) -> str:
    _last_axis(net, at.config, x)
    channels = net.shape(x)[-1]
    groups = int(at.config.get("groups", 32))
    held = {"gamma": at.arrays.get("gamma", np.ones(channels)), "beta": at.arrays.get("beta", np.zeros(channels))}
    groups = channels if groups == -1 else groups
    return net.add(at.name, "GroupNorm", x, arrays=held, groups=groups, eps=_number(at.config.get("epsilon", 1e-3)))


@_writes("Normalization")
def _normalization(net: Network, at: Held, x: str) -> str:
    if at.config.get("invert"):
        raise Refusal("inverts, which is not supported")
    mean = np.asarray(at.arrays.get("mean", at.config.get("mean")), np.float64).reshape(-1)
    variance = np.asarray(at.arrays.get("variance", at.config.get("variance")), np.float64).reshape(-1)
    scale = 1 / np.maximum(np.sqrt(variance), 1e-7)
    return net.scaled(at.name, x, scale, -mean * scale)


@_writes("Rescaling")
def _rescaling(net: Network, at: Held, x: str) -> str:
    return net.scaled(
        at.name, x, np.asarray(at.config["scale"], float), np.asarray(at.config.get("offset", 0.0), float)
    )


@_writes("MaxPooling2D")
def _maxpool(net: Network, at: Held, x: str) -> str:
    return net.add(at.name, "MaxPool2d", x, **_windows(net, at.config, x))


@_writes("AveragePooling2D")
def _avgpool(net: Network, at: Held, x: str) -> str:
    return net.add(at.name, "AvgPool2d", x, count_include_pad=False, **_windows(net, at.config, x))


def _windows(net: Network, config: Config, x: str) -> dict[str, Any]:
    size = _pair(config.get("pool_size", 2))
    return {"size": _size(size), "stride": _size(config.get("strides") or size), "padding": net.pads(x, config, size)}


@_writes("GlobalMaxPooling2D")
def _global_maxpool(net: Network, at: Held, x: str) -> str:
    return _kept(net, at.name, at.config, net.add(at.name, "GlobalMaxPool2d", x))


@_writes("GlobalAveragePooling2D")
def _global_avgpool(net: Network, at: Held, x: str) -> str:
    return _kept(net, at.name, at.config, net.add(at.name, "GlobalAvgPool2d", x))


def _kept(net: Network, name: str, config: Config, y: str) -> str:
    """(N, C), or (N, 1, 1, C) where the layer keeps its axes."""
    if not config.get("keepdims"):
        return y
    return net.add(f"{name}/keepdims", "Reshape", y, shape=(1, 1, net.shape(y)[-1]))


@_writes("ZeroPadding2D")
def _padded(net: Network, at: Held, x: str) -> str:
    rows, columns = at.config["padding"] if isinstance(at.config["padding"], list) else [at.config["padding"]] * 2
    return net.add(at.name, "Pad2d", x, padding=(_pair(rows), _pair(columns)))


@_writes("UpSampling2D")
def _upsampled(net: Network, at: Held, x: str) -> str:
    if at.config.get("interpolation", "nearest") != "nearest":
        raise Refusal(f"has interpolation {at.config['interpolation']!r}, expected 'nearest'")
    return net.add(at.name, "Upsample2d", x, factor=_size(at.config["size"]))


@_writes("Cropping2D")
def _cropped(net: Network, at: Held, x: str) -> str:
    told = at.config["cropping"]
    for axis, (before, after) in enumerate(map(_pair, told if isinstance(told, list) else [told] * 2)):
        if before or after:
            stop = net.shape(x)[axis] - after
            name = f"{at.name}/{('rows', 'columns')[axis]}"
            x = net.add(name, "Slice", x, axis=axis + 1, start=before, stop=stop)
    return x


# Rows are images of width 1 -------------------------------------------------------------------------------------------


def _one_wide(write: Callable[..., str]) -> Callable[..., str]:
    """What writes a layer over rows (T, C), from that over images."""

    def rows(net: Network, at: Held, x: str) -> str:
        length, channels = net.shape(x)
        sizes = ("kernel_size", "strides", "pool_size", "dilation_rate")
        listed = {key: at.config[key] for key in sizes if at.config.get(key) is not None}
        wide = {key: [*(size if isinstance(size, list) else [size]), 1] for key, size in listed.items()}
        arrays = {key: array[:, np.newaxis] if array.ndim == 3 else array for key, array in at.arrays.items()}
        image = net.add(f"{at.name}/in", "Reshape", x, shape=(length, 1, channels))
        y = write(net, Held(at.name, {**at.config, **wide}, arrays), image)
        if len(net.shape(y)) == 1:
            return y
        return net.add(f"{at.name}/out", "Reshape", y, shape=(net.shape(y)[0], net.shape(y)[2]))

    return rows


_writes("Conv1D")(_one_wide(_conv2d))
_writes("DepthwiseConv1D")(_one_wide(_depthwise))
_writes("SeparableConv1D")(_one_wide(_separable))
_writes("MaxPooling1D")(_one_wide(_maxpool))
_writes("AveragePooling1D")(_one_wide(_avgpool))
_writes("GlobalMaxPooling1D")(_one_wide(_global_maxpool))
_writes("GlobalAveragePooling1D")(_one_wide(_global_avgpool))


# Shapes ---------------------------------------------------------------------------------------------------------------


@_writes("Flatten")
def _flattened(net: Network, at: Held, x: str) -> str:
    return net.add(at.name, "Flatten", x)


@_writes("Reshape")
def _reshaped(net: Network, at: Held, x: str) -> str:
    shape = tuple(int(size) for size in at.config["target_shape"])
    held = net.shape(x)
    if -1 in shape:
        known = math.prod(size for size in shape if size != -1)
        shape = tuple(math.prod(held) // max(known, 1) if size == -1 else size for size in shape)
    if shape == held:
        return x
    return (
        net.add(at.name, "Flatten", x) if shape == (math.prod(held),) else net.add(at.name, "Reshape", x, shape=shape)
    )


@_writes("Permute")
def _permuted(net: Network, at: Held, x: str) -> str:
    return net.add(at.name, "Transpose", x, axes=tuple(int(axis) for axis in at.config["dims"]))


@_writes("Activation")
def _activation(net: Network, at: Held, x: str) -> str:
    return net.activation(at.name, at.config["activation"], x)


@_writes("ReLU")
def _relu(net: Network, at: Held, x: str) -> str:
    most = at.config.get("max_value")
    slope, threshold = _number(at.config.get("negative_slope") or 0.0), _number(at.config.get("threshold") or 0.0)
    if threshold or (slope and most is not None):
        raise Refusal(f"has max_value {most}, negative_slope {slope} and threshold {threshold}, which is not supported")
    if slope:
        return net.add(at.name, "LeakyReLU", x, negative_slope=slope)
    return net.add(at.name, "ReLU", x) if most is None else net.add(at.name, "Clip", x, low=0.0, high=_number(most))


@_writes("LeakyReLU")
def _leaky_relu(net: Network, at: Held, x: str) -> str:
    slope = _number(at.config.get("negative_slope", at.config.get("alpha", 0.3)))
    return net.add(at.name, "LeakyReLU", x, negative_slope=slope)


@_writes("ThresholdedReLU")
def _thresholded(net: Network, at: Held, x: str) -> str:
    return net.add(at.name, "ThresholdedReLU", x, alpha=_number(at.config["theta"]))


@_writes("ELU")
def _elu(net: Network, at: Held, x: str) -> str:
    return net.add(at.name, "ELU", x, alpha=_number(at.config.get("alpha", 1.0)))


@_writes("PReLU")
def _prelu(net: Network, at: Held, x: str) -> str:
    alpha = at.arrays["alpha"]
    if alpha.size != alpha.shape[-1]:
        raise Refusal(f"has alpha of shape {alpha.shape}, expected one a channel (shared_axes=[1, 2])")
    shared = alpha.size == 1 != net.shape(x)[-1]
    return net.add(at.name, "PReLU", x, arrays={"slope": alpha.reshape(-1)}, shared=shared)


@_writes("Softmax")
def _softmax(net: Network, at: Held, x: str) -> str:
    rank = len(net.shape(x)) + 1
    axes = at.config.get("axis", -1)
    axis, *more = axes if isinstance(axes, list) else [axes]
    if more or axis % rank == 0:
        raise Refusal(f"works along {axes}, expected one axis of a sample")
    settings = {} if axis % rank == rank - 1 else {"axis": axis % rank}
    return net.add(at.name, "Softmax", x, **settings)


@_writes("Dropout")
def _dropout(net: Network, at: Held, x: str) -> str:
    if at.config.get("noise_shape") is not None:
        raise Refusal("has a noise_shape, which is not supported")
    return net.add(at.name, "Dropout", x, rate=_number(at.config.get("rate", at.config.get("p"))))


@_writes("SpatialDropout2D")
def _spatial_dropout(net: Network, at: Held, x: str) -> str:
    return net.add(at.name, "Dropout2d", x, rate=_number(at.config["rate"]))


@_writes("Identity")
def _identity(net: Network, at: Held, x: str) -> str:
    return x


@_writes(*TRAINING_ALONE)
def _left_out(net: Network, at: Held, x: str) -> str:
    warnings.warn(f"layer {at.name!r} acts in training alone, and is left out", stacklevel=2)
    return x


@_writes("Add")
def _added(net: Network, at: Held, *x: str) -> str:
    return net.add(at.name, "Add", *x)


@_writes("Average")
def _averaged(net: Network, at: Held, *x: str) -> str:
    return net.scaled(at.name, net.add(f"{at.name}/sum", "Add", *x), np.asarray(1 / len(x)), np.zeros(()))


@_writes("Subtract")
def _subtracted(net: Network, at: Held, *x: str) -> str:
    return net.add(at.name, "Subtract", *x)


@_writes("Multiply")
def _multiplied(net: Network, at: Held, *x: str) -> str:
    return net.add(at.name, "Multiply", *x)


@_writes("Divide", "TrueDivide")
def _quotient(net: Network, at: Held, *x: str) -> str:
    return net.add(at.name, "Divide", *x)


@_writes("Concatenate")
def _concatenated(net: Network, at: Held, *x: str) -> str:
    rank = len(net.shape(x[0])) + 1
    axis = int(at.config.get("axis", -1))
    return (
        net.add(at.name, "Concat", *x) if axis in (-1, rank - 1) else net.add(at.name, "Concat", *x, axis=axis % rank)
    )
