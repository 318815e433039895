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
from train import estimators
from train.estimators import HCNNClassifier, HCNNRegressor, _order

SMALL: dict[str, Any] = {
    "depth": 4,
    "width": 4,
    "random_state": 0,
    "batch_size": 20,
    "settings": {"factors": 4, "strided_layers": (), "shift": 0, "space_kernel": 3},  # 9 taps are 729 of a volume
}
SKIPPED = {
    "check_array_api_input",  # its strict arrays are not installed
    "check_classifiers_multilabel_output_format_decision_function",  # there is no such method
}
CHECKED = HCNNClassifier(epochs=1, **SMALL), HCNNRegressor(epochs=1, **SMALL)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", CHECKED, ids=["classifier", "regressor"])
def test_the_checks_of_scikit_learn(estimator: Any) -> None:
    """All pass but what scikit-learn skips."""
    failed, skipped = [], []
    for checked, check in estimator_checks_generator(estimator):
        if check.func.__name__ == "check_class_weight_classifiers":  # which wants 50 rows learned
            checked = clone(checked).set_params(epochs=12)
        try:
            check(checked)
        except pytest.skip.Exception:
            raise
        except Exception as error:
            of = skipped if type(error).__name__ == "SkipTest" else failed
            of.append((check.func.__name__, str(error)))
    assert not failed
    assert {name for name, _ in skipped} <= SKIPPED


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


def test_several_labels_of_each_row() -> None:
    x, frequency = waves(90)
    y = np.stack([frequency > 0.9, frequency < 0.6], axis=1).astype(int)
    classifier = HCNNClassifier(epochs=20, **SMALL).fit(x, y)
    p = classifier.predict_proba(x)
    assert p.shape == y.shape and np.array_equal(classifier.predict(x), p > 0.5) and classifier.score(x, y) > 0.75
    assert classifier.classes_.tolist() == [0, 1] and (p.sum(axis=1) < 0.9).any()
    with pytest.raises(ValueError, match="class_weights is 'balanced', which is for loss 'cross-entropy'"):
        HCNNClassifier(settings={"class_weights": "balanced"}).fit(x, y)


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
    alike = [HCNNClassifier(**few).fit(x, y, np.full(30, value)).predict_proba(x) for value in (1.0, 0.7)]
    assert np.array_equal(*alike)
    for bad, message in ((-1.0, "none negative"), (np.nan, "finite numbers"), (0.0, "zero everywhere")):
        with pytest.raises(ValueError, match=message):
            HCNNClassifier(**few).fit(x, y, np.full(30, bad))
    with pytest.raises(ValueError, match=r"sample_weight is 3\.33e\+05 in the mean, and repeats rows"):
        HCNNClassifier(**few).fit(x, y, np.r_[1e7, np.ones(29)])


def test_a_weight_that_is_not_whole_weighs_the_loss() -> None:
    """A class of small weight does not vanish; one of weight 0 is named."""
    x, frequency = waves(30)
    y = (frequency > 0.9).astype(int)
    few = {**SMALL, "epochs": 12}
    small = HCNNClassifier(**few).fit(x, y, np.where(y, 0.04, 1.3))
    likely = small.predict_proba(x)[:, 1]
    assert small.n_iter_ == 12 and small.predict(x).any() and likely[y == 1].mean() > 2 * likely[y == 0].mean()
    half = HCNNClassifier(**few, class_weight={0: 1.0, 1: 0.5}).fit(x, y)
    assert np.array_equal(half.predict_proba(x), HCNNClassifier(**few).fit(x, y, 1 - 0.5 * y).predict_proba(x))
    assert not np.array_equal(half.predict_proba(x), HCNNClassifier(**few).fit(x, y).predict_proba(x))
    with pytest.warns(UserWarning, match="all rows of class 1 have weight 0: nothing is learned of it"):
        none = HCNNClassifier(**few, class_weight={0: 1.0, 1: 0.0}).fit(x, y)
    assert none.predict_proba(x)[:, 1].max() < small.predict_proba(x)[:, 1].max() and none.classes_.tolist() == [0, 1]


