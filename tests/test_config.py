"""The config is a leaf, a recipe and flat JSON; options and margins are defined once."""

import ast
import inspect
import json
import re
import typing

import numpy as np
import pytest
from pydantic import ValidationError

import rlm
from rlm import config as module, controls, variants
from rlm.config import MARGINS, EncoderName, Layout, Loss, ReadOptions, Recipe, StudyConfig
from rlm.variants import ARMS, CONTROLS, REDRAW, Arm
from rlm.zoo import ENCODERS, LOSSES


@pytest.mark.parametrize(("one", "expected"), [(module, {"rlm.errors", "rlm.variants"}), (variants, {"rlm.errors"})])
def test_config_imports_errors_and_arms_only(one, expected):
    tree = ast.parse(inspect.getsource(one))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name.startswith("rlm")} == expected


def test_registries_hold_what_the_options_name():
    assert set(ENCODERS) == set(typing.get_args(EncoderName))
    assert set(LOSSES) == set(typing.get_args(Loss))
    assert list(ARMS) == list(typing.get_args(Arm))
    assert set(CONTROLS) <= set(controls.CONTROLS) <= set(REDRAW)
    assert {name: one.margin for name, one in LOSSES.items() if one.margin is not None} == MARGINS


@pytest.mark.parametrize(
    ("config", "field", "options"),
    [
        (StudyConfig, "arms", Arm),
        (rlm.labels.LabelsConfig, "arms", Arm),
        (StudyConfig, "encoder", EncoderName),
        (StudyConfig, "loss", Loss),
        (ReadOptions, "layout", Layout),
    ],
)
def test_help_describes_every_option(config, field, options):
    description = config.model_fields[field].description
    assert not [name for name in typing.get_args(options) if not re.search(rf"(?<!\w){re.escape(name)}\W", description)]


def test_json_is_flat_and_read_back():
    config = StudyConfig(loss="facenet", margin=0.3, negative_kinds="similar=0.5,random=0.5")
    written = json.loads(config.model_dump_json())
    assert list(written) == list(StudyConfig.model_fields)
    assert StudyConfig.model_validate(written) == config
    assert next(iter(written)) == "dataset"
    assert set(Recipe.model_fields) < set(written)


def test_an_epoch_of_a_study_is_limited():
    assert Recipe().epoch_triplets is None
    assert StudyConfig().epoch_triplets == 20_000
    with pytest.raises(ValidationError, match="epoch_triplets"):
        StudyConfig(epoch_triplets=None)


def test_a_config_is_a_recipe(slices):
    config = StudyConfig(loss="contrastive", margin=0.7, learning_rate=1e-2, batch_size=20, epoch_triplets=50)
    recipe = Recipe(**{name: getattr(config, name) for name in Recipe.model_fields})
    block = rlm.init_block(lambda: rlm.zoo.MeanEncoder(slices.vocabulary_size, 4, 5), (0, 1))
    for train, settings in ((rlm.pretrain, {"epochs": 2}), (rlm.finetune, {"max_epochs": 2})):
        histories = [train(block, slices, one, progress=False, **settings)[1] for one in (config, recipe)]
        np.testing.assert_array_equal(*histories)


def test_moments_of_all_layers_go_with_no_transfer_of_some():
    with pytest.raises(ValidationError, match="expected no transfer with keep_moments"):
        StudyConfig(keep_moments=True, transfer=1)
