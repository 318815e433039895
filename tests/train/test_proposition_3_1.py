"""Section 3 of arXiv:1703.04140, statement by statement, and what breaks it: `make test PYTEST_ARGS="-k proposition"`.

The paper proves Proposition 3.1 without strides. With them (section 4.1) it holds for the translations that
`train.verification.covariance` derives from the table of layers; tests below hold it to that, and to nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from hcnn_core import convolve, elu, marginal, translate
from hcnn_core.testing import (
    arrays,
    assert_translation_covariant,
    assert_translation_invariant,
    shifts,
)
from tests.strategies import kernels, networks, strides
from tests.train.defects import make_layers, with_layers
from train.config import make_config
from train.networks.hierarchical import HierarchicalLayer, hierarchy, layers
from train.networks.layer import Signal
from train.networks.network import Network
from train.networks.registry import build
from train.runs import checkpoint
from train.runs.training import restore
from train.verification.covariance import Row, Subject, axes, exact_multiple, measure

SEEDS = st.integers(0, 2**32 - 1)
METHODS = st.sampled_from(["direct", "fft", "auto"])
DTYPES = st.sampled_from(["float32", "float64", "complex64", "complex128"])
LENGTHS = st.sampled_from([4, 6, 5, 3, 8, 1, 2])


# "The operators W_j are multidimensional convolutions, which are covariant to translations along (u, v)."


@given(st.data(), st.integers(1, 4), METHODS, DTYPES)
def test_convolutions_are_covariant_eq_2(data: Any, m: int, method: str, dtype: str) -> None:
    """Along every axis, odd or even, with filters shorter and longer than it, at every stride that divides it."""
    lengths = tuple(data.draw(st.lists(LENGTHS, min_size=m, max_size=m)))
    x = data.draw(arrays((2, *lengths), dtype))
    w = data.draw(kernels(lengths, dtypes=dtype, max_size=math.ceil(40 ** (1 / m))))
    along, stride = tuple(range(1, 1 + m)), data.draw(strides(lengths))
    assume(any(n // r > 1 for n, r in zip(lengths, stride, strict=True)))

    def op(x: Any) -> Any:
        return convolve(x, w, along, boundary="periodic", stride=stride, method=method)

    assert_translation_covariant(op, x, along, along, stride, shift=data.draw(shifts(lengths, stride)))


# "This covariance to translations implies that the sum over v_k is invariant to translations of previous layers."


@given(st.data(), st.sampled_from(["sum", "mean"]), DTYPES)
def test_marginals_are_invariant_along_what_they_sum_eqs_6_and_7(data: Any, reduction: str, dtype: str) -> None:
    x = data.draw(arrays((2, 3, 4, 5), dtype))
    move = data.draw(shifts((4, 5)))
    assert_translation_invariant(lambda x: marginal(x, (2, 3), reduction=reduction), x, (2, 3), shift=move)
    assert_translation_covariant(lambda x: marginal(x, 2, reduction=reduction), x, 3, 2, shift=data.draw(shifts((5,))))


@given(st.data(), METHODS, DTYPES)
def test_a_sum_makes_the_next_layer_invariant_eq_6(data: Any, method: str, dtype: str) -> None:
    """Filters that do not depend on v_{j-3} see its marginal: the same by a filter of ones as long as the axis."""
    x = data.draw(arrays((2, 4, 5), dtype))
    w = data.draw(kernels((4,), out=(2,), dtypes=dtype))
    move = data.draw(shifts((5,)))

    def layer(x: Any) -> Any:
        return rho(convolve(marginal(x, 2), w, 1, boundary="periodic", method=method))

    def written_out(x: Any) -> Any:
        ones = np.ones((1, 5, 1), w.dtype)
        return rho(convolve(x, w[:, None, :] * ones, (1, 2), boundary="periodic", method=method))

    assert_translation_invariant(layer, x, 2, shift=move, stages=2)
    scale = np.abs(w).sum() * np.abs(x).sum() * np.finfo(x.dtype).eps
    for v in range(5):  # x_j depends on v_{j-3} no more
        assert np.abs(written_out(x)[:, :, v] - layer(x)).max() <= 40 * scale


def rho(x: Any) -> Any:
    """A pointwise operator: ELU, of real and imaginary parts."""
    return elu(x.real) + 1j * elu(x.imag) if np.iscomplexobj(x) else elu(x)


# Which translations survive subsampling.


@given(st.integers(1, 24), st.lists(st.integers(1, 4), max_size=3), SEEDS)
def test_exact_multiples_are_exact_and_no_other_translation_is(length: int, steps: list[int], seed: int) -> None:
    """A chain of convolutions with these strides, then the sum: by its definition, and by what it does."""
    rng = np.random.default_rng(seed)
    filters = [rng.standard_normal(5) for _ in steps]
    x = rng.standard_normal(length)

    def chain(x: Any) -> Any:
        for w, r in zip(filters, steps, strict=True):
            x = np.tanh(convolve(x, w, 0, boundary="periodic", stride=r))
        return np.tanh(x + 0.1).sum()

    exact = exact_multiple(length, steps)
    assert length % exact == 0
    for shift in range(length):
        change = abs(chain(translate(x, shift, 0, boundary="periodic")) - chain(x))
        # the sum of tanh of at most 24 samples, each wrong by a few eps in each of at most 4 stages
        if shift % exact == 0:
            assert change < 1e-12
        else:  # generic numbers
            assert change > 1e-9


def test_strides_still_to_come_in_the_network_of_the_paper() -> None:
    table = layers(make_config("hcnn"), 32, 10)
    found = {j: {a.name: a.exact for a in axes(table, j)} for j in range(12)}
    space = {j: 4 if j < 5 else 2 if j < 9 else 1 for j in range(12)}
    for j, exact in found.items():
        assert exact.pop("u1") == exact.pop("u2") == space[j]
    assert found[0] == {}  # colours are summed with weights
    assert found[1] == {"v_j": 4}
    assert found[2] == {"v_{j-1}": 2, "v_j": 4}  # layer 3 subsamples v_1, layer 4 sums it
    for j in range(3, 10):
        assert found[j] == {"v_{j-2}": 1, "v_{j-1}": 2, "v_j": 4}
    assert found[10] == {"v_{j-2}": 1, "v_{j-1}": 2, "v_j": 2}  # layer 11 alone follows
    assert found[11] == {"v_{j-2}": 1, "v_{j-1}": 1}  # v_11 is the class


# "Proposition 3.1: x_J is invariant to translations of x_j(u, v_1, ..., v_j) along (u, v_1, ..., v_j)."


def subject(settings: dict[str, Any], seed: int, kind: Callable[..., Network] = build, size: int = 4) -> Subject:
    """A random network of these settings with biases, two images, and their moments."""
    rng = np.random.default_rng(seed)
    network = kind(make_config("hcnn", settings), image_size=size, classes=3)
    parameters = network.initialize(rng)
    for weights in parameters.values():
        if "bias" in weights:
            weights["bias"] = weights["bias"] + rng.standard_normal(weights["bias"].shape).astype(weights["bias"].dtype)
    images = rng.standard_normal((2, size, size, 3)).astype(settings.get("dtype", "float32"))
    return Subject(network, parameters, network(parameters, images)[1], images)


def failures(subject: Subject) -> Iterator[Row]:
    """What must hold and does not, in both modes, at every depth, along every axis."""
    return (example.row for example in measure(subject) if example.row.verdict == "FAILS")


ALIGNED = {"depth": 5, "width": 4, "factors": 2, "boundary": "periodic", "skip": "aligned", "dtype": "float64"}


@pytest.mark.slow
@given(networks(), SEEDS, st.sampled_from([4, 3, 6]))
@example({**ALIGNED, "strided_layers": (1, 2)}, 0, 6)  # x_1 has three samples along u, and cannot turn with x_2
@example({**ALIGNED, "width": 3, "attribute_stride": 2, "strided_layers": ()}, 0, 4)  # so along v_{j-1}
def test_proposition_holds_for_networks_of_every_kind(settings: dict[str, Any], seed: int, size: int) -> None:
    """Merged and (+) layers, mean and sum, any J, K, Q, supports and strides; at zero boundaries what stays inside."""
    assert not list(failures(subject(settings, seed, size=size)))


PAPER = {"depth": 8, "width": 8, "factors": 9, "strided_layers": (4,), "boundary": "periodic", "dtype": "float64"}


@pytest.mark.parametrize(
    ("nonlinear", "reduction", "normalization", "blur", "z"),
    [
        (False, "mean", "factors", False, 0),
        (False, "sum", "both", True, 0),
        (True, "mean", "both", True, 0),
        (True, "sum", "factors", False, 0),
        (False, "mean", "both", False, 2),
        (True, "sum", "both", False, 2),
    ],
)
def test_proposition_tells_exact_translations_from_all_others(
    nonlinear: bool, reduction: str, normalization: str, blur: bool, z: int
) -> None:
    """At the paper's supports and strides the two kinds lie nine orders of magnitude apart; with a HyperNetwork too."""
    settings = {"nonlinear_factors": nonlinear, "reduction": reduction, "normalization": normalization, "blur": blur}
    settings["hypernetwork"] = z
    assert_told_apart(subject({**PAPER, **settings}, 0, size=8))


