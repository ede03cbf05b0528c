"""The pictures of the README: the panel in a browser after a quick look, and the report's first page."""

import re
import shutil
import tempfile
from pathlib import Path

import cyclopts
from PIL import Image
from playwright.sync_api import Page, expect

from benchmarks.browser import open_browser, serve

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "05_explore.ipynb"
COLOURS = 256
MILLISECONDS_TO_TRAIN = 600_000


def main(index: Path = Path("reports/index.html"), out: Path = Path("docs")) -> None:
    """
    Take both pictures.

    Parameters
    ----------
    index
        Of a report.
    out
        Folder for ``panel.png`` and ``report.png``.
    """
    with open_browser() as browser, tempfile.TemporaryDirectory() as folder:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        shutil.copy(NOTEBOOK, folder)
        with serve(Path(folder), NOTEBOOK.name) as address:
            _show_a_quick_look(page, address)
            page.locator(".rlm-explorer").screenshot(path=out / "panel.png")
        page.goto(index.resolve().as_uri())
        page.screenshot(path=out / "report.png")
    for name in ("panel.png", "report.png"):
        Image.open(out / name).convert("RGB").quantize(COLOURS).save(out / name, optimize=True)
        print(f"{out / name}: {(out / name).stat().st_size / 1000:.0f} kB")


def _show_a_quick_look(page: Page, address: str) -> None:
    page.goto(address)
    status = page.locator(".rlm-explorer").get_by_role("status").first
    expect(status).to_contain_text("Ready", timeout=60_000)
    page.locator(".rlm-explorer button", has_text=re.compile("^Run$")).click()
    expect(status).to_contain_text("Finished", timeout=MILLISECONDS_TO_TRAIN)
    page.wait_for_timeout(5_000)  # the last figure


if __name__ == "__main__":
    cyclopts.run(main)
