"""The tabs of the panel: one study, the comparison of several, and the inside of one seed."""

import base64
from collections.abc import Callable, Mapping, Sequence
from html import escape

import ipywidgets as widgets
import pandas as pd

from rlm.explorer.commands import Swept
from rlm.explorer.form import name_with_tooltip
from rlm.explorer.probe import Inside
from rlm.report.markup import html_table, paragraph
from rlm.report.view import DETAILS, Comparison, Picture, View, shares_of

TRIPLETS_TO_PICK = 200
NOTHING_CHOSEN = "Choose two or more studies of this store. Every set of settings that you run is a study."
CSS = """
<style>
.rlm-explorer { color: var(--jp-ui-font-color1, inherit); }
.rlm-explorer img { background: #fff; border-radius: 6px; padding: 4px; box-sizing: border-box; }
.rlm-explorer table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 4px 0 14px; border: 0; }
.rlm-explorer th, .rlm-explorer td { padding: 3px 0 3px 14px; text-align: right; line-height: 1.4; border: 0;
    border-bottom: 1px solid var(--jp-border-color2, #ccc); background: none; vertical-align: top; }
.rlm-explorer th:first-child, .rlm-explorer td:first-child, .rlm-explorer .texts th, .rlm-explorer .texts td
    { text-align: left; padding: 3px 14px 3px 0; }
.rlm-explorer .lm-TabBar { min-height: 0 !important; max-height: none !important; }
.rlm-explorer .lm-TabBar-content { flex-wrap: wrap; }
.rlm-explorer .lm-TabBar-tab { flex: 0 0 auto !important; max-width: none !important; min-width: 0 !important; }
.rlm-explorer .widget-html, .rlm-explorer .widget-html-content { min-width: 0; max-width: 100%; }
.rlm-explorer h3 { margin: 12px 0 2px; font-size: 1.05em; }
.rlm-explorer p { margin: 0 0 8px; line-height: 1.5; max-width: 48rem; }
.rlm-explorer .headline { font-size: 1.15em; font-weight: 600; }
.rlm-explorer .quiet { color: var(--jp-ui-font-color2, #555); }
.rlm-explorer .wrong { color: var(--jp-error-color0, #b3261e); font-weight: 600; }
.rlm-explorer label [title], .rlm-explorer .widget-html [title] { cursor: help; }
.rlm-explorer pre.copy { user-select: all; font-family: monospace; white-space: pre-wrap;
    overflow-wrap: anywhere; line-height: 1.4; }
.rlm-explorer .scroll { max-height: 400px; overflow: auto; }
</style>
"""


def show_picture(image: widgets.HTML, picture: Picture | None) -> None:
    """Show a picture in its place, or hide the place."""
    image.layout.display = "none" if picture is None else "block"
    if picture is not None:
        data = base64.b64encode(picture.png).decode()
        source = f'src="data:image/png;base64,{data}" style="max-width: 100%"'
        image.value = f'<img alt="{escape(picture.alt)}" {source}>'


def new_image(width: str = "100%") -> widgets.HTML:
    """Make a place for a picture, hidden until there is one; an image widget would have no text for those who hear."""
    return widgets.HTML(layout={"display": "none", "max_width": width})


class ResultsTab:
    """The runs of a study, in the order of any column."""

    def __init__(self) -> None:
        self._results, self._shares = pd.DataFrame(), [""]
        self._by = widgets.Dropdown(description="sort by", options=["seed"], layout={"width": "260px"})
        self._falling = widgets.Checkbox(description="largest first", indent=False)
        self._summary, self._table, self._file = widgets.HTML(), widgets.HTML(), widgets.HTML()
        order = widgets.HBox([self._by, self._falling, self._file], layout={"flex_flow": "row wrap"})
        self.widget = widgets.VBox([self._summary, order, self._table])
        for one in (self._by, self._falling):
            one.observe(self._draw, "value")

    def show(self, seen: View) -> None:
        """Show the runs of a study."""
        self._results, self._shares = seen.results.drop(columns=DETAILS, errors="ignore"), shares_of(seen)
        file = base64.b64encode(seen.results.to_csv(index=False).encode()).decode()
        name = f'download="study-{seen.study}.csv"'
        self._file.value = f'<a {name} href="data:text/csv;charset=utf-8;base64,{file}">Download as CSV</a>'
        if list(self._by.options) != list(self._results):
            self._by.options = list(self._results)
            self._by.value = "seed"
        shares = list(seen.summary.columns.drop(["arm", "seeds"])) if seen.metric.is_share else []
        self._summary.value = f"<h3>{seen.metric.title} by arm</h3>{html_table(seen.summary, shares)}<h3>Every run</h3>"
        self._draw()

    def _draw(self, _: object = None) -> None:
        ordered = self._results.sort_values(
            [self._by.value, "seed"], ascending=[not self._falling.value, True], kind="stable"
        )
        self._table.value = html_table(ordered, self._shares)


