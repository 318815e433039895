"""Draw Table 1 of arXiv:1703.04140: accuracy on CIFAR-10 against the number of coefficients, and runs of this project.

``python -m benchmarks.table1 RUN RUN ...`` takes folders of runs whose test set was read, by default those of
record in benchmarks/results, prints the table and writes the picture.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from train.config import make_config, read_toml
from train.networks.hierarchical import layers
from train.runs.plot import write_figure
from train.runs.run import Run

RESULTS = Path(__file__).parent / "results"
RECORD = ("hcnn", "hcnn-best", "hcnn-periodic", "hcnn-plus", "hcnn-fast")

PUBLISHED = {
    "HCNN": (0.098e6, 91.43),
    "HCNN (+)": (0.34e6, 92.50),
    "All-CNN": (1.3e6, 92.75),
    "ResNet-20": (0.27e6, 91.25),
    "NIN": (0.98e6, 91.20),
    "WRN student": (0.17e6, 91.23),
    "FitNet": (2.5e6, 91.61),
}
"""Coefficients and accuracy in %, from the paper's Table 1."""


def measured(path: Path) -> tuple[str, int, float] | None:
    """Name, filter coefficients and test accuracy in % of a run on CIFAR-10; None where the test set was not read."""
    run = Run(path)
    settings = read_toml(run.config_path)
    config = make_config(settings.pop("preset", "hcnn"), settings)
    tests = [record["test_accuracy"] for record in run.read_metrics() if "test_accuracy" in record]
    if config.dataset != "cifar10" or not tests:
        return None
    return path.name, sum(layer.parameters for layer in layers(config, 32, 10)), 100 * tests[-1]


def draw(rows: list[tuple[str, int, float]], path: Path) -> None:
    """Write the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, (count, accuracy) in PUBLISHED.items():
        own = name.startswith("HCNN")
        axes.plot(count, accuracy, "s" if own else "o", color="tab:orange" if own else "tab:gray", markersize=6)
        below = name == "WRN student"  # which has a neighbour
        offset = (5, -12 if below else 4)
        axes.annotate(f"{name} {accuracy:.2f}", (count, accuracy), offset, textcoords="offset points", fontsize=8)
    for name, count, accuracy in rows:
        axes.plot(count, accuracy, "*", color="tab:blue", markersize=11)
        axes.annotate(f"{name} {accuracy:.2f}", (count, accuracy), (7, -3), textcoords="offset points", fontsize=8)
    for marker, colour, label in (
        ("s", "tab:orange", "the paper's, as published"),
        ("o", "tab:gray", "others, as published"),
        ("*", "tab:blue", "measured here"),
    ):
        axes.plot([], [], marker, color=colour, label=label)
    axes.set_xscale("log")
    axes.set_xlim(3e4, 6e6)
    axes.set_xlabel("filter coefficients")
    axes.set_ylabel("accuracy on the test images of CIFAR-10 [%]")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    write_figure(figure, path)


def main() -> int:
    """Print the table and draw it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table1", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folders of runs [those of record]")
    parser.add_argument("--out", type=Path, default=RESULTS / "table1.png", metavar="PNG")
    options = parser.parse_args()
    folders = options.runs or [RESULTS / name for name in RECORD if (RESULTS / name / "metrics.jsonl").exists()]
    rows = [row for row in map(measured, folders) if row]
    for name, (count, accuracy) in PUBLISHED.items():
        print(f"{name:24} {count:>10,.0f}  {accuracy:.2f} %  published")
    for name, count, accuracy in rows:
        print(f"{name:24} {count:>10,}  {accuracy:.2f} %  measured here")
    draw(rows, options.out)
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
