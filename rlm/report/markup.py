"""Markup that is safe to show: HTML and formulas reduced to lists of what is allowed, texts and tables escaped."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from html.parser import HTMLParser
from numbers import Integral, Real

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from rlm.sentences import escape_markdown as escape_markdown


def _names(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


VOID = _names("br col hr img")
HTML = _names(
    "a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption figure h1 h2 h3 h4 h5 h6 "
    "hr i img kbd label li mark ol p pre progress s samp small span strong sub summary sup table tbody td tfoot th "
    "thead tr tt u ul var"
)
MATHML = _names(
    "annotation math menclose merror mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms "
    "mspace msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover none semantics"
)
# None of these loads, runs or sends anything, whatever its value. Other rules check addresses and styles.
HTML_ATTRIBUTES = _names(
    "align alt border class colspan dir height id lang max open role rowspan scope start tabindex title valign value "
    "width"
)
MATHML_ATTRIBUTES = _names(
    "accent accentunder align bevelled class columnalign columnlines columnspacing columnspan depth display "
    "displaystyle encoding fence form height id largeop linebreak linethickness lspace mathbackground mathcolor "
    "mathsize mathvariant maxsize minsize movablelimits notation rowalign rowlines rowspacing rowspan rspace "
    "scriptlevel separator stretchy symmetric voffset width"
)
PROPERTIES = _names(
    "align-items background background-color border border-bottom border-collapse border-color border-left "
    "border-radius border-right border-spacing border-style border-top border-width color display flex flex-flow "
    "flex-wrap font-family font-size font-style font-variant-numeric font-weight gap height letter-spacing line-height "
    "margin margin-bottom margin-left margin-right margin-top max-height max-width min-height min-width opacity "
    "overflow overflow-x overflow-y padding padding-bottom padding-left padding-right padding-top text-align "
    "text-decoration text-transform vertical-align white-space width word-break"
)
# No quotation marks, colons, slashes or backslashes, and only brackets of computations: nothing could be loaded.
LARGE = 100
_VALUE = re.compile(r"(?:\b(?:rgba?|hsla?|calc|var|min|max|linear-gradient)\(|[\w\s#%.,)+*-]|!important)+")
_SELECTOR = re.compile(r"[\w\s#.,:>*()-]+")
_LINK = re.compile(r"#\S*|https?://\S+|[\w.%-]+\.html(?:#\S*)?", re.ASCII)
_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp|svg\+xml);base64,[\w+/=\s]*", re.ASCII)
_NAMESPACE = ' xmlns="http://www.w3.org/1998/Math/MathML"'  # HTML needs none


def clean_html(html: str) -> str:
    """
    Keep the tags and attributes that are on a list, and show every other tag as text: nothing is loaded, run or sent.

    Tags are written anew and text is escaped. No element that is kept has a syntax of its own except ``<style>``, whose
    text has no ``<``, so that a browser finds the same tags in it.
    """
    return _clean(html, HTML | MATHML, HTML_ATTRIBUTES | MATHML_ATTRIBUTES, has_styles=True).html


def formula_html(latex: str, is_block: bool = False) -> str:
    """Write a formula, without its delimiters, as MathML; or its source as text if it is none, or has other markup."""
    marks = "$$" if is_block else "$"
    source = f"<code>{escape(f'{marks}{latex}{marks}', quote=False)}</code>"
    from latex2mathml.converter import convert  # texts are escaped without it

    try:
        mathml = convert(latex.strip(), display="block" if is_block else "inline")
    except Exception:  # of many kinds, which the converter does not name
        return source
    cleaned = _clean(mathml.replace(_NAMESPACE, "", 1), MATHML, MATHML_ATTRIBUTES, has_styles=False)
    return source if cleaned.dropped else cleaned.html


def paragraph(text: str, kind: str = "") -> str:
    """Write a text as an HTML paragraph of a CSS class."""
    return f'<p class="{kind}">{escape(text)}</p>'


def html_table(table: pd.DataFrame, percent: Sequence[str] = (), are_texts: bool = False) -> str:
    """Write a table without its index as HTML; `percent` are columns of shares, and texts are aligned to the left."""
    html = table.rename(columns=_spell).to_html(
        index=False, border=0, na_rep="", classes="texts" if are_texts else None, float_format=_format,
        formatters={_spell(name): "{:.1%}".format for name in percent},
    )  # fmt: skip
    return f'<div class="scroll" tabindex="0">{html}</div>'


def show(table: pd.DataFrame, percent: Iterable[str] = ()) -> Styler:
    r"""
    Format a table for a notebook and its page: rounded numbers, texts on the left, no row numbers.

    Parameters
    ----------
    table
        Any table. An index that is no row number becomes the first columns.
    percent
        Columns of shares.

    Returns
    -------
    pandas.io.formats.style.Styler
        The table as HTML, in which markup is shown as text and a missing value is empty.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> rlm.show(pd.DataFrame({"arm": ["scratch"], "mean": [0.75]}), ["mean"]).to_string(delimiter=" | ").split("\n")
    ['arm | mean', 'scratch | 75.0%', '']
    """
    if not isinstance(table.index, pd.RangeIndex) or table.index.name:
        table = table.reset_index(names=[name or "" for name in table.index.names], allow_duplicates=True)
    lengths = table.map(lambda value: 1 + len(value) if isinstance(value, str) else 0).astype(int)
    sides = np.where((lengths > 0).sum() > table.count() / 2, "left", "right")
    styles = [{"selector": "th.col_heading", "props": "white-space: normal"}]
    styles += [
        {"selector": f".col{place}", "props": f"text-align: {side}; vertical-align: top; white-space: {wrap}"}
        for place, (side, wrap) in enumerate(zip(sides, np.where(lengths.max() > 40, "normal", "nowrap"), strict=True))
    ]
    style = table.style.hide().set_table_styles(styles).format_index(escape="html", axis=1)
    return style.format(_spell_cell, na_rep="").format("{:.1%}", subset=list(percent), na_rep="")


def _spell_cell(value: object) -> str:
    """Write a number rounded, a count with its thousands, anything else as escaped text."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return escape(str(value), quote=False)
    return f"{value:,}" if isinstance(value, Integral) else _format(float(value))


