"""A sweep: settings race on the same seeds and splits; the best is then judged alone, on fresh seeds and the test."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from pydantic import ValidationError

from rlm.config import StudyConfig
from rlm.errors import InputError
from rlm.sentences import count
from rlm.stats.anytime import confidence_sequence
from rlm.stats.estimates import FEWEST_PAIRS, mean_with_interval
from rlm.stats.judging import find_beaten, race_level
from rlm.stats.metrics import count_failed
from rlm.stats.tables import arrange_by_seed
from rlm.study import run_study
from rlm.variants import Arm, parse_arm

STEP = 5  # seeds between two looks
DROPPED, LEFT, BEST = "dropped", "not distinguishable from the best", "best so far"


class Sweep(NamedTuple):
    """
    Result of a sweep.

    Attributes
    ----------
    table
        One row per setting, the best first: seeds, validation_accuracy (mean), difference to the best with its
        confidence sequence (low, high), result, worse_than (for a dropped setting, one that is certainly better).
    race
        Runs of the race, see `rlm.run_study`; the arm is the setting.
    fresh
        Runs of the best setting alone, with seeds that the race did not use.
    planned
        Runs of all settings with all seeds, which a race saves some of.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> runs = {"arm": "dim=8", "seed": range(3), "validation_accuracy": 0.75, "test_accuracy": 0.7}
    >>> table = pd.DataFrame({"result": ["best so far"]}, index=["dim=8"]).assign(seeds=3, validation_accuracy=0.75)
    >>> rlm.systems.Sweep(table, pd.DataFrame(runs), pd.DataFrame(runs), 3).best
    'dim=8'
    """

    table: pd.DataFrame
    race: pd.DataFrame
    fresh: pd.DataFrame
    planned: int

    @property
    def best(self) -> str:
        """The setting with the best mean validation accuracy in the race."""
        return str(self.table.index[0])

    @property
    def text(self) -> str:
        """The settings that may be the best, and what the best looked like and is."""
        left, one = self.table.index[self.table["result"] != DROPPED], self.table.iloc[0]
        said = f"{self.best} is the best of {len(self.table)} settings, with 95 % confidence"
        if len(left) > 1:
            said = (
                f"{len(left)} of {len(self.table)} settings are not distinguishable from the best, and contain it with "
                f"95 % confidence: {'; '.join(left)}"
            )
        validation, test = (
            mean_with_interval(count_failed(self.fresh, name)[name].to_numpy(), 0, 1)
            for name in ("validation_accuracy", "test_accuracy")
        )
        return (
            f"{said} (by validation accuracy, up to {count(int(one['seeds']), 'seed')}). The race took "
            f"{len(self.race):,} of {self.planned:,} runs. In the race the accuracy of {self.best} was "
            f"{one['validation_accuracy']:.1%} on the validation split, by which it was chosen. With "
            f"{count(len(self.fresh), 'fresh seed')}, it is {test.format(100, unit='%')} on the test split "
            f"({validation.value:.1%} on the validation split)."
        )


def sweep(
    config: StudyConfig,
    vary: Mapping[str, Sequence[object]],
    seeds: int = 30,
    *,
    start: Arm = "scratch",
    fresh_seeds: int = FEWEST_PAIRS,
    data: pd.DataFrame | None = None,
    db: Path | str | None = None,
    n_jobs: int = -1,
    progress: bool = True,
) -> Sweep:
    """
    Race all combinations of settings by validation accuracy, then judge the best one alone.

    Parameters
    ----------
    config
        What to study; its arms make no difference.
    vary
        Values by the name of a setting of encoder or training. All combinations are raced.
    seeds
        Most seeds of a setting. After 10, and every 5 more, settings that cannot be the best any more are dropped.
    start
        Arm that all settings share.
    fresh_seeds
        Number of other seeds to judge the best setting with.
    data, db, n_jobs, progress
        As in `rlm.run_study`; with a store, the same call continues a sweep that was stopped.

    Returns
    -------
    Sweep
        The race, its result and the runs with fresh seeds.

    Raises
    ------
    InputError
        If there are fewer than two settings, or fewer than 10 seeds, or as in `rlm.run_study`.

    Notes
    -----
    The set of settings that are left contains the truly best one in at least 95 % of sweeps, see docs/sweep.md.

    Examples
    --------
    >>> import rlm
    >>> config = rlm.StudyConfig(encoder="mean", word_dim=2, max_epochs=0, negatives=1)
    >>> found = rlm.systems.sweep(config, {"dim": [2, 4]}, 10, fresh_seeds=2, n_jobs=1, progress=False)
    >>> len(found.race), len(found.fresh)
    (20, 2)
    """
    named = [[f"{name}={'none' if value is None else value}" for value in values] for name, values in vary.items()]
    arms = tuple(dict.fromkeys(parse_arm(", ".join([start, *one])).label for one in product(*named)))
    if len(arms) < 2 or seeds < FEWEST_PAIRS or fresh_seeds < 1:
        raise InputError(
            f"expected at least 2 settings, {FEWEST_PAIRS} seeds and a fresh one, found {len(arms)}, {seeds} and "
            f"{fresh_seeds}; vary a setting over more values"
        )
    try:
        config = StudyConfig.model_validate(dict(config) | {"arms": arms})
    except ValidationError as error:
        raise InputError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
    settings = {"data": data, "db": db, "watched": True, "n_jobs": n_jobs, "progress": progress}
    tables = []

    def train(arms: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
        asked = config.model_copy(update={"arms": tuple(arms)})
        tables.append(run_study(asked, seeds, baseline=arms[0], **settings))
        if len(tables[-1]) < len(arms) * len(seeds):
            raise KeyboardInterrupt  # which ended the study; a race takes all runs of a look
        return arrange_by_seed(count_failed(tables[-1], "validation_accuracy"), "validation_accuracy")

    beaten, by_seed = race(arms, seeds, train)
    table = _tabulate(by_seed, beaten)
    train(table.index[:1].tolist(), range(seeds, seeds + fresh_seeds))
    *raced, fresh = tables
    return Sweep(table, pd.concat(raced, ignore_index=True), fresh, len(arms) * seeds)


def race(
    arms: Sequence[str], seeds: int, train: Callable[[Sequence[str], Sequence[int]], pd.DataFrame]
) -> tuple[dict[str, str], pd.DataFrame]:
    """Return what each dropped setting is worse than, and accuracies by seed; `train` gives those of new runs."""
    left, by_seed = list(arms), pd.DataFrame(columns=list(arms), dtype=float)
    beaten: dict[str, str] = {}
    for look in [*range(FEWEST_PAIRS, seeds, STEP), seeds]:
        found = train(left, range(len(by_seed), look))
        by_seed = found if by_seed.empty else pd.concat([by_seed, found])
        beaten |= find_beaten(by_seed[left], len(arms))
        left = [arm for arm in left if arm not in beaten]
        if len(left) == 1:
            break
    return beaten, by_seed[list(arms)]


def _tabulate(by_seed: pd.DataFrame, beaten: Mapping[str, str]) -> pd.DataFrame:
    """Describe every setting, and its difference to the best of those that are left."""
    means = by_seed.mean()
    best = means.drop(list(beaten)).idxmax()
    order = sorted(by_seed, key=lambda arm: (arm != best, arm in beaten, -means[arm]))
    level, rows = race_level(by_seed.shape[1]), {}
    for arm in order:
        differences = (by_seed[arm] - by_seed[best]).dropna().to_numpy()
        value, low, high = (0.0, 0.0, 0.0) if arm == best else confidence_sequence(differences).interval(level, -1, 1)
        result = BEST if arm == best else DROPPED if arm in beaten else LEFT
        rows[arm] = (by_seed[arm].count(), means[arm], value, low, high, result, beaten.get(arm, ""))
    columns = ["seeds", "validation_accuracy", "difference", "low", "high", "result", "worse_than"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("setting")
