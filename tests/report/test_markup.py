"""Text from data stays text: in Markdown, in formulas and in HTML, whatever it says."""

import re

import nbformat
import numpy as np
import pandas as pd
import pytest
from attacks import ATTACKS, assert_harmless, elements, text_of, tree_of
from hypothesis import given, settings, strategies as st

import rlm
from rlm.report.markup import HTML, MATHML, clean_html, escape_markdown, formula_html
from rlm.report.page import page_html
from rlm.report.widgets import STATE, VIEW


def page_of(*cells, **metadata):
    title = nbformat.v4.new_markdown_cell("# Title")
    return page_html(nbformat.v4.new_notebook(cells=[title, *cells], metadata=metadata), "Title", {})


def body_of(html):
    return html.split("<main>")[1].split("</main>")[0]


class TestEveryAttack:
    def test_in_markdown_of_a_notebook(self):
        html = page_of(*map(nbformat.v4.new_markdown_cell, ATTACKS), nbformat.v4.new_markdown_cell("the end"))
        assert_harmless(html)
        assert "the end" in text_of(html)

    @pytest.mark.parametrize(
        "kind", ["text/markdown", "text/html", "text/latex", "text/plain", "image/svg+xml", "application/javascript"]
    )
    def test_in_what_code_puts_out(self, kind):
        outputs = [
            nbformat.v4.new_output("display_data", data={kind: attack}) for attack in [*ATTACKS, "<style>", "<!-- "]
        ]
        html = page_of(nbformat.v4.new_code_cell("", outputs=outputs), nbformat.v4.new_markdown_cell("the end"))
        assert_harmless(html)
        assert "the end" in text_of(html)

    def test_in_streams_errors_code_and_descriptions(self):
        cells = []
        for attack in ATTACKS:
            outputs = [
                nbformat.v4.new_output("stream", name="stdout", text=attack),
                nbformat.v4.new_output("error", ename=attack, evalue=attack, traceback=[attack]),
                nbformat.v4.new_output("display_data", data={"image/png": attack}),
                nbformat.v4.new_output(
                    "display_data", data={"image/png": "AA=="}, metadata={"image/png": {"alt": attack}}
                ),
            ]
            cells.append(nbformat.v4.new_code_cell(attack, outputs=outputs, metadata={"alt": attack}))
        html = page_of(*cells)
        assert_harmless(html)
        assert [one["alt"] for name, one in elements(html) if name == "img"] == ATTACKS

    def test_in_title_links_and_provenance(self):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title")])
        text = " ".join(ATTACKS)
        html = page_html(notebook, text, {one: one for one in ATTACKS}, links=[("a.html", text)], page="a.html")
        assert_harmless(html)
        assert text_of(html).count(text) == 2
        assert all(text_of(html).count(attack) >= 4 for attack in ATTACKS)

    @pytest.mark.parametrize(
        ("before", "after"), [("", ""), ("## ", ""), ("**", "**"), ("> ", ""), ("a ", " b"), ("- [", "](<a.html>)")]
    )
    def test_escaped_for_markdown_it_is_shown_as_it_is(self, before, after):
        cells = [nbformat.v4.new_markdown_cell(f"{before}{escape_markdown(attack)}{after}") for attack in ATTACKS]
        html = page_of(*cells)
        assert_harmless(html)
        text = " ".join(text_of(body_of(html)).split())
        for attack in ATTACKS:
            assert " ".join(attack.split()) in text
        tags = {name for name, _ in elements(body_of(html))}
        assert tags <= {"html", "head", "body", "div", "h1", "a", *PLACES[before]}
        links = [one["href"] for name, one in elements(body_of(html)) if name == "a" and one["href"][0] != "#"]
        assert links == ["a.html"] * len(ATTACKS) * (before == "- [")

    def test_in_the_panel_on_paper(self):
        state = {"box": {"model_name": "VBoxModel", "state": {"children": []}}}
        for number, attack in enumerate(ATTACKS):
            for kind, value in PANEL.items():
                name = f"{kind}{number}"
                filled = {key: [attack] if one == [] else attack if one == "" else one for key, one in value.items()}
                state[name] = {"model_name": f"{kind}Model", "state": filled}
                state["box"]["state"]["children"].append(f"IPY_MODEL_{name}")
        output = nbformat.v4.new_output("display_data", data={VIEW: {"model_id": "box"}})
        html = page_of(nbformat.v4.new_code_cell("", outputs=[output]), widgets={STATE: {"state": state}})
        assert_harmless(html)


