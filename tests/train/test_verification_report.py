"""Reports of a verification: what they show is what was measured, and a failure shows in every one of them."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import random
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from hcnn_core.testing.assertions import ROUNDINGS
from train.config import make_config
from train.networks.hierarchical import layers
from train.verification import report as verification_report
from train.verification.covariance import Row, axes
from train.verification.report import AXIS_NAMES, as_json, error_maps, errors_of, page, placed, summary_table

NOT_FINITE = (math.nan, math.inf)


def measurement(**changes: Any) -> Row:
    """One row of two examples, exact unless changed."""
    values: dict[str, Any] = {
        "statement": "invariance",
        "boundary": "periodic",
        "mode": "evaluation",
        "j": 0,
        "axis": "u1",
        "shift": 1,
        "strides": (),
        "kind": "exact",
        "errors": (1e-7, 3e-7),
        "bounds": (1e-4, 2e-4),
    }
    return Row(**(values | changes))


def measurements(modes: Sequence[str] = ("evaluation", "training")) -> list[Row]:
    """Four layers at both boundaries: even translations along v_j are exact, and all of u1; zeros stay inside."""
    rows = []
    for mode in modes:
        for j in range(4):
            for shift in range(1, 8):
                options: dict[str, Any] = {"mode": mode, "j": j, "axis": "v_j", "shift": shift, "strides": (2, 1)}
                aliased: dict[str, Any] = {"kind": "aliased", "errors": (0.5, 0.25)} if shift % 2 else {}
                rows.append(measurement(**options | aliased))
                rows.append(measurement(**options, boundary="zero", kind="boundary", errors=(0.75, 2.0)))
            rows.append(measurement(mode=mode, j=j, axis="u1"))
            rows.append(measurement(mode=mode, j=j, axis="v_j", statement="covariance", shift=2, strides=(2,)))
            rows.append(measurement(mode=mode, j=j, axis="v_{j-2}", boundary="zero", kind="inside", errors=(0.0, 0.0)))
    return rows


def with_failure(rows: Sequence[Row], errors: tuple[float, ...], **where: Any) -> list[Row]:
    """The rows, the errors of one of which are replaced."""
    (index,) = (i for i, row in enumerate(rows) if all(getattr(row, name) == where[name] for name in where))
    return [*rows[:index], dataclasses.replace(rows[index], errors=errors), *rows[index + 1 :]]


FAILURES = [
    pytest.param((1e-7, 0.5), id="the second example"),
    pytest.param((math.nan, 1e-7), id="NaN"),
    pytest.param((math.inf, 1e-7), id="infinity"),
]


@pytest.fixture(params=FAILURES)
def failing(request: pytest.FixtureRequest) -> list[Row]:
    """One of the exact translations fails in one example."""
    where = {"statement": "invariance", "boundary": "periodic", "mode": "evaluation", "j": 2, "axis": "v_j", "shift": 4}
    return with_failure(measurements(), request.param, **where)


def test_names_of_axes_are_those_of_the_network() -> None:
    table = layers(make_config(), (8, 8, 8), 10)
    assert {axis.name for j in range(len(table) + 1) for axis in axes(table, j)} == set(AXIS_NAMES)


def columns(line: str) -> list[str]:
    return re.split(r"\s{2,}", line)


def test_table_has_a_line_per_kind_with_all_shifts_and_examples() -> None:
    rows = [
        measurement(axis="v_j", shift=2, strides=(2, 1), errors=(1e-7, 2e-7), bounds=(1e-4, 1e-4)),
        measurement(axis="v_j", shift=64, strides=(2, 1), errors=(3e-7, 6e-7), bounds=(1e-4, 4e-4)),
        measurement(axis="v_j", shift=4, strides=(2, 1), errors=(3e-7, 3e-7), bounds=(1e-4, 1e-4)),
        *(
            measurement(axis="v_j", shift=s, strides=(2, 1), kind="aliased", errors=(s / 100,) * 2, changed=(0.5, 0.0))
            for s in range(1, 16, 2)
        ),
    ]
    random.Random(0).shuffle(rows)
    title, header, exact, aliased, gap, total = summary_table(rows).splitlines()
    assert title == "x_j translated, change of x_J: periodic boundary, evaluation mode, 2 examples"
    assert columns(header) == ["j", "axis", "shifts", "strides", "kind", "largest", "mean", "class", "bound", "verdict"]
    assert columns(exact) == ["0", "v_j", "2 4 64", "2", "exact", "6.0e-07", "3.0e-07", "-", "4.0e-04", "holds"]
    assert columns(aliased)[2:] == ["1 3 5 7 .. 15", "2", "aliased", "1.5e-01", "8.0e-02", "25 %", "-", "measured"]
    assert gap == ""
    assert total == (
        "periodic: all 3 checks passed, largest error 6.0e-07; 8 others need not hold: largest change 1.5e-01"
    )


def test_table_shows_single_layers_in_a_block_of_their_own() -> None:
    rows = [
        measurement(statement="covariance", j=3, axis="v_j", errors=(1e-8,), bounds=(1e-4,)),
        measurement(statement="covariance", j=3, axis="u2", errors=(2e-8,), bounds=(3e-4,)),
        measurement(statement="covariance", j=4, axis="v_j", errors=(0.1,), bounds=(1e-4,)),
    ]
    title, header, good, bad, _, total = summary_table(rows).splitlines()
    assert title == "x_j translated by a stride, x_{j+1} by one sample: periodic boundary, evaluation mode, 1 example"
    assert columns(header) == ["j", "u2", "v_j", "bound", "verdict"]
    assert columns(good) == ["3", "2.0e-08", "1.0e-08", "3.0e-04", "holds"]
    assert columns(bad) == ["4", "-", "1.0e-01", "1.0e-04", "FAILS: v_j"]
    assert total == "periodic: 1 of 3 checks FAILED, largest error 1.0e-01"


def test_table_counts_each_boundary() -> None:
    *_, periodic, zero, unchecked = summary_table(measurements()).splitlines()
    assert unchecked == "  Not checked: at zero boundaries, outputs between windows and values pushed off the end"
    assert periodic.startswith("periodic: all 40 checks passed, largest error 3.0e-07; 32 others need not hold: ")
    assert zero.startswith("zero: all 8 checks passed, largest error 0.0e+00; 56 others need not hold: ")
    assert "FAIL" not in summary_table(measurements())


@pytest.mark.usefixtures("undrawn")
def test_a_layer_with_something_undecided_does_not_hold() -> None:
    rows = [
        measurement(statement="covariance", j=3, axis="u1", errors=(1e-3, 1e-3), bounds=(0.05, 0.05)),
        measurement(statement="covariance", j=3, axis="v_j", errors=(1e-2, 1e-2), bounds=(0.2, 0.2)),
    ]
    assert [row.verdict for row in rows] == ["holds", "undecided"]
    assert any(
        line.split()[0] == "3" and line.endswith("undecided") for line in summary_table(rows).splitlines() if line
    )


def test_nothing_that_must_hold_is_no_success() -> None:
    rows = [measurement(kind="boundary", boundary="zero")]
    assert "zero: no check here is exact; 1 others need not hold" in summary_table(rows)
    assert '<p class="verdict ">No check here is exact. Not checked: at zero' in page(rows, {})


def test_failure_shows_in_the_table(failing: list[Row]) -> None:
    table = summary_table(failing)
    (line,) = (line for line in table.splitlines() if line.endswith("FAILS"))
    largest = max(row.largest for row in failing if row.verdict == "FAILS")
    assert columns(line)[:6] == ["2", "v_j", "2 4 6", "2", "exact", f"{largest:.1e}"]
    assert "periodic: 1 of 40 checks FAILED" in table
    assert "zero: all 8 checks passed" in table


def strict(text: str | bytes) -> Any:
    """Parse JSON as strict parsers do: no NaN, no Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_holds_every_field_one_row_a_line() -> None:
    rows = measurements()
    description = {
        "command": "verify",
        "settings": {"depth": 4, "strided": (5, 9)},
        "rate": np.float32(0.5),
        "none": None,
    }
    text = as_json(rows, description).decode()
    found = strict(text)
    assert list(found) == ["description", "totals", "rows"]
    assert found["description"] == {
        "command": "verify",
        "settings": {"depth": 4, "strided": [5, 9]},
        "rate": 0.5,
        "none": None,
    }
    assert found["totals"] == {
        "must_hold": 48,
        "hold": 48,
        "fail": 0,
        "undecided": 0,
        "largest_error": 3e-7,
        "measured": 88,
        "largest_change": 2.0,
    }
    assert [line.strip(" ,") for line in text.splitlines()[-len(rows) - 2 : -2]] == [*map(json.dumps, found["rows"])]
    for row, record in zip(rows, found["rows"], strict=True):
        for name in (*(f.name for f in dataclasses.fields(Row)), "must_hold", "verdict", "largest", "mean"):
            value = getattr(row, name)
            assert record.pop(name) == (list(value) if isinstance(value, tuple) else value)
        assert record == {}


