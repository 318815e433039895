"""Count the lines of code in each folder, and the words of the documents: ``python scripts/count_code.py``.

A line of Python counts if it holds a token that is no comment and no part of a docstring. A line of CUDA, C or shell
counts if it is neither blank nor a whole comment. Documents are ``*.md`` and ``docs/*.md``. Only files that Git tracks
are counted. `tests/test_house.py` holds the budgets.
"""

from __future__ import annotations

import ast
import io
import subprocess
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMENTS = {".cu": "//", ".cuh": "//", ".h": "//", ".c": "//", ".sh": "#"}
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def lines_of_python(source: str) -> int:
    """Return the number of lines with code; strings that stand alone in a module, class or function are docstrings."""
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        for part in node.body if isinstance(node, DOCUMENTED) else ():
            match part:
                case ast.Expr(value=ast.Constant(value=str())):
                    code.difference_update(range(part.lineno, (part.end_lineno or part.lineno) + 1))
    return len(code)


def lines_of_code(path: str, source: str) -> int:
    """Return the lines of code of a file, by its suffix: 0 for what is neither Python, CUDA, C nor shell."""
    suffix = Path(path).suffix
    if suffix == ".py":
        return lines_of_python(source)
    mark = COMMENTS.get(suffix)
    return sum(bool(line.strip()) and not line.strip().startswith(mark) for line in source.splitlines()) if mark else 0


def count(root: Path = ROOT) -> tuple[Counter[str], int]:
    """Return the lines of code by top folder ("." for files beside them), and the words of the documents."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    code: Counter[str] = Counter()
    words = 0
    for name in filter(None, listed.split("\0")):
        path, folder = root / name, name.partition("/")[0] if "/" in name else "."
        if path.suffix in {".py", *COMMENTS} and path.is_file():
            code[folder] += lines_of_code(name, path.read_text("utf-8"))
        elif path.suffix == ".md" and folder in {".", "docs"} and path.is_file():
            words += len(path.read_text("utf-8").split())
    return code, words


if __name__ == "__main__":
    by_folder, of_documents = count()
    for top, number in by_folder.most_common():
        print(f"{top:12} {number:7,}")
    print(f"{'all':12} {by_folder.total():7,} lines of code; {of_documents:,} words of documents")
