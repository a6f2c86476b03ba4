"""The plan: what it lists, what its steps know of themselves, and what its executor keeps to."""

from __future__ import annotations

import html
import math
import pickle

import numpy as np
import pytest

import models
from kernels import Kernels, shapes
from models import (
    SGD,
    Adam,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Plan,
    ReLU,
    Sequential,
    Step,
    Trainer,
    Value,
)
from models.flow import check_flow
from models.plan import BATCH


@pytest.fixture
def trainer() -> Trainer:
    return Trainer(models.build("cnn-bn", "numpy"), Adam(1e-3), batch_size=128, rewrites=())


def test_plans_and_summaries_are_readable_where_they_are_echoed(trainer: Trainer) -> None:
    summary = trainer.model.summary()
    for shown, text in (trainer.plan, str(trainer.plan)), (summary, str(summary)):
        assert repr(shown) == text
        assert len(text.splitlines()) > 10
        assert shown._repr_html_() == f'<pre style="white-space: pre">{html.escape(text)}</pre>'
    assert isinstance(summary, str)
    assert pickle.loads(pickle.dumps(summary)) == summary
    assert repr(trainer) == (
        f"<Trainer of {trainer.model!r} by {trainer.optimizer}, {trainer.loss}, in batches of 128, 0 steps done>"
    )


def kernel_names(plan: models.Plan, phase: str) -> list[str]:
    return [step.name for step in plan.steps if step.phase == phase]


def test_a_training_step_is_one_straight_line(trainer: Trainer) -> None:
    block = ["conv2d", "batchnorm", "relu", "maxpool2d"]
    assert kernel_names(trainer.plan, "forward") == [*block, *block, "linear"]
    assert kernel_names(trainer.plan, "loss") == ["softmax_cross_entropy"]
    back = ["maxpool2d_backward", "relu_backward", "batchnorm_backward", "conv2d_backward"]
    assert kernel_names(trainer.plan, "backward") == ["linear_backward", *back, *back]
    assert kernel_names(trainer.plan, "statistics") == ["ema_update"] * 4
    assert kernel_names(trainer.plan, "optimizer") == ["adam"]
    assert all(step.replaces == () for step in trainer.plan.steps)


def test_the_listing_of_training_shows_steps_shapes_and_operations(trainer: Trainer) -> None:
    head, columns, *lines, total = str(trainer.plan).splitlines()
    assert head == "24 steps, batch of 128, float32"
    assert columns.split() == ["phase", "step", "shapes", "written", "MFLOP", "kB"]
    assert len(lines) == len(trainer.plan.steps) == 24
    assert "0.y = conv2d(input, 0.w, 0.b)" in lines[0]
    assert "(128, 24, 24, 16)" in lines[0]
    assert "58.98" in lines[0]
    assert "d0.w, d0.b = conv2d_backward(d0.y, input, 0.w)" in lines[-6]
    assert "5.running_var = ema_update(5.running_var, 5.var)" in lines[-2]
    assert "parameters, optimizer.m, optimizer.v = adam(" in lines[-1]
    assert total.split()[:2] == ["total", f"{trainer.plan.flops() / 1e6:,.2f}"]


def test_an_image_costs_the_known_number_of_operations(trainer: Trainer) -> None:
    forward = 24 * 24 * 25 * 16 + 8 * 8 * 25 * 16 * 32 + 512 * 10
    without_first_dx = 3 * forward - 24 * 24 * 25 * 16
    assert trainer.plan.flops(1) == 2 * without_first_dx
    assert f"{trainer.plan.flops() / 128 / 1e6:.2f}" == "5.87"
    assert trainer.model.plan.flops(1) == 2 * forward


def test_the_listing_of_inference_is_symbolic_in_the_batch() -> None:
    plan = models.build("cnn-bn", "numpy").plan
    head, _, *lines = str(plan).splitlines()
    assert head == "9 steps, a sample (N = 1), float32"
    assert "(N, 24, 24, 16)" in lines[0]
    assert "batchnorm_inference(0.y, 1.gamma, 1.beta, 1.running_mean, 1.running_var)" in lines[1]
    assert plan.outputs["output"].shape == ("N", 10)