PLACES = {
    "": {"p"}, "## ": {"h2", "nav", "ol", "li"}, "**": {"p", "strong"}, "> ": {"blockquote", "p"}, "a ": {"p"},
    "- [": {"ul", "li"},
}  # fmt: skip
PANEL = {
    "HTML": {"value": ""}, "Label": {"value": ""}, "Text": {"value": "", "description": ""},
    "Button": {"description": ""},
    "Dropdown": {"_options_labels": [], "index": 0, "description": "", "description_allow_html": True},
    "Checkbox": {"value": True, "description": ""}, "IntProgress": {"value": "", "max": "", "description": ""},
    "Accordion": {"titles": [], "children": ["IPY_MODEL_Label0"]}, "ToggleButtons": {},
    "Image": {"tooltip": "", "format": ""},
}  # fmt: skip


PIECES = [
    *(
        "<",
        ">",
        "/",
        '"',
        "'",
        "=",
        " ",
        "&",
        "&lt;",
        "<!--",
        "-->",
        "<![CDATA[",
        "]]>",
        "<?",
        "</",
        "/>",
        "\n",
        "\0",
        "x",
    ),
    *("script", "style", "img", "math", "mtext", "svg", "p", "table", "td", "a", "href", "src", "onclick", "title"),
    *("javascript:", "url(", "{", "}", ":", ";", "color", "<style>", "</style>", "<math>", "<td>", "<a href=", "$"),
    *(
        "textarea",
        "noscript",
        "annotation-xml",
        "mglyph",
        "desc",
        "template",
        "select",
        "plaintext",
        "data:image/png;base64,",
    ),
]


class TestCleanHtml:
    @given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
    @settings(max_examples=600)
    def test_a_browsers_parser_finds_only_what_is_allowed(self, html):
        clean = clean_html(html)
        found = {name for name, _ in elements(f"<!DOCTYPE html><body>{clean}")}
        assert found <= HTML | MATHML | {"html", "head", "body", "style", "tbody", "tr", "colgroup"}
        assert_harmless(f"<!DOCTYPE html><body>{clean}")
        assert clean_html(clean) == clean

    def test_what_is_allowed_stays(self):
        html = (
            '<div class="scroll" tabindex="0"><table id="t"><tr><td colspan="2" style="text-align: right">1 &lt; 2</td>'
            '</tr></table></div><details open=""><summary>more</summary></details><a href="#x" aria-label="y">z</a>'
            '<a href="02_next.html">z</a><a href="https://arxiv.org/abs/1">z</a>'
            '<img alt="p" src="data:image/png;base64,AA==">'
        )
        assert clean_html(html) == html

    def test_of_a_style_only_looks_stay(self):
        css = (
            "/* note */ #T_1 th, .a:hover { text-align: left; position: fixed; width: 10em } b { background: url(x) }"
            " i { color: \\75rl(x); color: rgba(1, 2, 3, 0.5) }"
        )
        assert clean_html(f"<style>{css}</style>") == (
            "<style>#T_1 th, .a:hover { text-align: left; width: 10em }\ni { color: rgba(1, 2, 3, 0.5) }</style>"
        )
        assert clean_html("<style>@import 'https://x'; b { color: red }</style>after") == "after"
        assert clean_html("<style/>after") == "after"

    def test_what_is_not_allowed_is_shown(self):
        assert (
            clean_html("a <b onclick=x>b</b> <video src=y>c</video>") == "a <b>b</b> &lt;video src=y&gt;c&lt;/video&gt;"
        )


