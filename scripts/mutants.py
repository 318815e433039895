"""Change one expression at a time, run the tests of its file, and count how many changes the tests notice.

``python scripts/mutants.py --count 300`` draws mutants over `TESTS`' files, in a copy of the repository, and writes one
JSON line per mutant and a summary. A mutant is killed if a test fails, or if the tests take `--timeout` seconds; one
that survives is a test that is missing, or a change that makes no difference.
"""

from __future__ import annotations

import argparse
import ast
import collections
import copy
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

INTERRUPTION, COMMAND_LINE = "tests/train/test_interruption.py", "tests/train/test_command_line.py"
RUNS = ("tests/train/test_recipe.py", "tests/train/test_training.py")
DATA = ("tests/train/test_augmentation.py", "tests/train/test_data.py", "tests/train/test_data_formats.py")
VERIFY = (
    "tests/train/test_verification_report.py",
    "tests/train/test_proposition_3_1.py",
    "tests/train/test_verify.py",
)
TAPE = ("tests/autodiff/test_tape.py", "tests/autodiff/test_functional.py", "tests/autodiff/test_numpy_rules.py")

RULES = ("constants", "elementwise", "fft", "indexing", "joining", "linalg", "products", "reductions", "shapes")

ATTRIBUTES = ("contraction", "features", "meaning", "nearest", "organisation", "translations", "units")

