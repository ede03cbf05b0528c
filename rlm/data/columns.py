"""Columns: the roles of a table's columns, and the meaning of labels; the same for files and DataFrames."""

import re
import unicodedata
from collections.abc import Mapping, Sequence, Set
from functools import partial
from typing import Literal

import pandas as pd

from rlm.config import ROLES, Role
from rlm.data.phrases import tokenise
from rlm.data.textfiles import printable, shorten
from rlm.errors import InputError

PAIR_ROLES, LABEL_ROLES = ("anchor", "positive", "negative", "relevance"), ("text", "label")
_ADVICE = {
    "file": "Expected columns anchor, positive and, if there are negatives, negative, or else text and label; name "
    "other columns with anchor='fact' (--columns anchor=fact)",
    "data": "Rename its columns to anchor, positive and, if there are negatives, negative, or else to text and label",
}
# Words for relevance, without the prefixes not, non, un, in, ir and dis; they do not name classes.
_VERDICTS = [
    *("true", "false", "yes", "no", "y", "n", "t", "f", "ok", "wrong", "correct", "good", "bad", "+", "-", "да", "нет"),
    *("same", "other", "different", "similar", "relevant", "related", "equivalent", "match", "nomatch", "dup"),
    *("duplicate", "paraphrase", "pos", "neg", "positive", "negative", "entailment", "neutral", "contradiction"),
    *("supports", "supported", "refutes", "refuted", "unknown", "maybe"),
]
FEWEST_CLASSES = 4  # with fewer, labels beside pairs are answers more often than classes
# Usual names of columns with a role.
_SIMILAR = {
    "anchor": r"anchors?[ ._-]?\d*",
    "positive": r"pos(itive)?s?[ ._-]?\d*",
    "negative": r"(hard[ _-]?)?neg(ative)?s?[ ._-]?\d*",
    "relevance": r"(is[ _-]?|gold[ _-]?)?(relevan(ce|t)s?|dup(licate)?s?|paraphrase|similar(ity)?|related|match)"
    r"([ _-]?(score|label)s?)?|(gold|true)[ _-]?(label|score)s?|label[ _-]?(id)?|rel|scores?|targets?|gold|y",
    "text": "text",
    "label": r"labels?[ _-]?\d*",
}


def choose_columns(
    names: Sequence[object], columns: Mapping[Role, str] | None = None, source: Literal["file", "data"] = "file"
) -> dict[Role, str]:
    """
    Return the column of each role: anchor, positive and perhaps negative, relevance, label; or text and label.

    `columns` are the user's names of roles; by default a column has the name of its role. Raise if a column is missing,
    repeated, contradicts another one, or has the name of a role but would not be used.
    """
    columns = columns or {}
    has_labels = "text" in columns or ("text" in names and "anchor" not in {*names, *columns})
    roles = LABEL_ROLES if has_labels else PAIR_ROLES
    foreign = [role for role in columns if role not in roles]
    if foreign:
        raise InputError(f"expected columns for {', '.join(roles)}, found {foreign[0]} as well; drop it")
    usable = dict.fromkeys([*roles, "label"])  # pairs may have a label by its own name
    chosen = {role: columns.get(role, role) for role in usable if role in {*columns, *names, *roles[:2]}}
    if len(set(chosen.values())) < len(chosen):
        # A column that the user gave to one role has no other: relevance='label'.
        given = {*columns.values()}
        chosen = {role: name for role, name in chosen.items() if role in columns or name not in given}
        if len(set(chosen.values())) < len(chosen) or not {*roles[:2]} <= chosen.keys():
            raise InputError(f"expected a different column for every role, found {chosen}; name others")
    for name in chosen.values():
        count = list(names).count(name)
        if count != 1:
            raise InputError(
                f"column {name!r} {f'found {count} times' if count else 'not found'}; the {source} has: "
                f"{printable(', '.join(map(str, names)))}. {_ADVICE[source]}"
            )
    if {"negative", "relevance"} <= chosen.keys():
        raise InputError("expected either negatives or relevance, found both columns; rename one of them")
    _reject_strays(names, columns, chosen)
    return chosen


def choose_texts(names: Sequence[object], columns: Mapping[Role, str] | None = None) -> dict[Role, str]:
    """Return the columns of unlabelled texts by role: the given ones, or text, or all columns with another role."""
    own = {role: role for role in ROLES if role in names}
    chosen = dict(columns or {}) or ({role: own[role] for role in LABEL_ROLES if role in own} if "text" in own else own)
    phrases = [name for role, name in chosen.items() if role not in ("relevance", "label")]
    if not phrases or any(list(names).count(name) != 1 for name in chosen.values()):
        raise InputError(
            "expected one column text, or anchor, positive and perhaps negative, found: "
            f"{printable(', '.join(map(str, names)))}; name the column of the texts: columns text=NAME "
            "(--pretrain-reading.columns text=NAME)"
        )
    # A single column is read as text, whatever its role, and several as a pair or a triplet.
    roles = LABEL_ROLES[:1] if len(phrases) == 1 else PAIR_ROLES[:3]
    others = {role: name for role, name in chosen.items() if name not in phrases}
    return dict(zip(roles, phrases, strict=False)) | others


def _reject_strays(names: Sequence[object], columns: Mapping[Role, str], chosen: Mapping[Role, str]) -> None:
    """Raise for columns with the name of a role, or nearly so, that would not be used."""
    settled = {*chosen, *columns}
    if {"anchor", "positive"} <= columns.keys():
        settled.add("text")  # a usual name for something else, where the texts have been named
    may_have_relevance = "anchor" in chosen and "negative" not in chosen
    for name in names:
        for role in ROLES:
            spelled = str(name).strip().lower()
            similar = rf"{role}s?[ ._-]?\d+" if role in settled else _SIMILAR[role]
            if name in chosen.values() or not re.fullmatch(similar, spelled):
                continue
            if role == "relevance" and not may_have_relevance and not spelled.startswith("relevan"):
                continue
            advice = "drop or rename it"
            if name != role and role in PAIR_ROLES:
                advice += f", or, if it is meant as {role}, use {role}={str(name)!r} (--columns {role}={name})"
            used = ", ".join(chosen.values())
            raise InputError(f"expected only columns that can be used beside {used}, found {str(name)!r}; {advice}")


