"""pytest's fixtures, as users meet them: in test files of their own, with the arrays of their own library."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = "hcnn_core.testing.plugin"
(ENTRY_POINT,) = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"][
    "pytest11"
].items()

NUMPY = """
    import numpy as np
    from scipy import ndimage

    def blur(mode):
        return lambda x: ndimage.uniform_filter(x, 3, axes=(1, 2), mode=mode)

    def test_covariant(check_translation_covariant):
        check_translation_covariant(blur("wrap"), (2, 6, 7), in_axes=(1, 2))

    def test_invariant(check_translation_invariant):
        check_translation_invariant(lambda x: np.abs(blur("wrap")(x)).sum(), (2, 6, 7), in_axes=(1, 2))

    def test_not_covariant(check_translation_covariant):
        check_translation_covariant(blur("constant"), (2, 6, 7), in_axes=(1, 2))
"""


@pytest.fixture(autouse=True)
def without_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest-benchmark, where it is installed, warns in every run that a process of pytest-xdist begins."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:benchmark")


def loaded(pytester: pytest.Pytester, source: str, *arguments: str) -> pytest.RunResult:
    """A run of pytest on a test file, with the plugin, installed or not."""
    pytester.makepyfile(source)
    return pytester.runpytest("-p", PLUGIN, *arguments)


def test_numpy(pytester: pytest.Pytester) -> None:
    result = loaded(pytester, NUMPY)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            ">       check_translation_covariant(blur(*constant*), (2, 6, 7), in_axes=(1, 2))",
            "E       AssertionError: op is not covariant to translations: translating x by 1 along axis 1 should *",
            'E       x = np.zeros((2, 6, 7), "float64"); x[[]0, 0, 0[]] = 1.0',
            "E       shift = (1, 0)",
            "test_numpy.py:*: AssertionError",  # the line of the user's test is the last of the traceback
        ],
        consecutive=False,
    )
    assert "hypothesis" not in result.stdout.str().partition("FAILURES")[2]


def test_pytorch(pytester: pytest.Pytester) -> None:
    pytest.importorskip("torch")
    result = loaded(
        pytester,
        """
        import pytest
        import torch
        from hcnn_core.testing import assert_adjoint, assert_linear, assert_translation_covariant

        torch.set_num_threads(1)

        def layer(mode, dtype=torch.float64):
            return torch.nn.Conv2d(3, 4, 3, padding="same", padding_mode=mode, dtype=dtype)

        def test_circular(check_translation_covariant):
            op = layer("circular")
            check_translation_covariant(lambda x: op(torch.from_numpy(x)), (2, 3, 6, 6), in_axes=(2, 3))

        def test_strided_and_summed(check_translation_covariant, check_translation_invariant):
            op = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="circular")
            covariant = torch.nn.Sequential(op, torch.nn.ELU())
            numbers = {"stride": 2, "dtypes": "float32"}
            check_translation_covariant(lambda x: covariant(torch.from_numpy(x)), (2, 3, 6, 8), (2, 3), **numbers)
            check_translation_invariant(
                lambda x: covariant(torch.from_numpy(x)).mean((2, 3)), (2, 3, 6, 8), (2, 3), stages=2, **numbers
            )

        def test_zeros(check_translation_covariant):
            op = layer("zeros")
            check_translation_covariant(lambda x: op(torch.from_numpy(x)), (2, 3, 6, 6), in_axes=(2, 3))

        @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
        def test_tensors(dtype):
            x = torch.randn(2, 3, 6, 6, dtype=dtype, requires_grad=True)
            assert_translation_covariant(layer("circular", dtype), x, in_axes=(2, 3))
            assert x.grad is None
            with pytest.raises(AssertionError, match="not covariant"):
                assert_translation_covariant(layer("zeros", dtype), x, in_axes=(2, 3))
            w = torch.randn(4, 3, 3, 3, dtype=dtype)
            conv, transpose = torch.nn.functional.conv2d, torch.nn.functional.conv_transpose2d
            assert_linear(lambda x: conv(x, w), x)
            assert_adjoint(lambda x: conv(x, w), lambda y: transpose(y, w), x)

        def test_bfloat16():
            x = torch.randn(3, 4)
            with pytest.raises(TypeError, match="^the result of op is a torch.Tensor that cannot be brought to NumPy"):
                assert_translation_covariant(lambda x: x.bfloat16(), x, 1)
            with pytest.raises(TypeError, match="^x is a torch.Tensor that cannot be brought to NumPy"):
                assert_translation_covariant(lambda x: x, x.bfloat16(), 1)
        """,
    )
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(
        [
            "E       AssertionError: op is not covariant to translations: translating x by 1 along axis 2 should *",
            'E       x = np.zeros((2, 3, 6, 6), "float64"); x[[]0, 0, 0, 0[]] = 1.0',
            "E       shift = (1, 0)",
        ]
    )


def test_jax(pytester: pytest.Pytester) -> None:
    pytest.importorskip("jax")
    result = loaded(
        pytester,
        """
        import jax
        import jax.numpy as jnp
        import numpy as np
        import pytest
        from hcnn_core.testing import assert_translation_covariant

        @jax.jit
        def difference(x):
            return x - 0.5 * jnp.roll(x, 1, 1)

        def test_searched(check_translation_covariant):
            check_translation_covariant(difference, (3, 6), 1, dtypes=("float32", "complex64"))

        def test_arrays():
            x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 6)), "float32")
            assert_translation_covariant(difference, x, 1)
            with pytest.raises(AssertionError, match="not covariant"):
                assert_translation_covariant(lambda x: jnp.cumsum(x, 1), x, 1)
        """,
    )
    result.assert_outcomes(passed=2)


@pytest.mark.gpu
def test_cupy(pytester: pytest.Pytester) -> None:
    result = loaded(
        pytester,
        """
        import cupy
        import pytest
        from hcnn_core import convolve
        from hcnn_core.testing import assert_translation_covariant

        w = cupy.random.default_rng(0).standard_normal((3, 3, 4))

        def conv(x, boundary="periodic"):
            assert isinstance(x, cupy.ndarray)
            return convolve(x, w, (1, 2), boundary=boundary)

        def test_searched(check_translation_covariant):
            check_translation_covariant(lambda x: conv(cupy.asarray(x)), (2, 6, 7), (1, 2))

        def test_arrays():
            x = cupy.random.default_rng(1).standard_normal((2, 6, 7))
            assert_translation_covariant(conv, x, (1, 2))
            with pytest.raises(AssertionError, match="not covariant"):
                assert_translation_covariant(lambda x: conv(x, "zero"), x, (1, 2))
        """,
    )
    result.assert_outcomes(passed=2)


def test_loading_costs_no_hypothesis(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import sys

        def test_before():
            assert "hcnn_core.testing.plugin" in sys.modules
            assert "hypothesis" not in sys.modules

        def test_search(check_translation_covariant):
            check_translation_covariant(abs, 3, 0)
            assert "hypothesis" in sys.modules
        """
    )
    pytester.runpytest_subprocess("-p", PLUGIN, "-W", "error").assert_outcomes(passed=2)


def test_without_hypothesis(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest("import sys; sys.modules['hypothesis'] = None")
    pytester.makepyfile(NUMPY)
    result = pytester.runpytest_subprocess("-p", PLUGIN)
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines(["hcnn_core.testing's strategies need Hypothesis: pip install hypothesis"])
    result.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize("arguments", [[], ["-p", PLUGIN], ["-p", f"no:{ENTRY_POINT[0]}"]])
def test_installed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """Registered by its entry point, named once more by the user, and turned off."""
    metadata = pytester.mkdir("hcnn-0.dist-info")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: hcnn\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text("[pytest11]\n{} = {}\n".format(*ENTRY_POINT))
    monkeypatch.setenv("PYTHONPATH", f"{pytester.path}{os.pathsep}{ROOT}")
    pytester.makeconftest(f"pytest_plugins = [{PLUGIN!r}]" if PLUGIN in arguments else "")  # twice more
    pytester.makepyfile("def test_search(check_translation_covariant): check_translation_covariant(abs, 3, 0)")
    result = pytester.runpytest_subprocess("-W", "error", *arguments)
    if "no:" in "".join(arguments):
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*fixture 'check_translation_covariant' not found"])
    else:
        result.assert_outcomes(passed=1)
