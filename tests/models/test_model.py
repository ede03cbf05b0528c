"""Models: from a trained block to embeddings of raw texts, to a folder and back."""

import dataclasses
import hashlib
import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import topic_pairs
from safetensors.torch import load_file, save_file
from torch_twin import TorchTwin

import rlm.models.model
from rlm.arms import encoder_maker, train_arms
from rlm.block import init_block, of_triplets
from rlm.config import StudyConfig
from rlm.data.corpus import index_corpus
from rlm.engine.accuracy import embed
from rlm.engine.batches import split_batch
from rlm.errors import InputError
from rlm.evaluation.heads import HEADS, score, train_head
from rlm.models.model import Model, load_model
from rlm.models.search import Index
from rlm.study import run_block, slice_for
from rlm.zoo.encoders import ENCODERS

every = pytest.mark.parametrize("kind", ENCODERS)
TEXTS = ["fill1 topic3 serial8", "topic0", "fill1 topic3 serial8", "Topic0!", "новое слово", "", "???", "fill0 fill1"]


def config_of(kind="mean", **settings):
    return StudyConfig(**{"encoder": kind, "word_dim": 4, "dim": 6, "max_epochs": 2, "pretrain_epochs": 1} | settings)


@pytest.fixture(scope="module")
def models(slices):
    """A model of each encoder, the second of three seeds."""
    found = {}
    for kind in ENCODERS:
        config = config_of(kind, loss="facenet" if kind == "bilstm" else "triplet")
        read = dataclasses.replace(slices, tokens=slices.phrases.tokens) if config.keeps_unseen_words else slices
        block = init_block(encoder_maker(config, slices.phrases), (0, 1, 2))
        found[kind] = Model.of(block, read, config, seed=1)
    return found


@pytest.fixture
def saved(models, tmp_path):
    models["mean"].save(tmp_path / "model")
    return tmp_path / "model"


class TestEncode:
    @pytest.mark.parametrize("kind", ["lstm", "mean"])
    def test_equals_the_encoder_on_what_it_was_trained_on(self, kind, models, slices):
        model = models[kind]
        found = model.encode(slices.phrases.texts)
        twin = TorchTwin(kind, {name: weight[0] for name, weight in model.block.weights.items()})
        expected = twin(torch.from_numpy(slices.tokens[:-1])).detach().numpy()
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert found.dtype == np.float32
        assert (slices.tokens == 1).any()

    @every
    def test_reads_as_training_did(self, kind, models):
        model = models[kind]
        found = model.encode(TEXTS)
        assert found.shape == (8, 12 if kind == "bilstm" else 6)
        assert (found[0] == found[2]).all()
        assert (found[1] == found[3]).all()
        assert (found[5] == found[6]).all()
        np.testing.assert_array_equal(model.encode(["foo bar"])[0], model.encode(["новое слово"])[0])
        for row, text in enumerate(TEXTS):
            np.testing.assert_allclose(model.encode([text])[0], found[row], atol=1e-6)

    def test_dssm_reads_the_letters_of_new_words(self, models):
        """Of "topicfill" it knows "#to", "top", "opi", "pic", "fil", "ill"; the others it never saw."""
        model = models["dssm"]
        encoder, weights = model.block.encoder, {name: weight[0] for name, weight in model.block.weights.items()}
        numbers = {}
        for word, token in model.words.items():
            marked = f"#{word}#"
            numbers |= zip(
                (marked[i : i + 3] for i in range(len(word))), encoder.trigrams[token].tolist(), strict=False
            )
        total = sum(weights["hashed"][numbers[one] - 1] for one in ("#to", "top", "opi", "pic", "fil", "ill"))
        hidden = torch.tanh(total + weights["bias"])
        for layer in ("hidden", "output"):
            hidden = torch.tanh(weights[f"{layer}.weight"] @ hidden + weights[f"{layer}.bias"])
        np.testing.assert_allclose(model.encode(["topicfill"])[0], hidden.numpy(), atol=1e-5)
        assert not {"picf", "icf", "cfi"} & numbers.keys()
        assert model.knows("topicfill")
        assert not model.knows("привет")
        assert not models["mean"].knows("topicfill")

    @every
    def test_long_texts_are_cut(self, kind, models):
        long = " ".join(f"fill{i % 3}" for i in range(40))
        cut = " ".join(long.split()[:32])
        np.testing.assert_array_equal(*models[kind].encode([long, cut]))

    @every
    def test_any_number_of_texts(self, kind, models):
        assert models[kind].encode([]).shape == (0, 12 if kind == "bilstm" else 6)
        many = [f"fill{i} topic{j} fill{k}" for i in range(5) for j in range(6) for k in range(100)]
        some = [0, 77, 2500, 2999]
        np.testing.assert_allclose(
            models[kind].encode(many)[some], models[kind].encode([many[i] for i in some]), atol=1e-6
        )

    def test_takes_what_holds_texts(self, models):
        expected = models["mean"].encode(TEXTS)
        for texts in (pd.Series(TEXTS), np.array(TEXTS), np.array(TEXTS, object), tuple(TEXTS)):
            np.testing.assert_array_equal(models["mean"].encode(texts), expected)

    @pytest.mark.parametrize(
        ("texts", "found"),
        [("one", "one text"), (pd.Series(["a", None], dtype=object), "NoneType"), (np.array([3]), "int")],
    )
    def test_takes_nothing_else(self, models, texts, found):
        with pytest.raises(InputError, match=f"expected a list of texts, found {found}"):
            models["mean"].encode(texts)


