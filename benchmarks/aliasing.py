"""The tables and pictures of docs/aliasing.md from verifications: `python -m benchmarks.aliasing NAME=DIR ...`.

DIR is the --out of a `python -m hcnn verify`. Every measured row goes to benchmarks/results/aliasing/NAME.csv; the
tables, in detail for the names after --detail, replace what stands between the two marks in docs/aliasing.md. With
--rows-only the document stays as it is, and the overview is printed.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from train.verification.covariance import Row
from train.verification.report import error_maps

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "aliasing"
DOCUMENT = ROOT / "docs" / "aliasing.md"
MARKS = "<!-- measured: begin -->", "<!-- measured: end -->"
GROUPS = {"v_j": ("v_j",), "v_{j-1}": ("v_{j-1}",), "v_{j-2}": ("v_{j-2}",), "u": ("u1", "u2")}
COLUMNS = (
    "statement",
    "boundary",
    "mode",
    "j",
    "axis",
    "shift",
    "strides",
    "kind",
    "mean",
    "largest",
    "bound",
    "changed",
)


def read(folder: Path) -> tuple[dict[str, Any], list[Row]]:
    """Description and rows of a verification."""
    saved = json.loads((folder / "verify.json").read_text(encoding="utf-8"))
    return saved["description"], [Row.from_json(row) for row in saved["rows"]]


def write_csv(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for row in rows:
            changed = f"{mean(row.changed):.3g}" if row.changed else ""
            table.writerow(
                [getattr(row, name) for name in COLUMNS[:6]]
                + [" ".join(map(str, row.strides)), row.kind]
                + [f"{value:.3g}" for value in (row.mean, row.largest, max(row.bounds))]
                + [changed]
            )


def mean(values: Any) -> float:
    values = list(values)
    return sum(values) / len(values)


def of(rows: list[Row], **wanted: Any) -> list[Row]:
    """Rows of x_J in evaluation mode with these fields."""
    found = [row for row in rows if row.statement == "invariance" and row.mode == "evaluation"]
    for name, value in wanted.items():
        found = [row for row in found if getattr(row, name) in (value if isinstance(value, tuple) else (value,))]
    return found


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def markdown(header: list[str], body: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *body]]
    return "\n".join(lines) + "\n"


def overview(found: dict[str, tuple[dict[str, Any], list[Row]]]) -> str:
    """One line per network and boundary."""
    body = []
    for name, (about, rows) in found.items():
        for boundary in dict.fromkeys(row.boundary for row in rows):
            exact = [row for row in rows if row.boundary == boundary and row.must_hold]
            others = of(rows, boundary=boundary, kind=("aliased", "boundary"))
            body.append(
                [
                    *(name, about["dtype"], about["marginal"], boundary, f"{len(exact):,}"),
                    f"{max(row.largest for row in exact):.1e}",
                    f"{max(max(row.bounds) for row in exact):.1e}",
                    percent(mean(row.mean for row in others)),
                    percent(max(row.largest for row in others)),
                    percent(mean(mean(row.changed) for row in others)),
                ]
            )
    header = ["network", "dtype", "marginal", "boundary", "exact statements", "largest error", "largest bound"]
    return markdown([*header, "others: mean change", "largest", "other class"], body)


def by_layer(rows: list[Row], boundary: str) -> str:
    """Mean and largest change of x_J along each axis, over translations that are not exact."""
    header, body = ["j"], []
    for axis in GROUPS:
        header += [f"`{axis}` mean", "largest"]
    for j in sorted({row.j for row in rows}):
        line = [str(j)]
        for names in GROUPS.values():
            some = of(rows, boundary=boundary, j=j, axis=names, kind=("aliased", "boundary"))
            line += [percent(mean(r.mean for r in some)), percent(max(r.largest for r in some))] if some else ["", ""]
        body.append(line)
    return markdown(header, body)


def by_shift(rows: list[Row], boundary: str, axis: str) -> str:
    """Mean change of x_J per translation along one axis; exact ones are set apart."""
    shifts = sorted({row.shift for row in of(rows, boundary=boundary, axis=axis)})
    body = []
    for j in sorted({row.j for row in of(rows, boundary=boundary, axis=axis)}):
        line = [str(j)]
        for shift in shifts:
            some = of(rows, boundary=boundary, axis=axis, j=j, shift=shift, kind=("exact", "aliased", "boundary"))
            line.append("" if not some else "exact" if some[0].kind == "exact" else f"{100 * some[0].mean:.1f}")
        body.append(line)
    return markdown(["j \\ shift", *map(str, shifts)], body)


def detail(name: str, rows: list[Row]) -> str:
    """Tables by layer and by shift, and the picture, for each boundary."""
    parts = []
    for boundary in dict.fromkeys(row.boundary for row in rows):
        picture = RESULTS / f"{name}-{boundary}.png"
        picture.write_bytes(error_maps(rows, boundary, "evaluation"))
        parts.append(
            f"{boundary.capitalize()} boundary, change of x_J relative to its largest logit:\n\n"
            f"{by_layer(rows, boundary)}\nAlong `v_j`, shift by shift, mean in percent:\n\n"
            f"{by_shift(rows, boundary, 'v_j')}\n![error by layer and shift](../{picture.relative_to(ROOT)})\n"
        )
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verifications", nargs="+", metavar="NAME=DIR")
    parser.add_argument("--detail", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--rows-only", action="store_true")
    options = parser.parse_args()
    folders = dict(argument.split("=", 1) for argument in options.verifications)
    found = {name: read(Path(folder)) for name, folder in folders.items()}
    RESULTS.mkdir(parents=True, exist_ok=True)
    if options.rows_only:
        for name, (_, rows) in found.items():
            write_csv(RESULTS / f"{name}.csv", rows)
        print(overview(found), end="")
        return
    commands = [
        [name, f"`{about['command']}`", f"[rows](../{(RESULTS / name).relative_to(ROOT)}.csv)"]
        for name, (about, _) in found.items()
    ]
    parts = [overview(found), markdown(["network", "command", ""], commands)]
    for name, (_, rows) in found.items():
        write_csv(RESULTS / f"{name}.csv", rows)
        if name in options.detail:
            parts.append(f"### {name}\n\n{detail(name, rows)}")
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    DOCUMENT.write_text(f"{before}{MARKS[0]}\n\n" + "\n".join(parts) + f"\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
