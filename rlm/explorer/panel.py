"""The panel of the explorer: which widgets stand where. What they do is said in `rlm.explorer.explorer`."""

import math
from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import pandas as pd
from pydantic import BaseModel

from rlm.config import PRESETS, Plan, StudyConfig
from rlm.explorer.form import Knobs, name_with_tooltip, write_text
from rlm.explorer.tabs import CSS, CompareTab, InsideTab, StudyTabs, paragraph
from rlm.store.read import Progress

GROUPS = {
    "Data": [
        *("dataset", "reading", "train_fraction", "negatives", "negative_kinds", "max_tokens"),
        *("fractions", "split", "split_seed"),
    ],
    "Pre-training": ["arms", "pretrain_epochs", "random_triplets"],
    "Encoder and loss": [
        *("encoder", "word_dim", "dim", "unseen_words", "word_vectors", "fixed_vectors"),
        *("loss", "margin", "mining"),
    ],
    "Fine-tuning": ["learning_rate", "batch_size", "max_epochs", "patience", "epoch_triplets", "batching", "optimizer"],
    "Study": ["seeds", "until", "device", "precision", "compile"],
}
OWN = "own settings"
NEW = ("a new one", 0)  # studies are counted from 1


class Panel:
    """
    Knobs on the left; buttons, progress and tabs on the right.

    Parameters
    ----------
    config, plan
        Where the knobs begin.
    hidden
        Settings that cannot be changed here.
    on_change
        Called when a knob has changed.
    on_choice
        See `CompareTab`.
    on_train
        See `InsideTab`.
    """

    def __init__(
        self,
        config: StudyConfig,
        plan: Plan,
        hidden: Sequence[str],
        *,
        on_change: Callable[[], None],
        on_choice: Callable[[list[int]], None],
        on_train: Callable[[int], None],
    ) -> None:
        self.knobs = Knobs([config, plan], on_change)
        self.preset = widgets.Dropdown(
            options=[OWN, *PRESETS], layout={"width": "290px"}, **name_with_tooltip("preset", "Settings to start from")
        )
        self.study = widgets.Dropdown(
            options=[NEW], **name_with_tooltip("study", "A study of this store: shows it, and sets its knobs"),
            layout={"width": "auto", "flex": "1 1 260px", "min_width": "0", "max_width": "min(560px, 100%)"},
        )  # fmt: skip
        self.run = widgets.Button(description="Run", icon="play", button_style="success")
        self.stop = widgets.Button(
            description="Stop", icon="stop", disabled=True, tooltip="Stops at once; finished seeds are kept"
        )
        self.export = widgets.Button(
            description="Export", icon="download", disabled=True, tooltip="Write what is shown as one HTML file"
        )
        self.wrong, self.status, self.exported = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._difference = widgets.HTML()
        self._bars = widgets.VBox()
        self.seen, self.compare, self.inside = StudyTabs(), CompareTab(on_choice), InsideTab(on_train)
        tabs = widgets.Tab(
            [*self.seen.widgets, self.compare.widget, self.inside.widget],
            titles=[*StudyTabs.TITLES, "Compare", "Look inside"],
            layout={"min_width": "0"},
        )
        rows = [[self.knobs.rows[name] for name in names if name not in hidden] for names in GROUPS.values()]
        groups = widgets.Accordion([widgets.VBox(mine) for mine in rows], titles=list(GROUPS), selected_index=1)
        left = widgets.VBox([groups, self.wrong], layout={"flex": "1 1 360px", "max_width": "440px", "min_width": "0"})
        buttons = widgets.HBox([self.run, self.stop, self.export], layout={"flex_flow": "row wrap"})
        said = [self.status, self.exported, self._difference]
        right = widgets.VBox([buttons, self._bars, *said, tabs], layout={"flex": "3 1 560px", "min_width": "0"})
        top = widgets.HBox([self.preset, self.study], layout={"flex_flow": "row wrap"})
        body = widgets.HBox([left, right], layout={"flex_flow": "row wrap", "grid_gap": "12px"})
        self.widget = widgets.VBox([widgets.HTML(CSS), top, body])
        self.widget.add_class("rlm-explorer")

    def show_progress(self, arms: pd.DataFrame, seconds_left: pd.Series) -> None:
        """
        One bar per arm.

        Parameters
        ----------
        arms
            See `rlm.store.read.Progress`.
        seconds_left
            By arm, where that is known.
        """
        if len(self._bars.children) != len(arms):
            self._bars.children = [
                widgets.HBox([widgets.IntProgress(layout={"width": "320px"}, style={"description_width": "8rem"}),
                              widgets.Label()]) for _ in range(len(arms))]  # fmt: skip
        for row, line in zip(arms.itertuples(), self._bars.children, strict=True):
            bar, label = line.children
            bar.description, bar.tooltip = row.Index, f"{row.finished} of {row.planned} seeds"
            bar.max, bar.value = row.planned, row.finished
            left = seconds_left.get(row.Index, math.nan)
            label.value = ", ".join(filter(None, [bar.tooltip, spell_time_left(left) if left else ""]))

    def offer_studies(self, studies: Mapping[int, str], shown: int | None) -> None:
        """
        Offer the studies of the store.

        Parameters
        ----------
        studies
            A line for each, by number.
        shown
            The one that is shown.
        """
        options = [NEW, *((title, number) for number, title in studies.items())]
        if list(self.study.options) != options:
            self.study.options = options
        self.study.value = shown if shown in studies else NEW[1]
        self.compare.offer(studies)

    def show_difference(
        self, shown: Progress | None, config: StudyConfig, plan: Plan, *, is_own: bool, is_other: bool
    ) -> None:
        """
        Say which study is shown, and whether the knobs are its.

        Parameters
        ----------
        shown
            The study, if there is one.
        config, plan
            What the knobs say.
        is_own
            Whether its data are not those that its config names.
        is_other
            Whether another study runs, of which nothing is shown yet.
        """
        said = "" if shown is None else explain_difference(shown, config, plan)
        if said and is_own:
            said = (
                f"Shown: #{shown.study}, of data that were handed over as a table, or have changed since. To go on "
                "with it, hand them over: rlm.Explorer(data). Run starts a new study."
            )
        if said and is_other:
            said += " The study that runs is shown as soon as its first seeds are finished."
        self._difference.value = paragraph(said, "quiet") if said else ""

    def say(self, text: str, is_wrong: bool = False) -> None:
        """
        Say what goes on.

        Parameters
        ----------
        text
            Shown as it is.
        is_wrong
            Whether it failed.
        """
        self.status.value = (
            f'<div role="status" aria-live="polite">{paragraph(text, "wrong" if is_wrong else "quiet")}</div>'
        )


