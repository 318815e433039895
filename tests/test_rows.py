"""Each program that a claim rests on computes a row of its record again, at a small size, and its tables whole."""

import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
from benchmarks import attention, circles, connections, few, hue, planted, report, rows, runner, signals, sound, volumes
from benchmarks.symmetries import table as table_of_symmetries

RESULTS, RECORD = rows.RECORD.parent, json.loads(rows.RECORD.read_text("utf-8"))
TABLES = {
    "symmetries/arms.md": table_of_symmetries,
    "circles/arms.md": lambda file: circles.table(runner.records(file, "arm", "network")),
    "hue/arms.md": lambda file: planted.table(hue.task(1), file),
    "sound/arms.md": lambda file: planted.table(sound.task(1), file),
    "attention/arms.md": lambda file: attention.text(file, attention.COMPARED),
    **dict.fromkeys(
        ("connections/arms.md", "connections/long/arms.md"), lambda file: attention.text(file, connections.COMPARED)
    ),
    "few.md": lambda file: few.table(),
    "signals.md": lambda file: signals.table(),
    "volumes.md": lambda file: volumes.table(),
    "speed.md": lambda file: report.text(),
}


@pytest.mark.parametrize("page", TABLES)
def test_tables_follow_from_their_records(page: str) -> None:
    """A mistake in what is counted, compared or averaged changes a cell."""
    assert (RESULTS / page).read_text("utf-8").startswith(TABLES[page]((RESULTS / page).with_name("networks.csv")))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("program", rows.ROWS)
def test_programs_compute_their_rows_again(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processors round otherwise, and fifty steps make more of it: some of the samples may change their class."""
    monkeypatch.chdir(tmp_path)
    assert rows.ROWS[program]() == pytest.approx(RECORD[program], rel=0.02, abs=0.02)
