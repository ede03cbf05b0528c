"""Where the spread comes from, against planted parts."""

import numpy as np
import pandas as pd
import pytest

from rlm import explain
from rlm.errors import InputError
from rlm.stats.variance import decompose_spread


def planted(rng, seed, split, group, splits=40, seeds=5, groups=50):
    """Accuracies of groups, with three planted standard deviations; groups have 3 to 7 triplets."""
    rows = []
    for split_seed in range(splits):
        level, of_group = 0.65 + rng.normal(0, split), rng.normal(0, group, groups)
        triplets = rng.integers(3, 8, groups)
        for number in range(seeds):
            accuracy = level + of_group + rng.normal(0, seed)
            found = {"cluster": range(groups), "triplets": triplets, "test_accuracy": accuracy}
            rows.append(pd.DataFrame(found).assign(split_seed=split_seed, seed=number))
    return pd.concat(rows, ignore_index=True)


@pytest.mark.parametrize(
    ("seed", "split", "group", "largest"),
    [(0.03, 0.0, 0.05, "the seed"), (0.005, 0.04, 0.05, "the split"), (0.01, 0.0, 0.3, "the finite test set")],
)
def test_finds_the_planted_parts(seed, split, group, largest):
    found = decompose_spread(planted(np.random.default_rng(0), seed, split, group))
    sds = np.sqrt([part.value for part in found[:3]])
    # A weighted mean of groups with 3 to 7 triplets varies by this much less than a group.
    weights = np.arange(3, 8)
    test_set = group * np.sqrt(np.mean(weights**2) / np.mean(weights) ** 2 / 50)
    np.testing.assert_allclose(sds[[0, 2]], [seed, test_set], rtol=0.15)
    assert sds[1] == pytest.approx(split, abs=0.012)
    assert f"is {largest}" in explain.spread(found)
    for part in found[:3]:
        assert part.low <= part.value <= part.high


def test_the_table_has_shares_of_the_variance():
    found = decompose_spread(planted(np.random.default_rng(1), 0.02, 0.02, 0.2))
    table = found.table()
    for name, share in table["share"].items():
        assert found.shares[name].low <= share <= found.shares[name].high
    assert table["share"].sum() == pytest.approx(1)
    np.testing.assert_allclose(table["sd"] ** 2, [part.value for part in found[:3]])


@pytest.mark.parametrize(("splits", "seeds"), [(2, 5), (5, 1)])
def test_needs_splits_and_seeds(splits, seeds):
    with pytest.raises(InputError, match="at least 3 splits with the same number of seeds, 2 or more"):
        decompose_spread(planted(np.random.default_rng(0), 0.01, 0.01, 0.1, splits=splits, seeds=seeds))


def test_needs_as_many_seeds_of_every_split():
    groups = planted(np.random.default_rng(0), 0.01, 0.01, 0.1, splits=4)
    with pytest.raises(InputError, match="found 4, 5, 5, 5 seeds"):
        decompose_spread(groups[(groups["split_seed"] > 0) | (groups["seed"] > 0)])


def test_a_largest_part_is_named_only_where_it_is_certain():
    rng = np.random.default_rng(0)
    few = decompose_spread(planted(rng, 0.03, 0.0, 0.05, splits=3, seeds=10))
    assert "3 splits cannot tell which part is the largest" in explain.spread(few)
    equal = decompose_spread(planted(rng, 0.03, 0.03, 0.2, splits=12, seeds=10))
    assert "No part is certainly larger" in explain.spread(equal)


def test_a_failed_seed_counts_as_chance():
    groups = planted(np.random.default_rng(0), 0.02, 0.0, 0.05, splits=12)
    is_lost = (groups["split_seed"] == 0) & (groups["seed"] == 0)
    lost, chance = (
        groups.assign(test_accuracy=groups["test_accuracy"].mask(is_lost, value)) for value in (np.nan, 0.5)
    )
    assert decompose_spread(lost) == decompose_spread(chance)
