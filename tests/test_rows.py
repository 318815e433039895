"""Each program that a claim rests on computes a row of its record again, at a small size."""

import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
from benchmarks import rows

RECORD = json.loads(rows.RECORD.read_text("utf-8"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("program", rows.ROWS)
def test_programs_compute_their_rows_again(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processors round otherwise, and fifty steps make more of it: some of the samples may change their class."""
    monkeypatch.chdir(tmp_path)
    assert rows.ROWS[program]() == pytest.approx(RECORD[program], rel=0.02, abs=0.02)
