"""The learning curve of a run as a picture."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train._files import write_atomically


def plot_learning_curve(records: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draw loss and accuracy over epochs.

    Parameters
    ----------
    records : sequence of dict
        Lines of metrics.jsonl: one per epoch, and one with the test's result.
    path : Path
        PNG file to write.
    title : str
        Above the picture.

    Raises
    ------
    ValueError
        If there is no completed epoch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [record for record in records if "train_loss" in record]
    if not epochs:
        raise ValueError("no epoch is complete yet, so there is no learning curve to draw")
    test = next((record for record in reversed(records) if "test_accuracy" in record), None)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    text = title.encode(errors="replace").decode()  # a path need not be text
    figure.suptitle(text, fontsize=10, parse_math=False)
    x = [record["epoch"] for record in epochs]
    for axes, key, label, scale in zip(
        figure.subplots(1, 2),
        ("loss", "accuracy"),
        ("negative log-likelihood [nats]", "accuracy [%]"),
        (1, 100),
        strict=True,
    ):
        for part, name, colour in (
            ("train", "training, augmented", "tab:blue"),
            ("validation", "held out", "tab:orange"),
        ):
            if known := [record for record in epochs if f"{part}_{key}" in record]:
                values = [scale * record[f"{part}_{key}"] for record in known]
                axes.plot(
                    [record["epoch"] for record in known],
                    values,
                    marker="o" if len(x) < 40 else None,
                    markersize=3,
                    color=colour,
                    label=name,
                )
        if test:
            value = scale * test[f"test_{key}"]
            shown = f"{value:.2f} %" if key == "accuracy" else f"{value:.3f}"
            axes.plot(x[-1], value, "*", markersize=10, color="tab:green", label=f"test: {shown}", clip_on=False)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # of a title in letters the font has not
        figure.savefig(picture, dpi=120, format="png")
    write_atomically(path, picture.getvalue())
