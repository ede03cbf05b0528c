"""Unlabelled texts: what pre-training draws from, what it must not see, which words an arm knows, and what it gains."""

import gzip
from collections import Counter
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, topic_pairs
from scipy import stats

import rlm
from rlm.config import ReadOptions, StudyConfig
from rlm.data.datasets import load_texts
from rlm.data.phrases import UNKNOWN, tokenise
from rlm.errors import InputError
from rlm.sampler import RandomTriplets
from rlm.store.read import list_studies
from rlm.study import TripletStudy, iter_study, load_corpus, run_block

DATA = topic_pairs(np.random.default_rng(0), topics=6, pairs=120)
OWN = [f"note fill{i % 3} new{i} topic{i % 6}" for i in range(40)]
TEXTS = [*OWN, *OWN[:10], *(text.upper() + "!" for text in DATA["anchor"]), *DATA["positive"], "...", ""]
CONFIG = StudyConfig(
    arms=("scratch", "pretrained", "pretrained_once", "rescaled", "shuffled"), encoder="mean", word_dim=4, dim=6,
    learning_rate=0.01, batch_size=64, negatives=2, pretrain_epochs=2, max_epochs=3, patience=2,
)  # fmt: skip
quickly = partial(rlm.run_study, data=DATA, n_jobs=1, progress=False)


def with_texts(seed=0, **settings):
    return rlm.slice_corpus(rlm.index_corpus(DATA, texts=TEXTS), seed, **settings)


def words_of(slices, *splits):
    phrases = np.unique(np.concatenate([getattr(slices, split) for split in splits]))
    return {tuple(tokenise(slices.phrases.texts[phrase])) for phrase in phrases}


def numbers(table):
    return table.drop(columns="seconds").reset_index(drop=True)


def of_arm(table, arm):
    return numbers(table[table["arm"] == arm]).drop(columns="arm")


