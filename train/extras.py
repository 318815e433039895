"""The command that installs an extra: in a clone, or where this package came from a wheel."""

from __future__ import annotations

import importlib.util
import re
import shlex
from importlib import metadata
from pathlib import Path

NEEDED = ("h5py", "jinja2", "matplotlib", "tqdm")
"""Modules that training needs and hcnn_core does not: the extra `train`."""

ROOT = Path(__file__).resolve().parents[1]


def install_command(extra: str) -> str:
    """Return the command that installs what an extra needs.

    In a clone it is the clone's extra. Elsewhere the command lists the extra's packages, for a wheel is no longer
    there once it is installed, and an index may have another package by the name hcnn.
    """
    project = ROOT / "pyproject.toml"
    if project.is_file() and 'name = "hcnn"\n' in project.read_text(encoding="utf-8"):
        return f"pip install --editable {shlex.quote(f'{ROOT}[{extra}]')}"
    marker = re.compile(rf"""extra\s*==\s*["']{re.escape(extra)}["']""")
    try:
        required = metadata.requires("hcnn") or ()
    except metadata.PackageNotFoundError:  # neither a clone nor installed: a copy of the folders
        return f"the extra {extra!r} of hcnn's pyproject.toml"
    needed = [text.partition(";")[0].strip() for text in required if marker.search(text)]
    return f"pip install {' '.join(map(shlex.quote, needed))}"


def require_installed(*names: str, extra: str = "train") -> None:
    """Raise ModuleNotFoundError, which says what to do, if modules are missing; by default any of the extra `train`."""
    for name in names or NEEDED:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"{name} is not installed: {install_command(extra)}", name=name)
