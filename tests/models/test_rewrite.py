"""Rewrites: what they match and what they refuse, that a fused step's expansion is the plan it came from, and that each
fused kernel of a backend gives what the steps that it replaces give."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import kernels
import models
from kernels import InPlace, Input, Kernel, Kernels, accuracy, memory
from kernels.numba_backend import pairs
from models import (
    SGD,
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    Flatten,
    GlobalMaxPool2d,
    Graph,
    Layer,
    Linear,
    MaxPool2d,
    MeanSquaredError,
    Plan,
    ReLU,
    Sequential,
    Step,
    Tanh,
    Trainer,
    Value,
)
from models.execute import Executor
from models.rewrite import REWRITES, rewrite

from ..support import fused
from ..support.conformance import MODULES, POISONS
from ..support.fused import REFERENCE

NUMPY = kernels.get("numpy")
BLOCK: tuple[Layer, ...] = (Conv2d(4, 3), BatchNorm(), ReLU(), MaxPool2d(2))
IMAGE = (8, 8, 2)
ZOO = tuple(models.zoo.NETWORKS)
SEEDS = range(12)

POOL_FIRST = ["batchnorm_relu_maxpool2d", "batchnorm_relu_maxpool2d_backward"]
STATISTICS = [f"conv2d_{name}" for name in POOL_FIRST]
NORM_RELU = ["batchnorm_relu", "batchnorm_relu_backward"]
PAIRS = [
    POOL_FIRST,
    STATISTICS,
    NORM_RELU,
    ["linear_relu", "linear_relu_backward"],
    ["conv2d_fold", "conv2d_folded"],
    ["linear_fold", "linear_folded"],
    ["maxpool2d_inference"],
    ["linear_fold_bfloat16", "linear_folded_bfloat16"],
    ["conv2d_fold_bfloat16", "conv2d_folded_bfloat16"],
    *([f"{kernel}_bfloat16"] for kernel in ("linear", "linear_backward", "conv2d", "conv2d_backward")),
]


def nothing(kernel: str) -> bool:
    return False


def training(
    nodes: Iterable[Layer] | dict[str, Any],
    shape: tuple[int, ...] = IMAGE,
    precision: str | None = None,
    batch_size: int = 4,
) -> Plan:
    """The plain plan of a training step of layers in a line, or of a graph whose last node is the output."""
    if isinstance(nodes, dict):
        model = Graph(nodes, list(nodes)[-1], shape, "numpy", precision=precision)
    else:
        model = Sequential(list(nodes), shape, "numpy", precision=precision)
    return model.lower_training(MeanSquaredError(), SGD(0.1), batch_size)


def inference(*layers: Layer, shape: tuple[int, ...] = IMAGE, precision: str | None = None) -> Plan:
    return Sequential(layers, shape, "numpy", precision=precision).plan


def names(plan: Plan) -> list[str]:
    return [step.name for step in plan.steps]


def originals(steps: Iterable[Step]) -> list[Step]:
    return [inner for step in steps for inner in step.expanded(nothing)]


def with_output(plan: Plan, name: str) -> Plan:
    """The plan with a value of its middle as one more output."""
    value = next(value for value in plan.values() if value.name == name)
    return replace(plan, outputs={**plan.outputs, name: value})


# What is matched -------------------------------------------------------------------------------------------------


def test_the_rewrites_have_names_and_one_line_each() -> None:
    training = ["pool_first", "round_inside", "convolution_statistics", "batchnorm_relu"]
    inference = ["multiply_pairs", "fold_batchnorm", "pack_weights"]
    assert list(REWRITES) == [*training, *inference, "peaks_alone", "concat_in_place", "linear_relu"]
    for name, apply in REWRITES.items():
        assert apply.__doc__ is not None, name
        assert "\n" not in apply.__doc__, name


def test_a_block_takes_its_maximum_first() -> None:
    plan = rewrite(training(BLOCK), REFERENCE, ["pool_first"])
    forward, backward = POOL_FIRST
    assert names(plan) == ["conv2d", forward, "mse", backward, "conv2d_backward", *["ema_update"] * 2, "sgd"]
    up, down = (next(step for step in plan.steps if step.name == name) for name in POOL_FIRST)
    assert [step.name for step in up.replaces] == ["batchnorm", "relu", "maxpool2d"]
    assert [step.name for step in down.replaces] == ["maxpool2d_backward", "relu_backward", "batchnorm_backward"]
    assert up.named["peak"] is down.named["peak"]
    assert up.named["peak"].shape == up.named["y"].shape == ("N", 3, 3, 4)
    assert str(up) == "1.mean, 1.inv_std, 1.var, 1.peak, 3.y, 3.argmax = " + (
        "batchnorm_relu_maxpool2d(0.y, 1.gamma, 1.beta)"
    )
    assert {"1.y", "2.y", "d1.y", "d2.y"}.isdisjoint(value.name for value in plan.values())


def test_a_convolution_joins_the_block_and_its_gradient_vanishes() -> None:
    plan = rewrite(training(BLOCK), REFERENCE, ["pool_first", "convolution_statistics"])
    forward, backward = STATISTICS
    assert names(plan) == [forward, "mse", backward, *["ema_update"] * 2, "sgd"]
    assert [step.name for step in plan.steps[0].replaces] == ["conv2d", POOL_FIRST[0]]
    assert [step.name for step in plan.steps[2].replaces] == [POOL_FIRST[1], "conv2d_backward"]
    assert "d0.y" not in {value.name for value in plan.values()}
    assert sorted(plan.steps[2].outputs) == ["db", "dbeta", "dgamma", "dw"]  # nobody wants the input's gradient
    alone = rewrite(training(BLOCK), REFERENCE, ["convolution_statistics"])
    assert names(alone) == names(training(BLOCK))


def test_a_fused_step_keeps_the_node_at_which_it_begins() -> None:
    block = rewrite(training(BLOCK), REFERENCE)
    assert [(step.name, step.node) for step in block.steps if step.replaces] == [(name, "0") for name in STATISTICS]
    norm_first = rewrite(training(BLOCK), REFERENCE, ["pool_first"])
    assert {step.node for step in norm_first.steps if step.replaces} == {"1"}
    dense = rewrite(training((Flatten(), Linear(5), ReLU(), Linear(3)), (4,)), REFERENCE)
    assert [step.node for step in dense.steps if step.name.startswith("linear_relu")] == ["1", "1"]
    folded = rewrite(inference(*BLOCK, Flatten(), Linear(3)), REFERENCE)
    assert [step.node for step in (*folded.constants, *folded.steps)] == ["0", "5", "0", "5"]


def test_linear_and_relu_join_and_forget_what_lies_between() -> None:
    layers = (Flatten(), Linear(5), ReLU(), Linear(3))
    plan = rewrite(training(layers), REFERENCE, ["linear_relu"])
    assert names(plan) == ["linear_relu", "linear", "mse", "linear_backward", "linear_relu_backward", "sgd"]
    assert str(plan.steps[0]) == "2.y = linear_relu(input, 1.w, 1.b)"
    assert str(plan.steps[-2]) == "d1.w, d1.b = linear_relu_backward(d2.y, 2.y, input, 1.w)"
    assert names(rewrite(inference(*layers), REFERENCE, ["linear_relu"])) == ["linear_relu", "linear"]


def test_a_second_reader_of_what_stays_changes_nothing() -> None:
    nodes = {
        "flat": (Flatten(), "input"),
        "linear": (Linear(5), "flat"),
        "relu": (ReLU(), "linear"),
        "again": (Linear(5), "relu"),
        "sum": (Add(), "relu", "again"),
    }
    assert "linear_relu" in names(rewrite(training(nodes), REFERENCE))


def test_a_pool_over_the_whole_map_is_one_window() -> None:
    layers = (*BLOCK[:3], GlobalMaxPool2d())
    assert names(rewrite(training(layers), REFERENCE))[0] == STATISTICS[0]
    (folded,) = rewrite(inference(*layers), REFERENCE).steps
    assert folded.named["pool"].kh == 6


BRANCHES = {"a": (Conv2d(4, 3), "input"), "b": (MaxPool2d(3, 1), "input"), "c": (Conv2d(3, 3), "input")}
JOINED = Graph(BRANCHES | {"all": (Concat(), *BRANCHES)}, "all", IMAGE, "numpy").plan

FOLDED = {
    "conv": ((BLOCK[0],), (False, 1)),
    "conv, relu": ((BLOCK[0], ReLU()), (True, 1)),
    "conv, pool": ((BLOCK[0], MaxPool2d(2)), (False, 2)),
    "conv, norm": (BLOCK[:2], (False, 1)),
    "conv, norm, relu": (BLOCK[:3], (True, 1)),
    "conv, norm, pool": ((*BLOCK[:2], MaxPool2d(3)), (False, 3)),
    "conv, norm, relu, pool": (BLOCK, (True, 2)),
}


@pytest.mark.parametrize("case", FOLDED)
def test_inference_folds_what_follows_a_convolution(case: str) -> None:
    layers, (relu, window) = FOLDED[case]
    plain = inference(*layers)
    plan = rewrite(plain, REFERENCE)
    (fold,), (folded,) = plan.constants, plan.steps
    assert (fold.name, folded.name) == ("conv2d_fold", "conv2d_folded")
    assert folded.replaces == plain.steps
    assert folded.named["relu"] is relu
    assert folded.named["pool"].kh == window
    assert (fold.named["gamma"] is None) == ("norm" not in case)
    assert fold.named["packed"] is folded.named["packed"]
    assert fold.named["packed"].shape == (fused.conv2d_fold_size(folded.named["d"]),)
    assert folded.named["y"] is plain.outputs["output"]
    switch = "fold_batchnorm" if "norm" in case else "pack_weights"
    assert names(rewrite(plain, REFERENCE, [switch])) == ["conv2d_folded"]
    others = set(REWRITES) - {"fold_batchnorm", "pack_weights", "peaks_alone"}
    assert names(rewrite(plain, REFERENCE, others)) == names(plain)


def test_in_bfloat16_a_linear_layer_rounds_its_input_itself_and_a_convolution_has_it_rounded() -> None:
    layers = (*BLOCK, Flatten(), Linear(5), ReLU(), Linear(3))
    plain = inference(*layers, precision="bfloat16")
    plan = rewrite(plain, REFERENCE)
    assert names(plan) == ["round_to_bfloat16", "conv2d_folded", "linear_folded_bfloat16", "linear_folded_bfloat16"]
    replaced = [[inner.name for inner in step.replaces] for step in plan.steps[2:]]
    assert replaced == [["round_to_bfloat16", "linear", "relu"], ["round_to_bfloat16", "linear"]]
    packed = ["conv2d_fold", "linear_fold_bfloat16", "linear_fold_bfloat16"]
    assert sorted(step.name for step in plan.constants) == [*sorted(packed), *["round_to_bfloat16"] * 3]
    # What is rounded for no other reader than what packs it is needed as long as that is.
    assert plan.expanded(lambda kernel: True) == plan
    assert plan.expanded(nothing) == plain
    kept = [step.name for step in plan.expanded(lambda kernel: kernel != "conv2d_folded").constants]
    assert sorted(kept) == [*packed[1:], *["round_to_bfloat16"] * 3]


def test_in_bfloat16_contractions_of_training_round_their_operands_themselves() -> None:
    layers = (*BLOCK, Conv2d(3, 2), Conv2d(5, 2, groups=1), Conv2d(6, 8, padding=8))
    plan = rewrite(training(layers, (20, 20, 2), "bfloat16", 16), REFERENCE)
    listed = names(plan)
    assert STATISTICS[0] in listed, "six numbers in a row do not fill pairs: float32's"
    assert STATISTICS[1] not in listed
    assert [name for name in listed if name.startswith("conv2d") and "pool" not in name] == [
        "conv2d",
        "conv2d",
        "conv2d_bfloat16",
        *["conv2d_backward_bfloat16"] * 4,
    ]
    last = next(step for step in plan.steps if step.name == "conv2d_bfloat16")
    assert [step.name for step in last.replaces] == ["round_to_bfloat16", "round_to_bfloat16", "conv2d"]
    backward = [step for step in plan.steps if step.name == "conv2d_backward_bfloat16"]
    assert [step.name for step in backward[0].replaces] == ["round_to_bfloat16", "conv2d_backward"], "x̂ and ŵ are there"
    assert backward[0].named["x"] is last.named["x"]
    assert names(plan).count("round_to_bfloat16") == 6, "x and w of what stays float32's forward"
    assert len(originals(plan.steps)) == len(training(layers, (20, 20, 2), "bfloat16", 16).steps)
    assert all(step.named["x"] is not step.named["y"] for step in plan.steps if step.name == "round_to_bfloat16")


@pytest.mark.parametrize("batch_size", [15, 16])
def test_gradients_of_a_few_images_are_float32s(batch_size: int) -> None:
    layers = (Conv2d(8, 4), Flatten(), Linear(3))
    listed = names(rewrite(training(layers, precision="bfloat16", batch_size=batch_size), REFERENCE))
    paired = [name for name in listed if name.endswith("backward_bfloat16")]
    assert paired == (["linear_backward_bfloat16", "conv2d_backward_bfloat16"] if batch_size == 16 else [])
    assert "linear_bfloat16" in listed


@pytest.mark.parametrize("pool", [MaxPool2d(3, stride=1), MaxPool2d(4, ceil_mode=True), MaxPool2d(2, padding=1)])
def test_a_convolution_of_inference_pools_windows_of_any_kind(pool: Layer) -> None:
    plan = rewrite(inference(*BLOCK[:3], pool), REFERENCE)
    assert names(plan) == ["conv2d_folded"]
    assert plan.steps[0].named["pool"].kh == pool.size  # type: ignore[attr-defined]


def test_without_folding_a_convolution_is_packed_and_its_norm_stays() -> None:
    plan = rewrite(inference(*BLOCK), REFERENCE, ["pack_weights"])
    assert names(plan) == ["conv2d_folded", "batchnorm_inference", "relu", "maxpool2d"]


def test_a_residual_is_added_by_the_convolution_before_it() -> None:
    block = {"conv": (Conv2d(2, 3, padding=1), "input"), "norm": (BatchNorm(), "conv"), "sum": (Add(), "norm", "input")}
    plain = Graph(block | {"relu": (ReLU(), "sum")}, "relu", IMAGE, "numpy").plan
    (folded,) = rewrite(plain, REFERENCE).steps
    assert folded.replaces == plain.steps
    assert folded.named["residual"] is plain.inputs["input"]
    assert folded.named["relu"] is True
    pooled = Graph(block | {"pool": (MaxPool2d(2), "sum")}, "pool", IMAGE, "numpy").plan
    assert names(rewrite(pooled, REFERENCE)) == ["conv2d_folded", "maxpool2d_inference"]
    broadcast = block | {"all": (GlobalMaxPool2d(), "input"), "map": (models.Reshape((1, 1, 2)), "all")}
    small = Graph(broadcast | {"sum": (Add(), "norm", "map")}, "sum", IMAGE, "numpy").plan
    assert names(rewrite(small, REFERENCE))[-1] == "add"
    twice = Graph(block | {"sum": (Add(), "norm", "norm")}, "sum", IMAGE, "numpy").plan
    assert names(rewrite(twice, REFERENCE)) == ["conv2d_folded", "add"]


def test_joined_maps_are_written_to_where_they_are_wanted() -> None:
    plan, parts = rewrite(JOINED, REFERENCE), BRANCHES
    assert names(plan) == ["conv2d_folded", "maxpool2d_inference", "conv2d_folded"]
    assert [step.named["y"].part for step in plan.steps] == [(0, 4), (4, 6), (6, 9)]
    assert {step.named["y"].origin for step in plan.steps} == {plan.outputs["output"].origin}
    for graph in (
        {"a": parts["a"], "all": (Concat(), "a", "a")},
        parts | {"all": (Concat(), *parts), "more": (Add(), "c", "c"), "both": (Concat(), "all", "more")},
        parts | {"relu": (ReLU(), "b"), "all": (Concat(), "a", "relu", "c")},
        parts | {"all": (Concat(1), *parts)} | {"c": (Conv2d(4, 3), "input"), "b": (Conv2d(4, 3), "input")},
    ):
        assert "concat" in names(rewrite(Graph(graph, list(graph)[-1], IMAGE, "numpy").plan, REFERENCE))


def test_inference_keeps_no_second_copy_of_large_linear_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.rewrite._LARGE", 8 * 8 * 2 * 5)
    plan = rewrite(inference(Flatten(), Linear(5), ReLU(), Linear(80)), REFERENCE)
    assert names(plan) == ["linear_folded", "linear_folded"]
    monkeypatch.setattr("models.rewrite._LARGE", 8 * 8 * 2 * 5 - 1)
    plan = rewrite(inference(Flatten(), Linear(5), ReLU(), Linear(70)), REFERENCE)
    assert names(plan) == ["linear_relu", "linear_folded"]


def test_inference_packs_linear_weights() -> None:
    plan = rewrite(inference(Flatten(), Linear(5), ReLU(), Linear(3, bias=False)), REFERENCE)
    assert names(plan) == ["linear_folded", "linear_folded"]
    assert [step.named["relu"] for step in plan.steps] == [True, False]
    assert [step.named["b"] is None for step in plan.constants] == [False, True]
    assert [step.named["bias"].shape for step in plan.constants] == [(5,), (3,)]


# What is refused -------------------------------------------------------------------------------------------------


def branching(reader: str) -> dict[str, Any]:
    """A block with a second reader of one of its nodes."""
    nodes = dict(zip(("conv", "norm", "relu", "pool"), BLOCK, strict=True))
    inputs = ["input", *nodes]
    graph: dict[str, Any] = {name: (layer, inputs[i]) for i, (name, layer) in enumerate(nodes.items())}
    graph["other"] = (MaxPool2d(2), reader)
    return graph | {"sum": (Add(), "pool", "other")}


SHORTCUT: dict[str, Any] = {"norm": (BatchNorm(), "input"), "sum": (Add(), "norm", "input"), "relu": (ReLU(), "sum")}

REFUSED: dict[str, tuple[Plan, list[str]]] = {
    "norm read twice": (training(branching("norm")), []),
    "relu read twice": (training(branching("relu")), NORM_RELU),
    "convolution read twice": (training(branching("conv")), POOL_FIRST),
    "padding": (training((*BLOCK[:3], MaxPool2d(2, padding=1))), NORM_RELU),
    "padding at the end": (training((*BLOCK[:3], MaxPool2d(4, padding=((0, 2), (0, 2))))), NORM_RELU),
    "windows beyond the map": (training((*BLOCK[:3], MaxPool2d(4, ceil_mode=True))), NORM_RELU),
    "dilated windows": (training((*BLOCK[:3], MaxPool2d(2, dilation=2))), NORM_RELU),
    "overlapping windows": (training((*BLOCK[:3], MaxPool2d(3, stride=2))), NORM_RELU),
    "windows apart": (training((*BLOCK[:3], MaxPool2d(2, stride=3))), NORM_RELU),
    "window of more than 256": (training((BatchNorm(), ReLU(), MaxPool2d(17)), (17, 17, 2)), NORM_RELU),
    "groups": (training((Conv2d(4, 3, groups=2), *BLOCK[1:])), POOL_FIRST),
    "pool before relu": (training((*BLOCK[:2], MaxPool2d(2), ReLU())), []),
    "relu before norm": (training((Conv2d(4, 3), ReLU(), BatchNorm(), MaxPool2d(2))), []),
    "no relu": (training((*BLOCK[:2], MaxPool2d(2))), []),
    "no pool": (training(BLOCK[:3]), NORM_RELU),
    "norm is an output": (with_output(training(BLOCK), "1.y"), []),
    "relu is an output": (with_output(training(BLOCK), "2.y"), NORM_RELU),
    "the norm's gradient is an output": (with_output(training(BLOCK), "d1.y"), []),
    "the relu's gradient is an output": (with_output(training(BLOCK), "d2.y"), NORM_RELU),
    "the places are an output": (with_output(training(BLOCK), "3.argmax"), NORM_RELU),
    "convolution is an output": (with_output(training(BLOCK), "0.y"), POOL_FIRST),
    "the convolution's gradient is an output": (with_output(training(BLOCK), "d0.y"), POOL_FIRST),
    "sum is an output": (with_output(training(SHORTCUT), "sum.y"), []),
    "sum read twice": (training(SHORTCUT | {"bent": (Tanh(), "sum"), "both": (Add(), "relu", "bent")}), []),
    "norm and sum read": (training(SHORTCUT | {"both": (Add(), "relu", "norm")}), []),
    "a sum of other shapes": (
        training(
            {
                "norm": (BatchNorm(), "input"),
                "all": (models.GlobalAvgPool2d(), "input"),
                "map": (models.Reshape((1, 1, 2)), "all"),
                "sum": (Add(), "norm", "map"),
                "relu": (ReLU(), "sum"),
            }
        ),
        [],
    ),
    "linear is an output": (with_output(training((Flatten(), Linear(5), ReLU())), "1.y"), []),
    "linear's gradient is an output": (with_output(training((Flatten(), Linear(5), ReLU())), "d1.y"), []),
    "another shape between linear and relu": (training((Flatten(), Linear(5), Flatten(), ReLU())), []),
    "linear read twice": (
        training(
            {
                "flat": (Flatten(), "input"),
                "linear": (Linear(5), "flat"),
                "relu": (ReLU(), "linear"),
                "sum": (Add(), "linear", "relu"),
            }
        ),
        [],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_training_keeps_off_where_a_result_could_differ(case: str) -> None:
    plain, expected = REFUSED[case]
    plan = rewrite(plain, REFERENCE)
    assert [name for name in names(plan) if name in fused.NAMES] == expected
    assert plan.constants == ()
    if not expected:
        assert plan.steps == plain.steps


def nudge(running: InPlace, value: Input) -> None:
    """Changes one array by another of whatever shape."""


NUDGE = Kernel(nudge)


def test_a_step_that_has_to_run_between_keeps_a_block_apart() -> None:
    """A step that reads the block's dgamma and writes the convolution's weights before its backward reads those."""
    plain = rewrite(training(BLOCK), REFERENCE, ["pool_first"])
    block, convolution = (step for step in plain.steps if step.phase == "backward")
    between = Step(NUDGE, (convolution.named["w"], block.named["dgamma"]), "backward")
    at = plain.steps.index(convolution)
    torn = replace(plain, steps=(*plain.steps[:at], between, *plain.steps[at:]))
    assert rewrite(torn, REFERENCE).steps == torn.steps

    kept = Value("kept", (4,))
    before = Step(NUDGE, (convolution.named["w"], convolution.named["x"]), "backward")
    reads = Step(NUDGE, (kept, block.named["dgamma"]), "backward")
    follows = Step("relu", (kept, Value("bent", (4,))), "backward")
    overwrites = Step(NUDGE, (block.named["gamma"], convolution.named["x"]), "backward")
    loose = replace(plain, steps=(*plain.steps[:at], reads, follows, before, overwrites, *plain.steps[at:]))
    first, fused_step, *rest = rewrite(loose, REFERENCE).steps[-8:-3]
    assert (first, fused_step.name, rest) == (before, STATISTICS[1], [reads, follows, overwrites])


def test_inference_leaves_out_what_it_cannot_fold() -> None:
    grouped = inference(Conv2d(4, 3, groups=2), *BLOCK[1:])
    assert names(rewrite(grouped, REFERENCE)) == ["conv2d_folded", "maxpool2d_inference"]
    places = with_output(inference(*BLOCK), "3.argmax")
    assert names(rewrite(places, REFERENCE)) == ["conv2d_folded", "maxpool2d"]
    inside = with_output(inference(*BLOCK), "0.y")
    assert names(rewrite(inside, REFERENCE)) == ["conv2d_folded", "batchnorm_inference", "relu", "maxpool2d_inference"]
    assert rewrite(inside, REFERENCE, ["fold_batchnorm"]).steps == inside.steps


def test_weights_that_the_plan_computes_are_no_constants() -> None:
    plain = inference(Flatten(), Linear(5))
    (linear,) = plain.steps
    made = Step("relu", (Value("raw", (128, 5)), linear.named["w"]), "forward")
    assert rewrite(replace(plain, steps=(made, linear)), REFERENCE).constants == ()
    given = replace(plain, inputs={**plain.inputs, "w": linear.named["w"]})
    assert rewrite(given, REFERENCE).constants == ()
    assert rewrite(training((Flatten(), Linear(5))), REFERENCE).constants == ()


# Names and backends ----------------------------------------------------------------------------------------------


def test_no_kernels_no_rewrites() -> None:
    for plan in (training(BLOCK), inference(*BLOCK)):
        assert rewrite(plan, NUMPY) is plan


@pytest.mark.parametrize("missing", fused.NAMES)
def test_a_rewrite_needs_all_of_its_kernels(missing: str) -> None:
    k = Kernels("numpy", fused.backend(NUMPY.backend, [name for name in fused.NAMES if name != missing]))
    layers = (*BLOCK, Flatten(), Linear(5), ReLU(), Linear(3))
    rounded = training(layers, precision="bfloat16", batch_size=16)
    for plain in (training(layers), rounded, inference(*layers), inference(*layers, precision="bfloat16")):
        plan = rewrite(plain, k)
        pair = next(pair for pair in PAIRS if missing in pair)
        assert set(pair).isdisjoint(step.name for step in (*plan.steps, *plan.constants))
        assert set(originals(plan.steps)) == set(plain.steps)


@pytest.mark.parametrize("name", REWRITES)
def test_each_name_can_be_switched_off(name: str) -> None:
    layers = (*BLOCK, MaxPool2d(2, stride=1), BatchNorm(), ReLU(), Flatten(), Linear(5), ReLU(), Linear(3))
    made = {
        "batchnorm_relu": NORM_RELU,
        "pool_first": [*POOL_FIRST, *STATISTICS],
        "convolution_statistics": STATISTICS,
        "linear_relu": ["linear_relu", "linear_relu_backward"],
        "fold_batchnorm": ["conv2d_fold"],
        "pack_weights": ["linear_fold", "linear_folded"],
        "peaks_alone": ["maxpool2d_inference"],
        "concat_in_place": ["conv2d_folded"],
        "multiply_pairs": ["linear_fold_bfloat16", "linear_folded_bfloat16"],
        "round_inside": ["linear_bfloat16", "linear_backward_bfloat16", "conv2d_backward_bfloat16"],
    }
    seen = set()
    rounded = training(layers, precision="bfloat16", batch_size=16)
    for plain in (training(layers), rounded, inference(*layers), inference(*layers, precision="bfloat16"), JOINED):
        full, less = rewrite(plain, REFERENCE), rewrite(plain, REFERENCE, [n for n in REWRITES if n != name])
        seen |= {step.name for step in (*full.steps, *full.constants)}
        if name == "fold_batchnorm":
            assert all(step.named["gamma"] is None for step in less.constants if step.name == "conv2d_fold")
        elif name == "concat_in_place":
            assert ("concat" in names(less)) == (plain is JOINED)
        elif plain.batch_size or name in ("pack_weights", "peaks_alone", "multiply_pairs"):
            assert set(made[name]).isdisjoint(step.name for step in (*less.steps, *less.constants))
        assert rewrite(plain, REFERENCE, ()) is plain
    assert seen.intersection(made[name])


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    message = r"rewrites: unknown name 'pool_last'; expected some of pool_first, round_inside, "
    model = models.build("mlp-512", "numpy")
    with pytest.raises(ValueError, match=message):
        rewrite(model.plan, REFERENCE, ["pool_first", "pool_last"])
    with pytest.raises(ValueError, match=message):
        Trainer(model, SGD(0.1), rewrites=["pool_last"])
    with pytest.raises(ValueError, match=message):
        model.rewrites = "pool_last"


def test_a_name_may_stand_alone() -> None:
    assert names(rewrite(training(BLOCK), REFERENCE, "pool_first")).count(POOL_FIRST[0]) == 1


def test_a_parameter_of_the_same_name_keeps_its_own() -> None:
    plain = training(BLOCK)
    norm = next(step for step in plain.steps if step.name == "batchnorm")
    named = norm.named | {"gamma": Value("1.peak", (4,))}
    odd = Step("batchnorm", tuple(named.values()), "forward")
    backward = next(step for step in plain.steps if step.name == "batchnorm_backward")
    back = Step("batchnorm_backward", tuple((backward.named | {"gamma": named["gamma"]}).values()), "backward")
    swapped = {norm: odd, backward: back}
    plan = rewrite(replace(plain, steps=tuple(swapped.get(step, step) for step in plain.steps)), REFERENCE)
    assert plan.steps[0].named["peak"].name == "1.peak'"


# A fused step is the steps that it replaces ------------------------------------------------------------------------


def random_graph(seed: int, dtype: Any = np.float32) -> Graph:
    """A small network of blocks in random forms, each reading any earlier one; some are added, some joined."""
    rng = np.random.default_rng(seed)
    nodes: dict[str, Any] = {}
    maps: list[tuple[str, tuple[int, int, int]]] = [("input", (int(rng.integers(6, 10)), int(rng.integers(6, 10)), 2))]
    image = maps[0][1]

    def put(layer: Layer, *inputs: str) -> str:
        nodes[str(len(nodes))] = (layer, *inputs)
        return str(len(nodes) - 1)

    for _ in range(int(rng.integers(2, 5))):
        name, (h, w, c) = maps[int(rng.integers(len(maps)))]
        f, groups = 2 * int(rng.integers(1, 4)), int(rng.choice([1, 1, 2]))
        name, c = put(Conv2d(f, 3, padding=1, groups=groups, bias=bool(rng.integers(2))), name), f
        for layer in rng.permutation([0, 1, 2]) if rng.random() < 0.3 else [0, 1, 2]:
            if rng.random() < 0.1:
                continue
            if layer == 0:
                name = put(BatchNorm(), name)
            elif layer == 1:
                name = put(ReLU(), name)
            elif min(h, w) >= 3:
                size, padding = int(rng.choice([2, 2, 3])), int(rng.random() < 0.2)
                stride = int(rng.choice([size, size, 1]))
                name = put(MaxPool2d(size, stride, padding), name)
                h, w = ((side + 2 * padding - size) // stride + 1 for side in (h, w))
            maps.append((name, (h, w, c)))
        same = [other for other, shape in maps if shape == (h, w, c) and other != name]
        if same and rng.random() < 0.7:
            maps.append((put(Add(), name, same[-1]), (h, w, c)))
    read = {name for _, *inputs in nodes.values() for name in inputs}
    heads = []
    for name in [name for name in nodes if name not in read]:
        hidden = put(Linear(int(rng.integers(1, 6))), put(Flatten(), name))
        heads.append(put(ReLU(), hidden) if rng.random() < 0.8 else hidden)
    joined = put(Concat(), *heads) if len(heads) > 1 else heads[0]
    return Graph(nodes, put(Linear(3), joined), image, "numpy", seed, dtype)


def network(which: str | int, dtype: Any = np.float32) -> Graph:
    return models.build(which, "numpy", dtype=dtype) if isinstance(which, str) else random_graph(which, dtype)


def plans(model: Graph, n: int) -> list[Plan]:
    return [model.lower_training(models.SoftmaxCrossEntropy(), SGD(0.05, momentum=0.9), n), model.plan]


def in_order(plan: Plan) -> bool:
    """Whether every value that some step writes is written before it is read."""
    written = {value.origin: i for i, step in reversed(list(enumerate(plan.steps))) for value in step.outputs.values()}
    return all(
        written.get(value.origin, -1) <= i for i, step in enumerate(plan.steps) for value in step.inputs.values()
    )


def test_random_graphs_are_of_many_kinds() -> None:
    """They contain what each rewrite matches and what it has to leave alone."""
    seen = [names(rewrite(plan, REFERENCE)) for seed in SEEDS for plan in plans(random_graph(seed), 3)]
    for kernel in (*POOL_FIRST, *STATISTICS, "linear_relu", "conv2d_folded", "linear_folded", "conv2d", "batchnorm"):
        assert any(kernel in listed for listed in seen), kernel


@pytest.mark.parametrize("which", [*ZOO, *SEEDS])
def test_expansion_gives_the_same_steps_in_a_valid_order(which: str | int) -> None:
    for plain in plans(network(which), 3):
        for chosen in (None, *([name] for name in REWRITES), ["pool_first", "convolution_statistics"]):
            plan = rewrite(plain, REFERENCE, chosen)
            assert in_order(plan)
            assert plan.flops(5) == plain.flops(5)
            assert plan.inputs == plain.inputs
            assert plan.outputs == plain.outputs
            whole = plan.expanded(nothing)
            assert in_order(whole)
            assert set(whole.steps) == set(plain.steps)
            assert len(whole.steps) == len(plain.steps)
            assert whole.constants == ()
            assert whole.flops(5) == plain.flops(5)
            assert plan.expanded(lambda kernel: True) == plan
            half = plan.expanded(lambda kernel: kernel not in STATISTICS)
            assert set(originals(half.steps)) == set(plain.steps)
            assert set(STATISTICS).isdisjoint(names(half))
            assert in_order(half)
            for step in plan.steps:
                if step.replaces and plain.batch_size:
                    assert step.bytes(5) < sum(inner.bytes(5) for inner in originals([step]))


def train(model: Graph, plan: Plan, k: Kernels, n: int) -> dict[str, np.ndarray]:
    """Everything that outlives three steps of a training plan, the last on a smaller batch, and the last outputs."""
    rng = np.random.default_rng(3)
    trainer = Trainer(model, SGD(0.05, momentum=0.9), batch_size=n, rewrites=())
    executor = Executor(plan, k, n, trainer.arrays())
    for size in (n, n, n - 1):
        x, labels = rng.standard_normal((size, *model.input_shape)), rng.integers(0, 3, size)
        outputs = executor.run({"input": x, "target": labels}, size, step=1, learning_rate=0.05)
    return trainer.arrays() | outputs


def inlined(plan: Plan) -> Plan:
    """The plan with its constants as ordinary steps."""
    return replace(plan, steps=plan.constants + plan.steps, constants=())


def infer(model: Graph, plan: Plan, k: Kernels, n: int) -> dict[str, np.ndarray]:
    x = np.random.default_rng(4).standard_normal((n, *model.input_shape))
    return Executor(inlined(plan), k, n, model.arrays()).run({"input": x}, n)


RUNS: list[Callable[[Graph, Plan, Kernels, int], dict[str, np.ndarray]]] = [train, infer]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("which", [*ZOO, *SEEDS])
def test_an_expanded_plan_computes_the_same_bits(which: str | int, precision: str) -> None:
    n = 3 if precision == "float32" else 16

    def model() -> Graph:
        return network(which).to("numpy", precision=precision)

    for run, plain in zip(RUNS, plans(model(), n), strict=True):
        expected = run(model(), plain, NUMPY, n)
        found = run(model(), rewrite(plain, REFERENCE).expanded(nothing), NUMPY, n)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert value.tobytes() == found[name].tobytes(), name


@pytest.mark.parametrize("which", [*ZOO, *SEEDS])
def test_a_rewritten_plan_computes_the_same(which: str | int) -> None:
    """By fused kernels in NumPy, in float64: every argument of a fused step is the right one."""
    n = 3
    for run, plain in zip(RUNS, plans(network(which, np.float64), n), strict=True):
        expected = run(network(which, np.float64), plain, NUMPY, n)
        for chosen in (None, ["pool_first"], ["pack_weights"]):
            plan = rewrite(plain, REFERENCE, chosen)
            found = run(network(which, np.float64), plan, REFERENCE, n)
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-8, atol=1e-10, err_msg=name)


# Use -------------------------------------------------------------------------------------------------------------


def test_the_listing_shows_what_a_fused_step_replaces() -> None:
    plan = rewrite(training(BLOCK), REFERENCE)
    head, _, *lines = str(plan).splitlines()
    assert head == "6 steps, batch of 4, float32"
    shown = [line.split("  ")[0] for line in (line[12:] for line in lines[:6])]
    assert lines[0].split()[:2] == ["0", "forward"]
    assert "0.y, 1.mean" in lines[0]
    at = lines[0].index("0.y")
    steps = ["0.y = conv2d(", "1.mean, 1.inv_std", "1.y, 1.mean", "2.y = relu(", "3.y, 3.argmax = maxpool2d("]
    for line, text, depth in zip(lines[1:6], steps, (1, 1, 2, 2, 2), strict=True):
        assert line.startswith(" " * (at + 4 * depth) + text), shown
    assert lines[6].split()[:2] == ["1", "loss"]
    written = [line.split()[-1] for line in lines if not line.startswith(" " * at)]
    assert len(written) == len(plan.steps)
    assert lines[-1].split()[0] == "total"
    assert len(lines) == 1 + len(plan.steps) + sum(len(step.definition()) for step in plan.steps)


def test_the_listing_begins_with_constants() -> None:
    head, _, first, second, third, *_ = str(rewrite(inference(*BLOCK), REFERENCE)).splitlines()
    assert head == "1 constants, 1 steps, a sample (N = 1), float32"
    assert first.split()[0] == "constant"
    assert "0.packed, 0.bias = conv2d_fold(0.w, 0.b, 1.gamma, 1.beta, 1.running_mean, 1.running_var)" in first
    assert "3.y = conv2d_folded(input, 0.packed, 0.bias)" in second
    assert third.split()[:3] == ["0.y", "=", "conv2d(input,"]


def test_a_trainer_runs_the_rewritten_plan(k: Kernels) -> None:
    model = models.build("cnn-bn", k.name)
    plain = Trainer(model, SGD(0.1), batch_size=2, rewrites=()).plan
    assert all(step.replaces == () for step in plain.steps)
    plan = Trainer(model, SGD(0.1), batch_size=2).plan
    assert str(plan) == str(rewrite(plain, k))
    assert plan.expanded(k.has) == plan
    for name in REWRITES:
        chosen = Trainer(model, SGD(0.1), batch_size=2, rewrites=[name]).plan
        assert str(chosen) == str(rewrite(plain, k, [name]))


def test_rewrites_of_a_model_change_nothing_but_time(k: Kernels) -> None:
    model = models.build("cnn-bn", k.name, dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((5, 28, 28, 1))
    plain = model.to("numpy").predict(x)
    assert model.rewrites is None
    for names in (None, (), *((name,) for name in REWRITES)):
        model.rewrites = names
        assert model.rewrites == names
        np.testing.assert_allclose(model.predict(x), plain, rtol=1e-10, atol=1e-12)
    assert all(step.replaces == () for step in model.plan.steps)
    assert model.to("numpy").rewrites == model.rewrites


def test_prediction_never_uses_old_weights(k: Kernels) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 28, 28, 1)), rng.integers(0, 10, 6)
    model = models.build("cnn-bn", k.name, dtype=np.float64)
    trainer = Trainer(model, SGD(0.1), batch_size=6)
    plain = model.to("numpy")
    plain.rewrites = ()

    def check() -> None:
        plain.set_parameters(model.parameters() | model.statistics())
        np.testing.assert_allclose(model.predict(x), plain.predict(x), rtol=1e-9, atol=1e-12)

    check()
    version = model.version
    trainer.step(x, y)
    assert model.version > version
    check()
    version = model.version
    model.set_parameters({name: value + 0.1 for name, value in (model.parameters() | model.statistics()).items()})
    assert model.version > version
    check()
    version = model.version
    trainer.fit(x, y, epochs=2)
    assert model.version > version
    check()
    trainer.fit(np.tile(x, (3, 1, 1, 1)), np.tile(y, 3), epochs=1)  # three batches in one compiled call
    check()


def test_a_step_that_fails_counts_as_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been stopped in the middle of an update."""
    model = Sequential([Linear(2)], (3,), "numpy")
    trainer = Trainer(model, SGD(0.1), batch_size=2)

    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.executor, "run", interrupted)
    version = model.version
    with pytest.raises(KeyboardInterrupt):
        trainer.step(np.ones((2, 3)), np.array([0, 1]))
    assert model.version > version


