"""Make the notebooks that Sphinx-Gallery writes ones for readers: no roles of Sphinx, no switch to less data.

The site's conf.py calls `clean_folder`; a first cell says how what they import is installed.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

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
    cells = {"code": of_full_size, "markdown": without_roles}
    for cell in notebook["cells"]:
        cell["source"] = cells[cell["cell_type"]]("".join(cell["source"])).splitlines(keepends=True)
    code = "".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    extras = ",".join(["docs", *(name for name in ("jax", "torch") if f"import {name}\n" in code)])
    for cell in notebook["cells"]:
        source = "".join(cell["source"]).replace(INSTALL, INSTALL.replace("docs", extras))
        if "os." not in code:
            source = source.removeprefix("import os\n\n")
        cell["source"] = source.splitlines(keepends=True)
    return json.dumps(notebook, indent=1) + "\n"


def without_roles(text: str) -> str:
    """Return Markdown in which Sphinx's roles have become code, or raised and lowered letters."""
    text = re.sub(r":su([bp]):`([^`]+)`", lambda m: f"<su{m[1]}>{m[2]}</su{m[1]}>", text).replace("\\ <su", "<su")
    text = re.sub(r":(?:\w+:)?(?:func|class|meth|mod|doc|attr):`[~/]?([^`]+)`", r"`\1`", text)
    return re.sub(r"sphx_glr_gallery_\d_[a-z]+_(plot_\w+)\.py", r"\1.ipynb", text)


def of_full_size(code: str) -> str:
    """Return an example's code without its switch SMALL, as it is where the switch is off."""
    if "SMALL" not in code:
        return code
    lines, changes = code.splitlines(keepends=True), list[tuple[int, int, str]]()
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))

    def span(node: Any) -> tuple[int, int]:
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    def text(node: Any) -> str:
        begin, end = span(node)
        return data[begin:end].decode()

    data = code.encode()
    for node in ast.walk(ast.parse(code)):
        first = getattr(node, "lineno", 0) - 1
        match node:
            case ast.Assign(targets=[ast.Name("SMALL")]):
                changes.append((starts[first], starts[node.end_lineno or 0], ""))
            case ast.Assign(targets=[target], value=ast.IfExp(test=ast.Name("SMALL"), orelse=full)) if text(
                target
            ) == text(full):
                changes.append((starts[first], starts[node.end_lineno or 0], ""))
            case ast.IfExp(test=ast.Name("SMALL"), orelse=full):
                changes.append((*span(node), text(full)))
            case ast.If(test=ast.UnaryOp(ast.Not(), ast.Name("SMALL")), body=body, orelse=[]):
                indented = "".join(lines[body[0].lineno - 1 : body[-1].end_lineno])
                changes.append((starts[first], starts[node.end_lineno or 0], re.sub("^    ", "", indented, flags=re.M)))
    outermost = [c for c in changes if not any(o is not c and o[0] <= c[0] and c[1] <= o[1] for o in changes)]
    for begin, end, new in sorted(outermost, reverse=True):
        data = data[:begin] + new.encode() + data[end:]
    return data.decode()
