"""A page: an executed notebook as one HTML file that loads nothing and runs nothing."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from jinja2 import pass_context
from jinja2.runtime import Context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from rlm.static_widgets import widget_html

HEADING = re.compile(r'<h2 id="([^"]+)">(.*?)<a class="anchor-link"', re.DOTALL)
FEWEST_HEADINGS = 3  # below it the page is its own contents


class _Renderer(IPythonRenderer):
    """Markdown with formulas in MathML, which browsers draw by themselves, and HTML in it shown as text."""

    def block_math(self, body: str) -> str:
        return f'<span class="formula" tabindex="0">{convert(body.strip(), display="block")}</span>'

    def inline_math(self, body: str) -> str:
        return convert(body.strip())


class _Exporter(HTMLExporter):
    @pass_context
    def markdown2html(self, context: Context, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = _Renderer(escape=True, allow_harmful_protocols=None, attachments=attachments)
        return MarkdownWithMath(renderer=renderer).render(source)


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
        Executed. HTML in its Markdown is shown as text; HTML that its code puts out is left as it is.
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
        A whole page. Its content security policy forbids scripts, and to load anything.
    """
    exporter = _Exporter(
        template_name="template",
        extra_template_basedirs=[str(Path(__file__).parent)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_input=not has_code,
        filters={"widget_html": partial(widget_html, metadata=notebook.metadata)},
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