def explain_difference(shown: Progress, config: StudyConfig, plan: Plan) -> str:
    """
    Say in one line which study is shown, and in what the knobs differ from it.

    Parameters
    ----------
    shown
        The study.
    config, plan
        What the knobs say.

    Returns
    -------
    str
        The study's number, and both values of every setting that differs.
    """
    theirs, ours = dict(shown.config) | dict(shown.plan), dict(config) | dict(plan)
    other = [name for name in ours if ours[name] != theirs[name]]
    if not other:
        return f"Shown: #{shown.study}, with the settings of the knobs."
    before, now = (", ".join(_spell(name, of[name]) for name in other) for of in (theirs, ours))
    is_same_study = set(other) <= {"arms", *Plan.model_fields}
    then = "goes on with this study" if is_same_study else "starts a new study"
    return f"Shown: #{shown.study} ({before}). The knobs differ: {now}; Run {then}."


def _spell(name: str, value: object) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_defaults=True) or None
    return f"{name.replace('_', ' ')} {'by default' if value is None else write_text(value)}"


def spell_time_left(seconds: float) -> str:
    """
    Say how long something takes.

    Parameters
    ----------
    seconds
        From now on; NaN where that is not known.

    Returns
    -------
    str
        Rounded; empty where it is not known.
    """
    if math.isnan(seconds):
        return ""
    return f"about {seconds:.0f} s left" if seconds < 100 else f"about {seconds / 60:.0f} min left"
