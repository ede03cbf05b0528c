"""Random labels of other samples than those to fine-tune on: nothing else changes, and no held-out sample is seen."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import rlm
from rlm.errors import InputError
from rlm.labels import LabelsConfig, divide, load_digits, load_image_folder, run_labels
from rlm.labels.batches import without_copies
from rlm.labels.study import LabelStudy

CONFIG = LabelsConfig(encoder="mlp", dim=8, shuffles=2, shuffle_epochs=2, max_epochs=2)
quickly = partial(run_labels, CONFIG, 2, n_jobs=1, progress=False)


@pytest.fixture(scope="module")
def digits():
    found = load_digits(400)
    _, first = np.unique(found.inputs.reshape(len(found), -1), axis=0, return_index=True)
    keep = np.sort(first)
    return replace(found, inputs=found.inputs[keep][:200], labels=found.labels[keep][:200])


def other(digits, seed=0):
    """Noise of the same shape, whose labels mean nothing."""
    noise = np.random.default_rng(seed).random((60, *digits.inputs.shape[1:]), np.float32)
    return rlm.labels.Samples(noise, np.zeros(60, np.int64), ("none",))


def numbers(found, *arms):
    results = found.results[found.results["arm"].isin(arms)]
    return results.drop(columns="seconds").reset_index(drop=True)


def test_the_same_samples_change_nothing(digits):
    """Copies of validation and test samples are excluded, so that the training samples remain."""
    plain, same = quickly(samples=digits), quickly(samples=digits, pretrain_samples=digits)
    pd.testing.assert_frame_equal(numbers(same, "scratch", "pretrained"), numbers(plain, "scratch", "pretrained"))
    pd.testing.assert_frame_equal(same.memorising, plain.memorising)


def test_other_samples_change_pretraining_only(digits):
    plain, changed = quickly(samples=digits), quickly(samples=digits, pretrain_samples=other(digits))
    pd.testing.assert_frame_equal(numbers(changed, "scratch"), numbers(plain, "scratch"))
    assert not numbers(changed, "pretrained").equals(numbers(plain, "pretrained"))
    counts = changed.memorising["accuracy"] * 60  # all other samples are memorised
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)


@pytest.mark.parametrize("kind", [np.float32, np.uint8])
def test_no_copy_of_a_held_out_sample_is_seen_in_whatever_type(digits, kind):
    parts, _ = divide(digits, seed=1)
    copies = digits.inputs if kind is np.float32 else np.round(255 * digits.inputs).astype(np.uint8)
    kept = without_copies(replace(digits, inputs=copies), digits, parts)
    np.testing.assert_array_equal(kept.train, parts.train)
    assert not len(kept.validation)
    assert not len(kept.test)


def test_samples_that_are_all_held_out_are_an_error(digits):
    parts, _ = divide(digits, seed=0)
    held = replace(digits, inputs=digits.inputs[parts.test], labels=digits.labels[parts.test])
    with pytest.raises(InputError, match="not in validation or test, found none in 30"):
        run_labels(CONFIG, [0], samples=digits, pretrain_samples=held, n_jobs=1, progress=False)


def test_samples_of_another_shape_are_an_error(digits):
    wide = replace(digits, inputs=np.repeat(digits.inputs, 2, axis=3))
    with pytest.raises(InputError, match=r"of shape \[1, 8, 8\], as those to fine-tune on, found \[1, 8, 16\]"):
        quickly(samples=digits, pretrain_samples=wide)


def test_other_samples_make_another_study(digits):
    samples = (None, other(digits), other(digits), other(digits, seed=1))
    keys = [LabelStudy(CONFIG, digits, pretrain_samples=one).identify().key for one in samples]
    assert keys[1] == keys[2]
    assert len(set(keys)) == 3


def test_a_folder_of_images_needs_no_classes(tmp_path, rlm_command):
    rng = np.random.default_rng(0)
    for number in range(6):
        place = tmp_path / ("inner" if number % 2 else "")
        place.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(256, size=(8, 8), dtype=np.uint8)).save(place / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    found = load_image_folder(tmp_path, labelled=False)
    assert len(found) == 6
    assert found.skipped["path"].tolist() == ["notes.txt"]
    options = ["--encoder", "mlp", "--dim", 8, "--shuffles", 1, "--shuffle-epochs", 1, "--max-epochs", 1]
    code, said, _ = rlm_command("labels", *options, "--pretrain-images", tmp_path, "--seeds", 2, "--jobs", 1)
    assert code == 0
    assert f"to pre-train on: 6 images of {tmp_path}" in said
