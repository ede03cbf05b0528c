"""A page: an executed notebook as one HTML file that loads nothing and runs nothing."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path

from jinja2 import pass_context
from jinja2.runtime import Context
from mistune import import_plugin
from mistune.util import safe_entity
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from rlm.report.markup import clean_html, formula_html
from rlm.report.widgets import widget_html

HEADING = re.compile(r'<h2 id="([^"]+)">(.*?)<a class="anchor-link"', re.DOTALL)
FEWEST_HEADINGS = 3  # below it the page is its own contents


class _Renderer(IPythonRenderer):
    """Markdown with formulas in MathML, which browsers draw by themselves, and HTML in it shown as text."""

    def text(self, text: str) -> str:
        """Show character references as their characters, which mistune does only where it lets HTML through."""
        return safe_entity(text)

    def block_math(self, body: str) -> str:
        return f'<span class="formula" tabindex="0">{formula_html(body, is_block=True)}</span>'

    def inline_math(self, body: str) -> str:
        return formula_html(body)

    def block_mermaidjs(self, code: str) -> str:
        """Show a diagram that only a script could draw as its source."""
        return f"<pre>{escape(code)}</pre>"

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """Show an attached picture; of one that lies elsewhere the source, since a page loads nothing."""
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
    Write an executed notebook as HTML.

    Parameters
    ----------
    notebook
        Executed. HTML in its Markdown is shown as text, and so is what `rlm.report.markup.clean_html` does not allow of
        the HTML that its code puts out.
    title
        Of the page.
    provenance
        What stands in the box at its end, by name.
    links
        Address and name of the pages that belong together.
    page
        The address of this one.
    has_code
        Whether to show the code, folded.

    Returns
    -------
    str
        A whole page. It loads nothing and runs nothing, which its content security policy forbids as well.
    """
    exporter = _Exporter(
        template_name="template",
        extra_template_basedirs=[str(Path(__file__).parent)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_input=not has_code,
        filters={"clean": clean_html, "widget_html": partial(widget_html, metadata=notebook.metadata)},
    )
    styles = {"light": "friendly", "dark": "github-dark"}
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
