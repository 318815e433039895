"""How convolutions are planned: by estimates or measurements, what was measured, and why a way was chosen.

``python -m hcnn_core.plans`` shows what was measured on this machine, and with ``--forget`` deletes it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Unpack

from hcnn_core._engines import planner
from hcnn_core._engines import wisdom as store
from hcnn_core._problem import OPTIONS, make_problem, takes
from hcnn_core._tuning import planning
from hcnn_core.backend import card_of, dtype_name
from hcnn_core.convolution import operands
from hcnn_core.typing import Array, Axes, ConvolveOptions

__all__ = ["explain", "planning", "wisdom"]

user_cache = store.user_cache
ASKED = {"y": "result", "dx": "of x", "dw": "of w", "dxdw": "of both"}
"""Calls that are measured apart: the result, and cotangents. "+elu" and "+marginal" follow where a call has them."""


def wisdom() -> str:
    """Return the measured times of convolutions, of this process and of earlier ones of this user.

    Returns
    -------
    str
        The text files ``wisdom-*.txt`` of the folder ``hcnn`` in the user's cache folder, one for each processor or
        card, number of threads and set of versions. Each line is a problem, with the milliseconds of its choices.

    See Also
    --------
    planning : What measures.

    Notes
    -----
    ``python -m hcnn wisdom`` prints it in words, and ``python -m hcnn wisdom --forget`` deletes the files.
    """
    return store.text()


@takes(OPTIONS)
def explain(x: Array, w: Array, /, axes: Axes, **options: Unpack[ConvolveOptions]) -> str:
    """Return the choices of a convolution as a table: what each promises, what was measured, and which is taken.

    Parameters
    ----------
    x, w : array
        Signal and filters, as `convolve` takes them; nothing is computed.
    axes, boundary, sum_axes, stride, method
        As in `convolve`.

    Returns
    -------
    str
        A row for each choice: the method of each axis, the estimate for the result and both its derivatives, and where
        they were measured on this machine, milliseconds of the result and of cotangents, by calls without a bias and,
        of cotangents, with g in C order. On a GPU, all for the `precision` in force.

    Raises
    ------
    TypeError, ValueError
        As `convolve`.

    See Also
    --------
    planning : Choices by measurements.

    Examples
    --------
    >>> import numpy as np
    >>> print(explain(np.ones(4096), np.ones(9), 0, boundary="zero", method="direct").splitlines()[-1])
    There is one choice.
    """
    from hcnn_core._engines.measuring import memory_of, words_of  # here, because it imports engines

    xp, x, w = operands("x", x, "w", w)
    problem = make_problem(x.shape, w.shape, axes, **options)
    if not problem.plain:
        return f"{problem.x_shape} * {problem.w_shape}: " + (
            "nothing is summed" if problem.empty else "x is copied to circles first, whose convolution is planned"
        )
    request = planner.request_for(problem, x)
    choices, seconds = planner.priced(request)
    estimated = planner.estimate(choices, seconds, request.tensor_cores).name
    device = request.device
    words, of_problem = words_of(device, dtype_name(x.dtype)), planner.problem_text(problem, request.batch)
    measured = {}
    if device.may_measure and "measure" in problem.method:
        machine = store.machine_of(device.may_measure, card_of(xp))
        of = {"y": (x, w), "dx": (g := xp.empty(0), w), "dw": (g, x), "dxdw": (g, x, w)}  # it is not known how g lies
        measured = {a: t for a in ASKED if (t := store.recall(machine, f"{a} {words}{memory_of(of[a])} {of_problem}"))}
    head = f"{words} {of_problem.partition(', batch')[0]}"
    lines = _table(head, [choice.name for choice in choices], seconds, measured, estimated)
    if request.tensor_cores and len(choices) > 1:
        lines.append("By tensor cores that is float32's choice, unless another promises half its time.")
    if slid := planner.without_transform(choices, request.tensor_cores):
        lines.append(f"By tensor cores, without a transform: {', '.join(map(store.in_words, slid))}.")
    return "\n".join(lines)


def _table(
    head: str, names: list[str], seconds: list[float], measured: dict[str, store.Times], estimated: str
) -> list[str]:
    """Return the lines of the table, and which choice is taken."""
    shown = {name: store.in_words(name) for name in names}
    if len(names) == 1:
        return [head, shown[names[0]], "There is one choice."]
    width = max(len("milliseconds"), *map(len, shown.values()))
    titles = ["estimate", *(ASKED[asked] for asked in measured)]
    lines = [head, f"{'milliseconds':{width}}" + "".join(f"{title:>12}" for title in titles)]
    for name, price in sorted(zip(names, seconds, strict=True), key=lambda row: row[1]):
        cells = [price, *(times.get(name) for times in measured.values())]
        row = f"{shown[name]:{width}}" + "".join(f"{'' if s is None else f'{1e3 * s:.3f}':>12}" for s in cells)
        lines.append(row.rstrip())
    lines.append(f"The estimate chooses {shown[estimated]}: taps, unless another promises a tenth less.")
    for asked, times in measured.items():
        lines.append(f"Fastest, {ASKED[asked]}: {store.in_words(min(times, key=times.__getitem__))}.")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; exit status 0, 1 if a file cannot be deleted, 2 if the command line is wrong."""
    import argparse  # here, because no other function needs them
    from importlib.metadata import version

    parser = argparse.ArgumentParser(
        prog=sys.argv[0] if sys.argv[0].endswith("hcnn wisdom") else "python -m hcnn_core.plans",
        description="Show which ways to compute convolutions were measured to be the fastest on this machine.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"hcnn {version('hcnn')}")
    parser.add_argument("--forget", action="store_true", help="delete it, so that problems are measured again")
    if parser.parse_args(arguments).forget:
        count, left = store.forget()
        print("\n".join([f"{count} files deleted", *left]))
        return int(bool(left))
    print(store.sentences(ASKED) or f"nothing was measured; files would lie in {user_cache()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
