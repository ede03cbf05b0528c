"""The report, from real notebooks on a small file with phrases that would break a careless page."""

import re
from html.parser import HTMLParser

import nbformat
import pytest

from rlm.errors import InputError
from rlm.report import NOTEBOOKS, build_report

QUICK = {
    "seeds": 2, "pretrain_epochs": 1, "max_epochs": 2, "patience": 1,
    "pretraining_seeds": 1, "pretraining_epochs": 1, "few_triplets": 20, "few_epochs": 2,
    "seeds_per_system": 1, "systems": [["mean", "triplet"]],
}  # fmt: skip
PAGES = ["index", *(path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb")))]
ATTACK = "<script>alert(1)</script>"


class Page(HTMLParser):
    """What a browser would load or show."""

    def __init__(self, html):
        super().__init__()
        self.tags = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def named(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    rows = [f"{ATTACK} what about {i}\tabout {i} and {i + 1}" for i in range(90)]
    data = folder / "pairs.tsv"
    data.write_text("\n".join(["anchor\tpositive", *rows]), encoding="utf-8")
    return build_report(folder / "out", {"dataset": str(data), **QUICK}).parent


@pytest.fixture(params=PAGES)
def page(request, report):
    return Page((report / f"{request.param}.html").read_text(encoding="utf-8"))


def test_pages_load_nothing_and_run_nothing(page):
    loaded = [tag.get("src") or tag.get("data") for tag in page.named("img", "iframe", "embed", "object", "video")]
    assert all(source.startswith("data:image/") for source in loaded)
    assert all(tag["href"].startswith("data:") for tag in page.named("link"))
    assert not page.named("script")
    assert "@import" not in page.text
    assert not re.search(r"url\((?!['\"]?data:)", page.text)


def test_pages_have_a_title_one_heading_and_described_pictures(page):
    assert page.named("title")
    assert len(page.named("h1")) == 1
    assert all(image.get("alt") for image in page.named("img"))


def test_pages_link_to_each_other(page, report):
    targets = [link["href"] for link in page.named("a") if link["href"].endswith(".html")]
    assert {f"{name}.html" for name in PAGES} == set(targets)


def test_index_opens_with_verdict_figure_and_table(report):
    index = Page((report / "index.html").read_text(encoding="utf-8"))
    assert "Too few seeds" in index.text
    assert "2 paired seeds" in index.text
    assert len(index.named("img")) == 1
    assert len(index.named("table")) == 2
    assert (report / "verdict.png").read_bytes().startswith(b"\x89PNG")


def test_phrases_are_shown_as_text(report):
    assert ATTACK in Page((report / "01_data.html").read_text(encoding="utf-8")).text


def test_failing_cell_is_named_and_nothing_is_written(tmp_path):
    cells = [nbformat.v4.new_markdown_cell("# 1 · Fails?"), nbformat.v4.new_code_cell("1 / 0")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "01_fails.ipynb")
    with pytest.raises(InputError, match=r"01_fails\.ipynb, cell 1: ZeroDivisionError: division by zero"):
        build_report(tmp_path / "out", {}, tmp_path)
    assert not list((tmp_path / "out").glob("*"))


def test_folder_without_notebooks_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected numbered notebooks .* found none; pass --notebooks"):
        build_report(tmp_path / "out", {}, tmp_path)
