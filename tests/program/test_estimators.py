"""scikit-learn's estimators: its own checks, and what people do with estimators."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kernels
import models
from models import BatchNorm, Conv2d, Flatten, Linear, MaxPool2d, ReLU

pytest.importorskip("sklearn", reason="the extra `sklearn` is not installed")

import joblib
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, RobustScaler, StandardScaler

from twinkernels.estimators import NetworkClassifier, NetworkRegressor

from ..support.processes import BRIEF

X, Y = load_digits(return_X_y=True)
X, Y = X[:600], Y[:600]
IMAGES = X.reshape(-1, 8, 8).astype(np.uint8)
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])

PROGRAM = """
import json, warnings
warnings.simplefilter("ignore")
from sklearn.utils.estimator_checks import check_estimator
from twinkernels.estimators import NetworkClassifier, NetworkRegressor
for backend, dtype in ("numpy", None), ("numba", "float64"):
    for kind in NetworkClassifier, NetworkRegressor:
        estimator = kind((32,), backend=backend, dtype=dtype, epochs=30, learning_rate=1e-2)
        found = check_estimator(estimator, on_fail=None, on_skip=None)
        print(json.dumps([[one["check_name"], one["status"], repr(one["exception"])] for one in found]))
"""


def test_every_check_of_scikit_learn_passes_and_none_is_skipped() -> None:
    """On both backends in one process, which takes longer to load scikit-learn than to make some of the checks."""
    environment = os.environ | {"SCIPY_ARRAY_API": "1"}  # without which one of them is skipped
    done = subprocess.run(
        [sys.executable, "-c", BRIEF + PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 4
    for found in lines:
        assert len(found) > 50
        assert [one for one in found if one[1] != "passed"] == []


def classifier(network: Any = (24,), **options: Any) -> NetworkClassifier:
    return NetworkClassifier(network, **{"backend": "numpy", "epochs": 12, "random_state": 0} | options)


def regressor(network: Any = (24,), **options: Any) -> NetworkRegressor:
    return NetworkRegressor(network, **{"backend": "numpy", "epochs": 30, "random_state": 0} | options)


def conv() -> list[models.Layer]:
    return [Conv2d(6, 3, padding=1), BatchNorm(), ReLU(), MaxPool2d(2), Flatten()]


def test_it_learns_digits() -> None:
    held_out = np.arange(len(X)) % 6 == 0
    fitted = classifier((64,), learning_rate=1e-2, epochs=150).fit(X[~held_out], Y[~held_out])
    assert fitted.score(X[held_out], Y[held_out]) > 0.9
    assert fitted.n_iter_ == len(fitted.history_.epochs) == 150
    np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(fitted.predict_log_proba(X)), fitted.predict_proba(X))


def test_a_random_state_gives_the_same_bits_and_none_others() -> None:
    one, two, other = (classifier(random_state=state).fit(X, Y).predict_proba(X) for state in (3, 3, 4))
    assert one.tobytes() == two.tobytes() != other.tobytes()
    generator = np.random.RandomState(3)
    assert classifier(random_state=generator).fit(X, Y).predict_proba(X).tobytes() == one.tobytes()
    free = [classifier(random_state=None).fit(X, Y).predict_proba(X) for _ in range(2)]
    assert free[0].tobytes() != free[1].tobytes()


def test_labels_of_any_kind_come_back() -> None:
    fitted = classifier().fit(X, NAMES[Y])
    assert list(fitted.classes_) == sorted(NAMES)
    assert set(fitted.predict(X)) <= set(NAMES)
    assert (fitted.predict(X) == fitted.classes_[fitted.predict_proba(X).argmax(axis=1)]).all()
    odd = classifier().fit(X, Y * 10 - 7)
    assert set(odd.predict(X)) <= set(Y * 10 - 7)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
def test_values_count_and_not_their_dtype(dtype: type) -> None:
    """Pixels as bytes, ints or floats: the same network within rounding, whatever is predicted with."""
    fitted = classifier(dtype="float64").fit(IMAGES.reshape(-1, 64).astype(dtype), Y)
    other = classifier(dtype="float64").fit(X, Y)
    for values in (np.uint8, np.int64, np.float64):
        np.testing.assert_allclose(fitted.predict_proba(X.astype(values)), other.predict_proba(X), rtol=1e-3, atol=1e-5)
    assert (classifier().fit(X.astype(dtype), Y).model_.dtype == np.float64) == (dtype in (np.int64, np.float64))


def test_a_scale_that_is_one_number_changes_nothing() -> None:
    one, two = (classifier().fit(X * factor, Y).predict_proba(X * factor) for factor in (1, 1 / 16))
    np.testing.assert_allclose(one, two, rtol=1e-6)
    raw = classifier(scale=False).fit(X * 100, Y)
    assert raw._scaling == (0.0, 1.0)


def test_images_flat_ones_and_their_channels() -> None:
    fitted = classifier(conv()).fit(IMAGES, Y)
    assert fitted.model_.input_shape == (8, 8, 1)
    for same in (IMAGES[..., np.newaxis], X, X.reshape(-1, 8, 8), IMAGES.tolist()):
        shown = np.asarray(same) if isinstance(same, list) else same
        np.testing.assert_allclose(fitted.predict_proba(shown), fitted.predict_proba(IMAGES), atol=1e-6)
    squares = classifier(conv()).fit(X, Y)
    assert squares.model_.input_shape == (8, 8, 1)
    colour = np.repeat(IMAGES[..., np.newaxis], 3, axis=-1)
    assert classifier(conv()).fit(colour, Y).model_.input_shape == (8, 8, 3)
    with pytest.raises(ValueError, match=r"channels come last: X\.transpose\(0, 2, 3, 1\)"):
        classifier(conv(), epochs=1).fit(colour, Y).predict(colour.transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match=r"X has shape \(600, 3, 8, 8\); channels come last: X\.transpose"):
        classifier(conv()).fit(colour.transpose(0, 3, 1, 2), Y)
    with pytest.raises(ValueError, match=r"X has shape \(600, 7, 8, 1\), expected \(N, 8, 8, 1\)"):
        fitted.predict(IMAGES[:, 1:])
    lists = classifier(conv(), epochs=1).fit(colour[:30].tolist(), Y[:30].tolist())
    assert lists.predict(colour[:2].tolist()).shape == (2,)
    told = classifier(conv(), image_shape=(4, 16), epochs=1).fit(X, Y)
    assert told.model_.input_shape == (4, 16, 1)


def test_networks_by_sizes_layers_and_name() -> None:
    whole = classifier([Linear(16), ReLU(), Linear(10)], epochs=1).fit(X, Y)
    assert [type(node.layer) for node in whole.model_.nodes] == [Linear, ReLU, Linear]
    without = classifier([Linear(16), ReLU()], epochs=1).fit(X, Y)
    assert without.model_.output_shape == ("N", 10)
    zoo = classifier("cnn-bn", epochs=1).fit(np.arange(6 * 784).reshape(6, 784).astype(np.uint8), [0, 1, 2] * 2)
    assert zoo.model_.input_shape == (28, 28, 1)
    assert zoo.model_.output_shape == ("N", 3)
    assert classifier((), epochs=1).fit(X, Y).model_.output_shape == ("N", 10)


def test_dataframes_and_their_names() -> None:
    pandas = pytest.importorskip("pandas", reason="DataFrames are pandas'")
    frame = pandas.DataFrame(X, columns=[f"pixel{i}" for i in range(64)])
    fitted = classifier().fit(frame, pandas.Series(NAMES[Y]))
    assert list(fitted.feature_names_in_) == list(frame.columns)
    assert fitted.score(frame, NAMES[Y]) > 0.5
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(frame[frame.columns[::-1]])


def test_weights_of_samples_and_classes() -> None:
    weights = np.where(Y == 3, 0.0, 1.0)
    left_out = classifier().fit(X, Y, sample_weight=weights)
    without = classifier().fit(X[Y != 3], Y[Y != 3])
    assert list(left_out.classes_) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    np.testing.assert_allclose(left_out.predict_proba(X), without.predict_proba(X), atol=1e-5)
    favoured = classifier(class_weight={label: 50.0 if label == 8 else 0.02 for label in range(10)}).fit(X, Y)
    assert np.mean(favoured.predict(X) == 8) > 0.5
    assert classifier(class_weight="balanced").fit(X, Y).score(X, Y) > 0.5
    heavy = regressor().fit(X, Y / 9, sample_weight=np.where(Y > 4, 1.0, 1e-6))
    assert heavy.predict(X)[Y < 5].mean() > regressor().fit(X, Y / 9).predict(X)[Y < 5].mean() + 0.1


def test_partial_fit_goes_on() -> None:
    fitted = classifier(learning_rate=1e-2)
    for _ in range(12):
        fitted.partial_fit(X[:300], NAMES[Y[:300]], classes=NAMES)
    fitted.partial_fit(X[300:], NAMES[Y[300:]])
    assert fitted.score(X, NAMES[Y]) > 0.6
    with pytest.raises(ValueError, match=r"partial_fit: y holds classes .*'ten'.*, expected some of"):
        fitted.partial_fit(X[:2], ["ten", "one"])
    targets = regressor()
    before = [targets.partial_fit(X, Y / 9).score(X, Y / 9) for _ in range(8)]
    assert before[-1] > before[0]


def test_warm_start_goes_on_where_it_was() -> None:
    warm = classifier(warm_start=True, epochs=3).fit(X, Y)
    first = warm.loss_
    assert warm.fit(X, Y).loss_ < first
    with pytest.raises(ValueError, match="warm_start: y holds classes"):
        warm.fit(X, Y + 1)


def test_early_stopping_sets_some_aside() -> None:
    fitted = classifier(early_stopping=True, learning_rate=1e-2, epochs=200, n_iter_no_change=4).fit(X, Y)
    assert fitted.n_iter_ < 200
    assert max(fitted.history_.validation_accuracy) > 0.8
    assert regressor(early_stopping=True, epochs=200, n_iter_no_change=2).fit(X, Y / 9).n_iter_ < 200
    with pytest.raises(ValueError, match="validation_fraction is 0, expected a share"):
        classifier(early_stopping=True, validation_fraction=0).fit(X, Y)


@pytest.mark.parametrize("way", ["pickle", "joblib", "deepcopy"])
def test_copies_answer_with_the_same_bits(way: str) -> None:
    fitted = classifier().fit(X, NAMES[Y])
    file = io.BytesIO()
    if way == "pickle":
        twin = pickle.loads(pickle.dumps(fitted))
    elif way == "joblib":
        joblib.dump(fitted, file)
        file.seek(0)
        twin = joblib.load(file)
    else:
        twin = copy.deepcopy(fitted)
    assert twin.predict_proba(X).tobytes() == fitted.predict_proba(X).tobytes()
    assert twin.get_params() == fitted.get_params()
    bare = clone(fitted)
    with pytest.raises(NotFittedError):
        bare.predict(X)


def threads_of_a_worker() -> int:
    return kernels.get_threads()


def test_a_grid_in_two_processes_shares_the_cores() -> None:
    search = GridSearchCV(
        classifier(epochs=4), {"network": [(8,), (32,)], "learning_rate": [1e-4, 1e-2]}, n_jobs=2, cv=2
    )
    assert search.fit(X, Y).best_params_ == {"network": (32,), "learning_rate": 1e-2}
    cores = joblib.cpu_count()
    inside = joblib.Parallel(n_jobs=2)(joblib.delayed(threads_of_a_worker)() for _ in range(2))
    assert max(inside) <= max(1, cores // 2)


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize("scaler", [None, StandardScaler(), MinMaxScaler(), MaxAbsScaler(), RobustScaler()])
@pytest.mark.parametrize("labels", [Y, NAMES[Y % 2]], ids=["ten", "two"])
def test_a_classifier_of_scikit_learn_comes_in_and_goes_out(activation: str, scaler: Any, labels: np.ndarray) -> None:
    x = X[:, 20:30] + 1  # of no constant column
    own = MLPClassifier((7, 5), activation=activation, max_iter=3, random_state=0)
    theirs = own if scaler is None else make_pipeline(scaler, own)
    with warnings.catch_warnings(action="ignore"):
        theirs.fit(x, labels)
    ours = NetworkClassifier.from_sklearn(theirs, backend="numpy")
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-12)
    assert (ours.predict(x) == theirs.predict(x)).all()
    back = ours.to_sklearn()
    np.testing.assert_allclose(back.predict_proba(x), theirs.predict_proba(x), atol=1e-12)
    assert (back.predict(x) == theirs.predict(x)).all()


def test_regressors_come_in_and_go_out_and_ours_keep_their_scaling() -> None:
    with warnings.catch_warnings(action="ignore"):
        theirs = MLPRegressor(hidden_layer_sizes=(7,), max_iter=3, random_state=0).fit(X, np.stack([Y, Y / 2], axis=1))
    ours = NetworkRegressor.from_sklearn(theirs, backend="numpy")
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-10)
    np.testing.assert_allclose(regressor(epochs=2).fit(X, Y).to_sklearn().predict(X).shape, (600,))
    fitted = classifier().fit(X, Y)
    np.testing.assert_allclose(fitted.to_sklearn().predict_proba(X), fitted.predict_proba(X), atol=1e-10)


def test_what_cannot_go_between_is_named() -> None:
    with pytest.raises(TypeError, match=r"from_sklearn: fitted is Normalizer\(\), expected a MLPClassifier"):
        NetworkClassifier.from_sklearn(Normalizer())
    with warnings.catch_warnings(action="ignore"):
        pipe = Pipeline([("unit", Normalizer()), ("net", MLPClassifier((4,), max_iter=1))]).fit(X, Y)
        several = MLPClassifier((4,), max_iter=1).fit(X, np.eye(10, dtype=int)[Y])
    with pytest.raises(ValueError, match=r"from_sklearn: the Pipeline has Normalizer\(\), expected StandardScaler"):
        NetworkClassifier.from_sklearn(pipe)
    with pytest.raises(ValueError, match="from_sklearn: the classifier gives several labels a sample"):
        NetworkClassifier.from_sklearn(several)
    with pytest.raises(ValueError, match=r"to_sklearn: the network is \['Conv2d'"):
        classifier(conv(), epochs=1).fit(IMAGES, Y).to_sklearn()


def test_a_file_takes_x_as_it_is(tmp_path: Path) -> None:
    fitted = classifier(conv(), epochs=2).fit(IMAGES, Y)
    fitted.save(tmp_path / "net.safetensors")
    network = models.load(tmp_path / "net.safetensors", "numpy")
    shown = network.predict(IMAGES[..., np.newaxis].astype(np.float32))
    np.testing.assert_allclose(shown, fitted.predict_proba(IMAGES), atol=1e-6)
    runtime = pytest.importorskip("onnxruntime", reason="reads the file")
    fitted.save(tmp_path / "net.onnx")
    session = runtime.InferenceSession(tmp_path / "net.onnx")
    given = {session.get_inputs()[0].name: IMAGES[:, np.newaxis].astype(np.float32)}
    np.testing.assert_allclose(session.run(None, given)[0], fitted.predict_proba(IMAGES), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: classifier().fit(X, np.eye(10, dtype=int)[Y]), "of one-hot rows that is y.argmax"),
        (lambda: classifier().fit(X, X[:, 3] / 7), "Unknown label type: continuous"),
        (lambda: classifier().fit(X, np.zeros(600)), "y holds the one class 0.0, expected two classes or more"),
        (lambda: classifier("resnet").fit(X, Y), "network is 'resnet', expected one of mlp-meannorm"),
        (lambda: classifier((3, -1)).fit(X, Y), r"network is \(3, -1\), expected sizes of hidden layers"),
        (lambda: classifier(optimizer="lion").fit(X, Y), "optimizer is 'lion', expected adam, adamw, rmsprop, sgd or"),
        (lambda: classifier(loss=models.Huber()).fit(X, Y), "expected a models.SoftmaxCrossEntropy"),
        (lambda: regressor(loss=models.SoftmaxCrossEntropy()).fit(X, Y), "expected a models.Loss of numbers"),
        (lambda: classifier().fit(X[:5], Y), "X has 5 samples and y has 600"),
        (lambda: classifier().fit(X, Y.astype(object)), r"y holds objects such as 0\. .*y\.astype\(int\) or y\.astype"),
        (
            lambda: classifier(class_weight=[1, 2]).fit(X, Y),
            r"class_weight is \[1, 2\], expected None, 'balanced'",
        ),
        (lambda: classifier(class_weight="most").fit(X, Y), "class_weight is 'most', expected None, 'balanced', or a"),
        (
            lambda: classifier(conv(), epochs=1).fit(IMAGES[..., None], Y).predict(IMAGES[0, ..., None]),
            r"X has shape \(8, 8, 1\), that of one sample; one sample is X\[np\.newaxis\]",
        ),
        (lambda: classifier().fit(X, None), "requires y to be passed"),
    ],
)
def test_a_mistake_is_answered_in_one_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_losses_of_regression() -> None:
    for loss in (models.Huber(0.5), models.MeanAbsoluteError(), None):
        assert regressor(loss=loss).fit(X, Y / 9).score(X, Y / 9) > 0.5


def test_bfloat16_is_asked_for_as_a_backend_is() -> None:
    found = {}
    for precision in (None, "bfloat16"):
        fitted = NetworkClassifier((16,), backend="numpy", precision=precision, epochs=2, random_state=0).fit(X, Y)
        found[precision] = fitted.predict_proba(X[:50])
        assert (fitted.model_.precision, fitted.model_.dtype.name) == {
            None: ("float64", "float64"),
            "bfloat16": ("bfloat16", "float32"),
        }[precision]
    assert 1e-4 < np.abs(found["bfloat16"] - found[None]).max() < 0.1
    with pytest.raises(ValueError, match="precision is 'bfloat16' and dtype is float64"):
        NetworkClassifier((16,), backend="numpy", precision="bfloat16", dtype="float64").fit(X, Y)