class TestSlices:
    def test_held_out_phrases_are_excluded_and_counted(self):
        """Against a loop over the texts: every other text stays, as often as it occurs."""
        slices = with_texts()
        held = {split: words_of(slices, split) for split in ("validation", "test")}
        read = [tuple(tokenise(text)) for text in TEXTS if tokenise(text)]
        kept = Counter(words for words in read if words not in held["validation"] | held["test"])
        found = Counter(tuple(tokenise(slices.phrases.texts[phrase])) for phrase in slices.texts)
        assert found == kept
        assert max(found.values()) == 2
        excluded = slices.summary.set_index("split")["excluded_texts"]
        assert excluded["train"] == 0
        for split, phrases in held.items():
            assert excluded[split] == sum(words in phrases for words in read) > 0

    @pytest.mark.parametrize("split_seed", range(3))
    def test_texts_change_no_split_and_no_negative(self, split_seed):
        ours, plain = with_texts(split_seed), rlm.slice_corpus(rlm.index_corpus(DATA), split_seed)
        for split in ("train", "validation", "test"):
            of_ours, of_plain = (np.array(one.phrases.texts, object)[getattr(one, split)] for one in (ours, plain))
            np.testing.assert_array_equal(of_ours, of_plain)
        shared = ["split", "triplets", "redrawn_negatives", "unknown_words"]
        pd.testing.assert_frame_equal(ours.summary[shared], plain.summary[shared])

    def test_a_share_of_the_pairs_keeps_all_texts(self):
        whole, part = with_texts(), with_texts(train_fraction=0.1)
        assert len(part.train) < len(whole.train) / 5
        np.testing.assert_array_equal(part.texts, whole.texts)

    def test_every_role_is_dealt_uniformly_and_independently_from_the_texts(self):
        slices = with_texts()
        drawn = RandomTriplets(slices.components, seed=0, size=60_000).draw(1, torch.arange(60_000)).numpy()
        phrases, repeats = np.unique(slices.texts, return_counts=True)
        for role in drawn.T:
            assert np.isin(role, phrases).all()
            observed = (role[:, None] == phrases).sum(axis=0)
            assert stats.chisquare(observed, len(role) * repeats / repeats.sum()).pvalue > 1e-3
        bins = drawn % 7
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert stats.chi2_contingency(pd.crosstab(bins[:, one], bins[:, other])).pvalue > 1e-3

    @pytest.mark.parametrize("min_count", [1, 2, 3])
    def test_words_of_the_texts_are_known_after_pretraining_only(self, min_count):
        """Against a loop that counts the different phrases of each word."""
        slices = with_texts(train_fraction=0.01, min_count=min_count)  # one pair
        trained = words_of(slices, "train")
        texts = {tuple(tokenise(slices.phrases.texts[phrase])) for phrase in slices.texts}
        words = {}
        for one, phrases in ((slices, trained), (slices.after_pretraining, trained | texts)):
            count = Counter(word for phrase in phrases for word in set(phrase))
            words[len(words)] = {word for word, number in count.items() if number >= min_count}
            tokens = np.unique(one.tokens)
            assert {one.phrases.words[token - 2] for token in tokens if token > UNKNOWN} == words[len(words) - 1]
        held_out = {word for phrase in words_of(slices, "test") for word in phrase}
        assert held_out & words[1] - words[0]
        assert held_out - words[1]  # the serial number of a test phrase is in no text that stays

    def test_the_vocabulary_depends_on_neither_split_nor_share(self):
        sizes = {one.vocabulary_size for one in (with_texts(), with_texts(1), with_texts(train_fraction=0.1))}
        words = {word for text in [*TEXTS, *DATA["anchor"], *DATA["positive"]] for word in tokenise(text)}
        assert sizes == {len(words) + 2}

    def test_kept_unseen_words_stay_known_to_every_arm(self):
        corpus = load_corpus(CONFIG, DATA, TEXTS)
        config = CONFIG.model_copy(update={"unseen_words": "kept"})
        (slices,) = rlm.study.slice_for(config, corpus, [0])
        np.testing.assert_array_equal(slices.after_pretraining.tokens, slices.tokens)

    def test_without_texts_nothing_changes(self):
        slices = rlm.slice_corpus(rlm.index_corpus(DATA))
        assert slices.after_pretraining is slices
        assert "excluded_texts" not in slices.summary
        np.testing.assert_array_equal(np.stack(slices.components, axis=1), slices.train)


@pytest.fixture(scope="module")
def results():
    return quickly(CONFIG, 4, pretrain_texts=TEXTS)


