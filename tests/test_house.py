"""The architecture: which module may import which, and that the documents quote what exists."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.count_code import count, lines_of_code

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("hcnn", "hcnn_core", "autodiff", "wavelets", "train")
# What a CuPy user may lack.
OPTIONAL = ("cupy", "cupyx", "h5py", "hypothesis", "jinja2", "matplotlib", "numba", "pytest", "tqdm")
LONGEST_KERNEL_FILE = 460
MOST_CODE_OF_PACKAGES = 30_677
"""Lines of code of the five packages, by scripts/count_code.py. What adds a line deletes one elsewhere."""
MOST_CODE = 72_415
"""Lines of code of the whole tree, tests and benchmarks among them."""
MOST_WORDS = 43_360
"""Words of the documents: the Markdown files of the top folder and of docs/."""

ENGINES = "hcnn_core._engines"
PARTS = "hcnn_core.backend._"
ROOMS = {  # a module belongs to the first of these that it is, or lies in; see docs/architecture.md
    f"{ENGINES}.planner": "planner",
    f"{ENGINES}.devices": "devices",
    f"{ENGINES}.dispatch": "dispatch",
    f"{ENGINES}.measuring": "planner",
    f"{ENGINES}.wisdom": "planner",
    f"{ENGINES}.cost_model": "cost model",
    f"{ENGINES}.generic": "generic",
    f"{ENGINES}.cpu": "cpu",
    f"{ENGINES}.cuda": "cuda",
    f"{ENGINES}.arrangement": "shared",
    f"{ENGINES}.choice": "shared",
    f"{ENGINES}.taps": "shared",
    f"{ENGINES}.transform": "shared",
    ENGINES: "no room",
    "hcnn_core.backend": "backend",
    "hcnn_core.environment": "system",
    "hcnn_core.files": "system",
    "hcnn_core._problem": "base",
    "hcnn_core._threads": "base",
    "hcnn_core._tuning": "base",
    "hcnn_core.precisions": "settings",
    "hcnn_core.shards": "shards",
    "hcnn_core.typing": "types",
    "hcnn_core.torch": "torch",
    "hcnn_core.jax": "jax",
    "hcnn_core.testing": "testing",
    "hcnn_core": "public",
    "autodiff": "autodiff",
    "wavelets": "wavelets",
    "train.settings": "a setting",
    "train.extras": "extras",
    "train.storage": "storage",
    "train.pages": "pages",
    "train.ranks": "ranks",
    "train.data": "data",
    "train.networks": "networks",
    "train.recipes": "recipes",
    "train.config": "config",
    "train.runs": "runs",
    "train.verification": "verification",
    "train.attributes": "attributes",
    "train.classifier": "train",
    "train.estimators": "train",
    "train": "commands",
    "hcnn": "facade",
}
LIBRARY = {"wavelets", "autodiff", "public", "settings", "shards", "types", "testing", "backend", "system"}
BASE = {"base", "backend", "system"}
MAY_IMPORT = {  # every room may also import itself
    "facade": {"commands"},
    "commands": {"train", "attributes", "verification", "runs", "config", "recipes", "networks", "data", "ranks"}
    | {"pages", "storage", "a setting", "extras", *LIBRARY},
    "train": {"runs", "config", "networks", "data", "extras", *LIBRARY},
    "attributes": {"verification", "runs", "config", "networks", "data", "pages", "storage", *LIBRARY},
    "verification": {"runs", "config", "networks", "data", "pages", "storage", *LIBRARY},
    "runs": {"config", "recipes", "networks", "data", "ranks", "pages", "storage", "extras", *LIBRARY},
    "config": {"recipes", "networks", "data", "a setting", "storage", *LIBRARY},
    "recipes": {"data", "a setting", *LIBRARY},
    "networks": {"pages", "a setting", *LIBRARY},
    "data": {"storage", *LIBRARY},
    "ranks": {"extras", *LIBRARY},
    "pages": {"storage", *LIBRARY},
    "storage": LIBRARY,
    "a setting": set(),
    "extras": set(),
    "wavelets": {"autodiff", "public", "types", "backend"},
    "autodiff": {"public", "settings", "shards", "types", "backend"},
    "testing": {"public", "types", *BASE},
    "torch": {"public", "types", *BASE},
    "jax": {"public", "types", *BASE},
    "public": {"planner", "dispatch", "settings", "shards", "types", *BASE},
    "planner": {"dispatch", "devices", "cost model", "shared", "settings", *BASE},
    "dispatch": {"devices", *BASE},
    "devices": {"generic", "cpu", "cuda", "shared", "settings", *BASE},
    "cost model": {"shared", *BASE},
    "cpu": {"generic", "shared", "shards", *BASE},
    "cuda": {"generic", "shared", "settings", "shards", *BASE},
    "generic": {"shared", "shards", *BASE},
    "shared": BASE,
    "settings": set(),
    "shards": {"backend"},
    "types": {"base"},
    "backend": {"types", "base", "system"},
    "base": {"system"},
    "system": set(),
}

FRAMEWORKS = {"torch": ("hcnn_core.torch", "train.runs.torch_module"), "jax": ("hcnn_core.jax",)}
"""Which modules may import a framework."""

Sources = dict[str, str]
"""Source text by the name of its module."""


def source_tree() -> Sources:
    """Every module of the packages."""
    tree = {}
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        tree[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text("utf-8")
    return tree


def nodes_that_run(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those in the body of ``if TYPE_CHECKING:``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING":
            for other in node.orelse:
                yield other
                yield from nodes_that_run(other)
        else:
            yield node
            yield from nodes_that_run(node)


@functools.lru_cache(maxsize=1024)
def imports_of(module: str, source: str, is_package: bool) -> frozenset[tuple[str, str]]:
    """Imported modules, each with a name taken from it or "", wherever in the source the import stands."""
    found: set[tuple[str, str]] = set()
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in nodes_that_run(ast.parse(source)):
        match node:
            case ast.Import():
                found |= {(alias.name, "") for alias in node.names}
            case ast.ImportFrom():
                above = package[: len(package) - node.level + 1] if node.level else []
                name = ".".join([*above, *filter(None, [node.module])])
                found |= {(name, alias.name) for alias in node.names}
            case ast.Call(
                func=ast.Attribute(attr="import_module" | "__import__") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                found.add((name, ""))
    return frozenset(found)


def targets(module: str, sources: Sources) -> set[str]:
    """Names of the modules that a module imports; what is not among the sources keeps the name it is given."""
    is_package = any(name.startswith(f"{module}.") for name in sources)
    found = set()
    for name, member in imports_of(module, sources[module], is_package):
        found.add(f"{name}.{member}" if f"{name}.{member}" in sources else name)
    return found - {module}


def of_checkers(module: str, sources: Sources) -> set[str]:
    """The same with what type checkers alone import: modules that cannot be read without each other."""
    free = sources[module].replace("TYPE_CHECKING:", "True:")
    return targets(module, {**sources, module: free})


def room(module: str) -> str:
    """The room of a module of the packages."""
    name = next(name for name in ROOMS if module == name or module.startswith(f"{name}."))
    is_known = name != "hcnn_core" or "._" not in module
    return ROOMS[name] if is_known else "no room"


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, or nothing."""
    done: set[str] = set()

    def follow(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module not in done:
            for target in sorted(graph[module]):
                if found := follow(target, [*path, module]):
                    return found
            done.add(module)
        return []

    return next(filter(None, (follow(module, []) for module in sorted(graph))), [])


def violations(sources: Sources) -> list[str]:
    """Everything in the sources that breaks the import rule, a line each."""
    found = []
    graph = {module: targets(module, sources) for module in sorted(sources)}
    for module, imported in graph.items():
        here = room(module)
        if here == "no room" and sources[module].strip():
            found.append(f"{module} has no room: give it one in ROOMS and in docs/architecture.md")
            continue
        for target in sorted(name for name in imported if name.partition(".")[0] in PACKAGES):
            there = room(target)
            if there != here and there not in MAY_IMPORT.get(here, set()):
                found.append(f"{module} ({here}) imports {target} ({there})")
    known = {module: of_checkers(module, sources) & sources.keys() for module in graph}
    if loop := circle(known):
        found.append(f"circle: {' -> '.join(loop)}")
    cupy = sorted(module for module, names in graph.items() if {n.partition(".")[0] for n in names} & {"cupy", "cupyx"})
    if {room(module) for module in cupy} != {"backend"}:
        found.append(f"CuPy is imported by {', '.join(cupy) or 'no module'}, not by hcnn_core.backend alone")
    for module, imported in graph.items():
        if room(module) != "backend" and (parts := [name for name in imported if name.startswith(PARTS)]):
            found.append(f"{module} imports {parts[0]}: import from hcnn_core.backend")
    for framework, homes in FRAMEWORKS.items():
        users = [m for m, names in graph.items() if framework in {n.partition(".")[0] for n in names}]
        if strays := [module for module in users if not f"{module}.".startswith(tuple(f"{home}." for home in homes))]:
            found.append(f"{framework} is imported by {', '.join(strays)}, not by {' and '.join(homes)} alone")
    public = {member for _, member in imports_of("hcnn_core", sources["hcnn_core"], True)}
    for name in sorted(public):
        if f"hcnn_core.{name}" in sources:
            found.append(f"hcnn_core.{name} is both a module and a public function")
    for module, source in sorted(sources.items()):
        lines = len(source.splitlines())
        if module.startswith(f"{ENGINES}.cpu.kernels.") and lines > LONGEST_KERNEL_FILE:
            found.append(f"{module} has {lines} lines; a file of kernels has {LONGEST_KERNEL_FILE} at most")
    return found


def over_budget(code: dict[str, int], words: int) -> list[str]:
    """By how much lines of code by folder, and words of documents, exceed their budgets, a line each."""
    counts = (
        ("lines of code in the packages", sum(code.get(package, 0) for package in PACKAGES), MOST_CODE_OF_PACKAGES),
        ("lines of code in the tree", sum(code.values()), MOST_CODE),
        ("words in the documents", words, MOST_WORDS),
    )
    return [f"{have} {what}, {have - most} more than the budget" for what, have, most in counts if have > most]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only Git says which files are the project's")
def test_code_and_documents_keep_within_their_budgets() -> None:
    code, words = count()
    assert over_budget(code, words) == []
    assert len(over_budget({**code, "train": MOST_CODE}, 10 * MOST_WORDS)) == 3


def test_lines_of_code_hold_no_docstring_comment_or_blank_line() -> None:
    python = '"""A module."""\n\n# why\ndef f():\n    """Say\n    so."""\n    return """a\nb"""  # at the end\n'
    assert lines_of_code("a.py", python) == 3
    assert lines_of_code("a.cu", "// why\n\nint a;  // so\n") == 1 == lines_of_code("a.sh", "#!/bin/sh\ncd /\n")
    assert lines_of_code("a.md", "words") == 0


def test_no_module_breaks_the_import_rule() -> None:
    sources = source_tree()
    assert {"hcnn_core.backend", f"{ENGINES}.cpu.kernels.gemm", "autodiff.tape", "train.cifar"} <= sources.keys()
    assert {room(module) for module in sources} == {*MAY_IMPORT, "no room"}  # _engines/__init__.py, which is empty
    assert violations(sources) == []


LEGAL: Sources = {
    "hcnn_core": "from hcnn_core.convolution import convolve",
    "hcnn_core.backend": f"from {PARTS}device import constant",
    f"{PARTS}device": "import cupy",
    "hcnn_core._problem": "",
    "hcnn_core._tuning": "",
    "hcnn_core.convolution": "from hcnn_core._engines.planner import make_plan",
    "hcnn_core._engines": "",
    f"{ENGINES}.planner": f"from {ENGINES} import cost_model\ndef late():\n    from {ENGINES}.devices import NUMPY",
    f"{ENGINES}.devices": f"def late():\n    from {ENGINES}.cpu import plan",
    f"{ENGINES}.cost_model": f"from {ENGINES}.taps import Taps",
    f"{ENGINES}.taps": "from hcnn_core.backend import Array",
    f"{ENGINES}.generic.dft": "from ..taps import Taps",
    f"{ENGINES}.cpu.plan": f"from {ENGINES}.generic import dft\nfrom {ENGINES}.cpu.kernels import gemm",
    f"{ENGINES}.cpu.kernels.gemm": "import numba",
    f"{ENGINES}.cuda.plan": "from hcnn_core._engines.generic.dft import MatrixDFT",
    "autodiff": "import hcnn_core\nfrom hcnn_core.backend import Array",
    "wavelets": "from autodiff import primitive",
    "train": "from autodiff import convolve\nfrom wavelets import scattering",
}


def test_a_tree_that_keeps_the_rule_passes() -> None:
    assert violations(LEGAL) == []


def test_one_file_asks_for_the_name_of_a_library() -> None:
    """Besides the package that stands between, and what converts arrays for users' tests."""
    free = f"{ENGINES}.devices", "hcnn_core.backend", "hcnn_core.testing"
    for module, source in source_tree().items():
        if module.startswith("hcnn_core") and not module.startswith(free):
            constants = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
            assert not {"numpy", "cupy"} & {value for value in constants if isinstance(value, str)}, module


def test_hcnn_core_has_25_flat_modules_at_most() -> None:
    assert len(list((ROOT / "hcnn_core").glob("*.py"))) <= 25


def test_the_rule_permits_no_circle() -> None:
    assert circle({here: there - {here} for here, there in MAY_IMPORT.items()}) == []
    assert circle({**MAY_IMPORT, "base": {"backend"}}) == ["backend", "base", "backend"]


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("hcnn_core.convolution", "import autodiff", "(public) imports autodiff"),
        ("hcnn_core.convolution", "def late():\n    import train.networks", "(public) imports train.networks"),
        ("hcnn_core.convolution", "__import__('train')", "(public) imports train (commands)"),
        ("hcnn_core.convolution", f"from {ENGINES}.cpu import plan", "(public) imports hcnn_core._engines.cpu.plan"),
        ("autodiff", "import importlib\nimportlib.import_module('train')", "(autodiff) imports train"),
        ("autodiff", "from hcnn_core import _problem", "(autodiff) imports hcnn_core._problem (base)"),
        (f"{ENGINES}.generic.dft", "from ..cpu import plan", "(generic) imports hcnn_core._engines.cpu.plan"),
        (f"{ENGINES}.cpu.plan", f"from {ENGINES} import planner", "(cpu) imports hcnn_core._engines.planner"),
        (f"{ENGINES}.cuda.plan", "from .. import cost_model", "(cuda) imports hcnn_core._engines.cost_model"),
        ("hcnn_core.convolution", f"import {ENGINES}.cost_model", "(public) imports hcnn_core._engines.cost_model"),
        (f"{PARTS}device", "from hcnn_core.backend import y", "circle: hcnn_core.backend -> hcnn_core.backend._device"),
        (f"{ENGINES}.taps", f"from {PARTS}device import y", f"{ENGINES}.taps imports {PARTS}device: import from"),
        ("hcnn_core._problem", "from hcnn_core import convolve", "(base) imports hcnn_core (public)"),
        ("hcnn_core._helpers", "x = 1", "hcnn_core._helpers has no room"),
        (f"{ENGINES}.helpers", "x = 1", "hcnn_core._engines.helpers has no room"),
        (
            f"{ENGINES}.cpu.kernels.gemm",
            "def late():\n    from hcnn_core._engines.cpu import plan",
            "circle: hcnn_core._engines.cpu.plan -> hcnn_core._engines.cpu.kernels.gemm -> hcnn_core._engines.cpu.plan",
        ),
        ("hcnn_core.convolution", "from hcnn_core import backend, convolve", "circle: hcnn_core -> hcnn_core.conv"),
        ("hcnn_core._tuning", "import cupyx.scipy.fft", f"imported by hcnn_core._tuning, {PARTS}device, not"),
        (f"{PARTS}device", "import numpy", "CuPy is imported by no module, not"),
        ("hcnn_core._problem", "import torch.nn", "torch is imported by hcnn_core._problem, not by hcnn_core.torch"),
        ("hcnn_core.torch._ops", "import jax", "jax is imported by hcnn_core.torch._ops, not by hcnn_core.jax alone"),
        ("hcnn_core.jax", "import hcnn_core.torch", "(jax) imports hcnn_core.torch (torch)"),
        ("hcnn_core.convolve", "", "hcnn_core.convolve is both a module and a public function"),
        (f"{ENGINES}.cpu.kernels.gemm", "x = 1\n" * 461, "has 461 lines"),
    ],
)  # fmt: skip
def test_a_tree_that_breaks_the_rule_is_refused(module: str, source: str, complaint: str) -> None:
    assert complaint in "\n".join(violations({**LEGAL, module: source}))


