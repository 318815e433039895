"""Activations as a part of the hierarchical network: no layer computes another than the one that is asked for."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from autodiff import check_grads, cross_entropy, elu, vjp
from tests.train.conftest import Command
from tests.train.runs import SMALL
from train import load
from train.config import make_config
from train.networks.activations import ACTIVATIONS, Activation
from train.networks.hierarchical import HierarchicalLayer
from train.networks.network import Network
from train.networks.registry import build
from train.verification.covariance import Subject, measure

KINDS: list[dict[str, Any]] = [
    {"nonlinear_factors": plus, "normalization": both, "skip": skip}
    for plus in (False, True)
    for both in ("factors", "both")
    for skip in ("none", "aligned", "aligned-mean", "previous", "dense")
] + [{"hypernetwork": 2, "normalization": "both", "depth": 7}]
TINY = {"depth": 6, "width": 4, "factors": 3, "attribute_kernel": (2, 2), "strided_layers": (4,), "dtype": "float64"}


def gelu(z: Any) -> Any:
    """As section 2 of arXiv:1606.08415 approximates z Phi(z)."""
    return 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_has_the_second_moment_and_the_slope_that_it_says(name: str) -> None:
    rho = ACTIVATIONS[name]
    found, _ = scipy.integrate.quad(lambda z: float(rho.rho(np.asarray(z))) ** 2 * scipy.stats.norm.pdf(z), -12, 12)
    assert rho.second_moment == pytest.approx(found, rel=1e-5)
    z = np.linspace(-6, 6, 240_001)
    assert rho.slope == pytest.approx(np.max(np.diff(rho.rho(z)) / np.diff(z)), rel=1e-6)
    check_grads(rho.rho, 2)(np.random.default_rng(0).standard_normal(9))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_slope_at_zero_is_that_of_the_fused_form(name: str) -> None:
    """PyTorch's ELU has 1 there too; a tie of two branches would have the mean of their slopes."""
    value, pull = vjp(ACTIVATIONS[name].rho, np.zeros(1))
    assert value == 0 and pull(np.ones(1))[0] == {"elu": 1.0, "gelu": 0.5}[name]
    x = np.array([-2.0, -1e-9, 0.0, 1e-9, 3.0])
    if name == "elu":
        assert np.array_equal(ACTIVATIONS[name].rho(x), elu(x))
        assert np.array_equal(vjp(ACTIVATIONS[name].rho, x)[1](x)[0], vjp(elu, x)[1](x)[0])


def test_gelu_is_that_of_the_paper() -> None:
    z = np.linspace(-8, 8, 999)
    np.testing.assert_allclose(ACTIVATIONS["gelu"].rho(z), gelu(z), rtol=0, atol=1e-14)
    assert np.abs(gelu(z) - z * scipy.stats.norm.cdf(z)).max() < 5e-4
    assert ACTIVATIONS["gelu"].rho(z.astype("float32")).dtype == np.float32


def network_of(**changes: Any) -> tuple[Network, Any, Any]:
    network = build(make_config("sample", {**TINY, **changes}), 8)
    rng = np.random.default_rng(0)
    weights = network.initialize(rng)
    for arrays in weights.values():
        if "bias" in arrays:
            arrays["bias"] = arrays["bias"] + 0.5 * rng.standard_normal(arrays["bias"].shape)
    return network, weights, rng.standard_normal((3, 8, 8, 3))


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_every_layer_computes_what_is_asked_for(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """ELU without its fused form is ELU, and GELU another function: in each layer, trained or merged."""
    network, weights, x = network_of(**changes)
    expected, moments = network(weights, x)
    elu = ACTIVATIONS["elu"]
    for rho, name in ((elu._replace(fused=None), "elu"), (Activation("GELU", gelu, 0.4, 1.2), "gelu")):
        monkeypatch.setitem(ACTIVATIONS, name, rho)
        other, _, _ = network_of(**changes, activation=name)
        for (layer, y, _), (_, z, _) in zip(network.trace(weights, x), other.trace(weights, x), strict=True):
            largest = float(np.abs(y - z).max()) / float(np.abs(y).max())
            assert largest < 1e-12 if name == "elu" else largest > 0.01, layer.label
        logits, moments = other(weights, x)
        merged = other.merged(weights, moments)
        np.testing.assert_allclose(other.apply_merged(merged, x), logits, rtol=0, atol=1e-11)
        assert (np.abs(logits - expected).max() < 1e-11) == (name == "elu")


@pytest.mark.lot
@pytest.mark.slow
@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_layers_with_gelu_are_what_the_equations_say(changes: dict[str, Any]) -> None:
    network, weights, x = network_of(**changes, activation="gelu", boundary="zero")
    _, moments = network(weights, x)
    rows = [example.row for example in measure(Subject(network, weights, moments, x))]
    written = [row for row in rows if row.statement == "definition"]
    assert {row.j for row in written} == set(range(network.config.depth - 1)) and all(
        row.holds for row in rows if row.must_hold
    )
    check_grads(lambda p: cross_entropy(network(p, x)[0], np.array([0, 7, 2])), 1)(weights)


def test_an_activation_is_one_entry(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACTIVATIONS, "tanh", Activation("tanh", np.tanh, 0.394, 1.0))
    out = tmp_path / "run"
    said = command(*SMALL, "--activation", "tanh", "--epochs", 1, "--no-test", "--out", out).success()
    assert "tanh has no fused form: it takes passes of its own" in said
    assert load(out).network.config.activation == "tanh"  # type: ignore[attr-defined]
    assert "GELU has no fused form" in command("--describe", "--preset", "sample", "--activation", "gelu").success()
    assert "no fused form" not in command("--describe", "--preset", "sample").success()
    command("--preset", "lenet", "--activation", "gelu").one_line(2, "activation is 'gelu', which is for architecture")


def test_what_a_step_needs_grows_with_what_it_keeps() -> None:
    (fused, _, _), (other, _, _) = (
        network_of(nonlinear_factors=True),
        network_of(nonlinear_factors=True, activation="gelu"),
    )
    for a, b in zip(fused.table, other.table, strict=True):
        assert (b.retained(4) > a.retained(4)) == isinstance(a, HierarchicalLayer)
    assert math.isclose(dataclasses.replace(other.table[0]).retained(1), 4.5 * 8 * 8 * 4)  # type: ignore[type-var]