TESTS: dict[str, tuple[str, ...]] = {
    "hcnn_core/convolution.py": (
        *("tests/core/test_convolution.py", "tests/core/test_convolution_adjoints.py"),
        *("tests/core/test_convolution_elu.py", "tests/core/test_algebra.py"),
    ),
    "hcnn_core/factored.py": ("tests/core/test_factored.py", "tests/train/test_network.py"),
    "hcnn_core/moments.py": ("tests/core/test_moments.py",),
    "hcnn_core/marginals.py": ("tests/core/test_marginal.py",),
    "hcnn_core/activations.py": ("tests/core/test_pointwise.py", "tests/core/test_convolution_elu.py"),
    "hcnn_core/translation.py": ("tests/core/test_translation.py",),
    "hcnn_core/normalization.py": ("tests/core/test_normalization.py",),
    "hcnn_core/loss.py": ("tests/core/test_loss.py",),
    "hcnn_core/precisions.py": ("tests/core/test_precision.py", "tests/train/test_step.py"),
    "autodiff/tape.py": TAPE,
    "autodiff/functional.py": TAPE,
    **{f"autodiff/_rules/{name}.py": ("tests/autodiff/test_numpy_rules.py",) for name in RULES},
    "autodiff/primitives.py": (*TAPE, "tests/autodiff/test_convolve_elu.py", "tests/train/test_network.py"),
    "autodiff/pytree.py": ("tests/autodiff/test_pytree.py", "tests/autodiff/test_functional.py"),
    "train/_command.py": (COMMAND_LINE,),
    "train/_files.py": ("tests/train/test_checkpoint.py", INTERRUPTION),
    "train/_hdf5.py": ("tests/train/test_checkpoint.py",),
    "train/_lock.py": (INTERRUPTION,),
    "train/_memory.py": (COMMAND_LINE, "-k", "memory or batch or address"),
    "train/_process.py": ("tests/train/test_process.py",),
    **{f"train/attributes/{name}.py": (f"tests/train/test_attribute_{name}.py",) for name in ATTRIBUTES},
    "train/checkpoint.py": ("tests/train/test_checkpoint.py", INTERRUPTION),
    "train/cifar.py": (INTERRUPTION, COMMAND_LINE),
    "train/config.py": ("tests/train/test_config.py",),
    "train/counterexamples.py": VERIFY,
    "train/covariance.py": VERIFY,
    "train/network.py": ("tests/train/test_recipe.py", "tests/train/test_network.py"),
    "train/optimizer.py": ("tests/train/test_optimizer.py", "tests/train/test_recipe.py"),
    "train/plot.py": ("tests/train/test_training.py", "-k", "picture or title or plot"),
    "train/run.py": (INTERRUPTION, "tests/train/test_training.py"),
    "train/step.py": ("tests/train/test_step.py", "tests/train/test_recipe.py"),
    "train/training.py": RUNS,
    "train/verification_report.py": ("tests/train/test_verification_report.py",),
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

PRELOADED = ("numpy", "scipy.ndimage", "scipy.special", "scipy.fft", "numba", "h5py", "hypothesis", "pytest")
"""What tests import and no mutant is in: loaded once, since each mutant is tested in a fork."""

SLOW = ("interruption", "command_line", "test_training", "test_verify", "core/test_conv", "test_network", "functional")
"""Parts of the names of tests that take long: mutants they decide on come last."""

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
    """Yield line, old text, new text and new source of every mutant of a file."""
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
        try:
            if ast.dump(ast.parse(changed)) == ast.dump(ast.parse(source)):
                continue
        except SyntaxError:
            continue
        yield node.lineno, whole[begin:end].decode(), new, changed  # type: ignore[attr-defined]


def drawn(count: int, seed: int, only: str) -> list[tuple[str, int, str, str, str]]:
    """Mutants of all files in a random order, as many of each as its share, at least four where there are."""
    rng = random.Random(seed)
    pools = {path: list(mutants(path)) for path in TESTS if only in path}
    for pool in pools.values():
        rng.shuffle(pool)
    total = sum(map(len, pools.values()))
    chosen = [
        (path, *mutant) for path, pool in pools.items() for mutant in pool[: max(4, round(count * len(pool) / total))]
    ]
    rng.shuffle(chosen)
    chosen.sort(key=lambda mutant: sum(name in test for name in SLOW for test in TESTS[mutant[0]]))
    print(f"{len(chosen)} of {total} possible mutants of {len(pools)} files", flush=True)
    return chosen


def tested(folder: Path, tests: tuple[str, ...], timeout: float, log: Path) -> str:
    """Run tests in a fork: "survived", "killed", or "timeout"."""
    child = os.fork()
    if child == 0:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        os.environ["PYTHONPATH"] = str(folder)
        status = 1
        try:
            import pytest

            flags = ["-x", "-q", "--tb=line", "-p", "no:cacheprovider"]
            preloaded = "ignore::pytest.PytestAssertRewriteWarning"
            status = int(pytest.main([*flags, "-W", preloaded, *tests]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            sys.stdout.flush()
            os._exit(status)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "killed" if status else "survived"
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="mutants drawn")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--only", default="", help="part of the names of the files that are changed")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th mutant of the draw, from the i-th on")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for the tests of a mutant")
    parser.add_argument("--minutes", type=float, default=600, help="no mutant is begun later than that")
    parser.add_argument("--out", type=Path, default=ROOT / "mutants.jsonl", help="records, a line each; appended to")
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
        folder, log = Path(temporary) / "tree", Path(temporary) / "log"
        files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, files.split("\0")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
        sound: dict[tuple[str, ...], float] = {}
        for path, line, old, new, changed in chosen:
            if time.monotonic() - begun > 60 * options.minutes:
                break
            tests = TESTS[path]
            if tests not in sound:  # the first run also compiles
                start = time.monotonic()
                result = tested(folder, tests, 4 * options.timeout, log)
                sound[tests] = time.monotonic() - start if result == "survived" else 0
                if result != "survived":
                    print(f"{tests} fail as they are, or take too long:\n{log.read_text()[-1000:]}", flush=True)
            if not sound[tests]:  # tests that fail without a mutant say nothing
                results["skipped"] += 1
                continue
            start = time.monotonic()
            whole = (folder / path).read_bytes()
            (folder / path).write_text(changed, "utf-8")
            try:
                result = tested(folder, tests, max(options.timeout, 3 * sound[tests]), log)
            finally:
                (folder / path).write_bytes(whole)
            results[result] += 1
            noticed = [
                text for text in log.read_text(errors="replace").splitlines() if text.startswith(("FAILED", "ERROR"))
            ]
            record = {"file": path, "line": line, "old": old, "new": new, "result": result}
            record |= {"by": noticed[0][:160] if noticed else "", "seconds": round(time.monotonic() - start, 1)}
            with open(options.out, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
            print(
                f"{sum(results.values())}/{len(chosen)} {result}: {path}:{line}: {old[:60]!r} -> {new[:60]!r}",
                flush=True,
            )
    killed = results["killed"] + results["timeout"]
    total = killed + results["survived"]
    share = f"{100 * killed / max(total, 1):.1f} %"
    print(f"{killed} of {total} mutants noticed ({share}), {results['survived']} survive, {results['skipped']} skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
