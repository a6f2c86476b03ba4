"""`Kernels`: what a person calls. It validates once, allocates, and calls the backend; it holds no mathematics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from . import memory, shapes
from .interface import Backend, Kernel, Program
from .shapes import Pair, Shape

Array = np.ndarray


class Kernels:
    """Every kernel on one backend, as functions from arrays to new arrays.

    Each method's formula stands in `kernels.interface.Backend`. Arrays are C-contiguous numpy arrays of one
    dtype, float32 or float64, with no empty axis; anything else raises TypeError (not an array, dtype) or
    ValueError (shape, strides, a number out of range) and names the argument. Only the optimizers and
    `ema_update` write to their arguments.
    """

    def __init__(self, name: str, backend: Any) -> None:
        self.name = name
        self.backend = backend

    def __repr__(self) -> str:
        return f"<Kernels {self.name}>"

    def function(self, kernel: str | Kernel) -> Callable[..., None]:
        """The fill function of a kernel of the contract, by name, or of a kernel written elsewhere."""
        if isinstance(kernel, Kernel):
            return kernel.on(self.name)
        function: Callable[..., None] = getattr(self.backend, kernel)
        return function

    def scratch_size(self, kernel: str | Kernel, d: Any, n: int) -> int:
        """Elements of scratch that a kernel needs for n samples of dims d."""
        if isinstance(kernel, Kernel):
            return kernel.scratch_size(self.name, d, n)
        size: Callable[[Any, int], int] = getattr(self.backend, f"{kernel}_scratch")
        return size(d, n)

    @property
    def compiles(self) -> bool:
        """Whether the backend makes programs."""
        return hasattr(self.backend, "record")

    def program(self, calls: Iterable[tuple[Callable[..., None], Sequence[Any]]]) -> Program | None:
        """Fill functions with their arguments, some of them a `Scalar`, as one compiled call.

        None where the backend has no such thing, or a function does more than to call the backend's kernels. The
        arrays have to stay where they are.
        """
        record: Callable[..., Program | None] | None = getattr(self.backend, "record", None)
        return None if record is None else record(calls)

    # Contractions ------------------------------------------------------------------------------------------

    def linear(self, x: Array, w: Array, b: Array | None = None) -> Array:
        dtype = shapes.arrays("linear", x=x, w=w, **_given(b=b))
        d = shapes.linear(x.shape, w.shape, _shape(b))
        y = memory.empty((len(x), d.m), dtype)
        self.backend.linear(x, w, b, d, self._scratch("linear", d, x), y)
        return y

    def linear_backward(self, dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
        dtype = shapes.arrays("linear_backward", dy=dy, x=x, w=w)
        d = shapes.linear(x.shape, w.shape, None, "linear_backward")
        shapes.equal("linear_backward", "dy", dy.shape, (len(x), d.m), "the shape of y")
        dx, dw, db = _like(x), _like(w), memory.empty(d.m, dtype)
        self.backend.linear_backward(dy, x, w, d, self._scratch("linear_backward", d, x), dx, dw, db)
        return dx, dw, db

    def conv2d(
        self,
        x: Array,
        w: Array,
        b: Array | None = None,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
    ) -> Array:
        dtype = shapes.arrays("conv2d", x=x, w=w, **_given(b=b))
        d = shapes.conv2d(x.shape, w.shape, _shape(b), stride, padding, dilation, groups)
        y = memory.empty((len(x), d.oh, d.ow, d.f), dtype)
        self.backend.conv2d(x, w, b, d, self._scratch("conv2d", d, x), y)
        return y

    def conv2d_backward(
        self,
        dy: Array,
        x: Array,
        w: Array,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
    ) -> tuple[Array, Array, Array]:
        dtype = shapes.arrays("conv2d_backward", dy=dy, x=x, w=w)
        d = shapes.conv2d(x.shape, w.shape, None, stride, padding, dilation, groups, "conv2d_backward")
        shapes.equal("conv2d_backward", "dy", dy.shape, (len(x), d.oh, d.ow, d.f), "the shape of y")
        dx, dw, db = _like(x), _like(w), memory.empty(d.f, dtype)
        self.backend.conv2d_backward(dy, x, w, d, self._scratch("conv2d_backward", d, x), dx, dw, db)
        return dx, dw, db

    # Pooling -----------------------------------------------------------------------------------------------

    def maxpool2d(self, x: Array, size: Pair = 2, stride: Pair | None = None, padding: Pair = 0) -> tuple[Array, Array]:
        dtype = shapes.arrays("maxpool2d", x=x)
        d = shapes.pool2d(x.shape, size, stride, padding, "maxpool2d")
        y = memory.empty((len(x), d.oh, d.ow, d.c), dtype)
        argmax = memory.empty(y.shape, d.argmax_dtype)
        self.backend.maxpool2d(x, d, y, argmax)
        return y, argmax

    def maxpool2d_backward(
        self,
        dy: Array,
        argmax: Array,
        x_shape: Shape,
        size: Pair = 2,
        stride: Pair | None = None,
        padding: Pair = 0,
    ) -> Array:
        dtype = shapes.arrays("maxpool2d_backward", dy=dy)
        d = shapes.pool2d(tuple(x_shape), size, stride, padding, "maxpool2d_backward")
        shape = (len(dy), d.oh, d.ow, d.c)
        shapes.equal("maxpool2d_backward", "x_shape", x_shape, (len(dy), d.h, d.w, d.c), f"dy {dy.shape}")
        shapes.equal("maxpool2d_backward", "dy", dy.shape, shape, "the shape of y")
        shapes.argmax("maxpool2d_backward", argmax, shape, d)
        dx = memory.empty((len(dy), d.h, d.w, d.c), dtype)
        self.backend.maxpool2d_backward(dy, argmax, d, dx)
        return dx

    def avgpool2d(
        self,
        x: Array,
        size: Pair = 2,
        stride: Pair | None = None,
        padding: Pair = 0,
        count_include_pad: bool = True,
    ) -> Array:
        dtype = shapes.arrays("avgpool2d", x=x)
        d = shapes.pool2d(x.shape, size, stride, padding, "avgpool2d")
        y = memory.empty((len(x), d.oh, d.ow, d.c), dtype)
        self.backend.avgpool2d(x, d, bool(count_include_pad), y)
        return y

    def avgpool2d_backward(
        self,
        dy: Array,
        x_shape: Shape,
        size: Pair = 2,
        stride: Pair | None = None,
        padding: Pair = 0,
        count_include_pad: bool = True,
    ) -> Array:
        dtype = shapes.arrays("avgpool2d_backward", dy=dy)
        d = shapes.pool2d(tuple(x_shape), size, stride, padding, "avgpool2d_backward")
        shapes.equal("avgpool2d_backward", "x_shape", x_shape, (len(dy), d.h, d.w, d.c), f"dy {dy.shape}")
        shapes.equal("avgpool2d_backward", "dy", dy.shape, (len(dy), d.oh, d.ow, d.c), "the shape of y")
        dx = memory.empty((len(dy), d.h, d.w, d.c), dtype)
        self.backend.avgpool2d_backward(dy, d, bool(count_include_pad), dx)
        return dx

    # Normalisation -----------------------------------------------------------------------------------------

    def batchnorm(self, x: Array, gamma: Array, beta: Array, eps: float = 1e-5) -> tuple[Array, Array, Array]:
        d = _channel_vectors("batchnorm", x, gamma=gamma, beta=beta)
        eps = shapes.number("batchnorm", "eps", eps, 0.0)
        y, mean, inv_std, var = _like(x), _like(gamma), _like(gamma), _like(gamma)
        self.backend.batchnorm(x, gamma, beta, eps, d, self._scratch("batchnorm", d, x), y, mean, inv_std, var)
        return y, mean, inv_std

    def batchnorm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, inv_std: Array
    ) -> tuple[Array, Array, Array]:
        d = _channel_vectors("batchnorm_backward", x, dy=dy, gamma=gamma, mean=mean, inv_std=inv_std)
        dx, dgamma, dbeta = _like(x), _like(gamma), _like(gamma)
        scratch = self._scratch("batchnorm_backward", d, x)
        self.backend.batchnorm_backward(dy, x, gamma, mean, inv_std, d, scratch, dx, dgamma, dbeta)
        return dx, dgamma, dbeta

    def batchnorm_inference(
        self, x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float = 1e-5
    ) -> Array:
        _channel_vectors("batchnorm_inference", x, gamma=gamma, beta=beta, mean=mean, var=var)
        y = _like(x)
        self.backend.batchnorm_inference(
            x, gamma, beta, mean, var, shapes.number("batchnorm_inference", "eps", eps, 0.0), y
        )
        return y

    def batchnorm_inference_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float = 1e-5
    ) -> tuple[Array, Array, Array]:
        kernel = "batchnorm_inference_backward"
        d = _channel_vectors(kernel, x, dy=dy, gamma=gamma, mean=mean, var=var)
        eps = shapes.number(kernel, "eps", eps, 0.0)
        dx, dgamma, dbeta = _like(x), _like(gamma), _like(gamma)
        self.backend.batchnorm_inference_backward(
            dy, x, gamma, mean, var, eps, d, self._scratch(kernel, d, x), dx, dgamma, dbeta
        )
        return dx, dgamma, dbeta

    def meannorm(self, x: Array, beta: Array) -> tuple[Array, Array]:
        d = _channel_vectors("meannorm", x, beta=beta)
        y, mean = _like(x), _like(beta)
        self.backend.meannorm(x, beta, d, self._scratch("meannorm", d, x), y, mean)
        return y, mean

    def meannorm_backward(self, dy: Array) -> tuple[Array, Array]:
        return self._meannorm_backward("meannorm_backward", dy)

    def meannorm_inference(self, x: Array, beta: Array, mean: Array) -> Array:
        _channel_vectors("meannorm_inference", x, beta=beta, mean=mean)
        y = _like(x)
        self.backend.meannorm_inference(x, beta, mean, y)
        return y

    def meannorm_inference_backward(self, dy: Array) -> tuple[Array, Array]:
        return self._meannorm_backward("meannorm_inference_backward", dy)

    def _meannorm_backward(self, kernel: str, dy: Array) -> tuple[Array, Array]:
        dtype = shapes.arrays(kernel, dy=dy)
        d = shapes.channels(dy.shape, kernel, "dy")
        dx, dbeta = _like(dy), memory.empty(d.channels, dtype)
        getattr(self.backend, kernel)(dy, d, self._scratch(kernel, d, dy), dx, dbeta)
        return dx, dbeta

    def ema_update(self, running: Array, value: Array, momentum: float) -> None:
        _same_shape("ema_update", running=running, value=value)
        shapes.writeable("ema_update", running=running)
        self.backend.ema_update(running, value, shapes.number("ema_update", "momentum", momentum))

    # Activations -------------------------------------------------------------------------------------------

    def relu(self, x: Array) -> Array:
        return self._map("relu", x)

    def relu_backward(self, dy: Array, x: Array, y: Array) -> Array:
        return self._map_backward("relu_backward", dy, x, y)

    def leaky_relu(self, x: Array, negative_slope: float = 0.01) -> Array:
        return self._map("leaky_relu", x, shapes.number("leaky_relu", "negative_slope", negative_slope))

    def leaky_relu_backward(self, dy: Array, x: Array, y: Array, negative_slope: float = 0.01) -> Array:
        slope = shapes.number("leaky_relu_backward", "negative_slope", negative_slope)
        return self._map_backward("leaky_relu_backward", dy, x, y, slope)

    def elu(self, x: Array, alpha: float = 1.0) -> Array:
        return self._map("elu", x, shapes.number("elu", "alpha", alpha))

    def elu_backward(self, dy: Array, x: Array, y: Array, alpha: float = 1.0) -> Array:
        return self._map_backward("elu_backward", dy, x, y, shapes.number("elu_backward", "alpha", alpha))

    def gelu(self, x: Array) -> Array:
        return self._map("gelu", x)

    def gelu_backward(self, dy: Array, x: Array, y: Array) -> Array:
        return self._map_backward("gelu_backward", dy, x, y)

    def silu(self, x: Array) -> Array:
        return self._map("silu", x)

    def silu_backward(self, dy: Array, x: Array, y: Array) -> Array:
        return self._map_backward("silu_backward", dy, x, y)

    def sigmoid(self, x: Array) -> Array:
        return self._map("sigmoid", x)

    def sigmoid_backward(self, dy: Array, x: Array, y: Array) -> Array:
        return self._map_backward("sigmoid_backward", dy, x, y)

    def tanh(self, x: Array) -> Array:
        return self._map("tanh", x)

    def tanh_backward(self, dy: Array, x: Array, y: Array) -> Array:
        return self._map_backward("tanh_backward", dy, x, y)

    def softplus(self, x: Array) -> Array:
        return self._map("softplus", x)

    def softplus_backward(self, dy: Array, x: Array, y: Array) -> Array:
        return self._map_backward("softplus_backward", dy, x, y)

    def dropout(self, x: Array, rate: float = 0.5, seed: int = 0, step: int = 0) -> tuple[Array, Array]:
        shapes.arrays("dropout", x=x)
        rate = shapes.number("dropout", "rate", rate, 0.0, below=1.0)
        seed, step = shapes.integer("dropout", "seed", seed, 0), shapes.integer("dropout", "step", step, 0)
        y, mask = _like(x), memory.empty(x.shape, np.bool_)
        self.backend.dropout(x, rate, seed, step, y, mask)
        return y, mask

    def dropout_backward(self, dy: Array, mask: Array, rate: float = 0.5) -> Array:
        shapes.arrays("dropout_backward", dy=dy)
        shapes.mask("dropout_backward", mask, dy.shape)
        dx = _like(dy)
        rate = shapes.number("dropout_backward", "rate", rate, 0.0, below=1.0)
        self.backend.dropout_backward(dy, mask, rate, dx)
        return dx

    # Outputs and losses ------------------------------------------------------------------------------------

    def softmax(self, x: Array) -> Array:
        return self._map("softmax", x)

    def softmax_backward(self, dy: Array, x: Array, y: Array) -> Array:
        return self._map_backward("softmax_backward", dy, x, y)

    def log_softmax(self, x: Array) -> Array:
        return self._map("log_softmax", x)

    def log_softmax_backward(self, dy: Array, x: Array, y: Array) -> Array:
        return self._map_backward("log_softmax_backward", dy, x, y)

    def softmax_cross_entropy(self, logits: Array, labels: Array, smoothing: float = 0.0) -> tuple[Array, Array]:
        kernel = "softmax_cross_entropy"
        dtype = shapes.arrays(kernel, logits=logits)
        shapes.rank(kernel, "logits", logits.shape, 2, "samples, classes")
        labels = shapes.labels(kernel, labels, *logits.shape)
        smoothing = shapes.number(kernel, "smoothing", smoothing, 0.0, below=1.0)
        d = shapes.channels(logits.shape, kernel, "logits")
        loss, dlogits = memory.empty((), dtype), _like(logits)
        self.backend.softmax_cross_entropy(
            logits, labels, smoothing, d, self._scratch(kernel, d, logits), loss, dlogits
        )
        return loss, dlogits

    def mse(self, prediction: Array, target: Array) -> tuple[Array, Array]:
        dtype = _same_shape("mse", prediction=prediction, target=target)
        d = shapes.channels(prediction.shape, "mse", "prediction")
        loss, dprediction = memory.empty((), dtype), _like(prediction)
        self.backend.mse(prediction, target, d, self._scratch("mse", d, prediction), loss, dprediction)
        return loss, dprediction

    # Joining branches --------------------------------------------------------------------------------------

    def add(self, a: Array, b: Array) -> Array:
        _same_shape("add", a=a, b=b)
        y = _like(a)
        self.backend.add(a, b, y)
        return y

    def add_backward(self, dy: Array) -> tuple[Array, Array]:
        shapes.arrays("add_backward", dy=dy)
        da, db = _like(dy), _like(dy)
        self.backend.add_backward(dy, da, db)
        return da, db

    def concat(self, a: Array, b: Array) -> Array:
        dtype = shapes.arrays("concat", a=a, b=b)
        shapes.concat(a.shape, b.shape)
        y = memory.empty((*a.shape[:-1], a.shape[-1] + b.shape[-1]), dtype)
        self.backend.concat(a, b, y)
        return y

    def concat_backward(self, dy: Array, split: int) -> tuple[Array, Array]:
        """The parts of dy along the last axis before and from index `split`."""
        dtype = shapes.arrays("concat_backward", dy=dy)
        split = shapes.integer("concat_backward", "split", split, 1)
        if split >= dy.shape[-1]:
            raise ValueError(f"concat_backward: split is {split}, expected less than dy's {dy.shape[-1]} channels")
        da = memory.empty((*dy.shape[:-1], split), dtype)
        db = memory.empty((*dy.shape[:-1], dy.shape[-1] - split), dtype)
        self.backend.concat_backward(dy, da, db)
        return da, db

    # Augmentation ------------------------------------------------------------------------------------------

    def uniform(
        self, indices: Array, shape: tuple[int, ...], seed: int = 0, step: int = 0, dtype: DTypeLike = np.float32
    ) -> Array:
        indices = shapes.indices("uniform", indices)
        sizes = [shapes.integer("uniform", f"shape[{at}]", size, 1) for at, size in enumerate(shape)]
        seed, step = shapes.integer("uniform", "seed", seed, 0), shapes.integer("uniform", "step", step, 0)
        if (dtype := np.dtype(dtype)) not in shapes.FLOAT_DTYPES:
            raise TypeError(f"uniform: dtype is {dtype}, expected float32 or float64")
        u = memory.empty((len(indices), *sizes), dtype)
        self.backend.uniform(indices, seed, step, u)
        return u

    def smooth2d(self, x: Array, weights: Array) -> Array:
        shapes.arrays("smooth2d", x=x, weights=weights)
        d = shapes.image(x.shape, "smooth2d")
        shapes.rank("smooth2d", "weights", weights.shape, 1, "distances from the middle")
        y = _like(x)
        self.backend.smooth2d(x, weights, d, self._scratch("smooth2d", d, x), y)
        return y

    def warp(self, x: Array, matrix: Array, field: Array | None = None, fill: float = 0.0) -> Array:
        shapes.arrays("warp", x=x, matrix=matrix, **_given(field=field))
        d = shapes.image(x.shape, "warp")
        shapes.equal("warp", "matrix", matrix.shape, (len(x), 2, 3), f"x {shapes.text(x.shape)}")
        if field is not None:
            shapes.equal("warp", "field", field.shape, (len(x), d.h, d.w, 2), f"x {shapes.text(x.shape)}")
        y = _like(x)
        fill = shapes.number("warp", "fill", fill)
        self.backend.warp(x, matrix, field, fill, d, self._scratch("warp", d, x), y)
        return y

    # Optimizers --------------------------------------------------------------------------------------------

    def sgd(
        self,
        p: Array,
        g: Array,
        v: Array | None,
        learning_rate: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        rates = _rates("sgd", learning_rate, weight_decay)
        momentum = shapes.number("sgd", "momentum", momentum, 0.0, below=1.0)
        if v is None and momentum:
            raise ValueError(f"sgd: v is None, expected an array like p for momentum {momentum}")
        _state("sgd", p, g, **_given(v=v))
        self.backend.sgd(p, g, v, rates[0], momentum, bool(nesterov), rates[1], bool(decoupled))

    def rmsprop(
        self,
        p: Array,
        g: Array,
        v: Array,
        learning_rate: float,
        rho: float = 0.9,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        rates = _rates("rmsprop", learning_rate, weight_decay)
        rho = shapes.number("rmsprop", "rho", rho, 0.0, below=1.0)
        eps = shapes.number("rmsprop", "eps", eps, 0.0)
        _state("rmsprop", p, g, v=v)
        self.backend.rmsprop(p, g, v, rates[0], rho, eps, rates[1], bool(decoupled))

    def adam(
        self,
        p: Array,
        g: Array,
        m: Array,
        v: Array,
        step: int,
        learning_rate: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        rates = _rates("adam", learning_rate, weight_decay)
        step = shapes.integer("adam", "step", step, 1)
        beta1 = shapes.number("adam", "beta1", beta1, 0.0, below=1.0)
        beta2 = shapes.number("adam", "beta2", beta2, 0.0, below=1.0)
        eps = shapes.number("adam", "eps", eps, 0.0)
        _state("adam", p, g, m=m, v=v)
        self.backend.adam(p, g, m, v, step, rates[0], beta1, beta2, eps, rates[1], bool(decoupled))

    def adamw(
        self,
        p: Array,
        g: Array,
        m: Array,
        v: Array,
        step: int,
        learning_rate: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        """`adam` with decoupled weight decay. Loshchilov and Hutter 2019."""
        self.adam(p, g, m, v, step, learning_rate, beta1, beta2, eps, weight_decay, decoupled=True)

    # What the methods share --------------------------------------------------------------------------------

    def _scratch(self, kernel: str, d: Any, x: Array) -> Array:
        return memory.empty(self.scratch_size(kernel, d, len(x)), x.dtype)

    def _map(self, kernel: str, x: Array, *attributes: float) -> Array:
        shapes.arrays(kernel, x=x)
        y = _like(x)
        getattr(self.backend, kernel)(x, *attributes, y)
        return y

    def _map_backward(self, kernel: str, dy: Array, x: Array, y: Array, *attributes: float) -> Array:
        _same_shape(kernel, dy=dy, x=x, y=y)
        dx = _like(x)
        getattr(self.backend, kernel)(dy, x, y, *attributes, dx)
        return dx


def _shape(array: Array | None) -> Shape | None:
    return None if array is None else array.shape


def _given(**optional: Array | None) -> dict[str, Array]:
    return {name: array for name, array in optional.items() if array is not None}


def _like(array: Array) -> Array:
    return memory.empty(array.shape, array.dtype)


def _same_shape(kernel: str, **named: Array) -> np.dtype:
    dtype = shapes.arrays(kernel, **named)
    first, *others = named
    for name in others:
        shapes.equal(kernel, name, named[name].shape, named[first].shape, f"the shape of {first}")
    return dtype


def _channel_vectors(kernel: str, x: Array, **named: Array) -> shapes.ChannelDims:
    """Check dy against x's shape and every other array against its channels."""
    shapes.arrays(kernel, x=x, **named)
    d = shapes.channels(x.shape, kernel)
    for name, array in named.items():
        expected = x.shape if name == "dy" else (d.channels,)
        shapes.equal(kernel, name, array.shape, expected, f"x {shapes.text(x.shape)}")
    return d


def _rates(kernel: str, learning_rate: float, weight_decay: float) -> tuple[float, float]:
    return (
        shapes.number(kernel, "learning_rate", learning_rate),
        shapes.number(kernel, "weight_decay", weight_decay, 0.0),
    )


def _state(kernel: str, p: Array, g: Array, **state: Array) -> None:
    _same_shape(kernel, p=p, g=g, **state)
    shapes.writeable(kernel, p=p, **state)


for _name, _function in list(vars(Kernels).items()):
    # The formula has one home; help() on a method shows it from there.
    if not _name.startswith("_") and not _function.__doc__ and hasattr(Backend, _name):
        _function.__doc__ = getattr(Backend, _name).__doc__
