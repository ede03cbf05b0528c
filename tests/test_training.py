"""Training of blocks, with the batches they read and the evaluation that judges them."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import finetune, pretrain, topic_pairs
from sklearn.metrics import auc, roc_auc_score, roc_curve
from torch import nn
from torch_twin import TorchTwin

from rlm.block import init_block
from rlm.data.corpus import index_corpus
from rlm.engine.accuracy import embed, triplet_accuracy
from rlm.engine.batches import PhraseTable, epoch_batches, one_batch, split_batch
from rlm.errors import InputError
from rlm.evaluation.triplets import evaluate, roc
from rlm.sampler import RandomTriplets, RealTriplets
from rlm.slicer import SPLITS, slice_corpus
from rlm.zoo.encoders import ENCODERS

both = pytest.mark.parametrize("kind", ["lstm", "mean"])


def new_block(slices, kind="mean", seeds=(0, 1, 2), dtype=torch.float32, word_dim=4, dim=5):
    return init_block(lambda: ENCODERS[kind](slices.vocabulary_size, word_dim, dim).to(dtype), seeds)


def quiet(train, *args, **settings):
    return train(*args, progress=False, **settings)


def weights_of(block, row):
    return {name: weight[row] for name, weight in block.weights.items()}


def assert_same_weights(one, other, **tolerance):
    for name, weight in one.items():
        torch.testing.assert_close(weight, other[name], **(tolerance or {"rtol": 0, "atol": 0}))


def distances(twin, slices, triplets):
    """Squared, from anchors to positives and to negatives."""
    anchor, positive, negative = (twin(torch.from_numpy(slices.tokens[column])) for column in triplets.T)
    return ((anchor - positive) ** 2).sum(1), ((anchor - negative) ** 2).sum(1)


def accuracy_of(twin, slices, triplets):
    near, far = distances(twin, slices, triplets)
    return ((near < far).double() + (near == far).double() / 2).mean().item()


def loss_of(twin, slices, triplets, margin=0.5):
    near, far = distances(twin, slices, triplets)
    return (near - far + margin).relu().mean()


def torch_epoch(twin, adam, slices, batches):
    """One epoch as everybody writes it; mean loss over the triplets."""
    total = 0.0
    for triplets in batches:
        adam.zero_grad()
        loss = loss_of(twin, slices, triplets)
        loss.backward()
        adam.step()
        total += loss.item() * len(triplets)
    return total / sum(map(len, batches))


class TestBatches:
    def test_spell_the_triplets_of_every_seed(self, unequal_slices):
        sources = [RealTriplets(one.train, seed) for seed, one in enumerate(unequal_slices)]
        expected = [list(source.epoch(1, 10)) for source in sources]
        batches = list(epoch_batches(sources, PhraseTable(unequal_slices), 1, 10))
        assert len(batches) == max(map(len, expected))
        for seed, (one, steps) in enumerate(zip(unequal_slices, expected, strict=True)):
            for step, batch in enumerate(batches):
                triplets = steps[step] if step < len(steps) else np.empty((0, 3), np.int32)
                rows = batch.triplets[seed, batch.mask[seed]]
                width = batch.tokens.shape[2]
                np.testing.assert_array_equal(batch.tokens[seed][rows], one.tokens[triplets][..., :width])
                assert (one.tokens[triplets][..., width:] == 0).all()
                assert len(rows.unique()) == len(np.unique(triplets))
                torch.testing.assert_close(batch.weights[seed].sum().item(), float(len(triplets) > 0))
                assert (batch.weights[seed, ~batch.mask[seed]] == 0).all()

    def test_batch_sizes_count_the_phrases_that_reach_a_position(self, unequal_slices):
        sources = [RealTriplets(one.train, seed) for seed, one in enumerate(unequal_slices)]
        for batch in epoch_batches(sources, PhraseTable(unequal_slices), 1, 10):
            is_token = batch.tokens != 0
            assert (is_token.sum(2).diff(dim=1) <= 0).all()
            assert batch.batch_sizes[0] == batch.tokens.shape[1]
            assert list(batch.batch_sizes[1:]) == is_token.sum(1).amax(0).tolist()[1:]

    @pytest.mark.parametrize("size", [1, 31, 33, 70])
    def test_long_epochs_lose_nothing(self, slices, size):
        """Batches are built 32 steps at a time; here steps end before, at and after that."""
        source = RandomTriplets(slices.components, seed=0, size=size)
        batches = list(epoch_batches([source], PhraseTable([slices]), epoch=1, batch_size=1))
        spelled = np.concatenate(
            [np.pad(b.tokens[0][b.triplets[0]], ((0, 0), (0, 0), (0, 9)))[..., :9] for b in batches]
        )
        expected = slices.tokens[source.draw(1, torch.arange(size))]
        np.testing.assert_array_equal(spelled[..., : expected.shape[-1]], expected)


class TestBlock:
    def test_weights_belong_to_the_seed_not_to_the_block(self, slices):
        blocks = {seeds: new_block(slices, "lstm", seeds) for seeds in [(5,), (4, 5, 6), tuple(range(8))]}
        for seeds, block in blocks.items():
            assert_same_weights(weights_of(block, seeds.index(5)), weights_of(blocks[(5,)], 0))
        assert not torch.equal(*blocks[(4, 5, 6)].weights["words.weight"][:2])

    def test_default_generator_is_left_alone(self, slices):
        torch.manual_seed(0)
        expected = torch.rand(3)
        torch.manual_seed(0)
        new_block(slices)
        assert torch.equal(torch.rand(3), expected)

    def test_no_seed_is_refused(self, slices):
        with pytest.raises(ValueError, match="expected at least one seed, found none"):
            new_block(slices, seeds=())


class TestEvaluation:
    @both
    def test_many_phrases_are_embedded_as_in_one_go(self, kind):
        slices = slice_corpus(index_corpus(topic_pairs(np.random.default_rng(1), topics=60, pairs=1100)))
        batch = one_batch(
            [torch.from_numpy(np.concatenate([getattr(slices, name) for name in SPLITS]))] * 2,
            PhraseTable([slices] * 2),
        )
        assert batch.batch_sizes[0] > 2048
        block = new_block(slices, kind, seeds=(0, 1))
        torch.testing.assert_close(embed(block, batch), block.embed(batch.tokens, batch.batch_sizes))

    def test_triplet_accuracy_equals_a_slow_loop_with_half_for_ties(self, unequal_slices):
        rng = np.random.default_rng(0)
        batch = one_batch([torch.from_numpy(one.test) for one in unequal_slices], PhraseTable(unequal_slices))
        embeddings = torch.from_numpy(rng.integers(3, size=(3, batch.batch_sizes[0], 2))).double()
        ties, expected = 0, []
        for points, one, places, mask in zip(
            embeddings.tolist(), unequal_slices, batch.triplets.tolist(), batch.mask.tolist(), strict=True
        ):
            score = 0.0
            for (a, p, n), real in zip(places, mask, strict=True):
                near, far = (sum((x - y) ** 2 for x, y in zip(points[a], points[b], strict=True)) for b in (p, n))
                score += real * (near < far) + real * (near == far) / 2
                ties += real and near == far
            expected.append(score / len(one.test))
        assert ties > 10
        np.testing.assert_allclose(triplet_accuracy(embeddings, batch), expected)

    @both
    @pytest.mark.parametrize("split", SPLITS)
    def test_evaluate_equals_torch_and_sklearn_on_the_different_pairs(self, kind, split, unequal_slices):
        # Without the unknown word, whose phrases may be alike: rounding would decide their ties.
        unequal_slices = [dataclasses.replace(one, tokens=one.phrases.tokens) for one in unequal_slices]
        block = new_block(unequal_slices[0], kind, seeds=(7, 8, 9), dtype=torch.float64)
        result, curves = evaluate(block, unequal_slices, split), roc(block, unequal_slices, split)
        assert result.seed.tolist() == [7, 8, 9]
        for row, one in enumerate(unequal_slices):
            triplets = getattr(one, split)
            twin = TorchTwin(kind, weights_of(block, row))
            near, far = distances(twin, one, triplets)
            assert result.triplet_accuracy[row] == pytest.approx(accuracy_of(twin, one, triplets))
            pairs = {(a, n): (0, -d) for (a, _, n), d in zip(triplets.tolist(), far.tolist(), strict=True)}
            pairs |= {(a, p): (1, -d) for (a, p, _), d in zip(triplets.tolist(), near.tolist(), strict=True)}
            truth, score = zip(*pairs.values(), strict=True)
            assert result.roc_auc[row] == pytest.approx(roc_auc_score(truth, score))
            curve = curves[curves.seed == block.seeds[row]]
            false_positives, true_positives, _ = roc_curve(truth, score)
            np.testing.assert_allclose(curve.false_positive_rate, false_positives)
            np.testing.assert_allclose(curve.true_positive_rate, true_positives)
            assert auc(curve.false_positive_rate, curve.true_positive_rate) == pytest.approx(result.roc_auc[row])

    def test_a_pair_counts_once_and_as_relevant_if_it_ever_is(self, slices):
        """Six triplets of six phrases, with repeated pairs and one that is a positive here, a negative there."""
        triplets = np.array([[0, 1, 2], [0, 1, 3], [0, 1, 3], [0, 2, 4], [5, 4, 0], [5, 4, 0]], np.int32)
        pairs = {(0, 1): 1, (0, 2): 1, (0, 3): 0, (0, 4): 0, (5, 4): 1, (5, 0): 0}
        block = new_block(slices, seeds=(0,), dtype=torch.float64)
        with torch.no_grad():
            points = TorchTwin("mean", weights_of(block, 0))(torch.from_numpy(slices.tokens[:6]))
        score = [-(points[a] - points[b]).square().sum().item() for a, b in pairs]
        found = evaluate(block, dataclasses.replace(slices, test=triplets))
        assert found.roc_auc[0] == pytest.approx(roc_auc_score(list(pairs.values()), score))


class TestAgainstTorch:
    """A block of seeds with slices of different sizes trains as plain modules with torch.optim.Adam do."""

    @both
    def test_pretraining(self, kind, unequal_slices):
        block = new_block(unequal_slices[0], kind, dtype=torch.float64)
        settings = {"epochs": 4, "random_triplets": 23, "batch_size": 5, "learning_rate": 1e-2}
        trained, history = quiet(pretrain, block, unequal_slices, **settings)
        for row, one in enumerate(unequal_slices):
            twin = TorchTwin(kind, weights_of(block, row))
            adam = torch.optim.Adam(twin.parameters(), lr=1e-2)
            drawn = RandomTriplets(one.components, block.seeds[row], 23)
            mine = history[history.seed == block.seeds[row]].set_index("epoch")
            assert mine.loss[0] == pytest.approx(loss_of(twin, one, drawn.draw(1, torch.arange(23))).item())
            for epoch in range(1, 5):
                torch_epoch(twin, adam, one, list(drawn.epoch(epoch, 5)))
                seen, unseen = (drawn.draw(epoch, torch.arange(23) + skip) for skip in (0, 23))
                assert mine.loss[epoch] == pytest.approx(loss_of(twin, one, seen).item(), abs=1e-6)
                for column, triplets in {"seen_accuracy": seen, "unseen_accuracy": unseen}.items():
                    assert mine[column][epoch] == pytest.approx(accuracy_of(twin, one, triplets))
            assert_same_weights(weights_of(trained, row), twin.weights(), rtol=0, atol=1e-6)

    @both
    def test_finetuning(self, kind, unequal_slices):
        block = new_block(unequal_slices[0], kind, dtype=torch.float64)
        settings = {"max_epochs": 4, "batch_size": 20, "learning_rate": 1e-2}
        trained, history = quiet(finetune, block, unequal_slices, **settings)
        for row, one in enumerate(unequal_slices):
            twin = TorchTwin(kind, weights_of(block, row))
            adam = torch.optim.Adam(twin.parameters(), lr=1e-2)
            order = RealTriplets(one.train, block.seeds[row])
            mine = history[history.seed == block.seeds[row]].set_index("epoch")
            best_accuracy = -1.0
            for epoch in range(5):
                if epoch:
                    loss = torch_epoch(twin, adam, one, list(order.epoch(epoch, 20)))
                    assert mine.loss[epoch] == pytest.approx(loss, abs=1e-6)
                accuracy = accuracy_of(twin, one, one.validation)
                assert mine.validation_accuracy[epoch] == pytest.approx(accuracy)
                if accuracy > best_accuracy:
                    best_accuracy = accuracy
                    best = {name: weight.detach().clone() for name, weight in twin.weights().items()}
            assert np.isnan(mine.loss[0])
            assert_same_weights(weights_of(trained, row), best, rtol=0, atol=1e-6)

    @both
    def test_single_precision_stays_close(self, kind, slices):
        block = new_block(slices, kind)
        settings = {"epochs": 4, "random_triplets": 23, "batch_size": 5}
        _, history = quiet(pretrain, block, slices, **settings)
        for row, seed in enumerate(block.seeds):
            twin = TorchTwin(kind, weights_of(block, row))
            adam = torch.optim.Adam(twin.parameters(), lr=1e-3)
            drawn = RandomTriplets(slices.components, seed, 23)
            for epoch in range(1, 5):
                torch_epoch(twin, adam, slices, list(drawn.epoch(epoch, 5)))
            expected = loss_of(twin, slices, drawn.draw(4, torch.arange(23))).item()
            assert history[history.seed == seed].loss.iloc[-1] == pytest.approx(expected, abs=1e-4)


PAIRED = {"max_epochs": 2, "batch_size": 20, "learning_rate": 1e-2}


class TestPairing:
    @both
    def test_zero_pretraining_epochs_are_no_pretraining(self, kind, slices):
        block = new_block(slices, kind)
        same, history = quiet(pretrain, block, slices, epochs=0)
        assert_same_weights(same.weights, block.weights)
        assert history.epoch.tolist() == [0, 0, 0]
        (tuned, curve), (expected, expected_curve) = (quiet(finetune, b, slices, **PAIRED) for b in (same, block))
        assert_same_weights(tuned.weights, expected.weights)
        pd.testing.assert_frame_equal(curve, expected_curve, check_exact=True)

    def test_training_repeats_itself_exactly_and_leaves_its_block_alone(self, slices):
        block = new_block(slices, "lstm")
        before = {name: weight.clone() for name, weight in block.weights.items()}
        for train, settings in [(pretrain, {"epochs": 2}), (finetune, {"max_epochs": 2})]:
            (one, history), (other, again) = (quiet(train, block, slices, **settings) for _ in range(2))
            pd.testing.assert_frame_equal(history, again, check_exact=True)
            assert_same_weights(one.weights, other.weights)
            assert_same_weights(block.weights, before)
            assert history.loss.iloc[-1] != history.loss.iloc[0]

    def test_a_seed_has_the_same_results_in_any_block(self, slices):
        results = {}
        for seeds in [(2,), (0, 2, 9), (7, 6, 5, 4, 3, 2, 1, 0)]:
            trained, pretraining = quiet(pretrain, new_block(slices, "lstm", seeds), slices, epochs=1)
            _, tuning = quiet(finetune, trained, slices, **PAIRED)
            results[len(seeds)] = [table[table.seed == 2] for table in (pretraining, tuning)]
        for size in (3, 8):
            for found, expected in zip(results[size], results[1], strict=True):
                np.testing.assert_allclose(found.loss, expected.loss, atol=1e-4)
                for column in expected.columns[expected.columns.str.endswith("accuracy")]:
                    np.testing.assert_allclose(found[column], expected[column], atol=0.03)

    @both
    def test_seeds_with_less_to_read_wait_without_moving(self, kind, unequal_slices):
        """Their slices differ in size, and they stop at different epochs; alone, each has the same result."""
        block = new_block(unequal_slices[0], kind, dtype=torch.float64)
        settings = {"max_epochs": 12, "patience": 2, "batch_size": 20, "learning_rate": 3e-2}
        together, history = quiet(finetune, block, unequal_slices, **settings)
        assert history.groupby("seed").epoch.max().nunique() > 1
        for row, one in enumerate(unequal_slices):
            single = new_block(one, kind, seeds=(block.seeds[row],), dtype=torch.float64)
            alone, expected = quiet(finetune, single, one, **settings)
            mine = history[history.seed == block.seeds[row]].reset_index(drop=True)
            pd.testing.assert_frame_equal(mine, expected, rtol=1e-6)
            assert_same_weights(weights_of(together, row), weights_of(alone, 0), rtol=0, atol=1e-6)


STOPPING = {"max_epochs": 15, "patience": 3, "batch_size": 20, "learning_rate": 3e-2}


class TestEarlyStopping:
    @pytest.fixture
    def stopped(self, unequal_slices):
        block = new_block(unequal_slices[0], seeds=tuple(range(6)))
        mine = [unequal_slices[row % 3] for row in range(6)]
        return block, mine, *quiet(finetune, block, mine, **STOPPING)

    def test_patience_holds_for_every_seed(self, stopped):
        history = stopped[-1]
        ends = []
        for _, mine in history.groupby("seed"):
            accuracy = mine.validation_accuracy.to_numpy()
            assert mine.epoch.tolist() == list(range(len(mine)))
            waited = [epoch - int(np.argmax(accuracy[: epoch + 1])) for epoch in range(len(mine))]
            assert max(waited[:-1]) < 3
            assert waited[-1] == 3 or len(mine) == 16
            ends.append(len(mine))
        assert len(set(ends)) > 1
        assert min(ends) < 16

    def test_best_weights_are_restored(self, stopped):
        _, mine, trained, history = stopped
        expected = history.groupby("seed").validation_accuracy.max()
        found = evaluate(trained, mine, "validation").triplet_accuracy
        np.testing.assert_allclose(found, expected, atol=1e-12)
        assert (expected > history.groupby("seed").validation_accuracy.last()).any()

    def test_of_equal_epochs_the_earliest_is_restored(self, stopped):
        block, mine, trained, history = stopped
        tied = 0
        for row, seed in enumerate(block.seeds):
            accuracy = history[history.seed == seed].validation_accuracy.to_numpy()
            best = int(np.argmax(accuracy))
            tied += (accuracy == accuracy[best]).sum() > 1
            up_to_best, _ = quiet(finetune, block, mine, **STOPPING | {"max_epochs": best})
            assert_same_weights(weights_of(trained, row), weights_of(up_to_best, row), rtol=0, atol=1e-5)
        assert tied

    def test_untrained_weights_can_be_the_best(self, slices):
        block = new_block(slices)
        trained, history = quiet(finetune, block, slices, max_epochs=3, learning_rate=0.0, patience=2)
        assert_same_weights(trained.weights, block.weights)
        assert history.epoch.max() == 2

    def test_epoch_triplets_cap_the_epoch(self, slices):
        """The loss of an epoch of one step is that of the first weights on the epoch's few triplets."""
        block = new_block(slices)
        _, history = quiet(finetune, block, slices, max_epochs=1, batch_size=10, epoch_triplets=7)
        for row, seed in enumerate(block.seeds):
            (triplets,) = RealTriplets(slices.train, seed, size=7).epoch(1, 10)
            expected = loss_of(TorchTwin("mean", weights_of(block, row)), slices, triplets).item()
            assert history[history.seed == seed].loss.iloc[-1] == pytest.approx(expected, rel=1e-5)


