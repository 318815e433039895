"""The defects that ``make mutants`` plants: each can be planted as it stands, and pages that look ahead are seen."""

from __future__ import annotations

import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from scripts.pages import small

ROOT = Path(__file__).resolve().parents[1]
DEFECTS = tomllib.loads((ROOT / "scripts" / "planted.toml").read_text("utf-8"))["defect"]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect["what"])
def test_a_defect_can_be_planted(defect: dict[str, Any]) -> None:
    assert (ROOT / defect["file"]).read_text("utf-8").count(defect["old"]) == 1
    assert defect["new"] != defect["old"] and defect["file"].endswith(".py")
    if "page" in defect:
        assert len(list(ROOT.glob(f"examples/*/plot_{defect['page']}_*.py"))) == 1 and "tests" not in defect
    else:
        assert defect["tests"] and all((ROOT / file).is_file() for file in defect["tests"])


def test_every_page_has_a_planted_mistake() -> None:
    pages = {page.name.split("_")[1] for page in ROOT.glob("examples/*/plot_*.py")}
    assert {defect["page"] for defect in DEFECTS if "page" in defect} == pages


@pytest.mark.parametrize(
    ("trained", "standardised", "rate", "is_blind"),
    [
        ("train", "train", "0.1", True),
        ("test", "train", "0.1", False),
        ("train", "test", "0.1", False),
        ("train", "train", "0.1 if test.mean() > 1 else 0.2", False),
    ],
)
def test_pages_that_look_at_their_test_set_are_noticed(
    trained: str, standardised: str, rate: str, is_blind: bool, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    text = f"""import numpy as np
import wavelets
train, test = np.eye(4), 1 + np.eye(4)
rate = {rate}
deviation = {standardised}.std()
p = wavelets.momentum(lambda p, x: np.sum((x @ p) ** 2), np.ones(4), [{trained} / deviation] * 3, rate=rate)
assert np.all(test > 0), "left out"
"""
    (tmp_path / "page.py").write_text(text)
    blind_pages = runpy.run_path(str(ROOT / "scripts" / "blind_pages.py"))
    page = blind_pages["Page"]("00", "rate", "train, test =", "test = noise(test)")
    seen, unseen = (blind_pages["fits_of"](tmp_path / "page.py", page, blind=blind) for blind in (False, True))
    assert len(seen) == 2 and (seen == unseen) == is_blind


def test_a_leak_in_a_page_is_noticed(tmp_path: Path) -> None:
    """Page 11, whose network is trained on signals that it is tested on."""
    pytest.importorskip("sklearn")
    blind_pages = runpy.run_path(str(ROOT / "scripts" / "blind_pages.py"))
    blind_pages["plt"].switch_backend("Agg")
    page = next(page for page in blind_pages["PAGES"] if page.number == "11")
    (path,) = ROOT.glob("examples/*/plot_11_*.py")
    (tmp_path / "page.py").write_text(small(path).replace("[draw(128) for", "[tested[:128] for"))
    seen, unseen = (blind_pages["fits_of"](tmp_path / "page.py", page, blind=blind) for blind in (False, True))
    assert len(seen) == len(unseen) == 5 and all(a != b for a, b in zip(seen, unseen, strict=True))