class TestSaveAndLoad:
    @every
    def test_embeddings_are_the_same_bit_for_bit(self, kind, models, tmp_path):
        models[kind].save(tmp_path / "model")
        state = torch.random.get_rng_state()
        loaded = load_model(tmp_path / "model")
        assert torch.equal(torch.random.get_rng_state(), state)
        np.testing.assert_array_equal(loaded.encode(TEXTS), models[kind].encode(TEXTS))
        assert loaded.config == models[kind].config
        assert loaded.block.seeds == (1,)
        for name, weight in models[kind].block.weights.items():
            assert torch.equal(loaded.block.weights[name], weight)
        loaded.save(tmp_path / "again")
        for path in (tmp_path / "model").iterdir():
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()

    def test_others_can_read_the_files(self, models, saved):
        weights = load_file(saved / "model.safetensors")
        assert {name: one.shape for name, one in weights.items()} == {
            name: weight.shape[1:] for name, weight in models["mean"].block.weights.items()
        }
        assert json.loads((saved / "vocabulary.json").read_text()) == models["mean"].words
        assert {path.name for path in saved.iterdir()} == {"config.json", "vocabulary.json", "model.safetensors"}

    def test_a_new_folder_is_wanted(self, models, saved, tmp_path):
        with pytest.raises(
            InputError, match=r"expected a new folder, found .*model; choose another, or use --overwrite"
        ):
            models["mean"].save(saved)
        with pytest.raises(InputError, match=r"expected a new folder in one that exists, found no .*none"):
            models["mean"].save(tmp_path / "none" / "model")

    def test_a_model_can_be_replaced_and_nothing_else(self, models, saved, tmp_path):
        models["lstm"].save(saved, overwrite=True)
        assert load_model(saved).config.encoder == "lstm"
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "config.json").write_text("{}")
        with pytest.raises(InputError, match="thesis: expected a model"):
            models["lstm"].save(tmp_path / "thesis", overwrite=True)

    def test_what_was_there_survives_a_failure(self, models, saved, tmp_path, monkeypatch):
        before = load_model(saved).encode(TEXTS)
        rename, calls = type(saved).rename, []

        def fails(self, target):
            calls.append(target)
            if len(calls) == 2:
                raise OSError("disk full")
            return rename(self, target)

        monkeypatch.setattr(type(saved), "rename", fails)
        with pytest.raises(OSError, match="disk full"):
            models["lstm"].save(saved, overwrite=True)
        np.testing.assert_array_equal(load_model(saved).encode(TEXTS), before)
        assert [path.name for path in tmp_path.iterdir()] == ["model"]

    def test_a_replacement_that_was_killed_halfway_is_taken_back(self, models, saved, tmp_path):
        """Between the two renames of `rlm.runtime.atomic.write_folder` a model has neither's name."""
        saved.rename(tmp_path / ".old.model")
        np.testing.assert_array_equal(load_model(saved).encode(TEXTS), models["mean"].encode(TEXTS))
        saved.rename(tmp_path / ".old.model")
        with pytest.raises(InputError, match=r"found .*model; choose another, or use --overwrite"):
            models["lstm"].save(saved)
        assert [path.name for path in tmp_path.iterdir()] == ["model"]