# Each fused kernel against the steps that it replaces ----------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Layers that a rewrite fuses, on samples of a shape."""

    layers: tuple[Layer, ...]
    shape: tuple[int, ...]
    training: bool
    input_gradient: bool = True
    precision: str | None = None
    more: tuple[tuple[str, tuple[Any, ...]], ...] = ()  # nodes of a graph that goes on from the last layer

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.layers))} on {self.shape}"

    @cached_property
    def plan(self) -> Plan:
        if not self.training:
            return self.model.plan
        return self.model.lower_training(MeanSquaredError(), None, None, self.input_gradient)

    @cached_property
    def model(self) -> Graph:
        if not self.more:
            return Sequential(list(self.layers), self.shape, "numpy", precision=self.precision)
        names = ["input", *map(str, range(len(self.layers)))]
        nodes = {name: (layer, names[i]) for i, (name, layer) in enumerate(zip(names[1:], self.layers, strict=True))}
        return Graph(nodes | dict(self.more), self.more[-1][0], self.shape, "numpy")


NORM = (BatchNorm(), ReLU())
POOLED = [
    Case((*NORM, MaxPool2d(2)), (6, 6, 3), True),
    Case((*NORM, MaxPool2d(2)), (7, 5, 4), True),
    Case((*NORM, MaxPool2d(3)), (9, 8, 1), True),
    Case((*NORM, MaxPool2d((2, 3))), (4, 6, 17), True),
    Case((*NORM, MaxPool2d((1, 2))), (3, 5, 8), True),
    Case((*NORM, MaxPool2d(5)), (5, 5, 3), True),
    Case((*NORM, MaxPool2d(16)), (16, 17, 2), True),
    Case((*NORM, MaxPool2d(2)), (24, 24, 16), True),
    Case((*NORM, MaxPool2d(2)), (8, 8, 32), True, input_gradient=False),
]
CONVOLVED = [
    Case((Conv2d(16, 5), *NORM, MaxPool2d(2)), (28, 28, 1), True, input_gradient=False),
    Case((Conv2d(32, 5), *NORM, MaxPool2d(2)), (12, 12, 16), True),
    Case((Conv2d(5, 3), *NORM, MaxPool2d(2)), (9, 7, 3), True),
    Case((Conv2d(7, 3, bias=False), *NORM, MaxPool2d(3)), (10, 9, 2), True),
    Case((Conv2d(8, 3, padding=1), *NORM, MaxPool2d(2)), (7, 7, 8), True),
    Case((Conv2d(3, (3, 2), stride=2, dilation=(1, 2), padding=1), *NORM, MaxPool2d((2, 3))), (13, 16, 5), True),
    Case((Conv2d(5, 3, stride=2, padding="same"), *NORM, MaxPool2d(2, ceil_mode=True)), (8, 7, 3), True),
    Case((Conv2d(4, (3, 4), padding=((0, 2), (1, 0))), *NORM, MaxPool2d(2)), (6, 7, 2), True),
    Case((Conv2d(17, 1), *NORM, MaxPool2d(2)), (5, 4, 9), True),
    Case((Conv2d(1, 3), *NORM, MaxPool2d(2)), (6, 6, 1), True),
]
_JOINED = (("sum", (Add(), "0", "input")), ("relu", (ReLU(), "sum")))
_READ_TWICE = (("bent", (Tanh(), "relu")), ("both", (Add(), "relu", "bent")))
NORMALISED = [
    Case(NORM, (5,), True),
    Case(NORM, (6, 5, 3), True),
    Case(NORM, (9, 8, 37), True, input_gradient=False),
    Case((BatchNorm(),), (4, 3, 16), True, more=_JOINED),
    Case((BatchNorm(),), (7, 5, 6), True, more=(*_JOINED, *_READ_TWICE)),
    Case(NORM, (3, 4, 17), True, more=(("bent", (Tanh(), "1")), ("both", (Add(), "1", "bent")))),
    Case((BatchNorm(),), (5, 4, 3), True, more=(("1", (BatchNorm(), "input")), ("sum", (Add(), "0", "1")), _JOINED[1])),
]
DENSE = [
    Case((Linear(1), ReLU()), (1,), True),
    Case((Linear(5), ReLU()), (7,), True),
    Case((Linear(17, bias=False), ReLU()), (33,), True),
    Case((Linear(128), ReLU()), (64,), True),
    Case((Linear(100), ReLU()), (257,), True, input_gradient=False),
]
CONVOLUTIONS = [(case.layers[0], case.shape) for case in CONVOLVED]
TAILS = [(), (ReLU(),), (MaxPool2d(2),), (BatchNorm(),), NORM, (*NORM, MaxPool2d(2)), (BatchNorm(), MaxPool2d((1, 2)))]
APART = [  # groups, one filter a channel, single places, and more filters than a near cache holds
    (Conv2d(6, 3, groups=2, padding=1), (5, 4, 4)),
    (Conv2d(68, 1, groups=2), (3, 4, 6)),
    (Conv2d(5, 3, stride=2, padding=1, groups=5), (6, 5, 5)),
    (Conv2d(20, 1), (3, 5, 7)),
    (Conv2d(300, 1), (3, 3, 120)),
    (Conv2d(260, 3, padding=1), (3, 4, 20)),
    (Conv2d(520, 2, groups=2), (4, 3, 36)),
]
GATHERED = [  # along the rows of an image, padded or not, and place by place
    (Conv2d(70, 3, stride=2, padding="same"), (8, 31, 5)),
    (Conv2d(64, (3, 2), stride=(1, 2)), (6, 29, 17)),
    (Conv2d(300, 3, stride=2, padding=1), (7, 27, 6)),
    (Conv2d(50, (3, 2), dilation=(1, 2)), (7, 9, 5)),
    (Conv2d(260, 3, stride=2, padding=1), (7, 7, 20)),
]
OVERLAPPING = [MaxPool2d(3, 2), MaxPool2d(3, 2, padding=1), MaxPool2d((1, 2), 1, ceil_mode=True)]
FOLDS = [
    *(Case((convolution, *NORM, MaxPool2d(2)), shape, False) for convolution, shape in CONVOLUTIONS),
    *(Case((Conv2d(6, 3), *tail), (9, 8, 3), False) for tail in TAILS),
    *(Case((convolution, *NORM), shape, False) for convolution, shape in (*APART, *GATHERED)),
    *(
        Case((convolution, *NORM, pool), shape, False)
        for convolution, shape in (*GATHERED, (Conv2d(6, 3), (9, 8, 3)), (Conv2d(20, 3, padding=1), (9, 8, 20)))
        for pool in OVERLAPPING
    ),
]
PACKS = [Case(layers, case.shape, False) for case in DENSE for layers in (case.layers, case.layers[:1])]
PEAKS = [
    Case((pool,), (9, 11, channels), False)
    for channels in (3, 16, 37)
    for pool in (MaxPool2d(3, 2), MaxPool2d(3, 2, padding=1), MaxPool2d((2, 5), dilation=(3, 2)))
]
PAIRED = [  # kernel width times channels are enough to fill pairs
    (Conv2d(32, 5), (12, 12, 16)),
    (Conv2d(6, 3), (9, 8, 6)),
    (Conv2d(7, 3, bias=False), (10, 9, 7)),
    (Conv2d(40, 3, padding=1), (7, 7, 8)),
    (Conv2d(3, (3, 2), stride=2, dilation=(1, 2), padding=1), (13, 16, 9)),
    (Conv2d(5, 3, stride=2, padding="same"), (8, 7, 6)),
    (Conv2d(17, 1), (5, 4, 35)),
    (Conv2d(1, 3), (6, 6, 6)),
]
ROUNDED = [replace(case, precision="bfloat16") for case in PACKS]
FOLDED_PAIRS = [
    *(Case((convolution, *NORM, MaxPool2d(2)), shape, False, precision="bfloat16") for convolution, shape in PAIRED),
    *(Case((PAIRED[1][0], *tail), PAIRED[1][1], False, precision="bfloat16") for tail in TAILS),
]
LEARNED = [replace(case, precision="bfloat16") for case in DENSE]
FILTERED = [Case((convolution,), shape, True, precision="bfloat16") for convolution, shape in PAIRED]
IN_TRAINING = POOLED, CONVOLVED, NORMALISED, DENSE
OF_PAIRS = (*IN_TRAINING, FOLDS, PACKS, PEAKS, ROUNDED, FOLDED_PAIRS, LEARNED, LEARNED, FILTERED, FILTERED)
CASES = {kernel: cases for pair, cases in zip(PAIRS, OF_PAIRS, strict=True) for kernel in pair}
BACKENDS = {"reference": REFERENCE} | {name: Kernels(name, module) for name, module in MODULES.items()}
if not BACKENDS["numba"].has("conv2d_folded_bfloat16"):  # other instructions in the place of the matrix unit
    BACKENDS["numba"] = Kernels("numba", SimpleNamespace(**vars(pairs) | vars(MODULES["numba"])))
