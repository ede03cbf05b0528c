"""Markup that is safe to show: HTML and formulas held against lists of what is allowed, texts escaped for Markdown."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from html.parser import HTMLParser

from latex2mathml.converter import convert

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
# None of these loads, runs or sends anything, whatever its value. Addresses and styles have rules of their own.
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
# No quotation marks, colons, slashes or backslashes, and brackets only of what computes: nothing that could be loaded.
_VALUE = re.compile(r"(?:\b(?:rgba?|hsla?|calc|var|min|max|linear-gradient)\(|[\w\s#%.,)+*-]|!important)+")
_SELECTOR = re.compile(r"[\w\s#.,:>*()-]+")
_LINK = re.compile(r"#\S*|https?://\S+|[\w.%-]+\.html(?:#\S*)?", re.ASCII)
_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp|svg\+xml);base64,[\w+/=\s]*", re.ASCII)
_NAMESPACE = ' xmlns="http://www.w3.org/1998/Math/MathML"'  # of no use in HTML


def clean_html(html: str) -> str:
    """
    Keep the tags and attributes that are on a list, and show every other tag as the text that it is.

    Parameters
    ----------
    html
        From anybody.

    Returns
    -------
    str
        HTML that loads nothing, runs nothing and sends nothing: images are data, links lead to https and http
        addresses, to places of the page and to pages beside it, styles name only looks.

    Notes
    -----
    What comes out consists of tags written anew and of escaped text; no element that stays has a syntax of its own but
    ``<style>``, the text of which holds no ``<``. So a browser finds the same tags in it.
    """
    return _clean(html, HTML | MATHML, HTML_ATTRIBUTES | MATHML_ATTRIBUTES, has_styles=True).html


def formula_html(latex: str, is_block: bool = False) -> str:
    """
    Write a formula as MathML.

    Parameters
    ----------
    latex
        Without its delimiters.
    is_block
        Whether it stands on a line of its own.

    Returns
    -------
    str
        HTML. The source, as text, of what is no formula, or would be more than a formula.
    """
    marks = "$$" if is_block else "$"
    source = f"<code>{escape(f'{marks}{latex}{marks}', quote=False)}</code>"
    try:
        mathml = convert(latex.strip(), display="block" if is_block else "inline")
    except Exception:  # of many kinds, which the converter does not name
        return source
    cleaned = _clean(mathml.replace(_NAMESPACE, "", 1), MATHML, MATHML_ATTRIBUTES, has_styles=False)
    return source if cleaned.refused else cleaned.html


class _Cleaner(HTMLParser):
    """Writes anew what it is fed, see `clean_html`; notes what it does not allow."""

    def __init__(self, tags: frozenset[str], attributes: frozenset[str], has_styles: bool) -> None:
        super().__init__()
        self.tags, self.attributes, self.has_styles = tags, attributes, has_styles
        self.parts: list[str] = []
        self.refused: list[str] = []
        self.style: list[str] | None = None

    @property
    def html(self) -> str:
        """All that was written."""
        return "".join(self.parts)

    def handle_starttag(self, tag: str, given: Sequence[tuple[str, str | None]]) -> None:
        """Keep a tag that is allowed."""
        if tag == "style" and self.has_styles:
            self.style = []
            return
        kept = dict(self._kept(tag, given))
        if tag not in self.tags or (tag == "img" and "src" not in kept):
            self._refuse(tag, self.get_starttag_text() or f"<{tag}>")
            return
        self.parts.append(f"<{tag}{''.join(map(_attribute, kept, kept.values()))}>")

    def handle_endtag(self, tag: str) -> None:
        """Keep the end of a tag that is allowed."""
        if tag == "style" and self.style is not None:
            self._end_style()
        elif tag not in self.tags:
            self._refuse(tag, f"</{tag}>")
        elif tag not in VOID:
            self.parts.append(f"</{tag}>")

    def handle_startendtag(self, tag: str, given: Sequence[tuple[str, str | None]]) -> None:
        """Keep an empty tag that is allowed."""
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
        """End what was not ended."""
        super().close()
        self._end_style()

    def _end_style(self) -> None:
        rules, self.style = clean_rules("".join(self.style or [])), None
        if rules:
            self.parts.append(f"<style>{rules}</style>")

    def _refuse(self, name: str, source: str) -> None:
        self.refused.append(name)
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
                self.refused.append(name)
        return kept


_ADDRESSES: Mapping[tuple[str, str], re.Pattern[str]] = {("a", "href"): _LINK, ("img", "src"): _IMAGE}


def clean_rules(css: str) -> str:
    """Keep the rules of a style sheet that are only about looks; none of one with at-rules, which can load others."""
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    rules = [] if "@" in css else re.findall(r"([^{}]*)\{([^{}]*)\}", css)
    kept = ((selector.strip(), clean_declarations(body)) for selector, body in rules)
    return "\n".join(f"{selector} {{ {body} }}" for selector, body in kept if body and _SELECTOR.fullmatch(selector))


def clean_declarations(css: str) -> str:
    """Keep the declarations of a style that are only about looks."""
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
