"""Networks as estimators of scikit-learn: they fit arrays in memory, and leave no run behind."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from hcnn_core.backend import refuse_notes
from train.classifier import Classifier
from train.config import IN_STEPS, Config, make_config, meant, resolved, with_steps
from train.data import DatasetInfo, split_validation
from train.data.dataset import MOST_AXES, MOST_COLOURS
from train.data.labels import is_one_hot
from train.data.progress import no_bars
from train.extras import require_installed
from train.networks.presets import BY_AXES
from train.runs.checkpoint import Checkpoint
from train.runs.fit import Memory, namespace, prepared, require_suitable, trainer_on
from train.runs.shipped import bare
from train.runs.training import duration, restore, summary
from train.runs.transfer import begin_from

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_random_state, compute_sample_weight
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
except ModuleNotFoundError:
    require_installed("sklearn", extra="sklearn")
    raise

NAMED = "epochs", "width", "depth", "learning_rate", "batch_size"

REFUSED_SETTINGS = (
    *("preset", "seed", "dataset", "data_dir", "size", "train_size", "validation_size", "validation_every", "test"),
    *("init_from", "task", "teacher", "teacher_share", "temperature", "attention_transfer"),
)
"""Settings that `fit` takes from other parameters, or does not use."""

MOST_REPEATS = 1000
"""Most rows that whole-number weights may make of a row, in the mean."""


def _answers(cls: type[Any]) -> type[Any]:
    """Let an estimator's errors name the parameter that another name could mean."""
    init: Any = cls.__init__
    known = inspect.signature(init).parameters

    @functools.wraps(init)
    def named(self: Any, *values: Any, **params: Any) -> None:
        for name in params.keys() - known.keys():
            raise TypeError(f"{name!r} is no parameter{meant(name, known)}; other settings go into settings={{...}}")
        init(self, *values, **params)

    cls.__init__ = named
    return cls


class _Enough(Exception):
    """Ends a fit whose score on held-out rows grows no more."""


