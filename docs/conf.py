"""Settings of the documentation site, which `make docs` builds with Sphinx from the pages in this folder."""

import inspect
import re
from importlib import metadata
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel
from sphinx.application import Sphinx

import rlm

project, author, release = "rlm", "The rlm authors", metadata.version("rlm")
extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme, html_title = "furo", "rlm"
html_show_sphinx = html_copy_source = html_show_copyright = False
myst_heading_anchors = 3
myst_url_schemes = {"http": None, "https": None, "mailto": None, "site": "{{path}}"}  # site: pages not by Sphinx
default_role = "py:obj"
numpydoc_show_class_members = False
autodoc_member_order, autodoc_typehints_format = "bysource", "short"

TOCTREE = "\n```{{toctree}}\n:caption: {}\n:hidden:\n:glob:\n\n{}\n```\n"
SECTION = re.compile(r"^## (.*)\n((?:(?!## ).*\n)*)", re.MULTILINE)
PAGE = re.compile(r"\]\((?:\.\./)?(\w+)\.md\)")
# What a page of the repository links to, and where the site has it.
MOVED = {
    r'<img src="docs/(\w+\.png)"[^>]* alt="([^"]*)">': r"![\2](\1)",
    r"\]\(docs/": "](",
    r"\]\((?:\.\./)?notebooks/(\w+)\.ipynb": r"](site:notebooks/\1.html",
    r"\[([^\]]*)\]\((?:\.\./)?rlm/\w+\.py\)": r"\1",
    r"\]\((?:\.\./)?CONTRIBUTING\.md": "](contributing.md",
    r"\]\((?:\.\./)?CHANGELOG\.md": "](changelog.md",
    r"\]\(\.\./README\.md": "](index.md",
    r"\]\(CITATION\.cff": "](../CITATION.cff",
    r"```mermaid": "```text",
}
# What the theme writes, and what helps those who read by keyboard or by ear; it can be applied twice.
HELP = {
    "<pre>": '<pre tabindex="0">',
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
    'role="heading">': 'role="heading" aria-level="2">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="All pages">',
    '<aside class="toc-drawer">': '<aside class="toc-drawer" aria-label="On this page">',
    '<aside class="toc-drawer no-toc">': '<aside class="toc-drawer no-toc" aria-label="On this page">',
    '<div id="search-results"></div>': '<h1>Search</h1>\n<div id="search-results" ></div>',
}


def write_pages(app: Sphinx) -> None:
    """Write the pages that come from elsewhere: README and its like, and the reference of every public module."""
    folder = Path(app.srcdir)
    readme, listed = (one.read_text(encoding="utf-8") for one in (folder.parent / "README.md", folder / "README.md"))
    sections = {title: [name.lower() for name in PAGE.findall(text)] for title, text in SECTION.findall(listed)}
    trees = [TOCTREE.format(title, "\n".join(names)) for title, names in sections.items()]
    _write(folder / "index.md", readme + "".join([*trees, TOCTREE.format("Reference", "README\napi/*")]))
    for name in ("CONTRIBUTING", "CHANGELOG"):
        _write(folder / f"{name.lower()}.md", (folder.parent / f"{name}.md").read_text(encoding="utf-8"))
    members = [getattr(rlm, name) for name in rlm.__all__]
    modules = [member for member in members if isinstance(member, ModuleType) and hasattr(member, "__all__")]
    (folder / "api").mkdir(exist_ok=True)
    for module in [rlm, *modules]:
        names = [name for name in module.__all__ if not isinstance(getattr(module, name), ModuleType)]
        described = "\n".join(_describe(module, name) for name in names)
        _write(
            folder / "api" / f"{module.__name__}.md", f"# {module.__name__}\n\n{inspect.getdoc(module)}\n\n{described}"
        )


def _write(page: Path, text: str) -> None:
    if not page.exists() or page.read_text(encoding="utf-8") != text:  # Sphinx builds anew what is newer
        page.write_text(text, encoding="utf-8")


def _describe(module: ModuleType, name: str) -> str:
    member = getattr(module, name)
    kind = "autoclass" if inspect.isclass(member) else "autofunction" if callable(member) else "autodata"
    members = "   :members:\n" if kind == "autoclass" else ""
    return f"```{{eval-rst}}\n.. {kind}:: {module.__name__}.{name}\n{members}```\n"


def move_links(app: Sphinx, page: str, source: list[str]) -> None:
    """Link to the site's pages in place of the repository's files."""
    for found, moved in MOVED.items():
        source[0] = re.sub(found, moved, source[0])


def list_settings(app: Sphinx, kind: str, name: str, member: object, options: object, lines: list[str]) -> None:
    """Append the fields of a config with their defaults and descriptions, which its docstring does not repeat."""
    if inspect.isclass(member) and issubclass(member, BaseModel) and kind == "class":
        lines += ["", ".. rubric:: Settings", ""]
        for field, info in member.model_fields.items():
            default = "" if info.is_required() else f" = {info.get_default(call_default_factory=True)!r}"
            lines += [f"``{field}{default}``", f"    {info.description or ''}", ""]


def help_readers(app: Sphinx, error: Exception | None) -> None:
    """Let a keyboard reach what scrolls, and give the theme's headings and landmarks their levels and names."""
    for page in () if error else Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for found, better in HELP.items():
            text = text.replace(found, better)
        _write(page, text)


def setup(app: Sphinx) -> None:
    app.connect("build-finished", help_readers)
    app.connect("builder-inited", write_pages)
    app.connect("source-read", move_links)
    app.connect("autodoc-process-docstring", list_settings, priority=900)  # after numpydoc
