"""A synthetic corpus: facts and questions about them from a small grammar, with faults as one wants them."""

import numpy as np
import pandas as pd

from rlm.errors import InputError

# Each entry: as the fact says it, and as a question says it without a common word.
_NAMES = [
    ("Anna", "the baker"),
    ("Bruno", "the butcher"),
    ("Clara", "the dentist"),
    ("David", "the farmer"),
    ("Elena", "the pilot"),
    ("Felix", "the plumber"),
    ("Greta", "the judge"),
    ("Hugo", "the painter"),
    ("Irene", "the nurse"),
    ("Jonas", "the sailor"),
    ("Katya", "the singer"),
    ("Leo", "the teacher"),
    ("Mara", "the tailor"),
    ("Nils", "the miller"),
    ("Olga", "the chemist"),
    ("Pavel", "the barber"),
    ("Quinn", "the waiter"),
    ("Rosa", "the lawyer"),
    ("Stefan", "the gardener"),
    ("Tanya", "the surgeon"),
]
_VERBS = [
    ("bought", "buy", "purchase", "purchased"),
    ("sold", "sell", "trade", "traded"),
    ("found", "find", "discover", "discovered"),
    ("broke", "break", "damage", "damaged"),
    ("painted", "paint", "decorate", "decorated"),
    ("hid", "hide", "conceal", "concealed"),
    ("fixed", "fix", "repair", "repaired"),
    ("wanted", "want", "desire", "desired"),
    ("carried", "carry", "transport", "transported"),
    ("built", "build", "construct", "constructed"),
]
_ADJECTIVES = [
    ("red", "crimson"),
    ("big", "large"),
    ("small", "little"),
    ("old", "ancient"),
    ("fast", "quick"),
    ("pretty", "beautiful"),
    ("strange", "odd"),
    ("costly", "expensive"),
    ("quiet", "silent"),
    ("broken", "faulty"),
    ("shiny", "glossy"),
    ("empty", "vacant"),
]
_OBJECTS = [
    ("bicycle", "bike"),
    ("car", "automobile"),
    ("sofa", "couch"),
    ("picture", "image"),
    ("stone", "rock"),
    ("boat", "vessel"),
    ("house", "dwelling"),
    ("jacket", "coat"),
    ("present", "gift"),
    ("photo", "snapshot"),
    ("garbage can", "trash bin"),
    ("lamp", "light"),
    ("rug", "carpet"),
    ("mug", "cup"),
]
_PLACES = [
    ("Lisbon", "the Portuguese capital"),
    ("Paris", "the French capital"),
    ("Rome", "the Italian capital"),
    ("Cairo", "the Egyptian capital"),
    ("Tokyo", "the Japanese capital"),
    ("Oslo", "the Norwegian capital"),
    ("Lima", "the Peruvian capital"),
    ("Delhi", "the Indian capital"),
    ("Vienna", "the Austrian capital"),
    ("Athens", "the Greek capital"),
]
_DAYS = [
    ("Monday", "the first weekday"),
    ("Tuesday", "the second weekday"),
    ("Wednesday", "the third weekday"),
    ("Thursday", "the fourth weekday"),
    ("Friday", "the fifth weekday"),
]
_UNITS = ["", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_UNITS += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_BELOW_HUNDRED = _UNITS + [f"{tens} {unit}".strip() for tens in _TENS for unit in _UNITS[:10]]
_YEARS = [
    (str(100 * century + year), f"{_UNITS[century]} hundred {_BELOW_HUNDRED[year]}".strip())
    for century in range(10, 20)
    for year in range(100)
]
_SLOTS = (_NAMES, _VERBS, _ADJECTIVES, _OBJECTS, _PLACES, _DAYS, _YEARS)
_SIZES = tuple(map(len, _SLOTS))
LARGEST = 5_000_000


def make_synthetic(
    pairs: int,
    *,
    difficulty: float | int = 0.5,
    noise: float | int = 0,
    shortcut: float | int | None = None,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """
    Facts and questions about them, in English. Synthetic: good for tests and timings, not for conclusions.

    Parameters
    ----------
    pairs
        How many, at most 5,000,000; every fact has one question, and no question fits another fact.
    difficulty
        From 0 to 1: probability that a question says a word of its fact in other words.
    noise
        From 0 to 1: share of the pairs whose question is that of another fact.
    shortcut
        By default there are no negatives. Else they are questions about other facts, and so many of them, from 0 to
        1, are worded as no positive is: who sees that needs no anchor.
    rng
        Source of all draws.

    Returns
    -------
    pandas.DataFrame
        Columns ``anchor`` (the fact), ``positive`` (the question) and perhaps ``negative``; ``attrs`` as of every
        loader.

    Raises
    ------
    InputError
        If a number is not in its range.
    """
    for name, value in {"difficulty": difficulty, "noise": noise, "shortcut": shortcut or 0}.items():
        if not 0 <= value <= 1:
            raise InputError(f"expected {name} from 0 to 1, found {value}")
    if not 2 <= pairs <= LARGEST:
        raise InputError(f"expected from 2 to {LARGEST:,} pairs, found {pairs:,}")
    facts = _facts(pairs, rng)
    asked = rng.integers(4, size=pairs)
    reworded = rng.random((pairs, len(_SLOTS))) < difficulty
    anchors = [_fact(fact) for fact in facts.tolist()]
    questions = [_question(*some) for some in zip(facts.tolist(), asked.tolist(), reworded.tolist(), strict=True)]
    wrong = np.flatnonzero(rng.random(pairs) < noise)
    order = np.arange(pairs)
    order[wrong] = np.roll(wrong, 1)
    columns = {"anchor": anchors, "positive": [questions[place] for place in order]}
    if shortcut is not None:
        others = (order + rng.integers(1, pairs, size=pairs)) % pairs
        is_marked = rng.random(pairs) < shortcut
        columns["negative"] = [
            f"Is it true: {questions[other]}" if marked else questions[other]
            for other, marked in zip(others, is_marked, strict=True)
        ]
    frame = pd.DataFrame(columns, dtype="str")
    frame.attrs = {
        "name": "synthetic",
        "title": f"Synthetic facts and questions, difficulty {difficulty}, noise {noise}, shortcut {shortcut}",
        "source": "make_synthetic",
        "licence": "MIT",
        "version": "1",
        "dropped": {},
    }
    return frame


def _facts(count: int, rng: np.random.Generator) -> np.ndarray:
    """So many facts, each with one number per slot, no two of which differ in one asked thing alone."""
    codes = rng.integers(int(np.prod(_SIZES)), size=2 * count + 100)
    facts = np.stack(np.unravel_index(codes, _SIZES), axis=1)
    for asked in ((0,), (2, 3), (4,), (5,)):
        seen = pd.DataFrame(np.delete(facts, asked, axis=1))
        facts = facts[~seen.duplicated().to_numpy()]
    return facts[:count]


def _fact(fact: list[int]) -> str:
    name, verb, adjective, thing, place, day, year = (words[number] for words, number in zip(_SLOTS, fact, strict=True))
    return f"{name[0]} {verb[0]} the {adjective[0]} {thing[0]} in {place[0]} on {day[0]} in {year[0]}."


def _question(fact: list[int], asked: int, reworded: list[bool]) -> str:
    words = [words[number] for words, number in zip(_SLOTS, fact, strict=True)]
    did, past = words[1][2:] if reworded[1] else words[1][1::-1]
    name, _, adjective, thing, place, day, year = (word[other] for word, other in zip(words, reworded, strict=True))
    return (
        f"Who {past} the {adjective} {thing} in {place} on {day} in {year}?",
        f"What did {name} {did} in {place} on {day} in {year}?",
        f"Where did {name} {did} the {adjective} {thing} on {day} in {year}?",
        f"On which day did {name} {did} the {adjective} {thing} in {place} in {year}?",
    )[asked]