class TestHead:
    @pytest.fixture(params=HEADS)
    def headed(self, request, slices):
        """A model of the second of three seeds, with its trained head; the heads of all; the block."""
        config = config_of()
        block = init_block(encoder_maker(config, slices.phrases), (0, 1, 2))
        heads, _ = train_head(block, slices, request.param, max_epochs=2, learning_rate=1e-2)
        return Model.of(block, slices, config, seed=1, heads=heads), heads, block

    def test_it_is_that_of_the_seed_and_comes_back_bit_for_bit(self, headed, slices, tmp_path):
        model, heads, block = headed
        model.save(tmp_path / "model")
        state = torch.random.get_rng_state()
        loaded = load_model(tmp_path / "model")
        assert torch.equal(torch.random.get_rng_state(), state)
        assert loaded.head_name == model.head_name is not None
        for name, weight in loaded.head.state_dict().items():
            assert torch.equal(weight, heads.weights[name][1])
        np.testing.assert_array_equal(loaded.encode(TEXTS), model.encode(TEXTS))
        batch = split_batch(block, slices, "test")
        first, second, _ = of_triplets(embed(block, batch), batch.triplets)
        torch.testing.assert_close(loaded.score(first[1], second[1]), score(heads, first, second)[1])
        loaded.save(tmp_path / "again")
        for path in (tmp_path / "model").iterdir():
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()

    def test_search_by_it_is_a_slow_loop(self, headed):
        model, *_ = headed
        vectors = torch.from_numpy(model.encode(TEXTS))
        found = Index(vectors.numpy(), head=model.head).search(vectors[:3].numpy(), k=4)
        for query, similarity, row in zip(vectors, found.similarity, found.row, strict=False):
            expected = torch.stack([model.head(query, one) for one in vectors])
            np.testing.assert_allclose(similarity, expected.sort(descending=True).values[:4].detach(), atol=1e-5)
            np.testing.assert_allclose(expected[row].detach(), similarity, atol=1e-5)
        assert Index(vectors.numpy(), head=model.head).search(vectors[:0].numpy()).row.shape == (0, 8)
        with pytest.raises(InputError, match=r"expected the method exact for a head, .* found hnsw; drop it"):
            Index(vectors.numpy(), "hnsw", model.head)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda state: state | {"head.form": state["head.form"][:, :-1].contiguous()}, "expected form as"),
            (lambda state: state | {"head.form": state["head.form"] * torch.nan}, "found NaN or infinity"),
            (lambda state: {name: one for name, one in state.items() if name != "head.form"}, "form"),
            (lambda state: state | {"head.other": torch.zeros(1)}, "other"),
        ],
    )
    def test_damage_is_named(self, slices, tmp_path, change, words):
        config = config_of()
        block = init_block(encoder_maker(config, slices.phrases), (0,))
        heads = init_block(lambda: HEADS["bilinear"](6), (0,))
        Model.of(block, slices, config, heads=heads).save(tmp_path / "m")
        save_file(change(load_file(tmp_path / "m" / "model.safetensors")), tmp_path / "m" / "model.safetensors")
        TestDamage().rewrite(tmp_path / "m", "model.safetensors")
        TestDamage().refused(tmp_path / "m", f"a whole model, found: (?s:.*){words}")

    def test_an_unknown_head_is_named(self, saved):
        TestDamage().rewrite(saved, head="cosine")
        TestDamage().refused(saved, "a head of bilinear, mahalanobis, classifier, found 'cosine'")


