"""Lowering: a network becomes a plan. `lower_training` is backpropagation, the whole of it; read on from here.

No number is computed in this file. Layers write calls of kernels into a plan, one below the other, and a backend runs
them; `print(trainer.plan)` lists what was written. L is the loss, and dv stands for ∂L/∂v, an array of v's shape:

    forward     y = f(x, w) for every layer, in the order of the graph
    loss        L, and its gradient by the network's output
    backward    dx = (∂y/∂x)ᵀ dy and dw = (∂y/∂w)ᵀ dy for every layer, in reverse order
    statistics  running means and variances
    optimizer   w −= learning rate · dw, or whatever the optimizer makes of it
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from .architecture import Architecture
from .builder import Backward, PlanBuilder
from .layers import Parameter
from .layout import Layout
from .losses import Loss
from .nodes import INPUT, Node
from .optimizers import Optimizer
from .plan import BATCH, GRADIENTS, PARAMETERS, Plan, Value, gradient_name, state_name


@dataclass(frozen=True)
class Network:
    """What is known of a network once its forward is written: by node, and for arrays by "node.name"."""

    values: dict[str, Value]
    backwards: dict[str, Backward | None] = field(default_factory=dict)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    statistics: dict[str, Parameter] = field(default_factory=dict)


def lower_inference(architecture: Architecture) -> tuple[Plan, Network]:
    """The plan of inference, which is the forward alone, and what it has found out: nothing is allocated."""
    plan = PlanBuilder(training=False)
    x = Value(INPUT, (BATCH, *architecture.input_shape))
    network = _forward(plan, architecture.nodes, x)
    outputs = {"output": network.values[architecture.output]}
    return Plan(tuple(plan.steps), {INPUT: x}, outputs, None, architecture.dtype), network


def lower_training(
    architecture: Architecture,
    loss: Loss,
    optimizer: Optimizer | None,
    batch_size: int | None = None,
    input_gradient: bool = False,
) -> Plan:
    """The plan of a training step: forward, loss, backward in reverse; then the updates of running statistics and the
    optimizer's.

    Without an optimizer the step ends with the gradients; `input_gradient` asks for the input's too.
    """
    plan = PlanBuilder(training=True, seed=architecture.seed)
    x = Value(INPUT, (BATCH, *architecture.input_shape))
    if input_gradient:
        plan.want(x)
    network = _forward(plan, architecture.nodes, x)

    plan.enter("loss")
    output = network.values[architecture.output]
    target = loss.target(output.shape)
    loss_value, gradient = loss.lower(plan, output, target)

    plan.enter("backward")
    arriving = {architecture.output: [gradient]}
    _backward(plan, architecture.nodes, network, arriving)
    outputs = {"output": output, "loss": loss_value}
    if input_gradient:
        outputs[gradient_name(INPUT)] = _summed(plan, INPUT, arriving[INPUT])

    if optimizer is not None:
        plan.enter("optimizer")
        flat = (Layout({name: parameter.shape for name, parameter in network.parameters.items()}).size,)
        state = [Value(state_name(name), flat) for name in optimizer.state]
        optimizer.lower(plan, Value(PARAMETERS, flat), Value(GRADIENTS, flat), state)
    return Plan(plan.updates_last(), {INPUT: x, "target": target}, outputs, batch_size, architecture.dtype)


def _forward(plan: PlanBuilder, nodes: Sequence[Node], x: Value) -> Network:
    """Every layer writes its calls, and hands back its output and the function that will write its backward."""
    network = Network({INPUT: x})
    for node in nodes:
        append(plan, network, node)
    return network


def append(plan: PlanBuilder, network: Network, node: Node) -> None:
    """One more node, behind those that it reads."""
    inputs = [network.values[name] for name in node.inputs]
    with _named(node):
        plan.begin(node.name)
        parameters = node.layer.parameters(*(value.shape for value in inputs))
        statistics = node.layer.statistics(*(value.shape for value in inputs))
        p = plan.parameters({name: parameter.shape for name, parameter in parameters.items()})
        running = plan.parameters({name: array.shape for name, array in statistics.items()}, gradients=False)
        vars(p).update(vars(running))
        y, network.backwards[node.name] = node.layer.lower(plan, p, *inputs)
    # A gradient has to come back through here if something before here has a use for it.
    if parameters or any(plan.wants(value) for value in inputs):
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
        with _named(node):
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
                arriving.setdefault(name, []).append(dx)


def _summed(plan: PlanBuilder, name: str, gradients: list[Value]) -> Value:
    """Fan-out: the gradient by a node's output is the sum over its readers."""
    total = gradients[0]
    for other in gradients[1:]:
        joined = plan.value(f"{gradient_name(name)}.sum", total.shape)
        plan.call("add", total, other, joined)
        total = joined
    return total


@contextmanager
def _named(node: Node) -> Iterator[None]:
    """Errors of a layer say which one it is."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise type(error)(f"node {node.name!r} ({node.layer}): {error}") from error
