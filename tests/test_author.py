"""The settings of Koziev's nn_relevancy_tripleloss, piece by piece, against plain loops in PyTorch."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import finetune, topic_pairs
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kstest, ttest_ind, uniform

import rlm
from rlm.arms import encoder_maker, train_arms
from rlm.block import init_block
from rlm.data.phrases import pad_tokens
from rlm.evaluation.held_out import judge_history
from rlm.sampler import RandomTriplets, RealTriplets
from rlm.study import slice_for
from rlm.training import train_on_random
from rlm.zoo.encoders import ENCODERS, new_encoder

PRETRAINING = {"epochs": 2, "random_triplets": 40, "progress": False}
TUNING = {"max_epochs": 3, "progress": False}
NADAM = {"optimizer": "nadam", "batch_size": 15, "learning_rate": 1e-2}


def new_block(slices, kind="lstm", seeds=(0, 1, 2), dtype=torch.float64):
    return init_block(lambda: ENCODERS[kind](slices.vocabulary_size, 4, 5).to(dtype), seeds)


def twin_of(block, row=0):
    """One model of a block, with weights of its own."""
    weights = {name: weight[row].clone().requires_grad_() for name, weight in block.weights.items()}
    return lambda tokens, sizes: torch.func.functional_call(block.encoder, weights, (tokens, sizes)), weights


def loss_of(embed, slices, triplets, margin=0.5):
    """The triplet loss, with every phrase embedded alone."""

    def one(phrase):
        tokens = torch.from_numpy(slices.tokens[phrase : phrase + 1])
        length = int((tokens != 0).sum())
        return embed(tokens[:, :length], (1,) * length)[0]

    vectors = {phrase: one(phrase) for phrase in np.unique(triplets).tolist()}
    anchor, positive, negative = (torch.stack([vectors[phrase] for phrase in column.tolist()]) for column in triplets.T)
    return ((anchor - positive).square().sum(1) - (anchor - negative).square().sum(1) + margin).relu().mean()


def step(embed, optimizer, slices, batches):
    total = 0.0
    for triplets in batches:
        optimizer.zero_grad()
        loss = loss_of(embed, slices, triplets)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(triplets)
    return total / sum(map(len, batches))


class KerasNadam:
    """Nadam as Keras 2 documents it: Dozat's formula with a warming momentum schedule."""

    def __init__(self, weights, rate, beta_1=0.9, beta_2=0.999, decay=0.004, epsilon=1e-8):
        self.weights, self.rate, self.betas, self.decay, self.epsilon = weights, rate, (beta_1, beta_2), decay, epsilon
        self.time, self.schedule = 0, 1.0
        self.means, self.squares = ([torch.zeros_like(weight) for weight in weights] for _ in "12")

    def zero_grad(self):
        for weight in self.weights:
            weight.grad = None

    def step(self):
        self.time += 1
        beta_1, beta_2 = self.betas
        now, next_ = (beta_1 * (1 - 0.5 * 0.96 ** ((self.time + ahead) * self.decay)) for ahead in (0, 1))
        self.schedule *= now
        for weight, mean, square in zip(self.weights, self.means, self.squares, strict=True):
            slope = weight.grad if weight.grad is not None else torch.zeros_like(weight)
            mean[...] = beta_1 * mean + (1 - beta_1) * slope
            square[...] = beta_2 * square + (1 - beta_2) * slope**2
            direction = (1 - now) * slope / (1 - self.schedule) + next_ * mean / (1 - self.schedule * next_)
            with torch.no_grad():
                weight -= self.rate * direction / ((square / (1 - beta_2**self.time)).sqrt() + self.epsilon)


def torch_nadam(weights, rate):
    return torch.optim.NAdam(weights, lr=rate)