def test_imports_for_type_checkers_alone_are_free() -> None:
    source = f"if TYPE_CHECKING:\n    from {ENGINES}.cpu.plan import CpuPlan\nelse:\n    import train"
    found = violations({**LEGAL, "hcnn_core.convolution": source})
    complaints = [line for line in found if "circle" not in line]
    assert complaints == ["hcnn_core.convolution (public) imports train (commands)"]


def import_without(blocked: tuple[str, ...], module: str) -> subprocess.CompletedProcess[str]:
    """Import the module in a fresh interpreter in which the blocked ones are not installed."""
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); import {module}"
    return subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "module", ["hcnn_core", "hcnn_core.testing", "autodiff", "wavelets", "train", "train.networks.network"]
)
def test_imports_with_numpy_and_scipy_alone(module: str) -> None:
    path = ROOT / module.replace(".", "/")
    if not (path.is_dir() or path.with_suffix(".py").is_file()):
        pytest.skip(f"there is no {module}")
    result = import_without(OPTIONAL, module)
    assert result.returncode == 0, result.stderr


NOT_INSTALLED = """
import sys
sys.modules["numba"] = None
"""

NOT_COMPILING = """
import os
os.environ["NUMBA_DISABLE_JIT"] = "1"
"""

WITHOUT_NUMBA = """
import numpy as np
from hcnn_core import convolve, convolve_elu, convolve_vjp_x, elu, factored_layer, marginal, patch_moments

rng = np.random.default_rng(0)
x, w = rng.standard_normal((3, 9, 400)), rng.standard_normal((3, 5))
for method in ("auto", "direct", "fft"):
    for boundary in ("periodic", "zero"):
        options = {"boundary": boundary, "method": method}
        y = convolve(x, w, (1, 2), **options)
        assert np.isclose((y * y).sum(), (x * convolve_vjp_x(y, x.shape, w, (1, 2), **options)).sum())
        assert np.allclose(convolve_elu(x, w, 1.0, (1, 2), **options), elu(y + 1))
many = rng.standard_normal((3, 1 << 17))
assert np.allclose(marginal(elu(many), 0), elu(many).sum(0)) and patch_moments(x, (1, 2), 3, boundary="zero")
h, g = rng.standard_normal((3, 2)), rng.standard_normal((2, 5, 4))
assert factored_layer(x, h, np.zeros(2), g, 0.0, 1, 2, boundary="zero").shape == (3, 9, 400, 4)
"""


