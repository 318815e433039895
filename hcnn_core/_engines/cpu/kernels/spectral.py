"""Convolution as products of spectra, a block of positions at a time."""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

from hcnn_core._engines.cpu.kernels.dft import run_elu, run_elu_vjp, run_steps
from hcnn_core._engines.cpu.kernels.gemm import (
    MAX_TERMS,
    add_and_clear,
    add_gemm_rows,
    add_outer_products,
    block_bounds,
    gemm_rows,
)
from hcnn_core._engines.cpu.kernels.jit import compiled
from hcnn_core._engines.cpu.kernels.operands import (
    AdjointWorkspace,
    BoundProgram,
    NDArray,
    Rows,
    SpectralWorkspace,
)
from hcnn_core._engines.cpu.kernels.transpose import transpose_tile
from hcnn_core._engines.cpu.kernels.vectors import VECTOR_BYTES, address


@compiled(inline="always")
def padded_width(like: NDArray, n: int) -> int:
    """Elements of n positions in whole vectors."""
    lanes = VECTOR_BYTES // like.itemsize
    return -(-n // lanes) * lanes


@compiled()
def transpose_rows(transposed: NDArray, n: int, y: int, y_step: int, rows: int) -> None:
    """Write rows of y, n elements each, to `transposed` (n and padding, rows and padding)."""
    lanes, size = VECTOR_BYTES // transposed.itemsize, transposed.itemsize
    for k in range(0, transposed.shape[1], lanes):
        for i in range(0, n, lanes):
            to = address(transposed) + i * transposed.strides[0] + k * size
            transpose_tile(transposed, to, transposed.strides[0], y + k * y_step + i * size, y_step, rows - 1 - k)


@compiled()
def multiply_group(workspace: SpectralWorkspace, width: int, matrices: NDArray, group: int) -> None:
    """Write the products of a group's spectrum with its matrices to the result's spectrum, or add them to it."""
    spectrum, result = workspace.x_spectrum, workspace.y_spectrum
    row, terms = spectrum.strides[2], workspace.offsets[: matrices.shape[2]]
    for f in range(spectrum.shape[0]):
        x, y, matrix = address(spectrum[f]), address(result[f]), matrices[group, f]
        if group:
            add_gemm_rows(y, row, width, x, terms, matrix)
        else:
            gemm_rows(y, row, width, x, terms, matrix)


@compiled()
def synthesize(
    workspace: SpectralWorkspace, program: BoundProgram, target: Rows, at: int, n: int, bias: NDArray
) -> None:  # fmt: skip
    """Write the samples of the result's spectrum to n positions of the target, from `at` bytes on."""
    spectrum = workspace.y_spectrum
    for channel in range(spectrum.shape[2]):
        source, to = address(spectrum) + channel * spectrum.strides[2], target.origin + channel * target.step + at
        run_elu(program, source, to, workspace.between, n, bias, channel)


@compiled()
def synthesize_vjp(
    workspace: SpectralWorkspace, adjoint: AdjointWorkspace, program: BoundProgram, g: Rows, ans: Rows, at: int, n: int
) -> None:
    """Transpose of `synthesize`: the spectrum of n positions of a cotangent g, and its transpose for filters."""
    spectrum = workspace.y_spectrum
    step, rows = spectrum.strides[2], spectrum.shape[1] * spectrum.shape[2]
    for channel in range(spectrum.shape[2]):
        to = address(spectrum) + channel * step
        run_elu_vjp(program, g, ans, at, to, workspace.between, n, adjoint.bias, channel)
    for f in range(spectrum.shape[0] if adjoint.part.size else 0):
        transpose_rows(adjoint.y_transposed[f], n, address(spectrum[f]), step, rows)


@compiled()
def multiply_transposed(workspace: SpectralWorkspace, width: int, matrices: NDArray, group: int, f: int) -> None:
    """Write the product of the result's spectrum with a group's transposed matrix to the group's spectrum, at f.

    (planes * channels, planes * out) @ (planes * out, width)
    """
    spectrum, result = workspace.x_spectrum, workspace.y_spectrum
    x, y, terms = address(spectrum[f]), address(result[f]), workspace.offsets[: matrices.shape[2]]
    gemm_rows(x, spectrum.strides[2], width, y, terms, matrices[group, f])


@compiled()
def add_filter_products(workspace: SpectralWorkspace, adjoint: AdjointWorkspace, n: int, group: int, f: int) -> None:
    """Add the product of a group's spectrum with the result's, over n positions, to the filters' cotangent at f.

    (planes * channels, n) @ (n, planes * out)
    """
    spectrum = workspace.x_spectrum
    x, y = address(spectrum[f]), adjoint.y_transposed[f]
    add_outer_products(adjoint.part[group, f], x, spectrum.strides[2], n, y)


@compiled()
def contract(
    n: int, analysis: Any, steps_from: NDArray, synthesis: Any, source: Any, target: Any, workspace: Any,
    matrices: NDArray, bias: NDArray,
) -> None:  # fmt: skip
    """Analyze, multiply by a matrix for each frequency, and synthesize n positions, a block at a time.

    For each polyphase component p and each group of channels, steps [steps_from[p], steps_from[p + 1]) of the analysis
    make the spectrum of the group. Matrices (components * groups, frequencies, planes * channels, planes * out) then
    add to the result's. analysis and synthesis are a `BoundProgram`, source and target `Rows`, workspace a
    `SpectralWorkspace`.
    """
    analysis, synthesis, source, target = (
        BoundProgram(*analysis),
        BoundProgram(*synthesis),
        Rows(*source),
        Rows(*target),
    )
    workspace = SpectralWorkspace(*workspace)
    spectrum, between = workspace.x_spectrum, workspace.between
    size, channels, components = spectrum.itemsize, spectrum.shape[2], steps_from.size - 1
    groups = matrices.shape[0] // components
    for block in range(-(-n // workspace.block)):
        begin, end = block_bounds(block, n, workspace.block, VECTOR_BYTES // size)
        m, width = end - begin, padded_width(spectrum, end - begin)
        for p in range(components):
            for group in range(groups):
                for channel in range(channels):
                    taken = source.origin + (group * channels + channel) * source.step + begin * size
                    to = address(spectrum) + channel * spectrum.strides[2]
                    run_steps(analysis, steps_from[p], steps_from[p + 1], taken, to, between, m)
                # (frequencies, planes * channels, width) -> (frequencies, planes * out, width)
                multiply_group(workspace, width, matrices, p * groups + group)
        synthesize(workspace, synthesis, target, begin * size, m, bias)


@compiled()
def contract_adjoints(
    n: int, analysis: Any, analysis_transpose: Any, steps_from: NDArray, synthesis_transpose: Any, g: Any, ans: Any,
    source: Any, target: Any, workspace: Any, adjoint: Any, matrices: NDArray,
) -> None:  # fmt: skip
    """Cotangents of `contract`: that of x is written to the target, that of filters added to `adjoint.part`.

    Matrices are (components * groups, frequencies, planes * out, planes * channels). Where they, or `adjoint.part`,
    are empty, that cotangent is not made. `adjoint` is an `AdjointWorkspace`; for g and ans, both `Rows`, see
    `run_elu_vjp`. With a total, parts are passed on to it after `MAX_TERMS` positions.
    """
    analysis, analysis_transpose = BoundProgram(*analysis), BoundProgram(*analysis_transpose)
    synthesis_transpose, g, ans = BoundProgram(*synthesis_transpose), Rows(*g), Rows(*ans)
    source, target = Rows(*source), Rows(*target)
    workspace, adjoint = SpectralWorkspace(*workspace), AdjointWorkspace(*adjoint)
    spectrum, between, size_of_block = workspace.x_spectrum, workspace.between, workspace.block
    size, channels, components = spectrum.itemsize, spectrum.shape[2], steps_from.size - 1
    groups = max(matrices.shape[0], adjoint.part.shape[0]) // components
    for block in range(-(-n // size_of_block)):
        begin, end = block_bounds(block, n, size_of_block, VECTOR_BYTES // size)
        m, width, at = end - begin, padded_width(spectrum, end - begin), begin * size
        synthesize_vjp(workspace, adjoint, synthesis_transpose, g, ans, at, m)
        for p in range(components):
            # transposed, the steps come in reverse
            first_back, last_back = steps_from[-1] - steps_from[p + 1], steps_from[-1] - steps_from[p]
            for group in range(groups):
                first = group * channels
                if adjoint.part.size:
                    for channel in range(channels):
                        taken = source.origin + (first + channel) * source.step + at
                        to = address(spectrum) + channel * spectrum.strides[2]
                        run_steps(analysis, steps_from[p], steps_from[p + 1], taken, to, between, m)
                    for f in range(spectrum.shape[0]):
                        add_filter_products(workspace, adjoint, m, p * groups + group, f)
                if matrices.size:
                    for f in range(spectrum.shape[0]):
                        multiply_transposed(workspace, width, matrices, p * groups + group, f)
                    for channel in range(channels):
                        to = target.origin + (first + channel) * target.step + at
                        taken = address(spectrum) + channel * spectrum.strides[2]
                        run_steps(analysis_transpose, first_back, last_back, taken, to, between, m)
        done = (block + 1) * size_of_block
        if adjoint.total.size and (done >= n or done // MAX_TERMS > (done - size_of_block) // MAX_TERMS):
            add_and_clear(adjoint.part, adjoint.total)
