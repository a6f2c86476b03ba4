"""Mistakes that small programs of this kind make, one by one, and cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kernels import Kernels

F64 = np.float64


def one(value: float) -> np.ndarray:
    return np.array([value], F64)


# Label smoothing -----------------------------------------------------------------------------------------------


def test_label_smoothing_is_in_the_gradient_as_well(k: Kernels) -> None:
    # Four classes, equal logits: softmax is 1/4 everywhere, the target is 0.9 + 0.025 and three times 0.025.
    loss, dlogits = k.softmax_cross_entropy(np.zeros((1, 4)), np.array([2]), smoothing=0.1)
    assert float(loss) == pytest.approx(math.log(4), rel=1e-14)
    np.testing.assert_allclose(dlogits, [[0.225, 0.225, 0.25 - 0.925, 0.225]], rtol=1e-14)


def test_smoothed_loss_by_hand(k: Kernels) -> None:
    logits = np.array([[0.0, math.log(3.0)]])  # softmax (1/4, 3/4)
    loss, dlogits = k.softmax_cross_entropy(logits, np.array([1]), smoothing=0.2)  # target (0.1, 0.9)
    assert float(loss) == pytest.approx(-0.1 * math.log(0.25) - 0.9 * math.log(0.75), rel=1e-14)
    np.testing.assert_allclose(dlogits, [[0.25 - 0.1, 0.75 - 0.9]], rtol=1e-13)


def test_the_smoothed_minimum_has_no_gradient(k: Kernels) -> None:
    target = np.array([[0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]])
    _, dlogits = k.softmax_cross_entropy(np.log(target), np.array([0]), smoothing=0.1)
    np.testing.assert_allclose(dlogits, 0.0, atol=1e-15)


def test_loss_and_gradient_are_means_over_the_batch(k: Kernels) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((6, 5)), rng.integers(0, 5, 6)
    loss, dlogits = k.softmax_cross_entropy(logits, labels, 0.1)
    single = [k.softmax_cross_entropy(logits[i : i + 1], labels[i : i + 1], 0.1) for i in range(6)]
    assert float(loss) == pytest.approx(np.mean([float(a) for a, _ in single]), rel=1e-13)
    np.testing.assert_allclose(dlogits, np.concatenate([b for _, b in single]) / 6, rtol=1e-12)


# Adam's step count ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", [3.0, -0.02])
def test_adams_first_step_is_the_learning_rate(k: Kernels, gradient: float) -> None:
    # t = 1 in moments and correction: m̂ = g and v̂ = g², so that p moves by the learning rate exactly.
    p, m, v = one(1.0), one(0.0), one(0.0)
    k.adam(p, one(gradient), m, v, 1, learning_rate=0.01, eps=0.0)
    assert p[0] == pytest.approx(1.0 - math.copysign(0.01, gradient), rel=1e-14)
    assert m[0] == pytest.approx(0.1 * gradient, rel=1e-14)
    assert v[0] == pytest.approx(0.001 * gradient**2, rel=1e-13)


def test_adams_second_step_by_hand(k: Kernels) -> None:
    p, m, v = one(0.5), one(0.0), one(0.0)
    rates = {"learning_rate": 0.1, "beta1": 0.5, "beta2": 0.75, "eps": 1e-3}
    k.adam(p, one(2.0), m, v, 1, **rates)
    first = 0.5 - 0.1 * 2.0 / (2.0 + 1e-3)
    assert p[0] == pytest.approx(first, rel=1e-14)
    k.adam(p, one(-1.0), m, v, 2, **rates)
    # m = 0.5 · 1 − 0.5 = 0, v = 0.75 · 1 + 0.25 = 1
    assert m[0] == pytest.approx(0.0, abs=1e-16)
    assert v[0] == pytest.approx(1.0, rel=1e-14)
    assert p[0] == pytest.approx(first, rel=1e-14)
    k.adam(p, one(4.0), m, v, 3, **rates)
    m_hat, v_hat = 2.0 / (1 - 0.5**3), (0.75 + 4.0) / (1 - 0.75**3)
    assert p[0] == pytest.approx(first - 0.1 * m_hat / (math.sqrt(v_hat) + 1e-3), rel=1e-14)


# Running averages ----------------------------------------------------------------------------------------------


def test_momentum_is_the_weight_of_the_new_value(k: Kernels) -> None:
    running = one(10.0)
    k.ema_update(running, one(20.0), 0.1)
    assert running[0] == pytest.approx(11.0, rel=1e-14)
    k.ema_update(running, one(20.0), 1.0)
    assert running[0] == pytest.approx(20.0, rel=1e-14)


def test_the_running_variance_is_unbiased_and_the_normalising_one_is_not(k: Kernels) -> None:
    x = np.array([[1.0], [3.0]])
    y, mean, inv_std, var = (np.empty_like(a) for a in (x, x[0], x[0], x[0]))
    backend, d = k.backend, _channel_dims(x)
    scratch = np.empty(backend.batchnorm_scratch(d, 2))
    backend.batchnorm(x, one(1.0), one(0.0), 0.0, d, scratch, y, mean, inv_std, var)
    assert (mean[0], inv_std[0], var[0]) == pytest.approx((2.0, 1.0, 2.0), rel=1e-14)
    np.testing.assert_allclose(y, [[-1.0], [1.0]], rtol=1e-14)


def _channel_dims(x: np.ndarray) -> object:
    from kernels import shapes

    return shapes.channels(x.shape, "batchnorm")


# Weight decay --------------------------------------------------------------------------------------------------

RATE, DECAY = 0.1, 0.5


def test_coupled_decay_of_sgd_enters_the_momentum(k: Kernels) -> None:
    p, v = one(2.0), one(1.0)
    k.sgd(p, one(3.0), v, RATE, momentum=0.5, weight_decay=DECAY)
    assert v[0] == pytest.approx(0.5 * 1.0 + 3.0 + DECAY * 2.0, rel=1e-14)
    assert p[0] == pytest.approx(2.0 - RATE * 4.5, rel=1e-14)


def test_decoupled_decay_of_sgd_leaves_the_momentum_alone(k: Kernels) -> None:
    p, v = one(2.0), one(1.0)
    k.sgd(p, one(3.0), v, RATE, momentum=0.5, weight_decay=DECAY, decoupled=True)
    assert v[0] == pytest.approx(3.5, rel=1e-14)
    assert p[0] == pytest.approx(2.0 - RATE * DECAY * 2.0 - RATE * 3.5, rel=1e-14)


def test_both_decays_are_one_without_momentum(k: Kernels) -> None:
    for decoupled in (False, True):
        p = one(2.0)
        k.sgd(p, one(3.0), None, RATE, weight_decay=DECAY, decoupled=decoupled)
        assert p[0] == pytest.approx(2.0 - RATE * (3.0 + DECAY * 2.0), rel=1e-14)


def test_nesterov_looks_ahead(k: Kernels) -> None:
    p, v = one(2.0), one(1.0)
    k.sgd(p, one(3.0), v, RATE, momentum=0.5, nesterov=True)
    assert v[0] == pytest.approx(3.5, rel=1e-14)
    assert p[0] == pytest.approx(2.0 - RATE * (3.0 + 0.5 * 3.5), rel=1e-14)


def test_nesterov_with_coupled_decay(k: Kernels) -> None:
    p, v = one(2.0), one(1.0)
    k.sgd(p, one(3.0), v, RATE, momentum=0.5, nesterov=True, weight_decay=DECAY)
    assert p[0] == pytest.approx(2.0 - RATE * (4.0 + 0.5 * 4.5), rel=1e-14)


@pytest.mark.parametrize("decoupled", [False, True])
def test_decay_of_rmsprop(k: Kernels, decoupled: bool) -> None:
    p, v = one(2.0), one(4.0)
    k.rmsprop(p, one(3.0), v, RATE, rho=0.75, eps=0.01, weight_decay=DECAY, decoupled=decoupled)
    g, start = (3.0, 2.0 - RATE * DECAY * 2.0) if decoupled else (3.0 + DECAY * 2.0, 2.0)
    second = 0.75 * 4.0 + 0.25 * g * g
    assert v[0] == pytest.approx(second, rel=1e-14)
    assert p[0] == pytest.approx(start - RATE * g / (math.sqrt(second) + 0.01), rel=1e-14)


@pytest.mark.parametrize("decoupled", [False, True])
def test_decay_of_adam(k: Kernels, decoupled: bool) -> None:
    p, m, v = one(2.0), one(0.0), one(0.0)
    k.adam(p, one(3.0), m, v, 1, RATE, eps=0.0, weight_decay=DECAY, decoupled=decoupled)
    g, start = (3.0, 2.0 - RATE * DECAY * 2.0) if decoupled else (3.0 + DECAY * 2.0, 2.0)
    assert m[0] == pytest.approx(0.1 * g, rel=1e-13)
    assert p[0] == pytest.approx(start - RATE, rel=1e-14)


def test_adamw_is_adam_with_decoupled_decay(k: Kernels) -> None:
    rng = np.random.default_rng(0)
    p, g, m, v = rng.random((4, 9))
    one_way = [a.copy() for a in (p, g, m, v)]
    other = [a.copy() for a in (p, g, m, v)]
    k.adamw(*one_way, 3, 0.1)
    k.adam(*other, 3, 0.1, weight_decay=0.01, decoupled=True)
    for a, b in zip(one_way, other, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one_way[0], p)


# Mean-only batch normalisation by hand -------------------------------------------------------------------------

X = np.array([[1.0, 10.0], [2.0, 30.0], [6.0, 80.0]])


def test_mean_only_forward_by_hand(k: Kernels) -> None:
    y, mean = k.meannorm(X, np.array([0.5, -1.0]))
    np.testing.assert_allclose(mean, [3.0, 40.0], rtol=1e-15)
    np.testing.assert_allclose(y, [[-1.5, -31.0], [-0.5, -11.0], [3.5, 39.0]], rtol=1e-14)


def test_mean_only_backward_by_hand(k: Kernels) -> None:
    dx, dbeta = k.meannorm_backward(np.array([[1.0, 0.0], [2.0, 3.0], [3.0, -6.0]]))
    np.testing.assert_allclose(dbeta, [6.0, -3.0], rtol=1e-15)
    np.testing.assert_allclose(dx, [[-1.0, 1.0], [0.0, 4.0], [1.0, -5.0]], atol=1e-15)


def test_mean_only_on_images_by_hand(k: Kernels) -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 9.0]).reshape(1, 2, 3, 1)
    y, mean = k.meannorm(x, one(1.0))
    assert mean[0] == pytest.approx(4.0, rel=1e-15)
    np.testing.assert_allclose(y.ravel(), [-2.0, -1.0, 0.0, 1.0, 2.0, 6.0], atol=1e-14)


def test_mean_only_running_mean_with_momentum_a_tenth(k: Kernels) -> None:
    running = np.zeros(2)
    for x in (X, 2.0 * X):
        k.ema_update(running, k.meannorm(x, np.zeros(2))[1], 0.1)
    # 0.1 · 3 = 0.3, then 0.3 + 0.1 (6 − 0.3) = 0.87; ten and a third times that for the other channel.
    np.testing.assert_allclose(running, [0.87, 11.6], rtol=1e-14)
    y = k.meannorm_inference(X, np.array([1.0, 0.0]), running)
    np.testing.assert_allclose(y[0], [1.0 - 0.87 + 1.0, 10.0 - 11.6], rtol=1e-13)
    dx, dbeta = k.meannorm_inference_backward(X)
    np.testing.assert_array_equal(dx, X)
    np.testing.assert_allclose(dbeta, [9.0, 120.0], rtol=1e-15)


# Small and large arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("kernel", "x", "expected"),
    [
        ("elu", -1e-6, math.expm1(-1e-6)),
        ("softplus", -30.0, math.log1p(math.exp(-30.0))),
        ("softplus", 80.0, 80.0),
        ("sigmoid", -40.0, 1.0 / (1.0 + math.exp(40.0))),
        ("silu", -40.0, -40.0 / (1.0 + math.exp(40.0))),
        ("tanh", 1e-5, math.tanh(1e-5)),
        ("gelu", 1e-5, 1e-5 * 0.5 * math.erfc(-1e-5 / math.sqrt(2.0))),
        ("gelu", -5.0, -5.0 * 0.5 * math.erfc(5.0 / math.sqrt(2.0))),
    ],
)
def test_tails_keep_their_relative_accuracy(k: Kernels, kernel: str, x: float, expected: float, dtype: type) -> None:
    # The argument's own rounding is magnified by at most |x f'(x) / f(x)|, 40 here.
    got = getattr(k, kernel)(np.full(3, x, dtype))
    np.testing.assert_allclose(got, expected, rtol=64 * float(np.finfo(dtype).eps))


def test_nothing_overflows(k: Kernels) -> None:
    x = np.array([[-1000.0, 0.0, 1000.0]], np.float32)
    np.testing.assert_array_equal(k.sigmoid(x), [[0.0, 0.5, 1.0]])
    np.testing.assert_array_equal(k.tanh(x), [[-1.0, 0.0, 1.0]])
    np.testing.assert_array_equal(k.softmax(x), [[0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(k.log_softmax(x), [[-2000.0, -1000.0, 0.0]])
    loss, _ = k.softmax_cross_entropy(x, np.array([0]))
    assert float(loss) == 2000.0


def test_one_normal_row_survives_a_bad_one(k: Kernels) -> None:
    x = np.array([[1.0, 2.0], [np.nan, 0.0]], np.float32)
    y = k.softmax(x)
    assert np.isnan(y[1]).all()
    np.testing.assert_allclose(y[0].sum(), 1.0, rtol=1e-6)


def test_a_masked_class_costs_nothing(k: Kernels) -> None:
    # A logit of −inf for a class that is not the label: probability 0, and no NaN.
    loss, dlogits = k.softmax_cross_entropy(np.array([[0.0, -np.inf, 0.0]]), np.array([0]))
    assert float(loss) == pytest.approx(math.log(2.0), rel=1e-14)
    np.testing.assert_allclose(dlogits, [[-0.5, 0.0, 0.5]], rtol=1e-14)
