"""Spectra of real signals by codelets: DFTs of polyphase components, and complex products as real ones.

A convolution with stride r is y[i] = sum_p sum_u x[r (i - u) + p] w[r u - p]: every polyphase component p of x is
convolved with one of w, and the results are added. So DFTs are as long as the result. The weights of the inverse DFT
are put into the filters. The inverse then is the transposed DFT, and one set of codelets serves all four maps.

A complex product takes three or four real ones. With three, (Re x + Im x) Re w, Re x (Im w - Re w) and
Im x (Re w + Im w), a frequency makes three entries of the spectrum, or one if it is its own conjugate. That is a
quarter less to multiply and half as much more to hold, which pays where spectra stay in cache. With four, an entry has
two planes: the real and the imaginary part of a frequency, or two real frequencies, each its own conjugate.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hcnn_core._engines.cpu.kernels.operands import NDArray
from hcnn_core._engines.cpu.straight_line import LEAN, PAIRED, TRIPLED, dft_line, pairs
from hcnn_core._engines.generic.dft import ByTable
from hcnn_core._engines.taps import Integers
from hcnn_core._engines.transform import Along, tap_positions
from hcnn_core._tuning import Units
from hcnn_core.backend import DeviceTables, dtype_name

LIMIT = 20
"""Instructions per sample up to which straight-line code is fast. Long prime lengths take more."""

GRID = 256
"""A grid of this many points takes twice as long per point in straight-line DFTs, for few positions fit in cache."""

SUM, RE, IM = range(3)
"""Parts of a frequency: real plus imaginary part, real part, imaginary part."""


@dataclass(frozen=True)
class DFTStep:
    """A DFT along one axis of some rows. Rows of complex numbers are first all real parts, then all imaginary parts."""

    length: int
    """Length of the DFT."""
    count: int
    """Numbers that are transformed; zeros follow them."""
    is_complex: bool
    form: int
    """How frequencies are written: `straight_line.LEAN`, `TRIPLED` or `PAIRED`."""
    first: bool
    """Whether it reads rows of the signal; else rows between steps."""
    last: bool
    """Whether it writes rows of the spectrum; else rows between steps."""
    reads: tuple[int, ...]
    writes: tuple[int, ...]


class Axis(Along):
    """A transformed axis and its polyphase components."""

    @property
    def supports(self) -> bool:
        """Whether there are all polyphase components, each as long as the result."""
        return self.n >= self.stride and (self.boundary == "zero" or self.n % self.stride == 0)

    @property
    def is_fast(self) -> bool:
        return _is_fast(self.length)

    @property
    def kept(self) -> int:
        return -(-self.n // self.stride)

    def samples(self, phase: int) -> Integers:
        return np.arange(phase, self.n, self.stride)

    def taps(self, phase: int) -> tuple[Integers, Integers]:
        """List the taps that meet a polyphase component of x, and by how many of its samples they move it."""
        positions = tap_positions(self.size)
        meet = (positions + phase) % self.stride == 0
        if self.boundary == "zero":
            meet &= np.abs(positions) < self.n
        return np.flatnonzero(meet), (positions[meet] + phase) // self.stride

    @cached_property
    def length(self) -> int:
        """Length of the DFTs: that of the result, plus zeros for samples that taps move across its ends.

        At zero boundaries it grows to a length of which straight-line code is fast.
        """
        if self.boundary == "periodic":
            return self.kept
        least = self.kept
        for phase in range(self.stride):
            moves = self.taps(phase)[1]
            if moves.size:
                least = max(least, self.samples(phase).size + int(moves.max()), self.kept - int(moves.min()))
        return next(filter(_is_fast, itertools.count(least)))


class RealDFT(ByTable[NDArray]):
    """Spectra (F, A * P, rest): F entries, A polyphase components, P planes. See `Transform`."""

    matmul = staticmethod(np.matmul)

    def __init__(self, axes: Sequence[Along], three_products: bool) -> None:
        self.axes = [Axis(*axis) for axis in axes]
        self.aliases = math.prod(axis.stride for axis in axes)
        self.planes = 1 if three_products else 2
        lengths = tuple(axis.length for axis in self.axes)
        odd = all(length % 2 for length in lengths)  # only frequency 0 is its own conjugate; its second plane is zero
        self.form = TRIPLED if three_products else PAIRED if odd else LEAN
        parts = list(_parts(lengths, self.form))
        # frequencies that are their own conjugates come last, so that two of them share an entry
        order = sorted(range(len(parts)), key=lambda row: not three_products and parts[row][1] is None)
        self.parts = [parts[row] for row in order]
        self.places = np.argsort(order)
        self.frequencies = len(self.parts) // self.planes
        self._placed = DeviceTables()

    @cached_property
    def phases(self) -> list[tuple[Integers, list[DFTStep], int]]:
        """For each polyphase component its samples, the steps from them to entries, and the number of rows between."""
        grid = np.arange(math.prod(axis.n for axis in self.axes)).reshape([axis.n for axis in self.axes])
        place, components = self.places, []
        for a, phases in enumerate(itertools.product(*(range(axis.stride) for axis in self.axes))):
            rows = grid[np.ix_(*(axis.samples(p) for axis, p in zip(self.axes, phases, strict=True)))]
            to = (place // self.planes * self.aliases + a) * self.planes + place % self.planes
            steps: list[DFTStep] = []
            between = _add_steps(steps, [rows], [axis.length for axis in self.axes], to, self.form)
            components.append((rows.reshape(-1), steps, between))
        return components

    @property
    def analysis(self) -> tuple[list[DFTStep], int]:
        """Steps from samples to entries, one polyphase component after the other, and the number of rows between."""
        _, steps, between = zip(*self.phases, strict=True)
        return list(itertools.chain(*steps)), max(between)

    @cached_property
    def synthesis_transpose(self) -> tuple[list[DFTStep], int]:
        """Steps from the cotangent of the result to those of the entries, and the number of rows between."""
        counts = [axis.kept for axis in self.axes]
        to = self.places.copy()
        for row, (_, part) in enumerate(self.parts if self.form == TRIPLED else ()):
            if part:  # the real part of x makes half of the imaginary part of y, and the reverse
                to[row] += 1 if part == RE else -1
        steps: list[DFTStep] = []
        rows = np.arange(math.prod(counts)).reshape(counts)
        return steps, _add_steps(steps, [rows], [axis.length for axis in self.axes], to, self.form)

    @cached_property
    def _table(self) -> np.ndarray[Any, Any]:
        """Matrix from taps to filters (F * P' * A * P, taps): from plane P of a component of x to plane P' of y."""
        lengths = [axis.length for axis in self.axes]
        frequencies = np.asarray([f for f, _ in self.parts])
        spectrum = np.ones((len(self.parts), 1, 1), complex)  # (parts, A, taps) of the axes so far
        for f, length, axis in zip(frequencies.T, lengths, self.axes, strict=True):
            along = np.zeros((len(self.parts), axis.stride, axis.size), complex)
            for phase in range(axis.stride):
                taps, moves = axis.taps(phase)
                along[:, phase, taps] = np.exp(-2j * np.pi * (np.multiply.outer(f, moves) % length) / length)
            spectrum = (spectrum[:, :, None, :, None] * along[:, None, :, None, :]).reshape(
                len(self.parts), spectrum.shape[1] * axis.stride, -1
            )
        alone = np.asarray([part is None for _, part in self.parts])[:, None, None]
        spectrum *= np.where(alone, 1, 2) / math.prod(lengths)
        re, im = spectrum.real, np.where(alone, 0, spectrum.imag)
        if self.form == TRIPLED:
            part = np.asarray([SUM if part is None else part for _, part in self.parts])[:, None, None]
            table = np.select([part == SUM, part == RE], [re, im - re], -re - im)
        else:
            # (F, P', A, P, taps)
            table = np.stack((np.stack((re[::2], -im[::2]), 2), np.stack((im[1::2], re[1::2]), 2)), 1)
        return np.reshape(table, (self.frequencies * self.planes**2 * self.aliases, -1))

    @cached_property
    def analysis_macs(self) -> int:
        """Vector instructions from samples to entries. An addition takes as long as a multiply-add."""
        return _operations(self.analysis[0])

    @cached_property
    def synthesis_macs(self) -> int:
        """Vector instructions from entries to the result."""
        return _operations(self.synthesis_transpose[0])

    @property
    def kernel_macs(self) -> int:
        """Multiply-adds from taps to the entries of filters."""
        return math.prod(self._kernel_rows) * math.prod(axis.size for axis in self.axes)

    def units(self, of_x: int, of_w: int, of_y: int) -> Units:
        """Instructions, more where numbers do not fit the cache, and copies as of DFT matrices."""
        macs: float = self.analysis_macs * of_x + self.kernel_macs * of_w + self.synthesis_macs * of_y
        macs *= 1 + math.prod(axis.length for axis in self.axes) / GRID
        entries = self.frequencies * self.aliases * self.planes
        return {"dft_mac": macs, "copy": entries * of_x, "scattered": entries * of_w}

    def analyze(self, xp: Any, x: NDArray) -> NDArray:
        rows = self.frequencies, self.aliases * self.planes
        return self._carry_out(self.analysis, x, math.prod(rows)).reshape(*rows, -1)

    def analyze_transpose(self, xp: Any, spectrum: NDArray) -> NDArray:
        x_rows = math.prod(axis.n for axis in self.axes)
        return self._carry_out(self.analysis, spectrum.reshape(-1, spectrum.shape[-1]), x_rows, backward=True)

    def synthesize(self, xp: Any, spectrum: NDArray) -> NDArray:
        rows = math.prod(axis.kept for axis in self.axes)
        spectrum = spectrum.reshape(self.frequencies * self.planes, -1)
        return self._carry_out(self.synthesis_transpose, spectrum, rows, backward=True)

    def synthesize_transpose(self, xp: Any, y: NDArray) -> NDArray:
        rows = self.frequencies, self.planes
        return self._carry_out(self.synthesis_transpose, y, math.prod(rows)).reshape(*rows, -1)

    @staticmethod
    def _carry_out(steps: tuple[list[DFTStep], int], x: NDArray, rows: int, *, backward: bool = False) -> NDArray:
        """Take the steps, or their transposes in reverse, by NumPy. Tests compare codelets with this."""
        result, between = (np.zeros((n, x.shape[1]), x.dtype) for n in (rows, steps[1]))
        for step in steps[0][::-1] if backward else steps[0]:
            line = dft_line(step.length, step.count, step.is_complex, step.form)
            ends = [(step.first, step.reads), (step.last, step.writes)]
            (from_x, reads), (to_result, writes) = ends[::-1] if backward else ends
            values = (line.transposed() if backward else line)((x if from_x else between)[list(reads)])
            (result if to_result else between)[list(writes)] = values
        return result

    def _filter_table(self, like: NDArray) -> NDArray:
        dtype = dtype_name(like.dtype)
        return self._placed.beside(like, dtype, lambda: np.ascontiguousarray(self._table, dtype))

    @cached_property
    def contiguous(self) -> Callable[[NDArray], NDArray]:
        from hcnn_core._engines.cpu.transpose import contiguous  # which needs Numba

        return contiguous

    @cached_property
    def _kernel_rows(self) -> tuple[int, ...]:
        return self.frequencies, self.planes, self.aliases, self.planes, 1


def _is_fast(length: int) -> bool:
    return dft_line(length, length, False, TRIPLED).operations <= LIMIT * length


def _parts(lengths: tuple[int, ...], form: int, real: bool = True) -> Iterator[tuple[tuple[int, ...], int | None]]:
    """Frequency and part of each row of a spectrum, in the order of `_add_steps`. Part None: its own conjugate."""
    *others, length = lengths
    for f, alone in pairs(length) if real else [(f, False) for f in range(length)]:
        if others:
            yield from (((*g, f), part) for g, part in _parts(tuple(others), form, real and alone))
        elif alone:
            yield from [((f,), None)] * (2 if form == PAIRED else 1)
        else:
            yield from (((f,), part) for part in ((SUM, RE, IM) if form == TRIPLED else (RE, IM)))


def _add_steps(
    steps: list[DFTStep],
    parts: list[Integers],
    lengths: list[int],
    to: Integers,
    form: int,
    used: int = 0,
    first: bool = True,
) -> int:
    """Add the DFTs along all axes, the last axis first, of rows of real parts, or of real and imaginary parts.

    Results go to the rows `to`, in order. Returns the number of rows between steps, of which `used` are taken.
    """
    *others, length = lengths
    is_complex, count = len(parts) == 2, parts[0].shape[-1]

    def add(index: tuple[int, ...], writes: Integers) -> None:
        reads = np.concatenate([part[index] for part in parts])
        left = LEAN if others else form
        rows = tuple(reads.tolist()), tuple(writes.tolist())
        steps.append(DFTStep(length, count, is_complex, left, first, not others, *rows))

    if not others:
        add((), to)
        return used
    frequencies = [(f, False) for f in range(length)] if is_complex else pairs(length)
    of_frequency = [1 if alone else 2 for _, alone in frequencies]
    shape = parts[0].shape[:-1]
    rows = used + np.arange(sum(of_frequency) * math.prod(shape)).reshape(-1, *shape)
    for index in np.ndindex(shape):
        add(index, rows[(slice(None), *index)])
    used = most = used + rows.size
    begin = taken = 0
    for (_, alone), planes in zip(frequencies, of_frequency, strict=True):
        size = sum(1 for _ in _parts(tuple(others), form, alone and not is_complex))
        inner = list(rows[begin : begin + planes])
        most = max(most, _add_steps(steps, inner, others, to[taken : taken + size], form, used, False))
        begin, taken = begin + planes, taken + size
    return most


def _operations(steps: list[DFTStep]) -> int:
    """Vector instructions of some steps."""
    return sum(dft_line(s.length, s.count, s.is_complex, s.form).operations for s in steps)