def _format(number: float) -> str:
    """Write a number with three decimals, with one if it is large, or three digits if it is small."""
    if abs(number) >= LARGE:
        return f"{number:,.1f}"
    return f"{number:,.3f}" if abs(number) >= 0.1 or number == 0 else f"{number:.3g}"


def _spell(name: object) -> str:
    return str(name).replace("_", " ")


class _Cleaner(HTMLParser):
    """Writes the HTML that it is fed anew, see `clean_html`, and notes what it drops."""

    def __init__(self, tags: frozenset[str], attributes: frozenset[str], has_styles: bool) -> None:
        super().__init__()
        self.tags, self.attributes, self.has_styles = tags, attributes, has_styles
        self.parts: list[str] = []
        self.dropped: list[str] = []
        self.style: list[str] | None = None

    @property
    def html(self) -> str:
        """Return what has been written."""
        return "".join(self.parts)

    def handle_starttag(self, tag: str, given: Sequence[tuple[str, str | None]]) -> None:
        """Keep an allowed tag."""
        if tag == "style" and self.has_styles:
            self.style = []
            return
        kept = dict(self._kept(tag, given))
        if tag not in self.tags or (tag == "img" and "src" not in kept):
            self._drop(tag, self.get_starttag_text() or f"<{tag}>")
            return
        self.parts.append(f"<{tag}{''.join(map(_attribute, kept, kept.values()))}>")

    def handle_endtag(self, tag: str) -> None:
        """Keep the end of an allowed tag."""
        if tag == "style" and self.style is not None:
            self._end_style()
        elif tag not in self.tags:
            self._drop(tag, f"</{tag}>")
        elif tag not in VOID:
            self.parts.append(f"</{tag}>")

    def handle_startendtag(self, tag: str, given: Sequence[tuple[str, str | None]]) -> None:
        """Keep an allowed empty tag."""
        self.handle_starttag(tag, given)
        if tag in self.tags or self.style is not None:
            self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        """Keep text as text."""
        if self.style is not None:
            self.style.append(data)
        else:
            self.parts.append(escape(data, quote=False))

    def close(self) -> None:
        """End a style sheet that was not ended."""
        super().close()
        self._end_style()

    def _end_style(self) -> None:
        rules, self.style = clean_rules("".join(self.style or [])), None
        if rules:
            self.parts.append(f"<style>{rules}</style>")

    def _drop(self, name: str, source: str) -> None:
        self.dropped.append(name)
        self.parts.append(escape(source, quote=False))

    def _kept(self, tag: str, given: Sequence[tuple[str, str | None]]) -> Sequence[tuple[str, str]]:
        kept = []
        for name, value in given:
            text = value or ""
            is_kept = name in self.attributes or (name.startswith("aria-") and _SELECTOR.fullmatch(name))
            if name == "style" and self.has_styles:
                text = clean_declarations(text)
                is_kept = bool(text)
            elif (tag, name) in _ADDRESSES:
                is_kept = _ADDRESSES[tag, name].fullmatch(text.strip())
            if is_kept:
                kept.append((name, text))
            else:
                self.dropped.append(name)
        return kept


_ADDRESSES: Mapping[tuple[str, str], re.Pattern[str]] = {("a", "href"): _LINK, ("img", "src"): _IMAGE}


def clean_rules(css: str) -> str:
    """Keep the rules of a style sheet that set only looks; none if it has at-rules, which can load other files."""
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    rules = [] if "@" in css else re.findall(r"([^{}]*)\{([^{}]*)\}", css)
    kept = ((selector.strip(), clean_declarations(body)) for selector, body in rules)
    return "\n".join(f"{selector} {{ {body} }}" for selector, body in kept if body and _SELECTOR.fullmatch(selector))


def clean_declarations(css: str) -> str:
    """Keep the declarations of a style that set only looks."""
    pairs = (part.partition(":")[::2] for part in css.split(";"))
    kept = [(name.strip().lower(), value.strip()) for name, value in pairs]
    return "; ".join(f"{name}: {value}" for name, value in kept if name in PROPERTIES and _VALUE.fullmatch(value))


def _clean(html: str, tags: frozenset[str], attributes: frozenset[str], has_styles: bool) -> _Cleaner:
    cleaner = _Cleaner(tags, attributes, has_styles)
    cleaner.feed(html)
    cleaner.close()
    return cleaner


def _attribute(name: str, value: str) -> str:
    return f' {name}="{escape(value)}"'
