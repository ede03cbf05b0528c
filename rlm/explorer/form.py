"""A form: an input for every field of a pydantic model, with the range, default and description of the field."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from html import escape
from typing import Any, NamedTuple

import ipywidgets as widgets
from pydantic import BaseModel, ValidationError

WIDE = 500  # a slider cannot be set precisely if its range has more steps, or spans a larger ratio
STYLE = {"description_width": "8.5rem"}
BY_DEFAULT = "by default"
OTHERS = "separated by semicolons"
EXACTLY = 'A text in double quotation marks is taken as it is, and "\\t" is a tab.'


class Knob(NamedTuple):
    """The input of a field: what the panel shows, the widgets that hold the value, and how to read and set it."""

    widget: widgets.Widget
    inputs: Sequence[widgets.Widget]
    read: Callable[[], Any]
    show: Callable[[Any], None]


class Knobs:
    """Inputs for the fields of pydantic models that start at given values; each shows what is wrong with it."""

    def __init__(self, start: Sequence[BaseModel], on_change: Callable[[], None]) -> None:
        self._models = [type(value) for value in start]
        self._knobs = {name: make_knob(name, model) for model in self._models for name in model.model_fields}
        self._messages = {name: widgets.HTML() for name in self._knobs}
        self._on_change = on_change
        self.rows: dict[str, widgets.Widget] = {
            name: widgets.VBox([knob.widget, self._messages[name]], layout={"margin": "0 0 2px"}).add_class(
                f"knob-{name}"
            )
            for name, knob in self._knobs.items()
        }
        self._set(start)
        for knob in self._knobs.values():
            for one in knob.inputs:
                one.observe(self._changed, "value")

    def read(self) -> tuple[list[BaseModel] | None, str]:
        """Return the values of the inputs, one per model, or None and what is wrong with them, field by field."""
        found: list[BaseModel] = []
        wrong: dict[str, str] = {}
        for model in self._models:
            try:
                found.append(model.model_validate({name: self._knobs[name].read() for name in model.model_fields}))
            except ValidationError as error:
                for problem in error.errors():
                    field, *parts = problem["loc"] or ("",)
                    where = "".join(f"{part}: " if isinstance(part, str) else f"part {part + 1}: " for part in parts)
                    wrong.setdefault(str(field), where + problem["msg"].removeprefix("Value error, "))
        for name, message in self._messages.items():
            message.value = _warning(wrong[name]) if name in wrong else ""
        listed = "; ".join(f"{_spell(name)}: {text}" if name else text for name, text in wrong.items())
        return (None if wrong else found), listed

    def show(self, *values: BaseModel) -> None:
        """Set all inputs, from one value of each model in their order."""
        self._set(values)
        self._on_change()

    def _set(self, values: Sequence[BaseModel]) -> None:
        self._is_quiet = True
        for model in values:
            for name in type(model).model_fields:
                self._knobs[name].show(getattr(model, name))
        self._is_quiet = False

    def _changed(self, _: object) -> None:
        if not self._is_quiet:
            self._on_change()


def make_knob(name: str, model: type[BaseModel]) -> Knob:
    """Make the input for a field: choices, checkboxes, a slider or a number if it has bounds, else a text."""
    field = _schema(model)["properties"][name]
    options = field.get("anyOf", [field])
    kind = next(one for one in options if one.get("type") != "null")
    kind_of, is_optional = kind.get("type"), len(options) > 1
    low, high = kind.get("minimum", kind.get("exclusiveMinimum", -math.inf)), kind.get("maximum", math.inf)
    tooltip = field.get("description", "")
    if math.isfinite(low) and math.isfinite(high):
        tooltip += f" From {low:,g} to {high:,g}."
    named = {**name_with_tooltip(_spell(name), tooltip), "style": STYLE, "layout": {"width": "auto"}}
    if "$ref" in kind:
        return _nested(name, model.model_fields[name].annotation)
    if "enum" in kind:
        return _choice({choice: choice for choice in kind["enum"]}, is_optional, named)
    if kind_of == "boolean" and is_optional:
        return _choice({"yes": True, "no": False}, is_optional, named)
    if kind_of == "boolean":
        box = widgets.Checkbox(indent=False, tooltip=tooltip)
        return _simple(box)._replace(widget=widgets.HBox([_label(named), box]))
    choices = [one["enum"] for one in kind.get("items", {}).get("anyOf", [kind.get("items", {})]) if "enum" in one]
    if choices:
        return _several(choices[0], "anyOf" in kind["items"], named)
    if kind_of in ("integer", "number") and not is_optional and (kind_of == "number" or math.isfinite(high)):
        return _number(kind_of == "integer", low, high, named)
    if kind_of == "string":
        named |= name_with_tooltip(_spell(name), f"{tooltip} {EXACTLY}")
    if "examples" in field:
        named |= {"options": field["examples"], "ensure_option": False}
    text = (widgets.Combobox if "examples" in field else widgets.Text)(placeholder=BY_DEFAULT * is_optional, **named)
    return Knob(
        text,
        [text],
        lambda: [part.strip() for part in text.value.split(",")] if kind_of == "array" else parse_text(text.value),
        lambda value: setattr(text, "value", write_text(value)),
    )


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def name_with_tooltip(name: str, tooltip: str) -> dict[str, Any]:
    """Return arguments for a widget that shows a tooltip at its name, where most of ipywidgets' inputs show none."""
    description = f'<span title="{escape(tooltip)}">{escape(name)}</span>'
    return {"description": description, "description_allow_html": True, "tooltip": tooltip}


