"""Short DFTs of real numbers as straight-line programs: a list of sums, each of inputs and earlier sums.

The transpose is the same list read backwards. `codelets.py` compiles them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from typing import Any

import numpy as np

Terms = tuple[tuple[float, int], ...]
"""A sum of (coefficient, number). Inputs are numbered first, then the sums that others read."""

Number = tuple[float, int] | None
"""A number while code is written: (factor, number). None is zero."""

Complex = tuple[Number, Number]


@dataclass(frozen=True)
class StraightLine:
    """A linear map as a straight-line program of sums."""

    inputs: int
    sums: tuple[Terms, ...]
    outputs: tuple[Terms, ...]

    @cached_property
    def operations(self) -> int:
        """Number of vector instructions: additions, products and multiply-adds."""
        every = (*self.sums, *self.outputs)
        return sum(max(len(terms) - 1, 0) + all(abs(c) != 1 for c, _ in terms) for terms in every if terms)

    def transposed(self) -> StraightLine:
        """Return the transposed map, as reverse-mode differentiation of the sums gives it."""
        readers: list[list[tuple[float, int]]] = [[] for _ in range(self.inputs + len(self.sums))]
        for i, terms in enumerate(self.outputs):
            for c, number in terms:
                readers[number].append((c, i))
        number_of: dict[int, int] = {}
        sums: list[Terms] = []
        for i in reversed(range(len(self.sums))):
            sums.append(tuple(readers[self.inputs + i]))
            number_of[i] = len(self.outputs) + len(sums) - 1
            for c, number in self.sums[i]:
                readers[number].append((c, number_of[i]))
        return StraightLine(len(self.outputs), tuple(sums), tuple(tuple(r) for r in readers[: self.inputs]))

    def __call__(self, x: Any) -> Any:
        """Values of the map by NumPy. Tests compare codelets with this."""
        values = list(x)
        for terms in self.sums:
            values.append(sum(c * values[number] for c, number in terms))
        return np.stack([sum((c * values[k] for c, k in terms), start=0 * x[0]) for terms in self.outputs])


class _Writer:
    """Writes straight-line code. Sums that are equal up to a factor are written once."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.sums: dict[Terms, int] = {}

    def add(self, a: Number, b: Number) -> Number:
        if a is None or b is None:
            return a or b
        if a[1] == b[1]:
            return (a[0] + b[0], a[1]) if a[0] + b[0] else None
        (c, first), (d, second) = sorted(
            (a, b), key=lambda term: (-abs(term[0]), term[1])
        )  # so that the ratio is at most 1
        terms = ((1.0, first), (d / c, second))
        return c, self.sums.setdefault(terms, self.inputs + len(self.sums))

    def sum(self, *numbers: Number) -> Number:
        total: Number = None
        for number in numbers:
            total = self.add(total, number)
        return total

    def line(self, outputs: Sequence[Number]) -> StraightLine:
        return StraightLine(self.inputs, tuple(self.sums), tuple(() if y is None else (y,) for y in outputs))

    def multiply(self, z: Complex, turn: Fraction) -> Complex:
        """Complex product z exp(-2 pi i turn)."""
        c, s = _cosine(turn), _cosine(turn - Fraction(1, 4))
        re, im = z
        return self.add(_times(c, re), _times(s, im)), self.add(_times(c, im), _times(-s, re))

    def plus(self, a: Complex, b: Complex) -> Complex:
        return self.add(a[0], b[0]), self.add(a[1], b[1])

    def dft(self, x: Sequence[Number]) -> list[Complex]:
        """Frequencies 0 .. len(x) // 2 of real numbers, by decimation in time."""
        n = len(x)
        if n == 1:
            return [(x[0], None)]
        p = next(p for p in range(2, n + 1) if n % p == 0)
        q = n // p
        parts = [self.dft(x[r::p]) for r in range(p)]
        result: list[Complex] = [(None, None)] * (n // 2 + 1)
        for f in range(q // 2 + 1):
            z = [self.multiply(part[f], Fraction(r * f, n)) for r, part in enumerate(parts)]
            done = set()
            for k in range(p):
                here = f + q * k
                if min(here, n - here) not in done:
                    done.add(min(here, n - here))
                    y = self._short(z, k)
                    result[min(here, n - here)] = y if here <= n - here else (y[0], _times(-1.0, y[1]))
        return result

    def _short(self, z: list[Complex], k: int) -> Complex:
        """Sum over r of z[r] exp(-2 pi i r k / p) for prime p. Terms r and p - r are first added and subtracted."""
        p = len(z)
        if p == 2:
            return self.plus(z[0], z[1] if k == 0 else _negative(z[1]))
        total = z[0]
        for r in range(1, p // 2 + 1):
            (a, b), turn = (z[r], z[p - r]), Fraction(r * k, p)
            c, s = _cosine(turn), _cosine(turn - Fraction(1, 4))
            (ar, ai), (br, bi) = self.plus(a, b), self.plus(a, _negative(b))
            total = self.plus(total, (_times(c, ar), _times(c, ai)))
            total = self.plus(total, (_times(s, bi), _times(-s, br)))
        return total


def _times(c: float, number: Number) -> Number:
    return None if number is None or c == 0 else (c * number[0], number[1])


def _negative(z: Complex) -> Complex:
    return _times(-1.0, z[0]), _times(-1.0, z[1])


def _cosine(turn: Fraction) -> float:
    """cos(2 pi turn). Equal numbers have equal bits, so that equal sums are found."""
    turn %= 1
    turn = min(turn, 1 - turn)
    if turn > Fraction(1, 4):
        return -_cosine(Fraction(1, 2) - turn)
    return math.sin(2 * math.pi * (Fraction(1, 4) - turn)) if turn > Fraction(1, 8) else math.cos(2 * math.pi * turn)


def pairs(length: int) -> list[tuple[int, bool]]:
    """Frequencies 0 .. length // 2, and whether each is its own conjugate."""
    return [(f, 2 * f % length == 0) for f in range(length // 2 + 1)]


LEAN, TRIPLED, PAIRED = range(3)
"""Outputs of straight-line code for a frequency. LEAN: its real and imaginary part, or the real part alone if the
frequency is its own conjugate. TRIPLED: their sum as well, before them. PAIRED: always both parts."""


@cache
def dft_line(length: int, count: int, is_complex: bool, form: int) -> StraightLine:
    """DFT of `count` numbers, followed by zeros up to `length`.

    Complex numbers come as all real parts, then all imaginary parts. For real numbers only frequencies 0 .. length // 2
    are written.
    """
    writer = _Writer(count * (1 + is_complex))
    zeros: list[Number] = [None] * (length - count)
    of_parts = [writer.dft([(1.0, part * count + i) for i in range(count)] + zeros) for part in range(1 + is_complex)]
    if is_complex:
        re, im = of_parts
        result = []
        for f in range(length):
            (a, b), (c, d) = (part[min(f, length - f)] for part in (re, im))
            sign = 1.0 if 2 * f <= length else -1.0
            result.append((writer.add(a, _times(-sign, d)), writer.add(_times(sign, b), c)))
    else:
        result = of_parts[0]
    outputs: list[Number] = []
    for f, (a, b) in enumerate(result):
        if form == PAIRED or is_complex or 2 * f % length:
            outputs += [writer.add(a, b), a, b] if form == TRIPLED else [a, b]
        else:
            outputs.append(a)
    return writer.line(outputs)
