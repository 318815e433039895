"""Networks that are opened for use, beside the same networks unopened."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest

import hcnn
from tests.train.test_onnx import TINY, network, randomised
from train.classifier import Classifier
from train.config import make_config
from train.data import standardise
from train.runs import opened as module
from train.runs.opened import Opened

KINDS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((20,), {}),
    ((20, 13), {}),
    ((8, 6, 7), {}),
    ((12, 11), {"normalization": "both", "head": "dense"}),
    ((12,), {"head": "sum"}),
    ((12,), {"width": 8, "reduction": "sum"}),
    ((12, 11), {"width": 8}),
    ((13,), {"space_kernel": 4}),
]
NOT_DENSE: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((20, 12), {"boundary": "periodic"}),
    ((12, 11), {"skip": "aligned", "depth": 7}),
    ((12, 11), {"nonlinear_factors": True, "normalization": "both"}),
    ((12, 12), {"blur": True}),
    ((12, 11), {"activation": "gelu"}),
    ((12, 12), {"dtype": "float64"}),
    ((16, 16), {"scattering": 1}),
]


def images(one: Classifier, count: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(1)
    return rng.standard_normal((count, *one.network.image_shape)).astype(one.network.config.dtype)


def unopened(one: Classifier, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    made: np.ndarray[Any, Any] = one.network(one._arrays[0], x, one._arrays[1])[0]
    return made


def test_ordinary_convolutions_make_the_logits_of_the_network() -> None:
    networks = [network(size, **changes) for size, changes in KINDS]
    networks += [randomised(make_config(name), (side, side), 2) for name, side in (("resnet20", 8), ("lenet", 32))]
    for one in networks:
        it, x = Opened(one.network, *one._arrays), images(one, 5)
        assert it._is_dense(x)
        expected = unopened(one, x)
        for _ in range(2):  # memory that is kept has no trace of the first call
            assert np.allclose(it(x), expected, rtol=2e-5, atol=2e-5 * np.abs(expected).max()), one.network.config
        assert np.array_equal(it(x), Opened(one.network, *one._arrays)(x))


def test_what_is_no_ordinary_convolution_or_large_keeps_the_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    for size, changes in NOT_DENSE:
        one = network(size, **changes)
        it, x = Opened(one.network, *one._arrays), images(one, 2)
        assert not it._is_dense(x)
        assert np.array_equal(it(x), unopened(one, x)), changes
    one = network((12, 11))
    it, x = Opened(one.network, *one._arrays), images(one, 2)
    assert np.array_equal(it.output("layer03", x), one.network.output("layer03", one._arrays[0], x, one._arrays[1]))
    assert not np.array_equal(it(x), unopened(one, x))  # a dense layer rounds otherwise, so the two above could differ
    monkeypatch.setattr(module, "DENSE_MACS", 1)
    assert np.array_equal(it(x), unopened(one, x))
    assert it(x[:0]).shape == (0, 3)


@pytest.mark.parametrize("most", [1, module.DENSE_MACS])
def test_weights_that_change_in_place_are_noticed(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(module, "DENSE_MACS", most)
    one = network((12, 11))
    it, x = Opened(one.network, *one._arrays), images(one, 3)
    parameters, moments = one._arrays
    for change in (
        lambda: np.negative(parameters["layer03"]["g"], out=parameters["layer03"]["g"]),
        lambda: moments["layer04"]["mean"].__iadd__(0.5),
        lambda: parameters["layer01"].update(bias=parameters["layer01"]["bias"] + 1),
        lambda: parameters["head"]["scale"].fill(3),
    ):
        before = it(x)
        change()
        assert not np.allclose(it(x), before, rtol=1e-3)
        assert np.allclose(it(x), unopened(one, x), rtol=2e-5, atol=1e-5)


def test_a_classifier_is_opened_once_and_pickled_without_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    one = network((12, 11))
    x = images(one, 3)
    size = len(pickle.dumps(one))
    calls: list[int] = []
    merging = type(one.network["layer03"])._merged
    counted = lambda *arguments: (calls.append(1), merging(*arguments))[1]  # noqa: E731
    monkeypatch.setattr(type(one.network["layer03"]), "_merged", counted)
    first = one.logits(x)
    many = len(calls)
    assert many and np.array_equal(one.logits(x), first) and len(calls) == many
    assert len(pickle.dumps(one)) == size
    for other in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
        other._arrays[0]["head"]["scale"][...] *= 2
        assert np.allclose(other.logits(x), 2 * first) and np.array_equal(one.logits(x), first)
    standard = standardise(x, one.checkpoint.channel_mean, one.checkpoint.channel_std)
    assert np.allclose(first, unopened(one, standard), rtol=2e-5, atol=2e-5)
    one.features(x, 3)
    many = len(calls)
    one.features(x, 4, "space")
    assert len(calls) == many


def test_several_threads_use_one_network_while_its_weights_change() -> None:
    one = randomised(make_config("hcnn", TINY), (10, 9), 2)
    it, x = Opened(one.network, *one._arrays), images(one, 4)
    batches = [x[:1], x[:3], x, x[1:], x[::2]]
    scale, wrong, done = one._arrays[0]["head"]["scale"], list[float](), threading.Event()
    scale[...] = 1
    expected = [it(batch) for batch in batches]

    def use(k: int) -> None:
        while not done.is_set():
            made = it(batches[k]) / expected[k]
            if np.ptp(made) > 1e-4 or min(abs(made.flat[0] - 1), abs(made.flat[0] - 2)) > 1e-4:
                wrong.append(float(made.flat[0]))

    threads = [threading.Thread(target=use, args=(k % len(batches),)) for k in range(8)]
    for thread in threads:
        thread.start()
    for factor in (2, 1) * 40:
        scale[...] = factor
        it(x)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong and np.allclose(it(x), expected[2])

    def change() -> None:
        wrong.append(float(scale))
        scale[...] = 3

    for _ in range(2):  # what was made while weights changed is not kept for those of before
        scale[...] = 1
        it._keep("late", change)
    assert len(wrong) == 2


def test_an_estimator_notices_weights_that_change() -> None:
    pytest.importorskip("sklearn")
    settings = {"factors": 4, "strided_layers": (), "shift": 0}
    one = hcnn.HCNNRegressor(epochs=1, depth=4, width=4, random_state=0, settings=settings)
    x = np.random.default_rng(0).standard_normal((8, 24))
    one.fit(x, x[:, 0])
    before = set(vars(one))
    first = one.predict(x)
    assert first.dtype == np.float64 and set(vars(one)) == before
    one.checkpoint_.state.parameters["layer03"]["g"] *= -1
    assert not np.allclose(one.predict(x), first)
    assert np.array_equal(pickle.loads(pickle.dumps(one)).predict(x), one.predict(x))