def test_rows_are_ordered_by_their_values_alone() -> None:
    """A rounding error of X, which is much less than two rows differ by, trains the same batches."""
    rng = np.random.default_rng(0)
    x, y, weight = rng.integers(-2, 3, (200, 2, 2)).astype(float), rng.integers(0, 2, 200), rng.integers(1, 3, 200) / 2
    expected = sorted(range(200), key=lambda n: (*(x[n].ravel() + 0.0), y[n], weight[n]))
    for like in (x, np.where(x == 0, -0.0, x).astype(np.float32)):
        assert _order(like, y, weight).tolist() == expected
    x, frequency = waves(40)
    found = [
        HCNNClassifier(epochs=4, **SMALL).fit(z, frequency > 0.9).predict_proba(x) for z in (x, np.nextafter(x, 9))
    ]
    np.testing.assert_allclose(*found, atol=1e-3)


def test_copies_of_a_row_are_on_one_side_of_the_held_out_part(monkeypatch: pytest.MonkeyPatch) -> None:
    (x, frequency), before = waves(30), estimators.prepared

    def prepared(data: Any, index: Any, held_out: Any, counts: Any) -> Any:
        assert len(held_out) and not np.isin(data.train_images[held_out][:, 0], data.train_images[index][:, 0]).any()
        return before(data, index, held_out, counts)

    monkeypatch.setattr(estimators, "prepared", prepared)
    twice = np.concatenate([x, x]), np.tile(frequency > 0.9, 2)
    HCNNClassifier(epochs=1, early_stopping=1, validation_fraction=0.3, **SMALL).fit(*twice)


def test_settings_are_parameters() -> None:
    x, frequency = waves(60)
    y = frequency > 0.9
    classifier = HCNNClassifier(epochs=6, **SMALL)
    assert classifier.get_params()["settings__factors"] == 4 and "settings__factors" not in classifier.get_params(False)
    search = GridSearchCV(classifier, {"settings__learning_rate": [1e-9, 0.02]}, cv=2).fit(x, y)
    assert search.best_params_ == {"settings__learning_rate": 0.02}
    assert classifier.settings == SMALL["settings"] and search.best_estimator_.settings["factors"] == 4
    with pytest.raises(ValueError, match=r"no setting is called 'factor' \(did you mean factors"):
        clone(classifier).set_params(settings__factor=2).fit(x, y)
    with pytest.raises(TypeError, match=r"'lr' is no parameter \(did you mean learning_rate\?\)"):
        HCNNClassifier(lr=0.1)
    with pytest.raises(ValueError, match=r"'epoch' is no parameter \(did you mean epochs\?\); others are settings__"):
        clone(classifier).set_params(epoch=2)
    with pytest.raises(ValueError, match="settings is 'factors'; give a dict of settings by name"):
        clone(classifier).set_params(settings="factors").fit(x, y)


def test_a_constant_target_is_predicted() -> None:
    x, frequency = waves(30)
    y = np.stack([np.full(30, 0.3), frequency], axis=1)
    predicted = HCNNRegressor(epochs=2, **SMALL).fit(x, y).predict(x)
    assert (predicted[:, 0] == 0.3).all() and np.ptp(predicted[:, 1]) > 0
    assert (HCNNRegressor(epochs=2, **SMALL).fit(x, y[:, 0]).predict(x) == 0.3).all()


def test_standardize_sample_counts_in_prediction() -> None:
    x, frequency = waves(30)
    few = {**SMALL, "settings": {**SMALL["settings"], "standardize": "sample"}}
    network = HCNNClassifier(epochs=2, **few).fit(x, frequency > 0.9)
    np.testing.assert_allclose(network.predict_proba(7 * x + 3), network.predict_proba(x), rtol=1e-9)