HERE = [(name, kernel) for name, k in BACKENDS.items() for kernel in fused.NAMES if k.has(kernel)]
DTYPES = [
    (name, kernel, dtype)
    for name, kernel in HERE
    for dtype in (np.float32, np.float64)
    if dtype is np.float32 or not kernel.endswith("_bfloat16")
]
BATCHES = (1, 2, 7, 33)

Arrays = dict[str, np.ndarray]


@cache
def given(case: Case, n: int, nan: bool) -> Arrays:
    """Inputs and parameters. What is convolved holds whole numbers: sums are exact, so that every backend finds its
    maxima at the same places, ties among them. gamma is negative in some channels and zero in one."""
    rng = np.random.default_rng(n)
    arrays: Arrays = {name: value.copy() for name, value in case.model.arrays().items() if name != "parameters"}
    arrays["input"] = rng.integers(-8, 9, (n, *case.shape))
    for value in case.plan.inputs.values():
        if value.name != "input":
            arrays[value.name] = rng.standard_normal(value.sized(n))
    for name, value in arrays.items():
        match name.rsplit(".", 1)[-1]:
            case "w" | "b":
                arrays[name] = rng.integers(-4, 5, value.shape)
            case "gamma":
                arrays[name] = rng.standard_normal(value.shape)
                arrays[name][-1] = -abs(arrays[name][-1])
                if value.size > 1:
                    arrays[name][0] = 0
            case "beta" | "running_mean":
                arrays[name] = rng.standard_normal(value.shape)
            case "running_var":
                arrays[name] = rng.uniform(0.5, 2.0, value.shape)
    if nan:
        arrays["input"] = arrays["input"].astype(np.float64)
        arrays["input"][0].flat[0] = np.nan
    return {name: np.asarray(value, np.float32) for name, value in arrays.items()}


