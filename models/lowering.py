"""Lowering: a network becomes a plan. `lower_training` is backpropagation, the whole of it; read on from here.

No number is computed in this file. Layers write calls of kernels into a plan, one below the other, and a backend runs
them; `print(trainer.plan)` lists what was written. L is the loss, and dv stands for ∂L/∂v, an array of v's shape:

    forward     y = f(x, w) for every layer, in the order of the graph
    loss        L, and its gradient by the network's output
    backward    dx = (∂y/∂x)ᵀ dy and dw = (∂y/∂w)ᵀ dy for every layer, in reverse order
    statistics  running means and variances
    optimizer   w −= learning rate · dw, or whatever the optimizer makes of it

What changes where contractions are in bfloat16 stands in `precision`.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from kernels import shapes

from .architecture import Architecture
from .builder import Backward, PlanBuilder
from .flow import check_flow
from .layers import Layer, Parameter
from .layout import Layout
from .losses import Loss
from .nodes import INPUT, Node
from .optimizers import Optimizer
from .parts import Part
from .plan import (
    AVERAGE,
    AVERAGE_MOMENTUM,
    BATCH,
    GRADIENTS,
    LEARNING_RATE,
    PARAMETERS,
    WEIGHTS,
    Plan,
    Value,
    gradient_name,
    state_name,
)
from .precision import in_precision


@dataclass(frozen=True)
class Network:
    """What is known of a network once its forward is written: by node, and for arrays by "node.name"."""

    values: dict[str, Value]
    backwards: dict[str, Backward | None] = field(default_factory=dict)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    statistics: dict[str, Parameter] = field(default_factory=dict)

    @property
    def arrays(self) -> Collection[str]:
        """The names of all arrays that are kept between runs."""
        return ChainMap(self.parameters, self.statistics)


def lower_inference(architecture: Architecture, precision: str | None = None) -> tuple[Plan, Network]:
    """The plan of inference, which is the forward alone, and what it has found out: nothing is allocated."""
    plan = PlanBuilder(training=False)
    x = Value(INPUT, (BATCH, *architecture.input_shape))
    network = _forward(plan, architecture.nodes, x)
    outputs = {"output": network.values[architecture.output]}
    lowered = in_precision(Plan(tuple(plan.steps), {INPUT: x}, outputs, None, architecture.dtype), precision)
    check_flow(lowered, network.arrays, _layers(architecture))
    return lowered, network


def lower_training(
    architecture: Architecture,
    loss: Loss,
    optimizer: Optimizer | None,
    batch_size: int | None = None,
    input_gradient: bool = False,
    parts: Sequence[Part] | None = None,
    average: bool = False,
    precision: str | None = None,
) -> Plan:
    """The plan of a training step: forward, loss, backward in reverse; then the updates of running statistics and the
    optimizer's.

    Without an optimizer the step ends with the gradients; `input_gradient` asks for the input's too. parts: of the
    parameters, in whose place the optimizer updates them; those of no part are left as they are, and have no gradients.
    average: whether a moving average of the parameters is kept, by the weight AVERAGE_MOMENTUM of the new ones.
    precision: of the operands of contractions, one of `precision.PRECISIONS`.
    """
    if not isinstance(loss, Loss):
        raise TypeError(f"lower_training: loss is {loss!r}, expected a models.Loss")
    if not isinstance(optimizer, Optimizer | None):
        raise TypeError(f"lower_training: optimizer is {optimizer!r}, expected a models.Optimizer")
    plan = PlanBuilder(training=True, seed=architecture.seed)
    x = Value(INPUT, (BATCH, *architecture.input_shape))
    if input_gradient:
        plan.want(x)
    fixed = () if parts is None else {node.name for node in architecture.nodes} - {n for p in parts for n in p.nodes}
    network = _forward(plan, architecture.nodes, x, fixed)

    plan.enter("loss")
    output = network.values[architecture.output]
    with _named(f"loss {loss}"):
        target = loss.target(output.shape)
        inputs = {INPUT: x, "target": target}
        if loss.by_weight:
            inputs[WEIGHTS] = Value(WEIGHTS, (BATCH,))
        weights = (inputs[WEIGHTS],) if loss.by_weight else ()
        loss_value, gradient = _checked_loss(loss, target, output, loss.lower(plan, output, target, *weights))

    plan.enter("backward")
    if not plan.wants(output):
        raise ValueError("no parameter is trained, expected one at least")
    arriving = {architecture.output: [gradient]}
    _backward(plan, architecture.nodes, network, arriving)
    outputs = {"output": output, "loss": loss_value}
    if input_gradient:
        outputs[gradient_name(INPUT)] = _summed(plan, INPUT, arriving[INPUT])

    kept = {*network.arrays, PARAMETERS, GRADIENTS}
    if optimizer is not None:
        plan.enter("optimizer")
        layout = Layout({name: parameter.shape for name, parameter in network.parameters.items()})
        names = [*optimizer.state, *([AVERAGE] if average else [])]
        for name in names:
            if state_name(name) in network.arrays:
                node, _, own = state_name(name).rpartition(".")
                raise ValueError(f"node name {node!r} is not allowed: its {own!r} is the name of {optimizer}'s own")
        with _named(f"optimizer {optimizer}"):
            whole = Value(PARAMETERS, (layout.size,))
            kept |= _update(plan, optimizer, whole, parts)
        if average:
            plan.call("ema_update", Value(state_name(AVERAGE), whole.shape), whole, AVERAGE_MOMENTUM)
        kept |= {*map(state_name, names)}
    lowered = in_precision(Plan(plan.updates_last(), inputs, outputs, batch_size, architecture.dtype), precision)
    check_flow(lowered, kept, _layers(architecture))
    _check_gradients(plan, architecture, lowered)
    return lowered


def _update(plan: PlanBuilder, optimizer: Optimizer, whole: Value, parts: Sequence[Part] | None) -> set[str]:
    """The optimizer's calls, of all parameters or part by part; returns the names of the parts' vectors."""
    g = Value(GRADIENTS, whole.shape)
    if optimizer.clip_value is not None:
        clipped = plan.value("clipped", g.shape)
        plan.call("clip", g, -optimizer.clip_value, optimizer.clip_value, clipped)
        g = clipped
    if optimizer.clip_norm is not None:
        plan.call("clip_norm", g, optimizer.clip_norm, shapes.FlatDims(int(whole.shape[0])))
    if parts is None:
        state = [Value(state_name(name), g.shape) for name in optimizer.state]
        optimizer.lower(plan, whole, g, state)
        return set()
    names = set()
    for part in parts:
        first = len(plan.steps)
        own = {name: Value(part.of(name), (part.stop - part.start,)) for name in (PARAMETERS, GRADIENTS)}
        state = [Value(part.of(state_name(name)), own[PARAMETERS].shape) for name in optimizer.state]
        optimizer.lower(plan, own[PARAMETERS], own[GRADIENTS], state)
        names |= {value.name for value in (*own.values(), *state)}
        for at, step in enumerate(plan.steps[first:], first):
            arguments = tuple(part.learning_rate if a is LEARNING_RATE else a for a in step.arguments)
            plan.steps[at] = replace(step, arguments=arguments)
    return names


def _forward(plan: PlanBuilder, nodes: Sequence[Node], x: Value, fixed: Collection[str] = ()) -> Network:
    """Every layer writes its calls, and hands back its output and the function that will write its backward.

    fixed: nodes whose parameters are not trained.
    """
    network = Network({INPUT: x})
    for node in nodes:
        append(plan, network, node, node.name not in fixed)
    return network


def append(plan: PlanBuilder, network: Network, node: Node, trained: bool = True) -> None:
    """One more node, behind those that it reads."""
    inputs = [network.values[name] for name in node.inputs]
    with _named(_node(node)):
        plan.begin(node.name)
        parameters = node.layer.parameters(*(value.shape for value in inputs))
        statistics = node.layer.statistics(*(value.shape for value in inputs))
        _check_arrays(node, parameters, statistics, network)
        p = plan.parameters({name: parameter.shape for name, parameter in parameters.items()}, trained=trained)
        running = plan.parameters({name: array.shape for name, array in statistics.items()}, gradients=False)
        vars(p).update(vars(running))
        y, network.backwards[node.name] = _checked_output(node.layer.lower(plan, p, *inputs))
    # A gradient has to come back through here if something before here has a use for it.
    if (parameters and trained) or any(plan.wants(value) for value in inputs):
        plan.want(y)
    network.values[node.name] = y
    network.parameters.update({f"{node.name}.{name}": array for name, array in parameters.items()})
    network.statistics.update({f"{node.name}.{name}": array for name, array in statistics.items()})


def _backward(plan: PlanBuilder, nodes: Sequence[Node], network: Network, arriving: dict[str, list[Value]]) -> None:
    """The chain rule. `arriving` holds, by node, the gradients by its output: one from each reader so far.

    In reverse order all readers of a node come before it, so that its dy is complete when its own turn comes.
    """
    for node in reversed(nodes):
        if not plan.wants(network.values[node.name]):
            continue
        dy = _summed(plan, node.name, arriving[node.name])
        plan.begin(node.name)
        with _named(_node(node)):
            backward = network.backwards[node.name]
            if backward is None:
                raise TypeError(f"layer {type(node.layer).__name__} gives no backward in training")
            gradients = backward(dy)
            gradients = gradients if isinstance(gradients, tuple) else (gradients,)
            if len(gradients) != len(node.inputs):
                raise TypeError(f"backward gives {len(gradients)} gradients, expected {len(node.inputs)}, one an input")
            for name, dx in zip(node.inputs, gradients, strict=True):
                if not plan.wants(network.values[name]):
                    continue
                if dx is None:
                    raise TypeError(f"layer {type(node.layer).__name__} gives no gradient by its input {name!r}")
                _check_value("backward", f"the gradient by {name!r}", dx)
                shapes.equal("backward", f"the gradient by {name!r}", dx.shape, network.values[name].shape)
                arriving.setdefault(name, []).append(dx)


def _summed(plan: PlanBuilder, name: str, gradients: list[Value]) -> Value:
    """Fan-out: the gradient by a node's output is the sum over its readers."""
    total = gradients[0]
    for other in gradients[1:]:
        joined = plan.value(f"{gradient_name(name)}.sum", total.shape)
        plan.call("add", total, other, joined)
        total = joined
    return total


