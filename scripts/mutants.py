"""Change one expression at a time, run the tests of its file, and count how many changes the tests notice.

``python scripts/mutants.py --count 300`` draws mutants over `TESTS`' files, in a copy of the repository, and writes one
JSON line per mutant and a summary. A first run of the tests, without a mutant, records which lines each test executes.
A mutant is then given to the tests that execute its statement, the quickest first. It is killed if one of them fails or
does not end; one that survives is a test that is missing, or a change that makes no difference.
"""

from __future__ import annotations

import argparse
import ast
import collections
import contextlib
import copy
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

INTERRUPTION = "tests/train/test_interruption.py"
COMMAND_LINE = tuple(f"tests/train/test_command_line{part}.py" for part in ("", "_failures", "_runs"))
RUNS = (
    *("tests/train/test_recipe.py", "tests/train/test_training.py", "tests/train/test_resumption.py"),
    *(INTERRUPTION, *COMMAND_LINE),
)
DATA = ("tests/train/test_augmentation.py", "tests/train/test_data.py", "tests/train/test_data_formats.py")
VERIFY = (
    "tests/train/test_verification_report.py",
    "tests/train/test_proposition_3_1.py",
    "tests/train/test_verify.py",
)
TAPE = ("tests/autodiff/test_tape.py", "tests/autodiff/test_functional.py", "tests/autodiff/test_numpy_rules.py")

RULES = ("constants", "elementwise", "fft", "indexing", "joining", "linalg", "products", "reductions", "shapes")

USES = ("custom_data", "first_stage", "reuse", "run_report", "shipped")
"""What runs are made of, and made into."""

ATTRIBUTES = ("contraction", "features", "meaning", "nearest", "organisation", "translations", "units")

TESTS: dict[str, tuple[str, ...]] = {
    "hcnn_core/convolution.py": (
        *("tests/core/test_convolution.py", "tests/core/test_convolution_arguments.py"),
        *("tests/core/test_convolution_adjoints.py", "tests/core/test_convolution_elu.py"),
        *("tests/core/test_algebra.py", "tests/core/test_boundaries.py"),
    ),
    "hcnn_core/factored.py": ("tests/core/test_factored.py", "tests/train/test_network.py"),
    "hcnn_core/moments.py": ("tests/core/test_moments.py",),
    "hcnn_core/marginals.py": ("tests/core/test_marginal.py",),
    "hcnn_core/activations.py": ("tests/core/test_pointwise.py", "tests/core/test_convolution_elu.py"),
    "hcnn_core/translation.py": ("tests/core/test_translation.py", "tests/core/test_boundaries.py"),
    "hcnn_core/normalization.py": ("tests/core/test_normalization.py",),
    "hcnn_core/loss.py": ("tests/core/test_loss.py",),
    "hcnn_core/pooling.py": ("tests/core/test_pooling.py",),
    "hcnn_core/updates.py": ("tests/core/test_update_rules.py", "tests/gpu/test_updates.py"),
    "hcnn_core/precisions.py": ("tests/core/test_precision.py", "tests/train/test_step.py"),
    "autodiff/tape.py": TAPE,
    "autodiff/functional.py": TAPE,
    **{f"autodiff/_rules/{name}.py": ("tests/autodiff/test_numpy_rules.py",) for name in RULES},
    "autodiff/primitives.py": (*TAPE, "tests/autodiff/test_convolve_elu.py", "tests/train/test_network.py"),
    "autodiff/pytree.py": ("tests/autodiff/test_pytree.py", "tests/autodiff/test_functional.py"),
    "train/commands/command_line.py": COMMAND_LINE,
    "train/storage/files.py": ("tests/train/test_checkpoint.py", INTERRUPTION),
    "train/storage/hdf5.py": ("tests/train/test_checkpoint.py",),
    "train/storage/lock.py": (INTERRUPTION,),
    "train/runs/memory.py": COMMAND_LINE,
    "train/commands/process.py": ("tests/train/test_process.py",),
    **{f"train/attributes/{name}.py": (f"tests/train/test_attribute_{name}.py",) for name in ATTRIBUTES},
    "train/runs/checkpoint.py": ("tests/train/test_checkpoint.py", INTERRUPTION),
    "train/cifar.py": (*RUNS, *(f"tests/train/test_{name}.py" for name in USES)),
    "train/config.py": ("tests/train/test_config.py",),
    "train/verification/counterexamples.py": VERIFY,
    "train/verification/covariance.py": VERIFY,
    "train/networks/network.py": ("tests/train/test_recipe.py", "tests/train/test_network.py"),
    "train/recipes/optimizers.py": ("tests/train/test_optimizer.py", "tests/train/test_recipe.py"),
    "train/runs/plot.py": ("tests/train/test_training.py",),
    "train/runs/run.py": RUNS,
    "train/runs/step.py": ("tests/train/test_step.py", "tests/train/test_recipe.py"),
    "train/runs/training.py": (*RUNS, "tests/train/test_reuse.py"),
    "train/verification/report.py": ("tests/train/test_verification_report.py",),
    "train/verify.py": VERIFY,
    "train/data/augmentation.py": DATA,
    "train/data/cifar.py": (*DATA, "tests/train/test_data_download.py"),
    "train/data/dataset.py": DATA,
    "train/data/download.py": ("tests/train/test_data_download.py",),
    "train/data/images.py": (*DATA, "tests/train/test_recipe.py"),
    "train/data/_formats.py": DATA,
    "train/data/_pickles.py": DATA,
    "train/data/_sample.py": DATA,
}
"""Files that are changed, and the tests that should notice."""

