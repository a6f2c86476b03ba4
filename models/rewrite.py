"""Plan → Plan: steps that one kernel does in one go become one fused step, which carries them.

A rewrite finds its steps by following values from writer to reader, and keeps off where the result could differ: where
somebody else reads a value that would vanish, where the geometry does not fit, where another step has to run between.
It is applied only on a backend that has its kernels (`kernels.interface.Fused`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import wraps
from itertools import accumulate
from typing import Any

from kernels import Kernels, rules
from kernels.shapes import Pool2dDims, Shape, pool2d

from .plan import Plan, Step, Value, given
from .precision import OPERANDS

REWRITES: dict[str, Callable[[Plan, Kernels], Plan]] = {}
"""Every rewrite by name, in the order in which they are applied: some build on the fused steps of others."""


def rewrite(plan: Plan, kernels: Kernels, names: Iterable[str] | None = None) -> Plan:
    """The plan after the rewrites of these names, all of them if None; ValueError for an unknown name."""
    chosen = checked(names)
    for name, apply in REWRITES.items():
        if chosen is None or name in chosen:
            plan = apply(plan, kernels)
    return plan


def checked(names: Iterable[str] | None) -> tuple[str, ...] | None:
    """Names of rewrites as a tuple, None for all of them; ValueError for an unknown one."""
    if names is None:
        return None
    if not isinstance(names, Iterable) or not getattr(names, "ndim", 1):
        raise TypeError(f"rewrites is {names!r}, expected some of {', '.join(REWRITES)}")
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        if not isinstance(name, str) or name not in REWRITES:
            raise ValueError(f"rewrites: unknown name {name!r}; expected some of {', '.join(REWRITES)}")
    return names


# Following values ----------------------------------------------------------------------------------------------


class _Flow:
    """Who reads and who writes each value of a plan, kept up with while its steps are fused."""

    def __init__(self, plan: Plan, kernels: Kernels) -> None:
        self.kernels, self.batch_size = kernels, plan.batch_size
        self._names = {value.name for value in plan.values()}
        self._outputs = {value.origin for value in plan.outputs.values()}
        self._readers: dict[Value, list[Step]] = {}
        self._writers: dict[Value, Step] = {}
        for step in plan.steps:
            self._enter(step)
        self.inference = all(step.phase == "forward" for step in plan.steps)
        self._changing = {value.origin for step in plan.steps for value in step.outputs.values()}
        self._changing |= {value.origin for value in plan.inputs.values()}

    def _enter(self, step: Step) -> None:
        for value in step.inputs.values():
            self._readers.setdefault(value.origin, []).append(step)
        self._writers.update(dict.fromkeys((value.origin for value in step.outputs.values()), step))

    def fused(self, step: Step) -> None:
        """The step has taken the place of those that it replaces, if any."""
        for replaced in step.replaces:
            for value in replaced.inputs.values():
                self._readers[value.origin] = [other for other in self._readers[value.origin] if other is not replaced]
        if step.replaces:
            self._enter(step)
        self._names |= {value.name for value in (*step.inputs.values(), *step.outputs.values())}

    def only(self, value: Value, *readers: Step) -> bool:
        """Whether nobody but these steps reads the value, in whatever shape."""
        return value.origin not in self._outputs and set(self._readers.get(value.origin, ())) == set(readers)

    def readers(self, value: Value) -> tuple[Step, ...]:
        """The steps that read a value, in whatever shape."""
        return tuple(self._readers.get(value.origin, ()))

    def is_left(self, step: Step) -> bool:
        """Whether a step has not been replaced."""
        return any(reader is step for value in step.inputs.values() for reader in self.readers(value))

    def next(self, value: Value | None, kernel: str, parameter: str) -> Step | None:
        """The one step of this kernel that reads the value as this parameter."""
        readers = self._readers.get(value.origin, []) if value else []
        found = [step for step in readers if step.kernel == kernel and step.named[parameter] is value]
        return found[0] if len(found) == 1 else None

    def sole(self, value: Value, kernel: str, parameter: str) -> Step | None:
        """The one reader of the value, if it is of this kernel."""
        step = self.next(value, kernel, parameter)
        return step if step and self.only(value, step) else None

    def writer(self, value: Value) -> Step | None:
        """The step that writes a value last, in whatever shape."""
        return self._writers.get(value.origin)

    def chain(self, step: Step, *links: tuple[str, str, str]) -> tuple[Step, ...]:
        """The step and those after it along links (output, next kernel, its parameter); () if one is missing."""
        steps = [step]
        for output, kernel, parameter in links:
            following = self.next(steps[-1].named[output], kernel, parameter)
            if following is None:
                return ()
            steps.append(following)
        return tuple(steps)

    def constant(self, *values: Value | None) -> bool:
        """Whether these are parameters or statistics of a plan of inference: nothing in it can change them."""
        return self.inference and all(value is None or value.origin not in self._changing for value in values)

    def value(self, sibling: Value, name: str, shape: Shape) -> Value:
        """A new value of the node that another belongs to."""
        name = f"{sibling.name.rpartition('.')[0]}.{name}"
        while name in self._names:
            name += "'"
        return Value(name, shape)


def _step(kernel: str, replaces: Sequence[Step], phase: str, named: dict[str, Any]) -> Step:
    """A step whose arguments are picked by the kernel's parameter names."""
    return Step(kernel, tuple(named[name] for name in given(kernel)), phase, tuple(replaces))