class TestWhatPretrainingShows:
    def test_memorised_triplets_are_told_from_unseen_ones(self, slices):
        block = new_block(slices, seeds=(0, 1), word_dim=16, dim=16)
        settings = {"redraw": "once", "random_triplets": 60, "epochs": 40, "batch_size": 20, "learning_rate": 1e-2}
        _, history = quiet(pretrain, block, slices, **settings)
        last = history[history.epoch == 40]
        assert (last.seen_accuracy > 0.9).all()
        assert (last.seen_accuracy > last.unseen_accuracy + 0.2).all()
        assert (last.loss.to_numpy() < history[history.epoch == 0].loss.to_numpy()).all()

    @both
    def test_collapse_is_recognised(self, kind, slices):
        block = new_block(slices, kind)
        for weight in block.weights.values():
            weight.zero_()
        collapsed, history = quiet(pretrain, block, slices, epochs=1, margin=0.75)
        np.testing.assert_allclose(history.loss, 0.75, rtol=1e-6)
        assert (history[["seen_accuracy", "unseen_accuracy"]] == 0.5).all(axis=None)
        assert (history.spread == 0).all()
        assert (evaluate(collapsed, slices)[["triplet_accuracy", "roc_auc"]] == 0.5).all(axis=None)

    @both
    def test_spread_is_the_mean_squared_distance_of_two_phrases(self, kind, unequal_slices):
        block = new_block(unequal_slices[0], kind, dtype=torch.float64)
        _, history = quiet(pretrain, block, unequal_slices, epochs=0, random_triplets=15)
        for row, one in enumerate(unequal_slices):
            shown = np.unique(RandomTriplets(one.components, block.seeds[row], 15).draw(1, torch.arange(15)))
            with torch.no_grad():
                points = TorchTwin(kind, weights_of(block, row))(torch.from_numpy(one.tokens[shown])).tolist()
            squares = [sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for a in points for b in points]
            assert history.spread[row] == pytest.approx(np.mean(squares))


