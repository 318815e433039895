"""The site: its list of functions is complete, its examples keep to the convention, and broken links are found."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))


@pytest.mark.parametrize("name", ["hcnn_core", "hcnn_core.testing", "autodiff", "wavelets"])
def test_every_public_name_has_a_page(name: str) -> None:
    text = (ROOT / "docs" / "api" / "index.rst").read_text("utf-8")
    section = text.split(f".. currentmodule:: {name}\n")[1].split(".. currentmodule::")[0]
    assert re.findall(r"^   (\w+)$", section, re.MULTILINE) == sorted(importlib.import_module(name).__all__)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_keep_to_the_convention(path: Path) -> None:
    text = path.read_text("utf-8")
    assert re.fullmatch(r"plot_\d\d_\w+", path.stem)
    assert (path.parent / "README.txt").is_file()
    assert ('SMALL = os.environ.get("HCNN_EXAMPLES") == "small"' in text) == ("HCNN_EXAMPLES" in text)
    assert re.search(r"^ *assert ", text, re.MULTILINE), "an example checks what it says"


def check_links(site: Path) -> tuple[int, list[str]]:
    command = [sys.executable, str(ROOT / "scripts" / "check_links.py"), str(site)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines()


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "page.html").write_text('<h1 id="top">One</h1><a href="../index.html">up</a>', "utf-8")
    good = '<a href="part/page.html#top">a</a><a href="https://example.org/gone">b</a><a href="#">c</a>'
    (tmp_path / "index.html").write_text(good, "utf-8")
    assert check_links(tmp_path) == (0, ["0 broken links"])
    bad = good + '<a href="part/page.html#end">d</a><img src="gone.png"><a href="part">e</a>'
    (tmp_path / "index.html").write_text(bad, "utf-8")
    status, lines = check_links(tmp_path)
    assert status == 1
    assert lines == [
        "index.html: gone.png: no such file",
        "index.html: part: no such file",
        "index.html: part/page.html#end: no such anchor",
        "3 broken links",
    ]
    assert check_links(tmp_path / "part")[0] == 1  # no site