def _agree(one: Step, other: Step, *parameters: str) -> bool:
    return all(one.named[name] == other.named[name] for name in parameters)


def _side_by_side(d: Pool2dDims) -> bool:
    """Whether windows lie so, inside the image, none of them with gaps."""
    return d.inside and (d.stride_h, d.stride_w, d.dilation_h, d.dilation_w) == (d.kh, d.kw, 1, 1)


# Putting fused steps into a plan ---------------------------------------------------------------------------------

Match = Callable[[_Flow, Step], Iterable[Step]]


def _rewrite(**needs: str) -> Callable[[Match], Callable[[Plan, Kernels], Plan]]:
    """Makes a rewrite of a function that is shown each step of the kernels `needs` names, if the backend has what
    each of them needs, and yields new steps: fused ones, and constants where a step replaces nothing."""

    def decorate(match: Match) -> Callable[[Plan, Kernels], Plan]:
        @wraps(match)
        def apply(plan: Plan, kernels: Kernels) -> Plan:
            starts = [k for k, names in needs.items() if all(map(kernels.has, names.split()))]
            flow, steps, constants, changed = _Flow(plan, kernels), list(plan.steps), list(plan.constants), False
            for step in plan.steps:
                if step.kernel in starts:
                    new = [replace(found, node=step.node) for found in match(flow, step)]
                    if _put(steps, new):
                        changed = True
                        constants += (found for found in new if not found.replaces)
                        for found in new:
                            flow.fused(found)
            return replace(plan, steps=tuple(steps), constants=tuple(constants)) if changed else plan

        REWRITES[match.__name__] = apply
        return apply

    return decorate


def _put(steps: list[Step], new: Sequence[Step]) -> bool:
    """Put the new steps in place of what they replace, all or none of them; whether that was done."""
    before = list(steps) if sum(bool(step.replaces) for step in new) > 1 else []
    for step in new:
        if step.replaces and not _put_in_place(steps, step):
            if before:
                steps[:] = before
            return False
    return bool(new)


def _put_in_place(steps: list[Step], fused: Step) -> bool:
    """Put `fused` in place of what it replaces, the steps between moved before or after it.

    False, and nothing done, where one of those depends on a replaced step and another replaced step on it.
    """
    places = [steps.index(step) for step in fused.replaces]
    first, end = min(places), max(places) + 1
    before: list[Step] = []
    replaced: list[Step] = []
    after: list[Step] = []
    for step in steps[first:end]:
        waits = any(_ordered(other, step) for other in after)
        if step in fused.replaces:
            if waits:
                return False
            replaced.append(step)
        elif waits or any(_ordered(other, step) for other in replaced):
            after.append(step)
        else:
            before.append(step)
    steps[first:end] = [*before, fused, *after]
    return True