@dataclass(eq=False, repr=False)
class _Estimator(BaseEstimator):
    """Common to both kinds of estimators: a kind defines its targets, and turns predictions back into them."""

    _validation: ClassVar[dict[str, bool]]
    _task: ClassVar[str] = ""  # what is learned, where targets do not say it

    preset: str | None = None
    _: KW_ONLY
    epochs: int | None = None
    width: int | None = None
    depth: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    settings: dict[str, Any] | None = None
    space_axes: int | Sequence[int] | None = None
    early_stopping: int = 0
    validation_fraction: float = 0.1
    warm_start: bool = False
    verbose: bool = False
    random_state: Any = None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return parameters by name; deep ones with those of `settings`, as settings__NAME."""
        names: dict[str, Any] = super().get_params(deep=False)
        nested = self.settings if deep and isinstance(self.settings, dict) else {}
        return names | {f"settings__{name}": value for name, value in nested.items()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters; a settings__NAME is one of `settings`, whose names are checked when it is fitted."""
        nested = {name.removeprefix("settings__"): params.pop(name) for name in [*params] if name[:10] == "settings__"}
        if unknown := [*params.keys() - (known := BaseEstimator.get_params(self, deep=False)).keys()]:
            raise ValueError(f"{unknown[0]!r} is no parameter{meant(unknown[0], known)}; others are settings__NAME")
        super().set_params(**params)
        if nested:
            self.settings = {**(self.settings or {}), **nested}
        return self

    def _config(self, x: NDArray[Any], names: Sequence[str], kind: str) -> Config:
        if not isinstance(self.settings, dict | None):
            raise ValueError(f"settings is {self.settings!r}; give a dict of settings by name, as {{'factors': 8}}")
        settings = dict(self.settings or {})
        preset = BY_AXES[x.ndim - 2] if self.preset is None else self.preset
        if refused := [name for name in REFUSED_SETTINGS if name in settings]:
            raise ValueError(f"settings has {', '.join(refused)}, of no use to fit: leave it out")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        named = {name: getattr(self, name) for name in NAMED if getattr(self, name) is not None}
        config = make_config(preset, {"seed": seed, "validation_size": 0, "flip": False, **named, **settings})
        config = resolved(config, x.shape[1:-1], kind, "y")
        require_suitable(config, DatasetInfo(x.shape[1:], len(names), x.nbytes, kind, str(x.dtype)))
        return config

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train a network.

        Parameters
        ----------
        X : array, shape (N, T), (N, T, C), (N, H, W, C) or (N, D, H, W, C)
            Samples; `space_axes` says where other axes than these are those of space.
        y : array, shape (N,) or (N, n_targets)
            Their classes, several yes/no labels as 0 and 1, or numbers.
        sample_weight : array, shape (N,), optional
            Weights of samples: whole numbers repeat rows, others weigh the loss, 1 in the mean.

        Returns
        -------
        estimator
            This one.
        """
        if isinstance(X, str):
            raise TypeError(f"X is the name {X!r}; fit takes arrays X and y; hcnn.fit(PRESET, DATA) takes names")
        self._require_parameters()
        _refuse_masks(X, y, sample_weight)
        before = dict(vars(self))
        try:
            X, y = validate_data(self, X, y, allow_nd=True, ensure_min_samples=2, **self._validation)
            weight = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, np.float64)
            if weight.shape != (len(X),) or not (np.isfinite(weight).all() and (weight >= 0).all()):
                raise ValueError(f"sample_weight has shape {weight.shape}; give {len(X)} finite numbers, none negative")
            if not weight.any():
                raise ValueError("sample_weight is zero everywhere; give some row a weight")
            labels, names, weight = self._labels(y, weight)
            self.space_axes_ = self._space(X)
            self._learn(self._samples(X), labels, names, weight)
        except BaseException:  # the classes of what was refused are not those of the network that there is
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        return self

    def _require_parameters(self) -> None:
        """Raise ValueError where a parameter that no setting checks is of another type or out of range."""
        early, part = self.early_stopping, self.validation_fraction
        if isinstance(early, bool) or not isinstance(early, Integral) or early < 0:
            raise ValueError(f"early_stopping is {early!r}; give a number of epochs, 0 or more; 0: all are trained")
        if isinstance(part, bool) or not isinstance(part, Real) or not 0 < part < 1:
            raise ValueError(f"validation_fraction is {part!r}; give a part of the rows, between 0 and 1, such as 0.1")
        for name, kinds in (("warm_start", bool | np.bool_), ("verbose", bool | np.bool_ | Integral)):
            if not isinstance(value := getattr(self, name), kinds):
                raise ValueError(f"{name} is {value!r}; give True or False")
        try:
            check_random_state(self.random_state)
        except ValueError as error:
            raise ValueError(f"random_state is {self.random_state!r}; give 0 to {2**32 - 1}, or None") from error

    def _learn(self, x: NDArray[Any], y: NDArray[Any], names: tuple[str, ...], weight: NDArray[np.float64]) -> None:
        """Train on rows in an order of their own, so that a weight of 2 is two rows, wherever they stand."""
        task = self._task or ("classes" if y.ndim == 1 else "labels")
        config = self._config(x, names, task)
        rows = np.flatnonzero(weight)
        rows = rows[_order(x[rows], y[rows], weight[rows])]
        x, y, counts = x[rows], y[rows], weight[rows]
        X: Any = SimpleNamespace(name="X", task=task, train_images=x, train_labels=y, class_names=names, samples=None)
        wanted = math.ceil(self.validation_fraction * len(rows)) if self.early_stopping else 0
        copies = np.unique(x.reshape(len(x), -1), axis=0, return_inverse=True)[1] if wanted else None
        index, held_out = split_validation(X, wanted, config.seed, copies)
        whole = (weight == np.rint(weight)).all()
        if whole and weight.mean() > MOST_REPEATS:
            raise ValueError(f"sample_weight is {weight.mean():.3g} in the mean, and repeats rows; make it smaller")
        index = np.repeat(index, counts[index].astype(int)) if whole else index
        if all(getattr(self, name) is None and name not in (self.settings or {}) for name in IN_STEPS):
            config = with_steps(config, len(index))
        data, keep = prepared(X, index, held_out, None if whole else counts[index]), Memory()
        if data.targets.std is not None and not np.isfinite(data.targets.std).all():
            raise ValueError("y has numbers so large that their squares overflow; make its unit larger")
        trainer = trainer_on(namespace(config.backend, config.precision), config, data, keep, {})
        trainer.by_class |= task == "classes" and getattr(self, "class_weight", None) == "balanced"
        last: Checkpoint | None = getattr(self, "checkpoint_", None) if self.warm_start else None
        if last is not None and (anew := begin_from(trainer, Path("the last fit"), last)):
            other = sorted({*names} ^ {*last.class_names})
            what = f"classes or targets, such as {other[0]}" if other else "targets or another head"
            raise ValueError(
                f"warm_start goes on from the last fit, which had other {what}: {', '.join(anew)} would begin anew; "
                "keep them, or set warm_start=False"
            )

        highest = [(-math.inf, 0)]  # scores, each higher than those before, and their epochs

        def completed(record: dict[str, Any]) -> None:
            if self.verbose:
                print(summary(record, config.epochs, trainer.seconds_left()))
            if trainer.state.best > highest[-1][0]:
                highest.append((trainer.state.best, record["epoch"]))
            if self.early_stopping and record["epoch"] - highest[-1][1] >= self.early_stopping:
                raise _Enough

        def timed(seconds: float) -> None:
            if self.verbose:
                print(f"{config.epochs} epochs of {trainer.steps_per_epoch} steps, about {duration(seconds)} left")

        with no_bars(), contextlib.suppress(_Enough):
            trainer.fit(completed=completed, timed=timed)
        checkpoint = keep.best if self.early_stopping else keep.last
        assert checkpoint is not None
        # in double precision, so that what is predicted does not depend on what stands beside it
        alone = bare(checkpoint, {}, "float64")
        self.config_ = replace(alone.config, precision="float32")
        self.checkpoint_: Checkpoint = replace(alone, config=self.config_)
        self.shape_, self.n_iter_ = x.shape[1:], trainer.state.epoch
        opened = restore(Path("the last fit"), self.checkpoint_, self.config_, np)
        self._classifier = Classifier(self.checkpoint_, *opened)

    def _space(self, x: NDArray[Any]) -> tuple[int, ...]:
        """Return the axes of space of X; a UserWarning where its shape leaves a doubt."""
        last, first = tuple(range(1, max(x.ndim - 1, 2))), tuple(range(2, x.ndim))
        if self.space_axes is not None:
            axes = tuple(np.ravel(self.space_axes).tolist())
            if len(set(axes)) < max(x.ndim - 2, 1) or not set(axes) <= {*last, *first}:
                raise ValueError(
                    f"space_axes is {axes}; X has shape {x.shape}: give all axes from 1 on, or all but one"
                )
            return axes
        if x.ndim > MOST_AXES + 2:
            raise ValueError(f"X has shape {x.shape}; give signals (N, T), (N, T, C), images (N, H, W, C) or volumes")
        axes, other = (first, last) if x.ndim > 2 and x.shape[1] == 1 < x.shape[-1] else (last, first)
        if x.ndim == 3 and min(x.shape[1:]) > MOST_COLOURS:
            text = f"X has shape {x.shape}, and is taken for signals of {x.shape[1]} samples and {x.shape[2]} channels"
            warnings.warn(f"{text}; give space_axes=(1,), or (1, 2) for images of one channel", stacklevel=3)
        elif x.ndim > 2 and (x.shape[1] == 1 or x.shape[1] < min(x.shape[2:])):
            text = f"X has shape {x.shape}, and axes {axes} are taken for those of space; or give space_axes={other}"
            warnings.warn(text, stacklevel=3)
        return axes

    def _samples(self, X: Any) -> NDArray[Any]:
        """Return samples with the axis of channels last."""
        x = X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)
        channels = {*range(1, x.ndim)} - {*self.space_axes_}
        return np.ascontiguousarray(np.moveaxis(x, channels.pop(), -1) if channels else x[..., None])

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable classes, or numbers in the units of y, in its shape."""
        return self._in_terms_of_y(self._outputs(X)[1])

    def _outputs(self, X: Any) -> tuple[Classifier, NDArray[np.float64]]:
        check_is_fitted(self)
        _refuse_masks(X)
        X = validate_data(self, X, reset=False, allow_nd=True)
        x = self._samples(X)
        if x.shape[1:] != self.shape_:
            raise ValueError(f"X has samples of shape {X.shape[1:]}; it was fitted on {self.shape_}, channels last")
        return self._classifier, np.asarray(self._classifier.logits(x))


