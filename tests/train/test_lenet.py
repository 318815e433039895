"""LeNet-5: its numbers and values by the paper, its derivative, runs of it, and what refuses it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import convolve as scipy_convolve

from autodiff import check_grads, cross_entropy, grad
from tests.core.oracle import noise
from tests.train.runs import (
    Outcome,
    assert_same_state,
    edited,
    metrics,
    run_plainly,
    saved_state,
    without_pictures,
)
from train import explore, load, verify
from train.config import ConfigError, make_config
from train.networks.lenet import CONNECTIONS
from train.networks.network import Network
from train.networks.registry import build

Command = Callable[..., Outcome]

RUN = ("--preset", "lenet", "--dataset", "sample", "--validation-size", 8, "--batch-size", 8, "--epochs", 4)


def lenet(**options: int) -> Network:
    return build(make_config("lenet", {"dtype": "float64"}), **options)


def test_table_1_of_the_paper() -> None:
    """Section II.B: six maps see three contiguous ones, six see four, three see four that are not, one sees all."""
    columns = ["".join("X" if seen else "." for seen in column) for column in CONNECTIONS.T]
    around = [column + column for column in columns]
    assert all("XXX" in turn and column.count("X") == 3 for turn, column in zip(around[:6], columns[:6], strict=True))
    assert all(
        "XXXX" in turn and column.count("X") == 4 for turn, column in zip(around[6:], columns[6:12], strict=False)
    )
    assert all("XXX" not in turn and turn.count("X") == 8 for turn in around[12:15])
    assert columns[15] == "XXXXXX" and len(set(columns)) == 16


def test_trainable_numbers_are_those_of_the_paper() -> None:
    """156, 12, 1,516, 32, 48,120 and 10,164 of grey images, 60,000 in all; two more colours add 2 x 25 x 6 to C1."""
    grey, colour = lenet(channels=1), lenet()
    assert [layer.trainable for layer in grey.table[:-1]] == [156, 12, 1516, 32, 48120, 10164]
    assert sum(layer.trainable for layer in grey.table[:-1]) == 60_000
    assert [layer.outputs for layer in grey.table] == [
        *((28, 28, 6), (14, 14, 6), (10, 10, 16), (5, 5, 16), (1, 1, 120), (84,), (10,))
    ]
    assert sum(layer.trainable for layer in colour.table) == 60_300 + 850
    assert "61,150" in colour.describe()
    parameters = colour.initialize(np.random.default_rng(0))
    for layer in colour.table:
        assert (
            sum(np.count_nonzero(a) if a.ndim > 1 else a.size for a in parameters[layer.name].values())
            == layer.trainable
        )
    assert colour.table[2].multiply_adds == 60 * 25 * 100


def by_loops(parameters: dict[str, dict[str, np.ndarray]], x: np.ndarray) -> np.ndarray:
    """Figure 2 of the paper map by map, by SciPy's valid convolutions and loops over blocks."""
    maps = list(np.moveaxis(x, -1, 0))
    for name in ("C1", "S2", "C3", "S4", "C5"):
        p, made = parameters[name], []
        for k, bias in enumerate(p["bias"]):
            if name.startswith("S"):
                rows, columns = maps[k].shape
                blocks = [
                    [maps[k][i : i + 2, j : j + 2].mean() for j in range(0, columns, 2)] for i in range(0, rows, 2)
                ]
                made.append(np.array(blocks) * p["scale"][k] + bias)
            else:
                seen = [s for s in range(len(maps)) if name != "C3" or CONNECTIONS[s, k]]
                made.append(sum(scipy_convolve(maps[s], p["w"][s, :, :, k], "valid", "direct") for s in seen) + bias)
        maps = [1.7159 * np.tanh(2 / 3 * y) for y in made]
    units = np.array([y.mean() for y in maps])
    units = 1.7159 * np.tanh(2 / 3 * (units @ parameters["F6"]["w"] + parameters["F6"]["bias"]))
    return np.asarray(units @ parameters["output"]["w"] + parameters["output"]["bias"])


