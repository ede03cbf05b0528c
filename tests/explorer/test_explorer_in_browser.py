"""The explorer in a real JupyterLab and in Voila, driven by a real browser as a person would."""

import re
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import expect

from benchmarks.browser import run_all, serve
from rlm.config import Plan, StudyConfig
from rlm.explorer.panel import GROUPS
from rlm.store.read import list_studies, read_study

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "screenshots"
NAME = "05_explore.ipynb"
SEEDS = 36
RUNS = 2 * SEEDS
SOME = re.compile(rf"Training: [1-9]\d* of {RUNS}")
expect.set_options(timeout=60_000)
TRAINING = 180_000  # milliseconds; on a busy machine everything takes a while


@pytest.fixture
def folder(tmp_path):
    shutil.copy(ROOT / "notebooks" / NAME, tmp_path)
    PICTURES.mkdir(exist_ok=True)
    return tmp_path


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1500, "height": 1200})
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


class Panel:
    """What a person sees and does."""

    def __init__(self, page):
        self.page = page
        self.root = page.locator(".rlm-explorer").first
        self.status = self.root.get_by_role("status").first
        expect(self.root).to_be_visible()

    def button(self, name):
        return self.root.locator("button", has_text=re.compile(f"^{name}$"))  # by role it has its icon's glyph, too

    def press(self, name):
        expect(self.button(name)).to_be_enabled()
        self.button(name).click()

    def tab(self, name):
        self.root.get_by_role("tab", name=name, exact=True).click()

    def section(self, name):
        if name in GROUPS:
            self.root.locator("button", has_text=re.compile(f"^{name}$")).press("Enter")
            return
        self.root.locator(".jupyter-widget-Collapse-header, .lm-Widget .jupyter-widget-Collapse-header",
                          has_text=re.compile(f"^{name}$")).first.click()  # fmt: skip

    def field(self, name):
        return self.root.locator(f".knob-{name}").locator("input[type=number], input[type=text], select").first

    def set_up_a_small_study(self):
        self.root.locator("select").first.select_option("quick look")
        self.section("Encoder and loss")
        self.field("encoder").select_option("mean")
        self.section("Fine-tuning")
        self.field("max_epochs").fill("2")
        self.field("max_epochs").press("Enter")
        self.section("Study")
        self.field("seeds").fill(str(SEEDS))
        self.field("seeds").press("Enter")

    def shows(self, state, db):
        """Wait until the status says this state, and the runs that the store has; give them."""
        found = []

        def is_said():
            found[:] = [read_study(db).finished.results]
            return f"{state}: {len(found[0])} of {RUNS} runs" in (self.status.text_content() or "")

        wait_until(
            self.page, is_said, lambda: f"{state}: {len(found[0])} of {RUNS} runs, found {self.status.text_content()}"
        )
        return found[0]


def rows_of(results, runs):
    """The rows of the same runs in later results."""
    return runs[["arm", "seed"]].merge(results, how="left")


def wait_until(page, is_so, expected):
    """Ask again and again, as `expect` does of what a page shows."""
    end = time.monotonic() + TRAINING / 1000
    while not is_so():
        assert time.monotonic() < end, f"expected {expected()}"
        page.wait_for_timeout(100)


def open_lab(page, address):
    page.goto(address.format(NAME))
    run_all(page)
    return Panel(page)


def test_a_person_explores_in_jupyterlab(browser, page, folder):
    db = folder / "explore.db"
    with serve(folder) as address:
        panel = open_lab(page, address)
        expect(panel.status).to_contain_text("Ready")
        every_knob_says_what_it_does(panel)
        a_wrong_value_is_said(panel)
        move_a_slider(panel)
        every_section_has_a_title(panel)
        panel.set_up_a_small_study()
        expect(panel.root.locator("select").first).to_have_value("own settings")
        panel.press("Plan")
        planned = panel.root.get_by_text(re.compile("^About .* pairs, .* for an interval of ±1 point by test accuracy"))
        expect(planned).to_be_visible(timeout=TRAINING)
        panel.press("Run")
        expect(panel.status).to_contain_text(SOME, timeout=TRAINING)
        expect(panel.root.locator("img").first).to_be_visible()
        another_cell_answers(page, panel)
        panel.press("Stop")
        stopped = panel.shows("Stopped", db)
        assert 0 < len(stopped) < RUNS

        panel.press("Resume")
        wait_until(page, lambda: len(read_study(db).finished.results) > len(stopped), lambda: "another finished block")
        restart_the_kernel(page)
        restarted = panel.shows("Stopped", db)
        assert len(restarted) < RUNS
        assert rows_of(restarted, stopped).equals(stopped)

        panel.press("Resume")
        finished = panel.shows("Finished", db)
        assert len(finished) == RUNS
        assert rows_of(finished, restarted).equals(restarted)
        assert len(list_studies(db)) == 1
        expect(panel.root.locator(".headline").first).to_contain_text(re.compile("pretrained|No evidence"))
        expect(panel.button("Run")).to_be_enabled()
        look_at_every_tab(panel)
        name_it(panel, db)
        take_back_a_change(panel)
        download_the_results(panel, finished)
        look_inside(panel)
        take_pictures(page, "panel")
        sweep_a_knob(panel)
        panel.press("Export")
        expect(panel.root.get_by_text("Written:")).to_be_visible()
    exported = folder / "explore-study-1"
    assert (exported / "config.json").is_file()
    opens_offline(browser, exported / "report.html")


