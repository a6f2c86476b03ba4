"""scikit-learn estimators over the networks of `models`; importing this module is what loads scikit-learn.

>>> from sklearn.datasets import load_iris
>>> from twinkernels.estimators import NetworkClassifier
>>> X, y = load_iris(return_X_y=True)
>>> bool(NetworkClassifier((16,), backend="numpy", random_state=0).fit(X, y).score(X, y) > 0.9)
True
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
except ImportError:
    raise ImportError("twinkernels.estimators needs scikit-learn: pip install 'twinkernels[sklearn]'") from None
from sklearn.utils import check_array, check_random_state
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data

import data
from models.callbacks import Callback, EarlyStopping
from models.graph import Graph
from models.layers import Affine, Flatten, Layer, Linear, ReLU, Sigmoid, Softmax, Tanh
from models.losses import Loss, MeanSquaredError, SoftmaxCrossEntropy
from models.optimizers import SGD, Adam, AdamW, Optimizer, RMSProp
from models.schedules import OneCycle, Schedule
from models.sequential import Sequential
from models.trainer import Trainer
from models.zoo import IMAGE, NETWORKS

__all__ = ["NetworkClassifier", "NetworkRegressor"]

OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "adamw": AdamW, "rmsprop": RMSProp, "sgd": SGD}
ACTIVATIONS: dict[str, type[Layer] | None] = {"relu": ReLU, "tanh": Tanh, "logistic": Sigmoid, "identity": None}
"""scikit-learn's names of what stands between the layers of its own networks."""

STEPS, LEAST_EPOCHS = 1000, 10
"""How long a fit is unless told: epochs that make so many steps, and at least so many."""


