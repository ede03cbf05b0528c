"""The report, from real notebooks on a small file with phrases that would break a careless page."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe

from rlm.errors import InputError
from rlm.report.notebooks import _index, build_report
from rlm.report.page import page_html
from rlm.report.widgets import STATE, VIEW
from rlm.runtime.resources import find_notebooks

PICTURES = Path(__file__).parents[2] / "screenshots"
LARGEST_PAGE = 3_000_000

QUICK = {
    "seeds": 2, "pretrain_epochs": 1, "max_epochs": 2, "patience": 3,
    "pretraining_seeds": 1, "pretraining_epochs": 1, "few_triplets": 20, "few_epochs": 2,
    "seeds_per_system": 1, "systems": [["mean", "triplet"]],
    "images": 100, "clips": 24, "shuffles": 2, "memorising_epochs": 1, "labelled": [20, "all"],
    "minilm_pairs": 0,
}  # fmt: skip
PAGES = ["index", *(path.stem for path in sorted(find_notebooks().glob("*.ipynb")))]
ATTACK = "<script>alert(1)</script>"
FORMULA = r"$\text{<form action='https://evil.example'>}$ ![x](https://evil.example/x.png)"
NAME = r"$x$ ![x](a.png) <b>pairs"
SEEDS = {
    "01_data": "", "02_pretraining": "pretraining_seeds 1", "03_fine_tuning": "seed 0", "04_variance": "seeds 2",
    "05_explore": "seeds 2", "06_systems": "seeds_per_system 1", "07_random_labels": "seeds 2",
    "08_instability": "seeds 2", "09_judge": "seeds 2", "index": "seeds 2",
}  # fmt: skip


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
    rows = [f"{ATTACK} what about {i}\tabout {i} and {i + 1} {FORMULA}" for i in range(90)]
    rows += [f"{ATTACK}\t{ATTACK}", "\t"]  # which are left out, and named
    data = folder / f"{NAME}.tsv"
    data.write_text("\n".join(["anchor\tpositive", *rows]), encoding="utf-8")
    about = {"command": "rlm report", "dataset": ATTACK}
    return build_report(folder / "out", {"dataset": str(data), **QUICK}, about=about).parent


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
    assert all(image["alt"] and "No description" not in image["alt"] for image in page.named("img"))


def test_pages_link_to_each_other(page, report):
    targets = [link["href"] for link in page.named("a") if link.get("href", "").endswith(".html")]  # none to files
    assert {f"{name}.html" for name in PAGES} == set(targets)


def test_pages_say_where_they_come_from(page):
    for said in ("rlm report", "torch 2", "minutes"):
        assert said in page.text
    assert ATTACK in page.text or "Handwritten digits" in page.text  # its name


@pytest.mark.parametrize("name", PAGES)
def test_a_page_names_its_own_seeds(name, report):
    box = Page((report / f"{name}.html").read_text(encoding="utf-8")).text.split("Provenance")[-1]
    told = re.search(r"parameters\s*(.*?)\s*$", box, re.DOTALL)[1]
    assert re.findall(r"\w*seed\w* \d+", told) == [SEEDS[name]] * bool(SEEDS[name])
    assert str(report) not in box  # no path of this machine


@pytest.mark.parametrize("name", PAGES)
def test_pages_show_the_name_of_a_file_and_not_its_folder(name, report):
    html = (report / f"{name}.html").read_text(encoding="utf-8")
    assert (f"{NAME}.tsv" in Page(html).text) == (name != "07_random_labels")  # which has data of its own
    assert str(report.parent) not in html


def test_a_page_names_its_own_duration(report):
    def minutes(name):
        return float(re.search(r"<dt>duration</dt><dd>([\d.]+) minutes", (report / f"{name}.html").read_text())[1])

    own = [minutes(name) for name in PAGES if name != "index"]
    assert minutes("index") == pytest.approx(sum(own), abs=0.05 * len(own) + 0.051)
    assert max(own) < minutes("index")


def test_nothing_of_the_data_becomes_markup(page):
    assert "evil.example" not in "".join(str(attributes) for _, attributes in page.tags)
    assert not page.named("form")
    assert len(page.named("math")) in (0, 3)  # the formulas of notebook 2


def test_the_first_page_says_what_limits_the_verdict(report):
    for name in ("index", "04_variance"):
        text = Page((report / f"{name}.html").read_text(encoding="utf-8")).text
        said = "The encoder is lstm, trained for 1 epoch of pre-training and at most 2 epochs of fine-tuning."
        assert text.count(said) == 1 + (name != "index")
        assert "cut short by max_epochs" in text


def test_pages_of_random_labels_name_their_settings(report):
    text = Page((report / "07_random_labels.html").read_text(encoding="utf-8")).text
    said = "2 shuffles of the random labels, each until 90% are memorised and for at most 1 epoch; at most 2 epochs of"
    assert text.count(said) == 4  # of two studies, beside the figures and in the answer
    assert re.search(r"Random directions give \d", text)


def test_few_seeds_are_no_finding(report):
    text = Page((report / "02_pretraining.html").read_text(encoding="utf-8")).text
    assert "read this as observations" in text


def test_a_page_with_data_of_its_own_names_them(report):
    box = (report / "07_random_labels.html").read_text(encoding="utf-8").split("Provenance")[-1]
    assert "Handwritten digits" in box
    assert "CC-BY-4.0" in box
    assert "dataset " not in box.split("parameters")[1].split("versions")[0]


def test_pages_are_small(report):
    assert all(path.stat().st_size < LARGEST_PAGE for path in report.glob("*.html"))


def test_the_panel_is_shown_as_it_was_last(report):
    panel = Page((report / "05_explore.html").read_text(encoding="utf-8"))
    assert "picture of a live panel" in panel.text
    assert "Finished: 4 of 4 runs" in panel.text
    assert any("Test accuracy of 2 seeds" in image["alt"] for image in panel.named("img"))
    assert not panel.named("input", "button", "select")


def test_formulas_need_no_script():
    cell = nbformat.v4.new_markdown_cell("# Title\n\n$$\\frac{a^2}{b}$$ and $x_i < 3$ and <script>alert(1)</script>")
    html = page_html(nbformat.v4.new_notebook(cells=[cell]), "Title", {})
    page = Page(html)
    assert len(page.named("math")) == 2
    assert page.named("mfrac")
    assert not page.named("script")
    assert ATTACK in page.text


def test_widgets_of_a_notebook_show_their_values_as_text():
    state = {
        "slider": {"model_name": "IntSliderModel", "state": {"description": "depth", "value": 3, "layout": ""}},
        "choice": {"model_name": "DropdownModel", "state": {"description": ATTACK, "index": 1,
                   "_options_labels": ["a", "b & c"]}},
        "hidden": {"model_name": "LabelModel", "state": {"value": "nobody sees it", "layout": "IPY_MODEL_none"}},
        "none": {"model_name": "LayoutModel", "state": {"display": "none"}},
        "folded": {"model_name": "AccordionModel", "state": {"children": ["IPY_MODEL_empty"]}},
        "empty": {"model_name": "HTMLModel", "state": {}},
        "heads": {"model_name": "ToggleButtonsModel", "state": {"_options_labels": ["A"], "index": 0}},
        "stack": {"model_name": "StackModel", "state": {"children": ["IPY_MODEL_empty"], "titles": ["Data"]}},
        "box": {"model_name": "VBoxModel", "state": {"children": [f"IPY_MODEL_{name}" for name in
                ("slider", "choice", "hidden", "folded", "heads", "stack")]}},
    }  # fmt: skip
    output = nbformat.v4.new_output("display_data", data={VIEW: {"model_id": "box"}, "text/plain": "VBox()"})
    cells = [nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell("box", outputs=[output])]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"widgets": {STATE: {"state": state}}})
    page = Page(page_html(notebook, "Title", {}))
    assert "part 1" in page.text  # a section without a title
    assert page.text.count("Data") == 1
    assert "<b>A</b>" not in page_html(notebook, "Title", {})
    assert re.search(r"depth\s+3", page.text)
    assert re.search(re.escape(ATTACK) + r"\s+b & c", page.text)
    assert "nobody sees it" not in page.text
    assert not page.named("script")


class TestInABrowser:
    """Every page, from the disk, with the network cut off."""

    @pytest.fixture
    def open_page(self, browser, report):
        contexts = []

        def opened(name, width=1200, scheme="light"):
            contexts.append(
                browser.new_context(offline=True, color_scheme=scheme, viewport={"width": width, "height": 900})
            )
            page = contexts[-1].new_page()
            page.problems = []
            page.on("console", lambda message: page.problems.append(message.text))
            page.on("pageerror", lambda error: page.problems.append(str(error)))
            page.on("requestfailed", lambda request: page.problems.append(request.url))
            page.goto((report / f"{name}.html").as_uri())
            return page

        yield opened
        for context in contexts:
            context.close()

    @pytest.mark.parametrize("name", PAGES)
    def test_pages_are_quiet_ordered_and_accessible(self, open_page, name):
        page = open_page(name)
        assert page.title()
        levels = [int(heading.evaluate("e => e.tagName[1]")) for heading in page.locator("h1, h2, h3, h4").all()]
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        for image in page.locator("img").all():
            assert len(image.get_attribute("alt")) > 10
            assert image.evaluate("image => image.complete && image.naturalWidth > 0")
        found = Axe().run(page).response["violations"]  # contrast by day is among them
        assert not [one["id"] for one in found if one["impact"] in ("serious", "critical")], found
        assert not page.problems
        assert brightness_of(page, "color") < brightness_of(page, "backgroundColor")
        take_picture(page, f"{name}-light")

    @pytest.mark.parametrize("name", PAGES)
    def test_pages_fit_a_phone(self, open_page, name):
        page = open_page(name, width=400)
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        take_picture(page, f"{name}-phone")

    @pytest.mark.parametrize("name", PAGES)
    def test_pages_are_legible_by_night(self, open_page, name):
        page = open_page(name, scheme="dark")
        found = Axe().run(page, options={"runOnly": ["color-contrast"]}).response["violations"]
        assert not found
        assert brightness_of(page, "color") > brightness_of(page, "backgroundColor")
        take_picture(page, f"{name}-dark")


def brightness_of(page, what):
    colour = page.evaluate(f"getComputedStyle(document.body).{what}")
    return sum(map(int, re.findall(r"\d+", colour)[:3]))


def take_picture(page, name):
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / f"report-{name}.png", full_page=True)


def test_index_opens_with_verdict_figures_and_table(report):
    index = Page((report / "index.html").read_text(encoding="utf-8"))
    assert "Too few seeds" in index.text
    assert "2 paired seeds" in index.text
    differences, seeds = (image["alt"] for image in index.named("img"))
    assert differences.startswith("Mean paired differences")
    assert seeds.startswith("Validation and test accuracy")
    assert len(index.named("table")) == 2
    assert (
        index.text.count("An encoder must beat") == index.text.count("Of the function: Too few seeds") == 1
    )  # answers
    assert (report / "verdict.png").read_bytes().startswith(b"\x89PNG")


def test_phrases_are_shown_as_text(report):
    assert ATTACK in Page((report / "01_data.html").read_text(encoding="utf-8")).text


TITLE = nbformat.v4.new_markdown_cell("# 1 · Fails?")


def test_the_index_has_the_answer_of_every_page():
    texts = ["**not the last**", "**Yes: 3 of 4.** And more.\n\n- **not** this\n\n**Nor a leak.**"]
    outputs = [nbformat.v4.new_output("display_data", data={"text/markdown": text}) for text in texts]
    answered = nbformat.v4.new_notebook(cells=[TITLE, nbformat.v4.new_code_cell("", outputs=outputs)])
    titles = {"01.html": "Is it?", "02.html": "Or not?"}
    index = _index({"01.html": answered, "02.html": nbformat.v4.new_notebook(cells=[TITLE])}, titles)
    expected = "- [Is it?](<01.html>)\n\n  Yes: 3 of 4. Nor a leak.\n- [Or not?](<02.html>)\n\n  "
    assert index.cells[-1].source == f"## Pages\n\n{expected}"


def write_notebook(path, *cells):
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)


def test_failing_cell_is_named_and_nothing_is_written(tmp_path):
    parameters = nbformat.v4.new_code_cell("seeds = 1", metadata={"tags": ["parameters"]})
    write_notebook(tmp_path / "01_runs.ipynb", nbformat.v4.new_markdown_cell("# 1 · Runs?"))
    write_notebook(tmp_path / "02_fails.ipynb", TITLE, parameters, nbformat.v4.new_code_cell("1 / 0"))
    with pytest.raises(InputError, match=r"02_fails\.ipynb, cell 2: ZeroDivisionError: division by zero"):
        build_report(tmp_path / "out", {"seeds": 3}, tmp_path)  # which adds a cell
    assert not list((tmp_path / "out").glob("*"))


def test_a_notebook_whose_kernel_dies_is_named(tmp_path):
    cell = nbformat.v4.new_code_cell("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    write_notebook(tmp_path / "01_dies.ipynb", TITLE, cell)
    with pytest.raises(InputError, match=r"01_dies\.ipynb: DeadKernelError"):
        build_report(tmp_path / "out", {}, tmp_path)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: write_notebook(path, nbformat.v4.new_markdown_cell("No title\n\n## but a section")), "title"),
        (lambda path: write_notebook(path, nbformat.v4.new_code_cell("# a comment")), "title"),
        (lambda path: write_notebook(path), "title"),
        (lambda path: path.write_text("{}"), "expected a notebook"),
        (lambda path: path.write_bytes(b"\xff\xfe not JSON"), "expected a notebook"),
        (lambda path: path.mkdir(), "expected a notebook"),
    ],
)
def test_a_notebook_that_cannot_be_used_is_named_before_any_is_run(tmp_path, write, said):
    write_notebook(tmp_path / "01_runs.ipynb", TITLE, nbformat.v4.new_code_cell("open('ran', 'w')"))
    write(tmp_path / "02_bad.ipynb")
    with pytest.raises(InputError, match=rf"^02_bad\.ipynb: .*{said}"):
        build_report(tmp_path / "out", {}, tmp_path)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


def test_a_page_that_cannot_be_written_leaves_no_other(tmp_path, monkeypatch):
    write_notebook(tmp_path / "01_a.ipynb", TITLE)
    write_notebook(tmp_path / "02_b.ipynb", TITLE)
    made = []

    def fail_later(*arguments, **settings):
        made.append(page_html(*arguments, **settings))
        if len(made) == 2:
            raise ZeroDivisionError
        return made[-1]

    monkeypatch.setattr("rlm.report.notebooks.page_html", fail_later)
    with pytest.raises(ZeroDivisionError):
        build_report(tmp_path / "out", {}, tmp_path)
    assert not list((tmp_path / "out").glob("*"))


def test_a_folder_that_is_a_file_is_refused_before_anything_is_run(tmp_path):
    write_notebook(tmp_path / "01_runs.ipynb", TITLE, nbformat.v4.new_code_cell("open('ran', 'w')"))
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OSError, match="out"):
        build_report(tmp_path / "out", {}, tmp_path)
    assert not (tmp_path / "ran").exists()


def test_titles_and_names_of_notebooks_stay_text(tmp_path):
    title = nbformat.v4.new_markdown_cell(f"# {FORMULA} [x](https://evil.example) {ATTACK}")
    write_notebook(tmp_path / "01_a b (c) #d.ipynb", title)
    index = build_report(tmp_path / "out", {}, tmp_path).read_text(encoding="utf-8")
    page = Page(index)
    assert FORMULA in page.text
    assert not page.named("script", "form", "math")
    links = {link["href"] for link in page.named("a") if "class" not in link}
    assert links == {"index.html", "01_a%20b%20%28c%29%20%23d.html"}


def test_folder_without_notebooks_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected numbered notebooks .* found none; pass --notebooks"):
        build_report(tmp_path / "out", {}, tmp_path)
