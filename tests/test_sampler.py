"""Samplers and the named random streams they draw from."""

import itertools
import tracemalloc
from collections import Counter
from functools import partial

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy.stats import chi2_contingency, chisquare

from rlm.sampler import RandomTriplets, RealTriplets, triplets_per_pair
from rlm.seeding import STREAMS, stream
from rlm.slicer import Components

REPEATED = Components(
    np.array([0, 0, 0, 1, 2, 2, 3], np.int32),
    np.array([10, 11, 11, 11, 12], np.int32),
    np.array([20, 21, 22, 22, 22, 22, 23, 24], np.int32),
)

THIRTY = np.arange(90, dtype=np.int32).reshape(30, 3)


def splitmix64(state):
    """The published generator, in integers of any size: Steele, Lea and Flood, OOPSLA 2014."""
    mask = 2**64 - 1
    while True:
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield z ^ (z >> 31)


def all_of(source, epoch, chunk=7):
    return np.concatenate(list(source.epoch(epoch, chunk)))


def multiset(triplets):
    return sorted(map(tuple, triplets.tolist()))


class TestStream:
    def test_same_arguments_same_numbers(self):
        for name in STREAMS:
            assert (stream(7, name, 2).random(5) == stream(7, name, 2).random(5)).all()

    def test_seed_name_and_keys_each_change_the_numbers(self):
        keys = itertools.product(range(5), STREAMS, [(), (0,), (1,), (0, 0), (0, 1)])
        first = [int(stream(seed, name, *more).integers(2**63)) for seed, name, more in keys]
        assert len(set(first)) == len(first)

    def test_streams_of_a_seed_and_of_neighbouring_seeds_are_uncorrelated(self):
        draws = [stream(seed, name).random(2000) for seed in range(4) for name in STREAMS]
        correlation = np.corrcoef(draws)[np.triu_indices(len(draws), 1)]
        assert abs(correlation).max() < 4.5 / np.sqrt(2000)

    def test_unknown_name_is_refused(self):
        with pytest.raises(ValueError, match="unknown random stream 'dropuot'; known streams: split, negatives"):
            stream(0, "dropuot")


class TestRandomTriplets:
    def test_reference_generator_gives_the_published_outputs(self):
        expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
        assert list(itertools.islice(splitmix64(1234567), 3)) == expected

    @given(st.integers(0, 2**32), st.integers(0, 1000), st.integers(0, 60))
    def test_equal_the_published_generator(self, seed, epoch, start):
        key = int(stream(seed, "random_triplets", epoch).integers(2**64, dtype=np.uint64))
        outputs = itertools.islice(splitmix64(key), 3 * start, 3 * start + 15)
        expected = [part[(next(outputs) >> 1) % len(part)] for _ in range(5) for part in REPEATED]
        drawn = RandomTriplets(REPEATED, seed, size=100).draw(epoch, torch.arange(start, start + 5))
        assert drawn.ravel().tolist() == expected

    @pytest.mark.parametrize("redraw", ["epoch", "once"])
    def test_every_place_of_a_list_is_equally_likely(self, redraw):
        drawn = all_of(RandomTriplets(REPEATED, seed=1, size=50_000, redraw=redraw), epoch=1, chunk=10_000)
        for column, part in zip(drawn.T, REPEATED, strict=True):
            phrases, repeats = np.unique(part, return_counts=True)
            observed = [(column == phrase).sum() for phrase in phrases]
            assert chisquare(observed, len(drawn) * repeats / len(part)).pvalue > 0.001

    def test_columns_and_neighbours_are_independent(self):
        drawn = all_of(RandomTriplets(REPEATED, seed=2, size=50_000), epoch=1, chunk=10_000)
        before_and_after = np.hstack([drawn[:-1], drawn[1:]])
        for first, second in itertools.combinations(before_and_after.T, 2):
            counts = np.array([[((first == a) & (second == b)).sum() for b in set(second)] for a in set(first)])
            assert chi2_contingency(counts).pvalue > 0.001

    @given(st.permutations(range(40)), st.integers(1, 39), st.sampled_from(["epoch", "once"]))
    def test_a_number_gives_the_same_triplet_in_any_order_and_part(self, order, cut, redraw):
        source = RandomTriplets(REPEATED, seed=3, size=40, redraw=redraw)
        everything = source.draw(5, torch.arange(40))
        again = RandomTriplets(REPEATED, seed=3, size=999, redraw=redraw)
        np.testing.assert_array_equal(
            again.draw(5, torch.tensor(order[:cut], dtype=torch.long)), everything[order[:cut]]
        )

    def test_redraw_epoch_deals_new_triplets_every_epoch(self):
        source = RandomTriplets(REPEATED, seed=4, size=50)
        assert multiset(all_of(source, 1)) != multiset(all_of(source, 2))
        np.testing.assert_array_equal(all_of(source, 1), source.draw(1, torch.arange(50)))

    def test_redraw_once_deals_the_same_triplets_in_another_order(self):
        source = RandomTriplets(REPEATED, seed=4, size=50, redraw="once")
        assert (all_of(source, 1) != all_of(source, 2)).any()
        assert multiset(all_of(source, 1)) == multiset(all_of(source, 2)) == multiset(source.draw(9, torch.arange(50)))

    def test_redraw_once_deals_them_in_any_order(self):
        """Every order of four is equally likely."""
        parts = [np.arange(1000 * slot, 1000 * slot + 1000, dtype=np.int32) for slot in range(3)]
        source = RandomTriplets(Components(*parts), seed=4, size=4, redraw="once")
        orders = [tuple(map(tuple, all_of(source, epoch).tolist())) for epoch in range(1, 1201)]
        counts = Counter(orders)
        assert len(counts) == 24
        assert chisquare(list(counts.values())).pvalue > 0.001

    def test_seeds_have_their_own_triplets(self):
        one, other = (all_of(RandomTriplets(REPEATED, seed, size=50), 1) for seed in (0, 1))
        assert (one != other).any()

    @pytest.mark.parametrize("redraw", ["epoch", "once"])
    def test_epoch_is_cut_into_chunks_without_changing_it(self, redraw):
        source = RandomTriplets(REPEATED, seed=5, size=23, redraw=redraw)
        assert [len(chunk) for chunk in source.epoch(1, 10)] == [10, 10, 3]
        np.testing.assert_array_equal(all_of(source, 1, chunk=10), all_of(source, 1, chunk=23))

    @pytest.mark.parametrize("redraw", ["epoch", "once"])
    def test_size_takes_no_memory(self, redraw):
        tracemalloc.start()
        drawn = next(RandomTriplets(REPEATED, seed=6, size=20_000_000, redraw=redraw).epoch(1, 10))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert drawn.shape == (10, 3)
        assert peak < 1_000_000

    @pytest.mark.parametrize("redraw", ["epoch", "once"])
    def test_grouped_triplets_share_random_pairs(self, redraw):
        source = RandomTriplets(REPEATED, seed=7, size=13, redraw=redraw, per_pair=5)
        drawn = source.draw(1, torch.arange(13))
        flat = RandomTriplets(REPEATED, seed=7, size=13).draw(0 if redraw == "once" else 1, torch.arange(13))
        if redraw == "epoch":
            np.testing.assert_array_equal(drawn[:, :2], flat[:3, :2].repeat_interleave(5, 0)[:13])
            np.testing.assert_array_equal(drawn[:, 2], flat[:, 2])
        one = all_of(source, 2)
        assert multiset(one) == multiset(source.draw(2, torch.arange(13)))
        pair_changes = (one[1:, :2] != one[:-1, :2]).any(axis=1).sum()
        assert pair_changes <= 2

    def test_unknown_redraw_is_refused(self, monkeypatch):
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # whose own error would come first
        with pytest.raises(ValueError, match="expected redraw 'epoch' or 'once', found 'never'"):
            RandomTriplets(REPEATED, 0, 10, redraw="never")

    @pytest.mark.parametrize("size", [0, -1])
    def test_size_must_be_positive(self, size):
        with pytest.raises(ValueError, match=f"at least one random triplet per epoch, found {size}"):
            RandomTriplets(REPEATED, 0, size)


