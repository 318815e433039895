"""Arrays of PyTorch and JAX come in, and the examples of docs/frameworks.md run."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autodiff
from autodiff import grad
from hcnn_core import convolve, convolve_vjp_w, convolve_vjp_x, cross_entropy, elu, marginal, patch_moments, translate
from hcnn_core.backend import array_namespace, on_host

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")
RNG = np.random.default_rng(1)
X, W = RNG.standard_normal((2, 6, 5)), RNG.standard_normal((3, 2, 4))
OPTIONS: dict[str, Any] = {"axes": (1, 2), "boundary": "periodic"}


@functools.cache
def run_blocks(name: str) -> tuple[list[str], dict[str, Any]]:
    """The lines that the blocks of a framework print, one block after the other, and what they define."""
    blocks = re.findall(rf"```python {name}\n(.*?)```", DOCUMENT, re.DOTALL)
    output, defined = io.StringIO(), dict[str, Any]()
    with contextlib.redirect_stdout(output):
        exec(compile("\n".join(blocks), f"docs/frameworks.md, {name}", "exec"), defined)
    return output.getvalue().splitlines(), defined


def test_the_first_block_of_the_readme() -> None:
    pytest.importorskip("torch")
    (block,) = re.findall(r"```python torch\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    with contextlib.redirect_stdout(output := io.StringIO()):
        exec(block, {})
    assert output.getvalue() == "torch.Size([1, 4, 6, 6, 6, 5])\n"


class Exchanged:
    """Stands in for an array of another library: DLPack and nothing else."""

    def __init__(self, data: Any, device: int = 1) -> None:
        self.data, self.device = data, device
        self.shape, self.dtype, self.ndim = data.shape, data.dtype, data.ndim

    def __dlpack__(self, **options: Any) -> Any:
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0


def makers() -> list[Any]:
    """Ways to make an array of another library of NumPy's."""

    def of_torch(a: Any) -> Any:
        return pytest.importorskip("torch").from_numpy(a.copy())

    def of_jax(a: Any) -> Any:
        jax = pytest.importorskip("jax")
        with jax.enable_x64(True):
            return jax.numpy.asarray(a)

    return [pytest.param(f, id=n) for n, f in (("stand-in", Exchanged), ("torch", of_torch), ("jax", of_jax))]


every_library = pytest.mark.parametrize("make", makers())


@every_library
def test_arrays_of_another_library_give_numpys_results(make: Any) -> None:
    x, w, y = make(X), make(W), convolve(X, W, **OPTIONS)
    for found, expected in [
        (convolve(x, w, **OPTIONS), y),
        (convolve(X, w, **OPTIONS), y),
        (convolve(x, W, **OPTIONS), y),
        (convolve_vjp_x(make(y), X.shape, w, **OPTIONS), convolve_vjp_x(y, X.shape, W, **OPTIONS)),
        (convolve_vjp_w(make(y), x, W.shape, **OPTIONS), convolve_vjp_w(y, X, W.shape, **OPTIONS)),
        (translate(x, 2, 1, boundary="zero"), translate(X, 2, 1, boundary="zero")),
        (elu(x, bias=make(X[0])), elu(X, bias=X[0])),
        (marginal(x, 1), marginal(X, 1)),
        (patch_moments(x, (1, 2), 3, boundary="zero")[1], patch_moments(X, (1, 2), 3, boundary="zero")[1]),
        (cross_entropy(make(X[0]), make(np.arange(5).repeat(2)[:6])), cross_entropy(X[0], np.arange(5).repeat(2)[:6])),
    ]:
        assert isinstance(found, np.ndarray | np.floating)
        np.testing.assert_array_equal(found, expected)


@every_library
def test_they_are_not_copied(make: Any) -> None:
    array = make(X)
    seen = on_host(array)
    assert type(seen) is np.ndarray
    assert seen.__array_interface__["data"][0] == on_host(array).__array_interface__["data"][0]
    assert np.shares_memory(seen, np.from_dlpack(array))


