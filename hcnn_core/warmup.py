"""Compile the kernels before they are needed: `python -m hcnn_core.warmup`.

Kernels are compiled for this processor when they are first called, and kept on disk. This program calls them: those of
convolutions along one to four axes, and those of the layers of arXiv:1703.04140 and their gradients, at the lengths of
its networks. Attribute axes of other lengths need some more short functions, a tenth of a second each.
"""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import logging
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hcnn_core import __version__
from hcnn_core._engines.dispatch import has_compiled_kernels
from hcnn_core._threads import processors
from hcnn_core.activations import elu, elu_vjp
from hcnn_core.convolution import convolve, convolve_cotangents, convolve_elu, convolve_vjp_w, convolve_vjp_x
from hcnn_core.factored import factored_adjoints, factored_layer
from hcnn_core.marginals import marginal, marginal_vjp
from hcnn_core.moments import moments_and_mean, patch_filter
from hcnn_core.normalization import normalize_elu_vjp, normalized_and_moments

__all__ = ["DTYPES", "main"]

DTYPES = ("float32", "float64")
"""Dtypes of the arrays that kernels are compiled for."""

BOUNDARIES = ("periodic", "zero")
BATCH, LARGE_BATCH = 4, 32
"""Numbers of images. Large arrays take kernels of their own; the larger batch makes arrays that are large enough."""

WIDTH = 16
"""Values per attribute."""

Array = NDArray[Any]
"""A NumPy array; only these have compiled kernels."""

Job = tuple[str, str, str]
"""Kind of work, boundary, dtype."""


def _jobs(dtypes: Sequence[str]) -> list[Job]:
    """All jobs, ordered so that neighbours have few kernels in common, and processes seldom share one."""
    return list(itertools.product(WORK, BOUNDARIES, dtypes))


def _take(job: Job) -> list[str]:
    """Do one job; return the log of what was compiled for it."""
    kind, boundary, dtype = job
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    logger = logging.getLogger("hcnn_core")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        WORK[kind](boundary, dtype)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    return lines.getvalue().splitlines()


def _array(*shape: int, dtype: str) -> Array:
    return np.full(shape, 0.01, dtype)


def _convolutions(boundary: str, dtype: str) -> None:
    """Along one to four axes, with gradients."""
    array = functools.partial(_array, dtype=dtype)
    sizes = ((64,), (5,)), ((24, 20), (3, 3)), ((12, 8, 16), (3, 5, 5)), ((12, 12, 8, 16), (3, 3, 7, 11))
    for (lengths, taps), last_stride in itertools.product(sizes, (1, 2)):
        axes = tuple(range(1, 1 + len(lengths)))
        options: Any = {"boundary": boundary, "stride": (1,) * (len(axes) - 1) + (last_stride,)}
        x, w = array(BATCH, *lengths), array(*taps, 2)
        y = convolve(x, w, axes, **options)
        convolve_vjp_x(y, x.shape, w, axes, **options)
        convolve_vjp_w(y, x, w.shape, axes, **options)
        convolve_cotangents(y, x, w, axes, **options)