def reject_similar(names: Sequence[str], known: Set[str], place: str) -> None:
    """Raise for a name that resembles a field of a record with lists of texts and would not be used."""
    for name in names:
        for role in ("positive", "negative"):
            if name not in known and re.fullmatch(_SIMILAR[role], name.strip().lower()):
                raise InputError(
                    f"expected only {', '.join(sorted(known))} that can be used, found {name!r} in {place}; rename or "
                    "drop it"
                )


def check_labels(pairs: pd.DataFrame) -> None:
    """Raise if labels of pairs that `make_pairs` did not make look like relevance (numbers, yes), or a text has two."""
    if "label" not in pairs or "classes" in pairs.attrs:
        return
    spelled = pairs["label"].map(spell_label, na_action=None).astype(object).reset_index(drop=True)
    labels = spelled[spelled != ""]
    words = labels.map(partial(unicodedata.normalize, "NFKC")).str.lower().str.replace("label", "").str.strip(" _%")
    stems = words.str.replace(r"^(not|non|un|in|ir|dis)[ _-]?(?=\w{3})", "", regex=True)
    is_answer = stems.isin(_VERDICTS) | words.isin(_VERDICTS) | pd.to_numeric(words, errors="coerce").notna()
    if len(labels) and (is_answer.mean() > 0.5 or labels.nunique() < FEWEST_CLASSES):
        raise InputError(
            f"expected names of classes as label beside anchor and positive, found {shorten(labels.iloc[0])} in "
            f"{name_row(pairs, int(labels.index[0]))}; is relevance meant, 1 for relevant and 0 for irrelevant pairs? "
            "Then use relevance='label' (--columns relevance=label) or rename the column; if not, drop the column, or "
            "give texts and their classes as columns text and label"
        )
    texts = pd.concat([pairs[role].astype(object).reset_index(drop=True) for role in ("anchor", "positive")])
    both = pd.DataFrame({"text": texts, "label": spelled.tolist() * 2})
    both = both[(both["label"] != "") & both["text"].notna()].drop_duplicates()
    twice = both[both["text"].duplicated(keep=False)]
    if len(twice):
        text = twice["text"].iloc[0]
        found = twice.loc[(twice["text"] == text).to_numpy(), "label"]
        raise InputError(
            f"expected one label for each text, found {' and '.join(map(shorten, found.iloc[:2]))} for "
            f"{shorten(str(text))}; is relevance meant, 1 for relevant and 0 for irrelevant pairs? Then convert the "
            "column and call it relevance; if texts have several labels, give columns text and label"
        )


def spell_label(cell: object) -> str:
    """Spell a label; empty if it is missing."""
    if pd.api.types.is_scalar(cell) and pd.isna(cell):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str(cell).strip()


def name_row(data: pd.DataFrame | pd.Series, row: int) -> str:
    """Name a row by its label in the index."""
    return f"{index_name(data.index)} {data.index[row]}"


def index_name(index: pd.Index) -> str:
    """Name what the labels of an index count: line, row or what the user called it."""
    return "row" if index.name is None or index.nlevels > 1 or str(index.name) == "reason" else str(index.name)


def make_pairs(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """
    Chain the texts of each label into pairs, the last with the first; also count the unpaired texts by reason.

    Texts of relevance 0 are irrelevant to the others of their label: they make pairs of relevance 0 with each of them.
    """
    frame = frame.rename_axis(index=[None] * frame.index.nlevels)  # a level may be called label, too
    is_other = (frame["relevance"] == "0").to_numpy(bool) if "relevance" in frame else False
    labels = [spell_label(cell) for cell in frame["label"]]
    frame = pd.DataFrame({"text": frame["text"].astype(object), "label": labels, "is_other": is_other}, frame.index)
    # Texts without words would be dropped later, and the chain would break there.
    has_words = [isinstance(text, str) and bool(tokenise(text)) for text in frame["text"]]
    usable = frame[(frame["label"] != "").to_numpy(bool) & has_words]
    texts = usable[~usable.duplicated()]
    same, other = texts[~texts["is_other"]], texts[texts["is_other"]]
    by_label = same.groupby("label", sort=False)
    size = by_label["text"].transform("size")
    following = by_label["text"].shift(-1).fillna(by_label["text"].transform("first"))
    is_pair = (size > 2) | ((size == 2) & (by_label.cumcount() == 0))  # of two, once is enough
    pairs = pd.DataFrame({"anchor": same["text"], "positive": following, "label": same["label"]})[is_pair]
    if pairs.empty:
        raise InputError("expected at least two texts with one label, or in one group; found none; add some")
    is_alone = ~other["label"].isin(pairs["label"])
    dropped = {
        "without label or words": len(frame) - len(usable),
        "repeated with the same label": len(usable) - len(texts),
        "alone with their label": int((size == 1).sum() + is_alone.sum()),
    }
    if len(other := other[~is_alone]):
        known = same.merge(other.reset_index(names="place"), on="label", suffixes=("", "_other")).set_index("place")
        known = pd.DataFrame({"anchor": known["text"], "positive": known["text_other"], "label": "", "relevance": "0"})
        pairs = pd.concat([pairs.assign(relevance="1"), known])
    return pairs.astype("str"), dropped
