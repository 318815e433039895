"""Pages of the gallery at their small size, as `HCNN_EXAMPLES=small` asks for; docs/small.toml says what differs."""

from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def small(path: Path) -> str:
    """Return the text of a page with less data."""
    text = path.read_text("utf-8")
    for line, other in tomllib.loads((ROOT / "docs" / "small.toml").read_text("utf-8")).get(path.stem, {}).items():
        if text.count(line) != 1:
            raise ValueError(f"{path} has {text.count(line)} times what docs/small.toml replaces: {line}")
        text = text.replace(line, other)
    return text


def pages(folder: Path) -> Path:
    """Return a folder of all pages: the repository's, or `folder`, with small ones, where the environment says so."""
    if os.environ.get("HCNN_EXAMPLES") != "small":
        return ROOT / "examples"
    shutil.copytree(ROOT / "examples", folder, dirs_exist_ok=True)
    for path in folder.rglob("plot_*.py"):
        path.write_text(small(path), "utf-8")
    return folder
