"""The site: its list of functions is complete, its examples keep to the convention, and broken links are found."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.clean_notebooks import INSTALL, clean
from scripts.pages import small

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))


PACKAGES = {
    "hcnn": "hcnn",
    "hcnn.core": "hcnn_core",
    "hcnn.core.torch": "hcnn_core.torch",
    "hcnn.core.jax": "hcnn_core.jax",
    "hcnn.core.testing": "hcnn_core.testing",
    "hcnn.autodiff": "autodiff",
    "hcnn.wavelets": "wavelets",
    "hcnn.train": "train",
}
"""Names of the site's sections, and the modules that they list."""


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_has_a_page(name: str) -> None:
    text = (ROOT / "docs" / "api" / "index.rst").read_text("utf-8")
    section = text.split(f".. currentmodule:: {name}\n")[1].split(".. currentmodule::")[0]
    listed = re.findall(r"^   (\w+)$", section, re.MULTILINE)
    elsewhere = {"autodiff", "core", "train", "wavelets"} if name == "hcnn" else set()
    elsewhere |= {"HCNNClassifier", "HCNNRegressor"} if name == "hcnn.train" else set()  # below hcnn
    assert sorted(listed) == sorted({*public_names(PACKAGES[name])} - elsewhere)
    assert "convolve" not in listed or listed.index("convolve") == 0 or name in ("hcnn.autodiff", "hcnn.core.torch")


def public_names(name: str) -> list[str]:
    """What a module exports; read from its source, since the framework that it needs may be missing."""
    path = ROOT / name.replace(".", "/")
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8")
    if listed := re.search(r"^__all__ = (\[\s*\"[^]]*])", source, re.MULTILINE):
        return list(ast.literal_eval(listed[1]))
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    return [name.asname for node in imports for name in node.names if name.asname and name.asname[0] != "_"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_keep_to_the_convention(path: Path) -> None:
    text = path.read_text("utf-8")
    assert re.fullmatch(r"plot_\d\d_\w+", path.stem)
    assert (path.parent / "README.txt").is_file()
    assert "HCNN_EXAMPLES" not in text and ast.parse(small(path))
    assert re.search(r"^ *assert ", text, re.MULTILINE), "an example checks what it says"


def test_notebooks_are_for_readers() -> None:
    code = "import numpy\n\nn = 3"
    text = "R\\ :sup:`2` of :func:`hcnn_core.convolve`, see `sphx_glr_gallery_2_theory_plot_09_synthesis.py`"
    cells = [{"cell_type": "markdown", "source": [text]}, {"cell_type": "code", "source": code.splitlines(True)}]
    read, ran = ("".join(cell["source"]) for cell in json.loads(clean(json.dumps({"cells": cells})))["cells"])
    assert read == "R<sup>2</sup> of `hcnn_core.convolve`, see `plot_09_synthesis.ipynb`"
    assert ran == code


@pytest.mark.parametrize(
    ("modules", "extras"),
    [(["numpy"], "docs"), (["torch"], "docs,torch"), (["jax", "jax.numpy", "torch"], "docs,jax,torch")],
)
def test_notebooks_install_what_they_import(modules: list[str], extras: str) -> None:
    code = "".join(f"import {name}\n" for name in modules)
    cells = [{"cell_type": "code", "source": text.splitlines(True)} for text in (INSTALL, code)]
    first, second = json.loads(clean(json.dumps({"cells": cells})))["cells"]
    assert "".join(first["source"]).endswith(f"%pip install --quiet '{{HCNN}}[{extras}]'")
    assert "".join(second["source"]) == code


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