# What layers hand back ------------------------------------------------------------------------------------------


@contextmanager
def _named(who: str) -> Iterator[None]:
    """Errors say whose they are."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise type(error)(f"{who}: {error}") from error


def _node(node: Node) -> str:
    return f"node {node.name!r} ({node.layer})"


def _layers(architecture: Architecture) -> dict[str, Layer]:
    return {node.name: node.layer for node in architecture.nodes}


def _check_arrays(node: Node, parameters: Any, statistics: Any, network: Network) -> None:
    """Parameters and statistics have names of their own, and a shape and a start."""
    for method, arrays in (("parameters", parameters), ("statistics", statistics)):
        if not isinstance(arrays, Mapping):
            raise TypeError(f"{method} gives {arrays!r}, expected {{name: Parameter(shape, init)}}")
        for name, array in arrays.items():
            if not isinstance(array, Parameter):
                raise TypeError(f"{method} gives {name!r}: {array!r}, expected a models.Parameter")
            if not str(name).isidentifier():
                raise ValueError(f"{method} gives the name {name!r}, expected one that Python allows")
            for size in array.shape:
                shapes.integer(method, f"the shape of {name!r}", size, 1)
            if f"{node.name}.{name}" in network.arrays or (method == "statistics" and name in parameters):
                raise ValueError(f"{method} gives {name!r}, and there is an array {node.name}.{name} already")


def _checked_output(lowered: Any) -> tuple[Value, Backward | None]:
    if not isinstance(lowered, tuple) or len(lowered) != 2:
        raise TypeError(f"lower gives {lowered!r}, expected the output and the function that writes the backward calls")
    y, backward = lowered
    _check_value("lower", "the output", y)
    if y.shape[:1] != (BATCH,):
        raise ValueError(f"lower: the output has shape {shapes.text(y.shape)}, expected the batch axis N first")
    return y, backward


def _check_value(what: str, name: str, value: Any) -> None:
    """A value of the plan, in the model's own dtype."""
    if not isinstance(value, Value):
        raise TypeError(f"{what}: {name} is a {type(value).__name__}, expected a value of the plan")
    if value.dtype is not None:
        raise TypeError(f"{what}: {name} has dtype {value.dtype}, expected the model's own")


