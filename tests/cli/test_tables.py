"""Tables for texts: what LaTeX and Markdown would take for markup is shown as it is."""

import re
from html.parser import HTMLParser

import mistune
import numpy as np
import pandas as pd
import pytest
from conftest import QUICK
from hypothesis import example, given, strategies as st

from rlm.cli.output import write_table

SPECIAL = [
    r"50% of $x_1$ & {a}~b^2 #1 \newpage",
    "a | b",
    "*bold* `code` <b>tag</b> ![x](y.png)",
    "été ü 我",
    "two\n\nlines",
]
TABLE = pd.DataFrame(
    {"arm": SPECIAL, "the_share %": [0.5, -0.25, np.nan, 1e-9, 2.0], "seeds": [1, 2, 3, 4, 50_000], "kept": [True] * 5}
)
# What LaTeX prints for a command, by the documentation of LaTeX2e.
LATEX = {
    r"\textbackslash \space ": "\\ ", r"\textasciitilde \space ": "~ ", r"\textasciicircum \space ": "^ ",
    r"\textbackslash ": "\\", r"\textasciitilde ": "~", r"\textasciicircum ": "^",
    r"\%": "%", r"\$": "$", r"\&": "&", r"\_": "_", r"\{": "{", r"\}": "}", r"\#": "#",
}  # fmt: skip


def one_line(text):
    return " ".join(text.split())


def read_latex(source):
    """Return the rows of a tabular as they are printed; markup that is left over is an error."""
    command = re.compile("|".join(map(re.escape, LATEX)))
    rows = []
    for line in source.splitlines():
        if not line.endswith(r" \\"):
            assert line in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}") or line.startswith(r"\begin{")
            continue
        cells = re.split(r"(?<!\\) & ", line.removesuffix(r" \\"))
        assert not [cell for cell in cells if re.search(r"[%$&_{}#~^\\]", command.sub("", cell))]
        rows.append([command.sub(lambda found: LATEX[found[0]], cell).strip() for cell in cells])
    return rows


class Cells(HTMLParser):
    """The cells of an HTML table; a tag within one is an error."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.is_cell = [], False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        assert tag in ("table", "thead", "tbody", "tr", "th", "td")
        self.is_cell = tag in ("th", "td")
        if tag == "tr":
            self.rows.append([])
        if self.is_cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.is_cell = False

    def handle_data(self, data):
        if self.is_cell:
            self.rows[-1][-1] += data


def read_markdown(source):
    return Cells(mistune.create_markdown(escape=False, plugins=["table"])(source)).rows


READERS = {".tex": read_latex, ".md": read_markdown}


@pytest.mark.parametrize("ending", READERS)
def test_text_is_shown_as_it_is_and_numbers_as_results_prints_them(ending, tmp_path):
    write_table(tmp_path / f"t{ending}", TABLE)
    head, *rows = READERS[ending]((tmp_path / f"t{ending}").read_text(encoding="utf-8"))
    assert head == ["arm", "the_share %", "seeds", "kept"]
    assert [row[0] for row in rows] == list(map(one_line, SPECIAL))
    assert [row[1] for row in rows] == ["0.5000", "-0.2500", "", "0.0000", "2.0000"]
    assert [row[2:] for row in rows] == [[str(count), "True"] for count in TABLE["seeds"]]


TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@example(["\\ 0", "~ ^ x", "a  "])
@given(st.lists(TEXTS, min_size=1, max_size=3))
@pytest.mark.parametrize("ending", READERS)
def test_any_text_survives(ending, tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("table") / f"t{ending}"
    write_table(path, pd.DataFrame({"arm": texts, "n": range(len(texts))}))
    rows = READERS[ending](path.read_text(encoding="utf-8"))[1:]
    assert [one_line(row[0]) for row in rows] == list(map(one_line, texts))


@pytest.mark.parametrize("ending", READERS)
def test_the_results_of_a_store_become_a_table(ending, rlm_command, pairs, tmp_path):
    db, out = tmp_path / "study.db", tmp_path / f"results{ending}"
    assert rlm_command("study", "--dataset", pairs, "--seeds", 2, "--db", db, *QUICK)[0] == 0
    assert rlm_command("results", db, "--out", out)[0] == 0
    head, *rows = READERS[ending](out.read_text(encoding="utf-8"))
    _, printed, _ = rlm_command("results", db)
    expected = [[cell.replace("NaN", "") for cell in line.split()] for line in printed.splitlines()]
    assert [head, *rows] == expected
