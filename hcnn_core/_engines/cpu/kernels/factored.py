"""The (+) layer: an expansion to Q copies, their ELU, and a contraction. The copies stay in cache."""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hcnn_core._engines.cpu.kernels.dft import run_steps
from hcnn_core._engines.cpu.kernels.elu import elu_vjp_line
from hcnn_core._engines.cpu.kernels.gemm import (
    MAX_TERMS,
    TILE_ROWS,
    add_and_clear,
    block_bounds,
    correlate_rows,
    gemm_elu_rows,
    scatter_add_rows,
)
from hcnn_core._engines.cpu.kernels.jit import compiled
from hcnn_core._engines.cpu.kernels.operands import (
    AdjointWorkspace,
    BoundProgram,
    Expansion,
    ExpansionCotangents,
    NDArray,
    Rows,
    SpectralWorkspace,
)
from hcnn_core._engines.cpu.kernels.spectral import (
    add_filter_products,
    multiply_group,
    multiply_transposed,
    padded_width,
    synthesize,
    synthesize_vjp,
)
from hcnn_core._engines.cpu.kernels.vectors import INT32, VECTOR_BYTES, address

ROWS_AT_ONCE = 4
"""Rows of x whose cotangents are summed at once: as many as stay in the first-level cache."""


@intrinsic
def _prefetch(typing: Any, address: Any) -> Any:
    """Prefetch the cache line at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        function = ir.FunctionType(ir.VoidType(), [byte, INT32, INT32, INT32])
        prefetch = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
        # to read, into all levels, data
        builder.call(prefetch, [builder.inttoptr(arguments[0], byte), INT32(0), INT32(3), INT32(1)])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@compiled(inline="always")
def _prefetch_taps(size: int, x: int, ranges: NDArray) -> None:
    """Prefetch what the taps of some positions, `size` bytes, read; see `Expansion.prefetched`."""
    for k in range(ranges.shape[0]):
        for at in range(x + ranges[k, 0], x + ranges[k, 1] + size, 64):
            _prefetch(at)


@compiled()
def _expand(
    expansion: Expansion, at: int, m: int, component: int, group: int, whole: int, analysis: BoundProgram,
    workspace: SpectralWorkspace,
) -> None:  # fmt: skip
    """Apply a group of filters and the ELU to m positions of a polyphase component of x; write the spectra of that.

    If `whole` is 1, all of z stays; if it is 0, z holds a tile of channels at a time. The next row of x is prefetched,
    since rows are too short for the processor to foresee it.
    """
    filters, shifts, z = expansion.filters[group], expansion.shifts[group], expansion.z
    spectrum, size, x = workspace.x_spectrum, z.itemsize, expansion.x + at
    rows = expansion.starts[expansion.rows_from[component] : expansion.rows_from[component + 1]]
    begin_step, end_step = expansion.steps_from[component], expansion.steps_from[component + 1]
    for first in range(0, filters.shape[1], TILE_ROWS):
        last = min(first + TILE_ROWS, filters.shape[1])
        of_tile, to = filters[:, first:last], z[whole * first :]
        for r in range(rows.size):
            if not first and r + 1 < rows.size:
                _prefetch_taps(m * size, x + rows[r + 1] * size, expansion.prefetched)
            source, target = x + rows[r] * size, address(to[0, r])
            gemm_elu_rows(target, z.strides[0], m, source, expansion.taps, of_tile, shifts[first:last])
        for channel in range(first, last):
            source, target = address(to[channel - first]), address(spectrum) + channel * spectrum.strides[2]
            run_steps(analysis, begin_step, end_step, source, target, workspace.between, m)


@compiled()
def factored(
    begin_line: int, end_line: int, expansion: Any, analysis: Any, synthesis: Any, target: Any, workspace: Any,
    matrices: NDArray, bias: NDArray,
) -> None:  # fmt: skip
    """As `spectral.contract`, for channels that are made of x a group at a time.

    Makes lines [begin_line, end_line) of results, n positions each, which follow each other. expansion is an
    `Expansion`.
    """
    expansion, analysis, synthesis = Expansion(*expansion), BoundProgram(*analysis), BoundProgram(*synthesis)
    target, workspace = Rows(*target), SpectralWorkspace(*workspace)
    size, n, groups = bias.itemsize, expansion.n, expansion.filters.shape[0]
    for line in range(begin_line, end_line):
        for block in range(-(-n // workspace.block)):
            begin, end = block_bounds(block, n, workspace.block, VECTOR_BYTES // size)
            m, width = end - begin, padded_width(bias, end - begin)
            for p in range(expansion.rows_from.size - 1):
                for group in range(groups):
                    at = line * expansion.line_step + begin * size
                    _expand(expansion, at, m, p, group, 0, analysis, workspace)
                    # (frequencies, planes * channels, width) -> (frequencies, planes * out, width)
                    multiply_group(workspace, width, matrices, p * groups + group)
            synthesize(workspace, synthesis, target, (line * n + begin) * size, m, bias)


@compiled()
def _expand_vjp(
    expansion: Expansion, cotangents: ExpansionCotangents, at: int, gx_at: int, m: int, component: int, group: int
) -> None:
    """Transpose of `_expand`, from the cotangent of the ELU's result on: add to the cotangents of x, filters, shifts.

    `at` counts bytes in x, `gx_at` elements in its cotangent.
    """
    z, gz, gx = expansion.z, cotangents.z, cotangents.x
    size, step, width = gz.itemsize, gz.strides[1], padded_width(gz, m)
    first = expansion.rows_from[component]
    rows = expansion.starts[first : expansion.rows_from[component + 1]]
    for channel in range(gz.shape[0]):
        if m < gz.shape[2]:
            gz[channel, :, m:] = 0  # whole vectors of it are summed
        to, answers = address(gz[channel]), address(z[channel])
        cotangents.shifts[group, channel] += elu_vjp_line(gz, to, answers, to, rows.size * gz.shape[2])
    for v in range(0, rows.size, ROWS_AT_ONCE):
        g, some = address(gz[0, v]), rows[v : v + ROWS_AT_ONCE]
        into = cotangents.filters_part[group]
        # (taps, rows * width) @ (rows * width, channels), for each lane
        correlate_rows(into, expansion.x + at, expansion.taps, g, gz.strides[0], step, width, some)
        for i in range(some.size):
            to = address(gx) + (cotangents.x_starts[first + v + i] + gx_at) * size
            matrix = cotangents.filters_transposed[group]
            scatter_add_rows(to, expansion.taps, m, g + i * step, cotangents.z_offsets, matrix)


@compiled()
def factored_adjoints(
    begin_line: int, end_line: int, expansion: Any, cotangents: Any, analysis: Any, analysis_transpose: Any,
    synthesis_transpose: Any, g: Any, ans: Any, workspace: Any, adjoint: Any, matrices: NDArray,
) -> None:  # fmt: skip
    """Cotangents of `factored`, for which z is made again.

    They are added to `cotangents`, an `ExpansionCotangents`, and to `adjoint` as in `spectral.contract_adjoints`.
    """
    expansion, cotangents = Expansion(*expansion), ExpansionCotangents(*cotangents)
    analysis, analysis_transpose = BoundProgram(*analysis), BoundProgram(*analysis_transpose)
    synthesis_transpose, g, ans = BoundProgram(*synthesis_transpose), Rows(*g), Rows(*ans)
    workspace, adjoint = SpectralWorkspace(*workspace), AdjointWorkspace(*adjoint)
    spectrum, gz, between, steps_from = workspace.x_spectrum, cotangents.z, workspace.between, expansion.steps_from
    size, n, groups = gz.itemsize, expansion.n, expansion.filters.shape[0]
    for line in range(begin_line, end_line):
        for block in range(-(-n // workspace.block)):
            begin, end = block_bounds(block, n, workspace.block, VECTOR_BYTES // size)
            m, width = end - begin, padded_width(gz, end - begin)
            synthesize_vjp(workspace, adjoint, synthesis_transpose, g, ans, (line * n + begin) * size, m)
            at = line * expansion.line_step + begin * size
            gx_at = (line - begin_line) * (expansion.line_step // size) + begin
            for p in range(expansion.rows_from.size - 1):
                # transposed, the steps come in reverse
                first_back, last_back = steps_from[-1] - steps_from[p + 1], steps_from[-1] - steps_from[p]
                for group in range(groups):
                    _expand(expansion, at, m, p, group, 1, analysis, workspace)
                    for f in range(spectrum.shape[0]):  # both while the frequency is in the first-level cache
                        add_filter_products(workspace, adjoint, m, p * groups + group, f)
                        multiply_transposed(workspace, width, matrices, p * groups + group, f)
                    for channel in range(gz.shape[0]):
                        source, to = address(spectrum) + channel * spectrum.strides[2], address(gz[channel])
                        run_steps(analysis_transpose, first_back, last_back, source, to, between, m)
                    _expand_vjp(expansion, cotangents, at, gx_at, m, p, group)
            for group in range(groups):
                add_and_clear(cotangents.filters_part[group], cotangents.filters[group])
        if adjoint.total.size and (line == end_line - 1 or (line + 1) * n // MAX_TERMS > line * n // MAX_TERMS):
            add_and_clear(adjoint.part, adjoint.total)
