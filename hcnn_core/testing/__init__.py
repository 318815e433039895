"""Tools for testing your own operators: assertions of covariance, adjoints and linearity, and Hypothesis strategies.

The assertions need only NumPy. The strategies, and the checks that search with them, need Hypothesis. It is imported
when one of them is first used. The checks are also pytest fixtures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hcnn_core.testing.assertions import (
    Deviation,
    assert_adjoint,
    assert_linear,
    assert_translation_covariant,
    assert_translation_invariant,
    covariance_deviations,
    rounding_bound,
)

if TYPE_CHECKING:
    from hcnn_core.testing.strategies import arrays, check_translation_covariant, check_translation_invariant, shifts

__all__ = [
    "Deviation",
    "arrays",
    "assert_adjoint",
    "assert_linear",
    "assert_translation_covariant",
    "assert_translation_invariant",
    "check_translation_covariant",
    "check_translation_invariant",
    "covariance_deviations",
    "rounding_bound",
    "shifts",
]


def __getattr__(name: str) -> Any:
    """Import the strategies, and with them Hypothesis, when one of them is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hcnn_core.testing import strategies

    return getattr(strategies, name)


def __dir__() -> list[str]:
    return sorted(__all__)
