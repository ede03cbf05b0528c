"""Studies: tidy tables whose numbers depend on the config and the seed, and on nothing else."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import topic_pairs
from pydantic import ValidationError

import rlm.study
from rlm.block import init_block
from rlm.config import StudyConfig
from rlm.data.corpus import index_corpus
from rlm.encoder import MeanEncoder
from rlm.errors import InputError
from rlm.runtime.parallel import check_seeds
from rlm.runtime.results import join
from rlm.slicer import slice_corpus
from rlm.study import iter_study, run_block, run_study
from rlm.training import train_on_random
from rlm.variants import find_variant

COLUMNS = [
    "arm",
    "seed",
    "validation_accuracy",
    "test_accuracy",
    "roc_auc",
    "top_1",
    "top_5",
    "top_10",
    "mean_reciprocal_rank",
    "ndcg_at_10",
    "map_at_r",
    "best_epoch",
    "epochs",
    "collapsed",
    "start_change",
    "seconds",
    "split",
    "train_triplets",
    "test_triplets",
    "test_anchors",
    "test_clusters",
]
DATA = topic_pairs(np.random.default_rng(0), topics=6, pairs=120)
CORPUS = index_corpus(DATA)
SMALL = {
    "encoder": "mean",
    "word_dim": 4,
    "dim": 6,
    "learning_rate": 0.01,
    "batch_size": 64,
    "negatives": 2,
    "pretrain_epochs": 2,
    "max_epochs": 4,
    "patience": 2,
}
ARMS = ("scratch", "pretrained", "pretrained_once")
quickly = partial(run_study, data=DATA, n_jobs=1, progress=False)


def small(**settings):
    return StudyConfig(**SMALL | settings)


def numbers(table):
    """All that must repeat: everything but the wall time."""
    return table.drop(columns="seconds").reset_index(drop=True)


def of_arm(table, arm):
    return numbers(table[table["arm"] == arm]).drop(columns="arm")


@pytest.fixture(scope="module")
def results():
    """Six seeds, hence two blocks, under every arm."""
    return quickly(small(arms=ARMS), 6)


class TestTable:
    def test_has_one_row_per_arm_and_seed_in_order(self, results):
        assert list(results) == COLUMNS
        assert list(zip(results["arm"], results["seed"], strict=True)) == [(a, s) for a in ARMS for s in range(6)]
        assert list(results.index) == list(range(18))

    def test_says_what_the_test_split_holds(self, results):
        test = slice_corpus(CORPUS, 0, StudyConfig().fractions, negatives=2).summary.set_index("split").loc["test"]
        assert set(results["test_triplets"]) == {test["triplets"]}
        assert results["train_triplets"].min() > results["test_triplets"].max()
        assert set(results["test_anchors"]) == {test["anchors"]}
        assert set(results["split"]) == {"fixed"}
        halves = 2 * results["test_accuracy"] * results["test_triplets"]  # a tie counts one half
        np.testing.assert_allclose(halves, halves.round())

    def test_wall_time_is_positive(self, results):
        assert (results["seconds"] > 0).all()

    def test_agrees_with_the_histories(self):
        for results, _, _, history, _ in iter_study(small(patience=1), 3, data=DATA, n_jobs=1, progress=False):
            assert set(results["arm"]) == set(history["arm"])
            assert list(history) == ["seed", "epoch", "loss", "validation_accuracy", "relative_spread", "arm"]
            for _, row in results.iterrows():
                run = history[history["seed"] == row["seed"]].reset_index(drop=True)
                assert row["validation_accuracy"] == run["validation_accuracy"].max()
                assert row["best_epoch"] == run["epoch"][run["validation_accuracy"].argmax()]
                assert row["epochs"] == run["epoch"].max() == min(row["best_epoch"] + 1, 4)

    def test_fine_tuning_learns(self):
        (block,) = iter_study(small(arms=["scratch"], max_epochs=15, patience=15), 5, data=DATA, n_jobs=1)
        start = block.history[block.history["epoch"] == 0]["validation_accuracy"]
        assert block.results["validation_accuracy"].mean() > start.mean() + 0.1

    def test_no_process_is_left_without_seeds(self):
        arms = small(arms=["scratch"])
        blocks = list(iter_study(arms, 3, data=DATA, n_jobs=2, progress=False))
        assert sorted(len(block.results) for block in blocks) == [1, 2]
        pd.testing.assert_frame_equal(numbers(join(blocks, ["scratch"]).results), numbers(quickly(arms, 3)))

    def test_join_brings_blocks_into_order(self):
        blocks = list(iter_study(small(arms=ARMS), 6, data=DATA, n_jobs=1, progress=False))
        joined = join(blocks[::-1], ARMS)
        expected = [(arm, seed) for arm in ARMS for seed in range(6)]
        assert list(joined.results[["arm", "seed"]].itertuples(index=False, name=None)) == expected
        epochs = joined.history.groupby(["arm", "seed"], sort=False)["epoch"]
        assert [run for run, _ in epochs] == expected
        assert epochs.apply(lambda epoch: list(epoch) == list(range(len(epoch)))).all()
        assert len(joined.clusters) == sum(len(block.clusters) for block in blocks)

    def test_groups_add_up_to_the_test_accuracy(self):
        (block,) = iter_study(small(arms=["scratch"]), 3, data=DATA, n_jobs=1, progress=False)
        for (_, groups), row in zip(block.clusters.groupby("seed"), block.results.itertuples(), strict=True):
            assert len(groups) == row.test_clusters
            assert groups["triplets"].sum() == row.test_triplets
            assert np.average(groups["test_accuracy"], weights=groups["triplets"]) == pytest.approx(row.test_accuracy)


class TestPairing:
    def test_no_pretraining_is_scratch_exactly(self):
        results = quickly(small(arms=ARMS, pretrain_epochs=0), 3)
        for arm in ARMS[1:]:
            pd.testing.assert_frame_equal(of_arm(results, arm), of_arm(results, "scratch"), check_exact=True)

    def test_pretraining_changes_something(self, results):
        tables = [of_arm(results, arm) for arm in ARMS]
        assert not tables[0].equals(tables[1])
        assert not tables[0].equals(tables[2])
        assert not tables[1].equals(tables[2])

    def test_same_call_same_numbers(self, results):
        pd.testing.assert_frame_equal(numbers(quickly(small(arms=ARMS), 6)), numbers(results), check_exact=True)

    def test_other_arms_of_a_study_change_no_arm(self, results):
        alone = quickly(small(arms=["pretrained"]), 6)
        pd.testing.assert_frame_equal(of_arm(alone, "pretrained"), of_arm(results, "pretrained"))

    @pytest.mark.parametrize("keep_moments", [False, True])
    def test_arms_of_other_numbers_of_epochs_share_a_pretraining(self, keep_moments, tmp_path, monkeypatch):
        """One pre-training passes the ends of the shorter ones; every arm is what it is alone, and is saved as that."""
        epochs = {"pretrained": 2, "control (rescaled, pretrain_epochs=3)": 3}
        epochs |= {"one (pretrained, pretrain_epochs=1)": 1, "none (pretrained, pretrain_epochs=0)": 0}
        config, begun = small(arms=tuple(epochs), keep_moments=keep_moments), []

        def train(*args, **settings):
            begun.append(settings["epochs"])
            return train_on_random(*args, **settings)

        monkeypatch.setattr(rlm.arms, "train_on_random", train)
        together = quickly(config, 3, db=tmp_path / "lab.sqlite", keep="all")
        assert begun == [[1, 2, 3], [0]]
        for arm, number in epochs.items():
            start = find_variant(arm).start
            alone = quickly(small(arms=(start,), keep_moments=keep_moments, pretrain_epochs=number), 3)
            pd.testing.assert_frame_equal(of_arm(together, arm), of_arm(alone, start), check_exact=True)
            (folder,) = tmp_path.glob(f"*/*/{arm}/seed1")
            assert rlm.load_model(folder).config.pretrain_epochs == number

    def test_processes_change_nothing(self, results):
        spread = run_study(small(arms=ARMS), 6, data=DATA, n_jobs=2, progress=False)
        pd.testing.assert_frame_equal(numbers(spread), numbers(results), atol=1e-6)

    @pytest.mark.parametrize("arm", ["scratch", "pretrained"])
    def test_company_in_a_block_changes_nothing(self, arm):
        config = small(max_epochs=3, patience=3)
        runs = {}
        for size in (1, 3, 8):
            blocks = [run_block({arm: config}, CORPUS, range(8)[start : start + size]) for start in range(0, 8, size)]
            runs[size] = join(blocks, [arm])
        for size in (1, 3):
            for one, other in zip(runs[size], runs[8], strict=True):
                one, other = (table.drop(columns="seconds", errors="ignore") for table in (one, other))
                pd.testing.assert_frame_equal(one, other, rtol=1e-4, atol=1e-6)

    def test_company_in_a_block_changes_no_initial_weight(self):
        make = partial(MeanEncoder, 20, 4, 6)
        together = init_block(make, range(8)).weights
        for seed in range(8):
            for name, weight in init_block(make, [seed]).weights.items():
                assert torch.equal(weight[0], together[name][seed])

    def test_seeds_differ(self, results):
        assert of_arm(results, "scratch").drop(columns="seed").drop_duplicates().shape[0] > 3


def test_an_encoder_of_your_own_takes_the_place_of_the_named_one():
    config = small(encoder="lstm")
    sizes = {"word_dim": config.word_dim, "dim": config.dim}
    own = quickly(config, 2, make_encoder=partial(MeanEncoder, **sizes))
    pd.testing.assert_frame_equal(numbers(own), numbers(quickly(small(encoder="mean"), 2)))


class TestSeeds:
    config = small(arms=["scratch"], max_epochs=1)

    def test_a_number_counts_from_zero(self):
        pd.testing.assert_frame_equal(numbers(quickly(self.config, 2)), numbers(quickly(self.config, [0, 1])))

    def test_a_sequence_names_them(self):
        some = quickly(self.config, [11, 3])
        assert list(some["seed"]) == [3, 11]
        pd.testing.assert_frame_equal(numbers(some.iloc[[1]]), numbers(quickly(self.config, (11,))))

    @pytest.mark.parametrize("seeds", [[np.int64(4), np.uint8(3)], np.array([4, 3]), pd.Series([3, 4]), range(3, 5)])
    def test_any_whole_numbers_will_do(self, seeds):
        assert check_seeds(seeds) == [3, 4]
        assert check_seeds(np.int32(2)) == [0, 1]

    def test_the_largest_one_is_kept(self, tmp_path):
        found = quickly(self.config, [2**63 - 1], db=tmp_path / "s.db")
        pd.testing.assert_frame_equal(rlm.read_study(tmp_path / "s.db").finished.results, found)

    @pytest.mark.parametrize("seeds", [2**63, 3.0, None, True, np.array(2.5)])
    def test_what_is_no_number_of_seeds_is_refused(self, seeds):
        with pytest.raises(InputError, match=r"expected (at most 1,000,000|a number of) seeds"):
            check_seeds(seeds)

    @pytest.mark.parametrize("seeds", [0, -2, [], [0, -1], [4, 4], [2**63], [2**64, 1]])
    def test_impossible_ones_are_refused(self, seeds):
        with pytest.raises(InputError, match="expected at least one seed, each once and none negative, found"):
            quickly(self.config, seeds)

    @pytest.mark.parametrize("seeds", [[1.0], [True], ["1"], [4, np.int8(4)], "12", [None]])
    def test_what_are_no_seeds_are_refused(self, seeds):
        with pytest.raises(InputError, match="expected at least one seed, each once and none negative, found"):
            check_seeds(seeds)


class TestSplit:
    def test_per_seed_splits_differ_by_seed_and_not_by_arm(self):
        config = small(split="per_seed", max_epochs=1, pretrain_epochs=0, fractions=(0.6, 0.2, 0.2))
        results = quickly(config, 4)
        pd.testing.assert_frame_equal(of_arm(results, "scratch"), of_arm(results, "pretrained"))
        scratch = results[results["arm"] == "scratch"].set_index("seed")
        tests = {}
        for seed in range(4):
            slices = slice_corpus(CORPUS, seed, config.fractions, config.negatives)
            held = slices.summary.set_index("split").loc["test"]
            assert tuple(scratch.loc[seed, ["test_triplets", "test_anchors"]]) == (held["triplets"], held["anchors"])
            tests[seed] = slices.test.tobytes()
        assert set(scratch["split"]) == {"per_seed"}
        assert len(set(tests.values())) == 4

    def test_a_seed_on_its_own_split_is_the_seed_on_that_fixed_split(self):
        own = quickly(small(arms=["scratch"], split="per_seed"), [2, 5])
        fixed = quickly(small(arms=["scratch"], split_seed=5), [5])
        one, other = (numbers(table).drop(columns="split") for table in (own.iloc[[1]], fixed))
        pd.testing.assert_frame_equal(one, other, rtol=1e-4)


class TestInterruption:
    @pytest.fixture
    def interrupt_after(self, monkeypatch):
        """Makes the user lose patience after some blocks."""

        def interrupt_after(blocks):
            finished = []

            def run_block_or_stop(*args, **settings):
                if len(finished) == blocks:
                    raise KeyboardInterrupt
                finished.append(run_block(*args, **settings))
                return finished[-1]

            monkeypatch.setattr(rlm.study, "run_block", run_block_or_stop)
            return finished

        return interrupt_after

    def test_keeps_the_finished_blocks(self, interrupt_after, results, monkeypatch):
        monkeypatch.setattr(rlm.study, "LARGEST_BLOCK", 3)
        finished = interrupt_after(4)
        with pytest.warns(UserWarning, match="the finished blocks of seeds, 4 in all"):
            kept = quickly(small(arms=ARMS), 6)
        assert len(kept) == sum(len(block.results) for block in finished) == 12
        assert set(kept["arm"]) == set(ARMS)
        rows = pd.MultiIndex.from_frame(kept[["arm", "seed"]])
        same = results.set_index(["arm", "seed"]).loc[rows].reset_index()
        pd.testing.assert_frame_equal(numbers(kept), numbers(same))

    def test_goes_through_where_nothing_is_finished(self, interrupt_after):
        interrupt_after(0)
        with pytest.raises(KeyboardInterrupt):
            quickly(small(), 2)


def test_rows_of_a_table_that_cannot_be_used_are_said():
    data = topic_pairs(np.random.default_rng(0), topics=8, pairs=80)
    data.loc[5, "positive"] = "???"
    config = StudyConfig(encoder="mean", arms=("scratch",), max_epochs=0)
    with pytest.warns(UserWarning, match=r"dropped from the data: 1 without words \(row 5\)"):
        run_study(config, 1, data=data, n_jobs=1, progress=False)


class TestConfig:
    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            ({"encoder": "gru"}, "expected 'lstm', 'bilstm'.* or 'mean', found 'gru'"),
            ({"encoder": "lstmm"}, "found 'lstmm'; did you mean 'lstm'?"),
            (
                {"arms": ("scratch", "lucky")},
                "expected an arm among scratch, pretrained, pretrained_once, .*, found 'lucky'",
            ),
            ({"arms": ()}, r"expected at least 1 item, found \(\)"),
            ({"arms": ("scratch", "scratch")}, "expected every arm once, found scratch, scratch"),
            ({"margin": 0}, "expected a number greater than or equal to 0.000001, found 0"),
            ({"margin": 101}, "less than or equal to 100"),
            ({"max_epochs": -1}, "greater than or equal to 0"),
            ({"epochs": 3}, r"epochs\n.*expected a known setting, found 'epochs'; did you mean 'max_epochs'\?"),
            ({"reading": {"delimitr": ";"}}, r"reading.delimitr\n.*found 'delimitr'; did you mean 'delimiter'\?"),
            ({"qwxz": 3}, "expected a known setting, found 'qwxz'; known: dataset, reading, arms"),
            ({"dim": "wide"}, "expected a valid integer, found 'wide'"),
            ({"fractions": (0.5, 0.3, 0.3)}, "expected three positive fractions with the sum 1, found"),
            ({"fractions": (1.2, -0.1, -0.1)}, "expected three positive fractions with the sum 1, found"),
            ({"split": "none"}, "expected 'fixed' or 'per_seed', found 'none'"),
        ],
    )
    def test_refuses_what_cannot_be_run(self, settings, text):
        with pytest.raises(ValidationError, match=text):
            StudyConfig(**settings)

    def test_is_frozen(self):
        config = StudyConfig()
        with pytest.raises(ValidationError, match="frozen"):
            config.margin = 1.0

    def test_goes_through_json(self):
        config = small(arms=ARMS, random_triplets=77, fractions=(0.5, 0.25, 0.25), split="per_seed", margin=0.3)
        assert StudyConfig.model_validate_json(config.model_dump_json()) == config

    def test_every_field_is_described_and_within_bounds_by_default(self):
        for name, field in StudyConfig.model_fields.items():
            assert field.description, name
        StudyConfig.model_validate(StudyConfig().model_dump())

    def test_unknown_dataset(self):
        with pytest.raises(InputError, match=r"unknown dataset 'chatterbot-klingon'.*chatterbot-english"):
            run_study(StudyConfig(dataset="chatterbot-klingon"), 1)