def test_it_stops_early_goes_on_and_says_what_it_does(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    x, frequency = waves(60)
    y = frequency > 0.9
    early = HCNNClassifier(epochs=50, early_stopping=2, validation_fraction=0.3, verbose=True, **SMALL).fit(x, y)
    held_out = [float(part) for part in re.findall("held out (.*) %", capfd.readouterr().out)]
    best = held_out.index(max(held_out))
    assert len(held_out) == early.n_iter_ == best + 3 < 50 and early.score(x, y) > 0.8
    HCNNClassifier(epochs=2, early_stopping=2, verbose=True, class_weight="balanced", **SMALL).fit(x, y)
    assert capfd.readouterr().out.count(" %, balanced ") == 2
    few = {**SMALL, "settings": {**SMALL["settings"], "schedule": "constant", "learning_rate": 0.02}}
    stopped = HCNNClassifier(epochs=50, early_stopping=2, validation_fraction=0.3, verbose=True, **few).fit(x, y)
    parts = [float(part) / 100 for part in re.findall("held out (.*) %", capfd.readouterr().out)]
    least = max(parts) - (max(parts) * (1 - max(parts)) / 18) ** 0.5
    epochs = max(epoch for epoch, part in enumerate(parts, 1) if part > least - 0.001)
    whole = HCNNClassifier(epochs=epochs, early_stopping=50, validation_fraction=0.3, **few).fit(x, y)
    assert np.array_equal(stopped.predict_proba(x), whole.predict_proba(x))  # the weights of the best epoch
    few = HCNNClassifier(epochs=1, warm_start=True, **SMALL)
    first = few.fit(x, y).predict_proba(x)
    second = few.fit(x, y).predict_proba(x)
    anew = few.set_params(warm_start=False).fit(x, y).predict_proba(x)
    assert np.array_equal(anew, first) and not np.array_equal(second, first)
    named = np.where(y, "a", "b")
    few.fit(x, named).set_params(warm_start=True)
    before, predicted = few.predict_proba(x), few.predict(x)
    for other, head in ((np.where(y, "a", "c"), "mean"), (np.arange(60) % 3, "mean"), (named, "sum")):
        changed = few.set_params(settings__head=head)
        with pytest.raises(ValueError, match="warm_start goes on from the last fit, which had other"):
            changed.fit(x, other)
        assert np.array_equal(few.predict_proba(x), before) and np.array_equal(few.predict(x), predicted)
    assert capfd.readouterr().out == "" and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("early_stopping", [-1, True, 2.5, None]),
        ("validation_fraction", [0, 1, 1.0, 1.5, -0.1, True, "all", float("nan")]),
        ("warm_start", ["no", None, 2]),
        ("verbose", ["no"]),
        ("random_state", [-1, 2**32, "no"]),
    ],
)
def test_parameters_out_of_range_are_refused(name: str, values: list[Any]) -> None:
    x, frequency = waves(30)
    for estimator, y in ((HCNNClassifier(**SMALL), frequency > 0.9), (HCNNRegressor(**SMALL), frequency)):
        for value in values:
            with pytest.raises(ValueError, match=re.escape(f"{name} is {value!r}; give ")):
                clone(estimator).set_params(**{name: value}).fit(x, y)


def test_masks_are_refused() -> None:
    x, frequency = waves(30)
    y, weight = frequency > 0.9, np.ones(30)
    for at in range(3):
        arguments: list[Any] = [x, y, weight]
        arguments[at] = np.ma.masked_array(arguments[at], arguments[at] > 10)
        with pytest.raises(TypeError, match="expected an array without a mask"):
            HCNNClassifier(**SMALL).fit(*arguments)
    fitted = HCNNClassifier(epochs=1, **SMALL).fit(x, y)
    with pytest.raises(TypeError, match="expected an array without a mask"):
        fitted.predict(np.ma.masked_array(x, x > 10))


def test_images_are_mirrored_on_demand_alone() -> None:
    x, y = np.random.default_rng(0).standard_normal((12, 8, 8, 1)), np.arange(12) % 2
    few = {"epochs": 1, "depth": 4, "width": 4, "settings": {"strided_layers": (), "factors": 4}}
    assert not HCNNClassifier(**few).fit(x, y).config_.flip
    assert HCNNRegressor(**few).set_params(settings__flip=True).fit(x, y).config_.flip
    assert not HCNNClassifier("hcnn-best", epochs=1).fit(x, y).config_.alternate_flips


