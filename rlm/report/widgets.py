"""Widgets in a report: their last state as HTML without scripts."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
NOTE = (
    "This is a picture of a live panel in its last state. To use it, open the notebook in JupyterLab (rlm lab) and "
    "run it."
)
Models = Mapping[str, Mapping[str, Any]]


def widget_html(view: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """
    Draw a widget and all that it contains, from a `VIEW` output and the notebook's metadata, which hold the state.

    Texts and pictures are shown as they were, inputs with their values, and tabs and sections as foldable parts.
    """
    models = metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    drawn = _draw(view["model_id"], models)
    return f'<div class="widget"><p class="note">{escape(NOTE)}</p>{drawn}</div>'


def _draw(model_id: str, models: Models) -> str:
    if model_id not in models:
        return ""
    model = models[model_id]
    state, kind = model["state"], model["model_name"].removesuffix("Model")
    if _layout(state, models).get("display") == "none" or kind == "ToggleButtons":  # titles of a stack
        return ""
    children = [_of(child) for child in state.get("children", [])]
    label = state.get("description", "")
    if not state.get("description_allow_html"):
        label = escape(label)
    match kind:
        case "HTML":
            return state.get("value", "")
        case "Image":
            return _image(model, state)
        case "Tab" | "Accordion" | "Stack":
            return _folded(children, state, models)
        case "VBox" | "Box" | "GridBox" | "HBox":
            flex = escape(_layout(state, models).get("flex") or "")
            style = (' class="row"' if kind == "HBox" else "") + (f' style="flex: {flex}"' if flex else "")
            return f"<div{style}>{''.join(_draw(child, models) for child in children)}</div>"
        case "Button":
            return f'<span class="button">{label}</span>'
        case "IntProgress" | "FloatProgress":
            amount = f'max="{state.get("max", 100)}" value="{state.get("value", 0)}"'
            return f"<label>{label} <progress {amount}></progress></label>"
        case "Checkbox" | "ToggleButton":
            return f"<span>{'☑' if state.get('value') else '☐'} {label}</span>"
        case "Label":
            return f"<span>{escape(state.get('value', ''))}</span>"
    value = _chosen(state)
    return "" if value is None else f'<div class="input"><span>{label}</span> <b>{escape(value)}</b></div>'


def _of(reference: str) -> str:
    return reference.removeprefix("IPY_MODEL_")


def _layout(state: Mapping[str, Any], models: Models) -> Mapping[str, Any]:
    return models.get(_of(state.get("layout") or ""), {}).get("state", {})


def _image(model: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    data = next((one["data"] for one in model.get("buffers", []) if one["path"] == ["value"]), "")
    alt = escape(state.get("tooltip") or "picture")
    return f'<img alt="{alt}" src="data:image/{escape(state.get("format", "png"))};base64,{data}">' if data else ""


def _folded(children: Sequence[str], state: Mapping[str, Any], models: Models) -> str:
    parts, titles = [], [*(state.get("titles") or []), *[""] * len(children)]
    for place, child in enumerate(children):
        title = escape(titles[place] or f"part {place + 1}")
        is_open = " open" if state.get("selected_index") == place else ""
        parts.append(f"<details{is_open}><summary>{title}</summary>{_draw(child, models)}</details>")
    return "".join(parts)


def _chosen(state: Mapping[str, Any]) -> str | None:
    """Return the value of an input as text; None for a widget without a value."""
    if "_options_labels" in state:
        place = state.get("index")
        return "" if place is None else str(state["_options_labels"][place])
    if "value" not in state:
        return None
    value = state["value"]
    if isinstance(value, float):
        return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"
    return str(value) or str(state.get("placeholder") or "")
