"""The documentation site: it builds without a warning, loads nothing from elsewhere, and its links lead somewhere."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]


class Page(HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loaded, self.landmarks, self.titles = set(), [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        self.landmarks += [found.get("aria-label")] * (tag == "aside")
        self.titles += tag == "h1"
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag in ("script", "img", "link", "iframe") and found.get("rel") not in ("prev", "next", "index", "search"):
            self.loaded += [found[name] for name in ("src", "href") if name in found]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    # In a process of its own: autodoc writes into the annotations of the classes that it documents.
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", ROOT / "docs", folder]
    subprocess.run(command, check=True)
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):  # `make docs` copies their pages from the report
        page = folder / "notebooks" / f"{notebook.stem}.html"
        page.parent.mkdir(exist_ok=True)
        page.touch()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    return folder, pages


def test_what_a_page_loads_is_there(site):
    _, pages = site
    loaded = [(path, unquote(urlsplit(one).path)) for path, page in pages.items() for one in page.loaded]
    assert not [(path.name, name) for path, name in loaded if not (path.parent / name).exists()]


def test_links_of_the_site_lead_to_a_page_and_a_place_on_it(site):
    _, pages = site
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else {parts.fragment} if target.exists() else set()
            if parts.fragment not in anchors | {""} or not target.exists():
                broken.append((path.name, link))
    assert not broken


def test_the_site_loads_nothing_from_elsewhere(site):
    _, pages = site
    assert not [link for page in pages.values() for link in page.loaded if urlsplit(link).netloc]


def test_the_site_has_every_guide_and_every_public_name(site):
    folder, pages = site
    guides = (ROOT / "docs").glob("*.md")
    assert all(folder / f"{path.stem}.html" in pages for path in guides)
    assert "rlm.run_study" in pages[folder / "api" / "rlm.html"].anchors
    assert "rlm.stats.pairs_needed" in pages[folder / "api" / "rlm.stats.html"].anchors


def test_landmarks_titles_and_columns_of_every_page_have_names(site):
    """What axe asks of them; it would take minutes for all pages."""
    _, pages = site
    for path, page in pages.items():
        if path.parent.name != "notebooks":
            assert all(page.landmarks), path
            assert len(set(page.landmarks)) == len(page.landmarks), path
            assert page.titles == 1, path
            assert '<th class="head"><p></p></th>' not in path.read_text(encoding="utf-8"), path
