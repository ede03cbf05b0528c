"""Knobs: an input for every field of a config, with the range, default and description that the field has."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import annotated_types
import ipywidgets as widgets
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

WIDE = 500  # from this ratio of its bounds on, a slider is logarithmic
LOG_STEP = 0.02  # of a logarithmic slider, in decades
STYLE = {"description_width": "8.5rem"}
BY_DEFAULT = "by default"
EXACTLY = 'A text in double quotation marks is taken as it is, and "\\t" is a tab.'


class Knob(NamedTuple):
    """
    One field's input.

    Attributes
    ----------
    widget
        What stands in the panel.
    inputs
        The widgets whose values it reads.
    read
        Gives what is set, for pydantic to validate.
    show
        Sets a valid value.
    """

    widget: widgets.Widget
    inputs: Sequence[widgets.Widget]
    read: Callable[[], Any]
    show: Callable[[Any], None]


def name_with_tooltip(name: str, tooltip: str) -> dict[str, Any]:
    """
    What makes an input say what it is when somebody points at its name.

    Parameters
    ----------
    name
        That stands beside the input.
    tooltip
        What it does.

    Returns
    -------
    dict
        For the making of a widget. Most of ipywidgets' inputs show a tooltip only where they have no name, so that the
        name brings its own.
    """
    description = f'<span title="{escape(tooltip)}">{escape(name)}</span>'
    return {"description": description, "description_allow_html": True, "tooltip": tooltip}


class Knobs:
    """
    Inputs for the fields of pydantic models, with what is wrong beside the input it is wrong with.

    Parameters
    ----------
    start
        A valid value of each model; where they begin.
    on_change
        Called without arguments when an input has changed.
    """

    def __init__(self, start: Sequence[BaseModel], on_change: Callable[[], None]) -> None:
        self._models = [type(value) for value in start]
        self._knobs = {
            name: make_knob(name, field) for model in self._models for name, field in model.model_fields.items()
        }
        self._messages = {name: widgets.HTML() for name in self._knobs}
        self._on_change = on_change
        self._is_quiet = True
        self.rows: dict[str, widgets.Widget] = {
            name: widgets.VBox([knob.widget, self._messages[name]], layout={"margin": "0 0 2px"}).add_class(
                f"knob-{name}"
            )
            for name, knob in self._knobs.items()
        }
        for knob in self._knobs.values():
            for one in knob.inputs:
                one.observe(self._changed, "value")
        self._set(start)

    def read(self) -> tuple[list[BaseModel] | None, str]:
        """
        Validate what is set.

        Returns
        -------
        list of pydantic.BaseModel, or None
            One per model; None where something is wrong, which then stands beside its input.
        str
            What is wrong, field by field.
        """
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
        said = "; ".join(f"{_spell(name)}: {text}" if name else text for name, text in wrong.items())
        return (None if wrong else found), said

    def show(self, *values: BaseModel) -> None:
        """
        Set all inputs.

        Parameters
        ----------
        values
            One of each model, in their order.
        """
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


def make_knob(name: str, field: FieldInfo) -> Knob:
    """
    The input that a field's type and bounds ask for.

    Parameters
    ----------
    name
        Of the field.
    field
        Its annotation, bounds and description.

    Returns
    -------
    Knob
        A dropdown for choices, a checkbox for yes and no, checkboxes for a tuple of choices, a slider for numbers with
        bounds (a logarithmic one where these are far apart), a text for all else.
    """
    kinds = list(_kinds(field.annotation))
    is_optional = type(None) in kinds
    kind = next(kind for kind in kinds if kind is not type(None))
    low, high = _bounds(field)
    tooltip = _tooltip(field, low, high)
    named = {**name_with_tooltip(_spell(name), tooltip), "style": STYLE, "layout": {"width": "auto"}}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _nested(name, kind)
    if get_origin(kind) is Literal:
        return _choice(
            {BY_DEFAULT: None} if is_optional else {}, {str(choice): choice for choice in get_args(kind)}, named
        )
    if kind is bool and is_optional:
        return _choice({BY_DEFAULT: None}, {"yes": True, "no": False}, named)
    if kind is bool:
        box = widgets.Checkbox(indent=False, tooltip=tooltip)
        return _simple(box)._replace(widget=widgets.HBox([_label(named), box]))
    if get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is Literal:
        return _several(get_args(get_args(kind)[0]), named)
    if kind in (int, float) and not is_optional and (kind is float or math.isfinite(high)):
        return _number(kind, low, high, named)
    if kind is str:
        named |= name_with_tooltip(_spell(name), f"{tooltip} {EXACTLY}")
    if field.examples:
        named |= {"options": field.examples, "ensure_option": False}
    text = (widgets.Combobox if field.examples else widgets.Text)(placeholder=BY_DEFAULT * is_optional, **named)
    is_tuple = get_origin(kind) is tuple
    return Knob(
        text,
        [text],
        lambda: [part.strip() for part in text.value.split(",")] if is_tuple else parse_text(text.value),
        lambda value: setattr(text, "value", write_text(value)),
    )


def _kinds(annotation: Any) -> Iterator[Any]:  # noqa: ANN401
    """The types that a field may have, without what is annotated to them."""
    if get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _kinds(part)
    elif hasattr(annotation, "__metadata__"):
        yield from _kinds(annotation.__origin__)
    else:
        yield annotation


def _bounds(field: FieldInfo) -> tuple[float | int, float | int]:
    low, high = -math.inf, math.inf
    for bound in field.metadata:
        match bound:
            case annotated_types.Ge(ge=value) | annotated_types.Gt(gt=value):
                low = value
            case annotated_types.Le(le=value) | annotated_types.Lt(lt=value):
                high = value
    return low, high


def _number(kind: type, low: float | int, high: float | int, named: Mapping[str, Any]) -> Knob:
    if low > 0 and high / low >= WIDE:
        return _logarithmic(kind, low, high, named)
    if kind is int and high - low < WIDE:
        return _simple(widgets.IntSlider(min=low, max=high, **named))
    if kind is int:
        return _simple(widgets.BoundedIntText(min=low, max=high, **named))
    return _simple(widgets.FloatSlider(min=low, max=high, step=0.01, **named))


def _logarithmic(kind: type, low: float | int, high: float | int, named: Mapping[str, Any]) -> Knob:
    """A slider to turn, beside a number that can be typed, which is what counts."""
    typed = (widgets.BoundedIntText if kind is int else widgets.BoundedFloatText)(
        value=low, min=low, max=high, step=1 if kind is int else None, tooltip=named["tooltip"],
        layout={"width": "5.5rem"},
    )  # fmt: skip
    slider = widgets.FloatLogSlider(
        value=low, min=math.log10(low), max=math.log10(high), step=LOG_STEP, readout=False,
        **{**named, "layout": {"flex": "1 1 auto", "width": "auto"}},
    )  # fmt: skip

    def typed_changed(change: Mapping[str, Any]) -> None:
        slider.value = change["new"]

    def slider_changed(change: Mapping[str, Any]) -> None:
        # A browser rounds the slider to its steps, also when it was set from here; that must not move the number.
        if abs(math.log10(change["new"] / typed.value)) > LOG_STEP:
            typed.value = kind(float(f"{change['new']:.2g}"))

    typed.observe(typed_changed, "value")
    slider.observe(slider_changed, "value")
    return Knob(
        widgets.HBox([slider, typed]), [typed], lambda: typed.value, lambda value: setattr(typed, "value", value)
    )


def _simple(widget: widgets.Widget) -> Knob:
    return Knob(widget, [widget], lambda: widget.value, lambda value: setattr(widget, "value", value))


def _choice(default: Mapping[str, None], choices: Mapping[str, Any], named: Mapping[str, Any]) -> Knob:
    meant = {**default, **choices}
    label_of = {value: label for label, value in meant.items()}
    widget = widgets.Dropdown(options=list(meant), **named)  # of labels: Voila shows nothing where the value is None
    return Knob(widget, [widget], lambda: meant[widget.value], lambda value: setattr(widget, "value", label_of[value]))


def _several(choices: Sequence[str], named: Mapping[str, Any]) -> Knob:
    boxes = {
        choice: widgets.Checkbox(
            description=choice, tooltip=named["tooltip"], indent=False, layout={"width": "auto", "margin": "0 12px 0 0"}
        )
        for choice in choices
    }
    box = widgets.HBox(list(boxes.values()), layout={"flex_flow": "row wrap", "flex": "1"})
    order = list(choices)  # that of the value that was shown last; boxes cannot say one

    def show(value: Sequence[str]) -> None:
        order[:] = [*value, *(choice for choice in choices if choice not in value)]
        for choice, one in boxes.items():
            one.value = choice in value

    return Knob(
        widgets.HBox([_label(named), box]),
        list(boxes.values()),
        lambda: [choice for choice in order if boxes[choice].value],
        show,
    )


def _nested(name: str, model: type[BaseModel]) -> Knob:
    knobs = {inner: make_knob(inner, field) for inner, field in model.model_fields.items()}

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
    """For checkboxes, which would show their own names when pointed at."""
    text = f'<div style="text-align: right">{named["description"]}</div>'
    return widgets.HTML(text, layout={"width": STYLE["description_width"], "flex": "none", "margin": "2px 8px 2px 2px"})


def _tooltip(field: FieldInfo, low: float | int, high: float | int) -> str:
    said = field.description or ""
    return f"{said} From {low:,g} to {high:,g}." if math.isfinite(low) and math.isfinite(high) else said


def write_text(value: object) -> str:
    """
    Write a value as the text of an input.

    Parameters
    ----------
    value
        A text, number, mapping, tuple or None.

    Returns
    -------
    str
        As somebody would type it; as JSON where that would be read as another value.
    """
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
    """
    Read what an input says.

    Parameters
    ----------
    text
        As it was typed.

    Returns
    -------
    object
        The text without the spaces around it, None for an empty one; what JSON in quotation marks or braces means.
    """
    text = text.strip()
    if text[:1] + text[-1:] in ('""', "{}"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text or None


def _warning(text: str) -> str:
    return f'<div role="alert" style="color: var(--jp-error-color1, #b3261e); line-height: 1.3">{escape(text)}</div>'