@pytest.mark.parametrize("kind", ["lstm", "mean"])
@pytest.mark.parametrize("make_optimizer", [torch_nadam, KerasNadam])
@pytest.mark.parametrize("is_equal", [True, False])
def test_nadam_is_that_of_torch_and_of_keras(kind, make_optimizer, is_equal, unequal_slices):
    """Seeds of equal slices step together, by one call; the others wait for each other."""
    mine = [unequal_slices[0 if is_equal else row] for row in range(3)]
    block = new_block(mine[0], kind)
    _, history = finetune(block, mine, **NADAM, **TUNING)
    for row, (seed, one) in enumerate(zip(block.seeds, mine, strict=True)):
        embed, weights = twin_of(block, row)
        optimizer = make_optimizer(list(weights.values()), 1e-2)
        for epoch in range(1, 4):
            expected = step(embed, optimizer, one, list(RealTriplets(one.train, seed).epoch(epoch, 15)))
            found = history.query("seed == @seed and epoch == @epoch").loss.item()
            assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "nadam", "rowwise_adam"])
@pytest.mark.parametrize("random_triplets", [None, 40])
def test_kept_moments_are_those_of_one_optimizer_for_both_trainings(optimizer, random_triplets, unequal_slices):
    """With as many random triplets for each seed, seeds step together in pre-training, but not in fine-tuning."""
    block = new_block(unequal_slices[0], "mean")
    recipe = rlm.Recipe(**NADAM | {"optimizer": optimizer})
    given_ = PRETRAINING | {"epochs": [2], "random_triplets": random_triplets}
    ((trainer, _),) = train_on_random(block, unequal_slices, recipe, redraw="once", **given_)
    _, history = rlm.finetune(trainer.block, unequal_slices, recipe, after=trainer, **TUNING)
    for row, (seed, one) in enumerate(zip(block.seeds, unequal_slices, strict=True)):
        embed, weights = twin_of(block, row)
        if optimizer == "rowwise_adam":  # the table as SparseAdam does it; dense weights as Adam does
            table = rlm.zoo.MeanEncoder(one.vocabulary_size, 4, 5).words.to(torch.float64)
            table.sparse = True
            table.weight = torch.nn.Parameter(weights.pop("words.weight").detach())
            dense = torch.optim.Adam(list(weights.values()), lr=1e-2)
            sparse = torch.optim.SparseAdam(table.parameters(), lr=1e-2)

            def embed(tokens, sizes, table=table, weights=weights):
                return torch.nn.functional.linear(table(tokens).mean(dim=1), *_output(weights))

            made = _Both(sparse, dense)
        else:
            kind = {"adam": torch.optim.Adam, "nadam": torch.optim.NAdam}[optimizer]
            made = kind(list(weights.values()), lr=1e-2)
        drawn = RandomTriplets(one.components, seed, random_triplets or len(one.train), "once")
        for epoch in (1, 2):
            step(embed, made, one, list(drawn.epoch(epoch, 15)))
        for epoch in range(1, 4):
            expected = step(embed, made, one, list(RealTriplets(one.train, seed).epoch(epoch, 15)))
            found = history.query("seed == @seed and epoch == @epoch").loss.item()
            assert found == pytest.approx(expected, abs=1e-6)


def _output(weights):
    return weights["output.weight"], weights["output.bias"]


class _Both:
    def __init__(self, *optimizers):
        self.optimizers = optimizers

    def zero_grad(self):
        for one in self.optimizers:
            one.zero_grad()

    def step(self):
        for one in self.optimizers:
            one.step()


def study(**changed):
    """A config of a small study of two seeds, and their slices."""
    small = {"word_dim": 4, "dim": 5, "negatives": 2, "pretrain_epochs": 2, "max_epochs": 2, "batch_size": 15}
    config = rlm.StudyConfig(**small | changed)
    corpus = rlm.index_corpus(topic_pairs(np.random.default_rng(0), topics=6, pairs=90), config.max_tokens)
    return config, slice_for(config, corpus, [0, 1])


