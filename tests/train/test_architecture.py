"""A new network, as docs/architecture.md says to add one, through everything that takes networks."""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.runs import SMALL, Outcome, assert_same_run, explore_here, without_pictures
from train import load, verify
from train.config import ConfigError, make_config
from train.networks import hierarchical, registry
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
    with without_pictures():
        drawing_command(*RUN, "--hours", 1e-9, "--out", part).success()
        drawing_command("--resume", part).success()
        other = drawing_command(*RUN, "--optimizer", "adamw", "--out", tmp_path / "adamw")
    assert "epoch 4/4" in other.success()
    assert_same_run(part, whole)
    page = (whole / "report.html").read_text("utf-8")
    assert "Confusion" in page and "First filters" not in page
    assert "test: accuracy" in drawing_command("--evaluate", whole).success()
    drawing_command("export", whole, tmp_path / "alone.h5").success()
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    assert np.array_equal(load(tmp_path / "alone.h5").logits(images), load(whole).logits(images))
    refused = drawing_command("export", whole, tmp_path / "merged.safetensors")
    refused.one_line(1, "a linear classifier has no filters to merge: export .h5")


def test_names_are_taken_once(linear: Any) -> None:
    with pytest.raises(ValueError, match="linear: there is an architecture or a preset of that name"):
        registry.register("linear", linear["ARCHITECTURE"])


class Halves(Layer):
    """A row between others, which keeps axes."""

    name, reads = "halves", ("layer03",)

    def __init__(self, lengths: tuple[int, ...]) -> None:
        self.inputs = self.outputs = lengths

    def apply(self, weights: Any, *inputs: Any) -> Any:
        return inputs[0] / 2


@pytest.fixture
def with_a_row_between(request: pytest.FixtureRequest) -> Iterator[None]:
    """A hierarchical network whose fourth layer reads another row than the third."""

    def build(*arguments: Any, **options: Any) -> Network:
        network = hierarchical.build(*arguments, **options)
        table = list(network.table)
        row, lengths = Halves(table[2].outputs), table[3].inputs
        lengths = lengths if request.param else (lengths[0] // 2, *lengths[1:])
        table[3:4] = [row, dataclasses.replace(table[3], reads=("halves",), inputs=lengths)]  # type: ignore[type-var]
        return Network(network.config, table, network.image_shape, network.classes)

    presets = {"row": {"width": 4, "factors": 4, "depth": 6, "boundary": "attributes", "learning_rate": 0.003}}
    entry = dataclasses.replace(hierarchical.ARCHITECTURE, title="a network with a row", build=build, presets=presets)
    registry.register("row", entry)
    try:
        yield
    finally:
        del registry.ARCHITECTURES["row"], registry.PRESETS["row"]


@pytest.mark.slow
@pytest.mark.parametrize("with_a_row_between", [True], indirect=True)
@pytest.mark.usefixtures("with_a_row_between")
def test_layers_are_asked_for_their_depth(
    command: Command, few_images: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows between them are walked through: every statement that must hold does, and translations are explored."""
    flags = "--max-examples", "1", "--images", "1", "--out"
    for preset, boundary in (("row", "zero"), ("row", "periodic"), ("scattering", "periodic")):
        out = tmp_path / f"{preset}-{boundary}"
        assert verify.main(["--preset", preset, "--boundary", boundary, *flags, str(out)]) == 0
        rows = json.loads((out / "verify.json").read_text())["rows"]
        assert {row["j"] for row in rows} == set(range(6))
    command(*SMALL, "--preset", "row", "--epochs", 1, "--no-test", "--out", tmp_path / "run").success()
    capsys.readouterr()
    found = explore_here(
        few_images,
        tmp_path / "run" / "best.h5",
        "--agreement",
        20,
        "--images",
        0,
        1,
        "--out",
        tmp_path / "page",
    )
    assert found.status == 0, found


@pytest.mark.parametrize("with_a_row_between", [False], indirect=True)
@pytest.mark.usefixtures("with_a_row_between")
def test_a_row_that_changes_axes_is_named() -> None:
    network = registry.build(make_config("row"), 8)
    with pytest.raises(ConfigError, match=r"what stands between layers 3 and 4 makes 4x8x.* of 8x8x.*rows that keep"):
        hierarchical.hierarchy(network)


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
