"""The Python of the README and of the pages for users runs, in order, and prints what its comments say."""

from __future__ import annotations

import contextlib
import io
import os
import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage

import hcnn
from hcnn_core.testing import check_translation_covariant

ROOT = Path(__file__).resolve().parents[1]


def run(document: str) -> tuple[list[str], dict[str, Any]]:
    """Run the blocks of a document; the lines that they print, and the names that they leave."""
    text = (ROOT / document).read_text("utf-8")
    if document.endswith(".rst"):
        blocks = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", text, re.MULTILINE)
    else:
        blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    output, names = io.StringIO(), dict[str, Any]()
    with contextlib.redirect_stdout(output):
        for block in blocks:
            exec(compile(textwrap.dedent(block), document, "exec"), names)
    return output.getvalue().splitlines(), names


def test_readme() -> None:
    (*convolved, classified), names = run("README.md")
    (shown,) = re.findall(r"^```\n(\[\[.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert convolved == shown.splitlines() and len(convolved) == 6
    x, w = np.arange(12.0).reshape(3, 4), np.ones((3, 3)) / 9
    expected = scipy.ndimage.convolve(x, w, mode="nearest")
    assert "\n".join(convolved[:3]) == str(expected.round(1))

    def loss(change: np.ndarray[Any, Any]) -> float:
        return float(np.sum(scipy.ndimage.convolve(x, w + change, mode="constant") ** 2))

    steps = np.eye(9).reshape(9, 3, 3)  # of a quadratic function such differences are derivatives
    gradient = np.reshape([(loss(step) - loss(-step)) / 2 for step in steps], (3, 3))
    assert "\n".join(convolved[3:]) == str(gradient.round())
    assert classified.endswith("'] (10,)")
    names["test_my_layer"](check_translation_covariant)


def test_first_page_of_the_site() -> None:
    (shapes, classified), names = run("docs/index.rst")
    assert shapes == "(2, 32, 32, 4, 8, 16) (3, 3, 7, 11, 16)"
    assert classified.startswith("['")
    names["test_my_layer"](check_translation_covariant)


def test_convolve() -> None:
    (shape, covariance, adjoint, modes, gradient), names = run("docs/convolve.md")
    assert modes == "True True"
    for samples, taps in ((9, 4), (9, 5), (8, 8), (7, 1)):  # the recipes for "full" and "valid", even and odd filters
        a, v, c = np.arange(samples) + 1.0, np.arange(taps) - 0.5, taps // 2
        full = hcnn.convolve(np.pad(a, (c, taps - 1 - c)), v, 0, boundary="zero")
        valid = hcnn.convolve(a, v, 0, boundary="zero")[taps - 1 - c : samples - c]
        assert np.allclose(full, np.convolve(a, v, "full")) and np.allclose(valid, np.convolve(a, v, "valid"))
    with pytest.raises(ValueError, match=r"docs/convolve\.md says how to pad or crop"):
        hcnn.convolve(names["a"], names["v"], 0, boundary="valid")
    assert shape == "(2, 32, 32, 4, 8, 16)"
    assert float(covariance) < 1e-11
    assert adjoint == "True"
    assert gradient == "(3, 3, 7, 11, 16)"


def test_containers() -> None:
    """What xarray and Dask compute is what arrays give; one line names the cure where they are passed as they are."""
    xarray, dask_array = pytest.importorskip("xarray"), pytest.importorskip("dask.array")
    (dims, named, *in_blocks), names = run("docs/containers.md")
    assert dims == "('time', 'band', 'y', 'x') {'units': 'K'}" and named == "True"
    assert in_blocks == ["periodic True", "nearest True", "reflect True", "0 True"]
    few = names["w"][:, :3]  # too shallow an overlap is noticed
    shallow = dask_array.map_overlap(
        lambda block: hcnn.convolve(block, few, (0, 2, 3), boundary="zero"),
        names["large"],
        depth={0: 1, 2: 1, 3: 1},
        boundary=0,
        meta=np.empty(0),
    )
    assert not np.allclose(shallow.compute(), hcnn.convolve(names["film"].data, few, (0, 2, 3), boundary="zero"))
    for array, cure in ((names["film"], "xarray.apply_ufunc"), (names["large"], "dask.array.map_overlap")):
        with pytest.raises(TypeError, match=f"{cure} .docs/containers.md"):
            hcnn.convolve(array, names["w"], (0, 2, 3), boundary="zero")
    assert isinstance(names["smooth"], xarray.DataArray)


def test_verify() -> None:
    run("docs/verify.md")[1]["test_my_layer"](check_translation_covariant)


def test_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (*epochs, mine, said, shipped), _ = run("docs/train.md")
    assert epochs[-1] == "1" and os.listdir("runs") == ["mine"]
    assert said.startswith("<Classifier hcnn-best: 10 classes, 97,650 coefficients, ")
    assert mine in ("['cat']", "['dog']")
    predicted, _, total = shipped.rpartition(" ")
    assert predicted.endswith("'] (10,)") and float(total) == pytest.approx(1, abs=1e-5)