@pytest.mark.parametrize("before", [NOT_INSTALLED, NOT_COMPILING], ids=["not installed", "not compiling"])
def test_numpy_arrays_are_convolved_without_numba(before: str) -> None:
    result = subprocess.run([sys.executable, "-c", before + WITHOUT_NUMBA], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_blocking_an_import_blocks_it() -> None:
    assert import_without((), "hcnn_core.backend").returncode == 0
    assert "ModuleNotFoundError" in import_without(("numpy",), "hcnn_core.backend").stderr


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def test_continuous_integration_runs_lint_and_test() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    commands = re.findall(r"^ *(?:beside [a-z]+ )?make ([a-z]+)\b", script, re.MULTILINE)
    assert commands == ["mpi", "oldest", "lint", "test", "docs", "soak", "narrow"]
    assert set(commands) <= make_targets()


DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / ".github").rglob("*.md")])
NAMED = re.compile(r"(?<![\w/.*])((?:[\w-]+/)*[\w-]+\.(?:py|cu))\b")


def file_names() -> set[str]:
    """Every Python and CUDA file, by its path and by every end of it."""
    folders = [ROOT / name for name in (*PACKAGES, "tests", "benchmarks", "docs", "examples", "scripts")]
    paths = [path.relative_to(ROOT).parts for folder in folders for path in folder.rglob("*.*")]
    return {"/".join(parts[k:]) for parts in paths for k in range(len(parts))}


