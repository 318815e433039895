"""Networks as estimators of scikit-learn: they fit arrays in memory, and leave no run behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from autodiff import tree_map
from hcnn_core import log_softmax
from train.config import Config, make_config
from train.data import Images, Targets, balanced_weights, channel_statistics, require_varying, standardise
from train.data.dataset import MOST_AXES
from train.extras import require_installed
from train.networks.presets import BY_AXES, HIERARCHICAL, SPACE
from train.networks.registry import build
from train.runs.checkpoint import Checkpoint, State
from train.runs.session import require_suitable
from train.runs.training import Trainer

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ModuleNotFoundError:
    require_installed("sklearn", extra="sklearn")
    raise

__all__ = ["HCNNClassifier", "HCNNRegressor"]

BATCH = 100
"""Samples that are predicted at a time."""

TENTHS = 10
"""How often a row of mean weight is repeated, where weights are no integers."""

NAMED = "epochs", "width", "depth", "learning_rate", "batch_size"

OF_A_RUN = (
    *("dataset", "data_dir", "train_size", "validation_size", "validation_every", "test", "init_from", "teacher"),
    *("teacher_share", "temperature", "attention_transfer"),
)
"""Settings of what stands beside the training set."""

MOST_REPEATS = 1000
"""How many times as many rows weights may make, in the mean."""


class _Memory:
    """A run that is kept in memory: its latest state alone."""

    path, latest = "an estimator", None

    def save(self, checkpoint: Checkpoint, versions: Any, *, best: bool = False) -> None:
        """Keep a state."""
        self.latest = checkpoint.state

    def append_metrics(self, record: Any) -> None:
        """Keep no records."""

    append_events = append_metrics

    def last_good(self) -> str:
        """Say that nothing is saved."""
        return "nothing is saved"


class _Estimator(BaseEstimator):
    """What both kinds have in common: a kind says what targets are, and what they are called again."""

    _validation: ClassVar[dict[str, bool]]
    _targets: Callable[[Any, NDArray[np.float64]], tuple[NDArray[Any], int, tuple[str, ...]]]
    _in_terms_of_y: Callable[[NDArray[np.float64]], NDArray[Any]]

    def __init__(
        self,
        preset: str | None = None,
        *,
        epochs: int | None = None,
        width: int | None = None,
        depth: int | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        settings: dict[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.preset, self.settings, self.random_state = preset, settings, random_state
        self.epochs, self.width, self.depth = epochs, width, depth
        self.learning_rate, self.batch_size = learning_rate, batch_size

    def _config(self, x: NDArray[Any], outputs: int) -> Config:
        axes = x.ndim - 2
        preset = BY_AXES[axes] if self.preset is None else self.preset
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        given = {name: getattr(self, name) for name in NAMED if getattr(self, name) is not None}
        config = make_config(preset, {"seed": seed, **given, **(self.settings or {})})
        made_for = {**dict.fromkeys(HIERARCHICAL, 2), "signal": 1, "volume": 3}.get(preset, axes)
        if made_for != axes:
            raise ValueError(
                f"preset is {preset!r}, for {SPACE[made_for]}; X holds {SPACE[axes]}: take {BY_AXES[axes]!r}, or None"
            )
        kind = "numbers" if isinstance(self, RegressorMixin) else "classes"
        X: Any = SimpleNamespace(name="X", image_shape=x.shape[1:], class_names=range(outputs), kind=kind)
        config = config.for_images(x.shape[1:-1])
        require_suitable(config, X)
        plain = make_config(preset)
        if changed := [name for name in OF_A_RUN if getattr(config, name) != getattr(plain, name)]:
            raise ValueError(f"settings has {', '.join(changed)}, of no use to fit, which takes X and y as they are")
        return config

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train a network.

        Parameters
        ----------
        X : array, shape (N, T), (N, T, C), (N, H, W, C) or (N, D, H, W, C)
            Samples.
        y : array, shape (N,), of numbers also (N, n_targets)
            Their classes, or numbers.
        sample_weight : array, shape (N,), optional
            How often each counts: rows are repeated. If some are not whole, all are rounded to a tenth of their mean;
            with fewer than ten epochs, to their mean divided by the number of epochs.

        Returns
        -------
        estimator
            This one.
        """
        X, y = validate_data(self, X, y, allow_nd=True, ensure_min_samples=2, **self._validation)
        weight = self._weight(sample_weight, len(X))
        self._learn(self._samples(X), weight, *self._targets(y, weight))
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable classes, or numbers in the units of the targets.

        Parameters
        ----------
        X : array
            As `fit` takes it.

        Returns
        -------
        ndarray, shape (N,) or (N, n_targets)
            As y was.
        """
        return self._in_terms_of_y(self._predicted(X))

    def _learn(
        self, x: NDArray[Any], weight: NDArray[np.float64], y: NDArray[Any], outputs: int, names: tuple[str, ...]
    ) -> None:
        """Train on rows in an order of their own, so that a weight of 2 is two rows, wherever they stand."""
        config = self._config(x, outputs)
        if (weight != np.rint(weight)).any():
            repeats = min(TENTHS, config.epochs) if np.ptp(weight) else 1
            weight = np.rint(repeats * weight / weight.mean())
            config = replace(config, epochs=round(config.epochs / repeats))
        if weight.mean() > MOST_REPEATS:
            raise ValueError(f"sample_weight is {weight.mean():.3g} in the mean, and repeats rows; make it smaller")
        keys = np.concatenate([np.reshape(y, (len(y), -1)), np.reshape(x, (len(x), -1))], axis=1)
        order = np.lexsort(keys.T[::-1])
        order = np.repeat(order, weight.astype(int)[order])
        mean, std = channel_statistics(x[order])
        require_varying("X", mean, std)
        images = Images(x[order], y[order], mean, std, config.dtype, by=config.standardize)
        if config.class_weights == "balanced":
            images = replace(images, class_weights=balanced_weights(y[order], outputs).astype(config.dtype))
        run: Any = _Memory()
        network = build(config, x.shape[1:-1], outputs, x.shape[-1])
        Trainer(np, config, network, images, None, run, {}, names).fit()
        state: State = run.latest
        wide = replace(config, dtype="float64")  # so that what is predicted does not depend on what stands beside it
        self.config_, self.shape_ = wide, x.shape[1:]
        self.mean_, self.std_ = mean, std
        self.weights_, self.moments_ = tree_map(lambda a: np.asarray(a, np.float64), (state.evaluated, state.moments))
        self.outputs_, self.n_iter_ = outputs, config.epochs

    @staticmethod
    def _weight(sample_weight: Any, count: int) -> NDArray[np.float64]:
        """How often each row counts."""
        weight = np.ones(count) if sample_weight is None else np.asarray(sample_weight, np.float64)
        if weight.shape != (count,) or not (np.isfinite(weight).all() and (weight >= 0).all()):
            raise ValueError(f"sample_weight has shape {weight.shape}; give {count} finite numbers, none negative")
        if not weight.any():
            raise ValueError("sample_weight is zero everywhere; give some row a weight")
        return weight

    def _samples(self, X: Any) -> NDArray[Any]:
        """Samples with an axis of channels; X of two axes is signals of one channel."""
        x = X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)
        x = x[..., None] if x.ndim == 2 else x
        if x.ndim > MOST_AXES + 2:
            raise ValueError(f"X has shape {x.shape}; give signals (N, T), (N, T, C), images (N, H, W, C) or volumes")
        return np.ascontiguousarray(x)

    def _predicted(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        x = self._samples(validate_data(self, X, reset=False, allow_nd=True))
        if x.shape[1:] != self.shape_:
            raise ValueError(f"X has samples of shape {x.shape[1:]}; it was fitted on {self.shape_}")
        network = build(self.config_, self.shape_[:-1], self.outputs_, self.shape_[-1])
        found: list[Any] = [np.zeros((0, self.outputs_))]
        for begin in range(0, len(x), BATCH):
            batch = standardise(x[begin : begin + BATCH], self.mean_, self.std_, "float64", self.config_.standardize)
            found.append(network(self.weights_, batch, self.moments_)[0])
        return np.concatenate(found)


class HCNNClassifier(ClassifierMixin, _Estimator):
    """A hierarchical network, or one of another preset, as a classifier of scikit-learn.

    Parameters
    ----------
    preset : str, optional
        What the settings start from; by default ``"signal"`` for signals, ``"hcnn"`` for images, ``"volume"`` for
        volumes.
    epochs, width, depth, learning_rate, batch_size : int or float, optional
        Settings that are often searched; by default the preset's.
    settings : dict, optional
        Any others by name, as `make_config` takes them; none of data, a teacher or weights to begin with.
    random_state : int, RandomState or None, optional
        Of initial weights, order and augmentation.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
        The labels.
    n_features_in_ : int
        Length of the second axis of X.

    Notes
    -----
    X is (N, T), signals of one channel, (N, T, C), images (N, H, W, C) or volumes (N, D, H, W, C); each channel is
    standardised over the training rows. `sample_weight` repeats rows: integers as often as they say, others in
    proportion, to a tenth of the mean. The order of rows does not matter.
    """

    _validation: ClassVar[dict[str, bool]] = {}

    def _targets(self, y: Any, weight: NDArray[np.float64]) -> tuple[NDArray[np.int64], int, tuple[str, ...]]:
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {self.classes_[0]}; a classifier needs two")
        return labels.astype(np.int64), len(self.classes_), tuple(map(str, self.classes_))

    def _in_terms_of_y(self, found: NDArray[np.float64]) -> NDArray[Any]:
        classes: NDArray[Any] = self.classes_[found.argmax(axis=1)]
        return classes

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return what the network holds for the probability of each class.

        Parameters
        ----------
        X : array
            As `fit` takes it.

        Returns
        -------
        ndarray, shape (N, n_classes)
            In the order of `classes_`.
        """
        return np.exp(log_softmax(self._predicted(X)))