def outcome(plan: Plan, k: Kernels, case: Case, n: int, dtype: Any, nan: bool, poison: float = np.nan) -> Arrays:
    """Every array of the plan after a run, all but the given ones poisoned before it."""
    plan = replace(inlined(plan), dtype=np.dtype(dtype))
    arrays = {}
    for value in plan.values():
        if value.base is None:
            arrays[value.name] = np.empty(value.sized(n), value.dtype or dtype)
            arrays[value.name].fill(poison if arrays[value.name].dtype.kind == "f" else 113)
    inputs = {name: value for name, value in given(case, n, nan).items() if name in arrays}
    for name, value in inputs.items():
        arrays[name][...] = value
    with np.errstate(invalid="ignore"):
        Executor(plan, k, n, arrays).run_in_place(n, step=1)
    updated = {value.name for step in plan.steps for value in step.outputs.values()}
    for name in inputs.keys() - updated:
        np.testing.assert_array_equal(arrays[name], inputs[name], err_msg=f"{name} was written to")
    return arrays


@cache
def definition(case: Case, n: int, nan: bool) -> tuple[Arrays, Arrays]:
    """What the replaced steps give: in float64, and in float32."""
    plan = case.plan
    return outcome(plan, NUMPY, case, n, np.float64, nan), outcome(plan, NUMPY, case, n, np.float32, nan)