def test_controls_start_with_new_moments_and_zero_epochs_are_no_pretraining():
    losses = {}
    for keep_moments in (False, True):
        for epochs in (0, 2):
            config, slices = study(keep_moments=keep_moments, pretrain_epochs=epochs, optimizer="nadam")
            arms = ["pretrained", "rescaled", "shuffled"]
            for arm, trained in zip(arms, train_arms(config, slices, arms, [0, 1]), strict=True):
                losses[keep_moments, epochs, arm] = trained.history.loss[2:].tolist()
            (scratch,) = train_arms(config, slices, ["scratch"], [0, 1])
            losses[keep_moments, epochs, "scratch"] = scratch.history.loss[2:].tolist()
    for arm in ("rescaled", "shuffled", "scratch"):
        assert losses[True, 2, arm] == losses[False, 2, arm]
    assert losses[True, 2, "pretrained"] != losses[False, 2, "pretrained"]
    assert losses[True, 0, "pretrained"] == losses[True, 0, "scratch"]


STOPPING = {"max_epochs": 12, "patience": 2, "progress": False, "stop_by": "loss"}


def test_a_seed_stops_at_the_lowest_validation_loss(unequal_slices):
    """Against a plain loop with Keras's EarlyStopping and ModelCheckpoint; here epoch 0 counts, too."""
    block = new_block(unequal_slices[0], "mean")
    trained, history = rlm.finetune(block, unequal_slices, rlm.Recipe(**NADAM | {"learning_rate": 3e-2}), **STOPPING)
    ends = []
    for row, (seed, one) in enumerate(zip(block.seeds, unequal_slices, strict=True)):
        embed, weights = twin_of(block, row)
        optimizer = torch.optim.NAdam(list(weights.values()), lr=3e-2)
        best, wait, losses = np.inf, 0, []
        for epoch in range(13):
            if epoch:
                step(embed, optimizer, one, list(RealTriplets(one.train, seed).epoch(epoch, 15)))
            with torch.no_grad():
                losses.append(loss_of(embed, one, one.validation).item())
            if losses[-1] < best:
                best, wait, kept = losses[-1], 0, {name: weight.detach().clone() for name, weight in weights.items()}
            else:
                wait += 1
                if wait == 2:
                    break
        found = history.query("seed == @seed").validation_loss
        np.testing.assert_allclose(found, losses, atol=1e-6)
        for name, weight in kept.items():
            torch.testing.assert_close(trained.weights[name][row], weight, rtol=0, atol=1e-5)
        ends.append(len(losses))
    assert len(set(ends)) > 1


@pytest.mark.parametrize("loss", ["triplet", "facenet", "in_batch", "lossless"])
def test_a_study_reports_the_epoch_of_the_lowest_loss(loss):
    config, slices = study(stop_by="loss", max_epochs=8, patience=3, loss=loss, encoder="mean")
    (trained,) = train_arms(config, slices, ["scratch"], [0, 1])
    lowest = trained.history.groupby("seed").validation_loss.idxmin()
    data = topic_pairs(np.random.default_rng(0), topics=6, pairs=90)
    (block,) = rlm.iter_study(config.model_copy(update={"arms": ("scratch",)}), 2, data=data, n_jobs=1, progress=False)
    assert block.results.best_epoch.tolist() == trained.history.epoch[lowest].tolist()
    expected = trained.history.validation_accuracy[lowest]
    np.testing.assert_allclose(block.results.validation_accuracy, expected, atol=1e-9)
    found = rlm.evaluate(trained.block, slices, "test").triplet_accuracy
    np.testing.assert_allclose(block.results.test_accuracy, found, atol=1e-9)
    assert "validation_loss" not in block.history


def test_the_validation_loss_has_batches_as_training_if_the_loss_takes_their_phrases(slices):
    """Negatives of in_batch are the phrases of a batch: a batch of all triplets would be another task."""
    block = new_block(slices, "mean", seeds=(0,), dtype=torch.float32)
    unit = init_block(lambda: rlm.encoder.OutputStep(block.encoder, "unit"), (0,))
    recipe = rlm.Recipe(loss="in_batch", batch_size=10, learning_rate=1e-7)
    _, history = rlm.finetune(unit, slices, recipe, max_epochs=0, stop_by="loss", progress=False)
    total = 0.0
    for start in range(0, len(slices.validation), 10):
        some = dataclasses.replace(slices, train=slices.validation[start : start + 10])
        _, inner = rlm.finetune(unit, some, recipe, max_epochs=1, progress=False)
        total += inner.loss[1] * len(some.train)
    assert history.validation_loss[0] == pytest.approx(total / len(slices.validation), abs=1e-5)