def _checked_loss(loss: Loss, target: Any, output: Value, lowered: Any) -> tuple[Value, Value]:
    if not isinstance(target, Value) or target.shape[:1] != (BATCH,):
        shown = shapes.text(target.shape) if isinstance(target, Value) else repr(target)
        raise TypeError(f"target gives {shown}, expected a value of the plan with the batch axis N first")
    if not isinstance(lowered, tuple) or len(lowered) != 2:
        raise TypeError(f"lower gives {lowered!r}, expected the loss and its gradient by the output")
    value, gradient = lowered
    for name, found, shape in (("the loss", value, ()), ("the gradient", gradient, output.shape)):
        _check_value("lower", name, found)
        shapes.equal("lower", name, found.shape, shape)
    return value, gradient


def _check_gradients(plan: PlanBuilder, architecture: Architecture, lowered: Plan) -> None:
    """The gradient by every parameter is written by somebody: else its old values would be taken for it."""
    written = {value.origin for step in lowered.steps for value in step.outputs.values()}
    nodes = {node.name: node for node in architecture.nodes}
    for parameter, gradient in plan.trained().items():
        if gradient not in written:
            node, _, name = parameter.name.rpartition(".")
            layer = nodes[node].layer
            raise TypeError(f"{_node(nodes[node])}: layer {type(layer).__name__} gives no gradient by its {name!r}")