def _network(kind: str, boundary: str, dtype: str) -> None:
    """Layers 1 to 6 forward and backward, from the third on Eq. (8) of one kind; the last two subsample space."""
    array, k = functools.partial(_array, dtype=dtype), WIDTH
    both: dict[str, Any] = {"boundary": boundary}
    pullbacks: list[Callable[[Array], Any]] = []

    def convolved(x: Array, w: Array, bias: Array, axes: Sequence[int], **options: Any) -> Array:
        y = convolve_elu(x, w, bias, axes, **both, **options)
        pullbacks.append(lambda g: convolve_cotangents(g, x, w, axes, ans=y, **both, **options)[0])
        return y

    def normalized(x: Array, w: Array, bias: Array, axes: Sequence[int], **options: Any) -> Any:
        y = convolve(x, w, axes, **both, **options)
        shift, scale = array(*y.shape[3:]), array(k)
        z, mean, variance, moments = normalized_and_moments(y, shift, scale, bias, epsilon=1e-5)

        def pullback(g: Any) -> Any:
            g, *_ = normalize_elu_vjp(g, mean, variance, y, shift, scale, bias, moments, epsilon=1e-5)
            return convolve_cotangents(g, x, w, axes, **both, **options)[0]

        pullbacks.append(pullback)
        return z

    def written_out(x: Array, *_: Any, stride: Sequence[int]) -> Array:
        """Return a (+) layer whose second factors are normalised."""
        z = convolved(x, array(3, 3, 2 * k), array(2 * k), (1, 2), stride=stride[:2])
        return normalized(z, array(2 * k, 7, 11, k), array(k), (3, 4), sum_axes=5, stride=stride[2:])

    def factored(x: Array, *_: Any, stride: Sequence[int]) -> Array:
        operands = x, array(3, 3, 2 * k), array(2 * k), array(2 * k, 7, 11, k), array(k), (1, 2), (3, 4)
        y: Any = factored_layer(*operands, **both, stride=stride)
        pullbacks.append(lambda g: factored_adjoints(g, y, *operands, **both, stride=stride)[0])
        return y

    def summed(x: Array) -> Array:
        pullbacks.append(lambda g: marginal_vjp(g, x, 3))
        return marginal(x, 3)

    def measured(x: Array) -> Array:
        """Return the moments of patches; the way back adds their cotangent to that of x."""
        mean, covariance, exact = moments_and_mean(x, (1, 2), (3, 3), **both)
        pullbacks.append(lambda g: patch_filter(mean, covariance, x, (1, 2), (3, 3), **both, mean=exact, addend=g))
        return x

    later = {"plain": convolved, "normalized": normalized, "factored": factored, "written out": written_out}[kind]
    layer: Any = normalized if kind in ("normalized", "written out") else convolved
    x = layer(
        array(LARGE_BATCH if kind == "plain" else BATCH, 32, 32, 3), array(3, 3, 3, k), array(k), (1, 2), sum_axes=3
    )
    x = layer(x, array(3, 3, 11, k), array(k), (1, 2, 3), stride=(1, 1, 2))
    layer = later
    for j in range(3, 7):
        x = measured(summed(x) if j > 3 else x)
        space = 2 if j > 4 else 1
        x = layer(x, array(3, 3, 7, 11, k), array(k), (1, 2, 3, 4), stride=(space, space, 2, 2))
    axes = tuple(range(1, 5))
    g = marginal_vjp(marginal(x, axes, reduction="mean"), x, axes, reduction="mean")
    elu_vjp(g, elu(x))
    for pullback in reversed(pullbacks):
        g = pullback(g)


WORK: dict[str, Callable[[str, str], None]] = {
    "convolutions": _convolutions,
    "networks": functools.partial(_network, "plain"),
    "networks with normalised outputs": functools.partial(_network, "normalized"),
    "(+) networks": functools.partial(_network, "factored"),
    "(+) networks with normalised outputs": functools.partial(_network, "written out"),
}
"""Functions of the boundary and the dtype, by their names."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; exit status 0, 1 if compiled kernels cannot be kept or used here, 2 if it is wrong."""
    options = _parser().parse_args(arguments)
    if not has_compiled_kernels():
        print(
            "hcnn_core.warmup: Numba is not installed, may not compile, or cannot keep what it compiles",
            file=sys.stderr,
        )
        return 1
    begin, compiled = time.perf_counter(), 0
    jobs = _jobs(options.dtype or DTYPES)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(options.processes, len(jobs)), context) as pool:
        for number, done in enumerate(as_completed([pool.submit(_take, job) for job in jobs]), 1):
            compiled += len(done.result())
            end = "\r" if sys.stderr.isatty() and number < len(jobs) else "\n"
            line = f"part {number} of {len(jobs)}: {compiled} functions compiled, {time.perf_counter() - begin:.0f} s"
            print(line, end=end, file=sys.stderr, flush=True)
    print(f"{compiled} functions were compiled in {time.perf_counter() - begin:.0f} s; what was compiled is kept")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=sys.argv[0] if sys.argv[0].endswith("hcnn warmup") else "python -m hcnn_core.warmup",
        description="Compile the kernels for this processor, and keep them on disk.",
        epilog="Exit status: 0; 1 kernels cannot be compiled or kept; 2 the command line is wrong.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"hcnn {__version__}")
    parser.add_argument(
        "--processes", type=_positive, default=processors(), metavar="N", help="that compile side by side [%(default)s]"
    )
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, metavar="DTYPE", help=f"{' or '.join(DTYPES)} [both]")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is given; at least 1 is needed")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
