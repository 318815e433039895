"""The mistakes that ``make mutants`` plants for pages of the gallery: each can be planted as it stands."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def mistakes() -> Any:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        return runpy.run_path(str(ROOT / "scripts" / "planted_mistakes.py"))["MISTAKES"]
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def test_planted_texts_occur_once(mistakes: Any) -> None:
    for mistake in mistakes:
        assert (ROOT / mistake.file).read_text("utf-8").count(mistake.old) == 1, mistake
        assert mistake.new != mistake.old and mistake.file.endswith(".py")
        assert len(list(ROOT.glob(f"examples/*/plot_{mistake.page}_*.py"))) == 1


def test_every_page_has_a_planted_mistake(mistakes: Any) -> None:
    pages = {page.name.split("_")[1] for page in ROOT.glob("examples/*/plot_*.py")}
    assert {mistake.page for mistake in mistakes} == pages