def test_a_seed_that_diverges_keeps_its_first_weights_and_counts_as_failed(slices):
    block = new_block(slices, "mean", dtype=torch.float32)
    recipe = rlm.Recipe.model_construct(learning_rate=1e30)
    trained, history = rlm.finetune(block, slices, recipe, max_epochs=5, stop_by="loss", progress=False)
    judged = judge_history(history, block.seeds)
    assert judged.has_diverged.all()
    assert (judged.best_epoch == 0).all()
    for name, weight in block.weights.items():
        torch.testing.assert_close(trained.weights[name], weight, rtol=0, atol=0)


class Script(torch.nn.Module):
    """The encoder of the script: an LSTM without a mask that goes backwards over vectors, zeros beside the phrase."""

    def __init__(self, block, row, fixed=False):
        super().__init__()
        weights = dict(block.encoder.named_parameters()) | {name: one[row] for name, one in block.weights.items()}
        weights = {name: one.detach().clone() for name, one in weights.items()}
        self.words = torch.nn.Parameter(weights["words.weight"], requires_grad=not fixed)
        self.layer = torch.nn.LSTM(self.words.shape[1], weights["cell.weight_hh"].shape[1], batch_first=True)
        for name, one in self.layer.named_parameters():
            one.data[...] = weights[f"cell.{name.removesuffix('_l0')}"]
        self.layer.bias_hh_l0.requires_grad_("cell.bias_hh" in block.weights)

    def forward(self, tokens, padding):
        width = tokens.shape[1]
        rows = []
        for row in tokens.tolist():
            phrase = [token for token in row if token]
            beside = [1] * (width - len(phrase))
            rows.append(beside + phrase if padding == "left" else phrase + beside)
        return self.layer(self.words[torch.tensor(rows).flip(1)])[1][0][0]

    def distances(self, slices, triplets, padding):
        used, places = np.unique(triplets, return_inverse=True)
        vectors = self(torch.from_numpy(slices.tokens[used]), padding)
        anchor, positive, negative = vectors[torch.from_numpy(places.reshape(-1, 3))].unbind(1)
        return (anchor - positive).square().sum(1), (anchor - negative).square().sum(1)

    def loss(self, *arguments):
        near, far = self.distances(*arguments)
        return (near - far + 0.5).relu().mean()

    def accuracy(self, *arguments):
        near, far = self.distances(*arguments)
        return ((near < far).double() + (near == far).double() / 2).mean().item()

    def fit(self, optimizer, slices, batches, padding):
        total = 0.0
        for triplets in batches:
            optimizer.zero_grad()
            loss = self.loss(slices, triplets, padding)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(triplets)
        return total / sum(map(len, batches))


def run_script(config, slices, arm, seed, block, row, fixed=False):
    """Train as the script does; return losses of training, of validation, and the test accuracy of the best epoch."""
    script = Script(block, row, fixed)
    optimizer = torch.optim.NAdam([one for one in script.parameters() if one.requires_grad], lr=config.learning_rate)
    if arm == "pretrained_once":
        drawn = RandomTriplets(slices.components, seed, config.random_triplets, "once")
        for epoch in range(1, config.pretrain_epochs + 1):
            script.fit(optimizer, slices, list(drawn.epoch(epoch, config.batch_size)), config.pretrain_padding)
    order, found, best = RealTriplets(slices.train, seed, config.epoch_triplets), [], np.inf
    for epoch in range(config.max_epochs + 1):
        loss = np.nan
        if epoch:
            loss = script.fit(optimizer, slices, list(order.epoch(epoch, config.batch_size)), config.padding)
        with torch.no_grad():
            validation = script.loss(slices, slices.validation, config.padding).item()
        if validation < best:
            best, kept, best_epoch = validation, {n: one.clone() for n, one in script.state_dict().items()}, epoch
        found.append((loss, validation))
        if epoch - best_epoch == config.patience:
            break
    script.load_state_dict(kept)
    with torch.no_grad():
        return np.array(found), script.accuracy(slices, slices.test, config.final_padding)