class TestFormulas:
    def test_a_broken_formula_shows_its_source_and_the_page_goes_on(self):
        html = page_of(
            nbformat.v4.new_markdown_cell("$\\frac{$ and $$\\begin{x$$ and $x^2$"), nbformat.v4.new_code_cell("1")
        )
        assert "$\\frac{$" in text_of(html)
        assert "$$\\begin{x$$" in text_of(html)
        assert len([name for name, _ in elements(html) if name == "math"]) == 1

    @pytest.mark.parametrize(
        "latex",
        [
            r"\max(0,\; \lVert f(a) - f(p) \rVert^2 + m)", r"\frac{a^2}{b_1}", r"x_i < 3", r"\sum_{i=0}^n \sqrt[3]{x}",
            r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}", r"\mathbb{R} \to \hat{y}", r"\text{a text}",
            r"\left( \int_0^1 \right)", r"\overline{x} \underbrace{y}_{z}", r"\operatorname{argmax}", r"\boxed{x}",
            r"\color{red} x",
        ],
    )  # fmt: skip
    def test_formulas_of_all_kinds_become_mathml(self, latex):
        assert formula_html(latex).startswith("<math")
        assert formula_html(latex, is_block=True).startswith('<math display="block"')

    def test_formulas_stay_in_headings(self):
        html = page_of(nbformat.v4.new_markdown_cell("## Where $x^2$ stands"))
        (heading,) = [one for one in tree_of(html).iter("h2") if "Where" in "".join(one.itertext())]
        assert [one.tag for one in heading.iter() if isinstance(one.tag, str) and one.tag.endswith("msup")]

    @given(st.text(alphabet="\\{}_^&$<>abfrctex/='\" ", max_size=30))
    def test_no_source_raises(self, latex):
        assert_harmless(f"<!DOCTYPE html><body>{formula_html(latex)}")


def test_a_deep_formula_is_shown_as_its_source():
    assert "<code>" in formula_html("{" * 3000)


class TestShow:
    """Tables of notebooks."""

    def shown(self, table, percent=()):
        """Read the texts of all cells back, the headings first."""
        return [line.split("|") for line in rlm.show(table, percent).to_string(delimiter="|").splitlines()]

    def test_nothing_becomes_markup(self):
        texts = pd.DataFrame({"text": ATTACKS, "list": [[one] for one in ATTACKS]})
        for table in (texts, texts.set_index("text"), texts[["text"]].T.set_axis(ATTACKS, axis=1)):
            html = rlm.show(table).to_html()
            tags = "html head body style table thead tbody tr th td"
            assert {name for name, _ in elements(html)} == set(tags.split())
            assert all(one in text_of(html) for one in ATTACKS)

    def test_numbers_are_rounded_and_a_missing_value_is_empty(self):
        table = pd.DataFrame(
            {
                "count": [12345, 0],
                "number": [0.123456, np.nan],
                "small": [0.000123456, -0.01],
                "large": [1234.5, np.inf],
                "share": [0.12345, np.nan],
                "mixed": pd.Series([1000, 0.5], dtype=object),
                "other": [None, True],
            }
        )
        assert self.shown(table, ["share"])[1:] == [
            ["12,345", "0.123", "0.000123", "1,234.5", "12.3%", "1,000", ""],
            ["0", "", "-0.01", "inf", "", "0.500", "True"],
        ]

    @pytest.mark.parametrize(
        ("index", "expected"),
        [
            (None, [["mean"], ["1"], ["2"]]),
            (pd.Index([7, 8], name="seed"), [["seed", "mean"], ["7", "1"], ["8", "2"]]),
            (pd.RangeIndex(2, name="seed"), [["seed", "mean"], ["0", "1"], ["1", "2"]]),
            (["a", "a"], [["", "mean"], ["a", "1"], ["a", "2"]]),
            (pd.MultiIndex.from_product([["a"], [7, 8]], names=["arm", None]),
             [["arm", "", "mean"], ["a", "7", "1"], ["a", "8", "2"]]),
            (pd.MultiIndex.from_product([["a"], [7, 8]]), [["", "", "mean"], ["a", "7", "1"], ["a", "8", "2"]]),
        ],
    )  # fmt: skip
    def test_an_index_is_kept_unless_it_numbers_the_rows(self, index, expected):
        assert self.shown(pd.DataFrame({"mean": [1, 2]}, index=index)) == expected

    def test_texts_are_on_the_left_and_long_ones_wrap(self):
        html = rlm.show(pd.DataFrame({"n": [1], "short": ["0.5 [0.4, 0.6]"], "long": ["word " * 20]})).to_html()
        looks = re.findall(r"text-align: (\w+);.*?white-space: (\w+);", html, re.DOTALL)
        assert looks == [("right", "nowrap"), ("left", "nowrap"), ("left", "normal")]
        assert clean_html(html).count("text-align") == 3  # also on a page
        mixed = pd.DataFrame(
            {"n": [1, 2, "3 (1-9)"], "text": ["a", None, None], "kind": pd.Categorical(["a", "b", "b"])}
        )
        assert re.findall(r"text-align: (\w+);", rlm.show(mixed).to_html()) == ["right", "left", "left"]

    def test_an_empty_table_has_its_headings(self):
        assert self.shown(pd.DataFrame({"arm": [], "mean": []}), ["mean"]) == [["arm", "mean"]]