def name_it(panel, db):
    for name, text in {"name": "<b>first</b>", "tags": "b, a", "note": "to keep"}.items():
        box = panel.root.locator(".widget-text", has_text=re.compile(f"^{name}$")).locator("input")
        box.fill(text)
        box.press("Enter")
    said = ["<b>first</b>", "a, b", "to keep"]
    wait_until(panel.page, lambda: list_studies(db).loc[1, ["name", "tags", "note"]].tolist() == said, lambda: said)
    panel.tab("Compare")
    expect(panel.root.get_by_text("#1 <b>first</b>, chatterbot-english").locator("visible=true")).to_be_visible()
    expect(panel.root.get_by_text("[a, b]").locator("visible=true")).to_be_visible()


def take_back_a_change(panel):
    panel.section("Fine-tuning")
    before = panel.field("max_epochs").input_value()
    panel.field("max_epochs").fill("7")
    panel.field("max_epochs").press("Enter")
    expect(panel.root.get_by_text("The knobs differ: max epochs 7")).to_be_visible()
    panel.section("Code of these settings")
    expect(panel.root.get_by_text("max_epochs=7")).to_be_visible()
    panel.section("Code of these settings")
    panel.press("Undo")
    expect(panel.field("max_epochs")).to_have_value(before)
    expect(panel.root.get_by_text("with the settings of the knobs")).to_be_visible()


def download_the_results(panel, results):
    panel.tab("Results")
    with panel.page.expect_download() as file:
        panel.root.get_by_text("Download as CSV").click()
    assert file.value.suggested_filename == "study-1.csv"
    found = pd.read_csv(file.value.path())
    pd.testing.assert_frame_equal(found, results, check_dtype=False)


def sweep_a_knob(panel):
    panel.tab("Sweep")
    panel.root.get_by_placeholder("0.1, 0.3, 1").fill("0.1, 0.5")
    panel.press("Sweep this knob")
    found = panel.root.get_by_text(re.compile(r"with 95 % confidence.*In the race the accuracy of margin=0\.[15] was"))
    expect(found.locator("visible=true")).to_be_visible(timeout=TRAINING)
    expect(panel.root.get_by_alt_text(re.compile("^Differences of all settings to margin=0"))).to_be_visible()
    expect(panel.button("Sweep this knob")).to_be_enabled()


def look_inside(panel):
    panel.tab("Look inside")
    panel.press("Train this seed")
    expect(panel.root.get_by_text("pretrained: nearest phrases")).to_be_visible(timeout=TRAINING)
    asked = panel.root.get_by_placeholder("type your own question")
    asked.fill("qwertyuiop")
    asked.press("Enter")
    expect(panel.root.get_by_text("The training set has none of these words")).to_be_visible()
    panel.tab("Seeds")


def restart_the_kernel(page):
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_text("Restart Kernel and Run All Cells…", exact=True).click()
    page.locator(".jp-Dialog button.jp-mod-accept").click()


def every_knob_says_what_it_does(panel):
    fields = {**StudyConfig.model_fields, **Plan.model_fields}
    several = {"reading", "pretrain_reading"}  # they have inputs with descriptions of their own
    for group, names in GROUPS.items():
        panel.section(group)
        for name in {*names} - several:
            title = panel.root.locator(f".knob-{name} span[title]").first.get_attribute("title")
            assert title.startswith(fields[name].description)


def a_wrong_value_is_said(panel):
    panel.section("Study")
    for typed, is_right in {"-1": False, "": True}.items():
        panel.field("until").fill(typed)
        panel.field("until").press("Enter")
        expect(panel.status).to_contain_text("Ready" if is_right else "Not ready")
        expect(panel.button("Run")).to_be_enabled(enabled=is_right)
    panel.section("Study")


def every_section_has_a_title(panel):
    panel.root.locator("button", has_text=re.compile(f"^{next(iter(GROUPS))}$")).focus()
    for name, knobs in GROUPS.items():  # with the keyboard alone
        assert panel.page.evaluate("document.activeElement.textContent") == name
        panel.page.keyboard.press("Enter")
        expect(panel.root.locator(f".knob-{knobs[-1]}")).to_be_visible()
        panel.page.keyboard.press("Tab")
    panel.section("Data")
    assert panel.root.locator(".jupyter-widget-Collapse-header", has_text=re.compile("^reading$")).count() == 1