def test_a_step_knows_its_inputs_outputs_and_dims(trainer: Trainer) -> None:
    step = next(step for step in trainer.plan.steps if step.name == "conv2d_backward")
    assert {name: value.name for name, value in step.inputs.items()} == {"dy": "d4.y", "x": "3.y", "w": "4.w"}
    assert {name: value.shape for name, value in step.outputs.items()} == {
        "dx": ("N", 12, 12, 16),
        "dw": (5, 5, 16, 32),
        "db": (32,),
    }
    d = step.dims["d"]
    assert (d.h, d.w, d.c, d.kh, d.kw, d.f, d.oh, d.ow) == (12, 12, 16, 5, 5, 32, 8, 8)
    assert step.flops(3) == 2 * 3 * 2 * d.macs
    n = 3
    floats = n * (8 * 8 * 32 + 2 * 12 * 12 * 16) + 2 * 5 * 5 * 16 * 32 + 32
    assert step.bytes(n) == 4 * floats
    assert str(step) == "d3.y, d4.w, d4.b = conv2d_backward(d4.y, 3.y, 4.w)"


def test_an_argmax_counts_one_byte_a_window(trainer: Trainer) -> None:
    step = next(step for step in trainer.plan.steps if step.name == "maxpool2d")
    assert step.bytes(1) == 4 * (24 * 24 * 16 + 12 * 12 * 16) + 12 * 12 * 16


def test_an_optimizer_step_updates_in_place(trainer: Trainer) -> None:
    step = trainer.plan.steps[-1]
    assert [value.name for value in step.inputs.values()] == ["parameters", "gradients", "optimizer.m", "optimizer.v"]
    assert [value.name for value in step.outputs.values()] == ["parameters", "optimizer.m", "optimizer.v"]
    assert (step.dims["beta1"], step.dims["beta2"], step.dims["eps"]) == (0.9, 0.999, 1e-8)
    assert step.flops(128) == 0


def test_no_gradient_of_the_input_is_computed(trainer: Trainer) -> None:
    first_conv = trainer.plan.steps[trainer.plan.updates - 1]
    assert (first_conv.name, sorted(first_conv.outputs)) == ("conv2d_backward", ["db", "dw"])
    mlp = Trainer(Sequential([Flatten(), ReLU(), Linear(3)], (2, 2, 1), "numpy"), SGD(0.1), rewrites=())
    assert kernel_names(mlp.plan, "backward") == ["linear_backward"]
    assert sorted(mlp.plan.steps[-2].outputs) == ["db", "dw"]


def test_flattening_and_inference_dropout_cost_nothing() -> None:
    model = Sequential([Flatten(), Dropout(0.5), Linear(3)], (4, 4, 1), "numpy")
    assert [step.name for step in model.plan.steps] == ["linear"]


def test_parameters_and_gradients_lie_in_one_vector_each(k: Kernels) -> None:
    model = Sequential([Conv2d(3, 3), BatchNorm(), MaxPool2d(), Flatten(), Linear(2)], (6, 6, 1), k.name)
    flat = model.arrays()["parameters"]
    for name, view in model.parameters().items():
        assert np.shares_memory(view, flat), name
        assert view.ctypes.data % 64 == 0, name
    assert list(model.parameters()) == ["0.w", "0.b", "1.gamma", "1.beta", "4.w", "4.b"]
    trainer = Trainer(model, SGD(1.0), batch_size=4)
    before = flat.copy()
    trainer.step(np.ones((4, 6, 6, 1), np.float32), np.array([0, 1, 0, 1]))
    sizes = sum(math.prod(view.shape) for view in model.parameters().values())
    assert flat.size >= sizes
    for name, gradient in trainer.gradients().items():
        start = model.parameter_layout.offsets[name]
        np.testing.assert_allclose(
            model.parameters()[name].ravel(), before[start : start + gradient.size] - gradient.ravel(), rtol=1e-6
        )


def test_every_batch_size_up_to_the_plans_own_runs_the_same_buffers(k: Kernels) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((7, 5)), rng.integers(0, 3, 7)
    model = Sequential([Linear(4), ReLU(), Dropout(0.5), Linear(3)], (5,), k.name, dtype=np.float64)
    big = Trainer(model, SGD(0.1), batch_size=7)
    for n in (7, 1, 3, 7, 2):
        alone = Trainer(big.model.to(k.name), big.optimizer, batch_size=n)
        alone.steps = big.steps
        assert big.step(x[:n], y[:n]) == alone.step(x[:n], y[:n])
        for name, view in big.model.parameters().items():
            np.testing.assert_array_equal(view, alone.model.parameters()[name], err_msg=f"{name} after {n} samples")