class TestDamage:
    def refused(self, folder, words):
        with pytest.raises(InputError, match=words) as caught:
            load_model(folder)
        assert str(caught.value).startswith(f"{folder}: expected ")

    def test_nothing_there(self, tmp_path):
        self.refused(tmp_path / "none", "rlm train --save wrote, found: .*No such file.*check the path")

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "{",
            "[]",
            "3",
            '{"architectures": ["Bert"]}',
            '{"format": "rlm model"}',
            '{"format": 1, "version": 1}',
            "[" * 10**5,
        ],
    )
    def test_something_else_there(self, saved, content):
        (saved / "config.json").write_text(content)
        self.refused(saved, "expected a model that rlm train --save wrote, found: ")

    def test_not_text(self, saved):
        (saved / "config.json").write_bytes(b"\xff\xfe\x00")
        self.refused(saved, "expected a model that rlm train --save wrote, found: ")

    @pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.json"])
    def test_a_file_is_missing(self, saved, name):
        (saved / name).unlink()
        self.refused(saved, f"a whole model, found: .*{name}.*get it again")

    @pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.json"])
    @pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
    def test_a_file_is_damaged(self, saved, name, damage):
        content = bytearray((saved / name).read_bytes())
        content[-9] ^= 1
        (saved / name).write_bytes({"cut": content[:-5], "flip": content, "empty": b""}[damage])
        self.refused(saved, f"expected {name} as it was saved, found other content")

    def rewrite(self, folder, name=None, **changes):
        """Changes the description, and makes its checksums right again."""
        description = json.loads((folder / "config.json").read_text()) | changes
        if name:
            description["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        rest = {key: value for key, value in description.items() if key != "sha256"}
        if "sha256" not in changes:
            content = json.dumps(rest, sort_keys=True).encode()
            description["sha256"]["config.json"] = hashlib.sha256(content).hexdigest()
        (folder / "config.json").write_text(json.dumps(description))

    def test_a_newer_version(self, saved):
        self.rewrite(saved, version=3, rlm="9.9")
        self.refused(saved, "expected a model of version 2 or older, found 3, written by rlm 9.9; update rlm")

    def test_the_version_before_had_no_checksum_of_its_config(self, saved, models):
        description = json.loads((saved / "config.json").read_text())
        del description["sha256"]["config.json"]
        (saved / "config.json").write_text(json.dumps(description | {"version": 1}))
        np.testing.assert_array_equal(load_model(saved).encode(TEXTS), models["mean"].encode(TEXTS))

    def test_no_changed_digit_of_the_config_goes_unnoticed(self, saved):
        """Of any setting, such as the longest phrase, or of the seed, or of the size of the vocabulary."""
        whole = (saved / "config.json").read_text()
        before = json.loads(whole)
        digits = [place for place, letter in enumerate(whole) if letter.isdigit()]
        for place in digits[:: max(1, len(digits) // 60)]:
            changed = whole[:place] + str((int(whole[place]) + 1) % 10) + whole[place + 1 :]
            (saved / "config.json").write_text(changed)
            if json.loads(changed) != before:
                with pytest.raises(InputError):
                    load_model(saved)

    @pytest.mark.parametrize("kind", ["mean", "lstm", "dssm"])
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda one: one.double(), r"as float32 \[.*found float64 \["),
            (lambda one: one.bfloat16(), r"as float32 \[.*found bfloat16 \["),
            (lambda one: one.half(), r"as float32 \[.*found float16 \["),
            (lambda one: one[:-1], r"as float32 \[.*found float32 \["),
            (lambda one: one.new_full(one.shape, torch.nan), "found NaN or infinity"),
            (lambda one: one.index_fill(0, torch.tensor([0]), -torch.inf), "found NaN or infinity"),
        ],
    )
    def test_weights_of_another_type_or_shape_or_that_are_not_finite(self, kind, change, words, models, tmp_path):
        models[kind].save(tmp_path / "m")
        state = load_file(tmp_path / "m" / "model.safetensors")
        name = next(name for name in sorted(state) if state[name].is_floating_point())
        state[name] = change(state[name]).contiguous()
        save_file(state, tmp_path / "m" / "model.safetensors")
        self.rewrite(tmp_path / "m", "model.safetensors")
        self.refused(tmp_path / "m", f"expected a whole model, found: [^;]*{name}[^;]*{words}")

    def test_tables_that_do_not_belong_to_the_words(self, models, tmp_path):
        models["dssm"].save(tmp_path / "m")
        state = load_file(tmp_path / "m" / "model.safetensors")
        state["trigrams"][2, 0] = 10**6
        save_file(state, tmp_path / "m" / "model.safetensors")
        self.rewrite(tmp_path / "m", "model.safetensors")
        self.refused(tmp_path / "m", "trigrams in model.safetensors to belong to vocabulary.json")

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"seed": "one"}, "a seed of at least 0, found 'one'"),
            ({"seed": True}, "a seed of at least 0, found True"),
            ({"seed": -1}, "a seed of at least 0, found -1"),
            ({"vocabulary_size": 10**12}, "vocabulary_size between 2 and .*found 1000000000000"),
            ({"vocabulary_size": 193.0}, "vocabulary_size between 2 and .*found 193.0"),
            ({"version": 0}, "config.json of something else"),
            ({"version": True}, "config.json of something else"),
        ],
    )
    def test_numbers_of_another_kind(self, saved, changes, words):
        self.rewrite(saved, **changes)
        self.refused(saved, words)

    def test_two_words_of_one_token(self, saved):
        words = json.loads((saved / "vocabulary.json").read_text())
        first, second, *_ = words
        (saved / "vocabulary.json").write_text(json.dumps(words | {first: words[second]}))
        self.rewrite(saved, "vocabulary.json")
        self.refused(saved, "a different token for every word in vocabulary.json")

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"config": {"encoder": "gru"}}, "encoder: expected 'lstm', "),
            ({"config": {"encoder": "lstm"}}, "LSTMEncoder"),
            ({"vocabulary_size": 9}, "between 1 and 9"),
            ({"vocabulary_size": "many"}, "found 'many'"),
            ({"sha256": {}}, "no 'model.safetensors'"),
        ],
    )
    def test_a_description_of_something_else(self, saved, changes, words):
        self.rewrite(saved, **changes)
        self.refused(saved, f"expected a whole model, found: [^;]*{words}")

    def test_weights_of_something_else(self, saved):
        save_file({"weight": torch.zeros(3000)}, saved / "model.safetensors")
        self.rewrite(saved, "model.safetensors")
        self.refused(saved, "expected a whole model, found: [^;]*MeanEncoder")

    def test_weights_that_are_none(self, saved):
        (saved / "model.safetensors").write_bytes(b"\x80\x04not safetensors")
        self.rewrite(saved, "model.safetensors")
        self.refused(saved, "expected a whole model, found: ")

    def test_a_vocabulary_of_something_else(self, saved):
        (saved / "vocabulary.json").write_text('["word"]')
        self.rewrite(saved, "vocabulary.json")
        self.refused(saved, "expected a whole model, found: ")


