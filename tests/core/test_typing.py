"""What a user's `mypy --strict` sees of the public functions, and what importing them loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hcnn_core

ROOT = Path(__file__).resolve().parents[2]

HEAD = """
from typing import assert_type
import numpy as np
import hcnn
import hcnn.train.networks
import hcnn_core
from hcnn.core.testing import assert_adjoint
from hcnn.core.torch import ConvNd
from hcnn_core import backend
from hcnn_core import convolve, convolve_elu, convolve_vjp_w, convolve_vjp_x, correlate, elu, marginal, translate
from hcnn_core.typing import Array, Boundary, NumpyArray

single = np.zeros((4, 5), np.float32)
x = np.zeros((3, 2))
zero: Boundary = "zero"


def of_any_library(x: Array, w: Array) -> Array:
    return convolve(x, w, 0, boundary="periodic")
"""

RIGHT = [
    'assert_type(convolve(single, single, 0, boundary="zero"), NumpyArray[np.float32])',
    'assert_type(convolve(x, x, (0, 1), boundary=("zero", "periodic"), method="fft"), NumpyArray[np.float64])',
    "assert_type(correlate(x, x, 0, boundary=zero), NumpyArray[np.float64])",
    'assert_type(correlate(x, x, (0, 1), boundary=("zero", "mirror")), NumpyArray[np.float64])',
    "assert_type(convolve_vjp_x(x, (3, 2), x, 0, boundary=zero), NumpyArray[np.float64])",
    "assert_type(convolve_vjp_w(x, x, (3, 2), 0, boundary=zero), NumpyArray[np.float64])",
    "assert_type(convolve_elu(x, x, x, 0, boundary=zero), NumpyArray[np.float64])",
    "assert_type(hcnn_core.patch_moments(x, 0, 3, boundary=zero)[1], NumpyArray[np.float64])",
    "assert_type(marginal(x, 0), NumpyArray[np.float64])",
    "assert_type(hcnn_core.matmul(x, x), NumpyArray[np.float64])",
    "mixed: NumpyArray[np.inexact] = convolve(single, x, 0, boundary=zero)",
    "n, m = elu(single).shape",
    "n, m = translate(x, 1, 0, boundary=zero).shape",
    "n, m, k = convolve(x, x, 0, boundary=zero).shape",  # x has two axes, the result three
    "n, m = backend.empty(np, (2,), x).shape",
    'assert_type(hcnn.convolve(single, single, boundary="zero"), NumpyArray[np.float32])',
    "text: str = hcnn_core.__version__",
]

WRONG = {
    'convolve(x, x, 0, boundary="wrap")': "arg-type",
    'convolve(x, x, 0, boundary=("zero", "wrap"))': "arg-type",
    "convolve(x, x, 0)": "call-overload",
    'hcnn.convolve(x, x, 0, boundary="wrap")': "arg-type",
    'hcnn.correlate(x, x, 0, boundry="zero")': "call-overload",
    'convolve(x, x, 0, boundary="zero", mode="wrap")': "call-overload",
    'hcnn_core.patch_moments(x, 0, 3, boundary="mirror")': "arg-type",
    'convolve(x, x, 0, boundary="zero", method="taps")': "arg-type",
    'convolve("x", x, 0, boundary="zero")': "call-overload",
    'convolve(x, x, 0, boundary="zero").shapes': "attr-defined",
    "backend.empty(np, (2,), x).shapes": "attr-defined",  # arrays inside the engines are not Any
    "elu(x, 1.0)": "call-arg",
    'marginal(x, 0, reduction="max")': "call-overload",
    'translate(x, 1, 0, boundary="wrap")': "arg-type",
    'assert_type(convolve(x, x, 0, boundary="zero"), NumpyArray[np.float32])': "assert-type",
}


def test_types_that_a_user_sees(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text("\n".join([HEAD, *RIGHT, *WRONG]), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", tmp_path / "user.py"]  # with what `make lint` has cached
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    first = len([HEAD, *RIGHT]) + HEAD.count("\n")
    lines = [line.rpartition("user.py:")[2] for line in result.stdout.splitlines() if "user.py:" in line]
    errors = [line for line in lines if " error: " in line]
    found = {(int(line.split(":")[0]), line.rpartition("[")[2].rstrip("]")) for line in errors}
    expected = {(first + i + 1, code) for i, code in enumerate(WRONG.values())}
    assert expected <= found and dict(found).keys() == dict(expected).keys(), result.stdout + result.stderr


def loaded_by(statement: str) -> set[str]:
    """Modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_importing_loads_no_engine() -> None:
    loaded = loaded_by("import hcnn_core")
    late = {"numba", "llvmlite", "scipy", "scipy.fft", "cupy", "importlib.metadata"}
    assert not late & loaded
    engines = {name for name in loaded if name.startswith("hcnn_core._engines.")}
    assert engines == {f"hcnn_core._engines.{name}" for name in ("planner", "devices", "dispatch", "wisdom")}


def test_the_first_call_loads_an_engine() -> None:
    call = "import numpy, hcnn_core; hcnn_core.convolve(numpy.ones(4), numpy.ones(2), 0, boundary='zero')"
    assert "hcnn_core._engines.cost_model" in loaded_by(call)


def test_every_name_can_be_imported() -> None:
    names = ", ".join(hcnn_core.__all__)
    assert "hcnn_core.convolution" in loaded_by(f"from hcnn_core import {names}")
