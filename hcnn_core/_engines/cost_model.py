"""The time of a choice: units of work, times seconds per unit that a benchmark measured.

The class of a transform or a product counts its units. A unit is what one coefficient of `Costs` prices.
"""

from __future__ import annotations

import math
from collections import defaultdict

from hcnn_core._engines.arrangement import Arrangement
from hcnn_core._engines.choice import AtOnce, Choice, Subsampled
from hcnn_core._tuning import Costs, Units
from hcnn_core.backend import DeviceLimits


def seconds(choice: Choice, costs: Costs, tensor_cores: DeviceLimits | None = None) -> float:
    """Predicted seconds of `convolve` and its transposes; with `tensor_cores`, on a device with these limits."""
    return float(sum(getattr(costs, name) * count for name, count in units_of(choice, tensor_cores).items()))


def units_of(choice: Choice, tensor_cores: DeviceLimits | None = None) -> Units:
    """Units of work of `convolve` and its transposes."""
    if isinstance(choice, AtOnce):
        return choice.plan.units()
    if isinstance(choice, Subsampled):
        return units_of(choice.whole, tensor_cores)
    a, t = choice.arrangement, choice.arrangement.taps
    lines = a.channels * t.samples, t.count * a.channels * a.out, a.out * t.results
    total: Units = defaultdict(float, plan=1)
    for part in (
        _order(a),
        choice.transform.units(*lines),
        choice.engine.units_of_products(choice.products, choice.matrices),
    ):
        for name, count in part.items():
            total[name] += count
    return choice.engine.units_on_tensor_cores(choice, total, tensor_cores) if tensor_cores else total


def _order(arrangement: Arrangement) -> Units:
    """Return the units of copying x, assumed to lie in the order of its axes, into the order of the transforms."""
    if not arrangement.spectral:
        return {}
    shape = arrangement.problem.x_shape
    wanted = [axis for axis in arrangement.x_order if shape[axis] > 1]
    units: Units = {"transform": 1}
    if wanted != sorted(wanted):
        units["copy" if wanted[-1] == max(wanted) else "transposed"] = math.prod(shape)
    return units