def _ordered(one: Step, other: Step) -> bool:
    """Whether two steps must keep their order: one writes what the other reads or writes."""
    (reads, writes), (others_reads, others_writes) = (
        ({v.origin for v in step.inputs.values()}, {v.origin for v in step.outputs.values()}) for step in (one, other)
    )
    return not (writes.isdisjoint(others_reads | others_writes) and reads.isdisjoint(others_writes))


# Training --------------------------------------------------------------------------------------------------------


@_rewrite(batchnorm="batchnorm_relu_maxpool2d batchnorm_relu_maxpool2d_backward")
def pool_first(flow: _Flow, norm: Step) -> Iterator[Step]:
    """Batch-norm, ReLU and max-pooling: the maximum is taken first, so that less is left to normalise."""
    forward = flow.chain(norm, ("y", "relu", "x"), ("y", "maxpool2d", "x"))
    if not forward:
        return
    _, relu, pool = forward
    backward = flow.chain(
        pool,
        ("argmax", "maxpool2d_backward", "argmax"),
        ("dx", "relu_backward", "dy"),
        ("dx", "batchnorm_backward", "dy"),
    )[1:]
    if not backward:
        return
    pool_backward, relu_backward, norm_backward = backward
    legal = (
        _side_by_side(pool.named["d"])
        and pool.named["d"].argmax_dtype.itemsize == 1
        and flow.only(norm.named["y"], relu, relu_backward)
        and flow.only(relu.named["y"], pool, relu_backward)
        and flow.only(pool.named["argmax"], pool_backward)
        and flow.only(pool_backward.named["dx"], relu_backward)
        and flow.only(relu_backward.named["dx"], norm_backward)
        and _agree(pool, pool_backward, "d")
        and _agree(relu, relu_backward, "x", "y")
        and _agree(norm, norm_backward, "x", "gamma", "mean", "inv_std")
    )
    if not legal:
        return
    x, beta, y = norm.named["x"], norm.named["beta"], pool.named["y"]
    common = {"x": x, "beta": beta, "peak": flow.value(norm.named["y"], "peak", y.shape)}
    name = "batchnorm_relu_maxpool2d"
    yield _step(name, forward, norm.phase, norm.named | pool.named | common)
    own = common | {"dx": norm_backward.named["dx"]}
    yield _step(f"{name}_backward", backward, pool_backward.phase, norm_backward.named | pool_backward.named | own)


_CONTRACTIONS = ("linear", "linear_backward", "conv2d", "conv2d_backward")


@_rewrite(**{kernel: f"{kernel}_bfloat16" for kernel in _CONTRACTIONS})
def round_inside(flow: _Flow, contraction: Step) -> Iterator[Step]:
    """In bfloat16 a contraction of training rounds its operands itself, to pairs that one instruction multiplies."""
    if not _rounds_inside(flow, contraction):
        return
    own = dict(contraction.named)
    roundings: list[Step] = []
    for operand, rounding in _roundings(flow, contraction).items():
        own[operand] = rounding.named["x"]
        # What nobody will read is rounded in the definition alone: where it was, in that of its first reader.
        readers = flow.readers(rounding.named["y"])
        if flow.is_left(rounding) and all(_rounds_inside(flow, reader) for reader in readers):
            roundings.append(rounding)
    yield _step(f"{contraction.name}_bfloat16", [*roundings, contraction], contraction.phase, own)


def _rounds_inside(flow: _Flow, step: Step) -> bool:
    """Whether `round_inside` takes a step."""
    return (
        not flow.inference
        and step.kernel in _CONTRACTIONS
        and flow.kernels.has(f"{step.name}_bfloat16")
        and step.named.get("db") is None
        and _fills_pairs(step, flow.batch_size)
        and len(_roundings(flow, step)) == sum(operand in step.named for operand in OPERANDS)
    )


def _roundings(flow: _Flow, contraction: Step) -> dict[str, Step]:
    """The steps that round a contraction's operands, by these."""
    writers = {name: flow.writer(contraction.named[name]) for name in OPERANDS if name in contraction.named}
    return {name: writer for name, writer in writers.items() if writer and writer.kernel == "round_to_bfloat16"}