def _number(is_whole: bool, low: float | int, high: float | int, named: Mapping[str, Any]) -> Knob:
    if is_whole and high - low < WIDE:
        return _simple(widgets.IntSlider(min=low, max=high, **named))
    if is_whole or (low > 0 and high / low >= WIDE):
        return _simple(widgets.FloatText(**named))  # one with bounds would change an invalid number silently
    return _simple(widgets.FloatSlider(min=low, max=high, step=0.01, **named))


def _simple(widget: widgets.Widget) -> Knob:
    return Knob(widget, [widget], lambda: widget.value, lambda value: setattr(widget, "value", value))


def _choice(choices: Mapping[str, Any], is_optional: bool, named: Mapping[str, Any]) -> Knob:
    meant = {BY_DEFAULT: None} | dict(choices) if is_optional else choices
    label_of = {value: label for label, value in meant.items()}
    widget = widgets.Dropdown(options=list(meant), **named)  # of labels: Voila shows nothing where the value is None
    return Knob(widget, [widget], lambda: meant[widget.value], lambda value: setattr(widget, "value", label_of[value]))


def _several(choices: Sequence[str], has_others: bool, named: Mapping[str, Any]) -> Knob:
    boxes = {
        choice: widgets.Checkbox(
            description=choice, tooltip=named["tooltip"], indent=False, layout={"width": "auto", "margin": "0 12px 0 0"}
        )
        for choice in choices
    }
    others = widgets.Text(placeholder=f"others; {OTHERS}", tooltip=named["tooltip"], layout={"width": "100%"})
    inputs = [*boxes.values(), *([others] if has_others else [])]
    box = widgets.HBox(inputs, layout={"flex_flow": "row wrap", "flex": "1"})
    order = list(choices)  # of the value that was set last, which boxes cannot hold

    def show(value: Sequence[str]) -> None:
        order[:] = [*value, *(choice for choice in choices if choice not in value)]
        for choice, one in boxes.items():
            one.value = choice in value
        others.value = "; ".join(one for one in value if one not in choices)

    def read() -> list[str]:
        typed = [part.strip() for part in others.value.split(";") if part.strip()]
        kept = [choice for choice in order if (boxes[choice].value if choice in boxes else choice in typed)]
        return [*kept, *(one for one in typed if one not in kept)]

    return Knob(widgets.HBox([_label(named), box]), inputs, read, show)


def _nested(name: str, model: type[BaseModel]) -> Knob:
    knobs = {inner: make_knob(inner, model) for inner in model.model_fields}

    def show(value: BaseModel) -> None:
        for inner, knob in knobs.items():
            knob.show(getattr(value, inner))

    def read() -> dict[str, Any]:
        given = {inner: knob.read() for inner, knob in knobs.items()}
        return {inner: value for inner, value in given.items() if value is not None}

    inside = widgets.VBox([knob.widget for knob in knobs.values()])
    folded = widgets.Accordion([inside], titles=[_spell(name)], selected_index=None)
    return Knob(folded, [one for knob in knobs.values() for one in knob.inputs], read, show)


def _spell(name: str) -> str:
    return name.replace("_", " ")


def _label(named: Mapping[str, Any]) -> widgets.HTML:
    """Make a name for checkboxes, which have no room for one beside them."""
    text = f'<div style="text-align: right">{named["description"]}</div>'
    return widgets.HTML(text, layout={"width": STYLE["description_width"], "flex": "none", "margin": "2px 8px 2px 2px"})


def write_text(value: object) -> str:
    """Write a value as the text of an input, as JSON where `parse_text` would read the plain text as another value."""
    if isinstance(value, Mapping):
        plain = ",".join(f"{key}={one}" for key, one in value.items())
        is_plain = not any(re.search(r"[,=\s]|^$", str(part)) for pair in value.items() for part in pair)
        return plain if is_plain and not plain.startswith(("{", '"')) else json.dumps(value)
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    text = "" if value is None else str(value)
    is_exact = value is None or (parse_text(text) == text and text.isprintable())
    return text if is_exact else json.dumps(text)


def parse_text(text: str) -> object:
    """Read the text of an input: JSON in quotation marks or braces, None if it is empty, else the stripped text."""
    text = text.strip()
    if text[:1] + text[-1:] in ('""', "{}"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text or None


def _warning(text: str) -> str:
    return f'<div role="alert" style="color: var(--jp-error-color1, #b3261e); line-height: 1.3">{escape(text)}</div>'
