"""The package `hcnn`: one name for the others, light to import, and beside files that have their names."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import autodiff
import hcnn
import hcnn_core
import train
import wavelets
from hcnn.__main__ import COMMANDS
from hcnn._siblings import PACKAGES

ROOT = Path(__file__).resolve().parents[1]
FOREIGN = "mine = 'the module of the user'\n"


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, whose files come before this package's."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_names_are_those_of_the_packages() -> None:
    packages = {"core": hcnn_core, "autodiff": autodiff, "wavelets": wavelets, "train": train}
    assert {name: getattr(hcnn, name) for name in packages} == packages
    assert hcnn.convolve is autodiff.convolve and hcnn.grad is autodiff.grad
    assert hcnn.load is train.load and hcnn.fit is train.fit
    assert hcnn.planning is hcnn_core.planning and hcnn.wisdom is hcnn_core.wisdom
    assert hcnn.__version__ == hcnn_core.__version__
    assert (
        set(dir(hcnn))
        == {*hcnn.__all__, "__version__"}
        == {
            *packages,
            "convolve",
            "correlate",
            "translate",
            "grad",
            "value_and_grad",
            "load",
            "list_networks",
            "HCNNClassifier",
            "HCNNRegressor",
            "fit",
            "planning",
            "wisdom",
            "__version__",
        }
    )
    with pytest.raises(AttributeError, match="module 'hcnn' has no attribute 'lode'"):
        hcnn.lode  # noqa: B018


def test_type_checkers_see_the_packages_below_it() -> None:
    """Of which Python itself knows by a finder, and they do not."""
    folder = ROOT / "hcnn"
    stubs = {path.relative_to(folder): path.read_text("utf-8") for path in folder.rglob("*.pyi")}
    expected = {Path(name, "__init__.pyi"): package for name, package in PACKAGES.items()}
    for name, package in PACKAGES.items():
        parts = [path.parent.name for path in (ROOT / package).glob("[!_]*/__init__.py")]
        expected |= {Path(name, f"{part}.pyi"): f"{package}.{part}" for part in parts}
    expected[Path("core", "jax.pyi")] = "hcnn_core.jax"
    assert stubs.keys() == expected.keys()
    for path, text in stubs.items():
        assert f"\nfrom {expected[path]} import *" in text


def test_modules_below_it_run_as_their_own(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(FOREIGN)
    done = python(tmp_path, "-P", "-m", "hcnn.train.cifar", "--version")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.strip().endswith(hcnn.__version__)


def test_convolve_takes_plain_arrays_and_has_a_gradient() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 6, 7)), rng.standard_normal((3, 3, 2))
    y = hcnn.convolve(x, w, (1, 2), boundary="zero")
    assert type(y) is np.ndarray and np.array_equal(y, hcnn_core.convolve(x, w, (1, 2), boundary="zero"))
    found = hcnn.grad(lambda w: (hcnn.convolve(x, w, (1, 2), boundary="zero") * y).sum())(w)
    np.testing.assert_allclose(found, hcnn_core.convolve_vjp_w(y, x, w.shape, (1, 2), boundary="zero"))


def test_a_module_by_either_name_is_one_module() -> None:
    import hcnn.core.convolution
    import hcnn.train.config
    from hcnn.core.convolution import convolve
    from hcnn.train.config import Config

    assert convolve is hcnn_core.convolve and Config is train.Config
    assert hcnn.core.convolution is sys.modules["hcnn_core.convolution"]
    spec = hcnn_core.__spec__
    assert spec is not None and spec.name == hcnn_core.__name__ == "hcnn_core"
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'hcnn.core.gone'"):
        import hcnn.core.gone


LIGHT = """
import sys, hcnn
heavy = {"numpy", "hcnn_core", "autodiff", "train"} & set(sys.modules)
assert not heavy, heavy
hcnn.convolve
assert "numba" not in sys.modules and "train" not in sys.modules
import train  # which nothing here has used yet
assert train.mine
"""


def test_it_is_light_and_claims_only_what_is_used(tmp_path: Path) -> None:
    """So a program that convolves may have a module `train` of its own."""
    (tmp_path / "train.py").write_text(FOREIGN)
    done = python(tmp_path, "-c", LIGHT)
    assert done.returncode == 0, done.stderr


BESIDE = """
import hcnn
network = hcnn.load("hcnn-fast")
import autodiff, hcnn_core, train, wavelets
assert train.load is hcnn.load  # one module of a name: this is not the user's
print(network.class_names[0], *(not hasattr(m, "mine") for m in (autodiff, hcnn_core, train, wavelets)))
"""


def test_it_finds_its_own_beside_files_of_their_names(tmp_path: Path) -> None:
    for name in ("train", "autodiff", "hcnn_core"):
        (tmp_path / f"{name}.py").write_text(FOREIGN)
    (tmp_path / "wavelets").mkdir()
    done = python(tmp_path, "-c", BESIDE)
    assert (done.returncode, done.stdout) == (0, "airplane True True True True\n"), done.stderr


def test_a_script_called_train_may_use_it(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import hcnn\nassert __name__ == '__main__'\nprint(hcnn.train.make_config)\n")
    done = python(tmp_path, "train.py")
    assert done.returncode == 0 and "make_config" in done.stdout, done.stderr


AFTER = """
import train
import hcnn
hcnn.grad
try:
    hcnn.load