AUTHOR = {
    "optimizer": "nadam", "learning_rate": 0.01, "keep_moments": True, "stop_by": "loss", "initialisation": "keras",
    "random_triplets": 60, "max_epochs": 6, "patience": 2,
}  # fmt: skip


@pytest.fixture
def vectors(tmp_path):
    """Random vectors of the words of `study`, and of more."""
    rng = np.random.default_rng(0)
    words = [*(f"fill{i}" for i in range(5)), *(f"topic{i}" for i in range(6)), *(f"serial{i}" for i in range(300))]
    path = tmp_path / "words.vec"
    path.write_text("".join(f"{word} {' '.join(f'{x:.4f}' for x in rng.normal(size=4))}\n" for word in words))
    return str(path)


@pytest.mark.parametrize(
    ("padding", "pretrain_padding", "test_padding"),
    [("left", "right", "right"), ("right", "right", None), ("right", "left", "left")],
)
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("arm", ["scratch", "pretrained_once"])
def test_a_study_trains_and_judges_as_the_script(padding, pretrain_padding, test_padding, fixed, arm, vectors):
    """The same initial weights and batches give the same losses, the same best epoch and the same test accuracy."""
    changed = {"word_vectors": vectors, "fixed_vectors": True} if fixed else {}
    changed |= {"padding": padding, "pretrain_padding": pretrain_padding, "test_padding": test_padding}
    config, slices = study(**AUTHOR, **changed, arms=(arm,))
    initial = init_block(encoder_maker(config, slices[0].phrases), [0, 1])
    (trained,) = train_arms(config, slices, [arm], [0, 1])
    data = topic_pairs(np.random.default_rng(0), topics=6, pairs=90)
    (block,) = rlm.iter_study(config, 2, data=data, n_jobs=1, progress=False)
    for row, seed in enumerate([0, 1]):
        expected, accuracy = run_script(config, slices[row], arm, seed, initial, row, fixed)
        found = trained.history.query("seed == @seed")[["loss", "validation_loss"]]
        np.testing.assert_allclose(found, expected, atol=2e-4)
        assert block.results.test_accuracy[row] == pytest.approx(accuracy, abs=0.03)
        assert block.results.epochs[row] == len(expected) - 1


def test_each_padding_changes_its_own_phase():
    data, losses, accuracies = topic_pairs(np.random.default_rng(0), topics=6, pairs=90), {}, {}
    for changed in [{}, {"test_padding": "right"}, {"padding": "right"}, {"padding": "left"}]:
        config, _ = study(**AUTHOR, **changed, arms=("scratch",))
        (block,) = rlm.iter_study(config, 4, data=data, n_jobs=1, progress=False)
        key = config.padding, config.final_padding
        losses[key] = tuple(block.history.loss.dropna())
        accuracies[key] = tuple(block.results.test_accuracy)
    assert losses["masked", "masked"] == losses["masked", "right"]
    assert len(set(losses.values())) == 3
    assert accuracies["masked", "masked"] != accuracies["masked", "right"]


@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_saved_model_reads_padding_as_in_the_test(padding, tmp_path):
    """Its embeddings are those of the script; a word it does not know has the vector of padding."""
    config, slices = study(**AUTHOR, padding="masked", test_padding=padding)
    (trained,) = train_arms(config, slices, ["scratch"], [0, 1])
    rlm.models.Model.of(trained.block, slices[0], config).save(tmp_path / "model")
    model = rlm.load_model(tmp_path / "model")
    script, one = Script(trained.block, 0), slices[0]
    phrases = np.unique(one.test)
    texts = [one.phrases.texts[phrase] for phrase in phrases]
    with torch.no_grad():
        expected = script(torch.from_numpy(one.tokens[phrases]), padding)
        unknown = script(torch.full((1, one.tokens.shape[1]), 1), padding)
    np.testing.assert_allclose(model.encode(texts), expected, atol=1e-5)
    np.testing.assert_allclose(model.encode(texts[:1]), expected[:1], atol=1e-5)  # whatever else is asked
    np.testing.assert_allclose(model.encode(["xyzzy", "xyzzy " * 50]), unknown.expand(2, -1), atol=1e-5)