def assert_told_apart(tried: Subject) -> None:
    """Check that exact translations, and no others, leave the result; both kinds are many and lie far apart."""
    rows = [example.row for example in measure(tried)]
    exact, aliased = ([row.largest for row in rows if row.kind == kind] for kind in ("exact", "aliased"))
    assert len(exact) > 100 and len(aliased) > 100
    assert max(exact) < 1e-13 and min(aliased) > 1e-4
    assert all(row.holds == (row.kind == "exact") for row in rows)


class PlainSum:
    """x_{j-2} added as it is, where its shape allows it."""

    def joined(self, made: Any, inputs: Any) -> Any:
        fits = self.skip is not None and inputs[-1].x.shape == made.x.shape  # type: ignore[attr-defined]
        return Signal(made.x + inputs[-1].x) if fits else made


@pytest.mark.lot
@pytest.mark.slow
@pytest.mark.parametrize(
    ("nonlinear", "skip"),
    [(False, "aligned"), (True, "aligned-mean"), (False, "previous"), (False, "dense"), (True, "dense")],
)
def test_a_residual_network_keeps_the_proposition_if_its_sums_are_aligned(nonlinear: bool, skip: str) -> None:
    """Translations move x_j and what skips it. Where it is added as it is, different attributes are mixed."""
    settings = {**PAPER, "nonlinear_factors": nonlinear, "skip": skip}
    assert_told_apart(subject(settings, 0, size=8))
    mixed = [example.row for example in measure(subject(settings, 0, with_layers(PlainSum), size=8))]
    assert max(row.largest for row in mixed if row.kind == "exact" and row.axis[0] == "v") > 1e-3