class TestStudy:
    def test_no_pretraining_is_scratch_exactly(self):
        found = quickly(CONFIG.model_copy(update={"pretrain_epochs": 0}), 3, pretrain_texts=TEXTS)
        for arm in ("pretrained", "pretrained_once", "rescaled"):
            pd.testing.assert_frame_equal(of_arm(found, arm), of_arm(found, "scratch"), check_exact=True)

    def test_scratch_does_not_depend_on_the_setting_of_pretraining(self, results):
        alone = quickly(CONFIG.model_copy(update={"arms": ("scratch",), "random_triplets": 7}), 4, pretrain_texts=TEXTS)
        pd.testing.assert_frame_equal(of_arm(alone, "scratch"), of_arm(results, "scratch"), check_exact=True)

    def test_company_in_a_block_changes_nothing(self, results):
        corpus = load_corpus(CONFIG, DATA, TEXTS)
        for seed in range(4):
            alone = run_block(dict.fromkeys(["pretrained", "rescaled", "shuffled"], CONFIG), corpus, [seed]).results
            together = results[(results["seed"] == seed) & results["arm"].isin(alone["arm"])]
            pd.testing.assert_frame_equal(numbers(alone), numbers(together), rtol=1e-4)

    @pytest.mark.parametrize("padding", ["left", "right"])
    def test_padding_is_put_around_the_words_that_the_arm_knows(self, padding):
        """By hand, in the order of the phases; and no epoch of pre-training is scratch."""
        given = {"padding": padding, "pretrain_padding": "right", "arms": ("scratch", "pretrained"), "max_epochs": 1}
        config = CONFIG.model_copy(update=given)
        found = quickly(config, 1, pretrain_texts=TEXTS)
        wide = with_texts(negatives=2).after_pretraining
        first, second = (rlm.slicer.pad_slices([wide], one) for one in ("right", padding))
        block = rlm.init_block(rlm.arms.encoder_maker(config, wide.phrases), [0])
        settings = {"epochs": [2], "random_triplets": None, "redraw": "epoch", "progress": False}
        ((trainer, _),) = rlm.training.train_on_random(block, first, config, **settings)
        best, _ = rlm.finetune(trainer.block, second, config, max_epochs=1, patience=2, progress=False)
        accuracy = rlm.evaluate(best, second)["triplet_accuracy"]
        np.testing.assert_allclose(accuracy, of_arm(found, "pretrained")["test_accuracy"])
        none = quickly(config.model_copy(update={"pretrain_epochs": 0}), 1, pretrain_texts=TEXTS)
        pd.testing.assert_frame_equal(of_arm(none, "pretrained"), of_arm(none, "scratch"), check_exact=True)

    def test_seeds_with_a_split_each_exclude_the_phrases_of_theirs(self):
        config = CONFIG.model_copy(update={"split": "per_seed", "arms": ("scratch", "pretrained")})
        both = quickly(config, 2, pretrain_texts=TEXTS)
        for seed in range(2):
            fixed = CONFIG.model_copy(update={"split_seed": seed, "arms": config.arms})
            alone = quickly(fixed, [seed], pretrain_texts=TEXTS)
            of_both = both[both["seed"] == seed]
            one, other = (numbers(table).drop(columns="split") for table in (of_both, alone))
            pd.testing.assert_frame_equal(one, other, rtol=1e-4)

    @pytest.mark.parametrize("loss", ["in_batch", "facenet", "dssm", "lossless"])
    def test_every_loss_pretrains_on_texts(self, loss):
        config = CONFIG.model_copy(update={"loss": loss, "arms": ("pretrained",), "max_epochs": 1})
        (block,) = iter_study(config, 2, data=DATA, pretrain_texts=TEXTS, n_jobs=1, progress=False)
        assert np.isfinite(block.pretraining["loss"]).all()
        assert block.results["test_accuracy"].notna().all()

    def test_an_epoch_takes_each_text_once_by_default(self):
        slices = with_texts()
        block = rlm.init_block(partial(rlm.zoo.MeanEncoder, slices.vocabulary_size, 4, 6), [0])
        settings = {"epochs": 1, "progress": False}
        sized = {"random_triplets": len(slices.texts)}
        by_default, named = (rlm.pretrain(block, slices, **settings, **more)[1] for more in ({}, sized))
        pd.testing.assert_frame_equal(by_default, named)
        few, named = (
            rlm.pretrain(block, slices, recipe, **settings, **more)[1]
            for recipe, more in ((rlm.Recipe(epoch_triplets=9), {}), (rlm.Recipe(), {"random_triplets": 9}))
        )
        pd.testing.assert_frame_equal(few, named)

    def test_pretraining_by_hand_gives_the_numbers_of_a_study(self, results):
        slices = with_texts(negatives=2)
        block = rlm.init_block(rlm.arms.encoder_maker(CONFIG, slices.phrases), [0])
        block, _ = rlm.pretrain(block, slices, CONFIG, epochs=2, progress=False)
        best, _ = rlm.finetune(block, slices.after_pretraining, CONFIG, max_epochs=3, patience=2, progress=False)
        accuracy = rlm.evaluate(best, slices.after_pretraining)["triplet_accuracy"]
        expected = of_arm(results, "pretrained")["test_accuracy"]
        np.testing.assert_allclose(accuracy, expected[:1], rtol=1e-4)

    def test_a_block_of_splits_is_smaller_where_their_tables_are_large(self, monkeypatch):
        monkeypatch.setattr(rlm.study, "MOST_TABLE_BYTES", 2**20)
        config = CONFIG.model_copy(update={"split": "per_seed"})
        small, large = (
            TripletStudy(one, load_corpus(one, DATA, [*texts])).largest_block
            for one, texts in ((config, TEXTS), (config, [*TEXTS, *map("long {} word".format, range(10_000))]))
        )
        assert small == rlm.study.LARGEST_BLOCK
        assert 1 <= large < small