@cache
def terms(case: Case, n: int) -> int:
    """The number of terms of the longest sum."""
    dims = [step.named["d"] for step in case.plan.steps if step.name in ("conv2d", "linear")]
    inside = max((d.k if hasattr(d, "k") else d.kh * d.kw * max(d.c, d.f) for d in dims), default=1)
    return max(inside, n * max(int(np.prod(value.shape[1:-1])) for value in case.plan.values()))


@cache
def rewritten(backend: str, case: Case) -> Plan:
    return rewrite(case.plan, BACKENDS[backend])


@cache
def equal_to_what_they_replace(backend: str, case: Case, n: int, dtype: Any, nan: bool) -> set[str]:
    """The names of the rewritten plan's steps, all of which have been compared: a forward kernel's and its backward's
    tests ask for the same."""
    k, plan = BACKENDS[backend], rewritten(backend, case)
    truth, numpy32 = definition(case, n, nan)
    found = outcome(plan, k, case, n, dtype, nan, POISONS[1] if nan else POISONS[0])
    visible = {value.name for value in plan.values()}
    for step in (step for step in plan.steps if step.replaces):
        hidden = {v.name for inner in originals([step]) for v in inner.outputs.values()} - visible
        written = [v.name for v in step.outputs.values() if v.name in truth and v.dtype is None]
        for name in written:
            where = f"{step.name}: {name} of {case}, n {n}"
            if nan and step.name == STATISTICS[1] and name.endswith(".b"):
                continue  # zero, whatever the input
            error, own = (accuracy.errors(arrays[name], truth[name]) for arrays in (found, numpy32))
            assert np.isfinite(own).all(), f"{where}: NumPy is wrong"
            scale = max(np.abs(truth[v][np.isfinite(truth[v])]).max(initial=0.0) for v in (name, *hidden))
            baseline = own.max() if dtype == np.float32 else 0.0
            budget = accuracy.budget(np.finfo(dtype).eps * scale, terms(case, n), dtype, baseline)
            assert error.max() <= budget, f"{where}: error {error.max():.3g}, budget {budget:.3g}"
        if "peak" in step.outputs:
            source = step.named.get("z", step.named["x"]).name
            gamma, d = found[step.named["gamma"].name], step.named.get("pool", step.named["d"])
            peak, argmax = fused.peaks(found[source], gamma, d)
            np.testing.assert_array_equal(found[step.named["peak"].name], peak, err_msg=f"{case}: peak")
            np.testing.assert_array_equal(found[step.named["argmax"].name], argmax, err_msg=f"{case}: argmax")
    return {step.name for step in (*plan.constants, *plan.steps)}


