"""`Kernels`: what a person calls. It validates once, allocates, and calls the backend; it holds no mathematics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike

from . import memory, polynomials, shapes
from .interface import Backend, FoldSize, Kernel, Program, Programs, ScratchSize, roles
from .shapes import Padding, Pair, Shape, Sides

Array = np.ndarray


class Kernels:
    """Every kernel on one backend, as functions from arrays to new arrays; made by `kernels.get`.

    A kernel's whole rule, with what becomes of ties and NaN, stands under its name in `kernels.Backend`. Arrays are
    C-contiguous numpy arrays of one dtype, float32 or float64, with no empty axis; images are NHWC. Anything else
    raises TypeError (not an array, dtype) or ValueError (shape, strides, alignment, a number out of range), whose
    message begins with the kernel and the argument. Results are new arrays of that dtype. Only the optimizers and
    `ema_update` write to their arguments.

    name: the backend's.
    backend: its functions, which fill arrays that they are handed and check nothing; the methods call them.

    >>> import numpy as np
    >>> import kernels
    >>> k = kernels.get("numpy")
    >>> k.linear(np.ones((2, 3)), np.ones((3, 1)), np.array([0.5]))
    array([[3.5],
           [3.5]])
    """

    def __init__(self, name: str, backend: Any) -> None:
        self.name = name
        self.backend: Backend = backend

    def __repr__(self) -> str:
        return f"<Kernels {self.name}>"

    def __reduce__(self) -> tuple[Callable[[str], Kernels], tuple[str]]:
        from . import get  # which makes them

        return get, (self.name,)

    def has(self, name: str) -> bool:
        """Whether the backend has a function of this name.

        Args:
            name: of a kernel, such as one of `kernels.interface.Fused`, which a backend may lack.

        Returns:
            Whether it has.
        """
        return isinstance(name, str) and callable(getattr(self.backend, name, None))

    def function(self, kernel: str | Kernel) -> Callable[..., None]:
        """The fill function of a kernel: it writes into arrays that its caller made, and checks nothing.

        Args:
            kernel: a name of `kernels.Backend`, or of `Fused` or `Batches` beside it; or a `kernels.Kernel`.

        Returns:
            The function, whose parameters are the contract's.

        Raises:
            TypeError: kernel is neither a name nor a Kernel.
            ValueError: there is no such kernel, or this backend has none.
        """
        if isinstance(kernel, Kernel):
            return kernel.on(self.name)
        if not isinstance(kernel, str):
            raise TypeError(f"kernel is a {type(kernel).__name__}, expected a name or a kernels.Kernel")
        function: Callable[..., None] = self._find(kernel, kernel)
        return function

    def scratch_size(self, kernel: str | Kernel, d: Any, n: int) -> int:
        """How much scratch a kernel needs.

        Args:
            kernel: as in `function`.
            d: the dims of the call, from `kernels.shapes`.
            n: number of samples.

        Returns:
            Elements of the kernel's `scratch`.

        Raises:
            ValueError: there is no such kernel, it takes no scratch, or this backend has none.
        """
        if isinstance(kernel, Kernel):
            return kernel.scratch_size(self.name, d, n)
        size: ScratchSize = self._find(kernel, f"{kernel}_scratch")
        return size(d, n)

    def fold_size(self, kernel: str, d: Any) -> int:
        """How much room a contraction's folded parameters take, which each backend lays out in its own way.

        Args:
            kernel: "conv2d" or "linear".
            d: its dims, from `kernels.shapes`.

        Returns:
            Elements of `packed`, as `kernels.interface.Fused` names it.

        Raises:
            ValueError: there is no such kernel, or this backend folds none.
        """
        size: FoldSize = self._find(kernel, f"{kernel}_fold_size")
        return size(d)

    @property
    def compiles(self) -> bool:
        """Whether the backend makes programs."""
        return self.has("record")

    def program(self, calls: Iterable[tuple[Callable[..., None], Sequence[Any]]]) -> Program | None:
        """Fill functions with their arguments, some of them a `Scalar`, as one compiled call.

        Args:
            calls: pairs of a function and its arguments. The arrays have to stay where they are.

        Returns:
            The program; None where the backend makes none, or a function does more than to call the backend's kernels.
        """
        return cast(Programs, self.backend).record(calls) if self.compiles else None

    # Contractions ------------------------------------------------------------------------------------------

    def linear(self, x: Array, w: Array, b: Array | None = None) -> Array:
        """y = x w + b.

        Args:
            x: inputs (N, K).
            w: weights (K, M).
            b: biases (M,), or None for none.

        Returns:
            y (N, M).

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; w has another K than x, b another M than w.
        """
        dtype = shapes.arrays("linear", x=x, w=w, **_given(b=b))
        d = shapes.linear(x.shape, w.shape, _shape(b))
        y = memory.empty((len(x), d.m), dtype)
        self.backend.linear(x, w, b, d, self._scratch("linear", d, x), y)
        return y

    def linear_backward(self, dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
        """Gradients of `linear`: dx = dy wᵀ, dw = xᵀ dy, db = Σₙ dy.

        Args:
            dy: gradient of a scalar loss by y, (N, M).
            x: the forward's inputs (N, K).
            w: the forward's weights (K, M).

        Returns:
            dx (N, K), dw (K, M) and db (M,).

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; w has another K than x, dy is not of y's
                shape.
        """
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
        padding: Padding = 0,
        dilation: Pair = 1,
        groups: int = 1,
    ) -> Array:
        """Convolves images with filters as deep learning does: a cross-correlation, no filter is turned round.

        y[n, p, q, f] = b[f] + Σ x[n, p·stride − padding + i·dilation, q·stride − padding + j·dilation, c] w[i, j, c, f]
        over a filter's rows i, columns j and channels c. Places outside x are no terms of the sum.

        Args:
            x: images (N, H, W, C).
            w: filters (KH, KW, C / groups, F).
            b: biases (F,), or None for none.
            stride: step of the window, an int or an (h, w) pair, at least 1.
            padding: places added around the images, an int or an (h, w) pair, ((top, bottom), (left, right)), each at
                least 0; or "same" for ⌈H / stride⌉ by ⌈W / stride⌉ windows, an odd place at the end, or "same_lower",
                at the beginning.
            dilation: distance between a filter's taps, an int or an (h, w) pair, at least 1.
            groups: number of groups, a divisor of C and F; filters of group g see the channels of group g alone.

        Returns:
            y (N, OH, OW, F), with OH = ⌊(H + top + bottom − dilation (KH − 1) − 1) / stride⌋ + 1, and OW likewise.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; w or b does not fit x and groups, or the
                filter does not fit into the padded image; stride, padding, dilation or groups is out of range.

        >>> import numpy as np
        >>> import kernels
        >>> x, w = np.ones((1, 4, 4, 1)), np.ones((3, 3, 1, 2))
        >>> kernels.get("numpy").conv2d(x, w, stride=2, padding=(1, 0))[0, :, :, 0]
        array([[6.],
               [9.]])
        """
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
        padding: Padding = 0,
        dilation: Pair = 1,
        groups: int = 1,
    ) -> tuple[Array, Array, Array]:
        """Gradients of `conv2d`: each of dx, dw and db sums dy times what y has multiplied it with.

        The whole rule: `kernels.Backend.conv2d_backward`.

        Args:
            dy: gradient of a scalar loss by y, (N, OH, OW, F).
            x: the forward's images (N, H, W, C).
            w: the forward's filters (KH, KW, C / groups, F).
            stride: the forward's, an int or an (h, w) pair.
            padding: the forward's.
            dilation: the forward's, an int or an (h, w) pair.
            groups: the forward's.

        Returns:
            dx (N, H, W, C), dw (KH, KW, C / groups, F) and db (F,).

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; w does not fit x and groups, dy is not of y's
                shape; stride, padding, dilation or groups is out of range.
        """
        dtype = shapes.arrays("conv2d_backward", dy=dy, x=x, w=w)
        d = shapes.conv2d(x.shape, w.shape, None, stride, padding, dilation, groups, "conv2d_backward")
        shapes.equal("conv2d_backward", "dy", dy.shape, (len(x), d.oh, d.ow, d.f), "the shape of y")
        dx, dw, db = _like(x), _like(w), memory.empty(d.f, dtype)
        self.backend.conv2d_backward(dy, x, w, d, self._scratch("conv2d_backward", d, x), dx, dw, db)
        return dx, dw, db

    def convtranspose2d(
        self,
        x: Array,
        w: Array,
        b: Array | None = None,
        stride: Pair = 1,
        padding: Padding = 0,
        output_padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
    ) -> Array:
        """Spreads each pixel over a window: the gradient of `conv2d` by its input, as a layer of its own.

        y[n, p·stride − padding + i·dilation, q·stride − padding + j·dilation, m] = b[m] + Σ x[n, p, q, c] w[i, j, m, c]
        over everything that leads to one place of y; what would lie outside y is dropped. Zeiler et al. 2010.

        Args:
            x: images (N, H, W, C).
            w: filters (KH, KW, M / groups, C), those of the convolution that leads from y to x.
            b: biases (M,), or None for none.
            stride: distance between neighbouring pixels' windows, an int or an (h, w) pair, at least 1.
            padding: places taken off y's sides, an int or an (h, w) pair, ((top, bottom), (left, right)), each at
                least 0.
            output_padding: rows and columns added to y's end, an int or an (h, w) pair, at least 0 and less than stride
                or dilation.
            dilation: distance between a filter's taps, an int or an (h, w) pair, at least 1.
            groups: number of groups, a divisor of C and M; outputs of group g see the channels of group g alone.

        Returns:
            y (N, OH, OW, M), with OH = (H − 1) stride − top − bottom + dilation (KH − 1) + output_padding + 1, and OW
            likewise.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; w or b does not fit x and groups, or the
                padding leaves nothing; stride, padding, output_padding, dilation or groups is out of range.

        >>> import numpy as np
        >>> import kernels
        >>> x, w = np.ones((1, 2, 2, 1)), np.ones((3, 3, 1, 1))
        >>> kernels.get("numpy").convtranspose2d(x, w, stride=2)[0, :, :, 0]
        array([[1., 1., 2., 1., 1.],
               [1., 1., 2., 1., 1.],
               [2., 2., 4., 2., 2.],
               [1., 1., 2., 1., 1.],
               [1., 1., 2., 1., 1.]])
        """
        dtype = shapes.arrays("convtranspose2d", x=x, w=w, **_given(b=b))
        d = shapes.convtranspose2d(x.shape, w.shape, _shape(b), stride, padding, output_padding, dilation, groups)
        y = memory.empty((len(x), d.h, d.w, d.c), dtype)
        self.backend.convtranspose2d(x, w, b, d, self._scratch("convtranspose2d", d, x), y)
        return y

    def convtranspose2d_backward(
        self,
        dy: Array,
        x: Array,
        w: Array,
        stride: Pair = 1,
        padding: Padding = 0,
        output_padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
    ) -> tuple[Array, Array, Array]:
        """Gradients of `convtranspose2d`: dx is the convolution of dy with w, dw and db sum over y's places.

        The whole rule: `kernels.Backend.convtranspose2d_backward`.

        Args:
            dy: gradient of a scalar loss by y, (N, OH, OW, M).
            x: the forward's images (N, H, W, C).
            w: the forward's filters (KH, KW, M / groups, C).
            stride: the forward's, an int or an (h, w) pair.
            padding: the forward's.
            output_padding: the forward's, an int or an (h, w) pair.
            dilation: the forward's, an int or an (h, w) pair.
            groups: the forward's.

        Returns:
            dx (N, H, W, C), dw (KH, KW, M / groups, C) and db (M,).

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; w does not fit x and groups, dy is not of y's
                shape; stride, padding, output_padding, dilation or groups is out of range.
        """
        dtype = shapes.arrays("convtranspose2d_backward", dy=dy, x=x, w=w)
        options = (stride, padding, output_padding, dilation, groups)
        d = shapes.convtranspose2d(x.shape, w.shape, None, *options, "convtranspose2d_backward")
        shapes.equal("convtranspose2d_backward", "dy", dy.shape, (len(x), d.h, d.w, d.c), "the shape of y")
        dx, dw, db = _like(x), _like(w), memory.empty(d.c, dtype)
        scratch = self._scratch("convtranspose2d_backward", d, x)
        self.backend.convtranspose2d_backward(dy, x, w, d, scratch, dx, dw, db)
        return dx, dw, db

    # Pooling -----------------------------------------------------------------------------------------------

    def maxpool2d(
        self,
        x: Array,
        size: Pair = 2,
        stride: Pair | None = None,
        padding: Padding = 0,
        dilation: Pair = 1,
        ceil_mode: bool = False,
    ) -> tuple[Array, Array]:
        """y = the largest value of each window, channel by channel.

        The first of equal maxima wins, a NaN beats every number, padding never wins. Windows that reach beyond the
        padding are left out, unless ceil_mode.

        Args:
            x: images (N, H, W, C).
            size: (KH, KW) of the window, an int or an (h, w) pair, at least 1.
            stride: step of the window, an int or an (h, w) pair, at least 1; None for the window's size.
            padding: places added around the images, an int or an (h, w) pair, ((top, bottom), (left, right)), each at
                least 0 and less than a window's height or width; or "same" for ⌈H / stride⌉ by ⌈W / stride⌉ windows, an
                odd place at the end, or "same_lower", at the beginning.
            dilation: distance between a window's places, an int or an (h, w) pair, at least 1.
            ceil_mode: whether to round the number of windows up: one that reaches beyond the padding counts if it
                begins before the image's end.

        Returns:
            y (N, OH, OW, C), with OH = ⌊(H + top + bottom − dilation (KH − 1) − 1) / stride⌋ + 1, and OW likewise; and
            argmax of the same shape, each maximum's place i·KW + j in its window, uint8 for windows of up to 256
            places, else int32, or int64 beyond 2³¹.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis; the window does not fit into the padded image; size,
                stride, padding or dilation is out of range.

        >>> import numpy as np
        >>> import kernels
        >>> y, argmax = kernels.get("numpy").maxpool2d(np.arange(16.0).reshape(1, 4, 4, 1))
        >>> y[0, :, :, 0]
        array([[ 5.,  7.],
               [13., 15.]])
        >>> argmax[0, :, :, 0]
        array([[3, 3],
               [3, 3]], dtype=uint8)
        """
        dtype = shapes.arrays("maxpool2d", x=x)
        d = shapes.pool2d(x.shape, size, stride, padding, "maxpool2d", dilation, ceil_mode)
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
        padding: Padding = 0,
        dilation: Pair = 1,
        ceil_mode: bool = False,
    ) -> Array:
        """Gradient of `maxpool2d`: each dy is added where its window's maximum was; zero elsewhere.

        Args:
            dy: gradient of a scalar loss by y, (N, OH, OW, C).
            argmax: the array (N, OH, OW, C) that the forward returned.
            x_shape: (N, H, W, C) of the forward's images.
            size: the forward's, an int or an (h, w) pair.
            stride: the forward's, an int or an (h, w) pair; None for the window's size.
            padding: the forward's.
            dilation: the forward's, an int or an (h, w) pair.
            ceil_mode: the forward's.

        Returns:
            dx (N, H, W, C).

        Raises:
            TypeError: dy is anything but a numpy array of float32 or float64.
            ValueError: dy is not C-contiguous or has an empty axis; dy, argmax and x_shape do not fit each other,
                argmax holds places outside a window or in the padding; size, stride, padding or dilation is out of
                range.
        """
        dtype = shapes.arrays("maxpool2d_backward", dy=dy)
        shapes.rank("maxpool2d_backward", "dy", dy.shape, 4, "samples, height, width, channels")
        d = shapes.pool2d(tuple(x_shape), size, stride, padding, "maxpool2d_backward", dilation, ceil_mode)
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
        padding: Padding = 0,
        count_include_pad: bool = True,
        dilation: Pair = 1,
        ceil_mode: bool = False,
    ) -> Array:
        """y = the mean of each window, channel by channel; padding counts as zero.

        Windows that reach beyond the padding are left out, unless ceil_mode.

        Args:
            x: images (N, H, W, C).
            size: (KH, KW) of the window, an int or an (h, w) pair, at least 1.
            stride: step of the window, an int or an (h, w) pair, at least 1; None for the window's size.
            padding: places added around the images, an int or an (h, w) pair, ((top, bottom), (left, right)), each at
                least 0 and less than a window's height or width; or "same" for ⌈H / stride⌉ by ⌈W / stride⌉ windows, an
                odd place at the end, or "same_lower", at the beginning.
            count_include_pad: whether to divide by the number of a window's places in the image and its padding, which
                is KH·KW but where ceil_mode lets a window reach beyond; if not, by the number of its real pixels.
            dilation: distance between a window's places, an int or an (h, w) pair, at least 1.
            ceil_mode: whether to round the number of windows up: one that reaches beyond the padding counts if it
                begins before the image's end.

        Returns:
            y (N, OH, OW, C), with OH = ⌊(H + top + bottom − dilation (KH − 1) − 1) / stride⌋ + 1, and OW likewise.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis; the window does not fit into the padded image; size,
                stride, padding or dilation is out of range.
        """
        dtype = shapes.arrays("avgpool2d", x=x)
        d = shapes.pool2d(x.shape, size, stride, padding, "avgpool2d", dilation, ceil_mode)
        y = memory.empty((len(x), d.oh, d.ow, d.c), dtype)
        self.backend.avgpool2d(x, d, bool(count_include_pad), y)
        return y

    def avgpool2d_backward(
        self,
        dy: Array,
        x_shape: Shape,
        size: Pair = 2,
        stride: Pair | None = None,
        padding: Padding = 0,
        count_include_pad: bool = True,
        dilation: Pair = 1,
        ceil_mode: bool = False,
    ) -> Array:
        """Gradient of `avgpool2d`: each dy, divided as in the forward, is added all over its window.

        Args:
            dy: gradient of a scalar loss by y, (N, OH, OW, C).
            x_shape: (N, H, W, C) of the forward's images.
            size: the forward's, an int or an (h, w) pair.
            stride: the forward's, an int or an (h, w) pair; None for the window's size.
            padding: the forward's.
            count_include_pad: the forward's.
            dilation: the forward's, an int or an (h, w) pair.
            ceil_mode: the forward's.

        Returns:
            dx (N, H, W, C).

        Raises:
            TypeError: dy is anything but a numpy array of float32 or float64.
            ValueError: dy is not C-contiguous or has an empty axis; dy and x_shape do not fit each other; size, stride,
                padding or dilation is out of range.
        """
        dtype = shapes.arrays("avgpool2d_backward", dy=dy)
        shapes.rank("avgpool2d_backward", "dy", dy.shape, 4, "samples, height, width, channels")
        d = shapes.pool2d(tuple(x_shape), size, stride, padding, "avgpool2d_backward", dilation, ceil_mode)
        shapes.equal("avgpool2d_backward", "x_shape", x_shape, (len(dy), d.h, d.w, d.c), f"dy {dy.shape}")
        shapes.equal("avgpool2d_backward", "dy", dy.shape, (len(dy), d.oh, d.ow, d.c), "the shape of y")
        dx = memory.empty((len(dy), d.h, d.w, d.c), dtype)
        self.backend.avgpool2d_backward(dy, d, bool(count_include_pad), dx)
        return dx

    # Normalisation -----------------------------------------------------------------------------------------

    def batchnorm(self, x: Array, gamma: Array, beta: Array, eps: float = 1e-5) -> tuple[Array, Array, Array]:
        """y = gamma (x − mean) inv_std + beta, with each channel's own mean and inv_std = 1 / √(variance + eps).

        Mean and (biased) variance are taken over all axes but the last. Ioffe and Szegedy 2015.

        Args:
            x: (N, ..., C), channels last.
            gamma: scales (C,).
            beta: offsets (C,).
            eps: added to the variance, at least 0.

        Returns:
            y of x's shape, mean (C,) and inv_std (C,).

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; gamma or beta has not x's channels; eps is
                negative or not finite.
        """
        d = _channel_vectors("batchnorm", x, gamma=gamma, beta=beta)
        eps = shapes.number("batchnorm", "eps", eps, 0.0)
        y, mean, inv_std, var = _like(x), _like(gamma), _like(gamma), _like(gamma)
        self.backend.batchnorm(x, gamma, beta, eps, d, self._scratch("batchnorm", d, x), y, mean, inv_std, var)
        return y, mean, inv_std

    def batchnorm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, inv_std: Array
    ) -> tuple[Array, Array, Array]:
        """Gradients of `batchnorm`: dbeta = Σ dy, dgamma = Σ dy x̂, dx = gamma inv_std (dy − dbeta / m − x̂ dgamma / m).

        x̂ = (x − mean) inv_std, and a channel has m values. mean and inv_std are functions of x here, not constants.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input (N, ..., C).
            gamma: the forward's scales (C,).
            mean: (C,), as the forward returned it.
            inv_std: (C,), as the forward returned it.

        Returns:
            dx of x's shape, dgamma (C,) and dbeta (C,).

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; dy is not of x's shape, another array has not
                x's channels.
        """
        d = _channel_vectors("batchnorm_backward", x, dy=dy, gamma=gamma, mean=mean, inv_std=inv_std)
        dx, dgamma, dbeta = _like(x), _like(gamma), _like(gamma)
        scratch = self._scratch("batchnorm_backward", d, x)
        self.backend.batchnorm_backward(dy, x, gamma, mean, inv_std, d, scratch, dx, dgamma, dbeta)
        return dx, dgamma, dbeta

    def batchnorm_inference(
        self, x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float = 1e-5
    ) -> Array:
        """y = gamma (x − mean) / √(var + eps) + beta, with given statistics by channel.

        Args:
            x: (N, ..., C), channels last.
            gamma: scales (C,).
            beta: offsets (C,).
            mean: means (C,), such as running averages.
            var: variances (C,).
            eps: added to the variance, at least 0.

        Returns:
            y of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; another array has not x's channels; eps is
                negative or not finite.
        """
        _channel_vectors("batchnorm_inference", x, gamma=gamma, beta=beta, mean=mean, var=var)
        y = _like(x)
        self.backend.batchnorm_inference(
            x, gamma, beta, mean, var, shapes.number("batchnorm_inference", "eps", eps, 0.0), y
        )
        return y

    def batchnorm_inference_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float = 1e-5
    ) -> tuple[Array, Array, Array]:
        """Gradients of `batchnorm_inference`, for which mean and var are constants.

        With σ = √(var + eps): dx = dy gamma / σ, dgamma = Σ dy (x − mean) / σ, dbeta = Σ dy.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input (N, ..., C).
            gamma: the forward's scales (C,).
            mean: the forward's means (C,).
            var: the forward's variances (C,).
            eps: the forward's.

        Returns:
            dx of x's shape, dgamma (C,) and dbeta (C,).

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; dy is not of x's shape, another array has not
                x's channels; eps is negative or not finite.
        """
        kernel = "batchnorm_inference_backward"
        d = _channel_vectors(kernel, x, dy=dy, gamma=gamma, mean=mean, var=var)
        eps = shapes.number(kernel, "eps", eps, 0.0)
        dx, dgamma, dbeta = _like(x), _like(gamma), _like(gamma)
        self.backend.batchnorm_inference_backward(
            dy, x, gamma, mean, var, eps, d, self._scratch(kernel, d, x), dx, dgamma, dbeta
        )
        return dx, dgamma, dbeta

    def meannorm(self, x: Array, beta: Array) -> tuple[Array, Array]:
        """y = x − mean + beta, with each channel's own mean over all axes but the last.

        Salimans and Kingma 2016.

        Args:
            x: (N, ..., C), channels last.
            beta: offsets (C,).

        Returns:
            y of x's shape, and mean (C,).

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; beta has not x's channels.
        """
        d = _channel_vectors("meannorm", x, beta=beta)
        y, mean = _like(x), _like(beta)
        self.backend.meannorm(x, beta, d, self._scratch("meannorm", d, x), y, mean)
        return y, mean

    def meannorm_backward(self, dy: Array) -> tuple[Array, Array]:
        """Gradients of `meannorm`: dbeta = Σ dy, dx = dy − dbeta / m, for m values a channel.

        Args:
            dy: gradient of a scalar loss by y, (N, ..., C).

        Returns:
            dx of dy's shape, and dbeta (C,).

        Raises:
            TypeError: dy is anything but a numpy array of float32 or float64.
            ValueError: dy is not C-contiguous or has an empty axis, or only one axis.
        """
        return self._meannorm_backward("meannorm_backward", dy)

    def meannorm_inference(self, x: Array, beta: Array, mean: Array) -> Array:
        """y = x − mean + beta, with a given mean by channel.

        Args:
            x: (N, ..., C), channels last.
            beta: offsets (C,).
            mean: means (C,), such as running averages.

        Returns:
            y of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; beta or mean has not x's channels.
        """
        _channel_vectors("meannorm_inference", x, beta=beta, mean=mean)
        y = _like(x)
        self.backend.meannorm_inference(x, beta, mean, y)
        return y

    def meannorm_inference_backward(self, dy: Array) -> tuple[Array, Array]:
        """Gradients of `meannorm_inference`, for which the mean is a constant: dx = dy, dbeta = Σ dy.

        Args:
            dy: gradient of a scalar loss by y, (N, ..., C).

        Returns:
            dx of dy's shape, and dbeta (C,).

        Raises:
            TypeError: dy is anything but a numpy array of float32 or float64.
            ValueError: dy is not C-contiguous or has an empty axis, or only one axis.
        """
        return self._meannorm_backward("meannorm_inference_backward", dy)

    def _meannorm_backward(self, kernel: str, dy: Array) -> tuple[Array, Array]:
        dtype = shapes.arrays(kernel, dy=dy)
        d = shapes.channels(dy.shape, kernel, "dy")
        dx, dbeta = _like(dy), memory.empty(d.channels, dtype)
        getattr(self.backend, kernel)(dy, d, self._scratch(kernel, d, dy), dx, dbeta)
        return dx, dbeta

    def layernorm(self, x: Array, gamma: Array, beta: Array, eps: float = 1e-5) -> tuple[Array, Array, Array]:
        """y = gamma (x − mean) inv_std + beta, each sample's statistics over the last axes, which are gamma's.

        inv_std = 1 / √(biased variance + eps). Ba, Kiros and Hinton 2016.

        Args:
            x: (N, ...).
            gamma: scale, of the shape of x's last axes: all those that are normalised over.
            beta: shift, of gamma's shape.
            eps: added to the variance, at least 0.

        Returns:
            y of x's shape; mean and inv_std of the shape of x's first axes.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; gamma's shape is not that of last axes of x,
                beta's is not gamma's; eps is negative or not finite.
        """
        dtype = shapes.arrays("layernorm", x=x, gamma=gamma, beta=beta)
        d = shapes.layers(x.shape, gamma.shape, "layernorm")
        shapes.equal("layernorm", "beta", beta.shape, gamma.shape, "the shape of gamma")
        eps = shapes.number("layernorm", "eps", eps, 0.0)
        y, mean, inv_std = _like(x), *(memory.empty(x.shape[: x.ndim - gamma.ndim], dtype) for _ in range(2))
        self.backend.layernorm(x, gamma, beta, eps, d, y, mean, inv_std)
        return y, mean, inv_std

    def layernorm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, inv_std: Array
    ) -> tuple[Array, Array, Array]:
        """Gradients of `layernorm`, through mean and variance as well.

        The whole rule: `kernels.Backend.layernorm_backward`.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            gamma: the forward's scale.
            mean: the mean that the forward returned.
            inv_std: the inverse deviation that the forward returned.

        Returns:
            dx of x's shape, dgamma and dbeta of gamma's.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes do not fit each other.
        """
        kernel = "layernorm_backward"
        shapes.arrays(kernel, dy=dy, x=x, gamma=gamma, mean=mean, inv_std=inv_std)
        d = shapes.layers(x.shape, gamma.shape, kernel)
        shapes.equal(kernel, "dy", dy.shape, x.shape, "the shape of x")
        for name, statistic in (("mean", mean), ("inv_std", inv_std)):
            shapes.equal(kernel, name, statistic.shape, x.shape[: x.ndim - gamma.ndim], f"x {shapes.text(x.shape)}")
        dx, dgamma, dbeta = _like(x), _like(gamma), _like(gamma)
        scratch = self._scratch(kernel, d, x)
        self.backend.layernorm_backward(dy, x, gamma, mean, inv_std, d, scratch, dx, dgamma, dbeta)
        return dx, dgamma, dbeta

    def groupnorm(
        self, x: Array, gamma: Array, beta: Array, groups: int, eps: float = 1e-5
    ) -> tuple[Array, Array, Array]:
        """y = gamma (x − mean) inv_std + beta by channel, statistics over each sample's groups of channels.

        A group is C / groups channels that lie side by side, at all positions; as many groups as channels make it
        instance normalisation. inv_std = 1 / √(biased variance + eps). Wu and He 2018.

        Args:
            x: (N, ..., C).
            gamma: scale (C,).
            beta: shift (C,).
            groups: a divisor of C.
            eps: added to the variance, at least 0.

        Returns:
            y of x's shape; mean and inv_std, each (N, groups).

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis, x only one; gamma or beta is not (C,), groups
                no divisor of C; eps is negative or not finite.
        """
        d = _group_vectors("groupnorm", groups, x, gamma=gamma, beta=beta)
        eps = shapes.number("groupnorm", "eps", eps, 0.0)
        y, mean, inv_std = _like(x), *(memory.empty((len(x), d.groups), x.dtype) for _ in range(2))
        self.backend.groupnorm(x, gamma, beta, eps, d, self._scratch("groupnorm", d, x), y, mean, inv_std)
        return y, mean, inv_std

    def groupnorm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, inv_std: Array
    ) -> tuple[Array, Array, Array]:
        """Gradients of `groupnorm`, through mean and variance as well.

        The whole rule: `kernels.Backend.groupnorm_backward`.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input (N, ..., C).
            gamma: the forward's scale (C,).
            mean: the mean (N, groups) that the forward returned.
            inv_std: the inverse deviation (N, groups) that the forward returned.

        Returns:
            dx of x's shape, dgamma (C,) and dbeta (C,).

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes do not fit each other.
        """
        kernel = "groupnorm_backward"
        shapes.arrays(kernel, mean=mean)
        shapes.rank(kernel, "mean", mean.shape, 2, "samples, groups")
        d = _group_vectors(kernel, mean.shape[1], x, dy=dy, gamma=gamma)
        shapes.arrays(kernel, x=x, mean=mean, inv_std=inv_std)
        for name, statistic in (("mean", mean), ("inv_std", inv_std)):
            shapes.equal(kernel, name, statistic.shape, (len(x), d.groups), f"x {shapes.text(x.shape)}")
        dx, dgamma, dbeta = _like(x), _like(gamma), _like(gamma)
        scratch = self._scratch(kernel, d, x)
        self.backend.groupnorm_backward(dy, x, gamma, mean, inv_std, d, scratch, dx, dgamma, dbeta)
        return dx, dgamma, dbeta

    def local_response_norm(
        self, x: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
    ) -> tuple[Array, Array]:
        """y = x scale^−beta, scale = bias + alpha / size · Σ x² over size channels around each.

        Of an even size one channel more lies after than before; channels that are not there count as zero. Krizhevsky
        et al. 2012.

        Args:
            x: (N, ..., C).
            size: channels that are summed up, an int of at least 1.
            alpha: weight of their squares' mean, a finite number.
            beta: the exponent, a finite number.
            bias: a number above 0.

        Returns:
            y and scale, two arrays of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis, or only one axis; a number is out of range or not
                finite.
        """
        kernel = "local_response_norm"
        shapes.arrays(kernel, x=x)
        d = shapes.channels(x.shape, kernel)
        size = shapes.integer(kernel, "size", size, 1)
        alpha, beta = shapes.number(kernel, "alpha", alpha), shapes.number(kernel, "beta", beta)
        bias = shapes.number(kernel, "bias", bias, 0.0, above=True)
        y, scale = _like(x), _like(x)
        self.backend.local_response_norm(x, size, alpha, beta, bias, d, y, scale)
        return y, scale

    def local_response_norm_backward(
        self, dy: Array, x: Array, scale: Array, size: int, alpha: float = 1e-4, beta: float = 0.75
    ) -> Array:
        """Gradient of `local_response_norm`, through a channel's own value and through its part in others' scales.

        The whole rule: `kernels.Backend.local_response_norm_backward`.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input (N, ..., C).
            scale: the scale, of x's shape, that the forward returned.
            size: the forward's.
            alpha: the forward's.
            beta: the forward's.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis, or only one axis; the shapes differ; a number
                is out of range or not finite.
        """
        kernel = "local_response_norm_backward"
        _same_shape(kernel, dy=dy, x=x, scale=scale)
        d = shapes.channels(x.shape, kernel)
        size = shapes.integer(kernel, "size", size, 1)
        alpha, beta = shapes.number(kernel, "alpha", alpha), shapes.number(kernel, "beta", beta)
        dx = _like(x)
        self.backend.local_response_norm_backward(dy, x, scale, size, alpha, beta, d, self._scratch(kernel, d, x), dx)
        return dx

    def ema_update(self, running: Array, value: Array, momentum: float) -> None:
        """running += momentum (value − running), in place: an exponential moving average.

        Args:
            running: the average so far, any shape; updated in place.
            value: the new value, of running's shape.
            momentum: weight of the new value, a finite number.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ, running is read-only,
                momentum is not finite.
        """
        _same_shape("ema_update", running=running, value=value)
        shapes.writeable("ema_update", running=running)
        momentum = shapes.number("ema_update", "momentum", momentum)
        running, value = _axed(running, value)
        self.backend.ema_update(running, value, momentum)

    # Activations -------------------------------------------------------------------------------------------

    def relu(self, x: Array) -> Array:
        """y = max(x, 0), element by element; NaN stays NaN.

        Args:
            x: an array of any shape.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis.
        """
        return self._map("relu", x)

    def relu_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `relu`: dx = dy where x > 0 or x is NaN, else 0.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ.
        """
        return self._map_backward("relu_backward", dy, x, y)

    def leaky_relu(self, x: Array, negative_slope: float = 0.01) -> Array:
        """y = x where x > 0, else negative_slope x, element by element.

        Args:
            x: an array of any shape.
            negative_slope: slope left of 0, a finite number.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis; negative_slope is not finite.
        """
        return self._map("leaky_relu", x, shapes.number("leaky_relu", "negative_slope", negative_slope))

    def leaky_relu_backward(self, dy: Array, x: Array, y: Array, negative_slope: float = 0.01) -> Array:
        """Gradient of `leaky_relu`: dx = dy where x > 0, else negative_slope dy.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.
            negative_slope: the forward's.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ; negative_slope is not
                finite.
        """
        slope = shapes.number("leaky_relu_backward", "negative_slope", negative_slope)
        return self._map_backward("leaky_relu_backward", dy, x, y, slope)

    def elu(self, x: Array, alpha: float = 1.0) -> Array:
        """y = x where x > 0, else alpha (eˣ − 1), element by element. Clevert et al. 2015.

        Args:
            x: an array of any shape.
            alpha: minus the limit far left of 0, a finite number.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis; alpha is not finite.
        """
        return self._map("elu", x, shapes.number("elu", "alpha", alpha))

    def elu_backward(self, dy: Array, x: Array, y: Array, alpha: float = 1.0) -> Array:
        """Gradient of `elu`: dx = dy where x > 0, else dy (y + alpha).

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.
            alpha: the forward's.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ; alpha is not finite.
        """
        return self._map_backward("elu_backward", dy, x, y, shapes.number("elu_backward", "alpha", alpha))

    def gelu(self, x: Array) -> Array:
        """y = x Φ(x), element by element, Φ the standard normal distribution function.

        The exact form, not the approximation by tanh. Hendrycks and Gimpel 2016.

        Args:
            x: an array of any shape.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis.
        """
        return self._map("gelu", x)

    def gelu_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `gelu`: dx = dy (Φ(x) + x φ(x)), φ the standard normal density.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ.
        """
        return self._map_backward("gelu_backward", dy, x, y)

    def silu(self, x: Array) -> Array:
        """y = x σ(x), element by element, with σ the logistic function of `sigmoid`.

        Args:
            x: an array of any shape.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis.
        """
        return self._map("silu", x)

    def silu_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `silu`: dx = dy σ(x) (1 + x (1 − σ(x))).

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ.
        """
        return self._map_backward("silu_backward", dy, x, y)

    def sigmoid(self, x: Array) -> Array:
        """y = σ(x) = 1 / (1 + e⁻ˣ), element by element; no x overflows.

        Args:
            x: an array of any shape.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis.
        """
        return self._map("sigmoid", x)

    def sigmoid_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `sigmoid`: dx = dy y (1 − y).

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ.
        """
        return self._map_backward("sigmoid_backward", dy, x, y)

    def tanh(self, x: Array) -> Array:
        """y = tanh x, element by element.

        Args:
            x: an array of any shape.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis.
        """
        return self._map("tanh", x)

    def tanh_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `tanh`: dx = dy (1 − y²).

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ.
        """
        return self._map_backward("tanh_backward", dy, x, y)

    def softplus(self, x: Array) -> Array:
        """y = log(1 + eˣ), element by element; no x overflows.

        Args:
            x: an array of any shape.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis.
        """
        return self._map("softplus", x)

    def softplus_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `softplus`: dx = dy σ(x), with σ as in `sigmoid`.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ.
        """
        return self._map_backward("softplus_backward", dy, x, y)

    def clip(self, x: Array, low: float = -np.inf, high: float = np.inf) -> Array:
        """y = min(max(x, low), high), element by element: ReLU6 with the bounds 0 and 6.

        With low > high every number becomes high.

        Args:
            x: an array of any shape.
            low: least value of y, a number or an infinity.
            high: largest value of y, a number or an infinity.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis; low or high is no number.
        """
        low = shapes.number("clip", "low", low, infinite=True)
        high = shapes.number("clip", "high", high, infinite=True)
        return self._map("clip", x, low, high)

    def clip_backward(self, dy: Array, x: Array, y: Array, low: float = -np.inf, high: float = np.inf) -> Array:
        """Gradient of `clip`: dx = 0 where x <= low or x >= high, else dy.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.
            low: the forward's.
            high: the forward's.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ; low or high is no number.
        """
        low = shapes.number("clip_backward", "low", low, infinite=True)
        high = shapes.number("clip_backward", "high", high, infinite=True)
        return self._map_backward("clip_backward", dy, x, y, low, high)

    def hard_sigmoid(self, x: Array, alpha: float = 1 / 6, beta: float = 0.5) -> Array:
        """y = max(0, min(1, alpha x + beta)), element by element.

        The defaults are PyTorch's and `hard_swish`'s; ONNX's alpha is 0.2.

        Args:
            x: an array of any shape.
            alpha: slope, a finite number.
            beta: y at 0, a finite number.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis; alpha or beta is not finite.
        """
        alpha = shapes.number("hard_sigmoid", "alpha", alpha)
        beta = shapes.number("hard_sigmoid", "beta", beta)
        return self._map("hard_sigmoid", x, alpha, beta)

    def hard_sigmoid_backward(self, dy: Array, x: Array, y: Array, alpha: float = 1 / 6, beta: float = 0.5) -> Array:
        """Gradient of `hard_sigmoid`: dx = 0 where y <= 0 or y >= 1, else alpha dy.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.
            alpha: the forward's.
            beta: the forward's.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ; alpha or beta is not
                finite.
        """
        alpha = shapes.number("hard_sigmoid_backward", "alpha", alpha)
        beta = shapes.number("hard_sigmoid_backward", "beta", beta)
        return self._map_backward("hard_sigmoid_backward", dy, x, y, alpha, beta)

    def hard_swish(self, x: Array) -> Array:
        """y = x max(0, min(6, x + 3)) / 6, element by element. Howard et al. 2019.

        Args:
            x: an array of any shape.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis.
        """
        return self._map("hard_swish", x)

    def hard_swish_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `hard_swish`: dx = 0 where x <= −3, dy where x >= 3, else dy (x / 3 + 1 / 2).

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ.
        """
        return self._map_backward("hard_swish_backward", dy, x, y)

    def mish(self, x: Array) -> Array:
        """y = x tanh(log(1 + eˣ)), element by element; no x overflows. Misra 2019.

        Args:
            x: an array of any shape.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis.
        """
        return self._map("mish", x)

    def mish_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `mish`: dx = dy (t + x σ(x) (1 − t²)), with t = tanh(log(1 + eˣ)).

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ.
        """
        return self._map_backward("mish_backward", dy, x, y)

    def selu(self, x: Array, alpha: float = polynomials.SELU_ALPHA, gamma: float = polynomials.SELU_GAMMA) -> Array:
        """y = gamma x where x > 0, else gamma alpha (eˣ − 1), element by element. Klambauer et al. 2017.

        The defaults are the paper's.

        Args:
            x: an array of any shape.
            alpha: minus the limit of y / gamma far left of 0, a finite number.
            gamma: slope right of 0, a finite number.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis; alpha or gamma is not finite.
        """
        return self._map("selu", x, shapes.number("selu", "alpha", alpha), shapes.number("selu", "gamma", gamma))

    def selu_backward(
        self,
        dy: Array,
        x: Array,
        y: Array,
        alpha: float = polynomials.SELU_ALPHA,
        gamma: float = polynomials.SELU_GAMMA,
    ) -> Array:
        """Gradient of `selu`: dx = gamma dy where x > 0, else dy (y + gamma alpha).

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.
            alpha: the forward's.
            gamma: the forward's.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ; alpha or gamma is not
                finite.
        """
        alpha = shapes.number("selu_backward", "alpha", alpha)
        gamma = shapes.number("selu_backward", "gamma", gamma)
        return self._map_backward("selu_backward", dy, x, y, alpha, gamma)

    def celu(self, x: Array, alpha: float = 1.0) -> Array:
        """y = x where x > 0, else alpha (e^(x / alpha) − 1), element by element. Barron 2017.

        Args:
            x: an array of any shape.
            alpha: minus the limit far left of 0, a finite number > 0.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis; alpha is out of range.
        """
        return self._map("celu", x, shapes.number("celu", "alpha", alpha, 0.0, above=True))

    def celu_backward(self, dy: Array, x: Array, y: Array, alpha: float = 1.0) -> Array:
        """Gradient of `celu`: dx = dy where x > 0, else dy (1 + y / alpha).

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.
            alpha: the forward's.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ; alpha is out of range.
        """
        alpha = shapes.number("celu_backward", "alpha", alpha, 0.0, above=True)
        return self._map_backward("celu_backward", dy, x, y, alpha)

    def gelu_tanh(self, x: Array) -> Array:
        """y = x (1 + tanh u) / 2 with u = √(2/π) (x + 0.044715 x³), element by element.

        An approximation of `gelu` that many networks were trained with. Hendrycks and Gimpel 2016.

        Args:
            x: an array of any shape.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis.
        """
        return self._map("gelu_tanh", x)

    def gelu_tanh_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `gelu_tanh`: dx = dy (s + 2 x s (1 − s) √(2/π) (1 + 3 · 0.044715 x²)), with s = (1 + tanh u) / 2.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ.
        """
        return self._map_backward("gelu_tanh_backward", dy, x, y)

    def softsign(self, x: Array) -> Array:
        """y = x / (1 + |x|), element by element.

        Args:
            x: an array of any shape.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis.
        """
        return self._map("softsign", x)

    def softsign_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `softsign`: dx = dy / (1 + |x|)².

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ.
        """
        return self._map_backward("softsign_backward", dy, x, y)

    def thresholded_relu(self, x: Array, alpha: float = 1.0) -> Array:
        """y = x where x > alpha, else 0, element by element. Konda et al. 2015.

        Args:
            x: an array of any shape.
            alpha: the threshold, a finite number.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis; alpha is not finite.
        """
        return self._map("thresholded_relu", x, shapes.number("thresholded_relu", "alpha", alpha))

    def thresholded_relu_backward(self, dy: Array, x: Array, y: Array, alpha: float = 1.0) -> Array:
        """Gradient of `thresholded_relu`: dx = dy where x > alpha or x is NaN, else 0.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.
            alpha: the forward's.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ; alpha is not finite.
        """
        alpha = shapes.number("thresholded_relu_backward", "alpha", alpha)
        return self._map_backward("thresholded_relu_backward", dy, x, y, alpha)

    def prelu(self, x: Array, slope: Array) -> Array:
        """y = x where x > 0, else slope x, by channel. He et al. 2015.

        Args:
            x: (N, ..., C).
            slope: slopes left of 0, (C,), or (1,) for one that all channels share.

        Returns:
            y of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis, or x only one axis; slope is neither (C,) nor
                (1,).
        """
        shapes.arrays("prelu", x=x, slope=slope)
        shapes.prelu(x.shape, slope.shape)
        y = _like(x)
        self.backend.prelu(x, slope, y)
        return y

    def prelu_backward(self, dy: Array, x: Array, slope: Array) -> tuple[Array, Array]:
        """Gradients of `prelu`: dx = dy where x > 0, else slope dy; dslope = Σ dy min(x, 0).

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input (N, ..., C).
            slope: the forward's slopes, (C,) or (1,).

        Returns:
            dx of x's shape, and dslope of slope's, by channel or summed over all.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis, or x only one axis; dy is not of x's shape,
                slope neither (C,) nor (1,).
        """
        kernel = "prelu_backward"
        shapes.arrays(kernel, dy=dy, x=x, slope=slope)
        shapes.equal(kernel, "dy", dy.shape, x.shape, "the shape of x")
        d = shapes.prelu(x.shape, slope.shape, kernel)
        dx, dslope = _like(x), _like(slope)
        self.backend.prelu_backward(dy, x, slope, d, self._scratch(kernel, d, x), dx, dslope)
        return dx, dslope

    def dropout(self, x: Array, rate: float = 0.5, seed: int = 0, step: int = 0) -> tuple[Array, Array]:
        """y = x / (1 − rate) where mask, else 0; each element is kept with probability 1 − rate.

        The mask depends on seed, step and an element's place alone: both backends draw the same, on any number of
        threads. How: `kernels.Backend.dropout`.

        Args:
            x: an array of any shape.
            rate: share of the elements that is dropped, in [0, 1).
            seed: an int, at least 0.
            step: number of the mask under this seed, an int, at least 0.

        Returns:
            y of x's shape, and mask, bool, of the same shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis; rate, seed or step is out of range.
        """
        shapes.arrays("dropout", x=x)
        rate = shapes.number("dropout", "rate", rate, 0.0, below=1.0)
        seed, step = shapes.counter("dropout", "seed", seed), shapes.counter("dropout", "step", step)
        y, mask = _like(x), memory.empty(x.shape, np.bool_)
        x_, y_, mask_ = _axed(x, y, mask)
        self.backend.dropout(x_, rate, seed, step, y_, mask_)
        return y, mask

    def dropout_backward(self, dy: Array, mask: Array, rate: float = 0.5) -> Array:
        """Gradient of `dropout`: dx = dy / (1 − rate) where mask, else 0.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            mask: the array that the forward returned.
            rate: the forward's.

        Returns:
            dx of dy's shape.

        Raises:
            TypeError: dy is anything but a numpy array of float32 or float64.
            ValueError: dy is not C-contiguous or has an empty axis; mask is no bool array of dy's shape; rate is out of
                range.
        """
        shapes.arrays("dropout_backward", dy=dy)
        shapes.mask("dropout_backward", mask, dy.shape)
        dx = _like(dy)
        rate = shapes.number("dropout_backward", "rate", rate, 0.0, below=1.0)
        dy_, mask_, dx_ = _axed(dy, mask, dx)
        self.backend.dropout_backward(dy_, mask_, rate, dx_)
        return dx

    # Functions ---------------------------------------------------------------------------------------------

    def exp(self, x: Array) -> Array:
        """y = eˣ, element by element; infinity beyond the largest number.

        Args:
            x: an array of any shape.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis.
        """
        return self._map("exp", x)

    def exp_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `exp`: dx = dy y.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ.
        """
        return self._map_backward("exp_backward", dy, x, y)

    def log(self, x: Array) -> Array:
        """y = log x, the natural logarithm, element by element; −∞ at 0, NaN below.

        Args:
            x: an array of any shape.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis.
        """
        return self._map("log", x)

    def log_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `log`: dx = dy / x.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ.
        """
        return self._map_backward("log_backward", dy, x, y)

    def sqrt(self, x: Array) -> Array:
        """y = √x, element by element; NaN below 0.

        Args:
            x: an array of any shape.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis.
        """
        return self._map("sqrt", x)

    def sqrt_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `sqrt`: dx = dy / (2 y).

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ.
        """
        return self._map_backward("sqrt_backward", dy, x, y)

    def absolute(self, x: Array) -> Array:
        """y = |x|, element by element.

        Args:
            x: an array of any shape.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis.
        """
        return self._map("absolute", x)

    def absolute_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `absolute`: dx = dy where x > 0, −dy where x < 0, 0 where x = 0.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ.
        """
        return self._map_backward("absolute_backward", dy, x, y)

    def negative(self, x: Array) -> Array:
        """y = −x, element by element.

        Args:
            x: an array of any shape.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis.
        """
        return self._map("negative", x)

    def negative_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `negative`: dx = −dy.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ.
        """
        return self._map_backward("negative_backward", dy, x, y)

    def reciprocal(self, x: Array) -> Array:
        """y = 1 / x, element by element; infinite at 0.

        Args:
            x: an array of any shape.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis.
        """
        return self._map("reciprocal", x)

    def reciprocal_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `reciprocal`: dx = −dy y².

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ.
        """
        return self._map_backward("reciprocal_backward", dy, x, y)

    def power(self, x: Array, exponent: float) -> Array:
        """y = x^exponent, element by element.

        NaN where x < 0 and the exponent is no whole number, infinite at a pole; 1 everywhere for the exponent 0.

        Args:
            x: an array of any shape.
            exponent: of every element, a finite number.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis; exponent is not finite.
        """
        return self._map("power", x, shapes.number("power", "exponent", exponent))

    def power_backward(self, dy: Array, x: Array, y: Array, exponent: float) -> Array:
        """Gradient of `power`: dx = dy exponent x^(exponent − 1), 0 for the exponent 0.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.
            exponent: the forward's.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ; exponent is not finite.
        """
        return self._map_backward("power_backward", dy, x, y, shapes.number("power_backward", "exponent", exponent))

    def erf(self, x: Array) -> Array:
        """y = 2/√π ∫₀ˣ e^(−t²) dt, the error function, element by element.

        Args:
            x: an array of any shape.

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis.
        """
        return self._map("erf", x)

    def erf_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `erf`: dx = dy 2/√π e^(−x²).

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ.
        """
        return self._map_backward("erf_backward", dy, x, y)

    def round_to_bfloat16(self, x: Array) -> Array:
        """y = the bfloat16 number next to x, element by element; of two as near the one whose last bit is 0.

        What a contraction in bfloat16 takes for its operands. Infinities and NaN stay; numbers beyond the largest of
        bfloat16, 3.3895e38, by half a place or more become infinite. float64 is rounded to float32 first.

        Args:
            x: an array of any shape.

        Returns:
            y of x's shape and dtype.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis.
        """
        return self._map("round_to_bfloat16", x)

    # Outputs and losses ------------------------------------------------------------------------------------

    def softmax(self, x: Array) -> Array:
        """y = eˣ / Σ eˣ, sums over the last axis; no x overflows.

        Args:
            x: (..., C).

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous, or has an empty axis or no axis.
        """
        shapes.last_axis("softmax", x=x)
        return self._map("softmax", x)

    def softmax_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `softmax`: dx = y (dy − Σ dy y), sums over the last axis.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous, or has an empty axis or no axis; the shapes differ.
        """
        shapes.last_axis("softmax_backward", dy=dy, x=x, y=y)
        return self._map_backward("softmax_backward", dy, x, y)

    def log_softmax(self, x: Array) -> Array:
        """y = x − log Σ eˣ, the sum over the last axis; no x overflows.

        Args:
            x: (..., C).

        Returns:
            y of x's shape.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous, or has an empty axis or no axis.
        """
        shapes.last_axis("log_softmax", x=x)
        return self._map("log_softmax", x)

    def log_softmax_backward(self, dy: Array, x: Array, y: Array) -> Array:
        """Gradient of `log_softmax`: dx = dy − eʸ Σ dy, sums over the last axis.

        Args:
            dy: gradient of a scalar loss by y, of x's shape.
            x: the forward's input.
            y: the forward's output.

        Returns:
            dx of x's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous, or has an empty axis or no axis; the shapes differ.
        """
        shapes.last_axis("log_softmax_backward", dy=dy, x=x, y=y)
        return self._map_backward("log_softmax_backward", dy, x, y)

    def softmax_cross_entropy(self, logits: Array, labels: Array, smoothing: float = 0.0) -> tuple[Array, Array]:
        """loss = −mean over the batch of Σ_c t_c log softmax(logits)_c, and its gradient (softmax(logits) − t) / N.

        The target t is (1 − smoothing) onehot(label) + smoothing / C. Szegedy et al. 2016.

        Args:
            logits: (N, C), one score a class.
            labels: (N,), integers from 0 to C − 1, of any integer dtype.
            smoothing: share of the target that all classes divide among themselves, in [0, 1).

        Returns:
            loss (), an array without axes, and dlogits (N, C).

        Raises:
            TypeError: logits is anything but a numpy array of float32 or float64, or labels anything but one of
                integers.
            ValueError: logits is not C-contiguous, is empty or has other axes than two; labels is not (N,) or outside
                the classes; smoothing is out of range.

        >>> import numpy as np
        >>> import kernels
        >>> loss, dlogits = kernels.get("numpy").softmax_cross_entropy(np.zeros((1, 4)), np.array([2]))
        >>> dlogits
        array([[ 0.25,  0.25, -0.75,  0.25]])
        """
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
        """loss = mean of (prediction − target)² over all elements, and its gradient 2 (prediction − target) / elements.

        Args:
            prediction: (N, ..., C).
            target: of prediction's shape.

        Returns:
            loss (), an array without axes, and dprediction of prediction's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis, or only one axis; the shapes differ.
        """
        dtype = _same_shape("mse", prediction=prediction, target=target)
        d = shapes.channels(prediction.shape, "mse", "prediction")
        loss, dprediction = memory.empty((), dtype), _like(prediction)
        self.backend.mse(prediction, target, d, self._scratch("mse", d, prediction), loss, dprediction)
        return loss, dprediction

    # Losses by weight --------------------------------------------------------------------------------------

    def weighted_cross_entropy(
        self, logits: Array, labels: Array, weights: Array, smoothing: float = 0.0
    ) -> tuple[Array, Array]:
        """`softmax_cross_entropy` as a mean by weight: Σ weights_n loss_n / Σ weights_n, and its gradient.

        A sample that weighs 0 takes no part, whatever it and its label hold. Class weights are the samples' by their
        labels, which is how PyTorch has them.

        Args:
            logits: (N, C), one score a class.
            labels: (N,), integers from 0 to C − 1, of any integer dtype; where the weight is 0, any.
            weights: (N,), how much each sample counts, none below 0.
            smoothing: share of the target that all classes divide among themselves, in [0, 1).

        Returns:
            loss (), an array without axes, and dlogits (N, C).

        Raises:
            TypeError: logits and weights are anything but numpy arrays of one dtype, float32 or float64, or labels
                anything but one of integers.
            ValueError: logits is not C-contiguous, is empty or has other axes than two; labels or weights is not (N,),
                a label that weighs is outside the classes, a weight below 0 or not finite; smoothing is out of range.
        """
        kernel = "weighted_cross_entropy"
        dtype = shapes.arrays(kernel, logits=logits, weights=weights)
        shapes.rank(kernel, "logits", logits.shape, 2, "samples, classes")
        shapes.weights(kernel, weights, len(logits))
        labels = shapes.labels(kernel, labels, len(logits), logits.shape[1], weights > 0)
        smoothing = shapes.number(kernel, "smoothing", smoothing, 0.0, below=1.0)
        d = shapes.channels(logits.shape, kernel, "logits")
        loss, dlogits = memory.empty((), dtype), _like(logits)
        scratch = self._scratch(kernel, d, logits)
        self.backend.weighted_cross_entropy(logits, labels, weights, smoothing, d, scratch, loss, dlogits)
        return loss, dlogits

    def soft_cross_entropy(self, logits: Array, target: Array, weights: Array | None = None) -> tuple[Array, Array]:
        """loss = −mean over the batch of Σ_c target_c log softmax(logits)_c, and its gradient; targets are shares.

        Args:
            logits: (N, C), one score a class.
            target: (N, C), what each class is meant to have; rows of probabilities add up to 1.
            weights: how much each sample counts, (N,), none below 0; None for all alike.

        Returns:
            loss (), an array without axes, and dlogits (N, C).

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or empty; logits has other axes than two, the shapes differ; a
                weight is below 0 or not finite.
        """
        shapes.arrays("soft_cross_entropy", logits=logits, target=target, **_given(weights=weights))
        shapes.rank("soft_cross_entropy", "logits", logits.shape, 2, "samples, classes")
        return self._weighted("soft_cross_entropy", "logits", logits, target, weights)

    def binary_cross_entropy(self, logits: Array, target: Array, weights: Array | None = None) -> tuple[Array, Array]:
        """loss = mean of −t log σ(x) − (1 − t) log(1 − σ(x)) over logits x and targets t, and its gradient σ(x) − t.

        σ(x) = 1 / (1 + e⁻ˣ). A sample's loss is the mean over its elements; the mean over samples is one by weight.

        Args:
            logits: (N, ..., C).
            target: of logits's shape, from 0 to 1.
            weights: how much each sample counts, (N,), none below 0; None for all alike.

        Returns:
            loss (), an array without axes, and dlogits of logits's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis, or only one axis; the shapes differ; a weight
                is below 0 or not finite.
        """
        return self._weighted("binary_cross_entropy", "logits", logits, target, weights)

    def huber(
        self, prediction: Array, target: Array, weights: Array | None = None, threshold: float = 1.0
    ) -> tuple[Array, Array]:
        """loss = mean of e² / 2 for e = prediction − target, of threshold (|e| − threshold / 2) beyond |e| = threshold.

        Huber 1964. A sample's loss is the mean over its elements; the mean over samples is one by weight.

        Args:
            prediction: (N, ..., C).
            target: of prediction's shape.
            weights: how much each sample counts, (N,), none below 0; None for all alike.
            threshold: the difference up to which the loss is a square, above 0.

        Returns:
            loss (), an array without axes, and dprediction of prediction's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis, or only one axis; the shapes differ; a weight
                is below 0 or not finite; threshold is not above 0.
        """
        threshold = shapes.number("huber", "threshold", threshold, 0.0, above=True)
        return self._weighted("huber", "prediction", prediction, target, weights, threshold)

    def mae(self, prediction: Array, target: Array, weights: Array | None = None) -> tuple[Array, Array]:
        """loss = mean of |prediction − target| over all elements, and its gradient, the sign of the difference.

        A sample's loss is the mean over its elements; the mean over samples is one by weight.

        Args:
            prediction: (N, ..., C).
            target: of prediction's shape.
            weights: how much each sample counts, (N,), none below 0; None for all alike.

        Returns:
            loss (), an array without axes, and dprediction of prediction's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis, or only one axis; the shapes differ; a weight
                is below 0 or not finite.
        """
        return self._weighted("mae", "prediction", prediction, target, weights)

    def weighted_mse(self, prediction: Array, target: Array, weights: Array) -> tuple[Array, Array]:
        """`mse` as a mean by weight: Σ weights_n loss_n / Σ weights_n, and its gradient.

        A sample's loss is the mean over its elements; one that weighs 0 takes no part, whatever it holds.

        Args:
            prediction: (N, ..., C).
            target: of prediction's shape.
            weights: how much each sample counts, (N,), none below 0.

        Returns:
            loss (), an array without axes, and dprediction of prediction's shape.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis, or only one axis; the shapes differ; a weight
                is below 0 or not finite.
        """
        return self._weighted("weighted_mse", "prediction", prediction, target, weights)

    # Arithmetic of two arrays ------------------------------------------------------------------------------

    def add(self, a: Array, b: Array) -> Array:
        """y = a + b, element by element; axes of size 1, and those that are not there, are repeated.

        Args:
            a: an array of any shape, of up to eight axes.
            b: of a shape that fits a's: seen from the last axis on, sizes are equal or 1.

        Returns:
            y of both shapes' larger sizes.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes do not fit, or have too many axes.
        """
        return self._broadcast("add", a, b)

    def add_backward(
        self, dy: Array, a_shape: Shape | None = None, b_shape: Shape | None = None
    ) -> tuple[Array, Array]:
        """Gradients of `add`: da = dy, db = dy, summed over the places where an array was repeated.

        Args:
            dy: gradient of a scalar loss by y, of y's shape.
            a_shape: the shape of the forward's a; None for dy's.
            b_shape: the shape of the forward's b; None for dy's.

        Returns:
            da of a's shape and db of b's.

        Raises:
            TypeError: dy is anything but a numpy array of float32 or float64.
            ValueError: dy is not C-contiguous or has an empty axis, or is not of the shape of y.
        """
        kernel = "add_backward"
        dtype = shapes.arrays(kernel, dy=dy)
        sizes = [dy.shape if shape is None else tuple(map(int, shape)) for shape in (a_shape, b_shape)]
        shapes.equal(kernel, "dy", dy.shape, shapes.broadcast(sizes[0], sizes[1], kernel), "the shape of y")
        d, (da, db) = shapes.elements(dy.shape), (memory.empty(shape, dtype) for shape in sizes)
        dy_, da_, db_ = _axed(dy, da, db)
        self.backend.add_backward(dy_, d, self._scratch(kernel, d, dy_), da_, db_)
        return da, db

    def subtract(self, a: Array, b: Array) -> Array:
        """y = a − b, element by element; axes of size 1, and those that are not there, are repeated.

        Args:
            a: an array of any shape, of up to eight axes.
            b: of a shape that fits a's: seen from the last axis on, sizes are equal or 1.

        Returns:
            y of both shapes' larger sizes.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes do not fit, or have too many axes.
        """
        return self._broadcast("subtract", a, b)

    def subtract_backward(
        self, dy: Array, a_shape: Shape | None = None, b_shape: Shape | None = None
    ) -> tuple[Array, Array]:
        """Gradients of `subtract`: da = dy, db = −dy, summed over the places where an array was repeated.

        Args:
            dy: gradient of a scalar loss by y, of y's shape.
            a_shape: the shape of the forward's a; None for dy's.
            b_shape: the shape of the forward's b; None for dy's.

        Returns:
            da of a's shape and db of b's.

        Raises:
            TypeError: dy is anything but a numpy array of float32 or float64.
            ValueError: dy is not C-contiguous or has an empty axis, or is not of the shape of y.
        """
        kernel = "subtract_backward"
        dtype = shapes.arrays(kernel, dy=dy)
        sizes = [dy.shape if shape is None else tuple(map(int, shape)) for shape in (a_shape, b_shape)]
        shapes.equal(kernel, "dy", dy.shape, shapes.broadcast(sizes[0], sizes[1], kernel), "the shape of y")
        d, (da, db) = shapes.elements(dy.shape), (memory.empty(shape, dtype) for shape in sizes)
        dy_, da_, db_ = _axed(dy, da, db)
        self.backend.subtract_backward(dy_, d, self._scratch(kernel, d, dy_), da_, db_)
        return da, db

    def multiply(self, a: Array, b: Array) -> Array:
        """y = a b, element by element; axes of size 1, and those that are not there, are repeated.

        Args:
            a: an array of any shape, of up to eight axes.
            b: of a shape that fits a's: seen from the last axis on, sizes are equal or 1.

        Returns:
            y of both shapes' larger sizes.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes do not fit, or have too many axes.

        >>> import numpy as np
        >>> import kernels
        >>> kernels.get("numpy").multiply(np.ones((1, 2, 3)), np.array([[1.0], [2.0]]))
        array([[[1., 1., 1.],
                [2., 2., 2.]]])
        """
        return self._broadcast("multiply", a, b)

    def multiply_backward(self, dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
        """Gradients of `multiply`: da = Σ dy b, db = Σ dy a.

        Sums go over the places where an array was repeated.

        Args:
            dy: gradient of a scalar loss by y, of y's shape.
            a: the forward's first array.
            b: the forward's second array.

        Returns:
            da of a's shape and db of b's.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes of a and b do not fit, dy is not
                of y's shape.
        """
        kernel = "multiply_backward"
        shapes.arrays(kernel, dy=dy, a=a, b=b)
        shapes.equal(kernel, "dy", dy.shape, shapes.broadcast(a.shape, b.shape, kernel), "the shape of y")
        d, da, db = shapes.elements(dy.shape), _like(a), _like(b)
        cast(Any, self.backend).multiply_backward(
            *_axed(dy, a, b), d, self._scratch(kernel, d, *_axed(dy)), *_axed(da, db)
        )
        return da, db

    def divide(self, a: Array, b: Array) -> Array:
        """y = a / b, element by element; axes of size 1, and those that are not there, are repeated.

        Where b is zero y is infinite or NaN, as floats have it.

        Args:
            a: an array of any shape, of up to eight axes.
            b: of a shape that fits a's: seen from the last axis on, sizes are equal or 1.

        Returns:
            y of both shapes' larger sizes.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes do not fit, or have too many axes.
        """
        return self._broadcast("divide", a, b)

    def divide_backward(self, dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
        """Gradients of `divide`: da = Σ dy / b, db = −(Σ dy a) / b / b.

        Sums go over the places where an array was repeated.

        Args:
            dy: gradient of a scalar loss by y, of y's shape.
            a: the forward's first array.
            b: the forward's second array.

        Returns:
            da of a's shape and db of b's.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes of a and b do not fit, dy is not
                of y's shape.
        """
        kernel = "divide_backward"
        shapes.arrays(kernel, dy=dy, a=a, b=b)
        shapes.equal(kernel, "dy", dy.shape, shapes.broadcast(a.shape, b.shape, kernel), "the shape of y")
        d, da, db = shapes.elements(dy.shape), _like(a), _like(b)
        cast(Any, self.backend).divide_backward(
            *_axed(dy, a, b), d, self._scratch(kernel, d, *_axed(dy)), *_axed(da, db)
        )
        return da, db

    def raise_to_power(self, a: Array, b: Array) -> Array:
        """y = a^b, element by element; axes of size 1, and those that are not there, are repeated.

        NaN where a < 0 and b is no whole number, infinite at a pole; 1 wherever b is 0. `power` is for one exponent.

        Args:
            a: an array of any shape, of up to eight axes.
            b: of a shape that fits a's: seen from the last axis on, sizes are equal or 1.

        Returns:
            y of both shapes' larger sizes.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes do not fit, or have too many axes.
        """
        return self._broadcast("raise_to_power", a, b)

    def raise_to_power_backward(self, dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
        """Gradients of `raise_to_power`: da = Σ dy b a^(b − 1), db = Σ dy a^b log a.

        Sums go over the places where an array was repeated. Terms of da are 0 where b is 0; those of db are NaN where
        a < 0, and 0 where a is 0 and b is not below.

        Args:
            dy: gradient of a scalar loss by y, of y's shape.
            a: the forward's first array.
            b: the forward's second array.

        Returns:
            da of a's shape and db of b's.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes of a and b do not fit, dy is not
                of y's shape.
        """
        kernel = "raise_to_power_backward"
        shapes.arrays(kernel, dy=dy, a=a, b=b)
        shapes.equal(kernel, "dy", dy.shape, shapes.broadcast(a.shape, b.shape, kernel), "the shape of y")
        d, da, db = shapes.elements(dy.shape), _like(a), _like(b)
        cast(Any, self.backend).raise_to_power_backward(
            *_axed(dy, a, b), d, self._scratch(kernel, d, *_axed(dy)), *_axed(da, db)
        )
        return da, db

    def mean(self, x: Array, axes: int | Sequence[int]) -> Array:
        """y = the mean of x over one axis, or over some that lie side by side, which y then lacks.

        Args:
            x: (N, ...).
            axes: an int or several, from 1 on; negative ones count from the last axis.

        Returns:
            y of x's shape without those axes.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis; axes are not there, twice there, the batch's, or not
                side by side.

        >>> import numpy as np
        >>> import kernels
        >>> kernels.get("numpy").mean(np.arange(12.0).reshape(1, 2, 3, 2), (1, 2))
        array([[5., 6.]])
        """
        dtype = shapes.arrays("mean", x=x)
        d, left = shapes.mean(x.shape, axes), _without(x.shape, axes)
        y = memory.empty(left, dtype)
        self.backend.mean(x, d, y)
        return y

    def mean_backward(self, dy: Array, x_shape: Shape, axes: int | Sequence[int]) -> Array:
        """Gradient of `mean`: dx = dy / size at every place, size being the number of elements that y is the mean of.

        Args:
            dy: gradient of a scalar loss by y, of y's shape.
            x_shape: the shape of the forward's x.
            axes: the forward's.

        Returns:
            dx of the forward's shape.

        Raises:
            TypeError: dy is anything but a numpy array of float32 or float64.
            ValueError: dy is not C-contiguous or has an empty axis, or is not of y's shape; axes as for `mean`.
        """
        dtype = shapes.arrays("mean_backward", dy=dy)
        d = shapes.mean(tuple(x_shape), axes, "mean_backward")
        shapes.equal("mean_backward", "dy", dy.shape, _without(tuple(x_shape), axes), "the shape of y")
        dx = memory.empty(tuple(map(int, x_shape)), dtype)
        self.backend.mean_backward(dy, d, dx)
        return dx

    # Joining, cutting and moving ---------------------------------------------------------------------------

    def concat(self, a: Array, b: Array, third: Array | None = None, fourth: Array | None = None) -> Array:
        """y = two, three or four arrays side by side along the last axis.

        Args:
            a: (N, ..., A).
            b: (N, ..., B), of a's shape but for the last axis.
            third: another of a's shape but for the last axis; None for none.
            fourth: another of a's shape but for the last axis; None for none.

        Returns:
            y (N, ..., A + B), or more in the last axis.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis, or only one axis; the shapes differ before
                the last axis.
        """
        parts = {"a": a, "b": b, **_given(third=third, fourth=fourth)}
        dtype = shapes.arrays("concat", **parts)
        shape = shapes.concat("concat", **{name: part.shape for name, part in parts.items()})
        y = memory.empty(tuple(map(int, shape)), dtype)
        self.backend.concat(a, b, third, fourth, y)
        return y

    def concat_backward(self, dy: Array, split: int) -> tuple[Array, Array]:
        """Gradients of `concat`: the parts of dy along the last axis before and from index split.

        Args:
            dy: gradient of a scalar loss by y, (N, ..., C).
            split: size of a's last axis, an int from 1 to C − 1.

        Returns:
            da (N, ..., split) and db (N, ..., C − split).

        Raises:
            TypeError: dy is anything but a numpy array of float32 or float64.
            ValueError: dy is not C-contiguous or has an empty axis, or only one axis; split is out of range.
        """
        dtype = shapes.arrays("concat_backward", dy=dy)
        shapes.channels(dy.shape, "concat_backward", "dy")
        split = shapes.integer("concat_backward", "split", split, 1)
        if split >= dy.shape[-1]:
            raise ValueError(f"concat_backward: split is {split}, expected less than dy's {dy.shape[-1]} channels")
        da = memory.empty((*dy.shape[:-1], split), dtype)
        db = memory.empty((*dy.shape[:-1], dy.shape[-1] - split), dtype)
        self.backend.concat_backward(dy, da, db)
        return da, db

    def slice(self, x: Array, axis: int, start: int | None = None, stop: int | None = None, step: int = 1) -> Array:
        """y = x[:, ..., start:stop:step], the slice along one axis, by NumPy's rules.

        Args:
            x: (N, ...).
            axis: an int from 1 on; negative ones count from the last axis.
            start: first place, an int; None for the beginning.
            stop: place before which it ends, an int; None for the end.
            step: distance of the places, an int but 0; a negative one goes backwards.

        Returns:
            y of x's shape but for that axis.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis; axis is not there or the batch's, step is 0, nothing
                is left.
        """
        dtype = shapes.arrays("slice", x=x)
        d = shapes.slice(x.shape, axis, start, stop, step)
        at = axis % x.ndim
        y = memory.empty((*x.shape[:at], d.kept, *x.shape[at + 1 :]), dtype)
        self.backend.slice(x, d, y)
        return y

    def slice_backward(
        self,
        dy: Array,
        x_shape: Shape,
        axis: int,
        start: int | None = None,
        stop: int | None = None,
        step: int = 1,
    ) -> Array:
        """Gradient of `slice`: dy at the places that y was taken from, zero elsewhere.

        Args:
            dy: gradient of a scalar loss by y, of y's shape.
            x_shape: the shape of the forward's x.
            axis: the forward's.
            start: the forward's, an int or None.
            stop: the forward's, an int or None.
            step: the forward's.

        Returns:
            dx of the forward's shape.

        Raises:
            TypeError: dy is anything but a numpy array of float32 or float64.
            ValueError: dy is not C-contiguous or has an empty axis, or is not of y's shape; the rest as for `slice`.
        """
        dtype = shapes.arrays("slice_backward", dy=dy)
        shape = tuple(map(int, x_shape))
        d = shapes.slice(shape, axis, start, stop, step, "slice_backward")
        at = axis % len(shape)
        shapes.equal("slice_backward", "dy", dy.shape, (*shape[:at], d.kept, *shape[at + 1 :]), "the shape of y")
        dx = memory.empty(shape, dtype)
        self.backend.slice_backward(dy, d, dx)
        return dx

    def transpose(self, x: Array, axes: Sequence[int]) -> Array:
        """y = x with its axes in another order, as an array of its own: axis i of y is axis axes[i] of x.

        Args:
            x: an array of any shape, of up to eight axes.
            axes: the numbers of x's axes, each once.

        Returns:
            y of x's sizes in that order.

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous or has an empty axis; axes are no order of x's axes, or too many.
        """
        dtype = shapes.arrays("transpose", x=x)
        order = shapes.permutation("transpose", axes, x.ndim)
        y = memory.empty(tuple(x.shape[axis] for axis in order), dtype)
        self.backend.transpose(x, order, y)
        return y

    def pad2d(self, x: Array, padding: Sides, mode: str = "constant", value: float = 0.0) -> Array:
        """y = x with places added around each image, or taken off where the padding is negative.

        Args:
            x: images (N, H, W, C).
            padding: places on each side, an int, an (h, w) pair, or ((top, bottom), (left, right)).
            mode: "constant" for value in the new places, "edge" for the nearest pixel, "reflect" for the one as far
                inside the outermost pixel.
            value: what mode "constant" fills in, a finite number.

        Returns:
            y (N, top + H + bottom, left + W + right, C).

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous, has an empty axis or other axes than four; padding leaves nothing, or is
                too wide to reflect; mode is unknown, value is not finite.
        """
        dtype = shapes.arrays("pad2d", x=x)
        d = shapes.pad2d(x.shape, padding, mode)
        value = shapes.number("pad2d", "value", value)
        y = memory.empty((len(x), d.oh, d.ow, d.c), dtype)
        self.backend.pad2d(x, d, mode, value, y)
        return y

    def pad2d_backward(self, dy: Array, x_shape: Shape, padding: Sides, mode: str = "constant") -> Array:
        """Gradient of `pad2d`: each dy is added at the pixel that it was taken from.

        Args:
            dy: gradient of a scalar loss by y, of y's shape.
            x_shape: (N, H, W, C) of the forward's images.
            padding: the forward's, an int, an (h, w) pair, or ((top, bottom), (left, right)).
            mode: the forward's.

        Returns:
            dx (N, H, W, C).

        Raises:
            TypeError: dy is anything but a numpy array of float32 or float64.
            ValueError: dy is not C-contiguous or has an empty axis, or is not of y's shape; padding or mode as for
                `pad2d`.
        """
        dtype = shapes.arrays("pad2d_backward", dy=dy)
        d = shapes.pad2d(tuple(x_shape), padding, mode, "pad2d_backward")
        shapes.equal("pad2d_backward", "dy", dy.shape, (x_shape[0], d.oh, d.ow, d.c), "the shape of y")
        dx = memory.empty((len(dy), d.h, d.w, d.c), dtype)
        self.backend.pad2d_backward(dy, d, mode, dx)
        return dx

    def upsample2d(self, x: Array, factor: Pair = 2) -> Array:
        """y = x with every pixel repeated: the nearest pixel of an image factor times as large.

        Args:
            x: images (N, H, W, C).
            factor: of height and width, an int or an (h, w) pair, at least 1.

        Returns:
            y (N, factor H, factor W, C).

        Raises:
            TypeError: x is anything but a numpy array of float32 or float64.
            ValueError: x is not C-contiguous, has an empty axis or other axes than four; factor is out of range.
        """
        dtype = shapes.arrays("upsample2d", x=x)
        d = shapes.upsample2d(x.shape, factor)
        y = memory.empty((len(x), d.h * d.factor_h, d.w * d.factor_w, d.c), dtype)
        self.backend.upsample2d(x, d, y)
        return y

    def upsample2d_backward(self, dy: Array, factor: Pair = 2) -> Array:
        """Gradient of `upsample2d`: the sum of dy over a pixel's copies.

        Args:
            dy: gradient of a scalar loss by y, (N, factor H, factor W, C).
            factor: the forward's, an int or an (h, w) pair.

        Returns:
            dx (N, H, W, C).

        Raises:
            TypeError: dy is anything but a numpy array of float32 or float64.
            ValueError: dy is not C-contiguous, has an empty axis, other axes than four or sizes that are no multiples
                of factor; factor is out of range.
        """
        kernel = "upsample2d_backward"
        dtype = shapes.arrays(kernel, dy=dy)
        shapes.rank(kernel, "dy", dy.shape, 4, "samples, height, width, channels")
        h, w = shapes.pair(kernel, "factor", factor, 1)
        shape = len(dy), dy.shape[1] // h, dy.shape[2] // w, dy.shape[3]
        shapes.equal(kernel, "dy", dy.shape, (shape[0], shape[1] * h, shape[2] * w, shape[3]), f"factor {(h, w)}")
        d = shapes.upsample2d(shape, factor, kernel)
        dx = memory.empty(shape, dtype)
        self.backend.upsample2d_backward(dy, d, dx)
        return dx

    # Augmentation ------------------------------------------------------------------------------------------

    def uniform(
        self, indices: Array, shape: tuple[int, ...], seed: int = 0, step: int = 0, dtype: DTypeLike = np.float32
    ) -> Array:
        """Random numbers in [−1, 1] that belong to samples, in whatever batches these come.

        They depend on seed, step, a sample's index and a number's place: both backends draw the same. How:
        `kernels.Backend.uniform`.

        Args:
            indices: (N,), the samples' numbers, integers of any dtype, at least 0.
            shape: of one sample's numbers.
            seed: an int, at least 0.
            step: an int, at least 0, such as the epoch.
            dtype: float32 or float64.

        Returns:
            An array (N, *shape) of that dtype.

        Raises:
            TypeError: indices is no array of integers, dtype is neither float32 nor float64.
            ValueError: indices is empty, negative or has more than one axis; a size of shape is below 1, seed or step
                below 0.
        """
        indices = shapes.indices("uniform", indices)
        sizes = [shapes.integer("uniform", f"shape[{at}]", size, 1) for at, size in enumerate(shape)]
        seed, step = shapes.counter("uniform", "seed", seed), shapes.counter("uniform", "step", step)
        if (dtype := np.dtype(dtype)) not in shapes.FLOAT_DTYPES:
            raise TypeError(f"uniform: dtype is {dtype}, expected float32 or float64")
        u = memory.empty((len(indices), *sizes), dtype)
        self.backend.uniform(indices, seed, step, u)
        return u

    def smooth2d(self, x: Array, weights: Array) -> Array:
        """y[n, h, w, c] = Σ weights[|h − k|] weights[|w − l|] x[n, k, l, c]: a symmetric filter along rows and columns.

        The sum goes over |h − k| and |w − l| up to R; places outside x count as zero.

        Args:
            x: images (N, H, W, C).
            weights: (R + 1,), one half of the filter, its middle first.

        Returns:
            y (N, H, W, C).

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; x has other axes than four, weights than one.
        """
        shapes.arrays("smooth2d", x=x, weights=weights)
        d = shapes.image(x.shape, "smooth2d")
        shapes.rank("smooth2d", "weights", weights.shape, 1, "distances from the middle")
        y = _like(x)
        self.backend.smooth2d(x, weights, d, self._scratch("smooth2d", d, x), y)
        return y

    def warp(self, x: Array, matrix: Array, field: Array | None = None, fill: float = 0.0) -> Array:
        """y[n, h, w, c] = x[n, r, s, c] by bilinear interpolation, at a place (r, s) of an affine map and a field.

        (r, s) = matrix[n] (h, w, 1) + field[n, h, w], where h, w, r and s count from the image's centre. Pixels outside
        x have the value fill. The whole rule: `kernels.Backend.warp`.

        Args:
            x: images (N, H, W, C).
            matrix: (N, 2, 3), from a place in y to a place in x, rows before columns.
            field: (N, H, W, 2), what is added to each place, in pixels; None for nothing.
            fill: a finite number.

        Returns:
            y (N, H, W, C).

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; x has other axes than four, matrix or field
                does not fit x; fill is not finite.
        """
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
        """v = momentum v + g, then p −= learning_rate v, in place; with Nesterov p −= learning_rate (g + momentum v).

        Sutskever et al. 2013, in the form of PyTorch.

        Args:
            p: parameters, any shape; updated in place.
            g: their gradients, of p's shape.
            v: velocity, of p's shape, zeros at first; updated in place. None for no momentum.
            learning_rate: a finite number.
            momentum: in [0, 1); 0 where v is None.
            nesterov: whether to look one step ahead.
            weight_decay: at least 0; added to the gradient as weight_decay p.
            decoupled: whether p loses learning_rate · weight_decay · p instead, and the gradient is left alone.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ, p or v is read-only; a
                number is out of range or not finite, v is None for a momentum above 0.
        """
        rates = _rates("sgd", learning_rate, weight_decay)
        momentum = shapes.number("sgd", "momentum", momentum, 0.0, below=1.0)
        if v is None and momentum:
            raise ValueError(f"sgd: v is None, expected an array like p for momentum {momentum}")
        _state("sgd", p, g, **_given(v=v))
        p, g, v = _axed(p, g, v)
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
        """v = rho v + (1 − rho) g², then p −= learning_rate g / (√v + eps), in place.

        Tieleman and Hinton 2012.

        Args:
            p: parameters, any shape; updated in place.
            g: their gradients, of p's shape.
            v: mean of squared gradients, of p's shape, zeros at first; updated in place.
            learning_rate: a finite number.
            rho: weight of the old mean, in [0, 1).
            eps: added to the divisor, at least 0.
            weight_decay: at least 0; added to the gradient as weight_decay p.
            decoupled: whether p loses learning_rate · weight_decay · p instead, and the gradient is left alone.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ, p or v is read-only; a
                number is out of range or not finite.
        """
        rates = _rates("rmsprop", learning_rate, weight_decay)
        rho = shapes.number("rmsprop", "rho", rho, 0.0, below=1.0)
        eps = shapes.number("rmsprop", "eps", eps, 0.0)
        _state("rmsprop", p, g, v=v)
        p, g, v = _axed(p, g, v)
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
        """m = beta1 m + (1 − beta1) g, v = beta2 v + (1 − beta2) g², then p −= learning_rate m̂ / (√v̂ + eps), in place.

        m̂ = m / (1 − beta1^step) and v̂ = v / (1 − beta2^step) make up for the start at zero. Kingma and Ba 2015.

        Args:
            p: parameters, any shape; updated in place.
            g: their gradients, of p's shape.
            m: mean of gradients, of p's shape, zeros at first; updated in place.
            v: mean of squared gradients, of p's shape, zeros at first; updated in place.
            step: number of this update, an int, from 1.
            learning_rate: a finite number.
            beta1: weight of the old mean m, in [0, 1).
            beta2: weight of the old mean v, in [0, 1).
            eps: added to the divisor, at least 0.
            weight_decay: at least 0; added to the gradient as weight_decay p.
            decoupled: whether p loses learning_rate · weight_decay · p instead, and the gradient is left alone.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ, p, m or v is read-only; a
                number is out of range or not finite.
        """
        rates = _rates("adam", learning_rate, weight_decay)
        step = shapes.integer("adam", "step", step, 1)
        beta1 = shapes.number("adam", "beta1", beta1, 0.0, below=1.0)
        beta2 = shapes.number("adam", "beta2", beta2, 0.0, below=1.0)
        eps = shapes.number("adam", "eps", eps, 0.0)
        _state("adam", p, g, m=m, v=v)
        p, g, m, v = _axed(p, g, m, v)
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
        """`adam` with decoupled weight decay, in place: p loses learning_rate · weight_decay · p besides.

        Loshchilov and Hutter 2019.

        Args:
            p: parameters, any shape; updated in place.
            g: their gradients, of p's shape.
            m: mean of gradients, of p's shape, zeros at first; updated in place.
            v: mean of squared gradients, of p's shape, zeros at first; updated in place.
            step: number of this update, an int, from 1.
            learning_rate: a finite number.
            beta1: weight of the old mean m, in [0, 1).
            beta2: weight of the old mean v, in [0, 1).
            eps: added to the divisor, at least 0.
            weight_decay: at least 0.

        Raises:
            TypeError: the arrays are anything but numpy arrays of one dtype, float32 or float64.
            ValueError: an array is not C-contiguous or has an empty axis; the shapes differ, p, m or v is read-only; a
                number is out of range or not finite.
        """
        self.adam(p, g, m, v, step, learning_rate, beta1, beta2, eps, weight_decay, decoupled=True)

    def clip_norm(self, g: Array, limit: float) -> None:
        """g *= min(1, limit / (‖g‖ + 10⁻⁶)), in place: the Euclidean norm of all of g becomes at most limit.

        Pascanu et al. 2013, in PyTorch's form. NaN anywhere in g makes all of it NaN.

        Args:
            g: gradients, any shape; updated in place.
            limit: a number above 0.

        Raises:
            TypeError: g is anything but a numpy array of float32 or float64.
            ValueError: g is not C-contiguous, has an empty axis or is read-only; limit is not above 0.
        """
        shapes.arrays("clip_norm", g=g)
        shapes.writeable("clip_norm", g=g)
        limit = shapes.number("clip_norm", "limit", limit, 0.0, above=True)
        d = shapes.FlatDims(g.size)
        flat = g.reshape(-1)
        self.backend.clip_norm(flat, limit, d, self._scratch("clip_norm", d, flat))

    # What the methods share --------------------------------------------------------------------------------

    def _find(self, kernel: str, name: str) -> Any:
        """A function of the backend that belongs to a kernel."""
        found = getattr(self.backend, name, None)
        if not callable(found):
            roles(kernel)  # knows every kernel, and raises where it does not know this one
            raise ValueError(f"the {self.name} backend has no {name}")
        return found

    def _scratch(self, kernel: str, d: Any, x: Array) -> Array:
        return memory.empty(self.scratch_size(kernel, d, len(x) if x.ndim else 1), x.dtype)

    def _weighted(
        self, kernel: str, name: str, output: Array, target: Array, weights: Array | None, *attributes: float
    ) -> tuple[Array, Array]:
        """A loss of outputs and targets of one shape, by weight."""
        dtype = shapes.arrays(kernel, **{name: output, "target": target}, **_given(weights=weights))
        shapes.equal(kernel, "target", target.shape, output.shape, f"the shape of {name}")
        d = shapes.channels(output.shape, kernel, name)
        if weights is not None:
            shapes.weights(kernel, weights, len(output))
        loss, gradient = memory.empty((), dtype), _like(output)
        scratch = self._scratch(kernel, d, output)
        getattr(self.backend, kernel)(output, target, weights, *attributes, d, scratch, loss, gradient)
        return loss, gradient

    def _broadcast(self, kernel: str, a: Array, b: Array) -> Array:
        dtype = shapes.arrays(kernel, a=a, b=b)
        y = memory.empty(tuple(map(int, shapes.broadcast(a.shape, b.shape, kernel))), dtype)
        getattr(self.backend, kernel)(*_axed(a, b, y))
        return y

    def _map(self, kernel: str, x: Array, *attributes: float) -> Array:
        shapes.arrays(kernel, x=x)
        y = _like(x)
        getattr(self.backend, kernel)(*_axed(x), *attributes, *_axed(y))
        return y

    def _map_backward(self, kernel: str, dy: Array, x: Array, y: Array, *attributes: float) -> Array:
        _same_shape(kernel, dy=dy, x=x, y=y)
        dx = _like(x)
        getattr(self.backend, kernel)(*_axed(dy, x, y), *attributes, *_axed(dx))
        return dx


def _shape(array: Array | None) -> Shape | None:
    return None if array is None else array.shape


def _given(**optional: Array | None) -> dict[str, Array]:
    return {name: array for name, array in optional.items() if array is not None}


def _like(array: Array) -> Array:
    return memory.empty(array.shape, array.dtype)


def _axed(*arrays: Any) -> tuple[Any, ...]:
    """Arrays without axes as views with one, which backends expect: NumPy makes numbers of results without any."""
    return tuple(array.reshape(1) if array is not None and array.ndim == 0 else array for array in arrays)


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


def _group_vectors(kernel: str, groups: int, x: Array, **named: Array) -> shapes.GroupDims:
    """Check as `_channel_vectors` does, and the groups."""
    _channel_vectors(kernel, x, **named)
    return shapes.groups(x.shape, groups, kernel)


def _without(shape: Shape, axes: int | Sequence[int]) -> tuple[int, ...]:
    """A shape without some of its axes."""
    left_out = shapes.sample_axes("mean", "axes", axes, len(shape))
    return tuple(int(size) for axis, size in enumerate(shape) if axis not in left_out)


def _rates(kernel: str, learning_rate: float, weight_decay: float) -> tuple[float, float]:
    return (
        shapes.number(kernel, "learning_rate", learning_rate),
        shapes.number(kernel, "weight_decay", weight_decay, 0.0),
    )


def _state(kernel: str, p: Array, g: Array, **state: Array) -> None:
    _same_shape(kernel, p=p, g=g, **state)
    shapes.writeable(kernel, p=p, **state)