def _fills_pairs(contraction: Step, batch_size: int | None = None) -> bool:
    """Whether products of pairs are worth it: those of a convolution in groups, of few numbers in a row, or of the
    gradients of a few images, would be zeros for the most part."""
    d, backward = contraction.named["d"], "dy" in contraction.named
    if backward and batch_size is not None and batch_size < 16:
        return False
    return contraction.name.startswith("linear") or bool(d.groups == 1 and (backward or d.kw * d.c >= 16))


@_rewrite(conv2d="conv2d_batchnorm_relu_maxpool2d conv2d_batchnorm_relu_maxpool2d_backward")
def convolution_statistics(flow: _Flow, conv: Step) -> Iterator[Step]:
    """A convolution and the block of `pool_first` after it: the statistics are summed while the output is at hand."""
    forward = flow.chain(conv, ("y", "batchnorm_relu_maxpool2d", "x"))
    to_norm = ("y", "batchnorm_relu_maxpool2d_backward", "x")
    backward = flow.chain(conv, to_norm, ("dx", "conv2d_backward", "dy"))[1:]
    rounds = ("dx", "round_to_bfloat16", "x"), ("dx", "conv2d_backward_bfloat16", "dy")
    rounded = any(flow.chain(conv, to_norm, link) for link in rounds)
    if forward and rounded and conv.named["d"].groups == 1:  # the two backward stay apart
        yield _convolution_block(conv, forward)
    if not forward or not backward:
        return
    (_, block), (block_backward, conv_backward) = forward, backward
    legal = (
        conv.named["d"].groups == 1
        and flow.only(conv.named["y"], block, block_backward)
        and flow.only(block_backward.named["dx"], conv_backward)
        and _agree(conv, conv_backward, "x", "w", "d")
    )
    if not legal:
        return
    yield _convolution_block(conv, forward)
    own = {"z": conv.named["y"], "pool": block.named["d"], "dy": block_backward.named["dy"]}
    name = "conv2d_batchnorm_relu_maxpool2d_backward"
    yield _step(name, backward, block_backward.phase, block_backward.named | conv_backward.named | own)


def _convolution_block(conv: Step, steps: Sequence[Step]) -> Step:
    """The convolution and the block after it as one step."""
    block = steps[-1].named
    own = {"z": conv.named["y"], "pool": block["d"], "y": block["y"]}
    return _step("conv2d_batchnorm_relu_maxpool2d", steps, conv.phase, block | conv.named | own)


@_rewrite(batchnorm="batchnorm_relu batchnorm_relu_backward")
def batchnorm_relu(flow: _Flow, norm: Step) -> Iterator[Step]:
    """Batch-norm, a residual and a ReLU in one pass; backward the gradients that meet at the ReLU are added there."""
    joined, residual = _residual(flow, norm.named["y"])
    before = joined.named["y"] if joined else norm.named["y"]
    relu, relu_backward = (flow.next(before, kernel, "x") for kernel in ("relu", "relu_backward"))
    if not (relu and relu_backward):
        return
    dz = relu_backward.named["dx"]
    found = [step for step in flow.readers(dz) if step.kernel == "batchnorm_backward"]
    found = [step for step in found if _agree(norm, step, "x", "gamma", "mean", "inv_std", "d")]
    if len(found) != 1 or found[0].named["dy"] is not dz:
        return
    (norm_backward,) = found
    legal = (
        flow.only(norm.named["y"], joined or relu, *(() if joined else (relu_backward,)))
        and flow.only(before, relu, relu_backward)
        and _agree(relu, relu_backward, "x", "y")
        and (joined or flow.only(dz, norm_backward))
    )
    if not legal:
        return
    forward = [norm, joined, relu] if joined else [norm, relu]
    own = {"residual": residual, "y": relu.named["y"]}
    yield _step("batchnorm_relu", forward, norm.phase, norm.named | own)
    dy, more, backward = relu_backward.named["dy"], None, [relu_backward, norm_backward]
    summed = flow.writer(dy)
    if summed and summed.kernel == "add" and flow.only(dy, relu_backward) and summed.named["y"] is dy:
        parts = summed.named["a"], summed.named["b"]
        if all(part.shape == dy.shape for part in parts):
            (dy, more), backward = parts, [summed, *backward]
    own = {"dy": dy, "more": more, "beta": norm.named["beta"]}
    own |= {"y": relu.named["y"], "dresidual": dz} if joined else {"y": None, "dresidual": None}
    yield _step("batchnorm_relu_backward", backward, relu_backward.phase, norm_backward.named | own)