PRELOADED = ("numpy", "scipy.ndimage", "scipy.special", "scipy.fft", "numba", "h5py", "hypothesis")
"""What tests import and no mutant is in: loaded once, since each mutant is tested in a fork."""

EXAMPLES = 15
"""Of each property, drawn alike for every mutant."""

SWAPPED: dict[type, type] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.MatMult: ast.Mult},
}

NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "sum": "max", "sorted": "list"}


class Mutations(ast.NodeVisitor):
    """Collects what can be changed: nodes, each with another one in its place.

    Left alone are annotations, docstrings, messages of errors, warnings and assertions, help texts, and types.
    """

    def __init__(self) -> None:
        self.found: list[tuple[ast.AST, ast.AST]] = []

    def propose(self, node: Any, **changes: Any) -> None:
        other = copy.copy(node)
        for name, value in changes.items():
            setattr(other, name, value)
        self.found.append((node, other))

    def visit_Raise(self, node: ast.Raise) -> None:
        self.found.append((node, ast.Pass()))

    def visit_Assert(self, node: ast.Assert) -> None:
        pass

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)

    def visit_arg(self, node: ast.arg) -> None:
        pass

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for child in (*node.args.defaults, *(d for d in node.args.kw_defaults if d), *node.body):
            self.visit(child)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return
        if isinstance(node.value, ast.Call):
            self.found.append((node, ast.Pass()))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if [getattr(target, "id", "") for target in node.targets] != ["__all__"]:
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.propose(node, op=SWAPPED[type(node.op)]()) if type(node.op) in SWAPPED else None
        self.visit(node.value)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in SWAPPED and not _is_type(node):
            self.propose(node, op=SWAPPED[type(node.op)]())
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.propose(node, op=SWAPPED[type(node.op)]())
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        self.propose(node, ops=[SWAPPED[type(node.ops[0])](), *node.ops[1:]])
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        self.found.append((node, node.operand))
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        self.found.append((node.test, ast.Constant(False)))
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.found.append((node, node.body))
        self.found.append((node, node.orelse))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.propose(node, value=not node.value)
        elif isinstance(node.value, int | float):
            self.propose(node, value=node.value + 1)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in NAMES:
            self.propose(node, id=NAMES[node.id])

    def visit_Call(self, node: ast.Call) -> None:
        for keyword in node.keywords:
            if keyword.arg and keyword.arg not in ("help", "metavar", "file", "flush"):
                self.propose(node, keywords=[k for k in node.keywords if k is not keyword])
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in ("help", "metavar"):
            self.visit(node.value)


def _is_type(node: ast.BinOp) -> bool:
    """Whether ``a | b`` is a type."""
    return isinstance(node.op, ast.BitOr)


