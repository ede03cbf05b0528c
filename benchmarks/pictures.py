"""The pictures of README and docs: the differences of a study, the explorer in a browser, the report's first page."""

import re
import shutil
import tempfile
from pathlib import Path

import cyclopts
from PIL import Image
from playwright.sync_api import Page, expect

import rlm
from benchmarks.browser import open_browser, serve

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "05_explore.ipynb"
COLOURS = 256
RESOLUTION = 120
HEIGHT = 1_000
MILLISECONDS_TO_TRAIN = 600_000
ARMS = ("scratch", "pretrained", "pretrained_once", "rescaled", "shuffled_change")
STUDY = rlm.StudyConfig(arms=ARMS, pretrain_epochs=3, max_epochs=12, patience=3)  # that of docs/verdict.md


def main(
    index: Path = Path("reports/index.html"), out: Path = Path("docs"), db: Path = Path("study.db"), seeds: int = 20
) -> None:
    """
    Take all pictures.

    Parameters
    ----------
    index
        Of a report.
    out
        Folder for ``differences.png``, ``panel.png`` and ``report.png``.
    db, seeds
        Store and number of seeds of the study whose differences are drawn.
    """
    draw_differences(out / "differences.png", db, seeds)
    with open_browser() as browser, tempfile.TemporaryDirectory() as folder:
        page = browser.new_page(viewport={"width": 1280, "height": HEIGHT})
        shutil.copy(NOTEBOOK, folder)
        with serve(Path(folder), NOTEBOOK.name) as address:
            _show_a_quick_look(page, address)
            box = page.locator(".rlm-explorer").bounding_box() or {}
            seen = box | {"height": HEIGHT - box["y"]}  # the panel can be taller than what is drawn
            page.screenshot(path=out / "panel.png", clip=seen)
        page.goto(index.resolve().as_uri())
        page.screenshot(path=out / "report.png")
    for name in ("differences.png", "panel.png", "report.png"):
        Image.open(out / name).convert("RGB").quantize(COLOURS).save(out / name, optimize=True)
        print(f"{out / name}: {(out / name).stat().st_size / 1000:.0f} kB")


def draw_differences(path: Path, db: Path, seeds: int) -> None:
    """Draw the arms of the study of docs/verdict.md, which is trained unless the store has it."""
    rlm.run_study(STUDY, seeds, db=db)
    study = rlm.read_study(db).finished
    figure = rlm.plots.differences(rlm.compare_all(study.results, clusters=study.clusters)).figure
    figure.savefig(path, dpi=RESOLUTION, bbox_inches="tight")


def _show_a_quick_look(page: Page, address: str) -> None:
    page.goto(address)
    status = page.locator(".rlm-explorer").get_by_role("status").first
    expect(status).to_contain_text("Ready", timeout=60_000)
    page.locator(".rlm-explorer button", has_text=re.compile("^Run$")).click()
    expect(status).to_contain_text("Finished", timeout=MILLISECONDS_TO_TRAIN)
    page.locator(".rlm-explorer button", has_text=re.compile("^Plan$")).click()
    expect(page.get_by_text(re.compile("^About .* pairs, .* for an interval of"))).to_have_count(2, timeout=120_000)
    page.wait_for_timeout(5_000)  # the last figure


if __name__ == "__main__":
    cyclopts.run(main)
