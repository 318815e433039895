"""Table 1 of arXiv:1703.04140 beside runs of this project: accuracy against coefficients and multiply-adds.

``python -m benchmarks.table1 RUN RUN ...`` takes folders of runs on CIFAR-10, by default those of record in
benchmarks/results. It prints a table, and writes it (.md) and a picture of it (.png). The accuracy is that on the test
images where a run has read them, or else that on held-out images, marked as such. Published multiply-adds are those of
the same networks as they are built here. Times are not compared: the runs had different machines.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from train.config import Config, make_config, read_toml
from train.networks.registry import architecture_of, build
from train.runs.plot import write_figure
from train.runs.run import Run
from train.storage.files import write_atomically

RESULTS = Path(__file__).parent / "results"
RECORD = (
    "hcnn",
    "hcnn-best",
    "hcnn-best-third-part",
    "hcnn-best-second-part",
    "hcnn-paper-strides",
    "hcnn-medium",
    "hcnn-periodic",
    "hcnn-plus",
    "hcnn-fast",
    "resnet20",
)

PUBLISHED = {
    "HCNN": ("hcnn", 0.098e6, 91.43),
    "HCNN (+)": ("hcnn-plus", 0.34e6, 92.50),
    "All-CNN": ("all-cnn", 1.3e6, 92.75),
    "ResNet-20": ("resnet20", 0.27e6, 91.25),
    "NIN": ("nin", 0.98e6, 91.20),
    "WRN student": ("wrn-student", 0.17e6, 91.23),
    "FitNet": ("fitnet", 2.5e6, 91.61),
}
"""A preset of each network, and the coefficients and the accuracy in % of the paper's Table 1."""

PUBLISHED_AS, TEST, HELD_OUT = "published", "measured here", "measured here, on held-out images"


class Row(NamedTuple):
    """A line of the table."""

    network: str
    run: str  # the name of its folder; "" of what was published
    coefficients: float
    multiply_adds: int  # of an image of 32 x 32, every filter applied tap by tap
    accuracy: float  # in %
    source: str


def published() -> list[Row]:
    """The lines of the paper."""
    return [
        Row(name, "", count, build(make_config(preset)).multiply_adds, accuracy, PUBLISHED_AS)
        for name, (preset, count, accuracy) in PUBLISHED.items()
    ]


def measured(path: Path) -> Row | None:
    """The line of a run on CIFAR-10; None where it is of other images, or no accuracy is known."""
    run = Run(path)
    settings = read_toml(run.config_path)
    config = make_config(settings.pop("preset", "hcnn"), settings)
    records = run.read_metrics()
    epochs = [record for record in records if "train_loss" in record]
    if epochs:  # a test before an extension is not of the network that it made
        records = [r for r in records if "test_accuracy" not in r or r["epoch"] == epochs[-1]["epoch"]]
    network = build(config)
    for key, source in (("test_accuracy", TEST), ("validation_accuracy", HELD_OUT)):
        known = [record[key] for record in records if key in record]
        if config.dataset == "cifar10" and known:
            size = network.counted, network.multiply_adds
            return Row(name_of(config), path.resolve().name, *size, 100 * known[-1], source)
    return None


def name_of(config: Config) -> str:
    """What Table 1 calls a network; what messages call it where it is not in that table."""
    if config.architecture == "hcnn":
        return "HCNN (+)" if config.nonlinear_factors else "HCNN"
    named = {preset: name for name, (preset, _, _) in PUBLISHED.items()}
    return named.get(config.architecture, architecture_of(config).title)


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| network | run | coefficients | GMAC | accuracy | |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in rows:
        numbers = f"{row.coefficients:,.0f} | {row.multiply_adds / 1e9:.4f} | {row.accuracy:.2f} %"
        yield f"| {row.network} | {row.run} | {numbers} | {row.source} |"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the picture: a colour for each network, a mark for each source."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2), layout="constrained")
    networks = list(dict.fromkeys(row.network for row in rows))
    marks = {PUBLISHED_AS: ("o", "none"), TEST: ("*", None), HELD_OUT: ("^", None)}
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"coefficients": "filter coefficients", "multiply_adds": "multiply-adds of an image"}
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        label = math.inf
        for row in sorted(rows, key=lambda row: -row.accuracy):
            mark, face = marks[row.source]
            colour = f"C{networks.index(row.network)}"
            x = getattr(row, column)
            size = 11 if mark == "*" else 7
            axes.plot(x, row.accuracy, mark, color=colour, markerfacecolor=face or colour, markersize=size)
            if row.run:  # a label beside its mark, and below the label above
                label = min(row.accuracy, label - 0.22)
                place = {"textcoords": "offset points", "ha": "right", "va": "center"}
                axes.annotate(row.run, (x, label), (-8, 0), fontsize=7, color=colour, **place)
        axes.margins(x=0.5, y=0.08)
        axes.set_xscale("log")
        axes.set_xlabel(title)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy on CIFAR-10 [%]")
    for index, name in enumerate(networks):
        panels[0].plot([], [], "s", color=f"C{index}", label=name)
    for source in dict.fromkeys(row.source for row in rows):
        mark, face = marks[source]
        panels[0].plot([], [], mark, color="black", markerfacecolor=face or "black", label=source)
    figure.legend(loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    write_figure(figure, path)


def main() -> int:
    """Print the table, and write it and the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table1", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folders of runs [those of record]")
    parser.add_argument("--out", type=Path, default=RESULTS / "table1.png", metavar="PNG", help="the table lies beside")
    options = parser.parse_args()
    for path in options.runs:
        if not Run(path).config_path.is_file():
            parser.error(f"{path} holds no run: it has no config.toml")
    folders = options.runs or [RESULTS / name for name in RECORD if (RESULTS / name / "metrics.jsonl").exists()]
    rows = [*published(), *(row for row in map(measured, folders) if row)]
    lines = list(table(rows))
    print(*lines, sep="\n")
    write_atomically(options.out.with_suffix(".md"), ("\n".join(lines) + "\n").encode())
    draw(rows, options.out)
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
