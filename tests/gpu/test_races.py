"""Kernels with real threads, under ThreadSanitizer: barriers order all accesses of what a block's threads share.

One launch of each kind, with little work: a tile or two, and several rounds of each loop.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodiff import convolve_elu, cross_entropy, value_and_grad, vjp
from hcnn_core import (
    convolve,
    convolve_elu_marginal,
    convolve_vjp_w,
    convolve_vjp_x,
    marginal,
    matmul,
    merge_factors,
    merge_factors_vjp,
    muon_update_all,
    normalize_elu_vjp,
    normalize_filters,
    patch_moments,
    patch_moments_vjp,
    precision,
)
from hcnn_core._engines.cuda import implicit as _implicit
from hcnn_core._engines.cuda import summed as _summed
from hcnn_core._engines.cuda import tensor_plan as _tensor_plan
from hcnn_core._tuning import tuned
from hcnn_core.convolution import convolve_and_parts
from hcnn_core.normalization import normalized_and_moments
from tests.core.oracle import noise
from tests.gpu.host import COMPILER, in_place_of_cupy, precompile_header
from tests.gpu.races import BOUNDS, FLAGS, Launches, races
from tests.gpu.requirements import missing
from tests.gpu.test_planted_defects import PLANTED, ROOT, Defect

pytestmark = pytest.mark.slow  # a program with a sanitizer for each launch


def of(seed: int, *shape: int) -> Any:
    return noise(seed, shape, "float32")


def work() -> None:
    """Launch every kernel whose threads share memory."""
    spectral: dict[str, Any] = {"boundary": "zero", "stride": (1, 1, 2), "method": ("direct", "direct", "fft")}
    x, w, bias = of(0, 40, 4, 3, 8), of(1, 3, 3, 5, 3), of(2, 3)
    y, pullback = vjp(lambda *a: convolve_elu(*a, (1, 2, 3), **spectral), x, w, bias)
    pullback(y)
    convolve_elu_marginal(x, w, bias, (1, 2, 3), 3, **spectral)
    x = of(0, 40, 4, 3, 6)  # of whose three results, back, one of two shares has one
    with precision("tf32"), tuned(device_blocks=12):
        y, parts = convolve_and_parts(x, w, (1, 2, 3), **spectral)
        normalized_and_moments(y, bias, bias, bias, epsilon=0.1, parts=parts)
        convolve_vjp_x(y, x, w, (1, 2, 3), **spectral)
        convolve_vjp_w(y, x, w, (1, 2, 3), **spectral)
    x, w = of(0, 40, 5, 6), of(1, 3, 3, 3)
    y, pullback = vjp(lambda *a: convolve_elu(*a, (1, 2), boundary="zero", method="direct"), x, w, bias)
    pullback(y)
    # more terms than a block takes at a time, and more positions than its warps
    x, w = of(0, 2, 100, 200), of(1, 100, 3, 20)
    with tuned(device_blocks=1):
        y = convolve(x, w, 2, sum_axes=1, boundary="zero", method="direct")
        convolve_vjp_w(y, x, w, 2, sum_axes=1, boundary="zero", method="direct")
    x, w = of(0, 20, 16, 20), of(1, 20, 3, 20)  # three stages and eights: buffers are filled again
    with precision("tf32"), tuned(device_blocks=1), pytest.MonkeyPatch.context() as patch:
        patch.setattr(_tensor_plan, "SLOWER", 0)  # by tiles, though channels, rows and batch fill no last ones
        y = convolve(x, w, 1, sum_axes=0, boundary="zero", method="direct")
        convolve_vjp_w(y, x, w, 1, sum_axes=0, boundary="zero", method="direct")
    x, w = of(0, 3, 4, 5, 9), of(1, 2, 3, 2, 5)  # several taps outside a tile
    with tuned(device_blocks=2):
        boundary = "periodic", "periodic", "periodic", "zero"
        y = convolve(x, w, (0, 1, 2, 3), boundary=boundary, method="direct")
        convolve_vjp_w(y, x, w, (0, 1, 2, 3), boundary=boundary, method="direct")
    x = of(0, 5, 6, 600)
    patch_moments(x, (0, 1), (3, 3), boundary="zero")
    with tuned(device_blocks=4):
        patch_moments_vjp(of(1, 9), of(2, 9, 9), x, (0, 1), (3, 3), boundary="zero")
    matmul(of(0, 33, 70), of(1, 70, 40))
    normalize_filters(of(0, 5, 3), of(1, 3), of(2, 3, 3), epsilon=1.0)
    factors = of(0, 5, 3), of(1, 5, 6, 3), of(2, 3), of(3, 3, 3), of(4, 3)
    options: dict[str, Any] = {"lengths": (7,), "stride": 2, "boundary": "zero", "epsilon": 1.0}
    merge_factors_vjp(*merge_factors(*factors, **options), *factors, **options)
    value_and_grad(lambda x: cross_entropy(x, np.arange(300) % 4))(of(0, 300, 4))
    marginal(of(0, 3, 23 * 128, 41), 1)  # the largest launch: the last tile has nine sums, and the last terms
    y, each = of(0, 3, 5, 300).transpose(2, 0, 1), of(1, 5)
    moments = normalized_and_moments(y, each, each, each, epsilon=0.1)[3]
    normalize_elu_vjp(y, each, each, y, each, each, each, moments, epsilon=0.1)
    matrices = [[of(k, 100, 18)] for k in range(3)]
    with tuned(device_update_blocks=1):
        muon_update_all(*matrices, rate=0.1, momentum=0.9, nesterov=True, weight_decays=[0.1], row_axes=[1])


@pytest.fixture(scope="module")
def launches(tmp_path_factory: pytest.TempPathFactory) -> Launches:
    if COMPILER is None or shutil.which("setarch") is None:
        missing("no g++ or setarch, for programs with ThreadSanitizer")
    found = Launches(tmp_path_factory.mktemp("header"))
    precompile_header(found.folder, *FLAGS)
    with in_place_of_cupy(found), np.errstate(all="ignore"), pytest.MonkeyPatch.context() as patch:
        for module in (_implicit, _summed):
            patch.setattr(
                module, "TILES_OF_TAPS", 4
            )  # so that the last taps are fewer than those that a block has at a time
        work()
    return found


KERNELS = (
    "add_terms", "apply", "channel_moments", "channel_sums_back", "correlate", "covariance_of",
    "cross_entropy", "extend", "gram", "implicit", "implicit_taps", "join_parts", "map_rows", "merge", "merge_back",
    "multiply", "muon_grams", "muon_moves", "muon_polynomials", "normalize", "normalize_back", "normalize_rows",
    "normalize_rows_back", "row_sums", "row_sums_back", "single", "single_taps", "spread",
    "summed", "summed_taps",
)  # fmt: skip


def test_every_kernel_is_launched(launches: Launches) -> None:
    assert {name for name, _, _ in launches.found.values()} == set(KERNELS)


@pytest.mark.lot
@pytest.mark.parametrize("flags", [FLAGS, BOUNDS], ids=["no race", "no read beyond arrays"])
@pytest.mark.parametrize("first", range(3))
def test_kernels_are_without_fault(launches: Launches, tmp_path: Path, first: int, flags: tuple[str, ...]) -> None:
    said = races(launches, tmp_path, KERNELS[first::3], flags=flags)
    assert len(said) >= len(KERNELS) // 3 and not any(said.values()), next(text for text in said.values() if text)


@pytest.mark.lot
@pytest.mark.parametrize(
    ("kernel", "text", "planted"),
    [
        ("implicit_taps", "taken = there && filter < FILTERS;", "taken = there;"),
        ("row_sums", "count = min(length, positions - first)", "count = length"),
        # the batch's tail of g, and taps beyond the last
        ("summed_taps", "first_row + row < RESULTS && first_n + n < batch;", "first_row + row < RESULTS;"),
        ("summed_taps", "first_tap + t < ALL_TAPS ? offsets[first_tap + t] * EIGHT : 0", "offsets[first_tap + t]"),
        ("implicit_taps", "there && first_tap + k < taps ?", "there ?"),
        # positions beyond the last; channels beyond the last; what no place reads; elements behind a line
        ("implicit", "there[v] = own + v < positions && place >= 0;", "there[v] = place >= 0;"),
        ("implicit", "&& (ALL_16 % SHARES == 0 || part + s * STAGES < ALL_16)", ""),
        ("summed", "places[e] >= 0 && c < CHANNELS && first_n + n < batch;", "places[e] >= 0 && first_n + n < batch;"),
        ("single", "there ? x[at_a * step_a", "true ? x[at_a * step_a"),
        ("spread", "if (places[q] < 0 || p >= in_line) continue;", "if (places[q] < 0) continue;"),
        ("gram", "p < all / PIECE; p += step", "p <= all / PIECE; p += step"),
        ("add_terms", "end = i < inner ? terms : 0;", "end = terms;"),
        ("apply", "min(begin + v * LANES, positions - 1)", "begin + v * LANES"),
        ("multiply", "in_y = k0 + i < depth && first_column + j < columns", "in_y = k0 + i < depth"),
        ("merge", "t < across; t += FILTER_THREADS", "t - (int)threadIdx.x < across; t += FILTER_THREADS"),
        ("normalize_rows_back", "p < positions; p +=", "p - (int)threadIdx.x < positions; p +="),
    ],
)
def test_a_read_beyond_an_array_is_noticed(
    launches: Launches, tmp_path: Path, kernel: str, text: str, planted: str
) -> None:
    said = races(launches, tmp_path, (kernel,), lambda source: source.replace(text, planted), BOUNDS)
    assert any("overflow" in found for found in said.values())


@pytest.mark.lot
@pytest.mark.parametrize("race", PLANTED["race"], ids=lambda race: race["what"])
def test_a_missing_barrier_is_noticed(launches: Launches, tmp_path: Path, race: dict[str, str]) -> None:
    """In the largest launch of the kernel."""
    kernel, file, text = race["kernel"], race["file"], race["old"]
    assert (ROOT / file).read_text("utf-8").count(text) == 1
    defect = Defect(race["what"], file, text, text.replace("__syncthreads();", "", 1), races)
    some, tensor = Launches(launches.folder), Path(file).stem in ("implicit", "summed")
    kinds = [kind for kind in launches.found if kind[0] == kernel and bool(kind[2]) == tensor]
    largest = max(kinds, key=lambda kind: len(launches.found[kind][2]))
    some.found = {largest: launches.found[largest]}
    said = races(some, tmp_path, (kernel,), defect.plant)
    assert any("data race" in text for text in said.values()), defect
