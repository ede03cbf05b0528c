"""
Write docs/calibration.md and its figure from what benchmarks.calibration measured.

python -m benchmarks.calibration_page
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from jinja2 import Template
from matplotlib.ticker import PercentFormatter

from rlm.runtime.atomic import write_whole

SOURCE = Path("docs/benchmarks/calibration.json")
TEMPLATE = Path(__file__).with_name("calibration.md.jinja")
PAGE = Path("docs/calibration.md")
FIGURE = Path("docs/calibration.png")


def percent(table: pd.DataFrame, columns: list[str]) -> str:
    shown = table.copy()
    shown[columns] = shown[columns].map(lambda share: "" if pd.isna(share) else f"{share:.1%}")
    return shown.to_markdown(index=False)


def draw(null: pd.DataFrame, planted: pd.DataFrame) -> None:
    sns.set_theme(style="ticks")
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    shared = {"x": "pairs", "hue": "accuracies", "style": "accuracies", "markers": True, "palette": "colorblind"}
    sns.lineplot(null, y="false verdicts", ax=axes[0], **shared)
    axes[0].axhline(0.05, color="0.35", linestyle=":", linewidth=1)
    axes[0].set(title="no effect: helps or hurts, wrongly", ylim=(0, 0.08))
    planted = planted.assign(planted=planted["effect"].map("{:.0%}".format))
    sns.lineplot(planted, x="pairs", y="helps", hue="accuracies", style="planted", palette="colorblind", ax=axes[1])
    axes[1].set(title="planted effect found", ylim=(0, 1.02))
    for ax in axes:
        ax.set_xticks([10, 20, 40])
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.set(ylabel="")
        sns.move_legend(ax, "center left", bbox_to_anchor=(1, 0.5), frameon=False, title="")
    figure.savefig(FIGURE, dpi=110)


def main() -> None:
    kept = json.loads(SOURCE.read_text(encoding="utf-8"))
    fixed = pd.DataFrame(kept["fixed"]).rename(columns={"shape": "accuracies"})
    fixed["false verdicts"] = fixed["helps"] + fixed["hurts"]
    is_unlike = fixed["accuracies"].str.contains(" against ") | fixed["made"]
    covered = {
        "difference": "mean difference",
        "mean": "mean",
        "ratio": "ratio of variances",
        "improvement": "improvement",
    }
    null = fixed[(fixed["effect"] == 0) & ~is_unlike].rename(columns=covered)
    planted = fixed[(fixed["effect"] > 0) & ~is_unlike]
    unlike, made = (fixed[is_unlike & (fixed["made"] == is_made)].rename(columns=covered) for is_made in (False, True))
    power = planted.pivot(index=["accuracies", "effect"], columns="pairs", values=["helps", "t test"]).reset_index()
    power.columns = [name if not size else f"{size} pairs{', t' * (name == 't test')}" for name, size in power.columns]
    power["effect"] = power["effect"].map("{:.0%}".format)
    watched = pd.DataFrame(kept["watched"]).rename(columns={"shape": "accuracies", "ever_excluded": "ever excluded"})
    halves = [column for column in watched if column.startswith("half_width")]
    watched["half-width over SD"] = [
        ", ".join(f"{row[half] / row['sd']:.2f}" for half in halves) for _, row in watched.iterrows()
    ]
    draw(null, planted)
    shares = ["false verdicts", *covered.values()]
    percents = {
        "arms": ["false", "found", "each holds", "all hold", "contradictions"],
        "planned": ["planned", "sequence", "fixed"],
        "same": ["found", "wrong"],
    }
    more = {
        name: percent(pd.DataFrame(kept[name]).rename(columns={"shape": "accuracies"}), columns)
        for name, columns in percents.items()
    }
    page = Template(TEMPLATE.read_text(encoding="utf-8")).render(
        kept | more,
        scipy=kept["versions"]["scipy"],
        null=percent(null[["accuracies", "pairs", *shares]], shares),
        power=percent(power, [column for column in power if " pairs" in column]),
        unlike=percent(unlike[["accuracies", "pairs", *shares]], shares),
        made=percent(made[["accuracies", "pairs", *shares]], shares),
        watched=percent(watched[["accuracies", "ever excluded", "half-width over SD"]], ["ever excluded"]),
    )
    write_whole(PAGE, page + "\n")


if __name__ == "__main__":
    main()