@given(
    arrays(np.int32, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.integers(2, 9)),
    st.sampled_from(["left", "right"]),
    st.data(),
)
def test_padding_surrounds_the_same_words(words, padding, data):
    lengths = data.draw(arrays(np.int64, len(words), elements=st.integers(0, words.shape[1])))
    tokens = np.where(np.arange(words.shape[1]) < lengths[:, None], words, 0)
    for row, found, length in zip(tokens, pad_tokens(tokens, padding), lengths, strict=True):
        assert found[found > 1].tolist() == row[:length].tolist()
        if length:
            assert (found > 0).all()
            assert (found[-length:] if padding == "left" else found[:length]).min() > 1
        else:
            assert not found.any()
    assert pad_tokens(tokens, "masked") is tokens


@pytest.mark.parametrize("name", list(ENCODERS))
def test_initial_weights_are_those_of_keras(name):
    """By their definitions: Glorot's limits, orthonormal columns, and biases; words stay as they are."""
    torch.manual_seed(0)
    words = [f"word{number}" for number in range(50)]
    encoder = new_encoder(name, words, 16, 24, initialisation="keras")
    for module in encoder.modules():
        if isinstance(module, torch.nn.LSTMCell):
            gates = torch.eye(4)[1].repeat_interleave(module.hidden_size)
            assert torch.equal(module.bias_ih, gates)
            assert not module.bias_hh.any()
            assert not module.bias_hh.requires_grad
            square = module.weight_hh.T @ module.weight_hh
            torch.testing.assert_close(square, torch.eye(module.hidden_size), rtol=0, atol=1e-5)
            weight, fans = module.weight_ih, sum(module.weight_ih.shape)
        elif isinstance(module, torch.nn.Linear | torch.nn.Conv1d):
            assert not module.bias.any()
            weight = module.weight
            fans = sum(weight.shape[:2]) * weight[0, 0].numel()
        else:
            continue
        limit = np.sqrt(6 / fans)
        assert weight.abs().max() <= limit
        if weight.numel() > 200:
            assert kstest(weight.detach().numpy().ravel(), uniform(-limit, 2 * limit).cdf).pvalue > 1e-3
    if name != "dssm":
        torch.manual_seed(0)
        assert torch.equal(encoder.words.weight, new_encoder(name, words, 16, 24).words.weight)


def split_by_triplet(corpus, seed=0, **settings):
    return rlm.slice_corpus(corpus, seed, split_by="triplet", **settings)


def rows_of(slices):
    return np.concatenate([slices.train, slices.validation, slices.test])


@given(st.integers(6, 60), st.integers(1, 3), st.integers(0, 5))
@settings(max_examples=20)
def test_triplets_are_dealt_to_the_splits_at_random(pairs, negatives, seed):
    """Shares as train_test_split has them, up to rounding; nothing is lost; the deal depends on the seed alone."""
    rows = [(f"a{i}", f"b{i}") for i in range(pairs)]
    corpus = rlm.index_corpus(pd.DataFrame(rows, columns=["anchor", "positive"]))
    slices = split_by_triplet(corpus, seed, negatives=negatives)
    count = pairs * negatives
    for part, share in zip((slices.train, slices.validation, slices.test), (0.7, 0.21, 0.09), strict=True):
        assert abs(len(part) - share * count) <= 1
    triplets, counts = np.unique(np.sort(rows_of(slices)[:, :2], axis=1), axis=0, return_counts=True)
    assert len(triplets) == pairs
    assert (counts == negatives).all()
    assert slices.summary.triplets.tolist() == [len(slices.train), len(slices.validation), len(slices.test)]
    again = split_by_triplet(corpus, seed, negatives=negatives)
    assert again.fingerprint == slices.fingerprint