def move_a_slider(panel):
    panel.section("Data")
    shown = panel.root.locator(".knob-train_fraction .widget-readout")
    before = float(shown.inner_text())
    handle = panel.root.locator(".knob-train_fraction .noUi-handle")
    handle.focus()
    for _ in range(10):
        handle.press("ArrowLeft")
    expect(shown).not_to_have_text(str(before))
    wait_until(panel.page, lambda: float(shown.inner_text() or "nan") < before, lambda: f"less than {before}")
    panel.section("Data")


def another_cell_answers(page, panel):
    """While the study trains; the answer is computed, so that it cannot be what was typed."""
    cell = page.locator(".jp-CodeCell", has_text="explorer.results.tail()").first
    cell.scroll_into_view_if_needed()
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text("print('answer', 6 * 7)")
    start = time.monotonic()
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("answer 42")).to_be_visible()
    print(f"another cell took {time.monotonic() - start:.2f} s while the study trained")
    panel.root.scroll_into_view_if_needed()
    expect(panel.status).to_contain_text("Training")


def look_at_every_tab(panel):
    for name, text in {
        "Results": "Every run", "Verdict": "paired seeds", "Pre-training": "of the random triplets",
        "Compare": "#1 chatterbot-english", "Seeds": "pretrained",
    }.items():  # fmt: skip
        panel.tab(name)
        expect(panel.root.get_by_text(text).locator("visible=true").first).to_be_visible()
        if name == "Verdict":
            expect(panel.root.get_by_text("What luck decides").locator("visible=true")).to_be_visible()
            expect(panel.root.locator("img").locator("visible=true")).to_have_count(1)  # how many triplets depend on it
    for picture in panel.root.locator("img").locator("visible=true").all():
        assert picture.evaluate("one => one.offsetWidth <= one.parentElement.clientWidth")  # none is cut off


def take_pictures(page, name):
    for scheme in ("light", "dark"):
        if scheme == "dark":
            page.get_by_role("menuitem", name="Settings", exact=True).click()
            page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Theme$")).hover()
            page.locator(".lm-Menu-itemLabel", has_text=re.compile("^JupyterLab Dark$")).click()
            page.wait_for_timeout(1_500)
        page.screenshot(path=PICTURES / f"{name}-{scheme}.png")


def opens_offline(browser, path):
    context = browser.new_context(offline=True)
    page = context.new_page()
    problems = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("requestfailed", lambda request: problems.append(request.url))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or problems.append(request.url))
    page.goto(path.as_uri())
    expect(page.locator("h1")).to_contain_text("Does pre-training help")
    is_drawn = "image => image.complete && image.naturalWidth > 500"
    wait_until(page, lambda: page.locator("img").first.evaluate(is_drawn), lambda: "a picture")
    assert not problems
    context.close()


def collapse(panel):
    """Hard mining with a high learning rate pulls all phrases together."""
    panel.section("Encoder and loss")
    panel.field("loss").select_option("facenet")
    panel.field("mining").select_option("hard")
    panel.section("Fine-tuning")
    for name, value in {"learning_rate": "0.05", "epoch_triplets": "1500", "max_epochs": "6"}.items():
        panel.field(name).fill(value)
        panel.field(name).press("Enter")
    panel.section("Study")
    panel.field("seeds").fill("2")
    panel.field("seeds").press("Enter")
    panel.press("Run")
    expect(panel.status).to_contain_text(re.compile(r"seed\(s\) 0, 1 of arm scratch collapsed"), timeout=TRAINING)
    expect(panel.status).to_contain_text("Finished", timeout=TRAINING)


def test_the_same_in_voila(page, folder):
    with serve(folder, NAME) as address:
        page.goto(address)
        panel = Panel(page)
        expect(panel.status).to_contain_text("Ready")
        every_knob_says_what_it_does(panel)
        panel.set_up_a_small_study()
        panel.press("Run")
        expect(panel.status).to_contain_text(SOME, timeout=TRAINING)
        panel.press("Stop")
        expect(panel.status).to_contain_text("Stopped")
        collapse(panel)
        page.set_viewport_size({"width": 400, "height": 1_200})
        panel.tab("Results")
        expect(panel.root.get_by_text("Every run").locator("visible=true")).to_be_visible()
        for one in panel.root.locator("p, h3, [role=tab]").locator("visible=true").all():
            assert one.evaluate("one => one.getBoundingClientRect().right <= innerWidth")  # only tables are wider
        page.screenshot(path=PICTURES / "voila.png", full_page=True)
        assert page.locator("text=rlm.Explorer(").count() == 0
