"""The conformance test can fail: each of these backends differs from NumPy's by one mistake, and each is found."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import kernels
from benchmarks.suite.cases import Case, get, select
from kernels import Kernels
from kernels.interface import roles

from ..support.conformance import MODULES
from ..support.every import every
from . import test_conformance as conformance

NUMPY = MODULES["numpy"]
Arguments = dict[str, Any]


def mutant(
    kernel: str, mistake: Callable[[Arguments, Callable[..., None]], Any], scratch: int | None = None
) -> Kernels:
    """NumPy's backend but for one kernel: `mistake` gets its arguments by name, and the right kernel to call."""
    right = getattr(NUMPY, kernel)

    def correct(arguments: Arguments) -> None:
        right(*arguments.values())

    def wrong(*values: Any) -> Any:
        return mistake(dict(zip(roles(kernel), values, strict=True)), correct)

    overrides = {kernel: wrong}
    if scratch is not None:
        overrides[f"{kernel}_scratch"] = lambda d, n: scratch
    return Kernels("mutant", SimpleNamespace(**{**vars(NUMPY), **overrides}))


def check(k: Kernels, case: Case) -> None:
    conformance.within_its_budget(k, case, *conformance.truth32(case))


def drops_the_bias(a: Arguments, correct: Any) -> None:
    correct({**a, "b": None})


