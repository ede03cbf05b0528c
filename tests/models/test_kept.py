"""Weights that a study keeps: of all runs or of the best, those that the results are of, also after a restart."""

import logging
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from conftest import topic_pairs

import rlm
from rlm.errors import InputError

DATA = topic_pairs(np.random.default_rng(0), topics=4, pairs=60)
CONFIG = rlm.StudyConfig(
    encoder="mean", arms=("scratch", "small/er: pretrained, dim=8"), pretrain_epochs=1, max_epochs=2, split="per_seed"
)


def run(db, seeds=3, keep="all", **settings):
    settings = {"data": DATA, "block_size": 2, "n_jobs": 1, "progress": False} | settings
    return rlm.run_study(CONFIG, seeds, db=db, keep=keep, **settings)


def kept(db):
    """Return the folders of models by arm and seed."""
    found = sorted(db.with_name(f"{db.name}.weights").glob("*/*/seed*"))
    return {(unquote(path.parent.name), int(path.name.removeprefix("seed"))): path for path in found}


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    db = tmp_path_factory.mktemp("kept") / "study.db"
    return run(db), db


def test_all_models_have_the_accuracy_of_their_runs(every):
    results, db = every
    models = kept(db)
    accuracy = results.set_index(["arm", "seed"])["test_accuracy"]
    assert set(models) == set(accuracy.index)
    for (arm, seed), folder in models.items():
        model, slices = rlm.load_model(folder), rlm.slice_corpus(rlm.index_corpus(DATA), seed)
        assert model.block.seeds == (seed,)
        texts = np.array(slices.phrases.texts)[slices.test]
        anchor, positive, negative = (model.encode(list(column)).astype(float) for column in texts.T)
        gap = ((anchor - negative) ** 2).sum(axis=1) - ((anchor - positive) ** 2).sum(axis=1)
        score = np.where(abs(gap) < 1e-6, 0.5, gap > 0)  # a tie is half right
        assert score.mean() == pytest.approx(accuracy[arm, seed])


def test_the_best_by_validation_stays_also_of_a_study_that_is_extended(tmp_path):
    db = tmp_path / "study.db"
    for seeds in (2, 4):
        results = run(db, seeds, keep="best")
        best = results.sort_values(["validation_accuracy", "seed"], ascending=[False, True]).drop_duplicates("arm")
        assert set(kept(db)) == set(zip(best["arm"], best["seed"], strict=True))


def test_weights_change_no_result_and_what_ended_before_is_told(every, tmp_path, caplog):
    caplog.set_level(logging.INFO, "rlm")
    plain = run(tmp_path / "study.db", 2, keep=None)
    pd.testing.assert_frame_equal(
        plain.drop(columns="seconds"),
        every[0].query("seed < 2").drop(columns="seconds").reset_index(drop=True),
    )
    run(tmp_path / "study.db", 3)
    assert "4 of 6 runs have no weights: they had ended before weights were kept" in caplog.messages
    assert {seed for _, seed in kept(tmp_path / "study.db")} == {2}


def test_what_cannot_be_kept_is_an_error_before_training(tmp_path):
    with pytest.raises(InputError, match="to keep weights, found no db"):
        run(None)
    with pytest.raises(InputError, match="to keep weights, found make_encoder"):
        run(tmp_path / "study.db", make_encoder=lambda size: rlm.zoo.MeanEncoder(size))
