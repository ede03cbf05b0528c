"""Figures show the numbers that they are given."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer

from rlm import plots
from rlm.verdict import compare_all, summarise

ARMS = ["pretrained", "scratch", "pretrained_once"]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def results_of(seeds):
    rng = np.random.default_rng(0)
    rows = [(arm, seed, rng.uniform(0.4, 0.9)) for arm in ARMS for seed in range(seeds)]
    return pd.DataFrame(rows, columns=["arm", "seed", "test_accuracy"])


def history_of(seeds):
    rng = np.random.default_rng(0)
    rows = [(arm, seed, epoch, rng.random()) for arm in ARMS[:2] for seed in range(seeds) for epoch in range(5)]
    return pd.DataFrame(rows, columns=["arm", "seed", "epoch", "validation_accuracy"])


def pretraining_of(seeds):
    rng = np.random.default_rng(0)
    rows = [
        (encoder, seed, epoch, *rng.uniform(0.2, 0.9, 4))
        for encoder in ("lstm", "mean")
        for seed in range(seeds)
        for epoch in range(4)
    ]
    return pd.DataFrame(
        rows, columns=["encoder", "seed", "epoch", "loss", "seen_accuracy", "unseen_accuracy", "spread"]
    )


def curves_of(seeds=1):
    x = np.linspace(0, 1, 11)
    return pd.concat(
        pd.DataFrame({"arm": arm, "seed": seed, "false_positive_rate": x, "true_positive_rate": x ** (power + seed)})
        for arm, power in (("scratch", 0.7), ("pretrained", 0.4))
        for seed in range(seeds)
    )


DRAWN_ON_AXES = {
    "seeds": lambda seeds, ax: plots.seeds(results_of(seeds), summarise(results_of(seeds)), ax=ax),
    "learning curves": lambda seeds, ax: plots.learning_curves(history_of(seeds), ax=ax),
    "roc": lambda seeds, ax: plots.roc(curves_of(seeds), ax=ax),
}
on_axes = pytest.mark.parametrize("draw", DRAWN_ON_AXES.values(), ids=DRAWN_ON_AXES)


def points_of(lines):
    """Each line as its (x, y) points, so that lines can be counted and looked up."""
    return [tuple(zip(map(float, line.get_xdata()), map(float, line.get_ydata()), strict=True)) for line in lines]


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def band_edges(band):
    """Lowest and highest y of a filled band at every x."""
    vertices = pd.DataFrame(band.get_paths()[0].vertices, columns=["x", "y"])
    return vertices.groupby("x")["y"].agg(["min", "max"])


class TestAnyFigure:
    @on_axes
    @pytest.mark.parametrize("seeds", [1, 5])
    def test_draws_onto_the_axes_it_is_given_and_opens_no_figure(self, draw, seeds):
        ax = plt.subplots()[1]
        before = plt.get_fignums()
        assert draw(seeds, ax) is ax
        assert plt.get_fignums() == before
        assert ax.has_data()
        ax.figure.canvas.draw()

    @on_axes
    def test_opens_one_figure_by_default(self, draw):
        ax = draw(3, None)
        assert plt.get_fignums() == [ax.figure.number]

    @on_axes
    def test_names_what_it_shows(self, draw):
        ax = draw(3, None)
        ax.figure.canvas.draw()
        assert ax.get_ylabel()
        assert ax.get_xlabel() or all(tick.get_text() for tick in ax.get_xticklabels())
        assert legend_of(ax)

    def test_leaves_its_tables_as_they_were(self):
        calls = [
            (plots.seeds, results_of(4), summarise(results_of(4))),
            (plots.learning_curves, history_of(4)),
            (plots.pretraining, pretraining_of(4), 0.5),
            (plots.roc, curves_of()),
        ]
        for plot, *given in calls:
            before = [one.copy() if isinstance(one, pd.DataFrame) else one for one in given]
            plot(*given)
            for one, copy in zip(given, before, strict=True):
                if isinstance(one, pd.DataFrame):
                    pd.testing.assert_frame_equal(one, copy)


def test_an_arm_has_one_colour_in_every_figure():
    seeds = plots.seeds(results_of(4), summarise(results_of(4)))
    of_seeds = {}
    labels = [tick.get_text().replace(" ", "_").split("\n")[0] for tick in seeds.get_xticklabels()]
    for cloud in seeds.collections:
        if len(cloud.get_offsets()) == 4:
            of_seeds[labels[int(cloud.get_offsets()[0][0])]] = tuple(cloud.get_facecolor()[0][:3])
    curves = plots.learning_curves(history_of(3))
    of_curves = dict(zip((text.get_text() for text in curves.get_legend().get_texts()),
                         (line.get_color() for line in curves.get_legend().get_lines()), strict=True))  # fmt: skip
    roc = plots.roc(curves_of())
    of_roc = {line.get_label(): line.get_color() for line in roc.get_legend().get_lines()}
    for colours in (of_curves, of_roc):
        for arm in {"scratch", "pretrained"} & set(colours):
            assert tuple(matplotlib.colors.to_rgb(colours[arm])) == pytest.approx(of_seeds[arm])
        assert {"scratch", "pretrained"} <= set(colours)


class TestSeeds:
    def test_one_line_per_seed_joins_its_arms(self):
        results = results_of(6)
        ax = plots.seeds(results, summarise(results))
        wide = results.pivot(index="seed", columns="arm", values="test_accuracy")[ARMS]
        expected = [tuple(enumerate(values)) for values in wide.to_numpy()]
        assert sorted(points for points in points_of(ax.lines) if points in expected) == sorted(expected)
        joining = [p for p in points_of(ax.lines) if [x for x, _ in p] == [0, 1, 2]]
        assert len(joining) == 6

    def test_arms_stand_in_the_order_of_the_summary(self):
        results = results_of(4)
        summary = summarise(results).loc[["scratch", "pretrained_once", "pretrained"]]
        ax = plots.seeds(results.sample(frac=1, random_state=0), summary)
        labels = [tick.get_text().replace(" ", "_").split("\n")[0] for tick in ax.get_xticklabels()]
        assert labels == list(summary.index)
        dots = [cloud.get_offsets() for cloud in ax.collections if len(cloud.get_offsets()) == 4]
        assert len(dots) == 3
        for place, (arm, cloud) in enumerate(zip(summary.index, dots, strict=True)):
            assert set(cloud[:, 0]) == {place}
            assert sorted(cloud[:, 1]) == sorted(results.loc[results["arm"] == arm, "test_accuracy"])

    def test_means_and_error_bars_are_those_of_the_summary(self):
        results = results_of(6)
        summary = summarise(results)
        summary[["mean", "low", "high"]] = [[0.6, 0.5, 0.65], [0.7, 0.6, 0.9], [0.4, 0.3, 0.5]]  # drawn, not computed
        ax = plots.seeds(results, summary)
        (bars,) = [container for container in ax.containers if isinstance(container, ErrorbarContainer)]
        points, _, (segments,) = bars
        place, height = points.get_xydata().T
        np.testing.assert_allclose(height, summary["mean"])
        np.testing.assert_allclose([s[:, 1] for s in segments.get_segments()], summary[["low", "high"]])
        assert (np.round(place) == [0, 1, 2]).all()

    def test_marks_chance_where_it_is_near(self):
        results = results_of(6)
        ax = plots.seeds(results, summarise(results))
        (chance,) = [line for line in ax.lines if line.get_label() == "chance"]
        assert set(chance.get_ydata()) == {0.5}
        assert legend_of(ax) == ["chance", "mean, 95 % interval"] or legend_of(ax) == ["mean, 95 % interval", "chance"]

    def test_a_failed_seed_is_drawn_where_it_counts(self):
        results = results_of(6)
        results.loc[(results["arm"] == "scratch") & (results["seed"] == 2), "test_accuracy"] = np.nan
        ax = plots.seeds(results, summarise(results))
        place = list(summarise(results).index).index("scratch")
        assert any((place, 0.5) in map(tuple, cloud.get_offsets()) for cloud in ax.collections)
        assert "failed: counts as 50.0%" in legend_of(ax)

    @pytest.mark.parametrize("limits", [(0.47, 0.66), (0.1, 0.9), (0.62, 0.631)])
    def test_ticks_say_where_they_are(self, limits):
        ax = plots.seeds(results_of(6), summarise(results_of(6)))
        ax.set_ylim(*limits)
        ax.figure.canvas.draw()
        for tick, label in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True):
            assert float(label.get_text().rstrip("%")) == pytest.approx(100 * tick)

    def test_a_seed_that_one_arm_lacks_is_drawn_all_the_same(self):
        results = results_of(3).iloc[1:]
        ax = plots.seeds(results, summarise(results))
        assert len([p for p in points_of(ax.lines) if [x for x, _ in p] == [0, 1, 2]]) == 2
        rest = tuple(zip([1, 2], results.loc[results["seed"] == 0, "test_accuracy"], strict=True))
        assert rest in points_of(ax.lines)


class TestLearningCurves:
    def test_draws_the_median_with_bands_of_half_and_nine_tenths_of_the_seeds(self):
        history = history_of(9)
        ax = plots.learning_curves(history)
        by_epoch = history.groupby(["arm", "epoch"])["validation_accuracy"]
        bands = [band_edges(band) for band in ax.collections]
        assert len(bands) == 4
        for arm in ("pretrained", "scratch"):
            median = tuple(by_epoch.median()[arm].items())
            assert median in points_of(ax.lines)
            for tail in (0.05, 0.25):
                low, high = by_epoch.quantile(tail)[arm], by_epoch.quantile(1 - tail)[arm]
                assert any(np.allclose(band["min"], low) and np.allclose(band["max"], high) for band in bands)

    def test_one_seed_is_drawn_as_it_is(self):
        history = history_of(1)
        lines = points_of(plots.learning_curves(history).lines)
        for _, run in history.groupby("arm"):
            assert tuple(zip(run["epoch"], run["validation_accuracy"], strict=True)) in lines

    def test_legend_names_the_arms_in_their_order(self):
        assert legend_of(plots.learning_curves(history_of(3))) == ARMS[:2]

    @pytest.mark.parametrize(("seeds", "said"), [(3, "median; half, and nine tenths, of the seeds"), (1, "")])
    def test_legend_tells_what_the_bands_are(self, seeds, said):
        assert plots.learning_curves(history_of(seeds)).get_legend().get_title().get_text() == said


class TestSequence:
    def test_the_last_look_is_drawn_with_its_interval_even_if_it_is_the_only_one(self):
        pairs = pd.DataFrame({"arm": ARMS[1], "pairs": np.arange(1, 11), "value": np.linspace(-1, 2, 10)})
        look = pd.DataFrame({"arm": [ARMS[1]], "pairs": 10, "value": 0.5, "low": -0.75, "high": 1.75})
        ax = plots.sequence(pairs, look, ARMS[1:2], "points above scratch", plots.new_axes(4, 4))
        (bar,) = [one for one in ax.collections if hasattr(one, "get_segments")]
        assert bar.get_segments()[0].tolist() == [[10, -0.75], [10, 1.75]]
        assert ((10.0, 0.5),) in points_of(ax.lines)


class TestPretraining:
    def test_draws_means_over_seeds_with_their_range(self):
        history = pretraining_of(5)
        axes = plots.pretraining(history, margin=0.7)
        panels = [["loss"], ["seen_accuracy", "unseen_accuracy"], ["spread"]]
        for ax, columns in zip(axes, panels, strict=True):
            lines, bands = points_of(ax.lines), [band_edges(band) for band in ax.collections]
            for (_, runs), column in [(group, column) for group in history.groupby("encoder") for column in columns]:
                by_epoch = runs.groupby("epoch")[column]
                drawn = [line for line in lines if len(line) == 4 and np.allclose(line, list(by_epoch.mean().items()))]
                assert len(drawn) == 1
                assert any(
                    np.allclose(b["min"], by_epoch.min()) and np.allclose(b["max"], by_epoch.max()) for b in bands
                )

    def test_marks_where_a_collapsed_encoder_ends(self):
        axes = plots.pretraining(pretraining_of(2), margin=0.7)
        for ax, level in zip(axes[:2], (0.7, 0.5), strict=True):
            assert any(len(line) == 2 and {y for _, y in line} == {level} for line in points_of(ax.lines))

    @pytest.mark.parametrize("seeds", [1, 3])
    def test_titles_and_legend_say_what_is_what(self, seeds):
        axes = plots.pretraining(pretraining_of(seeds), margin=0.7)
        figure = axes[0].figure
        figure.canvas.draw()
        assert all(ax.get_xlabel() and ax.get_title() for ax in axes)
        (legend,) = figure.legends
        labels = " ".join(text.get_text() for text in legend.get_texts())
        for word in ("lstm", "mean", "unseen", "margin = 0.7", "chance"):
            assert word in labels

    def test_histories_are_told_apart_by_any_column(self):
        history = pretraining_of(2).rename(columns={"encoder": "redraw"}).replace({"lstm": "epoch", "mean": "once"})
        labels = [text.get_text() for text in plots.pretraining(history, 0.5, hue="redraw")[0].figure.legends[0].texts]
        assert {"epoch", "once"} <= set(labels)
        assert "redraw" not in labels


class TestRoc:
    def test_draws_every_curve_and_chance(self):
        curves = curves_of(seeds=2)
        ax = plots.roc(curves)
        assert legend_of(ax) == ["scratch", "pretrained", "chance"]
        for _, curve in curves.groupby(["arm", "seed"]):
            points = tuple(zip(curve["false_positive_rate"], curve["true_positive_rate"], strict=True))
            assert points in points_of(ax.lines[:4])
        assert (ax.get_xlim(), ax.get_ylim()) == ((0, 1), (0, 1))

    def test_keeps_vertical_steps(self):
        steps = pd.DataFrame(
            {
                "arm": "scratch",
                "seed": 0,
                "false_positive_rate": [0, 0, 0.5, 1],
                "true_positive_rate": [0.0, 0.8, 0.8, 1],
            }
        )
        assert points_of(plots.roc(steps).lines)[0] == ((0, 0), (0, 0.8), (0.5, 0.8), (1, 1))


class TestDifferences:
    def drawn(self, verdicts):
        """Read back the value and the interval of every row from the picture."""
        ax = plots.differences(verdicts)
        rows = []
        for bars in (one for one in ax.containers if isinstance(one, ErrorbarContainer)):
            segments = bars.lines[2][0].get_segments() if bars.has_xerr else []
            ends = segments[0][:, 0] if len(segments) else [np.nan, np.nan]
            rows.append((float(bars.lines[0].get_xdata()[0]), *map(float, ends)))
        return ax, np.array(rows) / 100

    @pytest.mark.parametrize("watched", [False, True, (10, 15)])
    def test_shows_the_interval_and_the_decision_of_every_verdict(self, watched):
        rng = np.random.default_rng(0)
        scratch = rng.normal(0.7, 0.02, 15)
        effects = {"helpful": 0.03, "idle": 0.0, "harmful": -0.03}
        arms = {"scratch": scratch} | {arm: scratch + e + rng.normal(0, 0.005, 15) for arm, e in effects.items()}
        parts = [pd.DataFrame({"arm": arm, "seed": range(15), "test_accuracy": v}) for arm, v in arms.items()]
        verdicts = compare_all(pd.concat(parts, ignore_index=True), watched=watched)
        ax, rows = self.drawn(verdicts)
        np.testing.assert_allclose(rows, [tuple(found.judged) for found in verdicts.values()], atol=1e-12)
        labels = [label.get_text() for label in ax.get_yticklabels()]
        assert labels == [f"{arm}\n{found.decision}" for arm, found in verdicts.items()]
        assert "the same, within 1 point" in [text.get_text() for text in ax.get_legend().get_texts()]

    def test_a_verdict_without_an_interval_is_a_point(self):
        results = pd.DataFrame([(a, s, 0.6) for a in ("scratch", "tied") for s in range(12)]).set_axis(
            ["arm", "seed", "test_accuracy"], axis=1
        )
        _, rows = self.drawn(compare_all(results))
        np.testing.assert_array_equal(rows, [[0, np.nan, np.nan]])

    def test_too_few_seeds_are_a_point_although_they_have_an_interval(self):
        verdicts = compare_all(results_of(5))
        assert np.isfinite([found.judged.low for found in verdicts.values()]).all()
        ax, rows = self.drawn(verdicts)
        assert np.isfinite(rows[:, 0]).all()
        assert np.isnan(rows[:, 1:]).all()
        assert legend_of(ax) == ["the same, within 1 point"]