def test_failure_shows_in_json(failing: list[Row]) -> None:
    found = strict(as_json(failing, {}))
    assert found["totals"]["fail"] == 1
    assert [row["verdict"] for row in found["rows"]].count("FAILS") == 1
    (record,) = (row for row in found["rows"] if row["verdict"] == "FAILS")
    (row,) = (row for row in failing if row.verdict == "FAILS")
    texts = {"nan": "NaN", "inf": "Infinity"}
    assert record["errors"] == [texts.get(str(error), error) for error in row.errors]
    assert record["largest"] == found["totals"]["largest_error"] == texts.get(str(row.largest), row.largest)


def pixels(picture: bytes) -> Any:
    """The picture (rows, columns, RGB), from 0 to 255."""
    from matplotlib.image import imread

    return np.rint(255 * np.asarray(imread(io.BytesIO(picture), format="png"))[..., :3]).astype(int)


def is_marked(picture: Any) -> bool:
    """Whether a cross or a plus is in it."""
    return bool((picture == (0, 255, 0)).all(axis=-1).any())


def test_cells_hold_the_largest_error_and_are_blank_where_nothing_was_measured() -> None:
    rows = [measurement(j=1, shift=2, errors=(1e-7, 3e-7)), measurement(j=1, shift=2, errors=(1e-8,))]
    rows += [measurement(j=0, shift=s, errors=(error,)) for s, error in enumerate((0.0, 0.5, *NOT_FINITE), 1)]
    found = errors_of(rows, 2, 4)
    np.testing.assert_array_equal(found, [[0.0, 0.5, math.inf, math.inf], [math.nan, 3e-7, math.nan, math.nan]])


