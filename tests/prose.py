"""Sentences of Markdown: for the tests of pages and notebooks."""

import re

# Words that the rules for prose replace: detect or report, raise, drop, fix; and idioms that not every reader knows.
BANNED = re.compile(
    r"\b((find|finds|found) out|says?|said|refuses?|refused|(leaves?|left) (it |them )?out|mend(s|ed)?|stands?|so many|"
    r"as of|(goes|went) on|of one.s own)\b",
    re.IGNORECASE,
)


def sentences(markdown):
    """Return the sentences of prose and of lists, without code, tables, headings, pictures and targets of links."""
    text = re.sub(r"^```.*?^```$|^\$\$.*?\$\$$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^(\||#|!\[|<).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    paragraphs = re.split(r"\n\s*\n|^\s*(?:[-*>]|\d+\.)\s", text, flags=re.MULTILINE)
    found = [sentence for one in paragraphs for sentence in re.split(r"(?<=[.!?])\s+", " ".join(one.split()))]
    return [sentence for sentence in found if len(sentence.split()) > 1]


def blocks(markdown, language):
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)
