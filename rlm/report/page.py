"""A page: an executed notebook as one HTML file that loads nothing and runs nothing."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from importlib.resources import files

from jinja2 import pass_context
from jinja2.runtime import Context
from mistune.plugins import import_plugin
from mistune.util import safe_entity
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from rlm.report.markup import clean_html, formula_html
from rlm.report.widgets import widget_html

HEADING = re.compile(r'<h2 id="([^"]+)">(.*?)<a class="anchor-link"', re.DOTALL)
FEWEST_HEADINGS = 3  # a shorter page needs no contents


class _Renderer(IPythonRenderer):
    """Markdown with formulas in MathML, which browsers draw by themselves, and with HTML shown as text."""

    def text(self, text: str) -> str:
        """Show character references as characters; mistune does so only if it lets HTML through."""
        return safe_entity(text)

    def block_math(self, body: str) -> str:
        return f'<span class="formula" tabindex="0">{formula_html(body, is_block=True)}</span>'

    def inline_math(self, body: str) -> str:
        return formula_html(body)

    def block_mermaidjs(self, code: str) -> str:
        """Show the source of a diagram that only a script could draw."""
        return f"<pre>{escape(code)}</pre>"

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """Show an attached picture, but only the source of any other, because a page loads nothing."""
        name = url.removeprefix("attachment:")
        is_here = url.startswith("data:") or (name != url and name in self.attachments)
        return super().image(text, url, title) if is_here else f"<code>{escape(f'![{text}]({url})')}</code>"


class _Exporter(HTMLExporter):
    @pass_context
    def markdown2html(self, context: Context, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = _Renderer(escape=True, allow_harmful_protocols=None, attachments=attachments)
        plugins = [import_plugin(name) for name in MarkdownWithMath.DEFAULT_PLUGINS if name != "task_lists"]
        return MarkdownWithMath(renderer=renderer, plugins=plugins).render(source)


def page_html(
    notebook: NotebookNode,
    title: str,
    provenance: Mapping[str, str],
    *,
    links: Sequence[tuple[str, str]] = (),
    page: str = "",
    has_code: bool = True,
) -> str:
    """
    Write an executed notebook as a whole HTML page.

    The page loads nothing and runs nothing, see `clean_html`; its content security policy forbids it as well.
    `provenance` is the box at its end, `links` are address and name of the pages that belong together.
    """
    exporter = _Exporter(
        template_name="template",
        extra_template_basedirs=[str(files("rlm.report"))],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_input=not has_code,
        filters={"clean": clean_html, "widget_html": partial(widget_html, metadata=notebook.metadata)},
    )
    styles = {"light": "xcode", "dark": "github-dark"}
    resources = {
        "page": page,
        "title": title,
        "links": links,
        "provenance": provenance,
        "highlight": {name: HtmlFormatter(style=style).get_style_defs(".highlight") for name, style in styles.items()},
    }
    html, _ = exporter.from_notebook_node(notebook, resources=resources)
    headings = HEADING.findall(html)
    items = "".join(f'<li><a href="#{anchor}">{heading}</a></li>' for anchor, heading in headings)
    listed = f'<nav class="contents" aria-label="Contents"><ol>{items}</ol></nav>'
    return html.replace("</h1>", f"</h1>{listed}", 1) if len(headings) >= FEWEST_HEADINGS else html
