"""
How often the verdict is wrong: simulated studies with known truth, from accuracies of real runs.

python -m benchmarks.calibration --pools docs/benchmarks/pools.csv --out docs/benchmarks/calibration.json
"""

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from scipy import stats

from rlm.runtime.atomic import write_whole
from rlm.runtime.provenance import commit, versions
from rlm.stats.anytime import confidence_sequence
from rlm.stats.estimates import LEVEL, MeanTest, mean_with_interval, proportion, ratio_of_variances
from rlm.stats.judging import judge
from rlm.stats.metrics import find_metric
from rlm.stats.planned import PlannedLooks
from rlm.verdict import compare

PAIRS = (10, 20, 40)
ARMS = (2, 4, 6)
PLANNED = (10, 20, 30, 40)
EFFECTS = (0.0, 0.01, 0.02, 0.05)
LOOKS = 200
ACCURACY = find_metric("test_accuracy")
Draw = Callable[[np.random.Generator, int], np.ndarray]


def smoothed(pool: np.ndarray) -> Draw:
    """Draw from real accuracies, blurred so that no two pairs tie by chance alone."""
    width = 0.2 * pool.std(ddof=1)

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        return rng.choice(pool, size) + rng.normal(0, width, size)

    return draw


def ordinary(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.normal(0.7, 0.02, size)


def failing(share: float) -> Draw:
    """Draw accuracies of which this share are failures, at chance."""

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        return np.where(rng.random(size) < share, 0.5, ordinary(rng, size))

    return draw


# Nothing but shapes on which tests of the mean are known to fail; treated and control.
MADE: dict[str, tuple[Draw, Draw]] = {
    "t with 3 degrees of freedom": (lambda rng, size: 0.7 + 0.02 * rng.standard_t(3, size), ordinary),
    "at the ceiling": (lambda rng, size: rng.beta(199, 1, size), lambda rng, size: rng.normal(0.97, 0.0005, size)),
    "lognormal differences": (
        lambda rng, size: 0.65 + 0.01 * rng.lognormal(0, 1, size),
        lambda rng, size: rng.normal(0.65, 0.0001, size),
    ),
} | {f"{share:.0%} failures in one arm": (failing(share), ordinary) for share in (0.05, 0.1, 0.2)}


def moments(draw: Draw) -> tuple[float, float]:
    values = draw(np.random.default_rng(0), 1_000_000)
    return float(values.mean()), float(values.var())


def study(scratch: np.ndarray, pretrained: np.ndarray) -> pd.DataFrame:
    arms = {"scratch": scratch, "pretrained": pretrained}
    parts = [pd.DataFrame({"arm": arm, "seed": range(len(v)), "test_accuracy": v}) for arm, v in arms.items()]
    return pd.concat(parts, ignore_index=True)


def fixed_cell(name: str, treated: Draw, control: Draw, pairs: int, effect: float, studies: int) -> dict:
    """Studies of this many pairs, looked at once. Without an effect both arms have the same mean."""
    (mean, variance), (base, base_variance) = moments(treated), moments(control)
    rng = np.random.default_rng([pairs, int(1000 * effect)])
    counted = dict.fromkeys(["helps", "hurts", "t test", "difference", "mean", "ratio", "improvement"], 0)
    more = treated(rng, 500_000) - mean + effect > control(rng, 500_000) - base
    for _ in range(studies):
        scratch, pretrained = control(rng, pairs), treated(rng, pairs) - mean + base + effect
        differences = pretrained - scratch
        (judged,) = judge({"pretrained": differences}).values()
        difference, decision = judged.difference, judged.decide(ACCURACY)
        counted["t test"] += stats.ttest_1samp(differences, 0).pvalue < LEVEL
        counted["helps"] += decision == "helps"
        counted["hurts"] += decision == "hurts"
        counted["difference"] += not difference.excludes(effect)
        if not effect:  # the same arm whatever the other's effect
            counted["mean"] += not mean_with_interval(scratch, 0.0, 1.0).excludes(base)
        counted["ratio"] += not ratio_of_variances(pretrained, scratch)[0].excludes(variance / base_variance)
        counted["improvement"] += not proportion(int((differences > 0).sum()), pairs).excludes(float(more.mean()))
    shares = {key: count / studies for key, count in counted.items()}
    return {"shape": name, "pairs": pairs, "effect": effect} | shares | ({"mean": np.nan} if effect else {})


def watched_cell(name: str, treated: Draw, control: Draw, studies: int) -> dict:
    """Studies that somebody looks at after every pair."""
    mean, base = moments(treated)[0], moments(control)[0]
    rng = np.random.default_rng(0)
    excluded, widths, spread = 0, [], []
    for _ in range(studies):
        differences = treated(rng, LOOKS) - mean - control(rng, LOOKS) + base
        sequence = confidence_sequence(differences)
        table = sequence.table.set_index("pairs")
        excluded += bool(((table["low"] > 0) | (table["high"] < 0)).any())
        widths.append((table["high"] - table["low"])[[20, 40, 100, 200]] / 2)
        spread.append(differences.std())
    half = pd.concat(widths, axis=1).median(axis=1)
    return {"shape": name, "ever_excluded": excluded / studies, "sd": float(np.mean(spread))} | {
        f"half_width_{pairs}": float(value) for pairs, value in half.items()
    }


def arms_cell(name: str, draw: Draw, pairs: int, arms: int, planted: int, studies: int) -> dict:
    """Studies of several arms against one baseline, of which the first few have an effect of 3.5 standard errors."""
    rng, spread = np.random.default_rng([pairs, arms, planted]), (2 * moments(draw)[1]) ** 0.5
    truth = np.where(np.arange(arms) < planted, 3.5 * spread / pairs**0.5, 0.0)
    counted = dict.fromkeys(["false", "found", "each holds", "all hold", "contradictions"], 0.0)
    for _ in range(studies):
        control = draw(rng, pairs)
        judged = judge({arm: draw(rng, pairs) + truth[arm] - control for arm in range(arms)})
        excluded = [one.difference.excludes(0) for one in judged.values()]
        holds = [not one.difference.excludes(truth[arm]) for arm, one in judged.items()]
        counted["false"] += any(excluded[planted:])
        counted["found"] += np.mean(excluded[:planted]) if planted else np.nan
        counted["each holds"] += np.mean(holds)
        counted["all hold"] += all(holds)
        counted["contradictions"] += any(
            (one.p < LEVEL) != is_out for one, is_out in zip(judged.values(), excluded, strict=True)
        )
    shares = {key: count / studies for key, count in counted.items()}
    return {"shape": name, "pairs": pairs, "arms": arms, "with an effect": planted} | shares


def planned_cell(name: str, treated: Draw, control: Draw, effect: float, studies: int) -> dict:
    """Studies that are looked at as planned and stop once decided; the effect is in standard deviations."""
    (mean, variance), (base, base_variance) = moments(treated), moments(control)
    rng, spread = np.random.default_rng(int(10 * effect)), (variance + base_variance) ** 0.5
    counted = dict.fromkeys(["planned", "sequence", "fixed"], 0)
    pairs = []
    for _ in range(studies):
        differences = treated(rng, PLANNED[-1]) - mean - control(rng, PLANNED[-1]) + base + effect * spread
        differences = differences.clip(-1, 1)  # as far apart as accuracies can be
        ends = [PlannedLooks(differences[:look], PLANNED).interval(LEVEL) for look in PLANNED]
        pairs.append(next((n for n, end in zip(PLANNED, ends, strict=True) if end.excludes(0)), PLANNED[-1]))
        counted["planned"] += ends[-1].excludes(0)
        counted["sequence"] += confidence_sequence(differences).last.excludes(0)
        counted["fixed"] += MeanTest(differences, reach=1).interval().excludes(0)
    shares = {key: count / studies for key, count in counted.items()}
    return {"shape": name, "effect": effect} | shares | {"mean pairs": float(np.mean(pairs))}


def same_cell(name: str, treated: Draw, control: Draw, pairs: int, studies: int) -> dict:
    """How often two arms are called the same: at no difference, and wrongly at the difference that counts as one."""
    (mean, variance), (base, base_variance) = moments(treated), moments(control)
    rng, within = np.random.default_rng(pairs), 3.3 * ((variance + base_variance) / pairs) ** 0.5
    counted = {0.0: 0, 1.0: 0}
    for _ in range(studies):
        differences = treated(rng, pairs) - mean - control(rng, pairs) + base
        for place in counted:
            (judged,) = judge({"pretrained": differences + place * within}).values()
            counted[place] += judged.difference.is_within(within)
    return {"shape": name, "pairs": pairs, "found": counted[0.0] / studies, "wrong": counted[1.0] / studies}


def aa_studies(pool: np.ndarray, pairs: int, studies: int) -> dict:
    """Scratch against scratch: real runs dealt to two arms at random, as often as they are dealt out."""
    rng = np.random.default_rng(0)
    per_deal = len(pool) // (2 * pairs)
    decisions = []
    while len(decisions) < studies:
        dealt = rng.permutation(pool)[: per_deal * 2 * pairs].reshape(per_deal, 2, pairs)
        decisions += [compare(study(*both)).decision for both in dealt]
    false = sum(decision in ("helps", "hurts") for decision in decisions[:studies])
    low, high = stats.binomtest(false, studies).proportion_ci(0.95, "exact")
    return {
        "runs": len(pool),
        "pairs": pairs,
        "studies": studies,
        "false": false,
        "low": float(low),
        "high": float(high),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", type=Path, default=Path("docs/benchmarks/pools.csv"), help="accuracies of real runs")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/calibration.json"))
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies a cell")
    parser.add_argument("--jobs", type=int, default=-1)
    asked = parser.parse_args()
    pools = pd.read_csv(asked.pools)
    shapes = {name: smoothed(runs["test_accuracy"].to_numpy()) for name, runs in pools.groupby("pool", sort=False)}
    # Some runs learn, some get nowhere: as an encoder has it that now and then fails.
    one, skewed = (shapes[name] for name in ("one-humped", "skewed"))
    shapes["two-humped"] = lambda rng, size: np.where(rng.random(size) < 0.3, skewed(rng, size), one(rng, size))
    same = {name: (draw, draw) for name, draw in shapes.items()}
    names = list(shapes)
    # The hard case: both arms have the same mean, but not the same shape.
    unlike = {f"{a} against {b}": (shapes[a], shapes[b]) for a, b in zip(names, names[1:] + names[:1], strict=True)}
    cells = [(name, *arms, n, effect) for name, arms in same.items() for n in PAIRS for effect in EFFECTS]
    cells += [(name, *arms, n, 0.0) for name, arms in (unlike | MADE).items() for n in PAIRS]
    run = joblib.Parallel(n_jobs=asked.jobs, verbose=10)
    # How often a planted effect is found need not be known as well as how often nothing is.
    sizes = [asked.studies // 4 if cell[-1] else asked.studies for cell in cells]
    fixed = pd.DataFrame(run(joblib.delayed(fixed_cell)(*cell, size) for cell, size in zip(cells, sizes, strict=True)))
    watched = pd.DataFrame(
        run(joblib.delayed(watched_cell)(name, *arms, asked.studies // 2) for name, arms in (same | unlike).items())
    )
    few = asked.studies // 2
    several = [(name, n, arms, planted) for name in names[:2] for n in PAIRS for arms in ARMS for planted in (0, 1)]
    arms_found = pd.DataFrame(run(joblib.delayed(arms_cell)(name, shapes[name], *more, few) for name, *more in several))
    both = (same | unlike | MADE).items()
    planned = pd.DataFrame(
        run(joblib.delayed(planned_cell)(name, *arms, effect, few) for name, arms in both for effect in (0.0, 0.5))
    )
    alike = pd.DataFrame(run(joblib.delayed(same_cell)(name, *arms, n, few) for name, arms in both for n in PAIRS))
    aa = aa_studies(pools.loc[pools["pool"] == names[0], "test_accuracy"].to_numpy(), 20, 40)
    fixed["made"] = fixed["shape"].isin(MADE)
    print(fixed.to_string(index=False, float_format="{:.3f}".format), "\n")
    print(watched.to_string(index=False, float_format="{:.3f}".format), "\n")
    for table in (arms_found, planned, alike):
        print(table.to_string(index=False, float_format="{:.3f}".format), "\n")
    print(
        f"A/A, {aa['runs']} real runs of {names[0]}: {aa['false']} false verdicts in {aa['studies']} studies "
        f"of {aa['pairs']} pairs"
    )
    kept = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"python -m benchmarks.calibration --studies {asked.studies}",
        "versions": versions(),
        "commit": commit(),
        "studies": asked.studies,
        "fixed": fixed.to_dict("records"),
        "watched": watched.to_dict("records"),
        "arms": arms_found.to_dict("records"),
        "planned": planned.to_dict("records"),
        "same": alike.to_dict("records"),
        "aa": aa,
    }
    write_whole(asked.out, json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