class _Network(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What classifier and regressor share."""

    _targets: ClassVar[str]

    def __init__(
        self,
        network: Sequence[int] | Sequence[Layer] | str = (100,),
        *,
        backend: str | None = None,
        precision: str | None = None,
        optimizer: str | Optimizer = "adam",
        learning_rate: float = 2e-3,
        schedule: Schedule | None = None,
        loss: Loss | None = None,
        epochs: int | None = None,
        batch_size: int = 128,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        image_shape: Sequence[int] | None = None,
        scale: bool = True,
        augment: data.Augment | None = None,
        dtype: Any = None,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.network = network
        self.backend = backend
        self.precision = precision
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.loss = loss
        self.epochs = epochs
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.image_shape = image_shape
        self.scale = scale
        self.augment = augment
        self.dtype = dtype
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    # Data --------------------------------------------------------------------------------------------------

    def _samples(self, X: Any, reset: bool) -> np.ndarray:
        """X as an array (N, ...) of numbers, after scikit-learn's checks."""
        if isinstance(X, list | tuple) and _depth(X) > 2:
            X = np.asarray(X)
        if getattr(X, "ndim", 2) > 2:
            array: np.ndarray = check_array(X, allow_nd=True, dtype="numeric", input_name="X")
            if reset:
                self.n_features_in_ = int(np.prod(array.shape[1:]))
        else:
            array = validate_data(self, X, reset=reset, dtype="numeric")
        if array.dtype != np.uint8 and array.dtype.kind != "f":
            array = array.astype(np.float64)
        return array

    def _images(self, array: np.ndarray) -> np.ndarray:
        """The samples in the shape that the network takes, standardised as those of the fit were."""
        shape: tuple[int, ...] = self.model_.input_shape
        if array.shape == shape:
            raise ValueError(
                f"{type(self).__name__}: X has shape {shape}, that of one sample; one sample is X[np.newaxis]"
            )
        if array.ndim == 3 and len(shape) == 3:
            array = array[..., np.newaxis]
        if array.shape[1:] != shape:
            if np.prod(array.shape[1:]) != np.prod(shape):
                raise ValueError(
                    f"{type(self).__name__}: X has shape {array.shape}, expected (N, {', '.join(map(str, shape))})"
                )
            if array.ndim == 4 and len(shape) == 3:
                self.model_.check_images(array.astype(np.float32), "X")  # channels first: it says how they come last
            array = array.reshape(len(array), *shape)
        if array.dtype == np.uint8 and self.model_.normalisation is not None:
            return array
        mean, std = self._scaling
        scaled: np.ndarray = np.subtract(array, mean, dtype=self.model_.dtype)
        scaled /= self.model_.dtype.type(std)
        return scaled

    def _measure(self, array: np.ndarray, weights: np.ndarray | None) -> tuple[float, float]:
        """Mean and standard deviation over all values of the samples, by their weights."""
        if not self.scale:
            return 0.0, 1.0
        if weights is None and array.dtype == np.uint8:
            flat = array.reshape(-1)
            if flat.min() == flat.max():
                return float(flat[0]), 1.0
            measured: tuple[float, float] = data.statistics((array, np.zeros(len(array))))
            return measured
        rows = array.reshape(len(array), -1)
        share = np.full(len(rows), 1 / len(rows)) if weights is None else weights / weights.sum()
        mean = float(share @ _by_row(lambda part: part.mean(axis=1), rows))
        std = float(np.sqrt(share @ _by_row(lambda part: np.square(part - mean).mean(axis=1), rows)))
        return mean, std if std > 0 else 1.0

    def _shape(self, array: np.ndarray) -> tuple[int, ...]:
        """The shape of one sample as the network is given it."""
        if self.image_shape is not None:
            shape = tuple(self.image_shape)
            return (*shape, 1) if len(shape) == 2 else shape
        if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3, 4):
            name = type(self).__name__
            raise ValueError(f"{name}: X has shape {array.shape}; channels come last: X.transpose(0, 2, 3, 1)")
        if array.ndim > 2:
            return (*array.shape[1:], 1) if array.ndim == 3 else array.shape[1:]
        features = array.shape[1]
        if isinstance(self.network, str) and features == np.prod(IMAGE):
            return IMAGE
        first = self.network[0] if len(self.network) else None
        side = int(np.sqrt(features))
        if isinstance(first, Layer) and not isinstance(first, Linear | Flatten) and side * side == features:
            return side, side, 1
        return (features,)

    # Network -----------------------------------------------------------------------------------------------

    def _layers(self, shape: tuple[int, ...], outputs: int) -> list[Layer]:
        """The network's layers, of which the last gives so many outputs."""
        name = type(self).__name__
        if isinstance(self.network, str):
            if self.network not in NETWORKS:
                raise ValueError(f"{name}: network is {self.network!r}, expected one of {', '.join(NETWORKS)}")
            layers = NETWORKS[self.network]()
            bias = getattr(layers[-1], "bias", True)
            return [*layers[:-1], Linear(outputs, bias=bias)]
        found: list[Any] = [*self.network]
        if all(isinstance(layer, Layer) for layer in found) and found:
            last = found[-1]
            return found if isinstance(last, Linear) and last.outputs == outputs else [*found, Linear(outputs)]
        if any(isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1 for size in found):
            raise ValueError(
                f"{name}: network is {self.network!r}, expected sizes of hidden layers, a list of layers, or one of "
                f"{', '.join(NETWORKS)}"
            )
        hidden = [layer for size in found for layer in (Linear(int(size)), ReLU())]
        return [*([Flatten()] if len(shape) > 1 else []), *hidden, Linear(outputs)]

    def _optimizer(self) -> Optimizer:
        if isinstance(self.optimizer, Optimizer):
            return self.optimizer
        if self.optimizer not in OPTIMIZERS:
            name = type(self).__name__
            raise ValueError(
                f"{name}: optimizer is {self.optimizer!r}, expected {', '.join(OPTIMIZERS)} or a models.Optimizer"
            )
        return OPTIMIZERS[self.optimizer](self.learning_rate)

    def _schedule(self, partial: bool) -> Schedule:
        """The constant one where nobody knows how long the training will be."""
        if self.schedule is not None and not partial:
            return self.schedule
        return Schedule() if partial or self.early_stopping else OneCycle()

    def _begin(self, array: np.ndarray, outputs: int, weights: np.ndarray | None) -> None:
        """A new model, and the scaling of its input."""
        wide = array.dtype == np.float64 and self.precision != "bfloat16"
        kept = np.float64 if wide else np.float32
        dtype = np.dtype(kept if self.dtype is None else self.dtype)
        shape = self._shape(array)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        self._scaling = self._measure(array, weights)
        pixels = self._scaling if array.dtype == np.uint8 else None
        self.model_: Graph = Sequential(
            self._layers(shape, outputs), shape, self.backend, seed, dtype, pixels, self.precision
        )

    def _train(
        self, array: np.ndarray, targets: np.ndarray, outputs: int, weights: np.ndarray | None, more: bool, epochs: int
    ) -> Self:
        """Fit the model, or go on with it. epochs: 0 for as many as the estimator is told."""
        if weights is not None and not weights.all():
            array, targets, weights = array[weights > 0], targets[weights > 0], weights[weights > 0]
        trainer: Trainer | None = getattr(self, "_trainer", None) if more else None
        if not more or not hasattr(self, "model_"):
            self._begin(array, outputs, weights)
            trainer = None
        x = self._images(array)
        loss = self._loss(weights is not None)
        if trainer is None or trainer.loss != loss:
            size = min(self.batch_size, len(x)) if not more else self.batch_size
            trainer = Trainer(self.model_, self._optimizer(), loss, size)
        validation = None
        if self.early_stopping and not epochs:
            x, targets, weights, validation = self._hold_out(x, targets, weights)
        callbacks: list[Callback] = []
        if validation is not None:
            callbacks = [EarlyStopping(self._monitor(), self.n_iter_no_change)]
        steps = -(-len(x) // trainer.batch_size)
        history = trainer.fit(
            x,
            targets,
            epochs=epochs or self.epochs or max(LEAST_EPOCHS, -(-STEPS // steps)),
            schedule=self._schedule(bool(epochs)),
            callbacks=callbacks,
            validation=validation,
            augment=self.augment,
            verbose=self.verbose,
            sample_weight=weights,
        )
        self.history_ = history
        self.n_iter_ = len(history.epochs)
        self.loss_ = history.loss[-1]
        self._trainer = trainer if more or self.warm_start else None
        return self

    def _hold_out(
        self, x: np.ndarray, targets: np.ndarray, weights: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, tuple[np.ndarray, np.ndarray]]:
        """What is trained on, and what is set aside, drawn by the model's seed."""
        count = round(self.validation_fraction * len(x))
        if not 1 <= count < len(x):
            name = type(self).__name__
            raise ValueError(
                f"{name}: validation_fraction is {self.validation_fraction!r}, expected a share of the {len(x)} "
                "samples that leaves some for training and some for validation"
            )
        order = np.random.default_rng(self.model_.seed).permutation(len(x))
        held, kept = np.sort(order[:count]), np.sort(order[count:])
        return x[kept], targets[kept], None if weights is None else weights[kept], (x[held], targets[held])

    def _loss(self, weighted: bool) -> Loss:
        raise NotImplementedError

    def _monitor(self) -> str:
        raise NotImplementedError

    def _output(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self.model_.predict(self._images(self._samples(X, reset=False)))

    def _weights(self, sample_weight: Any, array: np.ndarray) -> np.ndarray | None:
        if sample_weight is None:
            return None
        rows = array.reshape(len(array), -1)[:, :1].astype(np.float64)
        weights: np.ndarray = _check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
        if not weights.any():  # which scikit-learn refuses from 1.9 on
            raise ValueError("sample weights are all zero, expected at least one that is not")
        return weights

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    # In and out --------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a file, which takes X as the estimator does; a classifier's gives probabilities.

        By the name's end it is an ONNX file, or one that `models.load` and the command read: see `Graph.save`.
        """
        check_is_fitted(self)
        self._whole().save(path)

    def _whole(self) -> Graph:
        """The network with its scaling in front, and what makes the estimator's answer behind."""
        model, (mean, std) = self.model_, self._scaling
        layers = [node.layer for node in model.nodes]
        whole = Sequential([Affine(), *layers, *self._behind()], model.input_shape, model.backend, 0, model.dtype)
        arrays = model.parameters() | model.statistics()
        moved = {f"{int(node) + 1}.{name}": a for key, a in arrays.items() for node, _, name in [key.partition(".")]}
        ones = np.ones(model.input_shape[-1])
        whole.set_parameters(moved | {"0.gamma": ones / std, "0.beta": -mean / std * ones})
        return whole

    def _behind(self) -> list[Layer]:
        return []

    def _line(self) -> tuple[list[np.ndarray], list[np.ndarray], str]:
        """Weights, biases and activation of a network of linear layers, the scaling in the first of them."""
        nodes = [node for node in self.model_.nodes if not isinstance(node.layer, Flatten)]
        plain = all(isinstance(node.layer, Linear) for node in nodes)
        linear, between = (nodes, []) if plain else (nodes[::2], nodes[1::2])
        kinds: set[type[Layer] | None] = {type(node.layer) for node in between} or {None}
        names = {kind: name for name, kind in ACTIVATIONS.items()}
        if len(kinds) > 1 or not kinds <= set(names) or not all(isinstance(node.layer, Linear) for node in linear):
            raise ValueError(
                f"to_sklearn: the network is {[type(node.layer).__name__ for node in nodes]}, expected linear layers "
                f"with one of {', '.join(k.__name__ for k in ACTIVATIONS.values() if k)} between them"
            )
        parameters, (mean, std) = self.model_.parameters(), self._scaling
        w = [parameters[f"{node.name}.w"].astype(np.float64) for node in linear]
        b = [
            np.asarray(parameters.get(f"{node.name}.b", np.zeros(own.shape[1])), np.float64)
            for node, own in zip(linear, w, strict=True)
        ]
        b[0] = b[0] - (mean / std) * w[0].sum(axis=0)
        w[0] = w[0] / std
        return w, b, names[kinds.pop()]

    @classmethod
    def _from_line(cls, fitted: Any, kind: type, backend: str | None) -> tuple[Self, Any]:
        """An estimator with the layers of a fitted network of scikit-learn's, or of a Pipeline that ends in one."""
        steps: list[Any] = [step for _, step in fitted.steps] if hasattr(fitted, "steps") else [fitted]
        scalers, last = steps[:-1], steps[-1]
        if not issubclass(type(last), kind):
            raise TypeError(f"from_sklearn: fitted is {fitted!r}, expected a {kind.__name__} or a Pipeline with one")
        check_is_fitted(last)
        w, b = [c.copy() for c in last.coefs_], [i.copy() for i in last.intercepts_]
        gain, shift = np.ones(len(w[0])), np.zeros(len(w[0]))
        for scaler in scalers:
            own = _affine(scaler, len(gain))
            gain, shift = gain * own[0], shift * own[0] + own[1]
        b[0] = (b[0] + shift @ w[0]).astype(b[0].dtype)
        w[0] = (gain[:, np.newaxis] * w[0]).astype(w[0].dtype)
        if last.out_activation_ == "logistic":  # of one output z: softmax over (0, z)
            if len(last.classes_) != 2 or w[-1].shape[1] != 1:
                raise ValueError("from_sklearn: the classifier gives several labels a sample, expected one")
            w[-1] = np.concatenate([np.zeros_like(w[-1]), w[-1]], axis=1)
            b[-1] = np.concatenate([np.zeros_like(b[-1]), b[-1]])
        activation = ACTIVATIONS[last.activation]
        layers: list[Layer] = []
        for own_w in w:
            layers += [*([activation()] if layers and activation else []), Linear(own_w.shape[1])]
        seed = 0 if last.random_state is None or not isinstance(last.random_state, int) else last.random_state
        new = cls(layers, backend=backend, random_state=seed, scale=False, dtype=w[0].dtype.name)
        new.model_ = Sequential(layers, (len(w[0]),), backend, seed, w[0].dtype)
        linear = [node.name for node in new.model_.nodes if isinstance(node.layer, Linear)]
        arrays = [{f"{n}.w": x, f"{n}.b": y} for n, x, y in zip(linear, w, b, strict=True)]
        new.model_.set_parameters({name: array for own in arrays for name, array in own.items()})
        new._scaling, new._trainer = (0.0, 1.0), None
        new.n_features_in_, new.n_iter_, new.loss_ = len(w[0]), last.n_iter_, float(last.loss_)
        first = steps[0]
        if hasattr(first, "feature_names_in_"):
            new.feature_names_in_ = first.feature_names_in_
        return new, last

    def _as_sklearn(self, kind: Callable[..., Any], w: list[np.ndarray], b: list[np.ndarray], activation: str) -> Any:
        fitted = kind(hidden_layer_sizes=tuple(own.shape[1] for own in w[:-1]), activation=activation)
        fitted.coefs_, fitted.intercepts_ = w, b
        fitted.n_layers_, fitted.n_outputs_ = len(w) + 1, w[-1].shape[1]
        fitted.n_features_in_, fitted.n_iter_, fitted.loss_ = self.n_features_in_, self.n_iter_, self.loss_
        if hasattr(self, "feature_names_in_"):
            fitted.feature_names_in_ = self.feature_names_in_
        return fitted


def _by_row(measure: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    """A number for each row, of so many rows in float64 at a time as a cache holds: a copy of all takes a second."""
    together = max(1, (1 << 17) // max(1, rows.shape[1]))
    starts = range(0, len(rows), together)
    return np.concatenate([measure(rows[start : start + together].astype(np.float64)) for start in starts])


def _depth(value: Any) -> int:
    """Of lists in lists, by their first elements."""
    return 1 + _depth(value[0]) if isinstance(value, list | tuple) and len(value) else np.ndim(value)


def _affine(scaler: Any, features: int) -> tuple[np.ndarray, np.ndarray]:
    """A fitted scaler as (gain, shift): x becomes gain x + shift, feature by feature."""
    one, zero = np.ones(features), np.zeros(features)
    match type(scaler).__name__:
        case "StandardScaler":
            gain = one if scaler.scale_ is None else 1 / scaler.scale_
            return gain, zero if scaler.mean_ is None else -scaler.mean_ * gain
        case "MinMaxScaler" if not scaler.clip:
            return scaler.scale_, scaler.min_
        case "MaxAbsScaler":
            return 1 / scaler.scale_, zero
        case "RobustScaler":
            gain = one if scaler.scale_ is None else 1 / scaler.scale_
            return gain, zero if scaler.center_ is None else -scaler.center_ * gain
    if scaler == "passthrough":
        return one, zero
    raise ValueError(
        f"from_sklearn: the Pipeline has {scaler!r}, expected StandardScaler, MinMaxScaler, MaxAbsScaler or "
        "RobustScaler"
    )


class NetworkClassifier(ClassifierMixin, _Network):  # type: ignore[misc]
    """A network as a scikit-learn classifier.

    network: sizes of hidden layers, such as (512,), with ReLU between; or a list of `models` layers, behind which a
    Linear layer with an output a class is put unless it ends in one; or a name of the zoo, such as "cnn-bn".
    backend: "numba" or "numpy". precision: "bfloat16" rounds what linear layers and convolutions multiply.
    optimizer: "adam", "adamw", "rmsprop" or "sgd" at `learning_rate`, or a models.Optimizer. schedule: of the learning
    rate over the fit, a models.Schedule; OneCycle() unless told, or none with early stopping.
    loss: a models.Loss of labels; SoftmaxCrossEntropy() unless told. epochs: 10, or as many as make 1,000 steps, unless
    told. batch_size: samples a step, at most all there are.
    early_stopping: set `validation_fraction` of the samples aside, stop when accuracy on them has not risen for
    `n_iter_no_change` epochs, and keep the best weights. image_shape: of a row of X, such as (28, 28); found where X
    has images or squares. scale: standardise X by the one mean and standard deviation of all its values. augment: a
    data.Augment for images. dtype: "float32" or "float64"; that of X unless told, float32 for integers of 8 bits and
    with precision="bfloat16".
    class_weight: None, "balanced" or weights by class. warm_start: whether `fit` goes on where the last one ended.
    random_state: of the starting weights, the order of samples and the validation; an int gives the same bits again.

    X is (N, features), or images (N, H, W) and (N, H, W, C), uint8 ones with advantage: 0 to 255 need no float64.
    After `fit`: `classes_`, `model_` (the network, which takes X standardised), `history_`, `loss_`, `n_iter_`,
    `n_features_in_` and, of a DataFrame, `feature_names_in_`.
    """

    def __init__(
        self,
        network: Sequence[int] | Sequence[Layer] | str = (100,),
        *,
        backend: str | None = None,
        precision: str | None = None,
        optimizer: str | Optimizer = "adam",
        learning_rate: float = 2e-3,
        schedule: Schedule | None = None,
        loss: Loss | None = None,
        epochs: int | None = None,
        batch_size: int = 128,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        image_shape: Sequence[int] | None = None,
        scale: bool = True,
        augment: data.Augment | None = None,
        dtype: Any = None,
        class_weight: Any = None,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            network,
            backend=backend,
            precision=precision,
            optimizer=optimizer,
            learning_rate=learning_rate,
            schedule=schedule,
            loss=loss,
            epochs=epochs,
            batch_size=batch_size,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            image_shape=image_shape,
            scale=scale,
            augment=augment,
            dtype=dtype,
            warm_start=warm_start,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on samples X and labels y (N,) of any kind; sample_weight (N,) says how much each counts."""
        more = self.warm_start and hasattr(self, "model_")
        array, labels, weights = self._checked(X, y, sample_weight, reset=not more)
        counted = labels if weights is None else labels[weights > 0]
        classes = np.unique(counted)
        if more and not np.isin(classes, self.classes_).all():
            raise ValueError(f"warm_start: y holds classes {classes!r}, expected those of before, {self.classes_!r}")
        if not more:
            self.classes_: np.ndarray
            if len(classes) < 2:
                (only,), name = classes.tolist(), type(self).__name__
                raise ValueError(f"{name}: y holds the one class {only!r}, expected two classes or more")
            self.classes_ = classes
        return self._learn(array, labels, weights, more, 0)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """One epoch over X and y, at the optimizer's own learning rate. classes: all there will be, at the first call.

        Without `classes` those of the first y are all there are.
        """
        first = not hasattr(self, "model_")
        array, labels, weights = self._checked(X, y, sample_weight, reset=first)
        if first:
            self.classes_ = np.unique(labels if classes is None else classes)
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"partial_fit: classes is {classes!r}, expected those of before, {self.classes_!r}")
        if not np.isin(labels, self.classes_).all():
            raise ValueError(f"partial_fit: y holds classes {np.unique(labels)!r}, expected some of {self.classes_!r}")
        return self._learn(array, labels, weights, True, 1)

    def _checked(
        self, X: Any, y: Any, sample_weight: Any, reset: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        array = self._samples(X, reset)
        if type_of_target(y) == "multilabel-indicator":
            raise ValueError(
                f"{type(self).__name__}: y has shape {np.asarray(y).shape}, expected (N,), a label a sample; of "
                "one-hot rows that is y.argmax(axis=1)"
            )
        labels = column_or_1d(y, warn=True)
        if labels.dtype == object and type_of_target(labels) == "unknown":
            raise ValueError(
                f"{type(self).__name__}: y holds objects such as {f'{labels[0]!r:.40}'}. Unknown label type: unknown; "
                "expected numbers or strings, y.astype(int) or y.astype(str)"
            )
        check_classification_targets(labels)
        if len(labels) != len(array):
            raise ValueError(f"X has {len(array)} samples and y has {len(labels)}, expected as many")
        return array, labels, self._weights(sample_weight, array)

    def _learn(
        self, array: np.ndarray, labels: np.ndarray, weights: np.ndarray | None, more: bool, epochs: int
    ) -> Self:
        if self.class_weight is not None:
            if self.class_weight != "balanced" and not isinstance(self.class_weight, Mapping):
                raise ValueError(
                    f"{type(self).__name__}: class_weight is {self.class_weight!r}, expected None, 'balanced', or a "
                    "dict of weights by class"
                )
            counted = np.ones(len(labels), bool) if weights is None else weights > 0
            own = np.zeros(len(labels))
            own[counted] = compute_sample_weight(self.class_weight, labels[counted])
            weights = own if weights is None else weights * own
        numbers = np.searchsorted(self.classes_, labels)
        numbers[numbers == len(self.classes_)] = 0  # of samples that weigh nothing
        return self._train(array, numbers.astype(np.int64), len(self.classes_), weights, more, epochs)

    def _loss(self, weighted: bool) -> Loss:
        if self.loss is None:
            return SoftmaxCrossEntropy(weighted=weighted)
        if not isinstance(self.loss, SoftmaxCrossEntropy):
            raise ValueError(f"{type(self).__name__}: loss is {self.loss!r}, expected a models.SoftmaxCrossEntropy")
        return _weighing(self.loss) if weighted else self.loss

    def _monitor(self) -> str:
        return "validation_accuracy"

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, (N, classes), in the order of `classes_`."""
        output = self._output(X)
        return self.model_.kernels.softmax(output)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each sample, (N,)."""
        output = self._output(X)
        answers: np.ndarray = self.classes_[output.argmax(axis=1)]
        return answers

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of `predict_proba`."""
        output = self._output(X)
        return self.model_.kernels.log_softmax(output)

    def _behind(self) -> list[Layer]:
        return [Softmax()]

    @classmethod
    def from_sklearn(cls, fitted: Any, backend: str | None = None) -> Self:
        """The network of a fitted MLPClassifier, with its weights; or of a Pipeline of scalers that ends in one.

        What StandardScaler, MinMaxScaler, MaxAbsScaler and RobustScaler do becomes part of the first layer: the new
        estimator takes X as the Pipeline does. Raises TypeError or ValueError for anything else.
        """
        from sklearn.neural_network import MLPClassifier

        new, last = cls._from_line(fitted, MLPClassifier, backend)
        new.classes_ = last.classes_
        return new

    def to_sklearn(self) -> Any:
        """A fitted MLPClassifier with this network's weights, scaling included; ValueError for layers it has not."""
        from sklearn.neural_network import MLPClassifier
        from sklearn.preprocessing import LabelBinarizer

        check_is_fitted(self)
        w, b, activation = self._line()
        if len(self.classes_) == 2:
            w[-1], b[-1] = w[-1][:, 1:] - w[-1][:, :1], b[-1][1:] - b[-1][:1]
        fitted = self._as_sklearn(MLPClassifier, w, b, activation)
        fitted.out_activation_ = "logistic" if len(self.classes_) == 2 else "softmax"
        fitted.classes_ = self.classes_
        fitted._label_binarizer = LabelBinarizer().fit(self.classes_)
        return fitted


def _weighing(loss: Any) -> Any:
    from dataclasses import replace

    return replace(loss, weighted=True)


class NetworkRegressor(RegressorMixin, _Network):  # type: ignore[misc]
    """A network as a scikit-learn regressor, of one target (N,) or of several (N, K).

    Arguments are those of `NetworkClassifier`, class_weight aside; loss is one of numbers, such as models.Huber(), and
    MeanSquaredError() unless told. Early stopping goes by the loss. Targets are best near a deviation of 1.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on samples X and targets y, (N,) or (N, K); sample_weight (N,) says how much each counts."""
        return self._learn(X, y, sample_weight, self.warm_start and hasattr(self, "model_"), 0)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """One epoch over X and y, at the optimizer's own learning rate."""
        return self._learn(X, y, sample_weight, True, 1)

    def _learn(self, X: Any, y: Any, sample_weight: Any, more: bool, epochs: int) -> Self:
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        array = self._samples(X, not more or not hasattr(self, "model_"))
        targets = check_array(y, ensure_2d=False, dtype="numeric", input_name="y", estimator=self)
        if targets.ndim > 2 or len(targets) != len(array):
            raise ValueError(f"X has {len(array)} samples and y has shape {targets.shape}, expected (N,) or (N, K)")
        self._single = targets.ndim == 1
        targets = targets.reshape(len(targets), -1).astype(np.float64)
        return self._train(array, targets, targets.shape[1], self._weights(sample_weight, array), more, epochs)

    def _loss(self, weighted: bool) -> Loss:
        loss = MeanSquaredError() if self.loss is None else self.loss
        if not isinstance(loss, Loss) or isinstance(loss, SoftmaxCrossEntropy):
            raise ValueError(f"{type(self).__name__}: loss is {loss!r}, expected a models.Loss of numbers")
        return _weighing(loss) if weighted else loss

    def _monitor(self) -> str:
        return "validation_loss"

    def predict(self, X: Any) -> np.ndarray:
        """The network's output for each sample, (N,) or (N, K) as y was."""
        output = self._output(X)
        return output[:, 0].copy() if self._single else output

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @classmethod
    def from_sklearn(cls, fitted: Any, backend: str | None = None) -> Self:
        """As `NetworkClassifier.from_sklearn`, of a fitted MLPRegressor."""
        from sklearn.neural_network import MLPRegressor

        new, last = cls._from_line(fitted, MLPRegressor, backend)
        new._single = last.n_outputs_ == 1
        return new

    def to_sklearn(self) -> Any:
        """A fitted MLPRegressor with this network's weights, scaling included; ValueError for layers it has not."""
        from sklearn.neural_network import MLPRegressor

        check_is_fitted(self)
        w, b, activation = self._line()
        fitted = self._as_sklearn(MLPRegressor, w, b, activation)
        fitted.out_activation_ = "identity"
        return fitted