def test_every_fused_kernel_has_cases() -> None:
    assert set(CASES) == set(fused.NAMES)


@pytest.mark.parametrize(("backend", "kernel", "dtype"), DTYPES)
def test_a_fused_kernel_gives_what_it_replaces(
    monkeypatch: pytest.MonkeyPatch, backend: str, kernel: str, dtype: Any
) -> None:
    poison_new_memory(monkeypatch)
    for case in CASES[kernel]:
        for n in BATCHES:
            assert kernel in equal_to_what_they_replace(backend, case, n, dtype, nan=False), str(case)


@pytest.mark.parametrize(("backend", "kernel"), HERE)
def test_nan_goes_through_a_fused_kernel_as_through_what_it_replaces(
    monkeypatch: pytest.MonkeyPatch, backend: str, kernel: str
) -> None:
    poison_new_memory(monkeypatch)
    for case in CASES[kernel]:
        for n in (1, 3):
            assert kernel in equal_to_what_they_replace(backend, case, n, np.float32, nan=True), str(case)


@pytest.mark.parametrize(("backend", "kernel"), [(name, kernel) for name, kernel in HERE if name != "reference"])
def test_a_fused_kernel_gives_the_same_by_any_number_of_threads(backend: str, kernel: str) -> None:
    before = kernels.get_threads()
    try:
        for case in CASES[kernel]:
            assert kernel in the_same_by_any_number_of_threads(backend, case), str(case)
    finally:
        kernels.set_threads(before)


@cache
def the_same_by_any_number_of_threads(backend: str, case: Case) -> set[str]:
    """The names of the rewritten plan's steps; all that they write has been compared."""
    k, plan, results = BACKENDS[backend], rewritten(backend, case), []
    for threads in (1, 2, 3):
        kernels.set_threads(threads)
        results.append(outcome(plan, k, case, 33, np.float32, nan=False))
    for other in results[1:]:
        for name, value in results[0].items():
            assert value.tobytes() == other[name].tobytes(), f"{case}: {name}"
    return {step.name for step in (*plan.constants, *plan.steps)}


def poison_new_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scratch holds NaN on entry."""
    make = memory.empty

    def poisoned(shape: Any, dtype: Any) -> np.ndarray:
        array = make(shape, dtype)
        array.view(np.uint8).fill(0xFF)
        return array

    monkeypatch.setattr(memory, "empty", poisoned)
