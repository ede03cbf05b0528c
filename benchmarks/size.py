"""Count the code and the docstrings of the package: ``python -m benchmarks.size``."""

import ast
import io
import tokenize
from pathlib import Path

import pandas as pd

PACKAGE = Path(__file__).parents[1] / "rlm"
LIMITS = {"files at the top": 20, "files in a folder": 12, "lines of a file": 350, "code": 7_500, "docstrings": 3_500}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def count_lines(source: str) -> tuple[int, int]:
    """Count the lines that hold code, and the lines of docstrings; comments and empty lines are neither."""
    docs: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            docs.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - docs), len([line for line in docs if source.splitlines()[line - 1].strip()])


def measure() -> pd.DataFrame:
    """Return one row per module: folder, lines, code, docstrings."""
    rows = []
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        rows.append(
            (path.relative_to(PACKAGE).as_posix(), path.parent.name, len(source.splitlines()), *count_lines(source))
        )
    return pd.DataFrame(rows, columns=["module", "folder", "lines", "code", "docstrings"])