class StudyTabs:
    """One study: seeds, learning curves, pre-training, results and verdict."""

    TITLES = ("Seeds", "Learning curves", "Pre-training", "Results", "Verdict")

    def __init__(self) -> None:
        self._headline, self._words, self._pretraining_words = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._plan = widgets.HTML()
        self._differences, self._seeds = new_image("760px"), new_image("980px")
        self._curves, self._pretraining, self._luck = new_image("760px"), new_image(), new_image("760px")
        self._results = ResultsTab()
        self.widgets = [
            widgets.VBox([self._headline, self._plan, self._differences, self._seeds]),
            widgets.VBox([self._curves]),
            widgets.VBox([self._pretraining_words, self._pretraining]),
            self._results.widget,
            widgets.VBox([self._words, self._luck]),
        ]
        self._headline.value = paragraph("No seed to show yet.", "headline") + paragraph(
            "Choose a preset, or turn knobs, and press Run. Seeds appear here as they are finished."
        )

    def show(self, seen: View) -> None:
        """Show what is finished of a study."""
        self._headline.value = paragraph(seen.headline, "headline") + paragraph(seen.limits)
        self._plan.value = paragraph(seen.plan, "quiet") if seen.plan else ""
        show_picture(self._differences, seen.differences)
        show_picture(self._seeds, seen.seeds)
        show_picture(self._curves, seen.curves)
        show_picture(self._pretraining, seen.pretraining)
        show_picture(self._luck, seen.luck)
        texts = "".join(f"<h3>{escape(heading)}</h3>{paragraph(text)}" for heading, text in seen.words)
        self._words.value = texts + (html_table(seen.estimates) if len(seen.estimates) else "")
        self._pretraining_words.value = "".join(
            paragraph(f"{heading}: {text}") for heading, text in seen.words if heading.startswith("Pre-training")
        )
        self._results.show(seen)


class CompareTab:
    """Studies of the store side by side; `on_choice` and `on_export` get the numbers of the chosen ones, if any."""

    def __init__(self, on_choice: Callable[[list[int]], None], on_export: Callable[[list[int]], None]) -> None:
        self._on_choice = on_choice
        self._export = widgets.Button(
            description="Export these", icon="download", disabled=True, tooltip="Write them as one HTML file"
        )
        self._export.on_click(lambda _: on_export(self.chosen))
        self._boxes: dict[int, widgets.Checkbox] = {}
        self._choices, self._text, self._picture = widgets.VBox(), widgets.HTML(), new_image("760px")
        self._seeds = new_image("760px")
        self._text.value = paragraph(NOTHING_CHOSEN)
        self.widget = widgets.VBox([self._choices, self._export, self._text, self._picture, self._seeds])

    @property
    def chosen(self) -> list[int]:
        """The numbers of the chosen studies."""
        return [number for number, box in self._boxes.items() if box.value]

    def offer(self, studies: Mapping[int, str]) -> None:
        """Offer studies, a line for each by number."""
        for number, title in studies.items():
            if number in self._boxes:
                self._boxes[number].description = title
            else:
                box = widgets.Checkbox(description=title, indent=False, layout={"width": "auto"})
                box.observe(self._chosen, "value")
                self._boxes[number] = box
        if len(self._choices.children) != len(self._boxes):
            self._choices.children = list(self._boxes.values())

    def show(self, found: Comparison) -> None:
        """Show a comparison of the chosen studies."""
        settings = found.settings.rename_axis("setting").reset_index()
        different = html_table(settings, are_texts=True) if len(settings) else paragraph("Their settings are the same.")
        means = ["baseline", "with it"] if found.metric.is_share else []
        effects = html_table(found.effects.drop(columns=["value", "low", "high"]), means)
        self._text.value = f"<h3>What differs</h3>{different}<h3>{found.metric.title}</h3>{effects}"
        show_picture(self._picture, found.picture)
        show_picture(self._seeds, found.seeds)

    def _chosen(self, _: object) -> None:
        self._export.disabled = not self.chosen
        if self.chosen:
            self._on_choice(self.chosen)
        else:
            self._text.value = paragraph(NOTHING_CHOSEN)
            show_picture(self._picture, None)
            show_picture(self._seeds, None)


class SweepTab:
    """Values of one knob race; `on_sweep` gets the knob with its values, as "margin=0.1,0.3"."""

    def __init__(self, knobs: Sequence[str], on_sweep: Callable[[str], None]) -> None:
        self._knob = widgets.Dropdown(
            options=[(name.replace("_", " "), name) for name in knobs], value="margin", layout={"width": "260px"},
            **name_with_tooltip("knob", "The setting to vary; all others are those of the knobs"),
        )  # fmt: skip
        self._values = widgets.Text(
            placeholder="0.1, 0.3, 1", layout={"width": "260px"},
            **name_with_tooltip("values", "Two or more values, separated by commas"),
        )  # fmt: skip
        self.run = widgets.Button(description="Sweep this knob", icon="play", button_style="primary")
        self.run.on_click(lambda _: on_sweep(f"{self._knob.value}={self._values.value}"))
        self._found: Swept | None = None
        self._text, self._picture, self._table = widgets.HTML(), new_image("760px"), widgets.HTML()
        self._text.value = paragraph(
            "This tab races values of a knob from scratch, on the same seeds and splits, by validation accuracy. Those "
            "that cannot be the best get no more seeds. The best is then judged on the test split with fresh seeds."
        )
        choice = widgets.HBox([self._knob, self._values, self.run], layout={"flex_flow": "row wrap"})
        self.widget = widgets.VBox([choice, self._text, self._picture, self._table])

    def show(self, found: Swept | None) -> None:
        """Show the result of a sweep, once."""
        if found is not None and found is not self._found:
            self._found = found
            self._text.value = paragraph(found.text, "headline")
            best = found.table["setting"].iloc[0]
            show_picture(
                self._picture, Picture(found.png, f"Differences of all settings to {best}, with intervals", 760)
            )
            points = found.table[["difference", "low", "high"]].map(lambda share: f"{100 * share:+.2f}")
            table = found.table.assign(**points).rename(columns={"difference": "difference, points"})
            self._table.value = html_table(table, ["validation_accuracy"])


