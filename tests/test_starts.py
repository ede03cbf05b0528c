"""Arms that start from a function, a saved model or a file, and their controls."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import topic_pairs
from safetensors.torch import save_file
from torch import nn

import rlm
from rlm.arms import encoder_maker, train_arms
from rlm.study import slice_for

DATA = topic_pairs(np.random.default_rng(0), topics=8, pairs=100)
CONFIG = rlm.StudyConfig(encoder="mean", word_dim=4, dim=5, arms=("scratch",), max_epochs=1, min_count=1)
QUIET = {"n_jobs": 1, "progress": False, "data": DATA}
KEPT = ["validation_accuracy", "test_accuracy", "roc_auc", "top_1", "start_change"]


def pretrain(block, slices):
    """What the arm pretrained does, by hand."""
    recipe = rlm.Recipe(epoch_triplets=CONFIG.epoch_triplets)
    return rlm.pretrain(block, slices, recipe, epochs=2, progress=False)[0]


def spoil(block, slices):
    for weight in block.weights.values():
        weight.zero_()
    return block


def start_of(arm, starts, config=CONFIG, seeds=(3, 1)):
    """The weights that an arm starts from: those of a study without fine-tuning."""
    config = config.model_copy(update={"max_epochs": 0})
    corpus = rlm.index_corpus(DATA)
    (trained,) = train_arms(config, slice_for(config, corpus, seeds), [arm], seeds, starts=starts)
    return trained.block


def results_of(config, starts, seeds=2, **settings):
    results = rlm.run_study(config, seeds, starts=starts, **QUIET | settings)
    return {arm: rows[KEPT].reset_index(drop=True) for arm, rows in results.groupby("arm")}


def test_a_function_that_pretrains_is_the_arm_pretrained_and_so_are_its_controls():
    known = ("scratch", "pretrained", "rescaled", "shuffled", "shuffled_change")
    config = CONFIG.model_copy(update={"arms": known, "pretrain_epochs": 2})
    starts = {"mine": pretrain} | {f"mine {control}": (control, "mine") for control in known[2:]}
    found = results_of(config, starts)
    for theirs, mine in zip(known[1:], starts, strict=True):
        pd.testing.assert_frame_equal(found[mine], found[theirs])
    assert (found["scratch"]["start_change"] == 0).all()


def test_a_start_that_returns_the_block_is_scratch_and_one_that_spoils_it_spoils_no_other_arm():
    found = results_of(CONFIG, {"spoilt": spoil, "same": lambda block, slices: block})
    pd.testing.assert_frame_equal(found["same"], found["scratch"])
    pd.testing.assert_frame_equal(found["scratch"], results_of(CONFIG, {})["scratch"])
    assert (found["spoilt"]["start_change"] == 1).all()


def test_a_file_gives_every_seed_its_weights(tmp_path):
    slices = rlm.slice_corpus(rlm.index_corpus(DATA))
    encoder = rlm.zoo.MeanEncoder(slices.vocabulary_size, 4, 5)
    save_file(encoder.state_dict(), tmp_path / "weights.safetensors")
    for name, weight in start_of("mine", {"mine": tmp_path / "weights.safetensors"}).weights.items():
        for row in weight:
            torch.testing.assert_close(row, encoder.state_dict()[name], rtol=0, atol=0)


@pytest.mark.parametrize("loss", ["triplet", "facenet"])
def test_a_saved_model_gives_its_weights_to_its_words_by_their_names(tmp_path, loss):
    other = pd.concat([DATA.iloc[::-3], pd.DataFrame({"anchor": ["new thing"], "positive": ["thing new"]})])
    slices = rlm.slice_corpus(rlm.index_corpus(other), min_count=1)
    block = rlm.init_block(lambda: rlm.zoo.MeanEncoder(slices.vocabulary_size, 4, 5), (7,))
    rlm.models.Model.of(block, slices, CONFIG).save(tmp_path / "model")
    model, config = rlm.load_model(tmp_path / "model"), CONFIG.model_copy(update={"loss": loss})
    start, scratch = start_of("mine", {"mine": model}, config), start_of("scratch", {}, config)
    prefix = "encoder." if loss == "facenet" else ""  # of the output step
    torch.testing.assert_close(start.weights[f"{prefix}output.bias"][1], model.block.weights["output.bias"][0])
    words = rlm.index_corpus(DATA).phrases.words
    mine, initial = (one.weights[f"{prefix}words.weight"] for one in (start, scratch))
    for number, word in enumerate(words, 2):
        for row in range(2):
            known = model.block.weights["words.weight"][0, model.words[word]] if word in model.words else None
            torch.testing.assert_close(mine[row, number], initial[row, number] if known is None else known)
    assert 0 < sum(word in model.words for word in words) < len(words)


def test_a_saved_model_that_reads_letters_starts_no_study_of_other_words(tmp_path):
    config = CONFIG.model_copy(update={"encoder": "dssm"})
    turned = DATA.assign(**{name: [text[::-1] for text in DATA[name]] for name in DATA})
    for data, start in ((DATA, "same"), (turned, "other")):
        (slices,) = slice_for(config, rlm.index_corpus(data), (7,))
        block = rlm.init_block(encoder_maker(config, slices.phrases), (7,))
        rlm.models.Model.of(block, slices, config).save(tmp_path / start)
        model = rlm.load_model(tmp_path / start)
        if start == "same":
            found = start_of("mine", {"mine": model}, config).weights["hashed"]
            torch.testing.assert_close(found[1], block.weights["hashed"][0], rtol=0, atol=0)
        else:
            with pytest.raises(rlm.InputError, match="a model with the trigrams of this study's encoder for the start"):
                rlm.run_study(config, 2, starts={"mine": model}, **QUIET)


def test_another_start_is_another_study_and_the_same_continues(tmp_path):
    db, values = tmp_path / "study.db", [0.0]

    def fill(block, slices):
        for weight in block.weights.values():
            weight.fill_(values[0])
        return block

    for seeds in (2, 3):
        results = rlm.run_study(CONFIG, seeds, starts={"mine": fill}, db=db, **QUIET)
    assert len(rlm.list_studies(db)) == 1
    stored = rlm.read_study(db)
    assert stored.config.arms == ("scratch", "mine")
    pd.testing.assert_frame_equal(stored.finished.results, results)
    values[0] = 1.0
    rlm.run_study(CONFIG, 2, starts={"mine": fill}, db=db, **QUIET)
    rlm.run_study(CONFIG, 2, starts={"mine": fill, "control": ("shuffled", "mine")}, db=db, **QUIET)
    assert len(rlm.list_studies(db)) == 3


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ({"scratch": spoil}, "expected another name than those of the other arms for a start, found 'scratch'"),
        ({"mine": spoil, "control": ("halved", "mine")}, "expected a pair of a control .* and another start"),
        ({"control": ("shuffled", "mine")}, "found .'shuffled', 'mine'."),
        ({"mine": "none.safetensors"}, "expected a state dict in a .safetensors file at none.safetensors"),
        ({"mine": lambda block, slices: None}, "expected a block of seeds .0, 1. of the start mine, found None"),
        ({"mine": lambda block, slices: block.rows([1, 0])}, "expected a block of seeds"),
    ],
)
def test_starts_that_cannot_be_used_are_explained(starts, message):
    with pytest.raises(rlm.InputError, match=message):
        rlm.run_study(CONFIG, 2, starts=starts, **QUIET)


def test_weights_of_another_encoder_are_explained(tmp_path):
    save_file(rlm.zoo.MeanEncoder(10, 4, 6).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(rlm.InputError, match=r"expected words.weight of shape \[\d+, 4\] in the start mine, found"):
        rlm.run_study(CONFIG, 2, starts={"mine": str(tmp_path / "weights.safetensors")}, **QUIET)


def test_controls_of_a_module_are_those_of_its_block():
    make = [nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)) for _ in range(3)]
    initial, trained = (one.state_dict() for one in make[:2])
    trained["1.num_batches_tracked"] = torch.tensor(7)
    for control in (rlm.controls.rescale, rlm.controls.shuffle, rlm.controls.shuffle_change):
        found = control(initial, trained, seed=3)
        make[2].load_state_dict(found)
        assert found["1.num_batches_tracked"] == 7
        assert not torch.equal(found["0.weight"], trained["0.weight"])
        again = control(initial, trained, seed=3)
        assert all(torch.equal(found[name], again[name]) for name in found)
    assert not torch.equal(rlm.controls.shuffle(initial, trained, 4)["0.weight"], found["0.weight"])
    with pytest.raises(rlm.InputError, match=r"expected 0.weight of shape .3, 4. in the trained weights, found none"):
        rlm.controls.shuffle(initial, {}, 0)