def is_off_by_a_ten_thousandth_in_one_element(a: Arguments, correct: Any) -> None:
    correct(a)
    y = a["y"].reshape(-1)
    y[np.argsort(np.abs(y))[y.size // 2]] *= 1.0001


def leaves_the_last_sample_unwritten(a: Arguments, correct: Any) -> None:
    before = a["y"][-1].copy()
    correct(a)
    a["y"][-1] = before


def leaves_one_element_unwritten_where_nan_is_right(a: Arguments, correct: Any) -> None:
    places = np.isnan(a["x"])
    before = a["y"][places]
    correct(a)
    a["y"][places] = before


def leaves_db_unwritten(a: Arguments, correct: Any) -> None:
    correct({**a, "db": np.empty_like(a["db"])})


def adds_to_the_output(a: Arguments, correct: Any) -> None:
    before = a["dw"].copy()
    correct(a)
    a["dw"] += before


def writes_to_an_input(a: Arguments, correct: Any) -> None:
    correct(a)
    a["x"].flat[0] = -a["x"].flat[0]


def writes_past_the_end(a: Arguments, correct: Any) -> None:
    correct(a)
    np.lib.stride_tricks.as_strided(a["y"].reshape(-1), (a["y"].size + 1,))[-1] = 0.0


def writes_past_its_scratch(a: Arguments, correct: Any) -> None:
    correct(a)
    np.lib.stride_tricks.as_strided(a["scratch"], (a["scratch"].size + 1,), (a["x"].itemsize,))[-1] = 0.0


def reads_its_scratch(a: Arguments, correct: Any) -> None:
    correct({**a, "scratch": np.empty(10_000, a["x"].dtype)})
    a["y"] += a["scratch"][0]


def returns_its_output(a: Arguments, correct: Any) -> np.ndarray:
    correct(a)
    return a["y"]


def swallows_nan(a: Arguments, correct: Any) -> None:
    np.fmax(a["x"], 0.0, out=a["y"])


def passes_the_gradient_at_zero(a: Arguments, correct: Any) -> None:
    np.copyto(a["dx"], np.where(a["x"] < 0.0, 0.0, a["dy"]))


def lets_the_last_maximum_win(a: Arguments, correct: Any) -> None:
    y, argmax = np.empty_like(a["y"]), np.empty_like(a["argmax"])
    NUMPY.maxpool2d(np.ascontiguousarray(a["x"][:, ::-1, ::-1]), a["d"], y, argmax)
    a["y"][...], a["argmax"][...] = y[:, ::-1, ::-1], 3 - argmax[:, ::-1, ::-1]


def lets_padding_win(a: Arguments, correct: Any) -> None:
    correct(a)
    a["y"][:, 0] = np.maximum(a["y"][:, 0], 0.0)


def ignores_count_include_pad(a: Arguments, correct: Any) -> None:
    correct({**a, "count_include_pad": True})


def gives_the_biased_variance(a: Arguments, correct: Any) -> None:
    correct(a)
    m = a["x"].size // a["d"].channels
    a["var"] *= (m - 1) / m


def computes_the_variance_in_one_pass(a: Arguments, correct: Any) -> None:
    correct(a)
    x, axes = a["x"], tuple(range(a["x"].ndim - 1))
    variance = np.abs(np.square(x).mean(axes) - np.square(x.mean(axes)))
    a["inv_std"][...] = 1.0 / np.sqrt(variance + np.float32(a["eps"]))


def weighs_the_old_value(a: Arguments, correct: Any) -> None:
    correct({**a, "momentum": 1.0 - a["momentum"]})


def draws_from_another_step(a: Arguments, correct: Any) -> None:
    correct({**a, "step": a["step"] + 1})


def forgets_to_scale(a: Arguments, correct: Any) -> None:
    correct(a)
    a["dx"] *= 1.0 - a["rate"]


def smooths_the_loss_alone(a: Arguments, correct: Any) -> None:
    correct(a)
    correct({**a, "smoothing": 0.0, "loss": np.empty_like(a["loss"])})


def forgets_the_mean_over_the_batch(a: Arguments, correct: Any) -> None:
    correct(a)
    a["dlogits"] *= len(a["logits"])


def corrects_with_the_next_step(a: Arguments, correct: Any) -> None:
    correct({**a, "step": a["step"] + 1})


def decays_coupled(a: Arguments, correct: Any) -> None:
    correct({**a, "decoupled": False})


def ignores_nesterov(a: Arguments, correct: Any) -> None:
    correct({**a, "nesterov": False})


def leaves_the_state_alone(a: Arguments, correct: Any) -> None:
    correct({**a, "v": a["v"].copy()})


def swaps_the_parts(a: Arguments, correct: Any) -> None:
    correct(a)
    a["y"][...] = np.concatenate([a["b"], a["a"]], axis=-1)


def takes_one_place_for_the_sum(a: Arguments, correct: Any) -> None:
    """The gradient by what is repeated, from the first place alone."""
    correct(a)
    a["da"][...] = (a["dy"] * a["b"])[:, :1, :1]


def turns_the_window_the_wrong_way(a: Arguments, correct: Any) -> None:
    turned = {name: np.ascontiguousarray(a[name][..., ::-1]) for name in ("dy", "x", "scale")}
    dx = np.empty_like(a["dx"])
    correct({**a, **turned, "dx": dx})
    a["dx"][...] = dx[..., ::-1]


def takes_the_inverse_order(a: Arguments, correct: Any) -> None:
    back = [a["axes"].index(axis) for axis in range(a["x"].ndim)]
    a["y"][...] = a["x"].transpose(back).reshape(a["y"].shape)


def repeats_the_edge_in_a_reflection(a: Arguments, correct: Any) -> None:
    correct({**a, "mode": "edge"})


def weighs_the_gradient_alone(a: Arguments, correct: Any) -> None:
    correct(a)
    own = {name: np.empty_like(array) for name, array in a.items() if name in ("dlogits", "dprediction")}
    correct({**a, **own, "weights": np.ones_like(a["weights"])})


def divides_by_the_batch(a: Arguments, correct: Any) -> None:
    correct(a)
    share = a["weights"].sum() / len(a["weights"])
    a["loss"][...] *= share
    next(array for name, array in a.items() if name in ("dlogits", "dprediction"))[...] *= share


def squares_without_a_half(a: Arguments, correct: Any) -> None:
    correct(a)
    a["loss"][...] *= 2


def takes_probabilities_for_logits(a: Arguments, correct: Any) -> None:
    correct({**a, "logits": 1 / (1 + np.exp(-a["logits"]))})


def clips_each_element(a: Arguments, correct: Any) -> None:
    np.clip(a["g"], -a["limit"], a["limit"], out=a["g"])


MUTATIONS: list[tuple[Callable[..., Any], str, int | None]] = [
    (drops_the_bias, "linear/small", None),
    (drops_the_bias, "conv2d/cnn-bn-conv1-b1", None),
    (is_off_by_a_ten_thousandth_in_one_element, "conv2d/small", None),
    (is_off_by_a_ten_thousandth_in_one_element, "gelu/small", None),
    (leaves_the_last_sample_unwritten, "conv2d/odd", None),
    (leaves_the_last_sample_unwritten, "avgpool2d/small", None),
    (leaves_one_element_unwritten_where_nan_is_right, "sigmoid/nan", None),
    (leaves_db_unwritten, "conv2d_backward/small", None),
    (adds_to_the_output, "linear_backward/small", None),
    (adds_to_the_output, "conv2d_backward/depthwise", None),
    (writes_to_an_input, "relu/small", None),
    (writes_to_an_input, "batchnorm/image", None),
    (writes_past_the_end, "tanh/odd", None),
    (writes_past_its_scratch, "linear/small", None),
    (reads_its_scratch, "linear/small", 1),
    (returns_its_output, "add/small", None),
    (swallows_nan, "relu/nan", None),
    (passes_the_gradient_at_zero, "relu_backward/nan", None),
    (lets_the_last_maximum_win, "maxpool2d/signed-zeros", None),
    (lets_padding_win, "maxpool2d/overlapping-padding", None),
    (ignores_count_include_pad, "avgpool2d_backward/overlapping-padding-real-pixels", None),
    (gives_the_biased_variance, "batchnorm/image", None),
    (computes_the_variance_in_one_pass, "batchnorm/offset", None),
    (weighs_the_old_value, "ema_update/small", None),
    (draws_from_another_step, "dropout/small", None),
    (forgets_to_scale, "dropout_backward/small", None),
    (smooths_the_loss_alone, "softmax_cross_entropy/smoothing", None),
    (forgets_the_mean_over_the_batch, "softmax_cross_entropy/small", None),
    (weighs_the_gradient_alone, "weighted_cross_entropy/weights", None),
    (weighs_the_gradient_alone, "huber/weights", None),
    (divides_by_the_batch, "weighted_mse/weights", None),
    (divides_by_the_batch, "mae/weights", None),
    (divides_by_the_batch, "soft_cross_entropy/weights", None),
    (squares_without_a_half, "huber/small", None),
    (takes_probabilities_for_logits, "binary_cross_entropy/small", None),
    (clips_each_element, "clip_norm/small", None),
    (corrects_with_the_next_step, "adam/first-step", None),
    (decays_coupled, "adam/decay-decoupled", None),
    (decays_coupled, "sgd/decay-decoupled", None),
    (decays_coupled, "rmsprop/decay-decoupled", None),
    (ignores_nesterov, "sgd/nesterov", None),
    (leaves_the_state_alone, "rmsprop/small", None),
    (swaps_the_parts, "concat/odd", None),
    (takes_one_place_for_the_sum, "multiply_backward/by-channel", None),
    (turns_the_window_the_wrong_way, "local_response_norm_backward/even", None),
    (takes_the_inverse_order, "transpose/channels-first", None),
    (repeats_the_edge_in_a_reflection, "pad2d/reflect", None),
]


@pytest.mark.parametrize(
    ("mistake", "id", "scratch"), MUTATIONS, ids=[f"{id}-{mistake.__name__}" for mistake, id, _ in MUTATIONS]
)
def test_every_mistake_is_found(mistake: Callable[..., Any], id: str, scratch: int | None) -> None:
    case = get(id)
    with pytest.raises(AssertionError):
        check(mutant(case.kernel, mistake, scratch), case)


@pytest.mark.parametrize("id", sorted({id for _, id, _ in MUTATIONS}))
def test_without_a_mistake_nothing_is_found(id: str) -> None:
    case = get(id)
    check(mutant(case.kernel, lambda arguments, correct: correct(arguments)), case)


def test_a_kernels_test_names_each_case_that_fails_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "TWINS", [kernels.get("numpy"), mutant("relu", swallows_nan)])
    with pytest.raises(BaseExceptionGroup) as caught:
        conformance.test_float32_stays_within_its_budget("relu")
    count = len(select("relu"))
    assert caught.value.message == f"1 of {count} cases: relu/nan"
    (case,) = caught.value.exceptions
    assert isinstance(case, BaseExceptionGroup)
    assert case.message == "1 of 2 cases: mutant"


def test_what_pytest_fails_counts_and_no_case_is_a_failure() -> None:
    seen = []

    def check(name: str, number: int) -> None:
        seen.append(number)
        if name == "a":
            pytest.fail("wrong")
        assert name != "c"

    with pytest.raises(BaseExceptionGroup, match="2 of 3 cases: a, 1; c, 3"):
        every([("a", 1), ("b", 2), ("c", 3)], check)
    assert seen == [1, 2, 3]
    with pytest.raises(AssertionError, match="no case"):
        every([], check)