class TestStore:
    config = CONFIG.model_copy(update={"arms": ("scratch", "pretrained"), "max_epochs": 1, "pretrain_epochs": 1})

    def test_the_same_texts_continue_a_study_in_whatever_they_come(self, tmp_path):
        db = tmp_path / "s.db"
        quickly(self.config, 2, pretrain_texts=TEXTS, db=db)
        column = pd.DataFrame({"note": TEXTS}, index=range(5, 5 + len(TEXTS)))["note"]
        found = quickly(self.config, 4, pretrain_texts=column, db=db)
        pd.testing.assert_frame_equal(numbers(found), numbers(quickly(self.config, 4, pretrain_texts=np.array(TEXTS))))
        assert len(list_studies(db)) == 1

    @pytest.mark.parametrize("change", [lambda t: t[1:], lambda t: [*t, t[0]], lambda t: t[::-1], lambda t: None])
    def test_other_texts_make_another_study_of_the_same_data(self, change, tmp_path):
        db = tmp_path / "s.db"
        for texts in (TEXTS, change(TEXTS)):
            quickly(self.config, 1, pretrain_texts=texts, db=db)
        assert len(list_studies(db)) == 2
        identities = [TripletStudy(self.config, load_corpus(self.config, DATA, texts)).identify() for texts in
                      (TEXTS, change(TEXTS))]  # fmt: skip
        assert identities[0].key != identities[1].key
        assert identities[0].data == identities[1].data

    def test_a_file_that_changes_makes_another_study(self, tmp_path):
        file, db = tmp_path / "texts.txt", tmp_path / "s.db"
        config = self.config.model_copy(update={"pretrain_texts": str(file)})
        for texts in (TEXTS, TEXTS, TEXTS[1:]):
            file.write_text("\n".join(texts), encoding="utf-8")
            quickly(config, 1, db=db)
        assert len(list_studies(db)) == 2


