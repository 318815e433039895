"""Significance: the level, and a correction for several tests of which some cannot succeed."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEVEL = 0.05
"""P-values up to this one are significant. A test that cannot reach it decides nothing."""

UNDECIDED = "cannot be decided"


class Tested:
    """A test with a p-value, corrected for all tests: NaN where it could not have succeeded."""

    p: float

    @property
    def decided(self) -> bool:
        """Whether the test could have succeeded."""
        return not math.isnan(self.p)

    @property
    def significant(self) -> bool:
        """Whether the test succeeded, at the level."""
        return self.p <= LEVEL


def corrected(p: Sequence[float], smallest: Sequence[float]) -> list[float]:
    """Return p-values times the number of tests that can still succeed; NaN for those that cannot.

    A test whose smallest possible p is above the level over k cannot be among k that succeed, so that it need not be
    counted (R. E. Tarone, 1990, Biometrics 46:515).
    """
    many = next((k for k in range(1, len(p) + 1) if sum(s <= LEVEL / k for s in smallest) <= k), 1)
    return [min(1.0, many * value) if s <= LEVEL / many else math.nan for value, s in zip(p, smallest, strict=True)]
