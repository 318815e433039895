"""A new network, as docs/architecture.md says to add one, through everything that takes networks."""

from __future__ import annotations

import dataclasses
import functools
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodiff import check_grads, convolve, cross_entropy
from tests.train.runs import SMALL, Outcome, assert_same_run
from train import explore, load, verify
from train.config import ConfigError, make_config
from train.networks import hierarchical, registry
from train.networks.hierarchical import FactoredLayer, HierarchicalLayer, Kinds
from train.networks.layer import IMAGES, Layer
from train.networks.network import Network

Command = Callable[..., Outcome]
ROOT = Path(__file__).resolve().parents[2]
RUN = ("--preset", "linear", "--dataset", "sample", "--validation-size", 8, "--batch-size", 8, "--epochs", 4)


@pytest.fixture
def linear() -> Iterator[Any]:
    """The module of the page, registered."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    code = textwrap.dedent(re.findall(r"^ *```python\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL)[0])
    names: dict[str, Any] = {"__name__": "linear"}
    exec(code, names)
    registry.register("linear", names["ARCHITECTURE"])
    try:
        yield names
    finally:
        del registry.ARCHITECTURES["linear"], registry.PRESETS["linear"]


@pytest.mark.usefixtures("linear")
def test_it_is_trained_resumed_evaluated_reported_and_exported(drawing_command: Command, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert "30,730" in drawing_command("--describe", "--preset", "linear").success()
    drawing_command(*RUN, "--out", whole).success()
    drawing_command(*RUN, "--hours", 1e-9, "--out", part).success()
    drawing_command("--resume", part).success()
    assert_same_run(part, whole)
    page = (whole / "report.html").read_text("utf-8")
    assert "Confusion" in page and "First filters" not in page
    assert "test: accuracy" in drawing_command("--evaluate", whole).success()
    drawing_command("--export", whole, tmp_path / "alone.h5").success()
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    assert np.array_equal(load(tmp_path / "alone.h5").logits(images), load(whole).logits(images))
    refused = drawing_command("--export", whole, tmp_path / "merged.safetensors")
    refused.one_line(1, "a linear classifier has no filters to merge: export .h5")
    other = drawing_command(*RUN, "--optimizer", "adamw", "--out", tmp_path / "adamw")
    assert "epoch 4/4" in other.success()


@pytest.mark.usefixtures("linear")
def test_what_needs_attributes_says_what_it_lacks(
    drawing_command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing_command(*RUN[:-1], 1, "--out", tmp_path / "run").success()
    for main, flag in ((verify.main, "--checkpoint"), (explore.main, "--checkpoint")):
        assert main([flag, str(tmp_path / "run" / "best.h5"), "--out", str(tmp_path / "page")]) > 0
        said = capsys.readouterr().err
        assert "a linear classifier" in said and "no attributes" in said and said.count("\n") == 1


@pytest.mark.usefixtures("linear")
def test_settings_of_others_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="depth is 20, which is for architecture 'hcnn'; a linear classifier has no"):
        make_config("linear", {"depth": 20})


def test_names_are_taken_once(linear: Any) -> None:
    with pytest.raises(ValueError, match="linear: there is an architecture or a preset of that name"):
        registry.register("linear", linear["ARCHITECTURE"])


def tanh(x: Any, w: Any, bias: Any, axes: Any, **options: Any) -> Any:
    return np.tanh(convolve(x, w, axes, **options) + bias)


class Plain(HierarchicalLayer):
    _rho = staticmethod(tanh)


class Factored(Plain, FactoredLayer):
    pass


@pytest.fixture
def other_activation() -> Iterator[None]:
    """A hierarchical network with another nonlinearity, as the page says to make one."""
    build = functools.partial(hierarchical.build, kinds=Kinds(Plain, Factored, reduces=False))
    presets = {"tanh": {"dataset": "sample", "learning_rate": 0.003}}
    entry = dataclasses.replace(hierarchical.ARCHITECTURE, title="a network with tanh", build=build, presets=presets)
    registry.register("tanh", entry)
    try:
        yield
    finally:
        del registry.ARCHITECTURES["tanh"], registry.PRESETS["tanh"]


@pytest.mark.usefixtures("other_activation")
def test_a_hierarchical_network_takes_another_activation(command: Command, tmp_path: Path) -> None:
    network = registry.build(make_config("tanh", {"depth": 4, "width": 4, "factors": 3, "dtype": "float64"}), 8)
    rng = np.random.default_rng(0)
    weights, x, labels = network.initialize(rng), rng.standard_normal((2, 8, 8, 3)), np.array([0, 7])
    layer, found, _ = next(network.trace(weights, x))
    w, bias = weights[layer.name]["w"], weights[layer.name]["bias"]
    expected = np.tanh(convolve(x, w, (1, 2), sum_axes=3, boundary="zero") + bias)
    assert np.array_equal(found, expected)
    check_grads(lambda p: cross_entropy(network(p, x)[0], labels), 1)(weights)
    logits, moments = network(weights, x)
    np.testing.assert_allclose(network.apply_merged(network.merged(weights, moments), x), logits, rtol=1e-10)
    with pytest.raises(ConfigError, match="cannot be periodic"):
        registry.architecture_of(config := make_config("tanh", {"boundary": "periodic"})).refuse(
            config, (30, 30), 10, 3
        )
    command(*SMALL, "--preset", "tanh", "--epochs", 1, "--no-test", "--out", tmp_path / "run").success()
    assert load(tmp_path / "run").network.config.architecture == "tanh"


class Add(Layer):
    """Adds up what it reads."""

    inputs = outputs = (2,)

    def __init__(self, name: str, *reads: str) -> None:
        self.name, self.reads = name, reads

    def apply(self, weights: Any, *inputs: Any) -> Any:
        return sum(inputs) + 1


def test_the_walk_keeps_what_later_layers_read_and_goes_on_from_a_state() -> None:
    config = make_config()
    table = [Add("a", IMAGES), Add("b", "a", IMAGES), Add("c", "b", "a"), Add("d", "c", "a")]
    network = Network(config, table, (1, 1, 1), 2)
    x = np.arange(2.0)
    found = {layer.name: y for layer, y, _ in network.trace({}, x)}
    a, b = x + 1, 2 * x + 2
    for name, expected in {"a": a, "b": b, "c": a + b + 1, "d": 2 * a + b + 2}.items():
        np.testing.assert_array_equal(found[name], expected)
    for state in ({"b": b, "a": a}, {"c": found["c"], "a": a}):
        np.testing.assert_array_equal(network({}, state)[0], found["d"])
    with pytest.raises(KeyError):  # a state that lacks what is read
        network({}, {"c": found["c"]})


@pytest.mark.parametrize("table", [[Add("a", "b"), Add("b", IMAGES)], [Add("a", IMAGES), Add("a", IMAGES)]])
def test_a_table_that_cannot_be_walked_is_refused(table: list[Layer]) -> None:
    with pytest.raises(ValueError, match="layer a reads"):
        Network(make_config(), table, (1, 1, 1), 2)
