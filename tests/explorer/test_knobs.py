"""Every valid setting survives the panel: what is shown on the knobs is what is read from them."""

import math
import typing
from unittest.mock import patch

import annotated_types
import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st
from pydantic import ValidationError

from rlm.config import ROLES, Plan, ReadOptions, StudyConfig
from rlm.explorer.form import Knobs, parse_text, write_text
from rlm.explorer.panel import Panel, explain_difference, write_code
from rlm.store.read import Progress

TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", " ", "\t", '"', '""', "'", "a,b", "a=b", "{}", '{"a": 1}', '"a"', "null", " x "]),
    st.sampled_from(["\\t", "a\nb"]),
)  # fmt: skip


def bounds_of(field):
    low, high = None, None
    for one in field.metadata:
        match one:
            case annotated_types.Ge(ge=value):
                low = value
            case annotated_types.Gt(gt=value):
                low = value + 1e-9
            case annotated_types.Le(le=value):
                high = value
    return low, high


def values_of(name, field):
    """The valid values of a field, its bounds among them."""
    if name in SPECIAL:
        return SPECIAL[name]
    low, high = bounds_of(field)
    kinds = [kind for kind in typing.get_args(field.annotation) or (field.annotation,) if kind is not type(None)]
    kind = kinds[0]
    if typing.get_origin(field.annotation) is typing.Literal:
        return st.sampled_from(typing.get_args(field.annotation))
    if typing.get_origin(kind) is typing.Literal:
        return st.sampled_from([*typing.get_args(kind), None])
    if kind is bool:
        return st.sampled_from([True, False, None] if len(typing.get_args(field.annotation)) else [True, False])
    if kind in (int, float):
        numbers = st.integers(low, high) if kind is int else st.floats(low, high)
        ends = [end for end in (low, high if high is not None else 2**70) if end is not None]
        return st.one_of(numbers, st.sampled_from([*ends, field.get_default()]))
    raise AssertionError(f"no values for {name}")


READINGS = st.builds(
    ReadOptions,
    columns=st.dictionaries(st.sampled_from(ROLES), TEXTS, max_size=3),
    encoding=TEXTS | st.none(),
    delimiter=st.characters(exclude_characters="\r\n") | st.sampled_from(["\t", " ", '"']) | st.none(),
    quotechar=st.characters() | st.sampled_from(["", '"', "'"]) | st.none(),
    irrelevant=TEXTS | st.none(),
    subset=TEXTS | st.none(),
    part=TEXTS,
    layout=st.sampled_from(["columns", "blocks", "groups"]),
)
SPECIAL = {
    "dataset": TEXTS.filter(bool),
    "baseline": TEXTS.filter(bool),
    "tokenizer": TEXTS.filter(bool) | st.none(),
    "word_vectors": TEXTS.filter(bool) | st.none(),
    "character_vectors": TEXTS.filter(bool) | st.none(),
    "pretrain_texts": TEXTS.filter(bool) | st.none(),
    "reading": READINGS,
    "pretrain_reading": READINGS,
    "arms": st.lists(
        st.sampled_from(["scratch", "pretrained", "pretrained_once", "rescaled", "shuffled"]), min_size=1, unique=True
    ).map(tuple),
    "fractions": st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.3, 0.1), (1 / 3, 1 / 3, 1 / 3), (0.999998, 1e-6, 1e-6)]),
    "negative_kinds": st.sampled_from([None, {"similar": 0.5, "random": 0.5}, {"random": 1 / 3, "similar": 2 / 3}]),
}  # fmt: skip


@pytest.fixture(scope="module")
def knobs():
    return Knobs([StudyConfig(), Plan()], lambda: None)


@pytest.mark.parametrize("name", [*StudyConfig.model_fields, *Plan.model_fields])
def test_every_value_of_every_field_comes_back(knobs, name):
    model = StudyConfig if name in StudyConfig.model_fields else Plan

    @given(values_of(name, model.model_fields[name]))
    @settings(max_examples=12)
    def check(value):
        needed = {other: {"word_vectors": "v.vec"} for other in ("fixed_vectors", "character_vectors")}
        needed |= {other: {"encoder": "transformer"} for other in ("layers", "dropout")}
        needed |= {"mining": {"loss": "facenet"}, "pretrain_reading": {"pretrain_texts": "texts.txt"}}
        needed = needed.get(name, {})
        try:
            made = model.model_validate({**needed, name: value})
        except ValidationError:
            assume(False)
        config, plan = (made, Plan()) if model is StudyConfig else (StudyConfig(), made)
        knobs.show(config, plan)
        assert knobs.read() == ([config, plan], "")

    check()


@given(st.fixed_dictionaries({name: values_of(name, field) for name, field in StudyConfig.model_fields.items()}))
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
def test_all_fields_together_come_back(knobs, given):
    given |= {"fixed_vectors": False, "mining": None, "margin": None} | (
        {"word_vectors": None, "tokenizer": None} if given["encoder"] == "dssm" else {}
    )
    given |= {} if given["encoder"] == "transformer" else {"layers": None, "dropout": None}
    given["character_vectors"] = given["character_vectors"] if given["word_vectors"] else None
    given |= {} if given["pretrain_texts"] else {"pretrain_reading": ReadOptions()}
    given |= {"transfer": None} if given["keep_moments"] else {}
    config = StudyConfig.model_validate(given)
    knobs.show(config, Plan())
    assert knobs.read() == ([config, Plan()], "")