def mutants(path: str) -> Iterator[tuple[int, str, str, str]]:
    """Yield line, old text, new text and new source of every mutant of a file, and of some changes that are none."""
    source = (ROOT / path).read_text("utf-8")
    found = Mutations()
    found.visit(ast.parse(source))
    begins = [0]
    for line in source.encode().splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    whole = source.encode()
    for node, other in found.found:
        begin = begins[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        end = begins[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        new = ast.unparse(ast.fix_missing_locations(other))
        if isinstance(other, ast.expr):
            new = f"({new})"
        changed = (whole[:begin] + new.encode() + whole[end:]).decode()
        yield node.lineno, whole[begin:end].decode(), new, changed  # type: ignore[attr-defined]


def is_mutant(path: str, changed: str) -> bool:
    """Whether a changed source is another program, and one at all."""
    try:
        return ast.dump(ast.parse(changed)) != ast.dump(ast.parse((ROOT / path).read_text("utf-8")))
    except SyntaxError:
        return False


def drawn(count: int, seed: int, only: Sequence[str]) -> list[tuple[str, int, str, str, str]]:
    """Mutants of all files in a random order, as many of each as its share, at least four where there are."""
    rng = random.Random(seed)
    pools = {path: list(mutants(path)) for path in TESTS if not only or any(part in path for part in only)}
    for pool in pools.values():
        rng.shuffle(pool)
    total = sum(map(len, pools.values()))
    chosen = [
        (path, *mutant)
        for path, pool in pools.items()
        for mutant in pool[: max(4, round(count * len(pool) / total))]
        if is_mutant(path, mutant[-1])
    ]
    rng.shuffle(chosen)
    print(f"{len(chosen)} of {total} possible mutants of {len(pools)} files", flush=True)
    return chosen


def lines_of(source: str, line: int) -> range | None:
    """Lines of the innermost statement at a line, of a compound one the head; None where it runs at import."""
    around = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or line)
    ]
    if not any(isinstance(node, ast.FunctionDef) and node.body[0].lineno <= line for node in around):
        return None
    inner = max(around, key=lambda node: (node.lineno, -(node.end_lineno or 0)))
    body = getattr(inner, "body", None)
    return range(inner.lineno, body[0].lineno if body else (inner.end_lineno or line) + 1)


class Recorder:
    """A plugin of pytest that records each test that passes: CPU seconds, its children's, and the lines it executes.

    Lines of a fixture count for every test that has it.
    """

    def __init__(self, folder: Path, files: Sequence[str], record: Path) -> None:
        self.names, self.record = {str(folder / file): file for file in files}, record
        self.lines: set[tuple[str, int]] = set()
        self.of_fixture: dict[str, set[tuple[str, int]]] = collections.defaultdict(set)
        self.tests: dict[str, Any] = {}
        self.failed: set[str] = set()

    def trace(self, frame: types.FrameType, event: str, argument: Any) -> Any:
        if (file := self.names.get(frame.f_code.co_filename)) is None:
            return None
        self.lines.add((file, frame.f_lineno))
        return self.trace

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        outer, self.lines = self.lines, set()
        try:
            return (yield)
        finally:
            self.of_fixture[fixturedef.argname] |= self.lines
            self.lines |= outer

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Function) -> Generator[None, Any, Any]:
        self.lines, begin = set(), os.times()
        threading.settrace(self.trace)
        sys.settrace(self.trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # which is how it is undone
            own, system, of_children, of_theirs = (b - a for a, b in zip(begin[:4], os.times()[:4], strict=True))
            lines = self.lines.union(*(self.of_fixture[name] for name in item.fixturenames))
            children = of_children + of_theirs
            self.tests[item.nodeid] = {
                "seconds": own + system + children,
                "children": children,
                "lines": sorted(lines),
            }

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        sound = {name: test for name, test in self.tests.items() if name not in self.failed}
        self.record.write_text(json.dumps(sound), "utf-8")


class Selection:
    """A plugin of pytest that runs some tests, in their order."""

    def __init__(self, chosen: Sequence[str]) -> None:
        self.places = {name: place for place, name in enumerate(chosen)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.places), key=lambda item: self.places[item.nodeid])


def chosen_tests(sound: dict[str, Any], file: str, lines: range | None, seconds: float) -> tuple[list[str], float]:
    """Tests that execute some lines, then those that start processes, which may; the quickest first, in some seconds.

    All tests where the lines run at import.
    """
    hits = [
        name for name, test in sound.items() if lines is None or any(f == file and n in lines for f, n in test["lines"])
    ]
    begun = [name for name, test in sound.items() if test["children"] > 0.2 and name not in hits]
    chosen, spent = list[str](), 0.0
    for names in (hits, begun):
        for name in sorted(names, key=lambda name: float(sound[name]["seconds"])):
            if spent + sound[name]["seconds"] <= seconds:
                chosen.append(name)
                spent += sound[name]["seconds"]
    return chosen, spent