# Inference -------------------------------------------------------------------------------------------------------


_PAIRED_CONVOLUTION = ("conv2d_fold", "conv2d_fold_bfloat16", "conv2d_folded_bfloat16")


@_rewrite(round_to_bfloat16="linear_fold linear_fold_bfloat16 linear_folded_bfloat16")
def multiply_pairs(flow: _Flow, rounding: Step) -> Iterator[Step]:
    """In bfloat16 a contraction of inference rounds its input itself, to pairs that one instruction multiplies."""
    linear, conv = (flow.sole(rounding.named["y"], kernel, "x") for kernel in ("linear", "conv2d"))
    if linear:
        yield from _packed_linear(flow, linear, "_bfloat16", (rounding,))
    elif conv and _fills_pairs(conv) and all(map(flow.kernels.has, _PAIRED_CONVOLUTION)):
        norm = flow.sole(conv.named["y"], "batchnorm_inference", "x")
        if norm and not flow.constant(*(norm.named[name] for name in ("gamma", "beta", "mean", "var"))):
            norm = None
        yield from _packed_convolution(flow, conv, norm, "_bfloat16", (rounding,))


@_rewrite(conv2d="conv2d_fold conv2d_folded")
def fold_batchnorm(flow: _Flow, conv: Step) -> Iterator[Step]:
    """Batch-norm of inference goes into the filters of the convolution before it."""
    norm = flow.sole(conv.named["y"], "batchnorm_inference", "x")
    if norm and flow.constant(*(norm.named[name] for name in ("gamma", "beta", "mean", "var"))):
        yield from _packed_convolution(flow, conv, norm)


@_rewrite(conv2d="conv2d_fold conv2d_folded", linear="linear_fold linear_folded")
def pack_weights(flow: _Flow, contraction: Step) -> Iterator[Step]:
    """Weights of inference are laid out once in the order in which the kernel reads them."""
    if contraction.kernel == "conv2d":
        yield from _packed_convolution(flow, contraction, None)
    else:
        yield from _packed_linear(flow, contraction)


def _packed_convolution(
    flow: _Flow, conv: Step, norm: Step | None, suffix: str = "", before: Sequence[Step] = ()
) -> Iterator[Step]:
    d = conv.named["d"]
    if not flow.constant(conv.named["w"], conv.named["b"]):
        return
    steps = [*before, conv, norm] if norm else [*before, conv]
    joined, residual = _residual(flow, steps[-1].named["y"])
    if joined:
        steps.append(joined)
    relu = flow.sole(steps[-1].named["y"], "relu", "x")
    if relu:
        steps.append(relu)
    pool = None if joined else flow.sole(steps[-1].named["y"], "maxpool2d", "x")
    fits = pool and d.groups == 1 and flow.only(pool.named["argmax"])
    if pool and not (fits and (not suffix or _side_by_side(pool.named["d"]))):
        pool = None
    if pool:
        steps.append(pool)
    nothing = {"gamma": None, "beta": None, "mean": None, "var": None, "eps": 0.0}
    packed = _packed(flow, conv, flow.kernels.fold_size("conv2d", d), d.f)
    packed["scale"] = flow.value(conv.named["y"], "scale", (d.f,))
    yield _step(f"conv2d_fold{suffix}", (), "constant", (norm.named if norm else nothing) | conv.named | packed)
    windows = pool.named["d"] if pool else pool2d(conv.named["y"].shape, 1, None, 0, "conv2d_folded")
    tail = {"residual": residual, "relu": relu is not None, "pool": windows, "y": steps[-1].named["y"]}
    own = conv.named | packed | tail | {"x": steps[0].named["x"]}
    yield _step(f"conv2d_folded{suffix}", steps, conv.phase, own)