def missing_names(text: str) -> list[str]:
    return sorted(set(NAMED.findall(text)) - file_names())


def missing_links(document: Path, text: str) -> list[str]:
    """Links to no file, and links from a page of the site to a part of a file outside it, which Sphinx refuses."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)]+?)\)", prose) if "://" not in link and link[0] != "#"]
    parts = [link for link in links if document.parent.name == "docs" and link.startswith("../") and "#" in link]
    return [link for link in links if link in parts or not (document.parent / link.partition("#")[0]).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_files_that_exist(document: Path) -> None:
    text = document.read_text("utf-8")
    assert missing_names(text) == []
    assert missing_links(document, text) == []


def test_names_and_links_that_lead_nowhere_are_noticed() -> None:
    text = "See `cpu/plan.py`, `cpu/gone.py`, _lost.cu, *.cu; [a](gone.md#b), [c](../README.md), [d](../README.md#e)."
    assert missing_names(text) == ["_lost.cu", "cpu/gone.py"]
    assert missing_links(ROOT / "docs" / "architecture.md", text) == ["gone.md#b", "../README.md#e"]


def faults_of_tree(text: str) -> list[str]:
    """Paths in the tree of architecture.md that do not exist, and modules that it lists neither alone nor by folder."""
    folders: list[str] = []
    listed = set()
    for line in text.split("```text\n")[1].split("```")[0].splitlines():
        names = line.strip().partition("  ")[0].split(", ")
        del folders[(len(line) - len(line.lstrip())) // 2 :]
        listed |= {"".join(folders) + name for name in names}
        folders.append(names[-1])
    opened = {name.rpartition("/")[0] for name in listed if name.endswith(".py")}
    modules = {path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    unlisted = {
        str(path)
        for path in modules
        if path.name != "__init__.py"
        and (str(path.parent) in opened or not any(f"{folder}/" in listed for folder in path.parents))
    }
    return sorted({name for name in listed if not (ROOT / name).exists()} | (unlisted - listed))


def test_the_tree_lists_every_module_where_it_is() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    assert faults_of_tree(text) == []
    lost = next(line for line in text.splitlines(keepends=True) if line.startswith("    communicator.py"))
    moved = text.replace(lost, "").replace("  harmonics.py", lost[2:] + "  harmonics.py")
    assert faults_of_tree(moved) == ["train/ranks/communicator.py", "wavelets/communicator.py"]


def test_documents_quote_make_targets_that_exist() -> None:
    code = re.findall(
        r"^```.*?^```|`[^`\n]+`", "\n".join(p.read_text("utf-8") for p in DOCUMENTS), re.MULTILINE | re.DOTALL
    )
    quoted = set(re.findall(r"\bmake ([a-z]+)", "\n".join(code)))
    assert {"demo", "test"} <= quoted <= make_targets()