def test_rounding_lies_in_the_lower_half_of_the_colours_and_changes_above() -> None:
    errors = np.array([0.0, 1e-17, 1e-8, 1e-6, 2e-3, 0.2, 1.0, 17.0, math.inf, math.nan])
    found = placed(errors, (1e-17, 1e-6, 1.0))
    assert found[[0, 1, 3, 6, 7, 8]].tolist() == [0, 0, 0.5, 1, 1, 1] and np.isnan(found[-1])
    assert (np.diff(found[1:7]) > 0.03).all() and found[2] == pytest.approx(0.5 * 9 / 11)


def test_failure_shows_in_the_picture(failing: list[Row]) -> None:
    rows = [row for row in failing if row.axis == "v_j"]
    assert is_marked(pixels(error_maps(rows, "periodic", "evaluation")))
    undecided = [measurement(bounds=(0.5, 0.5))]  # a bound that decides nothing
    assert is_marked(pixels(error_maps(undecided, "periodic", "evaluation")))


def test_no_failure_no_cross() -> None:
    assert not is_marked(pixels(error_maps(measurements(), "periodic", "evaluation")))


class Page(HTMLParser):
    """Reads a page; every tag must be closed in its turn."""

    EMPTY = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == [], "never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without the time it takes to draw."""
    monkeypatch.setattr(verification_report, "error_maps", lambda rows, *case: f"{len(rows)} {case}".encode())


@pytest.mark.usefixtures("undrawn")
def test_page_is_whole_and_needs_nothing_else() -> None:
    rows = measurements()
    text = page(rows, {"network": "hcnn"})
    found = Page(text)
    assert text.startswith("<!DOCTYPE html>\n")
    assert found.texts["title"] == found.texts["h1"]
    assert f"2 · {ROUNDINGS} · stages · " in text
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "link", "iframe"})
    cases = [(boundary, mode) for boundary in ("periodic", "zero") for mode in ("evaluation", "training")]
    for image, case in zip(found.attributes("img"), cases, strict=True):
        kind, data = (image["src"] or "").split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).decode() == f"{len(rows)} {case}"
        assert "checks passed" in (image["alt"] or "")
    assert "v<sub>j-2</sub>" in text and "v_{" not in text


@pytest.mark.usefixtures("undrawn")
def test_page_says_that_all_holds() -> None:
    text = page(measurements(), {})
    assert '<p class="verdict holds">All 48 checks passed. Not checked: at zero boundaries, ' in text
    assert 'class="fails"' not in text and "FAIL" not in text


@pytest.mark.usefixtures("undrawn")
def test_failure_shows_on_the_page(failing: list[Row]) -> None:
    text = page(failing, {})
    assert '<p class="verdict fails">1 of 48 checks FAILED. Not checked: at zero boundaries, ' in text
    assert "What fails" in Page(text).texts["h2"]
    assert text.count('<td class="fails">FAILS</td>') == 2  # among what fails, and by kind


@pytest.mark.usefixtures("undrawn")
def test_page_escapes_what_it_is_given() -> None:
    hostile = "<script>alert('x')</script> & \"u1\" \udcff"
    text = page([measurement(boundary=hostile)], {hostile: {"path": [hostile, 5]}})
    assert "<script" not in text
    found, shown = Page(text), hostile.replace("\udcff", "?")
    assert shown in found.texts["th"]
    assert f"path {shown}, 5" in found.texts["td"]