class HCNNRegressor(RegressorMixin, _Estimator):
    """A hierarchical network, or one of another preset, that predicts numbers, with squared error.

    Parameters
    ----------
    preset : str, optional
        What the settings start from; by default ``"signal"`` for signals, ``"hcnn"`` for images, ``"volume"`` for
        volumes.
    epochs, width, depth, learning_rate, batch_size : int or float, optional
        Settings that are often searched; by default the preset's.
    settings : dict, optional
        Any others by name, as `make_config` takes them; none of data, a teacher or weights to begin with.
    random_state : int, RandomState or None, optional
        Of initial weights, order and augmentation.

    Attributes
    ----------
    n_features_in_ : int
        Length of the second axis of X.

    Notes
    -----
    X and `sample_weight` are as `HCNNClassifier` takes them. Targets are standardised while it learns; what it predicts
    is in their units, and `score` is R^2. The preset ``"signal"`` resamples axes; where the targets depend on how fast
    things are, the setting ``{"resample": 0.0}`` leaves that out. A network hardly knows where in a signal something
    is: tables, whose columns have each their own meaning, are for other estimators.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.regressor_tags.poor_score = True  # where the place of a feature says what it means
        return tags

    _validation: ClassVar[dict[str, bool]] = {"multi_output": True, "y_numeric": True}

    def _targets(self, y: Any, weight: NDArray[np.float64]) -> tuple[NDArray[np.float64], int, tuple[str, ...]]:
        numbers = np.asarray(y, np.float64).reshape(len(y), -1)
        self.target_shape_, self.targets_ = np.shape(y)[1:], Targets.of(numbers, weight)
        if not np.isfinite(self.targets_.std).all():
            raise ValueError("y has numbers so large that their squares overflow; make its unit larger")
        return self.targets_.taught(numbers, "float64"), numbers.shape[1], ()

    def _in_terms_of_y(self, found: NDArray[np.float64]) -> NDArray[Any]:
        return np.reshape(self.targets_.in_units(found), (len(found), *self.target_shape_))