@pytest.mark.parametrize("size", [(32, 32), (36, 40)])
def test_values_are_those_of_the_figure_written_out(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    network = build(make_config("lenet", {"dtype": "float64"}), size, 4)
    parameters = network.initialize(rng)
    for arrays in parameters.values():  # so that no bias is 0, no scale 1, and no connection missing by its weight
        arrays.update({name: a + 0.1 * rng.standard_normal(a.shape) for name, a in arrays.items()})
    x = noise(1, (2, *size, 3), "float64")
    logits, moments = network(parameters, x)
    assert moments == {} and logits.shape == (2, 4)
    np.testing.assert_allclose(logits, [by_loops(parameters, image) for image in x], rtol=0, atol=1e-12)
    parameters["C3"]["w"] = np.where(CONNECTIONS[:, None, None, :], parameters["C3"]["w"], 7.0)
    assert np.array_equal(network(parameters, x)[0], logits)


def test_derivative_and_what_is_not_connected() -> None:
    network = lenet(classes=3)
    parameters = network.initialize(np.random.default_rng(0))
    x, labels = noise(2, (2, 32, 32, 3), "float64"), np.array([0, 2])

    def loss(p: object) -> object:
        return cross_entropy(network(p, x)[0], labels)  # type: ignore[arg-type]

    check_grads(loss, 1)(parameters)
    found = grad(loss)(parameters)["C3"]["w"]
    assert np.array_equal(np.abs(found).max(axis=(1, 2)) > 0, CONNECTIONS)


@pytest.mark.parametrize("size", [28, 34, (32, 30)])
def test_sizes_that_leave_half_a_block_are_refused(size: int | tuple[int, int]) -> None:
    rows, columns = (size, size) if isinstance(size, int) else size
    network = lenet()
    with pytest.raises(ConfigError, match=f"images are {rows}x{columns}"):
        network(network.initialize(np.random.default_rng(0)), np.zeros((1, rows, columns, 3)))


def test_its_settings_leave_those_of_others_alone() -> None:
    assert make_config("lenet", {"dataset": "cifar100"}).attribute_kernel == make_config().attribute_kernel


def test_a_run_learns_resumes_exactly_and_draws_its_report(drawing_command: Command, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    drawing_command(*RUN, "--average-decay", 0.5, "--out", whole).success()
    losses = [record["train_loss"] for record in metrics(whole) if "train_loss" in record]
    assert losses[-1] < 0.9 * losses[0]
    page = (whole / "report.html").read_text("utf-8")
    assert 'alt="Filter 5"' in page and 'alt="Filter 6"' not in page
    part.mkdir()
    for name in ("config.toml", "metrics.jsonl", "epoch0002-step000000.h5"):
        shutil.copy(whole / name, part)
    with without_pictures():
        drawing_command("--resume", part).success()
    assert metrics(part) == metrics(whole)
    assert_same_state(part / "epoch0004-step000000.h5", whole / "epoch0004-step000000.h5")
    assert "test: accuracy" in drawing_command("--evaluate", whole).success()


def test_its_weights_go_on_and_go_out(command: Command, tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    command(*RUN[:-1], 1, "--out", run).success()
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)
    labels = np.arange(12, dtype=np.uint8) % 3
    np.savez(tmp_path / "three.npz", x_train=images, y_train=labels, x_test=images[:3], y_test=labels[:3])
    settings = ("--preset", "lenet", "--epochs", 1, "--batch-size", 12, "--learning-rate", 0, "--init-from", run)
    said = run_plainly((*settings, "--dataset", tmp_path / "three.npz", "--out", other), None).success()
    assert "drawn, since its head is another: output\n" in said
    given, taken = (saved_state(folder / "best.h5") for folder in (run, other))
    assert np.array_equal(given["parameters/C3/w"], taken["parameters/C3/w"])

    command("export", run, tmp_path / "alone.h5").success()
    network = load(tmp_path / "alone.h5")
    assert np.array_equal(network.logits(images), load(run).logits(images))
    with pytest.raises(TypeError, match="LeNet-5 has no merged filters"):
        network.merged  # noqa: B018
    refused = command("export", run, tmp_path / "merged.safetensors")
    refused.one_line(1, "LeNet-5 has no filters to merge: export .h5")


def test_what_needs_attributes_refuses_it(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    command(*RUN[:-1], 1, "--out", run).success()
    for main, arguments, status in (
        (verify.main, (run / "best.h5",), 2),
        (verify.main, ("--preset", "lenet"), 2),
        (explore.main, (run / "best.h5",), 1),
    ):
        assert main([*map(str, arguments), "--out", str(tmp_path / "page")]) == status
        said = capsys.readouterr().err
        assert "no attributes" in said and said.count("\n") == 1
    small = command(*RUN, "--image-sizes", 16, 32, "--out", tmp_path / "small")
    small.one_line(2, "images are 16x16; LeNet-5 takes sides of at least 32")
    with edited(run / "best.h5") as file:
        del file["parameters/S2"]
    command("--evaluate", run / "best.h5").one_line(1, "parameters S2/bias is absent")