@given(TEXTS)
def test_a_text_is_read_as_it_was_written(text):
    assert parse_text(write_text(text)) == text
    assert "\n" not in write_text(text)  # an input of one line would drop it


def test_what_a_person_types_is_read_without_the_spaces_around_it():
    assert parse_text("  mine.csv ") == "mine.csv"
    assert parse_text('"\\t"') == "\t"
    assert parse_text('"') == '"'
    assert parse_text("  ") is None


@pytest.mark.parametrize(
    ("name", "typed", "message"),
    [
        ("learning_rate", -1, "expected a number greater than or equal to 0.0000001, found -1.0"),
        ("learning_rate", 10, "expected a number less than or equal to 1, found 10.0"),
        ("batch_size", 0, "expected a number greater than or equal to 1, found 0.0"),
        ("epoch_triplets", -3, "expected a number greater than or equal to 1, found -3.0"),
        ("seeds", 3.5, "expected a valid integer, found 3.5"),
        ("seeds", 99_999_999, "expected a number less than or equal to 1000000, found 99999999.0"),
    ],
)
def test_an_invalid_number_is_refused_and_not_changed(name, typed, message):
    knobs = Knobs([StudyConfig(), Plan()], lambda: None)
    (number,) = knobs._knobs[name].inputs
    number.value = typed
    assert number.value == typed
    assert knobs.read() == (None, f"{name.replace('_', ' ')}: {message}")


def test_a_plan_with_more_seeds_than_the_panel_has_is_shown(knobs):
    plan = Plan.model_construct(seeds=2_000_000, until=None)
    knobs.show(StudyConfig(), plan)
    assert knobs.read() == (None, "seeds: expected a number less than or equal to 1000000, found 2000000.0")
    shown = Progress(1, 3, StudyConfig(), plan, None, (), "", None, {})
    said = explain_difference(shown, StudyConfig(), Plan(seeds=1_000_000))
    assert said == "Shown: #3 (seeds 2000000). The knobs differ: seeds 1000000; Run continues this study."


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "Shown: #2, with the settings of the knobs."),
        (
            {"learning_rate": 0.12},
            "Shown: #2 (learning rate 0.001). The knobs differ: learning rate 0.12; Run starts a new study.",
        ),
        (
            {"arms": ("scratch", "shuffled")},
            "Shown: #2 (arms scratch, pretrained). The knobs differ: arms scratch, shuffled; "
            "Run continues this study.",
        ),
        (
            {"margin": 0.3, "reading": {"delimiter": "\t"}},
            "Shown: #2 (reading by default, margin by default). The knobs differ: "
            "reading {\"delimiter\": \"\\t\"}, margin 0.3; Run starts a new study.",
        ),
    ],
)  # fmt: skip
def test_one_line_says_what_is_shown_and_in_what_the_knobs_differ(changed, said):
    shown = Progress(1, 2, StudyConfig(), Plan(), None, (), "", None, {})
    assert explain_difference(shown, StudyConfig.model_validate(changed), Plan()) == said


@pytest.fixture
def panel():
    calls = {name: lambda *_: None for name in ("on_choice", "on_train", "on_export", "on_sweep")}
    found = []
    made = Panel(StudyConfig(), Plan(), [], on_change=lambda: None, on_name=found.append, **calls)
    made.named = found
    return made


def test_undo_takes_back_changes_and_a_drag_is_one(panel):
    states = [StudyConfig(), StudyConfig(dim=9), StudyConfig(dim=9, margin=0.5)]
    for config in states[1:]:
        panel._changed_at = -math.inf
        panel._remember(config, Plan())
    panel._remember(states[2].model_copy(update={"margin": 0.7}), Plan())  # within a second
    found = []
    while panel._earlier:
        panel._take_back(None)
        found.append(panel.knobs.read()[0][0])
        assert panel.valid[0] == found[-1]
    assert found == [states[1], states[0]]


def test_only_what_a_person_types_names_a_study(panel):
    panel.is_drawing = True
    panel._about["name"].value = "drawn"
    panel.is_drawing = False
    panel._about["tags"].value = "a, b"
    assert panel.named == [{"tags": "a, b"}]


def test_the_code_makes_the_same_settings():
    reading = {"columns": {"anchor": "fact"}, "delimiter": ";"}
    config = StudyConfig(dataset="a'b.csv", reading=reading, margin=0.25, arms=("scratch", "wide (dim=9)"))
    code = write_code(config, Plan(seeds=7, until=0.02, metric="top_1"), "my study.db")
    called = []
    with patch("rlm.run_study", lambda *given, **settings: called.append((*given, settings))):
        exec(code)
    plan = {"seeds": 7, "until": 0.02, "metric": "top_1", "watched": True, "db": "my study.db"}
    assert called == [(config, plan)]