class TestReading:
    wanted = ("Snow is white", "What is white?", "Снег бел", "a; b, c")

    def write(self, path, frame):
        if path.suffix == ".parquet":
            frame.to_parquet(path)
        elif path.suffix == ".jsonl":
            frame.to_json(path, orient="records", lines=True)
        else:
            frame.to_csv(path, sep="\t" if path.suffix == ".tsv" else ",", index=False)

    def test_a_text_file_has_a_phrase_per_line(self, tmp_path):
        content = "\ufeff" + "\r\n".join(["", *self.wanted, "  ", self.wanted[0], ""])
        (tmp_path / "texts.txt").write_bytes(content.encode())
        (tmp_path / "texts.txt.gz").write_bytes(gzip.compress(content.encode()))
        (tmp_path / "old.txt").write_bytes("\n".join([*self.wanted, self.wanted[0]]).encode("cp1251"))
        reading = ReadOptions(encoding="cp1251")
        for name, options in (("texts.txt", ()), ("texts.txt.gz", ()), ("old.txt", (reading,))):
            assert load_texts(str(tmp_path / name), *options).tolist() == [*self.wanted, self.wanted[0]]

    @pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
    def test_a_table_has_a_column_text(self, suffix, tmp_path):
        path = tmp_path / f"own{suffix}"
        self.write(path, pd.DataFrame({"id": range(4), "text": self.wanted, "label": list("abca")}))
        assert load_texts(str(path)).tolist() == list(self.wanted)
        self.write(path, pd.DataFrame({"id": range(4), "phrase": self.wanted}))
        assert load_texts(str(path), ReadOptions(columns={"text": "phrase"})).tolist() == list(self.wanted)

    @pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
    def test_a_table_of_pairs_has_all_their_phrases(self, suffix, tmp_path):
        path = tmp_path / f"own{suffix}"
        self.write(path, pd.DataFrame({"positive": self.wanted[2:], "anchor": self.wanted[:2], "relevance": [0, 1]}))
        assert sorted(load_texts(str(path))) == sorted(self.wanted)
        self.write(path, pd.DataFrame({"anchor": self.wanted}))
        assert load_texts(str(path)).tolist() == list(self.wanted)

    def test_other_layouts_have_all_their_phrases(self, tmp_path):
        path = tmp_path / "own.txt"
        path.write_text("T: one\nQ: two\nQ: three\nA: no\n", encoding="utf-8")
        assert sorted(load_texts(str(path), ReadOptions(layout="blocks"))) == ["one", "one", "three", "two"]
        path.write_text("one\ntwo\n\nthree\n", encoding="utf-8")
        assert load_texts(str(path), ReadOptions(layout="groups")).tolist() == ["one", "two", "three"]
        path = tmp_path / "own.jsonl"
        path.write_text('{"set": ["one", "two"]}\n{"set": ["three"]}\n', encoding="utf-8")
        assert load_texts(str(path)).tolist() == ["one", "two", "three"]
        path.write_text('{"query": "one", "pos": ["two"], "neg": ["three"]}\n', encoding="utf-8")
        assert set(load_texts(str(path))) == {"one", "two", "three"}

    def test_a_dataset_has_all_its_phrases(self):
        pairs = rlm.load("chatterbot-french")
        assert load_texts("chatterbot-french").tolist() == [*pairs["anchor"], *pairs["positive"]]

    @pytest.mark.parametrize(
        ("name", "content", "reading", "expected"),
        [
            ("own.txt", b"", {}, "expected at least one text, found none"),
            ("own.txt", b"\n \n", {}, "expected at least one text, found none"),
            ("own.csv", b"phrase\nSnow is white\n", {}, "expected one column text, .* found: phrase; name the column"),
            ("own.csv", b"text,text\na,b\n", {}, "expected one column text, .* found: text, text"),
            ("own.csv", b"text\na\n", {"columns": {"text": "phrase"}}, "expected one column text, .* found: text"),
            ("own.txt", "снег".encode("cp1251"), {"encoding": "utf-8"}, "expected utf-8, found something else"),
            ("own.txt", "s\u0437\n".encode("utf-16-le"), {}, "expected UTF-8, found what looks like utf-16-le"),
            ("own.csv", b"text\na\n", {"irrelevant": "x"}, "expected no file of irrelevant pairs"),
            ("own.xlsx", b"PK", {}, "expected CSV, TSV, JSON lines or Parquet, found .xlsx"),
            ("own.txt", b"...\n!\n", {}, "expected unlabelled texts with words, found none in 2"),
        ],
    )
    def test_what_cannot_be_used_is_an_error_before_training(self, name, content, reading, expected, tmp_path):
        (tmp_path / name).write_bytes(content)
        config = StudyConfig(pretrain_texts=str(tmp_path / name), pretrain_reading=reading)
        with pytest.raises(InputError, match=expected):
            quickly(config, 1)

    def test_a_missing_file_is_named(self):
        with pytest.raises(FileNotFoundError, match=r"none\.txt: expected unlabelled texts in a file, found nothing"):
            quickly(StudyConfig(pretrain_texts="none.txt"), 1)

    def test_texts_that_are_all_held_out_are_an_error(self):
        plain = rlm.slice_corpus(rlm.index_corpus(DATA))
        texts = [plain.phrases.texts[phrase] for phrase in np.unique(plain.test)]
        with pytest.raises(
            InputError, match=r"beside the phrases of the validation and test splits, found none: all \d"
        ):
            quickly(CONFIG, 1, pretrain_texts=texts)

    @pytest.mark.parametrize(
        ("texts", "expected"),
        [
            ("one text", "expected a column or a list of texts, found one text"),
            ([], "expected unlabelled texts with words, found none in 0"),
            (pd.Series([1.5, "a"], dtype=object), "expected text in column 'texts', found '1.5' in row 0"),
        ],
    )
    def test_what_are_no_texts_is_an_error(self, texts, expected):
        with pytest.raises(InputError, match=expected):
            quickly(CONFIG, 1, pretrain_texts=texts)

    def test_a_reading_takes_texts_to_read(self):
        with pytest.raises(ValueError, match="expected pretrain_texts, which pretrain_reading needs, found none"):
            StudyConfig(pretrain_reading={"encoding": "cp1251"})