@pytest.mark.parametrize("make", [partial(RealTriplets, THIRTY), partial(RandomTriplets, REPEATED, size=20)])
def test_another_seed_shares_what_a_source_holds(make):
    first = make(seed=0)
    other = first.with_seed(5)
    np.testing.assert_array_equal(all_of(other, 1), all_of(make(seed=5), 1))
    np.testing.assert_array_equal(all_of(first, 1), all_of(make(seed=0), 1))
    for held in ("triplets", "components"):
        assert getattr(other, held, None) is getattr(first, held, None)


class TestRealTriplets:
    TRIPLETS = THIRTY

    def test_epoch_is_a_permutation_that_epoch_and_seed_decide(self):
        orders = [all_of(RealTriplets(self.TRIPLETS, seed), epoch) for seed in (0, 1) for epoch in (1, 2)]
        assert all(multiset(order) == multiset(self.TRIPLETS) for order in orders)
        assert all((a != b).any() for a, b in itertools.combinations(orders, 2))
        np.testing.assert_array_equal(orders[0], all_of(RealTriplets(self.TRIPLETS, 0), 1))

    def test_chunks_do_not_change_the_order(self):
        source = RealTriplets(self.TRIPLETS, 0)
        assert [len(chunk) for chunk in source.epoch(1, 12)] == [12, 12, 6]
        np.testing.assert_array_equal(all_of(source, 1, chunk=12), all_of(source, 1, chunk=30))

    def test_size_caps_the_epoch_with_a_new_choice_each_time(self):
        source = RealTriplets(self.TRIPLETS, seed=0, size=12)
        epochs = [multiset(all_of(source, epoch)) for epoch in (1, 2)]
        assert all(len(set(epoch)) == len(source) == 12 for epoch in epochs)
        assert all(set(epoch) <= set(multiset(self.TRIPLETS)) for epoch in epochs)
        assert epochs[0] != epochs[1]

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(2, 5), st.integers(6, 9)), min_size=1, unique=True))
    def test_grouped_epochs_keep_the_triplets_of_a_pair_together(self, rows):
        triplets = np.array(rows, np.int32)
        source = RealTriplets(triplets, seed=1, batching="grouped")
        epochs = [all_of(source, epoch) for epoch in (1, 2)]
        for drawn in epochs:
            assert multiset(drawn) == multiset(triplets)
            pairs = [frozenset(row[:2]) for row in drawn.tolist()]
            assert len(list(itertools.groupby(pairs))) == len(set(pairs))

    def test_triplets_per_pair_is_the_rounded_mean(self):
        assert triplets_per_pair(np.array([[0, 1, 2], [3, 1, 2], [1, 0, 4], [0, 1, 5], [3, 1, 6]], np.int32)) == 2

    def test_size_never_exceeds_the_triplets(self):
        assert multiset(all_of(RealTriplets(self.TRIPLETS, seed=0, size=1000), 1)) == multiset(self.TRIPLETS)