def tested(folder: Path, arguments: Sequence[str], plugin: object, cpu: float, wall: float, log: Path) -> str:
    """Run tests in a fork: "survived", "killed", or "timeout" after seconds of a process or of the clock."""
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(cpu), resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        os.environ["PYTHONPATH"] = str(folder)
        status = 1
        try:
            preloaded = "ignore::pytest.PytestAssertRewriteWarning"
            flags = ["-q", "--tb=line", "-p", "no:cacheprovider", "-W", preloaded]
            status = int(pytest.main([*flags, *arguments], plugins=[plugin]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            sys.stdout.flush()
            os._exit(status)
    end, done, status = time.monotonic() + wall, 0, 0
    while not done and time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # and what its tests have started
    if not done:
        os.waitpid(child, 0)
    if not done or os.waitstatus_to_exitcode(status) == -signal.SIGXCPU:
        return "timeout"
    return "killed" if status else "survived"


def first_run(folder: Path, file: str, log: Path) -> dict[str, Any]:
    """What a `Recorder` finds of a file's tests without a mutant; those that fail say nothing and are left out."""
    record = log.with_name("record")
    tested(folder, [file], Recorder(folder, list(TESTS), record), 3600, 36000, log)
    found: dict[str, Any] = json.loads(record.read_text("utf-8"))
    cost = sum(test["seconds"] for test in found.values())
    print(f"{file}: {len(found)} tests pass, in {cost:.0f} s of CPU")
    print(
        *(text for text in log.read_text().splitlines() if text.startswith(("FAILED", "ERROR"))), sep="\n", flush=True
    )
    return found


def copy_tree(folder: Path) -> None:
    """Copy the repository, with compiled kernels, which are those of the copy as long as its files have their times."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = list(filter(None, files.split("\0")))
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    for parent in {Path(name).parent / "__pycache__" for name in names if name.startswith("hcnn_core")}:
        if (ROOT / parent).is_dir():
            shutil.copytree(ROOT / parent, folder / parent)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="mutants drawn")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--only", nargs="*", metavar="PART", help="part of the names of the files that are changed")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th mutant of the draw, from the i-th on")
    parser.add_argument("--seconds", type=float, default=60, help="of CPU: the quickest tests that fit decide")
    parser.add_argument("--timeout", type=float, default=1200, help="seconds of the clock for the tests of a mutant")
    parser.add_argument("--minutes", type=float, default=600, help="no mutant is begun later than that")
    parser.add_argument("--out", type=Path, default=ROOT / "mutants.jsonl", help="records, a line each; appended to")
    parser.add_argument(
        "--record", type=Path, default=ROOT / "mutants.tests.json", help="of first runs; remove it when tests change"
    )
    options = parser.parse_args()
    os.environ.update(OPENBLAS_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
    os.environ.setdefault("HCNN_NUM_THREADS", "1")
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    sys.dont_write_bytecode = True
    for name in PRELOADED:
        __import__(name)
    hypothesis = sys.modules["hypothesis"]
    hypothesis.settings.register_profile("mutants", max_examples=EXAMPLES, deadline=None, derandomize=True)
    begun = time.monotonic()
    part, parts = map(int, options.part.split("/"))
    chosen = drawn(options.count, options.seed, options.only)[part::parts]
    results: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder, log = (Path(temporary).resolve() / name for name in ("tree", "log"))
        copy_tree(folder)
        sound: dict[str, Any] = json.loads(options.record.read_text("utf-8")) if options.record.exists() else {}
        for path, line, old, new, changed in chosen:
            if time.monotonic() - begun > 60 * options.minutes:
                break
            for file in TESTS[path]:
                if file not in sound:
                    sound[file] = first_run(folder, file, log)
                    options.record.write_text(json.dumps(sound), "utf-8")
            tests = {name: test for file in TESTS[path] for name, test in sound[file].items()}
            whole, times = (folder / path).read_bytes(), (folder / path).stat()
            selected, cost = chosen_tests(tests, path, lines_of(whole.decode(), line), options.seconds)
            start = time.monotonic()
            (folder / path).write_text(changed, "utf-8")
            try:
                files = sorted({name.partition("::")[0] for name in selected})
                limits = 10 + 3 * cost, options.timeout
                result = tested(folder, ("-x", *files), Selection(selected), *limits, log) if selected else "survived"
            finally:
                (folder / path).write_bytes(whole)
                os.utime(folder / path, ns=(times.st_atime_ns, times.st_mtime_ns))  # Numba's cache goes by it
            results[result] += 1
            noticed = [
                text for text in log.read_text(errors="replace").splitlines() if text.startswith(("FAILED", "ERROR"))
            ]
            found = {"file": path, "line": line, "old": old, "new": new, "result": result, "tests": len(selected)}
            found |= {"by": noticed[0][:160] if noticed else "", "seconds": round(time.monotonic() - start, 1)}
            with open(options.out, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(found) + "\n")
            print(
                f"{sum(results.values())}/{len(chosen)} {result}: {path}:{line}: {old[:60]!r} -> {new[:60]!r}",
                flush=True,
            )
    killed = results["killed"] + results["timeout"]
    total = killed + results["survived"]
    share = f"{100 * killed / max(total, 1):.1f} %"
    print(f"{killed} of {total} mutants noticed ({share}), {results['survived']} survive")
    return 0


if __name__ == "__main__":
    sys.exit(main())
