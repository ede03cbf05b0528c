"""
Count the lines of the package, and hold them against its limits.

python -m benchmarks.size
"""

import ast
import io
import tokenize
from pathlib import Path

import pandas as pd

PACKAGE = Path(__file__).parents[1] / "rlm"
READING_PATH = ["config", "slicer", "sampler", "encoder", "loss", "training", "arms", "study", "verdict"]
LIMITS = {
    "files at the top": 21,
    "files in a folder": 12,
    "lines in a file": 350,
    "lines on the reading path": 2_400,
    "lines of code": 16_580,
    "lines of docstrings": 5_230,
}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
BLANK = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def count_lines(source: str) -> tuple[int, int]:
    """Count the lines of code and those of docstrings; comments and empty lines are neither."""
    lines, docstrings, code = source.splitlines(), set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            docstrings.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in BLANK:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - docstrings), sum(bool(lines[number - 1].strip()) for number in docstrings)


def measure() -> pd.DataFrame:
    """Return one row per module: path, folder, lines, code, docstrings."""
    rows = []
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        folder = path.parent.relative_to(PACKAGE).as_posix()
        rows.append((path.relative_to(PACKAGE).as_posix(), folder, len(source.splitlines()), *count_lines(source)))
    return pd.DataFrame(rows, columns=["path", "folder", "lines", "code", "docstrings"])


def tabulate(modules: pd.DataFrame) -> pd.DataFrame:
    """Return what each limit is about, what was found and the limit."""
    files = modules.groupby("folder").size()
    reading = modules["path"].isin([f"{name}.py" for name in READING_PATH])
    found = {
        "files at the top": files["."],
        "files in a folder": files.drop(".").max(),
        "lines in a file": modules["lines"].max(),
        "lines on the reading path": modules.loc[reading, "lines"].sum(),
        "lines of code": modules["code"].sum(),
        "lines of docstrings": modules["docstrings"].sum(),
    }
    return pd.DataFrame({"found": found, "limit": LIMITS}).rename_axis("most")


if __name__ == "__main__":
    print(tabulate(measure()).to_string())
