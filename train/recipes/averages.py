"""Running averages: of weights, which are evaluated, and of moments, which evaluation normalises by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autodiff import tree_map
from hcnn_core.backend import Array
from hcnn_core.updates import Term, weighted_sums
from train.settings import MomentSettings, setting


class AverageSettings(MomentSettings):
    """Settings of averaged weights."""

    average_decay: float = setting(
        0.0,
        "part of the averaged weights, which are evaluated, kept at each step; 0: no average",
        low=0.0,
        high=0.99999,
    )


def parts(settings: AverageSettings, step: int) -> dict[str, float]:
    """Return the parts that averages of weights keep at a step, from 0, and that running moments take of its batch's.

    The first steps keep less, so that the start is forgotten; for moments that is a plain mean.
    """
    decay = min(settings.moment_decay, step / (step + 1))
    average = float(min(settings.average_decay, step / (step + 10)))
    return {"moments_kept": decay, "moments_taken": 1 - decay, "average_kept": average}


def averaged(arrays: Mapping[str, Any], weights: Any, moments: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the averages of `arrays` after a step, from its weights, its batch's moments, and `parts`."""
    decay, taken = inputs["moments_kept"], inputs["moments_taken"]
    after = {"moments": _sums(arrays["moments"], moments, (0.0, 1.0, decay), (0.0, 1.0, taken))}
    if arrays.get("average"):
        decay = inputs["average_kept"]
        after["average"] = _sums(arrays["average"], weights, (0.0, 1.0, decay), (1.0, -1.0, decay))
    return after


def _sums(one: Any, other: Any, *factors: tuple[Any, ...]) -> Any:
    """Return a tree of weighted sums of the leaves of two, all in one call."""
    terms = [[Term(array, *of) for array, of in zip(pair, factors, strict=True)] for pair in pairs(one, other)]
    sums = iter(weighted_sums(terms))
    return tree_map(lambda _: next(sums), one)


def pairs(one: Any, other: Any) -> list[tuple[Array, Array]]:
    """Return the leaves of two trees of one structure, side by side."""
    leaves: list[tuple[Array, Array]] = []
    tree_map(lambda a, b: leaves.append((a, b)), one, other)
    return leaves
