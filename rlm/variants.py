"""The arms of a study: built-in ones, and variants, which change settings of one of them."""

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from rlm.errors import InputError

Arm = Literal["scratch", "pretrained", "pretrained_once", "rescaled", "shuffled", "shuffled_change"]
Redraw = Literal["epoch", "once"]
BASELINE: Arm = "scratch"


class ArmKind(NamedTuple):
    """An arm: its pre-training, if it has one, and its meaning, which options, figures and sentences quote."""

    redraw: Redraw | None
    meaning: str
    is_control: bool = False


ARMS: dict[Arm, ArmKind] = {
    "scratch": ArmKind(None, "random init"),
    "pretrained": ArmKind("epoch", "new random triplets every epoch"),
    "pretrained_once": ArmKind("once", "one fixed set of random triplets"),
    "rescaled": ArmKind("epoch", "random weights with the scale of the pre-trained ones", is_control=True),
    "shuffled": ArmKind("epoch", "the pre-trained weights in random order", is_control=True),
    "shuffled_change": ArmKind("epoch", "the change of the weights by pre-training in random order", is_control=True),
}
REDRAW: dict[Arm, Redraw] = {name: arm.redraw for name, arm in ARMS.items() if arm.redraw}
CONTROLS: dict[Arm, str] = {name: arm.meaning for name, arm in ARMS.items() if arm.is_control}
# Settings that decide what is compared, on which data and splits: all arms of a study share them.
SHARED = (
    *("dataset", "reading", "arms", "max_tokens", "tokenizer", "word_vectors", "character_vectors", "pretrain_texts"),
    *("pretrain_reading", "device", "negatives", "negative_kinds", "fractions", "train_fraction"),
    *("split", "split_by", "split_seed"),
)
_NAMED = re.compile(r"\s*([^:()=,;$\\]{1,60}?)\s*(?::(.*)|\((.*)\))\s*", re.DOTALL)


class Variant(NamedTuple):
    """What an arm is: a built-in arm, and the settings in which it differs from the config, as texts."""

    name: str
    start: str
    changes: dict[str, str]

    @property
    def label(self) -> str:
        """The arm as tables and sentences have it: as "wide (pretrained, dim=128)"; it tells its settings."""
        if self.name == self.start:
            return self.name
        settings = [f"{field}={value}" for field, value in self.changes.items()]
        told = ", ".join([self.start] * (self.start != BASELINE or not settings) + settings)
        return f"{self.name} ({told})" if self.name else told


def parse_arm(arm: str) -> Variant:
    """Read a built-in arm, or "name: start, field=value, ..." (of which name and start are optional), or a label."""
    if arm in ARMS:
        return Variant(arm, arm, {})
    named = _NAMED.fullmatch(arm)
    name, settings = (named[1], named[2] or named[3] or "") if named else ("", arm)
    parts = [part.strip() for part in settings.split(",")]
    start = parts.pop(0) if parts[0] in ARMS else BASELINE
    changes = dict(tuple(map(str.strip, part.split("=", 1))) for part in parts if part.count("=") >= 1)
    is_whole = len(changes) == len(parts) and all(field.isidentifier() and value for field, value in changes.items())
    if not is_whole or name in ARMS or not (name or changes) or not arm.isprintable() or ";" in arm:
        raise InputError(
            f'expected an arm among {", ".join(ARMS)}, or one as "wide: dim=128" or "wide: pretrained, dim=128", each '
            f"setting once, found {arm!r}; write it like these, with a new name"
        )
    shared = [field for field in changes if field in SHARED]
    if shared:
        raise InputError(
            f"expected settings of encoder and training in the arm {arm}, found {shared[0]}, which all arms of a study "
            "share; run another study"
        )
    return Variant(name, start, changes)


def find_variant(arm: str) -> Variant:
    """Return what an arm is; one that is none, since the user supplies its start, starts as itself."""
    try:
        return parse_arm(arm)
    except InputError:
        return Variant(arm, arm, {})


def write_arm(name: str, changes: Mapping[str, object]) -> str:
    """Return the label of an arm by its name, which may be followed by a colon and a start, and changed settings."""
    told = [f"{field}={'none' if value is None else value}" for field, value in changes.items()]
    start = [name] if ":" in name or not name else [f"{name}:"]
    return parse_arm(re.sub(r":\s*,", ":", ", ".join(filter(None, [*start, *told])))).label


def find_arm(known: Iterable[str], name: str) -> str:
    """Return the arm that a name means, which need not tell the settings of a variant."""
    known = list(known)
    named = [arm for arm in known if str(arm).partition(" (")[0] == name]
    return named[0] if name not in known and len(named) == 1 else name