except ImportError as error:
    print(error)
    print(error.name, error.path)
print(train.mine)
"""


@pytest.mark.parametrize("is_package", [False, True], ids=["file", "folder"])
def test_another_module_that_came_before_is_named_in_one_line(tmp_path: Path, is_package: bool) -> None:
    """Two modules of one name in one process are what does not work."""
    place = tmp_path / "train" / "__init__.py" if is_package else tmp_path / "train.py"
    place.parent.mkdir(exist_ok=True)
    place.write_text(FOREIGN)
    done = python(tmp_path, "-c", AFTER)
    assert done.returncode == 0, done.stderr
    message, named, kept = done.stdout.splitlines()
    assert message == (
        f"hcnn needs its own package train, and another module train has been imported before, from {place}: rename "
        "that one, since a process has one module of a name"
    )
    assert named == f"train {place}" and kept == "the module of the user"


# Commands


EVERY_COMMAND = """
import contextlib, io, sys
from hcnn.__main__ import COMMANDS, main
for name in COMMANDS:
    for flag in ("--version", "--no-such-flag"):
        sys.argv, ended = ["hcnn", name, flag], None
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                ended = main()
            except SystemExit as end:
                ended = end.code
        print([flag, name, ended, out.getvalue(), err.getvalue()])
"""


def test_every_command_says_its_name_and_version(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("raise SystemExit('the user\\'s own')\n")
    done = python(tmp_path, "-c", EVERY_COMMAND)
    assert done.returncode == 0, done.stderr
    said = [ast.literal_eval(line) for line in done.stdout.splitlines()]
    assert [one[1:] for one in said[::2]] == [[name, 0, f"hcnn {hcnn.__version__}\n", ""] for name in COMMANDS]
    assert all(one[2] == 2 and f"hcnn {one[1]}: " in one[4] for one in said[1::2])


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((), 2, "hcnn: no command is given; choose one of train, describe, augmented, "),
        (
            ("trian",),
            2,
            "hcnn: 'trian' is no command (did you mean train?); choose one of train, describe, ",
        ),
        (("--version",), 0, f"hcnn {hcnn.__version__}\n"),
        (("--help",), 0, "usage: python -m hcnn COMMAND ...\n"),
        (("train", "--help"), 0, "usage: python -m hcnn train [FLAG ...]\n\nTrain "),
        (("evaluate", "--help"), 0, "usage: python -m hcnn evaluate [-h] [--version] "),
        (("evaluate", "nowhere"), 1, "hcnn evaluate: there is no checkpoint at nowhere; networks that ship: "),
        (("evaluate",), 2, "hcnn evaluate: the following arguments are required: NETWORK; --help lists the flags\n"),
    ],
)
def test_what_python_m_hcnn_says(tmp_path: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    done = python(tmp_path, "-m", "hcnn", *arguments)
    assert done.returncode == status and (done.stderr if status else done.stdout).startswith(said), done


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_a_closed_pipe_is_no_failure_to_talk_about(tmp_path: Path, flag: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "hcnn", flag]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_modules_of_commands_name_their_command() -> None:
    done = subprocess.run([sys.executable, "-m", "train.describe"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "train.describe: call python -m hcnn describe\n"