def _residual(flow: _Flow, y: Value) -> tuple[Step | None, Value | None]:
    """The step that alone reads a value, to add another of its shape, and that other; two None if there is none."""
    for own, other in (("a", "b"), ("b", "a")):
        step = flow.sole(y, "add", own)
        if step and step.named[other].origin is not y.origin and step.named[other].shape == y.shape:
            return step, step.named[other]
    return None, None


_LARGE = 1 << 25
"""Weights of a linear layer, 128 MB of float32, that are not packed: they come from memory each time, in whatever order
they lie, and a second copy would be much of what the model takes."""


def _packed_linear(flow: _Flow, linear: Step, suffix: str = "", before: Sequence[Step] = ()) -> Iterator[Step]:
    d = linear.named["d"]
    if not flow.constant(linear.named["w"], linear.named["b"]) or (not suffix and d.k * d.m > _LARGE):
        return
    relu = flow.sole(linear.named["y"], "relu", "x")
    steps = [*before, linear, relu] if relu else [*before, linear]
    packed = _packed(flow, linear, flow.kernels.fold_size("linear", d), d.m)
    yield _step(f"linear_fold{suffix}", (), "constant", linear.named | packed)
    own = {"x": steps[0].named["x"], "relu": relu is not None, "y": steps[-1].named["y"]}
    yield _step(f"linear_folded{suffix}", steps, linear.phase, linear.named | packed | own)


def _packed(flow: _Flow, contraction: Step, size: int, outputs: int) -> dict[str, Value]:
    y = contraction.named["y"]
    return {"packed": flow.value(y, "packed", (size,)), "bias": flow.value(y, "bias", (outputs,))}


@_rewrite(maxpool2d="maxpool2d_inference")
def peaks_alone(flow: _Flow, pool: Step) -> Iterator[Step]:
    """A maximum whose place nobody asks for."""
    if flow.only(pool.named["argmax"]):
        yield _step("maxpool2d_inference", [pool], pool.phase, pool.named)


@_rewrite(concat="conv2d_folded maxpool2d_inference")
def concat_in_place(flow: _Flow, concat: Step) -> Iterator[Step]:
    """What is joined is written to where it is wanted: nothing is left to copy."""
    parts = [value for name, value in concat.inputs.items() if name != "y"]
    writers = [writer for part in parts if (writer := _part_writer(flow, part)) and flow.only(part, concat)]
    if len(set(writers)) < len(parts):
        return
    whole, ends = concat.named["y"], accumulate(int(part.shape[-1]) for part in parts)
    for writer, part, end in zip(writers, parts, ends, strict=True):
        start = end - int(part.shape[-1])
        value = Value(f"{whole.name}[{start}:{end}]", part.shape, whole.dtype, whole, (start, end))
        replaced = (writer, concat) if part is parts[-1] else (writer,)
        yield _step(writer.name, replaced, writer.phase, writer.named | {"y": value})


def _part_writer(flow: _Flow, value: Value) -> Step | None:
    """The step that writes a map and could do so among other channels; None if there is none."""
    writer = flow.writer(value)
    able = writer and writer.kernel in rules.WRITES_PARTS and len(value.shape) == 4
    return writer if writer and able and writer.named["y"] is value and not writer.named.get("residual") else None


# Both ------------------------------------------------------------------------------------------------------------


@_rewrite(linear="linear_relu linear_relu_backward")
def linear_relu(flow: _Flow, linear: Step) -> Iterator[Step]:
    """A linear layer and the ReLU after it; their backward needs the output alone."""
    forward = flow.chain(linear, ("y", "relu", "x"))
    if not forward:
        return
    _, relu = forward
    backward = flow.chain(linear, ("y", "relu_backward", "x"), ("dx", "linear_backward", "dy"))[1:]
    if not flow.only(linear.named["y"], relu, *backward[:1]):
        return
    fused = [_step("linear_relu", forward, linear.phase, linear.named | {"y": relu.named["y"]})]
    if backward:
        relu_backward, linear_backward = backward
        if not (_agree(relu, relu_backward, "x", "y") and flow.only(relu_backward.named["dx"], linear_backward)):
            return
        own = {"dy": relu_backward.named["dy"], "y": relu.named["y"]}
        fused.append(_step("linear_relu_backward", backward, relu_backward.phase, linear_backward.named | own))
    yield from fused
