"""Which variants of a sweep differ from the first: `python -m benchmarks.significance RESULTS.csv [--out FILE]`.

Three seeds do not tell how much a variant spreads, but all variants together do: the variance is pooled over them, and
Student's t has as many degrees of freedom as there are trials, less one for each variant. It is supposed that all
variants spread alike, and that trials are independent; one that changes little shares the luck of its seed with the
first, which makes its p too large. The p of each comparison is multiplied by their number (Bonferroni).
"""

import argparse
import csv
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from scipy import stats


def pooled(groups: dict[str, list[float]]) -> tuple[float, int]:
    """The variance within groups, and its degrees of freedom."""
    freedom = sum(len(values) - 1 for values in groups.values())
    return sum(statistics.variance(values) * (len(values) - 1) for values in groups.values()) / freedom, freedom


def compare(groups: dict[str, list[float]], pairs: Sequence[tuple[str, str]]) -> list[tuple[float, float, float]]:
    """Of each pair of groups: the difference of their means, its standard error, and the p that counts all pairs."""
    variance, freedom = pooled(groups)
    found = []
    for one, other in pairs:
        difference = statistics.mean(groups[one]) - statistics.mean(groups[other])
        error = math.sqrt(variance * (1 / len(groups[one]) + 1 / len(groups[other])))
        found.append(
            (difference, error, min(1.0, len(pairs) * 2 * float(stats.t.sf(abs(difference) / error, freedom))))
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, help="results.csv of train.sweep")
    parser.add_argument(
        "--against", nargs=2, action="append", default=[], metavar=("VARIANT", "OTHER"), help="not the first variant"
    )
    parser.add_argument("--out", type=Path, help="text to write")
    options = parser.parse_args()
    groups: dict[str, list[float]] = {}
    with options.results.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            groups.setdefault(row["variant"], []).append(100 * float(row["validation_accuracy"]))
    first, *others = groups
    against = dict(options.against)
    pairs = [(name, against.get(name, first)) for name in others]
    found = sorted(zip(compare(groups, pairs), pairs, strict=True), key=lambda row: row[0][2])
    variance, freedom = pooled(groups)
    lines = [
        f"pooled deviation {math.sqrt(variance):.2f} points, {freedom} degrees of freedom; {len(pairs)} comparisons",
        f"{'variant':24} {'against':12} {'points':>7} {'error':>6} {'p, of all':>10}",
    ]
    for (difference, error, p), (one, other) in found:
        lines.append(f"{one:24} {other:12} {difference:+7.2f} {error:6.2f} {p:10.2g}")
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
