"""`python -m hcnn verify`: what it says, writes and refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hcnn_core import convolve, elu
from tests.train.commands import made_up
from tests.train.defects import make_layers
from tests.train.runs import SMALL, Outcome, edited, finish, run_here, run_plainly, start
from train.config import PRESETS


def verifying(*arguments: object) -> Outcome:
    """The command line in this process."""
    return run_here(("verify", *arguments), None)


@pytest.fixture(scope="module")
def verified(first_run: tuple[Path, Outcome], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A trained network's verification at both boundaries: its directory, and what it printed."""
    out = tmp_path_factory.mktemp("verified") / "report"
    outcome = verifying(first_run[0] / "best.h5", "--boundary", "both", "--max-examples", 2, "--out", out)
    return out, outcome.success()


def test_a_trained_network_is_verified(verified: tuple[Path, str]) -> None:
    out, text = verified
    assert sorted(path.name for path in out.iterdir()) == ["verify.html", "verify.json"]
    assert all(str(out / name) in text for name in ("verify.html", "verify.json"))
    assert "holds" in text and "measured" in text and "FAILS" not in text
    rows = json.loads((out / "verify.json").read_text("utf-8"))["rows"]
    assert {row["boundary"] for row in rows} == {"periodic", "zero"}
    assert {row["mode"] for row in rows} == {"evaluation", "training"}
    assert all(len(row["errors"]) == len(row["bounds"]) == 2 for row in rows)
    assert all(row["largest"] <= max(row["bounds"]) for row in rows if row["must_hold"])


def biased_by_position(x: Any, w: Any, axes: Any, **options: Any) -> Any:
    y = convolve(x, w, axes, **options)
    return y + np.linspace(0, 1, y.shape[-2], dtype=y.dtype)[:, None] if y.ndim > 4 else y


