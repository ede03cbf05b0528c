"""Settings and tables that commands read from files."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import QUICK, SMALL, topic_pairs

import rlm
from rlm.config import StudyConfig
from rlm.store.read import list_studies, read_study

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
KEYS = ["arm", "seed", "validation_accuracy", "test_accuracy", "best_epoch", "epochs"]


@pytest.fixture
def settings(tmp_path, pairs):
    config = StudyConfig(dataset=str(pairs), reading={"delimiter": "\t"}, learning_rate=0.0123, **SMALL)
    (tmp_path / "config.json").write_text(config.model_dump_json())
    return config


def test_options_count_before_settings_of_a_file(rlm_command, tmp_path, settings):
    db = tmp_path / "s.db"
    given = ["--config", tmp_path / "config.json", "--patience", 3, "--encoding", "utf-8"]
    code, _, errors = rlm_command("study", *given, "--seeds", 1, "--jobs", 1, "--db", db)
    assert code == 0, errors
    reading = settings.reading.model_copy(update={"encoding": "utf-8"})
    assert read_study(db).config == settings.model_copy(update={"patience": 3, "reading": reading})


@pytest.mark.parametrize(("text", "said"), [("{", "Invalid JSON"), ('{"dims": 3}', "dims"), ('{"dim": -1}', "dim")])
def test_a_file_without_settings_is_refused(rlm_command, tmp_path, text, said):
    (tmp_path / "config.json").write_text(text)
    code, _, errors = rlm_command("study", "--config", tmp_path / "config.json")
    assert code == 2
    assert errors.splitlines()[-1].startswith("rlm: expected settings of a study in ")
    assert said in errors


def test_a_study_of_a_table_continues_one_from_python(rlm_command, tmp_path):
    data, db = topic_pairs(np.random.default_rng(0), topics=6, pairs=90), tmp_path / "s.db"
    data.loc[3, "positive"] = None
    data.to_parquet(tmp_path / "t.parquet")
    with pytest.warns(UserWarning, match="dropped"):
        expected = rlm.run_study(StudyConfig(**SMALL), 2, data=data, n_jobs=1, progress=False)
    with pytest.warns(UserWarning, match="dropped"):
        rlm.run_study(StudyConfig(**SMALL), 1, data=data, db=db, n_jobs=1, progress=False)
    given = ["--table", tmp_path / "t.parquet", "--seeds", 2, "--watched", "--block-size", 1, "--db", db]
    with pytest.warns(UserWarning, match="dropped"):
        code, _, errors = rlm_command("study", *QUICK, *given)
    assert code == 0, errors
    assert len(list_studies(db)) == 1
    stored = read_study(db)
    assert stored.config.dataset == "data"
    assert stored.watched
    found, expected = (
        table[KEYS].sort_values(KEYS[:2], ignore_index=True) for table in (stored.finished.results, expected)
    )
    pd.testing.assert_frame_equal(found, expected, atol=0.02, check_exact=False)


def test_training_writes_its_validation_triplets(rlm_command, tmp_path, settings):
    given = ["--config", tmp_path / "config.json", "--save", tmp_path / "m", "--triplets", tmp_path / "t.json"]
    code, _, errors = rlm_command("train", *given, "--arm", "pretrained")
    assert code == 0, errors
    triplets = pd.DataFrame(json.loads((tmp_path / "t.json").read_text()))
    slices = rlm.prepare(settings)
    assert len(triplets) == len(slices.validation)
    assert list(triplets.iloc[0]) == [slices.phrases.texts[phrase] for phrase in slices.validation[0]]
    assert rlm.load_model(tmp_path / "m").config == settings.model_copy(update={"arms": ("pretrained",)})