def test_values_that_are_never_needed_at_once_share_memory(k: Kernels) -> None:
    trainer = Trainer(models.build("cnn-bn", backend=k.name), Adam(1e-3), batch_size=8, rewrites=())
    executor, plan = trainer.executor, trainer.plan
    buffers = {v: executor.array(v, 8) for v in plan.values() if v.base is None and v.name not in trainer.arrays()}
    addresses = {array.ctypes.data for array in buffers.values()}
    assert len(addresses) < len(buffers)
    assert executor.bytes - executor._scratch.nbytes < sum(array.nbytes for array in buffers.values())
    inputs_and_outputs = [executor.array(v, 8) for v in (*plan.inputs.values(), plan.outputs["loss"])]
    others = [array for array in buffers.values() if all(array is not kept for kept in inputs_and_outputs)]
    assert not any(np.shares_memory(kept, other) for kept in inputs_and_outputs for other in others)


def test_inference_takes_no_more_memory_than_it_needs_at_once() -> None:
    """Of maps of 8, 4 and 2 MB the first two are needed together, then the last two, in the place of the first."""
    layers = [Conv2d(8, 1), ReLU(), Conv2d(4, 1), ReLU(), Conv2d(2, 1), ReLU()]
    model = Sequential(layers, (512, 512, 1), "numpy")
    model.predict(np.zeros((1, 512, 512, 1), np.float32))
    executor = model._inference
    assert executor is not None
    ends = sum(array.nbytes for array in (executor.array(v, 1) for v in (*model.plan.inputs.values(),)))
    ends += executor.array(model.plan.outputs["output"], 1).nbytes
    assert executor.bytes - executor._scratch.nbytes == ends + 2 * 8 * 512 * 512 * 4


def test_large_maps_are_predicted_in_turns_and_small_ones_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal((7, 6, 6, 1)).astype(np.float32)
    model = Sequential([Conv2d(2, 3), Flatten(), Linear(3)], (6, 6, 1), "numpy")
    whole = model.predict(x)
    assert model._inference is not None
    assert model._inference.batch_size == 7
    monkeypatch.setattr("models.graph._CACHE", 3 * 4 * (36 + 32))  # three samples of the convolution
    model.rewrites = ()
    np.testing.assert_allclose(model.predict(x), whole, rtol=1e-5, atol=1e-6)
    assert model._inference.batch_size == 3
    large = Sequential([Flatten(), Linear(1000)], (6, 6, 1), "numpy")  # whose parameters outweigh many samples
    large.predict(np.tile(x, (5, 1, 1, 1)))
    assert large._inference is not None
    assert large._inference.batch_size == 35


def test_a_part_is_of_a_whole_array_and_of_kernels_that_can_write_it() -> None:
    whole = Value("whole", (BATCH, 3, 3, 8))
    part = Value("part", (BATCH, 3, 3, 2), None, whole, (2, 4))
    x, d = Value("x", (BATCH, 3, 3, 2)), shapes.pool2d((BATCH, 3, 3, 2), 1, None, 0, "maxpool2d")
    step = Step("maxpool2d_inference", (x, d, part), "forward")
    with pytest.raises(ValueError, match=r"value part: shape \(N, 3, 3, 2\) is not \(7, 9\) of \(N, 3, 3, 8\)"):
        Value("part", part.shape, None, whole, (7, 9))
    with pytest.raises(ValueError, match="value flat: its base part is a part, expected a whole array"):
        Value("flat", (BATCH, 18), None, part)
    with pytest.raises(ValueError, match="kernel relu: y is part, a part; expected an array of its own"):
        Step("relu", (x, part), "forward")
    read = Step("relu", (whole, Value("y", whole.shape)), "forward")
    with pytest.raises(ValueError, match="x is whole, which nothing has written before"):
        check_flow(Plan((step, read), {"x": x}, {"output": read.named["y"]}), ())
    with pytest.raises(ValueError, match="plan: part is written in parts that overlap"):
        check_flow(Plan((step, step), {"x": x}, {}), ())
