"""What is released: one version everywhere, the whole repository in the sdist, the packages in the wheel."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath

import pytest

import hcnn_core
from train.extras import NEEDED, install_command

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSION = PROJECT["version"]
PACKAGES = ("hcnn", "hcnn_core", "autodiff", "wavelets", "train")
GENERATED = ("PKG-INFO", "setup.cfg", "hcnn.egg-info")  # by setuptools, in an sdist


def test_one_version() -> None:
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert hcnn_core.__version__ == VERSION
    released = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert released[:1] in ([], [VERSION])
    try:
        installed = metadata.version("hcnn")
    except metadata.PackageNotFoundError:
        pytest.skip("hcnn is not installed")
    assert installed == VERSION


def test_the_recipe_for_conda_forge_asks_for_the_same() -> None:
    recipe = (ROOT / "conda" / "recipe.yaml").read_text("utf-8")
    assert f'version: "{VERSION}"' in recipe
    wanted = [
        *PROJECT["dependencies"],
        *PROJECT["optional-dependencies"]["train"],
        f"python {PROJECT['requires-python']}",
    ]
    needed = re.findall(r"- ([\w-]+ >=[\d.]+)$", recipe.partition("  run:")[2].partition("tests:")[0], re.MULTILINE)
    assert sorted(needed) == sorted(
        text.replace(">= ", ">=").replace("matplotlib ", "matplotlib-base ") for text in wanted
    )
    for command, function in PROJECT["scripts"].items():
        assert f"- {command} = {function}\n" in recipe


def test_supported_pythons_are_tested() -> None:
    """Each that the package names, and `make oldest` by the oldest."""
    name = "Programming Language :: Python :: "
    named = [text.removeprefix(name) for text in PROJECT["classifiers"] if text.startswith(f"{name}3.")]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    assert named == re.findall(r'"([\d.]+)"', workflow.split("python: [")[1].partition("]")[0])
    assert PROJECT["requires-python"] == f">= {named[0]}"
    assert f'python-version: "{named[0]}"' in workflow


def test_the_workflow_calls_targets_that_exist() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert {"test", "oldest"} == set(re.findall(r"run: make ([a-z]+)", workflow)) <= set(targets)
    assert "run: bash .ci/run\n" in workflow


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """Every file of the repository."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("only git knows which files are the repository's")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).is_file()}


def build(kind: str, tree: Path, target: Path) -> Path:
    """Build an "sdist" or a "wheel" of a source tree into a folder."""
    pytest.importorskip("setuptools", minversion="77")
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(target)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def unpacked(tracked: set[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist built of a clean copy of the repository, unpacked."""
    tree, target = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("sdist")
    for name in tracked:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tree / name)
    with tarfile.open(build("sdist", tree, target)) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later
        archive.extractall(target)
    return target / f"hcnn-{VERSION}"


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `python -m build` does, from the sdist."""
    return build("wheel", unpacked, tmp_path_factory.mktemp("wheel"))


def test_sdist_holds_the_repository(tracked: set[str], unpacked: Path) -> None:
    names = [path.relative_to(unpacked) for path in unpacked.rglob("*") if path.is_file()]
    assert {name.as_posix() for name in names if name.parts[0] not in GENERATED} == tracked
    assert {"tests/conftest.py", "tests/core/oracle.py", "benchmarks/results/speed.md", "Makefile"} <= tracked


def called(tmp_path: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run the entry point of pyproject.toml as its script does, in a folder that has a train.py."""
    (tmp_path / "train.py").write_text("raise SystemExit('the user's own')\n")
    module, _, function = PROJECT["scripts"]["hcnn"].partition(":")
    code = f"import sys; sys.argv[0] = '/somewhere/bin/hcnn'\n{before}\nfrom {module} import {function}\n"
    command = [sys.executable, "-P", "-c", f"{code}sys.exit({function}())", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_not_installed_is_said_before_training(tmp_path: Path, name: str) -> None:
    hide = f"import importlib.util as u; find = u.find_spec; u.find_spec = lambda n: None if n == {name!r} else find(n)"
    done = called(tmp_path, "train", "--preset", "sample", "--out", "run", before=hide)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"hcnn train: {name} is not installed: {install_command('train')}\n"
    assert not (tmp_path / "run").exists()


def test_wheel_holds_the_packages_and_their_data_and_nothing_else(tracked: set[str], wheel: Path) -> None:
    shipped = {name for name in tracked if PurePosixPath(name).parts[0] in PACKAGES}
    assert any(name.startswith("train/data/sample/") for name in shipped)
    assert any(name.endswith(".cu") for name in shipped)
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == shipped


WHEEL = """
import importlib.util as u
find = u.find_spec
u.find_spec = lambda name: None if name == "h5py" else find(name)
import hcnn
from hcnn.train.extras import install_command
print(hcnn.__file__)
for extra in ("train", "mpi", "safetensors"):
    print(install_command(extra))
try:
    hcnn.load("hcnn-best")
except ImportError as error:
    print(error)
"""


def test_an_extra_is_named_for_a_wheel_and_for_a_clone(wheel: Path, unpacked: Path, tmp_path: Path) -> None:
    """Where a wheel is installed, pip is told of the packages: no index need have this one."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    found = []
    for place in (tmp_path / "site", unpacked):
        environment = {**os.environ, "PYTHONPATH": str(place)}
        command = [sys.executable, "-c", WHEEL]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.startswith(str(place)), done
        found.append(done.stdout.splitlines()[1:])
    extras, names = PROJECT["optional-dependencies"], ("train", "mpi", "safetensors")
    for name, of_wheel, of_clone in zip(names, *found, strict=False):
        command = shlex.split(of_wheel)
        assert command[:2] == ["pip", "install"]
        assert [part.replace(" ", "") for part in command[2:]] == [part.replace(" ", "") for part in extras[name]]
        assert shlex.split(of_clone) == ["pip", "install", "--editable", f"{unpacked}[{name}]"]
    assert [lines[-1] for lines in found] == [f"h5py is not installed: {lines[0]}" for lines in found]