@both
def test_finetuning_learns_what_can_be_learned(kind):
    slices = slice_corpus(index_corpus(topic_pairs(np.random.default_rng(2), topics=40, pairs=400, words=4)))
    block = new_block(slices, kind, seeds=(0, 1), word_dim=16, dim=16)
    trained, _ = quiet(finetune, block, slices, max_epochs=8, batch_size=50, learning_rate=1e-2)
    before, after = (evaluate(one, slices, "validation").triplet_accuracy for one in (block, trained))
    assert (before < 0.9).all()
    assert (after > 0.9).all()


class TestYourOwnEncoder:
    class Encoder(nn.Module):
        """Fixed word vectors under a trained layer."""

        def __init__(self, vocabulary_size, dropout=0.0):
            super().__init__()
            self.words = nn.Embedding(vocabulary_size, 4).requires_grad_(False)
            self.output = nn.Sequential(nn.Linear(4, 5), nn.Dropout(dropout))

        def forward(self, tokens, batch_sizes):
            return self.output(self.words(tokens).sum(dim=1))

    def test_frozen_weights_stay_and_the_others_learn(self, slices):
        block = init_block(lambda: self.Encoder(slices.vocabulary_size), (0, 1))
        trained, _ = quiet(pretrain, block, slices, epochs=1)
        assert torch.equal(trained.weights["words.weight"], block.weights["words.weight"])
        assert not torch.equal(trained.weights["output.0.weight"], block.weights["output.0.weight"])

    @pytest.mark.parametrize(
        ("layer", "message"),
        [
            (lambda: nn.GRU(4, 5, num_layers=2, dropout=0.5), "for all dropout, found other dropout in GRU"),
            (lambda: nn.MultiheadAttention(4, 2, dropout=0.1), "found other dropout in MultiheadAttention; replace it"),
            (lambda: nn.BatchNorm1d(5), "without batch normalisation, found BatchNorm1d; take nn.LayerNorm"),
        ],
    )
    def test_layers_that_act_otherwise_in_training_are_refused(self, layer, message, slices):
        def encoder():
            made = self.Encoder(slices.vocabulary_size)
            made.also = layer()
            return made

        with pytest.raises(InputError, match=message):
            init_block(encoder, (0,))

    def test_encoders_of_other_shapes_are_refused(self, slices):
        class PerWord(nn.Embedding):
            def forward(self, tokens, batch_sizes):
                return super().forward(tokens)

        with pytest.raises(
            InputError, match=r"one vector per input, \[input, dim\], found PerWord, which returns \[2, 2, 4\]"
        ):
            init_block(lambda: PerWord(slices.vocabulary_size, 4), (0,))
        with pytest.raises(InputError, match="with weights to train, found none in Identity"):
            init_block(nn.Identity, (0,))

    def test_dropout_is_refused(self, slices):
        with pytest.raises(
            InputError, match=r"rlm.zoo.Dropout for all dropout, found other dropout in Dropout; replace"
        ):
            init_block(lambda: self.Encoder(slices.vocabulary_size, dropout=0.5), (0,))


