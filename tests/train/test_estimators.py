"""Networks as estimators of scikit-learn, by its own checks and in its own company."""

from __future__ import annotations

import importlib
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import hcnn
from train.estimators import HCNNClassifier, HCNNRegressor

SMALL: dict[str, Any] = {
    "depth": 4,
    "width": 4,
    "random_state": 0,
    "batch_size": 20,
    "settings": {"factors": 4, "strided_layers": (), "shift": 0, "space_kernel": 3},  # 9 taps are 729 of a volume
}
CHECKED = HCNNClassifier(epochs=6, **SMALL), HCNNRegressor(epochs=6, **SMALL)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", CHECKED, ids=["classifier", "regressor"])
def test_the_checks_of_scikit_learn(estimator: Any) -> None:
    failed = []
    for checked, check in estimator_checks_generator(estimator):
        try:
            check(checked)
        except pytest.skip.Exception:
            raise
        except Exception as error:
            if type(error).__name__ != "SkipTest":
                failed.append((check.func.__name__, error))
    assert not failed


def waves(count: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Waves with noise, and their frequencies."""
    rng = np.random.default_rng(seed)
    frequency = rng.uniform(0.3, 1.5, count)
    t = np.arange(24) + 10 * rng.random((count, 1))
    return np.sin(frequency[:, None] * t) + 0.1 * rng.standard_normal((count, 24)), frequency


def test_a_classifier_in_a_pipeline_a_search_and_cross_validation() -> None:
    x, frequency = waves(90)
    y = np.where(frequency > 0.9, "high", "low")
    classifier = hcnn.HCNNClassifier(epochs=6, **SMALL)
    scores = cross_val_score(make_pipeline(StandardScaler(), classifier), x, y, cv=3)
    assert scores.min() > 0.75
    search = GridSearchCV(classifier, {"epochs": [1, 6], "width": [4]}, cv=2).fit(x, y)
    assert search.best_params_["epochs"] == 6 and set(search.classes_) == {"high", "low"}
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    assert np.array_equal(again.predict(x), search.predict(x))
    p = again.predict_proba(x)
    np.testing.assert_allclose(p.sum(1), 1)
    assert np.array_equal(again.classes_[p.argmax(1)], again.predict(x))
    assert again.score(x, y) == np.mean(again.predict(x) == y)
    assert clone(again).get_params() == again.get_params() and not hasattr(clone(again), "classes_")


def test_a_regressor_predicts_in_the_units_of_its_targets() -> None:
    x, frequency = waves(150)
    y = 1000 * frequency + 5
    few = {**SMALL, "settings": {**SMALL["settings"], "learning_rate": 0.02, "resample": 0.0}}  # it is the frequency
    network = HCNNRegressor(epochs=40, **few).fit(x[:120], y[:120])
    assert network.score(x[120:], y[120:]) > 0.7
    two = np.stack([y, -y], axis=1)
    both = HCNNRegressor(epochs=1, **few).fit(x, two)
    assert both.predict(x).shape == two.shape


def test_a_weight_is_a_number_of_rows_and_their_order_does_not_matter() -> None:
    x, frequency = waves(30)
    y = (frequency > 0.9).astype(int)
    few = {**SMALL, "epochs": 1}
    weight = np.arange(30) % 3
    expected = HCNNClassifier(**few).fit(np.repeat(x, weight, axis=0), np.repeat(y, weight)).predict_proba(x)
    assert np.array_equal(HCNNClassifier(**few).fit(x, y, weight).predict_proba(x), expected)
    turned = HCNNClassifier(**few).fit(x[::-1], y[::-1], weight[::-1])
    assert np.array_equal(turned.predict_proba(x), expected)
    assert not np.array_equal(HCNNClassifier(**few).fit(x, y).predict_proba(x), expected)
    assert HCNNClassifier(**few).fit(x, y, weight + 0.5).n_iter_ == 1
    alike = [HCNNClassifier(**few).fit(x, y, np.full(30, value)).predict_proba(x) for value in (1.0, 0.7)]
    assert np.array_equal(*alike)
    for epochs, passes in ((2, 1), (9, 1), (19, 2)):  # over rows that are repeated twice, nine and ten times
        network = HCNNClassifier(**SMALL, epochs=epochs).fit(x, y, np.where(np.arange(30) % 2, 0.5, 1.5))
        assert network.n_iter_ == passes
    for bad, message in ((-1.0, "none negative"), (np.nan, "finite numbers"), (0.0, "zero everywhere")):
        with pytest.raises(ValueError, match=message):
            HCNNClassifier(**few).fit(x, y, np.full(30, bad))
    with pytest.raises(ValueError, match=r"sample_weight is 3\.33e\+05 in the mean, and repeats rows"):
        HCNNClassifier(**few).fit(x, y, np.r_[1e7, np.ones(29)])


def test_settings_count_or_are_refused() -> None:
    x, y = waves(30)[0], np.arange(30) > 26
    found = [
        HCNNClassifier(epochs=2, **{**SMALL, "settings": SMALL["settings"] | {"class_weights": weights}}).fit(x, y)
        for weights in ("none", "balanced")
    ]
    plain, balanced = (each.predict_proba(x)[:, 1].mean() for each in found)
    assert balanced > plain + 0.01
    for name, value in (("init_from", "a"), ("teacher", "a"), ("train_size", 20), ("validation_size", 7)):
        with pytest.raises(ValueError, match=f"settings has {name}, of no use to fit"):
            HCNNClassifier(**{**SMALL, "settings": SMALL["settings"] | {name: value}}).fit(x, y)


def test_values_whose_squares_overflow_are_refused() -> None:
    x, y = waves(30)
    with pytest.raises(ValueError, match="of X has values so large that their squares overflow"):
        HCNNRegressor(**SMALL).fit(1e200 * x, y)
    with pytest.raises(ValueError, match="y has numbers so large"):
        HCNNRegressor(**SMALL).fit(x, 1e200 * y)


def test_images_and_signals_of_many_channels() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    for preset, shape in (("signal", (9, 3)), ("hcnn", (6, 7, 2)), ("volume", (4, 4, 4, 1))):
        ramp = np.linspace(-3, 3, shape[0]).reshape(-1, *(1,) * (len(shape) - 1))
        x = rng.standard_normal((40, *shape)) + y.reshape(-1, *(1,) * len(shape)) * ramp
        network = HCNNClassifier(epochs=20, **SMALL).fit(x, y)
        assert network.score(x, y) > 0.9 and network.n_features_in_ == shape[0]
        assert network.config_.preset == preset and network.preset is None
        with pytest.raises(ValueError, match="it was fitted on"):
            network.predict(x[:, :, :1] if x.shape[2] > 1 else x[..., None])
    with pytest.raises(ValueError, match=r"y has one class, 0; a classifier needs two"):
        HCNNClassifier(**SMALL).fit(x, np.zeros(40, int))


@pytest.mark.parametrize(
    ("preset", "shape", "settings", "message"),
    [
        ("volume", (9, 3), {}, "preset is 'volume', for volumes; X holds signals: take 'signal', or None"),
        ("signal", (6, 7, 2), {}, "preset is 'signal', for signals; X holds images: take 'hcnn', or None"),
        ("hcnn-fast", (4, 4, 4, 1), {}, "preset is 'hcnn-fast', for images; X holds volumes: take 'volume', or None"),
        ("lenet", (9,), {}, "LeNet-5 takes images, and these are signals of 9; take a hierarchical network, such as "),
        ("wavelet", (9,), {}, "preset is 'wavelet'; choose hcnn, "),
        (None, (6, 7, 2), {}, "shift is 6; images of 6x7 allow 0 to 5"),
        (None, (9,), {"rotate": 0.1}, "rotate, shear and zoom are for images, which have two axes of space"),
    ],
)
def test_a_preset_and_settings_that_do_not_fit_the_data(
    preset: str | None, shape: tuple[int, ...], settings: dict[str, Any], message: str
) -> None:
    x, y = np.random.default_rng(0).standard_normal((4, *shape)), np.arange(4.0)
    for kind in (HCNNClassifier, HCNNRegressor):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            kind(preset, settings=settings).fit(x, y)


def test_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "train.md"
    found = re.findall(r"^```python (?:sklearn|features)\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    first, second = found
    defined: dict[str, Any] = {}
    exec(first, defined)
    assert min(map(float, capsys.readouterr().out.strip("[]\n").split())) > 0.5
    exec(second, defined)  # two in three images are of animals
    assert float(capsys.readouterr().out) > 0.7


def test_who_lacks_scikit_learn_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "train.estimators")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"sklearn is not installed: pip install .*sklearn"):
        importlib.import_module("train.estimators")