class InsideTab:
    """One seed, with and without pre-training: the phrases near a question; `on_train` gets the seed to train."""

    def __init__(self, on_train: Callable[[int], None]) -> None:
        self._inside: Inside | None = None
        self._seed = widgets.BoundedIntText(description="seed", min=0, max=2**31 - 1, layout={"width": "160px"})
        self._train = widgets.Button(description="Train this seed", icon="play", button_style="primary")
        self._train.on_click(lambda _: on_train(self._seed.value))
        self._text = widgets.HTML()
        wide = {"width": "auto", "max_width": "780px"}
        self._triplet = widgets.Dropdown(layout=wide, **name_with_tooltip("triplet", "One of the validation split"))
        self._question = widgets.Text(description="or ask", placeholder="type your own question", layout=wide)
        self._answers = widgets.HTML()
        self._asking = widgets.VBox([self._triplet, self._question, self._answers], layout={"display": "none"})
        self.show_status(
            "This tab trains one seed with the settings on the left, once from scratch and once pre-trained. It then "
            "shows the phrases near a question."
        )
        self.widget = widgets.VBox([widgets.HBox([self._seed, self._train]), self._text, self._asking])
        self._triplet.observe(self._picked, "value")
        self._question.observe(self._asked, "value")

    def show_status(self, text: str, kind: str = "quiet", is_busy: bool = False) -> None:
        """Show how far the training is."""
        self._text.value = paragraph(text, kind)
        self._train.disabled = is_busy

    def show(self, inside: Inside) -> None:
        """Show a trained seed."""
        self._inside = inside
        accuracy = ", ".join(f"{arm} {value:.1%}" for arm, value in inside.accuracy.items())
        self.show_status(
            f"Seed {inside.seed}: right about {accuracy} of the validation triplets. One seed tells nothing about "
            f"others. {len(inside.phrases):,} phrases of the validation split are searched."
        )
        picked = inside.triplets.drop_duplicates("anchor").head(TRIPLETS_TO_PICK)
        self._triplet.options = [(_short(row.anchor), row.Index) for row in picked.itertuples()]
        self._triplet.index = 0
        self._asking.layout.display = "flex"
        self._asked()

    def _picked(self, _: object = None) -> None:
        if self._inside is None or self._triplet.value is None:
            return
        row = self._inside.triplets.loc[self._triplet.value]
        self._answer(self._inside, row["anchor"], {"✓ positive": row["positive"], "✗ negative": row["negative"]})

    def _asked(self, _: object = None) -> None:
        if self._inside is not None and self._question.value.strip():
            self._answer(self._inside, self._question.value, {})
        else:
            self._picked()

    def _answer(self, inside: Inside, question: str, known: Mapping[str, str]) -> None:
        marks = {phrase: mark for mark, phrase in known.items()}
        parts = [f"<h3>{escape(question)}</h3>"]
        if known:
            distances = inside.distances(question, list(known.values()))
            rows = [[mark, phrase, *(f"{distances[arm][place]:.3f}" for arm in distances)]
                    for place, (mark, phrase) in enumerate(known.items())]  # fmt: skip
            columns = ["of the triplet", "phrase", *(f"distance, {arm}" for arm in distances)]
            parts.append(html_table(pd.DataFrame(rows, columns=columns), are_texts=True))
        elif not any(model.knows(question) for model in inside.models.values()):
            parts.append(paragraph("The training set has none of these words: the order is arbitrary.", "wrong"))
        near = inside.nearest(question)
        side_by_side = "".join(
            f'<div style="flex: 1 1 300px"><h3>{escape(arm)}: nearest phrases</h3>'
            + html_table(
                found.assign(distance=found["distance"].map("{:.3f}".format), known=found["phrase"].map(marks))
                .rename(columns={"known": " "}), are_texts=True)
            + "</div>"
            for arm, found in near.items()
        )  # fmt: skip
        self._answers.value = (
            "".join(parts) + f'<div style="display: flex; flex-wrap: wrap; gap: 24px">{side_by_side}</div>'
        )


def _short(text: str, most: int = 90) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
