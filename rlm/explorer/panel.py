"""The widgets of the panel and their layout; `rlm.explorer.explorer` defines what they do."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
import pandas as pd
from pydantic import BaseModel, ValidationError

from rlm.config import MetricName, Plan, StudyConfig
from rlm.errors import InputError
from rlm.explorer.form import Knobs, name_with_tooltip, write_text
from rlm.explorer.session import Session, spell_time_left
from rlm.explorer.tabs import CSS, CompareTab, InsideTab, StudyTabs, SweepTab
from rlm.presets import PRESETS, Preset
from rlm.report.markup import html_table, paragraph
from rlm.store.read import Progress
from rlm.variants import SHARED, find_arm, write_arm

GROUPS = {
    "Data": [
        *("dataset", "reading", "train_fraction", "negatives", "negative_kinds", "max_tokens", "tokenizer"),
        *("fractions", "split", "split_by", "split_seed"),
    ],
    "Pre-training": [
        *("arms", "pretrain_epochs", "random_triplets", "pretrain_texts", "pretrain_reading", "transfer"),
        "keep_moments",
    ],
    "Encoder and loss": [
        *("encoder", "word_dim", "dim", "layers", "dropout", "unseen_words", "min_count"),
        *("word_vectors", "character_vectors", "fixed_vectors", "initialisation"),
        *("padding", "pretrain_padding", "test_padding"),
        *("loss", "margin", "mining"),
    ],
    "Fine-tuning": [
        *("learning_rate", "batch_size", "max_epochs", "patience", "stop_by"),
        *("epoch_triplets", "batching", "optimizer", "weight_decay", "warmup", "clip"),
    ],
    "Study": ["seeds", "until", "same_within", "baseline", "device", "precision", "compile"],
}
TOP = ["metric"]  # beside preset and study
OWN = "own settings"
PLAN_TOOLTIP = "Estimate pairs, minutes and memory for an interval as narrow as until, or else ± same within"
ADD_TOOLTIP = "Add an arm with the settings of the knobs; the other arms keep those of the study that is shown"
ABOUT = {
    "name": ("230px", "Name of this study, in lists and titles"),
    "tags": ("200px", "Tags of this study, separated by commas"),
    "note": ("330px", "Note on this study"),
}
NAMES = {"description_width": "2.8rem"}
BAR = {"width": "auto", "min_width": "0", "flex": "0 1 320px"}  # narrower, so that its label is not cut off
ONE_CHANGE = 1.0  # seconds
NEW = ("a new one", 0)  # studies are counted from 1


class Panel:
    """Knobs on the left, except hidden ones; buttons, progress and tabs on the right."""

    def __init__(
        self,
        config: StudyConfig,
        plan: Plan,
        hidden: Sequence[str],
        *,
        on_change: Callable[[], None],
        on_choice: Callable[[list[int]], None],
        on_train: Callable[[int], None],
        on_name: Callable[[dict[str, str]], None],
        on_export: Callable[[list[int]], None],
        on_sweep: Callable[[str], None],
    ) -> None:
        self.knobs, self.valid = Knobs([config, plan], on_change), (config, plan)  # the last valid settings
        self.is_drawing = False  # the widgets change, but nobody uses them
        self.preset = widgets.Dropdown(
            options=[OWN, *PRESETS], layout={"width": "290px"}, **name_with_tooltip("preset", "Settings to start from")
        )
        self.study = widgets.Dropdown(
            options=[NEW], **name_with_tooltip("study", "Show a study of this store, with its settings as knobs"),
            layout={"width": "auto", "flex": "1 1 260px", "min_width": "0", "max_width": "min(560px, 100%)"},
        )  # fmt: skip
        self.run = widgets.Button(description="Run", icon="play", button_style="success")
        self.stop = widgets.Button(
            description="Stop", icon="stop", disabled=True, tooltip="Stop at once; finished seeds are kept"
        )
        self.plan = widgets.Button(description="Plan", icon="clock-o", tooltip=PLAN_TOOLTIP)
        self.export = widgets.Button(
            description="Export", icon="download", disabled=True, tooltip="Write what is shown as one HTML file"
        )
        self._arm = widgets.Text(placeholder="wide, or wide: pretrained", description="arm", layout={"width": "230px"})
        self._add = widgets.Button(description="Add an arm", icon="plus", tooltip=ADD_TOOLTIP)
        self._add.on_click(self._add_arm)
        self._undo = widgets.Button(
            description="Undo", icon="undo", disabled=True, tooltip="Undo the last change of the knobs"
        )
        self._undo.on_click(self._take_back)
        self._earlier, self._changed_at = [], -math.inf  # valid settings from before a change
        self._base, self._added, self._kept = config, widgets.HTML(), widgets.HTML()
        self._about = {
            name: widgets.Text(
                continuous_update=False, layout={"width": width}, **name_with_tooltip(name, tooltip), style=NAMES
            )
            for name, (width, tooltip) in ABOUT.items()
        }
        for one in self._about.values():
            one.observe(lambda change: self._name(on_name, change), "value")
        self._code = widgets.HTML()
        self.wrong, self.status, self.exported = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._planned, self._difference = widgets.HTML(), widgets.HTML()
        self._bars = widgets.VBox()
        self.seen, self.compare, self.inside = StudyTabs(), CompareTab(on_choice, on_export), InsideTab(on_train)
        varied = [name for group in ("Encoder and loss", "Fine-tuning") for name in GROUPS[group] if name not in SHARED]
        self.sweep = SweepTab(varied, on_sweep)
        tabs = widgets.Tab(
            [*self.seen.widgets, self.compare.widget, self.sweep.widget, self.inside.widget],
            titles=[*StudyTabs.TITLES, "Compare", "Sweep", "Look inside"],
            layout={"min_width": "0"},
        )
        rows = [[self.knobs.rows[name] for name in names if name not in hidden] for names in GROUPS.values()]
        groups = widgets.Stack([widgets.VBox(mine) for mine in rows], titles=list(GROUPS), selected_index=1)
        # Buttons, since the headers of an accordion cannot be reached with a keyboard.
        heads = widgets.ToggleButtons(options=list(GROUPS), index=1, style={"button_width": "auto"})
        widgets.jslink((heads, "index"), (groups, "selected_index"))
        adding = widgets.HBox([self._arm, self._add, self._undo], layout={"flex_flow": "row wrap"})
        code = widgets.Accordion([self._code], titles=["Code of these settings"], selected_index=None)
        left = widgets.VBox(
            [self._kept, heads, groups, self.wrong, adding, self._added, code],
            layout={"flex": "1 1 360px", "max_width": "440px", "min_width": "0"},
        )
        buttons = widgets.HBox([self.run, self.stop, self.plan, self.export], layout={"flex_flow": "row wrap"})
        names = widgets.HBox(list(self._about.values()), layout={"flex_flow": "row wrap"})
        texts = [self._planned, self.status, self.exported, self._difference, names]
        right = widgets.VBox([buttons, self._bars, *texts, tabs], layout={"flex": "3 1 560px", "min_width": "0"})
        top = widgets.HBox(
            [self.preset, self.study, *(self.knobs.rows[name] for name in TOP)], layout={"flex_flow": "row wrap"}
        )
        body = widgets.HBox([left, right], layout={"flex_flow": "row wrap", "grid_gap": "12px"})
        self.widget = widgets.VBox([widgets.HTML(CSS), top, body])
        self.widget.add_class("rlm-explorer")
        self.preset.observe(self._choose_preset, "value")

    def draw(self, session: Session, shown: Progress | None, *, is_own: bool, kept: str) -> None:
        """Show the state of a session; `is_own` as in `show_difference`, `kept` tells where the studies are."""
        found, wrong = self.knobs.read()
        if found is not None:
            self._remember(found[0], found[1])
        self._undo.disabled = not self._earlier
        self._code.value = f'<pre class="copy">{escape(write_code(*self.valid, session.db.name))}</pre>'
        progress, is_running = session.progress, session.child is not None
        self._kept.value = ""
        if shown is not None and shown.knobs:
            self._base = shown.config
        elif shown is not None:
            table = pd.DataFrame(shown.config.describe().items(), columns=["setting", "value"])
            self._kept.value = f"<h3>Settings of #{shown.study}</h3>{html_table(table, are_texts=True)}"
        arms, baseline = self.valid[0].arms, self.valid[1].baseline
        has_pairs = len(arms) > 1 and find_arm(arms, baseline) in arms
        hint = "" if has_pairs else f"There will be no verdict: it needs the baseline, {baseline}, and another arm."
        self.wrong.value = paragraph(wrong or hint, "wrong" if wrong else "quiet") if wrong or hint else ""
        self.run.disabled = self.sweep.run.disabled = is_running or found is None
        self.sweep.show(session.swept)
        planned = session.planned[2] if session.planned and session.planned[:2] == self.valid else ""
        self._planned.value = paragraph(planned, "quiet") if planned else ""
        self.plan.disabled = found is None
        self.stop.disabled = not is_running
        self.study.disabled = is_running
        self.export.disabled = shown is None
        is_this = progress is not None and found is not None and not _differing(progress, *self.valid)
        is_open = progress is not None and is_this and not progress.is_complete and not session.has_ended and not is_own
        self.run.description = "Resume" if is_open and not is_running else "Run"
        self.is_drawing = True
        for name, one in self._about.items():
            one.value, one.disabled = "" if progress is None else progress.about[name], progress is None
        is_set = (name for name, one in PRESETS.items() if self._on_these_data(one) == self.valid)
        self.preset.value = next(is_set, OWN)
        self.is_drawing = False
        self.show_progress(pd.DataFrame() if progress is None else progress.arms, session.seconds_left)
        state = session.explain(is_ready=found is not None)
        status = state if session.problem else " ".join([state, kept, *session.notices])
        self.show_status(status, is_wrong=bool(session.problem))
        is_old = is_running and shown is not None and (progress is None or progress.study != shown.study)
        self.show_difference(shown, *self.valid, is_own=is_own, is_other=is_old)

    def _remember(self, config: StudyConfig, plan: Plan) -> None:
        """Take valid settings, and keep those from before; changes within a second, as by dragging, are one."""
        if (config, plan) != self.valid:
            if time.monotonic() - self._changed_at > ONE_CHANGE:
                self._earlier.append(self.valid)
            self.valid, self._changed_at = (config, plan), time.monotonic()

    def _take_back(self, _: object) -> None:
        self.valid, self._changed_at = self._earlier.pop(), -math.inf
        self.knobs.show(*self.valid)

    def _name(self, on_name: Callable[[dict[str, str]], None], change: dict[str, Any]) -> None:
        if not self.is_drawing:
            (name,) = (name for name, one in self._about.items() if one is change["owner"])
            on_name({name: change["new"]})

    def wanted(self, session: Session) -> tuple[int, tuple[object, ...], MetricName, float | None] | None:
        """Return the study to show, its finished runs and name, metric and until; None before the first run."""
        return session.finished and (*session.finished, self.valid[1].metric, self.valid[1].until)

    def _on_these_data(self, preset: Preset) -> tuple[StudyConfig, Plan]:
        names = ("dataset", "reading", "pretrain_texts", "pretrain_reading")
        data = {name: getattr(self.valid[0], name) for name in names}
        return preset.config.model_copy(update=data), preset.plan

    def _choose_preset(self, change: dict[str, Any]) -> None:
        if not self.is_drawing and change["new"] != OWN:
            self.knobs.show(*self._on_these_data(PRESETS[change["new"]]))

    def _add_arm(self, _: object) -> None:
        """Make what the knobs change in the settings of the study that is shown, or of the start, another arm."""
        config, plan = self.valid
        try:
            changes = {name: value for name, value in config if name != "arms" and value != getattr(self._base, name)}
            arms = *config.arms, write_arm(self._arm.value, changes)
            self.knobs.show(StudyConfig.model_validate(dict(self._base) | {"arms": arms}), plan)
            self._added.value = paragraph(f"Added: {arms[-1]}. The other arms keep the settings from before.", "quiet")
        except ValidationError as error:
            self._added.value = paragraph(error.errors()[0]["msg"], "wrong")
        except InputError as error:
            self._added.value = paragraph(str(error), "wrong")

    def show_progress(self, arms: pd.DataFrame, seconds_left: pd.Series) -> None:
        """Show a bar per arm of `Progress.arms`, with the seconds that are left, where they are known."""
        if len(self._bars.children) != len(arms):
            self._bars.children = [
                widgets.HBox([widgets.IntProgress(layout=BAR, style={"description_width": "8rem"}),
                              widgets.Label(layout={"flex": "0 0 auto"})]) for _ in range(len(arms))]  # fmt: skip
        for row, line in zip(arms.itertuples(), self._bars.children, strict=True):
            bar, label = line.children
            bar.description, bar.tooltip = row.Index, f"{row.finished} of {row.planned} seeds"
            bar.max, bar.value = row.planned, row.finished
            left = seconds_left.get(row.Index, math.nan)
            label.value = ", ".join(filter(None, [bar.tooltip, spell_time_left(left) if left else ""]))

    def offer_studies(self, studies: Mapping[int, str], shown: int | None) -> None:
        """Offer the studies of the store, a line for each by number, and choose the one that is shown."""
        self.is_drawing = True
        options = [NEW, *((title, number) for number, title in studies.items())]
        if list(self.study.options) != options:
            self.study.options = options
        self.study.value = shown if shown in studies else NEW[1]
        self.is_drawing = False
        self.compare.offer(studies)

    def show_difference(
        self, shown: Progress | None, config: StudyConfig, plan: Plan, *, is_own: bool, is_other: bool
    ) -> None:
        """Name the study that is shown and what differs; `is_own`: of a table, `is_other`: another one runs."""
        text = "" if shown is None else explain_difference(shown, config, plan)
        if shown is not None and text and is_own:
            text = (
                f"Shown: #{shown.study}. Its data were passed as a table, or have changed since. To continue it, pass "
                "the data: rlm.Explorer(data). Run starts a new study."
            )
        if text and is_other:
            text += " The study that runs is shown as soon as its first seeds are finished."
        self._difference.value = paragraph(text, "quiet") if text else ""

    def show_export(self, written: Any) -> None:  # noqa: ANN401
        """Show what was written, and the code that repeats it."""
        beside = f" and, beside it, {written.config.name}. To repeat it, in that folder:" if written.code else "."
        code = f'<pre class="copy">{escape(written.code)}</pre>' if written.code else ""
        self.exported.value = paragraph(f"Written: {written.page}{beside}", "quiet") + code

    def show_status(self, text: str, is_wrong: bool = False) -> None:
        """Show the status."""
        self.status.value = (
            f'<div role="status" aria-live="polite">{paragraph(text, "wrong" if is_wrong else "quiet")}</div>'
        )


def write_code(config: StudyConfig, plan: Plan, db: str) -> str:
    """Write the Python that runs a study with these settings."""
    changed = ", ".join(f"{name}={value!r}" for name, value in config.model_dump(exclude_defaults=True).items())
    rules = plan.model_dump(exclude_defaults=True) | {"seeds": plan.seeds, "watched": True, "db": db}
    given = ", ".join(f"{name}={value!r}" for name, value in rules.items())
    return f"import rlm\n\nconfig = rlm.StudyConfig({changed})\nresults = rlm.run_study(config, {given})"


def explain_difference(shown: Progress, config: StudyConfig, plan: Plan) -> str:
    """Write in one line which study is shown, and both values of every setting in which the knobs differ."""
    if shown.knobs is None:
        return f"Shown: #{shown.study}, of the function {shown.config.function}. The knobs are those of a new study."
    theirs, ours = dict(shown.config) | dict(shown.plan), dict(config) | dict(plan)
    other = _differing(shown, config, plan)
    if not other:
        return f"Shown: #{shown.study}, with the settings of the knobs."
    before, now = (", ".join(_spell(name, of[name]) for name in other) for of in (theirs, ours))
    is_same_study = set(other) <= {"arms", *Plan.model_fields}
    then = "continues this study" if is_same_study else "starts a new study"
    return f"Shown: #{shown.study} ({before}). The knobs differ: {now}; Run {then}."


def _differing(shown: Progress, config: StudyConfig, plan: Plan) -> list[str]:
    """List the settings that differ from those of a study, except the metric: the study is shown by any."""
    theirs, ours = (dict(one[0]) | dict(one[1]) if one else {} for one in (shown.knobs, (config, plan)))
    return [name for name in ours if name != "metric" and ours[name] != theirs.get(name)]


def _spell(name: str, value: object) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_defaults=True) or None
    return f"{name.replace('_', ' ')} {'by default' if value is None else write_text(value)}"