@every_library
def test_gradients_by_arrays_of_another_library(make: Any) -> None:
    def loss(x: Any, w: Any) -> Any:
        return np.sum(autodiff.convolve(x, w, **OPTIONS) ** 2)

    expected = grad(loss, (0, 1))(X, W)
    if make is not Exchanged:  # what is to be differentiated by
        for a, b in zip(grad(loss, (0, 1))(make(X), make(W)), expected, strict=True):
            assert type(a) is np.ndarray
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(grad(loss)(X, make(W)), grad(loss)(X, W))


def test_what_cannot_come_in_is_refused_with_the_cure() -> None:
    with pytest.raises(TypeError, match=r"got a tests\.Exchanged on another device: bring it to the CPU first"):
        convolve(Exchanged(X, device=2), W, **OPTIONS)
    with pytest.raises(TypeError, match=r"NumPy cannot take \(.*\): make it a plain float array first"):
        convolve(Exchanged(np.array(["a"])), W, **OPTIONS)
    with pytest.raises(TypeError, match=r"expected a NumPy or CuPy array, got builtins\.object"):
        convolve(object(), W, **OPTIONS)


def test_tensors_that_cannot_come_in() -> None:
    torch = pytest.importorskip("torch")
    for tensor, message in [
        (
            torch.ones(5, requires_grad=True),
            r"that records gradients: pass x\.detach\(\), or .* call hcnn\.core\.torch\.convolve",
        ),
        (torch.ones(5, dtype=torch.bfloat16), "NumPy cannot take .*: make it a plain float array"),
        (torch.ones(5, dtype=torch.complex64).conj(), "NumPy cannot take .*conjugate bit"),
        (torch.ones(5, device="meta"), "NumPy cannot take"),
    ]:
        with pytest.raises(TypeError, match=message):
            convolve(tensor, np.ones(3), 0, boundary="zero")


def test_traced_arrays_of_jax_are_refused() -> None:
    jax = pytest.importorskip("jax")
    for transform in (jax.jit, jax.grad):
        with pytest.raises(TypeError, match=r"inside jax\.jit or jax\.grad: call hcnn_core\.jax\.convolve there"):
            transform(lambda x: convolve(x, np.ones(3), 0, boundary="zero").sum())(jax.numpy.ones(5))


def test_libraries_that_do_not_mix_get_no_advice_about_cupy() -> None:
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(
        TypeError, match="arrays of NumPy and array_api_strict in one call: make them arrays of one lib"
    ):
        array_namespace(X, strict.asarray(X))


EXAMPLES = {
    "torch": ["(1, 4, 6, 6, 6, 5) (4, 2, 3, 3, 3, 3)", "(3, 3, 4, 3, 3, 4)", "(1, 10)", "(1, 32, 32, 3)"],
    "jax": ["(3, 3, 4) ()"],
    "scipy": ["[0. 0. 4. 0. 1. 0.]"],
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_document_run(name: str) -> None:
    pytest.importorskip(name)
    assert run_blocks(name)[0] == EXAMPLES[name]


def test_a_trained_network_inside_pytorch() -> None:
    """Its logits, and the slope along the gradient."""
    pytest.importorskip("torch")
    defined = run_blocks("torch")[1]
    logits, images, gradient = defined["Logits"].apply, defined["images"].detach(), defined["images"].grad
    expected = defined["network"].logits(images.numpy())
    np.testing.assert_allclose(logits(images).numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    step = 1e-2 * gradient / gradient.norm()
    ahead, behind = (logits(images + s).logsumexp(1).sum() for s in (step, -step))
    assert float(ahead - behind) / 2 == pytest.approx(1e-2 * float(gradient.norm()), rel=0.05)


WITHOUT = """
import sys
sys.modules[{name!r}] = None
import hcnn_core, autodiff
assert not {{"torch", "jax"}} & {{name for name, module in sys.modules.items() if module}}
import hcnn_core.{name}
"""


@pytest.mark.parametrize(("name", "called"), [("torch", "PyTorch"), ("jax", "JAX")])
def test_a_framework_that_is_missing_is_named(name: str, called: str) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT.format(name=name)], cwd=ROOT, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    message = f"hcnn_core.{name} needs {called}: install it, or hcnn with the extra {name}"
    assert last == f"ModuleNotFoundError: {message}"