def test_a_network_that_is_not_covariant_fails(
    first_run: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = first_run[0] / "best.h5"
    make_layers(monkeypatch, lambda x, w, b, axes, **o: elu(biased_by_position(x, w, axes, **o), bias=b))
    outcome = verifying(checkpoint, "--boundary", "periodic", "--max-examples", 1, "--out", tmp_path)
    outcome.one_line(1, "checks failed", f"see {tmp_path / 'verify.html'}")
    assert "FAILS" in outcome.out and "FAIL" in (tmp_path / "verify.html").read_text("utf-8")


def biased_along_v(x: Any, w: Any, bias: Any, axes: Any, **options: Any) -> Any:
    return elu(biased_by_position(x, w, axes, **options) + bias)


def periodic_at_one_layer(x: Any, w: Any, bias: Any, axes: Any, **options: Any) -> Any:
    """Where x has 16 samples along v_{j-2}, it is extended periodically, whatever is asked for."""
    return elu(convolve(x, w, axes, **(options | ({"boundary": "periodic"} if len(axes) == 4 else {}))) + bias)


def deviating_by_position(x: Any, w: Any, bias: Any, axes: Any, **options: Any) -> Any:
    """Normalised by a deviation that grows by 1 % along the last attribute."""
    y = convolve(x, w, axes, **options)
    return elu((y * np.linspace(1, 1.01, y.shape[-2], dtype=y.dtype)[:, None] if y.ndim > 4 else y) + bias)


@pytest.mark.parametrize("defect", [biased_along_v, periodic_at_one_layer, deviating_by_position])
def test_what_is_wrong_along_attributes_shows_at_zero_boundaries(
    first_run: tuple[Path, Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    defect: Callable[..., Any],
) -> None:
    """Where no translation along them is exact."""
    make_layers(monkeypatch, defect)
    flags = (first_run[0] / "best.h5", "--boundary", "zero", "--out", tmp_path)
    outcome = verifying(*flags)
    outcome.one_line(1, "checks failed")
    rows = json.loads((tmp_path / "verify.json").read_text("utf-8"))["rows"]
    failing = {(row["statement"], row["j"]) for row in rows if row["verdict"] == "FAILS"}
    assert {("definition", 2), ("definition", 3)} & failing, failing


@pytest.mark.lot
@pytest.mark.slow
@pytest.mark.usefixtures("small_preset")
@pytest.mark.parametrize(
    "changes",
    [
        {"nonlinear_factors": True},
        {"nonlinear_factors": True, "attribute_kernel": (4, 6), "space_kernel": 2},
        {"reduction": "sum", "width": 5, "attribute_stride": 3},
        {"normalization": "both"},
    ],
    ids=str,
)
def test_layers_of_random_networks_are_what_is_written_out(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "sample", PRESETS["sample"] | changes)
    out = verifying("--preset", "sample", "--boundary", "zero", "--out", tmp_path).success()
    verdict = out.split("\n\n")[-2]
    assert verdict.startswith("zero: all ") and ".\n  Not checked: at zero boundaries, outputs between" in verdict
    rows = json.loads((tmp_path / "verify.json").read_text("utf-8"))["rows"]
    definitions = [row for row in rows if row["statement"] == "definition"]
    assert {row["j"] for row in definitions} == set(range(5))
    assert {row["axis"] for row in definitions} >= {"u1", "u2", "v_j", "v_{j-1}"}
    assert all(row["largest"] < 1e-13 for row in definitions)


@pytest.fixture
def small_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preset sample with five layers."""
    monkeypatch.setitem(PRESETS, "sample", {**PRESETS["sample"], "depth": 6, "width": 4, "factors": 4})


@pytest.mark.usefixtures("small_preset")
def test_random_networks_are_verified_in_single_precision(tmp_path: Path) -> None:
    outcome = verifying(
        *("--preset", "sample", "--boundary", "periodic", "--reduction", "sum", "--dtype", "float32"),
        *("--max-examples", 1, "--out", tmp_path),
    )
    outcome.success()
    saved = json.loads((tmp_path / "verify.json").read_text("utf-8"))
    assert "--preset sample" in json.dumps(saved) and "FAILS" not in outcome.out
    assert saved["description"]["dtype"] == "float32"
    exact = [row["largest"] for row in saved["rows"] if row["must_hold"]]
    assert 1e-9 < max(exact) < 1e-4  # in double precision it is far below


@pytest.mark.usefixtures("small_preset")
def test_what_is_there_is_not_overwritten(verified: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = verified
    before = (out / "verify.json").read_bytes()
    verifying("--preset", "sample", "--out", out).one_line(1, "holds a verification; name a new directory")
    assert (out / "verify.json").read_bytes() == before
    (tmp_path / "file").touch()
    verifying("--out", tmp_path / "file").one_line(1, "is a file; name a new directory")
    verifying("--preset", "sample", "--out", tmp_path / "file" / "below").one_line(1, "cannot write to")


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("--preset", "nothing"), ("--preset", "hcnn-plus")),
        (("--preset", "hcnn", "x.h5"), ("not allowed with",)),
        (("--boundary", "mirror"), ("periodic",)),
        (("--dtype", "complex64"), ("float32", "float64")),
        (("--max-examples", 0), ("at least 1",)),
        (("--hypernetwork", 0), ("at least 1",)),
        (("--max-examples", "many"), ("--max-examples",)),
        (("--images", 501), ("500",)),
        (("--seed", -1), ("--seed",)),
        (("--shift", 1), ("--shift",)),
        (("--dataset", "cifar10"), ("'cifar10' is neither a file FILE.npz nor MODULE:FUNCTION",)),
        (("--out", ""), ("--out: '' is no path",)),
    ],
)
def test_wrong_command_lines(arguments: tuple[object, ...], fragments: tuple[str, ...]) -> None:
    verifying(*arguments).one_line(2, *fragments)


def changed_copy(source: Path, target: Path, change: Callable[[Any], None]) -> Path:
    """A copy of an HDF5 file with something changed in it."""
    shutil.copy(source, target)
    with edited(target) as file:
        change(file)
    return target


def test_a_network_that_does_not_react_decides_nothing(trained: Path, tmp_path: Path) -> None:
    def silence(file: Any) -> None:
        for layer in file["parameters"].values():
            for name in layer:
                layer[name][...] = 0

    silent = changed_copy(trained / "best.h5", tmp_path / "silent.h5", silence)
    outcome = verifying(silent, "--boundary", "periodic", "--out", tmp_path / "out")
    outcome.one_line(1, "undecided: the result does not react to x_j")
    assert "undecided" in outcome.out and "FAILS" not in outcome.out


def test_wrong_files(trained: Path, tmp_path: Path) -> None:
    verifying(tmp_path / "none.h5").one_line(1, "there is no checkpoint at")
    for network in (trained, trained / "best.h5"):  # a run's folder names its latest
        verifying(network, "--images", 501).one_line(2, "--images is 501")

    def shorten(file: Any) -> None:
        weights = file["parameters/layer03/g"][...]
        del file["parameters/layer03/g"]
        file["parameters/layer03/g"] = weights[:, :-1]

    other = changed_copy(trained / "best.h5", tmp_path / "other.h5", shorten)
    verifying(other).one_line(1, "is of another network: parameters layer03/g")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "exact"), [((28, 28), {"u1": 4, "u2": 4}), ((12, 20, 4), {"u1": 4, "u2": 4}), ((7, 10, 2), {"u1": 7})]
)
def test_networks_for_other_images_are_verified(tmp_path: Path, shape: tuple[int, ...], exact: dict[str, int]) -> None:
    """On the images that they were trained on. 7 pixels are not whole strides: only the whole turn is exact."""
    file, run, out = tmp_path / "images.npz", tmp_path / "run", tmp_path / "out"
    np.savez(file, **made_up(shape, 3))
    run_plainly((*SMALL, "--epochs", 1, "--shift", 0, "--dataset", file, "--out", run), None).success()
    outcome = verifying(run / "best.h5", "--boundary", "both", "--images", 2, "--out", out)
    assert outcome.status == 0 and "FAILS" not in outcome.out, outcome
    found = json.loads((out / "verify.json").read_text("utf-8"))
    assert f"2 of the test images of {file}" in json.dumps(found)
    rows = [row for row in found["rows"] if row["statement"] == "invariance" and row["boundary"] == "periodic"]
    for axis, least in exact.items():
        of_images = [row for row in rows if row["j"] == 0 and row["axis"] == axis]
        must = {row["shift"] for row in of_images if row["must_hold"]}
        assert of_images and must == {row["shift"] for row in of_images if row["shift"] % least == 0}

    np.savez(tmp_path / "other.npz", **made_up((*shape[:2][::-1], 3), 3))
    other = verifying(run / "best.h5", "--dataset", tmp_path / "other.npz")
    other.one_line(2, f"takes images of {shape[0]}x{shape[1]}x", "other.npz", "name its own with --dataset")
    file.rename(tmp_path / "moved.npz")
    verifying(run / "best.h5").one_line(1, f"there is no file {file}", "--dataset")


@pytest.mark.usefixtures("small_preset")
def test_random_networks_take_images_of_ones_own(tmp_path: Path) -> None:
    arrays, small = made_up((8, 12, 2), 3), ("--preset", "sample", "--boundary", "periodic")
    np.savez(tmp_path / "a.npz", **arrays)
    outcome = verifying(*small, "--dataset", tmp_path / "a.npz", "--out", tmp_path / "out")
    assert outcome.status == 0 and "holds" in outcome.out, outcome
    for part in ("x_train", "x_test"):
        arrays[part][..., 1] = 255
    np.savez(tmp_path / "b.npz", **arrays)
    verifying(*small, "--dataset", tmp_path / "b.npz").one_line(1, "channel 1", "is 255 everywhere")


def test_no_code_is_called_that_a_checkpoint_alone_names(trained: Path, tmp_path: Path) -> None:
    def rename(file: Any) -> None:
        file.attrs["config"] = json.dumps(json.loads(file.attrs["config"]) | {"dataset": "antigravity:geohash"})

    named = changed_copy(trained / "best.h5", tmp_path / "named.h5", rename)
    verifying(named).one_line(2, "would call antigravity:geohash", "add --dataset antigravity:geohash")


@pytest.mark.gpu
def test_on_a_gpu(tmp_path: Path) -> None:
    arguments = ("--preset", "sample", "--boundary", "periodic", "--max-examples", 1, "--backend", "cupy")
    verifying(*arguments, "--out", tmp_path).success()


def test_help_in_a_process_of_its_own() -> None:
    outcome = finish(start("-m", "hcnn", "verify", "--help"))
    assert outcome.status == 0 and "Proposition 3.1" in " ".join(outcome.out.split())