@pytest.mark.parametrize("skip", ["aligned", "aligned-mean", "previous"])
def test_what_a_residual_layer_adds_is_what_the_definition_says(skip: str) -> None:
    """The mean over the attributes that x_j has not, at samples of the shared or at means of them; space subsampled."""
    rng = np.random.default_rng(0)
    network = build(make_config("hcnn", {**PAPER, "skip": skip, "boundary": "zero"}), image_size=8, classes=3)
    parameters = network.initialize(rng)
    found = {layer.name: x for layer, x, _ in network.trace(parameters, rng.standard_normal((2, 8, 8, 3)))}
    for j in range(3, 7):
        layer = network[f"layer{j:02d}"]
        assert isinstance(layer, HierarchicalLayer) and layer.skip is not None
        before, one = found[f"layer{j - layer.skip.back:02d}"], found[layer.name]
        plain = replace(layer, skip=None)(parameters[layer.name], [Signal(found[layer.reads[0]])])[0].x
        step = before.shape[1] // one.shape[1]
        kept = before[:, ::step, ::step]
        if skip == "previous":
            pairs = kept.reshape(*kept.shape[:3], -1, kept.shape[-2] // 2, 2, kept.shape[-1] // 2, 2)
            expected = pairs.mean(axis=(3, 5, 7))[..., None]
        else:
            means = kept.reshape(*kept.shape[:3], -1, kept.shape[-1]).mean(axis=3)
            if skip == "aligned-mean":  # zeros before the first
                before_and_after = np.pad(means, ((0, 0), (0, 0), (0, 0), (1, 0)))[..., : means.shape[-1]]
                means = before_and_after.reshape(*means.shape[:3], -1, 4).mean(axis=-1)
            expected = means[..., :: 1 if skip == "aligned-mean" else 4, None, None]
        np.testing.assert_allclose(one - plain, np.broadcast_to(expected, one.shape), rtol=0, atol=1e-12)
        assert np.ptp(expected) > 0.1
    read = ("layer02",) if skip == "previous" else ("layer02", "layer01")
    assert network["layer03"].reads == read and network["layer07"].reads == ("layer06",)


@pytest.mark.slow
@pytest.mark.parametrize("nonlinear", [False, True], ids=["merged", "plus"])
def test_attributes_are_enough_to_be_periodic(nonlinear: bool) -> None:
    """For translations along attributes the proposition is as exact as with space periodic too."""
    settings = PAPER | {"nonlinear_factors": nonlinear}
    everywhere, here = (
        [example.row for example in measure(subject({**settings, "boundary": boundary}, 0, size=8))]
        for boundary in ("periodic", "attributes")
    )

    def along_attributes(rows: list[Row], kind: str) -> list[Row]:
        return [row for row in rows if row.axis[0] == "v" and row.kind == kind]

    assert len(along_attributes(here, "exact")) == len(along_attributes(everywhere, "exact")) > 50
    assert len(along_attributes(here, "aliased")) == len(along_attributes(everywhere, "aliased")) > 50
    assert max(row.largest for row in along_attributes(here, "exact")) < 1e-13
    assert min(row.largest for row in here if row.kind in ("aliased", "boundary")) > 1e-4
    assert {row.kind for row in here if row.axis[0] == "u"} == {"inside", "written out", "boundary"}
    assert all(row.holds == row.must_hold for row in here)


def test_proposition_by_the_public_assertion() -> None:
    """As a user would check it, translations along all exact axes at once included."""
    tried = subject(PAPER, 1, size=8)
    for j, x in enumerate(tried.activations):
        found = axes(hierarchy(tried.network), j)
        where, multiples = [a.position for a in found], [a.exact for a in found]
        for mode in ("evaluation", "training"):
            assert_translation_invariant(tried.tail(j, mode), x, where, multiples, stages=2 * (8 - j))


@pytest.mark.parametrize("boundary", ["periodic", "zero", "attributes"])
def test_proposition_holds_for_trained_weights(trained: Path, boundary: str) -> None:
    saved = checkpoint.load(trained / "best.h5")
    config = make_config("hcnn", {**vars(saved.config), "preset": "hcnn", "boundary": boundary})
    network, parameters, moments = restore(trained, saved, config, np)
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype("float32")
    assert not list(failures(Subject(network, parameters, moments, images)))


# What breaks it, each caught by the same checks as networks above pass.


class PositionBias:
    """A bias for every position along v_{j-1} instead of one for every v_j."""

    def made_by(self, filters: Any, x: Any) -> Signal:
        c = self._filtered(filters, x)  # type: ignore[attr-defined]
        ramp = np.linspace(0, 1, c.shape[-2], dtype=c.dtype) if c.ndim > 4 else np.zeros(c.shape[-2], c.dtype)
        return Signal(elu(c + ramp[:, None], bias=filters["bias"]))


class PositionNorm:
    """Each position along the first attribute normalised by its own deviation."""

    def _reduced(self, signal: Any, *reduction: Any) -> Any:
        x = super()._reduced(signal, *reduction)  # type: ignore[misc]
        deviation = x[:, :1, :1].std(axis=tuple(range(4, x.ndim)), keepdims=True) if x.ndim > 3 else x.dtype.type(1)
        return x / (deviation + x.dtype.type(0.1))


class CornerNorm:
    """Moments of the patches of a corner instead of all."""

    def _patch_moments(self, x: Any, shard: Any) -> Any:
        corner = x[:, :2, :2, :1, :2] if x.ndim == 5 else x  # plain layers have no moments of patches
        return super()._patch_moments(corner, shard)  # type: ignore[misc]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("defect", [PositionBias, PositionNorm, CornerNorm])
def test_what_depends_on_position_breaks_the_proposition(defect: type, dtype: str) -> None:
    assert any(failures(subject({**PAPER, "dtype": dtype}, 2, with_layers(defect), size=8)))


def zero_along_attributes(x: Any, w: Any, axes: Any, **options: Any) -> Any:
    along = (axes,) if isinstance(axes, int) else axes
    return convolve(x, w, axes, **{**options, "boundary": tuple("zero" if a > 2 else "periodic" for a in along)})


def wrong_period(x: Any, w: Any, axes: Any, **options: Any) -> Any:
    """Attributes wrap around one sample too late."""
    along = (axes,) if isinstance(axes, int) else axes
    attributes = [a for a in along if a > 2]
    longer = np.pad(x, [(0, int(a in attributes)) for a in range(x.ndim)])
    y = convolve(longer, w, axes, **{**options, "stride": 1})
    cut: list[slice] = [slice(None)] * y.ndim
    steps = options.get("stride", 1)
    for a, r in zip(along, (steps,) * len(along) if isinstance(steps, int) else steps, strict=True):
        cut[a] = slice(0, x.shape[a], r)
    return y[tuple(cut)]


def late_samples(x: Any, w: Any, axes: Any, **options: Any) -> Any:
    """A stride misread: the last sample kept is that of the position after its own."""
    y = convolve(x, w, axes, **options)
    if x.ndim < 5 or isinstance(axes, int):
        return y
    late = convolve(translate(x, -1, 4, boundary="periodic"), w, axes, **options)
    return np.concatenate([y[:, :, :, :, :-1], late[:, :, :, :, -1:]], axis=4)


@pytest.mark.parametrize(("boundary", "axis"), [("zero", "v"), ("periodic", "u")])
def test_boundaries_of_space_and_of_attributes_are_told_apart(
    boundary: str, axis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Extended in one way along both."""

    def broken(x: Any, w: Any, bias: Any, axes: Any, **options: Any) -> Any:
        return elu(convolve(x, w, axes, **{**options, "boundary": boundary}), bias=bias)

    make_layers(monkeypatch, broken)
    assert axis in {row.axis[0] for row in failures(subject({**PAPER, "boundary": "attributes"}, 3, size=8))}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("broken", [zero_along_attributes, wrong_period, late_samples])
def test_convolutions_that_are_none_break_the_proposition(
    broken: Callable[..., Any], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_layers(monkeypatch, lambda x, w, b, axes, **o: elu(broken(x, w, axes, **o), bias=b))
    assert any(failures(subject({**PAPER, "dtype": dtype}, 3, size=8)))


@pytest.mark.parametrize("age", [0, 1])
def test_translations_that_are_no_multiples_are_caught(age: int) -> None:
    """v_j at multiples of 2, v_{j-1} at multiples of 1: half of what the strides to come ask for."""
    tried = subject(PAPER, 4, size=8)
    x = tried.activations[4]
    tail, position, exact = tried.tail(4, "evaluation"), 5 - age, 4 >> age
    assert_translation_invariant(tail, x, position, exact, stages=8)
    with pytest.raises(AssertionError, match=f"translating x by {exact // 2} along axis {position} "):
        assert_translation_invariant(tail, x, position, exact // 2, stages=8)


def test_the_class_is_no_attribute_to_translate_along() -> None:
    tried = subject(PAPER, 5, size=8)
    with pytest.raises(AssertionError, match="not invariant"):
        assert_translation_invariant(tried.tail(7, "evaluation"), tried.activations[7], 5)


def test_aliasing_depends_on_the_shift_modulo_the_strides_to_come() -> None:
    """What the algebra says of the other translations (docs/aliasing.md): periodic, and v_j - 2 misses one stride only.

    Translations by s and s + m differ by one that is exact, so by rounding alone.
    """
    tried = subject(PAPER, 7, size=8)
    x, axis = tried.activations[4], axes(hierarchy(tried.network), 4)[-1]
    tail = tried.tail(4, "evaluation")
    moved = [tail(translate(x, s, axis.position, boundary="periodic")) for s in range(axis.length)]
    assert axis.exact == 4 and axis.length == 8
    scale = np.abs(moved[0]).max()
    for s in range(4):
        np.testing.assert_allclose(moved[s], moved[s + 4], rtol=0, atol=1e-13 * scale)
    changes = [np.abs(y - moved[0]).max() / scale for y in moved[1:4]]
    assert min(changes) > 1e-4


def test_what_aliases_is_the_frequency_that_the_stride_folds_onto_zero() -> None:
    """One stride of 2, then the sum: a translation by 1 changes it by the alternating sum of rho's output."""
    rng = np.random.default_rng(8)
    x, w = rng.standard_normal((3, 16)), rng.standard_normal(5)

    def strided(x: Any) -> Any:
        return elu(convolve(x, w, 1, boundary="periodic", stride=2)).sum(1)

    spectrum = np.fft.fft(elu(convolve(x, w, 1, boundary="periodic")), axis=1)
    change = strided(translate(x, 1, 1, boundary="periodic")) - strided(x)
    np.testing.assert_allclose(change, -spectrum[:, 8].real, rtol=0, atol=1e-13 * np.abs(spectrum).max())
    np.testing.assert_allclose(strided(x), (spectrum[:, 0] + spectrum[:, 8]).real / 2, rtol=1e-12)
