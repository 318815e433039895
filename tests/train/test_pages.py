"""Templates of pages: what they are given is shown and escaped, and nothing is fetched."""

from __future__ import annotations

import ast
import base64
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
from jinja2 import DictLoader, StrictUndefined
from matplotlib import rc_context, rcParams

from train import pages
from train.pages import Picture, Table, axes_as_html, png, render
from train.recipes.tasks import TASKS
from train.runs import plot
from train.runs.report import _curves

SMALL = """{% extends "base.html" %}
{% from "macros.html" import facts, picture, table %}
{% block title %}A {{ word }}{% endblock %}
{% block body %}{{ picture(shown) }}{{ table(numbers) }}{{ facts(description) }}{% endblock %}"""

VALUES: dict[str, Any] = {
    "word": "page",
    "shown": Picture(b"a picture", 'all "dark"', "Below."),
    "numbers": Table(("j", "v_{j-1}"), [("1", "FAILS & more"), ("2", "holds")], "by layer"),
    "description": {"layers": {"depth": 4, "strided": (5, 9)}},
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A page of every macro, with some of its values changed."""
    environment = pages._environment().overlay(
        loader=jinja2.ChoiceLoader([DictLoader({"small.html": SMALL}), pages._environment().loader])
    )
    monkeypatch.setattr(pages, "_environment", lambda: environment)
    return lambda **changes: render("small.html", **VALUES | changes)


def test_a_page_shows_what_it_is_given(small: Callable[..., str]) -> None:
    text = small()
    assert text.startswith("<!DOCTYPE html>\n") and "<title>A page</title>" in text and "<h1>A page</h1>" in text
    (data,) = re.findall(r'src="data:image/png;base64,([^"]*)" alt="all &#34;dark&#34;"', text)
    assert base64.b64decode(data) == b"a picture"
    assert '<th scope="col">v<sub>j-1</sub></th>' in text
    assert '<td class="fails">FAILS &amp; more</td>' in text and "<td>holds</td>" in text
    assert "depth 4, strided 5, 9" in text


def test_a_page_fetches_nothing(small: Callable[..., str]) -> None:
    text = small()
    assert "default-src 'none'" in text
    assert re.findall(r"(?:src|href)=\"(?!data:|#)", text) == [] and "@import" not in text and "url(" not in text


def test_text_is_escaped(small: Callable[..., str]) -> None:
    hostile = "<script>'x'</script> \udcff\x1b[2J\x07"
    text = small(word=hostile, numbers=Table((hostile,), [(hostile,)]), shown=Picture(b"", hostile, hostile))
    assert not any(raw in text for raw in ("<script", "\x1b", "\x07"))
    assert text.count("&lt;script&gt;") == 7
    text.encode()


def test_a_missing_value_is_an_error(small: Callable[..., str]) -> None:
    assert pages._environment().undefined is StrictUndefined
    with pytest.raises(jinja2.UndefinedError, match="'word' is undefined"):
        render("small.html", **{name: value for name, value in VALUES.items() if name != "word"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v_{j-1}", "v<sub>j-1</sub>"),
        ("along u1 and v_j", "along u<sub>1</sub> and v<sub>j</sub>"),
        ("x_j by one, x_{j+1} and x_J", "x<sub>j</sub> by one, x<sub>j+1</sub> and x<sub>J</sub>"),
        ("max_j x_train", "max_j x_train"),
        ("<j>", "&lt;j&gt;"),
        ("x_{j+1} of x_j and x_J, not xj", "x<sub>j+1</sub> of x<sub>j</sub> and x<sub>J</sub>, not xj"),
    ],
)
def test_axes_as_html(text: str, expected: str) -> None:
    assert axes_as_html(text) == expected


def test_pixels_come_back_from_png() -> None:
    from matplotlib.image import imread

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 7, 3), np.uint8)
    read = np.asarray(imread(io.BytesIO(png(pixels)), format="png"))
    assert np.array_equal(np.rint(255 * read[..., :3]).astype(np.uint8), pixels)
    assert png(pixels / 255) == png(pixels)
    numbers = np.asarray([[-5.0, 0.0], [1.0, 9.0]])
    shown = np.asarray(imread(io.BytesIO(png(numbers)), format="png"))[..., 0]
    assert shown.tolist() == [[0, 0], [1, 1]]


DRAW = """
import io, pathlib, sys
from train.pages import png
from train.runs.plot import plot_learning_curve
import numpy as np
png(np.zeros((2, 2)))
plot_learning_curve([{"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5}], pathlib.Path(sys.argv[1]), "a run")
import matplotlib, os
print(matplotlib.get_backend().lower(), os.environ["MPLBACKEND"])
"""


@pytest.mark.parametrize(
    ("backend", "taken"), [("module://not_installed.backend_inline", None), ("nonsense", None), ("svg", "svg")]
)
def test_pictures_are_drawn_whatever_backend_the_environment_names(
    tmp_path: Path, backend: str, taken: str | None
) -> None:
    environment = {**os.environ, "MPLBACKEND": backend}
    command = [sys.executable, "-c", DRAW, str(tmp_path / "curve.png")]
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    shown, kept = found.stdout.split()
    assert kept == backend and (taken is None or shown == taken)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_look_the_same_whatever_matplotlib_is_set_to(tmp_path: Path) -> None:
    """A matplotlibrc with LaTeX, which need not be installed, and what else would move, turn or enlarge something."""
    records = [{"epoch": n, "train_loss": 1.0 / n, "train_accuracy": 0.5} for n in (1, 2)]

    def drawn() -> list[bytes]:
        plot.plot_learning_curve(records, tmp_path / "a.png", "a run")
        plot.plot_runs({"a": records}, tmp_path / "b.png")
        varied = {"width": [1, 2], "variant": ["$a_1$", "in {braces"]}
        plot.plot_trials(varied, [0.1, 0.2], [TASKS["classes"]] * 2, tmp_path / "c.png", "a sweep")
        files = [(tmp_path / f"{name}.png").read_bytes() for name in "abc"]
        pictures = _curves(records, TASKS["classes"])
        return [*files, *(picture.data for picture in pictures), png(np.arange(6.0).reshape(2, 3), high=5)]

    usual = drawn()
    settings = {"text.usetex": True, "image.origin": "lower", "savefig.bbox": "tight", "font.size": 30.0}
    with rc_context(settings | {"axes.facecolor": "red", "svg.fonttype": "path"}):
        assert drawn() == usual
        assert all(rcParams[name] == value for name, value in settings.items())


def test_whatever_draws_does_so_in_the_style_of_the_package() -> None:
    for path in Path(pages.__file__).parents[1].rglob("*.py"):
        for function in (
            node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)
        ):
            called = {ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
            if called & {"Figure", "imsave", "new_figure"} and function.name != "new_figure":
                assert "own_style()" in map(ast.unparse, function.decorator_list), f"{path}: {function.name}"
