"""Make the notebooks that Sphinx-Gallery writes ones for readers: no roles of Sphinx.

The site's conf.py calls `clean_folder`; a first cell says how what they import is installed.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

INSTALL = """\
# Once. From the clone that this notebook lies in; elsewhere name the path of one, since hcnn is not published yet.
from pathlib import Path
HCNN = next((p for p in [Path.cwd(), *Path.cwd().parents] if (p / "hcnn_core").is_dir()), "hcnn")
%pip install --quiet '{HCNN}[docs]'"""
"""The first cell, without the frameworks that some need."""


def clean_folder(folder: Path) -> None:
    """Clean every notebook in a folder and its subfolders, and those in its archives."""
    for path in folder.rglob("*.ipynb"):
        path.write_text(clean(path.read_text("utf-8")), "utf-8")
    for path in folder.rglob("*.zip"):
        clean_archive(path)


def clean_archive(path: Path) -> None:
    """Clean every notebook in a zip file."""
    with zipfile.ZipFile(path) as archive:
        members = {info: archive.read(info) for info in archive.infolist()}
    if not any(info.filename.endswith(".ipynb") for info in members):
        return
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, data in members.items():
            cleaned = clean(data.decode("utf-8")).encode("utf-8") if info.filename.endswith(".ipynb") else data
            archive.writestr(info, cleaned)
    path.write_bytes(written.getvalue())


def clean(text: str) -> str:
    """Clean a notebook."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = without_roles("".join(cell["source"])).splitlines(keepends=True)
    code = "".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    extras = ",".join(["docs", *(name for name in ("jax", "torch") if f"import {name}\n" in code)])
    for cell in notebook["cells"]:
        source = "".join(cell["source"]).replace(INSTALL, INSTALL.replace("docs", extras))
        cell["source"] = source.splitlines(keepends=True)
    return json.dumps(notebook, indent=1) + "\n"


def without_roles(text: str) -> str:
    """Return Markdown in which Sphinx's roles have become code, or raised and lowered letters."""
    text = re.sub(r":su([bp]):`([^`]+)`", lambda m: f"<su{m[1]}>{m[2]}</su{m[1]}>", text).replace("\\ <su", "<su")
    text = re.sub(r":(?:\w+:)?(?:func|class|meth|mod|doc|attr):`[~/]?([^`]+)`", r"`\1`", text)
    return re.sub(r"sphx_glr_gallery_\d_[a-z]+_(plot_\w+)\.py", r"\1.ipynb", text)