def test_a_split_by_triplet_leaks_and_says_so(caplog):
    rows = [(f"fact{i % 30}", f"question{i}") for i in range(200)]
    data = pd.DataFrame(rows, columns=["anchor", "positive"])
    corpus = rlm.index_corpus(data)
    slices = split_by_triplet(corpus, negatives=2)
    leaked = np.isin(slices.test, slices.train).any(axis=1).mean()
    assert leaked > 0.9
    checks = rlm.audit(corpus, slices).findings.set_index("check")
    assert checks.loc["shared phrases", "severity"] == "warning"
    small = {"encoder": "mean", "word_dim": 4, "dim": 4, "max_epochs": 1, "arms": ("scratch",), "negatives": 2}
    config = rlm.StudyConfig(split_by="triplet", **small)
    results = rlm.run_study(config, 2, data=data, n_jobs=1, progress=False)
    assert f"{100 * leaked:.0f} % of the test triplets have a phrase of the training triplets" in caplog.text
    assert results.test_triplets.tolist() == [len(slices.test)] * 2
    assert results.test_accuracy.between(0, 1).all()


def test_given_negatives_are_kept_unless_they_are_relevant():
    rows = [(f"a{i}", f"p{i}", f"n{i % 7}") for i in range(100)] + [("a0", "p1", "n3"), ("a0", "p2", "p0")]
    corpus = rlm.index_corpus(pd.DataFrame(rows, columns=["anchor", "positive", "negative"]))
    slices = split_by_triplet(corpus)
    assert slices.summary.redrawn_negatives.sum() == 1
    found, given_ = ({tuple(row) for row in some.tolist()} for some in (rows_of(slices), corpus.rows))
    assert len(found - given_) == len(given_ - found) == 1


def test_too_few_triplets_for_three_splits_are_an_error():
    corpus = rlm.index_corpus(pd.DataFrame([("a", "b"), ("c", "d"), ("e", "f")], columns=["anchor", "positive"]))
    with pytest.raises(ValueError, match="expected a triplet for every split, found 3 in all; give more data"):
        split_by_triplet(corpus, negatives=1)


def test_the_preset_is_the_setting_of_the_script():
    """The whole of it, on small data: the same losses and accuracies as the script's own loop."""
    preset = rlm.PRESETS["the author's setting"].config
    small = {"word_dim": 4, "dim": 5, "random_triplets": 300, "pretrain_epochs": 2, "max_epochs": 6, "patience": 3}
    config = rlm.StudyConfig(**dict(preset) | small | {"batch_size": 15, "arms": ("scratch", "pretrained_once")})
    data = topic_pairs(np.random.default_rng(0), topics=6, pairs=200)
    corpus = rlm.index_corpus(data, config.max_tokens)
    slices = slice_for(config, corpus, [0, 1])
    initial = init_block(encoder_maker(config, slices[0].phrases), [0, 1])
    for arm in config.arms:
        (trained,) = train_arms(config, slices, [arm], [0, 1])
        for row, seed in enumerate([0, 1]):
            expected, _ = run_script(config, slices[row], arm, seed, initial, row)
            found = trained.history.query("seed == @seed")[["loss", "validation_loss"]]
            np.testing.assert_allclose(found, expected, atol=2e-4)


def test_own_runs_of_the_script_and_a_study_agree_over_seeds():
    """With draws of their own: initial weights, order, random triplets. The means agree within the interval."""
    preset = rlm.PRESETS["the author's setting"].config
    small = {"word_dim": 6, "dim": 8, "random_triplets": 300, "pretrain_epochs": 2, "max_epochs": 10, "patience": 4}
    config = rlm.StudyConfig(**dict(preset) | small | {"batch_size": 15, "learning_rate": 0.01})
    data = topic_pairs(np.random.default_rng(0), topics=4, pairs=150)
    results = rlm.run_study(config, 12, data=data, n_jobs=1, progress=False)
    (slices,) = slice_for(config, rlm.index_corpus(data, config.max_tokens), [0])
    for arm in config.arms:
        theirs = []
        for seed in range(100, 110):
            initial = init_block(encoder_maker(config, slices.phrases), [seed])
            theirs.append(run_script(config, slices, arm, seed, initial, 0)[1])
        ours = results[results.arm == arm].test_accuracy
        assert ttest_ind(ours, theirs, equal_var=False).pvalue > 1e-3
        assert abs(ours.mean() - np.mean(theirs)) < 0.1