@pytest.mark.parametrize(
    ("shape", "given", "axes", "message"),
    [
        ((24,), None, (1,), ""),
        ((24,), 1, (1,), ""),
        ((24, 3), None, (1,), ""),
        ((1, 24), None, (2,), r"axes \(2,\) are taken for those of space; or give space_axes=\(1,\)"),
        ((3, 24), None, (1,), r"axes \(1,\) are taken for those of space; or give space_axes=\(2,\)"),
        ((3, 24), (2,), (2,), ""),
        ((3, 8, 9), None, (1, 2), r"or give space_axes=\(2, 3\)"),
        ((3, 8, 9), (2, 3), (2, 3), ""),
        ((8, 9), (1, 2), (1, 2), ""),
        ((9, 8), None, (1,), r"signals of 9 samples and 8 channels; give space_axes=\(1,\), or \(1, 2\) for images"),
    ],
)
def test_it_says_which_axes_it_takes_for_space(
    shape: tuple[int, ...], given: Any, axes: tuple[int, ...], message: str, recwarn: pytest.WarningsRecorder
) -> None:
    x = np.random.default_rng(0).standard_normal((20, *shape))
    network = HCNNClassifier(epochs=1, space_axes=given, **SMALL).fit(x, np.arange(20) % 2)
    texts = [str(warning.message) for warning in recwarn]
    assert network.space_axes_ == axes and bool(texts) == bool(message) and re.search(message, "".join(texts))
    channels = {*range(1, len(shape) + 1)} - {*axes}
    last = np.moveaxis(x, channels.pop(), -1) if channels else x[..., None]
    assert network.shape_ == last.shape[1:]
    same = HCNNClassifier(epochs=1, space_axes=range(1, last.ndim - 1), **SMALL).fit(last, np.arange(20) % 2)
    assert np.array_equal(network.predict_proba(x), same.predict_proba(last))
    for wrong in ((0,), 0, 1.5, "x"):
        with pytest.raises(ValueError, match="space_axes is"):
            HCNNClassifier(space_axes=wrong, **SMALL).fit(x, np.arange(20) % 2)


def test_settings_count_or_are_refused() -> None:
    x, y = waves(30)[0], np.arange(30) > 26
    found = [
        HCNNClassifier(epochs=2, **{**SMALL, "settings": SMALL["settings"] | {"class_weights": weights}}).fit(x, y)
        for weights in ("none", "balanced")
    ]
    plain, balanced = (each.predict_proba(x)[:, 1].mean() for each in found)
    assert balanced > plain + 0.01
    others = ("preset", "nonsense"), ("seed", 3), ("task", "numbers")
    for name, value in (("init_from", "a"), ("teacher", "a"), ("train_size", 20), ("validation_size", 7), *others):
        with pytest.raises(ValueError, match=f"settings has {name}, of no use to fit"):
            HCNNClassifier(**{**SMALL, "settings": SMALL["settings"] | {name: value}}).fit(x, y)

    for settings, message in (
        ({"planning": "measure"}, "no setting is called 'planning'"),
        ({"precision": "tf32"}, "is for --backend cupy"),
        ({"loss": "squared"}, "loss is 'squared', which is for numbers; the task is classes"),
    ):
        with pytest.raises(ValueError, match=message):
            HCNNClassifier(settings=settings).fit(x, y)


def test_names_of_data_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^X is the name 'sample'; fit takes arrays X and y; hcnn\.fit"):
        HCNNClassifier().fit("sample", *waves(4))


def test_images_and_signals_of_many_channels() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    for preset, shape in (("signal", (9, 3)), ("hcnn-fast", (6, 7, 2)), ("volume", (4, 4, 4, 1))):
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
        ("volume", (9, 3), {}, "preset is 'volume', for volumes; these data are signals: take 'signal'"),
        ("signal", (6, 7, 2), {}, "preset is 'signal', for signals; these data are images: take 'hcnn-fast'"),
        ("lenet", (9,), {}, "LeNet-5 takes images, and these are signals of 9; take a hierarchical network, such as "),
        ("wavelet", (9,), {}, "preset is 'wavelet'; choose hcnn, "),
        (None, (6, 7, 2), {"shift": 6}, "shift is 6; images of 6x7 allow 0 to 5"),
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