class TestCommands:
    @pytest.fixture
    def files(self, tmp_path):
        DATA.to_csv(tmp_path / "pairs.csv", index=False)
        (tmp_path / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
        return ["--dataset", tmp_path / "pairs.csv", "--pretrain-texts", tmp_path / "texts.txt"]

    def test_a_study_reports_what_is_excluded(self, files, rlm_command, caplog):
        slices = with_texts()
        code, said, _ = rlm_command("study", *files, *QUICK, "--seeds", 2)
        assert code == 0
        assert "scratch" in said
        assert f"pre-training draws from {len(slices.texts)} unlabelled texts" in caplog.text
        assert f"{slices.summary['excluded_texts'].sum()} others are phrases of the validation or test" in caplog.text

    def test_an_audit_names_both(self, files, rlm_command):
        code, said, _ = rlm_command("audit", *files, "--train-fraction", 0.1)
        assert code == 0
        assert f"pre-training draws from {len(with_texts().texts)} unlabelled texts" in said
        assert "words are unknown; positive" in said

    def test_a_pretrained_model_knows_the_words_of_the_texts(self, files, rlm_command, tmp_path):
        for arm, knows in (("scratch", False), ("pretrained", True), ("rescaled", True)):
            options = [one for one in QUICK if not str(one).startswith("--jobs")][1:]
            code, *_ = rlm_command("train", *files, *options, "--min-count", 1, "--arm", arm, "--save", tmp_path / arm)
            assert code == 0
            assert rlm.load_model(tmp_path / arm).knows("new7") is knows

    def test_options_complete_the_reading_of_a_config_file(self, tmp_path):
        from rlm.cli.settings import complete

        stored = StudyConfig(pretrain_texts="a.csv", pretrain_reading={"encoding": "cp1251", "delimiter": ";"})
        (tmp_path / "config.json").write_text(stored.model_dump_json())
        found = complete(
            StudyConfig(pretrain_texts="b.csv", pretrain_reading={"delimiter": "|"}), tmp_path / "config.json"
        )
        assert found.pretrain_texts == "b.csv"
        assert found.pretrain_reading == ReadOptions(encoding="cp1251", delimiter="|")


class TestPlantedCases:
    """Every pair has a word of its own; those of the test are in no training pair."""

    config = StudyConfig(
        encoder="mean", word_dim=16, dim=16, arms=("scratch", "pretrained", "shuffled"), fractions=(0.4, 0.2, 0.4),
        train_fraction=0.25, negatives=4, pretrain_epochs=2, max_epochs=8, patience=8, learning_rate=0.01,
        batch_size=64,
    )  # fmt: skip

    def judge(self, word):
        rng = np.random.default_rng(0)
        fill = rng.integers(20, size=(200, 2))
        rows = [
            (f"ask fill{a} topic{i % 4} own{i}", f"tell fill{b} topic{i % 4} own{i}") for i, (a, b) in enumerate(fill)
        ]
        texts = [f"{first} {word}{i}" for i in range(200) for first in ("about", "note", "see")]
        data = pd.DataFrame(rows, columns=["anchor", "positive"])
        results = rlm.run_study(self.config, 10, data=data, pretrain_texts=texts, n_jobs=1, progress=False)
        return {arm: rlm.compare(results, arm) for arm in self.config.arms[1:]}

    def test_texts_with_the_words_of_the_test_are_found_to_help_and_the_control_tells_why(self):
        found = self.judge("own")
        assert found["pretrained"].decision == "helps"
        assert found["pretrained"].difference.low > 0.05
        assert found["shuffled"].decision == "helps"  # it knows the words, and holds nothing that was memorised

    def test_texts_without_these_words_are_not_found_to_help(self):
        found = self.judge("other")
        assert {one.decision for one in found.values()} == {"no evidence either way"}