def _refuse_masks(*arrays: Any) -> None:
    """Raise TypeError for an array with a mask, which scikit-learn drops."""
    for array in arrays:
        if isinstance(array, np.ma.MaskedArray):
            refuse_notes(array)


def _order(x: NDArray[Any], y: NDArray[Any], weight: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the order of rows by their values, then targets and weights: a rounding error moves hardly any."""
    values, targets = (a.reshape(len(weight), -1).T for a in (x, y))
    return np.lexsort((weight, *targets[::-1], *values[::-1]))


@_answers
@dataclass(eq=False, repr=False)
class HCNNClassifier(ClassifierMixin, _Estimator):
    """A hierarchical network, or one of another preset, as a classifier of scikit-learn.

    Parameters
    ----------
    preset : str, optional
        The settings to start from; by default ``"signal"`` for signals, ``"hcnn-fast"`` for images, ``"volume"`` for
        volumes.
    epochs, width, depth, learning_rate, batch_size : int or float, optional
        Settings that are often searched; by default the preset's, and where neither `epochs` nor `batch_size` is
        given at least 10 steps an epoch and 1,000 in all.
    settings : dict, optional
        Any others by name, as `make_config` takes them, ``backend`` among them; none of data, a teacher or weights to
        begin with. A search names one ``settings__NAME``.
    space_axes : int or sequence of int, optional
        Which axes of X are those of space; another than these and the first holds channels. By default all but the
        last, or of X (N, 1, ...) all but the second.
    early_stopping : int, optional
        Epochs without a higher score on rows that are held out, after which it stops, with the weights of the latest
        epoch whose score is within a standard error of the highest; 0: none are held out. With "balanced" weights of
        classes the score is balanced accuracy, the mean over classes.
    validation_fraction : float, optional
        Part of the rows that is held out, of each class its share.
    warm_start : bool, optional
        Whether `fit` begins with the weights of the last `fit`, which must have had the same classes or targets.
    verbose : bool, optional
        Whether it prints a line for each epoch.
    random_state : int, RandomState or None, optional
        Seed of initial weights, order and augmentation.
    class_weight : dict, "balanced" or None, optional
        Weights of each class, beside `sample_weight`.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
        The labels; for yes/no labels their numbers.
    n_features_in_ : int
        Length of the second axis of X.
    space_axes_ : tuple of int
        The axes of X taken for axes of space; a warning says so where the second axis may be that of channels.
    n_iter_ : int
        Epochs that were trained.

    Notes
    -----
    Each channel is standardised over the training rows. The order of rows does not matter. Images are not mirrored; the
    setting ``{"flip": True}`` mirrors half of them, for classes that mirror images do not tell apart.
    """

    class_weight: Any = None

    _validation: ClassVar[dict[str, bool]] = {"multi_output": True}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _labels(self, y: Any, weight: NDArray[np.float64]) -> tuple[NDArray[Any], tuple[str, ...], NDArray[Any]]:
        check_classification_targets(y)
        if self.class_weight is not None:
            weight = weight * compute_sample_weight(self.class_weight, y)
        if type_of_target(y) == "multilabel-indicator":
            self.classes_, y = np.arange(y.shape[1]), y.toarray() if hasattr(y, "toarray") else y
            if is_one_hot(y):
                raise ValueError(f"y has shape {y.shape}, one-hot: each row has a single 1; give its argmax(axis=1)")
            return y.astype(bool), tuple(map(str, self.classes_)), weight
        y = column_or_1d(y, warn=True)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {self.classes_[0]}; a classifier needs two")
        if nothing := self.classes_[np.bincount(labels, weight) == 0].tolist():
            warnings.warn(f"all rows of class {nothing[0]} have weight 0: nothing is learned of it", stacklevel=3)
        return labels.astype(np.int64), tuple(map(str, self.classes_)), weight

    def _in_terms_of_y(self, outputs: NDArray[np.float64]) -> NDArray[Any]:
        task = self.checkpoint_.task
        chosen = task.chosen(outputs)
        return np.asarray(self.classes_[chosen] if task.takes == "classes" else chosen.astype(int))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the network's probabilities of `classes_`, in their order, (N, n_classes)."""
        classifier, outputs = self._outputs(X)
        return np.asarray(classifier.checkpoint.task.probabilities(outputs))


@_answers
@dataclass(eq=False, repr=False)
class HCNNRegressor(RegressorMixin, _Estimator):
    """A hierarchical network, or one of another preset, that predicts numbers, with squared error.

    Parameters and X are those of `HCNNClassifier`; it has no ``class_weight`` and no ``classes_``.

    Notes
    -----
    Targets are standardised while it learns; predictions are in their units, and `score` is R^2. The preset
    ``"signal"`` resamples axes; where the targets depend on how fast things are, the setting ``{"resample": 0.0}``
    leaves that out. A network hardly knows where in a signal something is: tables, whose columns have each their own
    meaning, are for other estimators.
    """

    _validation: ClassVar[dict[str, bool]] = {"multi_output": True, "y_numeric": True}
    _task: ClassVar[str] = "numbers"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.regressor_tags.poor_score = True  # where the place of a feature says what it means
        return tags

    def _labels(self, y: Any, weight: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[str, ...], NDArray[Any]]:
        numbers = np.asarray(y, np.float64).reshape(len(y), -1)
        self.target_shape_ = np.shape(y)[1:]
        return numbers, tuple(map(str, range(numbers.shape[1]))), weight

    def _in_terms_of_y(self, outputs: NDArray[np.float64]) -> NDArray[Any]:
        return np.reshape(outputs, (len(outputs), *self.target_shape_))
