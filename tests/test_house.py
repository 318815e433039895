"""The house: who imports whom, what is shipped, and that the documents quote what exists."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import hcnn_core

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("hcnn_core", "autodiff", "train")  # each imports itself and those before it
OPTIONAL = ("cupy", "cupyx", "h5py", "hypothesis", "matplotlib", "numba", "pytest", "tqdm")  # what a CuPy user may lack
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported_roots(source: str) -> set[str]:
    """Top-level names of every absolute import of the source, wherever it stands."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                names += [alias.name for alias in node.names]
            case ast.ImportFrom(module=str(name), level=0):
                names.append(name)
            case ast.Call(
                func=ast.Attribute(attr="import_module" | "__import__") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                names.append(name)
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    "source",
    [
        "import train",
        "import numpy, train.data as data",
        "from train.data import load",
        "def late():\n    import train",
        "import importlib\nimportlib.import_module('train.cifar')",
        "__import__('train')",
    ],
)
def test_reading_imports_misses_no_form_of_them(source: str) -> None:
    assert "train" in imported_roots(source)


def test_reading_imports_leaves_relative_ones_and_text_alone() -> None:
    assert imported_roots("'import train'\nfrom . import train\nfrom .train import x\nimport ast") == {"ast"}


@pytest.mark.parametrize("package", LAYERS[:-1])
def test_imports_go_one_way(package: str) -> None:
    above = set(LAYERS[LAYERS.index(package) + 1 :])
    assert modules(package)
    assert [path for path in modules(package) if above & imported_roots(path.read_text("utf-8"))] == []


def test_one_module_imports_cupy() -> None:
    paths = [path for package in LAYERS for path in modules(package)]
    found = [path for path in paths if {"cupy", "cupyx"} & imported_roots(path.read_text("utf-8"))]
    assert [path.relative_to(ROOT).as_posix() for path in found] == ["hcnn_core/_backend.py"]


def import_without(blocked: tuple[str, ...], module: str) -> subprocess.CompletedProcess[str]:
    """Import the module in a fresh interpreter in which the blocked ones are not installed."""
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); import {module}"
    return subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("module", ["hcnn_core", "hcnn_core.testing", "autodiff", "train", "train.network"])
def test_imports_with_numpy_and_scipy_alone(module: str) -> None:
    path = ROOT / module.replace(".", "/")
    if not (path.is_dir() or path.with_suffix(".py").is_file()):
        pytest.skip(f"there is no {module}")
    result = import_without(OPTIONAL, module)
    assert result.returncode == 0, result.stderr


def test_blocking_an_import_blocks_it() -> None:
    assert import_without((), "hcnn_core.backend").returncode == 0
    assert "ModuleNotFoundError" in import_without(("numpy",), "hcnn_core.backend").stderr


def test_one_version() -> None:
    version = PYPROJECT["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert hcnn_core.__version__ == version
    try:
        installed = metadata.version("hcnn")
    except metadata.PackageNotFoundError:
        pytest.skip("hcnn is not installed")
    assert installed == version


def test_wheel_holds_the_packages_and_their_data_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    tree = tmp_path / "tree"
    caches = shutil.ignore_patterns("__pycache__", ".*")
    for package in (*LAYERS, "tests"):
        shutil.copytree(ROOT / package, tree / package, ignore=caches)
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tree)
    files = [path for package in LAYERS for path in (tree / package).rglob("*") if path.is_file()]
    shipped = {path.relative_to(tree).as_posix() for path in files}
    assert any(name.startswith("train/data/sample/") for name in shipped)

    code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(tmp_path)!r}))"
    build = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == shipped


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def test_continuous_integration_runs_lint_and_test() -> None:
    commands = re.findall(r"^make ([a-z]+)$", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    assert commands == ["lint", "test"]
    assert set(commands) <= make_targets()


def test_readme_quotes_make_targets_that_exist() -> None:
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("there is no README.md")
    code = re.findall(r"^```.*?^```|`[^`\n]+`", readme.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    quoted = set(re.findall(r"\bmake ([a-z]+)", "\n".join(code)))
    assert {"demo", "test"} <= quoted <= make_targets()