class TestMistakes:
    def test_a_seed_that_diverges_stops_alone(self, slices, caplog):
        block = new_block(slices)
        _, others = quiet(finetune, block, slices, max_epochs=3, patience=3)
        block.weights["output.weight"][1] = float("nan")
        trained, history = quiet(finetune, block, slices, max_epochs=3, patience=3)
        assert "seed(s) [1] diverged" in caplog.text
        assert history.groupby("seed")["epoch"].max().tolist() == [3, 1, 3]
        assert history.loc[history["seed"] == 1, ["loss", "validation_accuracy"]].isna().all(axis=None)
        survived = [table[table["seed"] != 1].reset_index(drop=True) for table in (history, others)]
        pd.testing.assert_frame_equal(*survived, atol=1e-6)
        test = split_batch(trained, slices, "test")
        assert np.isnan(triplet_accuracy(embed(trained, test), test)).tolist() == [False, True, False]

    def test_slices_come_one_per_seed_and_from_one_corpus(self, corpus, slices):
        block = new_block(slices)
        with pytest.raises(InputError, match=r"one per seed \(3\), found 2"):
            quiet(finetune, block, [slices, slices])
        other = slice_corpus(index_corpus(topic_pairs(np.random.default_rng(1), topics=6, pairs=90)))
        with pytest.raises(InputError, match="slices of one corpus, found several"):
            quiet(finetune, block, [slices, slices, other])