class TestTrainArm:
    @pytest.mark.parametrize("arm", ["scratch", "pretrained", "pretrained_once", "rescaled", "shuffled"])
    def test_gives_what_a_study_judges(self, arm):
        """The accuracies of the study's rows are those of these blocks."""
        config = config_of(arms=(arm,))
        corpus = index_corpus(topic_pairs(np.random.default_rng(0), topics=6, pairs=90))
        slices = slice_for(config, corpus, [3, 5])
        (trained,) = train_arms(config, slices, [arm], [3, 5])
        study = run_block({arm: config}, corpus, [3, 5])
        assert rlm.evaluate(trained.block, slices).triplet_accuracy.tolist() == study.results.test_accuracy.tolist()
        order = ["seed", "epoch"]
        pd.testing.assert_frame_equal(
            trained.history.sort_values(order, ignore_index=True).assign(arm=arm), study.history
        )

    def test_arms_that_share_a_pretraining_are_what_they_are_alone(self):
        arms = ("pretrained", "rescaled", "shuffled")
        config = config_of(arms=arms)
        corpus = index_corpus(topic_pairs(np.random.default_rng(0), topics=6, pairs=90))
        together = run_block(dict.fromkeys(arms, config), corpus, [3, 5]).results
        alone = pd.concat([run_block({arm: config}, corpus, [3, 5]).results for arm in arms], ignore_index=True)
        pd.testing.assert_frame_equal(together.drop(columns="seconds"), alone.drop(columns="seconds"))
