"""Word vectors from elsewhere, in files that gensim writes."""

import contextlib
import gzip
import os
import struct
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import topic_pairs

import rlm
import rlm.data.word_vectors
from rlm.arms import encoder_maker
from rlm.data.word_vectors import read_vectors
from rlm.errors import InputError
from rlm.study import TripletStudy

gensim = pytest.importorskip("gensim.models.fasttext", reason="gensim has no wheel for this version of Python")
FastText, KeyedVectors, save_facebook_model = gensim.FastText, gensim.KeyedVectors, gensim.save_facebook_model
WORDS = ("cat", "мяу", "dog", "nowhere")
VECTORS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


@pytest.fixture
def keyed():
    vectors = KeyedVectors(5)
    vectors.add_vectors(["dog", "мяу", "cat"], VECTORS)
    return vectors


class TestReading:
    @pytest.mark.parametrize("name", ["v.bin", "v.vec", "v.txt", "v.txt.gz", "glove.txt", "glove.txt.gz"])
    def test_every_format_gives_the_vectors_of_the_words(self, name, keyed, tmp_path):
        path = tmp_path / name
        keyed.save_word2vec_format(str(path), binary=name == "v.bin", write_header="glove" not in name)
        found = read_vectors(path, WORDS)
        expected = [np.zeros(5), np.zeros(5), VECTORS[2], VECTORS[1], VECTORS[0], np.zeros(5)]
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_a_fasttext_model_knows_words_by_their_ngrams(self, tmp_path):
        texts = [["hallo", "welt"], ["hallo", "hund"]] * 10
        model = FastText(texts, vector_size=4, min_count=1, bucket=100, min_n=3, max_n=4, epochs=1, seed=1)
        path = tmp_path / "model.bin"
        save_facebook_model(model, str(path))
        found = read_vectors(path, ("hallo", "hunde"))
        np.testing.assert_allclose(found[2], model.wv["hallo"], rtol=1e-5)
        np.testing.assert_allclose(found[3], model.wv["hunde"], rtol=1e-5, atol=1e-7)
        assert "hunde" not in model.wv.key_to_index

    def test_what_is_no_file_of_vectors_is_refused(self, tmp_path):
        path = tmp_path / "letter.txt"
        path.write_text("Dear reader,\nnothing here is a number.\n")
        with pytest.raises(InputError, match=r"expected word vectors in .*letter\.txt .*; give another file"):
            read_vectors(path, WORDS)
        with pytest.raises(InputError, match=r"expected word vectors in .*none\.vec"):
            read_vectors(tmp_path / "none.vec", WORDS)

    def test_vectors_of_other_words_are_refused(self, keyed, tmp_path):
        keyed.save_word2vec_format(str(tmp_path / "v.vec"))
        with pytest.raises(InputError, match=r"found none of 2 words in .*v\.vec; give vectors of the same language"):
            read_vectors(tmp_path / "v.vec", ("eins", "zwei"))


SOME = "hat 0.1 0.2 0.3\ndoor 0.4 0.1 0.6\nbus 0.2 0.2 0.9\n"
TABLE = {"hat": [0.1, 0.2, 0.3], "door": [0.4, 0.1, 0.6], "bus": [0.2, 0.2, 0.9]}


class TestText:
    """Files as others write them: every word has its own numbers, or the reason is said."""

    def read(self, tmp_path, content, name="v.txt", words=("hat", "door", "bus")):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_vectors(path, words)

    @pytest.mark.parametrize("header", ["", "3 3\n", "\n3 3\n", "3\t3\r\n"])
    @pytest.mark.parametrize(
        "change",
        [
            lambda text: text,
            lambda text: text.replace(" ", "\t"),
            lambda text: text.replace(" ", "\t", 2),
            lambda text: text.replace("\n", "\r\n"),
            lambda text: text.replace("\n", " \n"),  # as word2vec ends lines
            lambda text: text.replace(" ", "  "),
            lambda text: text.rstrip("\n"),
            lambda text: text.replace("\n", "\n\n"),
            lambda text: " " + text,
        ],
    )
    @pytest.mark.parametrize("mark", ["", "\ufeff"])
    def test_separators_line_ends_and_marks_lose_no_word(self, header, change, mark, tmp_path):
        found = self.read(tmp_path, mark + header + change(SOME))
        np.testing.assert_allclose(found[2:], list(TABLE.values()), rtol=1e-6)

    @pytest.mark.parametrize("header", ["", "6 3\n"])
    def test_words_may_have_spaces(self, header, tmp_path):
        """As in GloVe's file of 840 billion tokens; a no-break space is part of a word, as fastText writes it."""
        odd = ". . . 0.3 0.1 0.2\nat name@domain.com 0.5 0.5 0.1\n\u00a0hat\u2028 0.9 0.9 0.9\n"
        for content in (odd + SOME, SOME + odd):
            found = self.read(tmp_path, header + content)
            np.testing.assert_allclose(found[2:], list(TABLE.values()), rtol=1e-6)

    @pytest.mark.parametrize("bad", ["nan nan nan", "0.1 inf 0.3", "0.1 0.2 -Infinity", "1e39 0.2 0.3"])
    def test_numbers_that_are_not_finite_make_a_word_missing(self, bad, tmp_path, caplog):
        found = self.read(tmp_path, f"3 3\nhat {bad}\n" + SOME.split("\n", 1)[1])
        zeros = [0, 0, 0]
        np.testing.assert_allclose(found, [zeros, zeros, zeros, TABLE["door"], TABLE["bus"]], rtol=1e-6)
        assert "skipped in" in caplog.text
        assert "1 vectors with NaN or infinity" in caplog.text

    def test_large_numbers_are_read_and_leave_the_unknown_word_zero(self, tmp_path):
        found = self.read(tmp_path, "hat 3e38 1 1\ndoor 3e38 1 1\n")
        np.testing.assert_allclose(found[2], [3e38, 1, 1])
        assert not found[1].any()

    def test_the_first_of_several_vectors_counts(self, tmp_path, caplog):
        found = self.read(tmp_path, "hat nan 1 1\n" + SOME + "hat 7 7 7\n")
        np.testing.assert_allclose(found[2], TABLE["hat"], rtol=1e-6)
        assert "1 vectors with NaN or infinity, 1 vectors of a word that has one already" in caplog.text

    def test_words_in_another_encoding_are_counted(self, tmp_path, caplog):
        path = tmp_path / "v.vec"
        path.write_bytes("дом 0.1 0.2 0.3\nкот 0.4 0.1 0.6\ndoor 1 1 1\n".encode("cp1251"))
        read_vectors(path, ["", "", "дом", "кот", "door"])
        assert "2 vectors of words that are not UTF-8" in caplog.text

    def test_a_file_of_single_numbers_has_no_first_line_of_counts(self, tmp_path):
        found = self.read(tmp_path, "1 5\n2 6\nhat 7\n", words=("1", "2", "hat"))
        assert found[2:].tolist() == [[5], [6], [7]]

    @pytest.mark.parametrize("name", ["v.txt", "v.vec.gz", "v.vec.bz2", "v.vec.zst"])
    @pytest.mark.parametrize(
        ("content", "found"),
        [
            ("4 3\n" + SOME, "3 vectors where the first line claims 4; the file may be cut off"),
            ("2 3\n" + SOME, "3 vectors where the first line claims 2"),
            ("3 2\n" + SOME, "vectors of 3 numbers where the first line claims 2"),
            ("3 10000000000\n" + SOME, "claims vectors of 10,000,000,000 numbers; 1 to 100,000 are possible"),
            ("3 0\n" + SOME, "claims vectors of 0 numbers"),
            (SOME + "tree 0.1 0.2\n", "no word with 3 numbers in line 4: 'tree 0.1 0.2'"),
            (SOME + ". . 0.1 0.2\n", r"no word with 3 numbers in line 4: '\. \. 0.1 0.2'"),
            (SOME.replace("0.6", "0,6"), r"text that is not a number in line 2 \(.*0,6"),
            (SOME.encode("utf-16"), "UTF-16; UTF-8 is needed"),
            ("3 3\n", "no vector"),
            ("", "no vector"),
            ("hat\ndoor\n", "no word with numbers in line 1: 'hat'"),
        ],
    )
    def test_damaged_files_are_refused(self, name, content, found, tmp_path):
        content = content if isinstance(content, bytes) else content.encode()
        codec = {"gz": "gzip", "bz2": "bz2", "zst": "zstd"}.get(name.split(".")[-1])
        path = tmp_path / name
        with pa.output_stream(str(path), compression=codec) as stream:
            stream.write(content)
        with pytest.raises(InputError, match=f"expected word vectors in .*{name} .*found: .*{found}.*; give another"):
            read_vectors(path, tuple(TABLE))

    def test_a_claim_beyond_the_size_of_the_file_is_found_before_it_is_read(self, tmp_path):
        with pytest.raises(InputError, match=r"claims 9,000,000,000 vectors of 3 numbers, which take at least"):
            self.read(tmp_path, "9000000000 3\n" + SOME)

    def test_a_line_without_an_end_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr(rlm.data.word_vectors, "LONGEST_LINE", 1000)
        with pytest.raises(InputError, match="a line of more than 1,000 bytes, line 4"):
            self.read(tmp_path, SOME + "x" * 2000)

    def test_a_number_too_many_is_said(self, tmp_path, caplog):
        found = self.read(tmp_path, SOME + "hut 0.1 0.2 0.3 0.4\n", words=("hat", "hut", "door", "bus"))
        np.testing.assert_allclose(found[3], found[1])
        assert "1 vectors with more numbers than the others" in caplog.text

    @pytest.mark.parametrize("name", ["pipe", "folder"])
    def test_what_is_no_file_is_refused(self, name, tmp_path):
        path = tmp_path / name
        path.mkdir() if name == "folder" else os.mkfifo(path)
        with pytest.raises(InputError, match=f"expected word vectors in .*{name} .*is not a file"):
            read_vectors(path, ("hat",))


class TestBinary:
    def write(self, tmp_path, content, name="v.bin"):
        path = tmp_path / name
        with pa.output_stream(str(path), compression="gzip" if name.endswith("gz") else None) as stream:
            stream.write(content)
        return path

    def rows(self, end=b"\n"):
        return [word.encode() + b" " + np.array(row, "<f4").tobytes() + end for word, row in TABLE.items()]

    @pytest.mark.parametrize("name", ["v.bin", "v.bin.gz"])
    @pytest.mark.parametrize("end", [b"\n", b""])
    @pytest.mark.parametrize("chunk", [1, 7, 2**20])
    def test_rows_are_found_wherever_a_chunk_ends(self, name, end, chunk, tmp_path, monkeypatch):
        monkeypatch.setattr(rlm.data.word_vectors, "CHUNK", chunk)
        path = self.write(tmp_path, b"3 3\n" + b"".join(self.rows(end)), name)
        np.testing.assert_allclose(read_vectors(path, tuple(TABLE))[2:], list(TABLE.values()), rtol=1e-6)

    @pytest.mark.parametrize("name", ["v.bin", "v.bin.gz"])
    def test_a_file_cut_anywhere_is_refused(self, name, tmp_path):
        whole = b"3 3\n" + b"".join(self.rows(b""))
        for length in range(len(whole)):
            with pytest.raises(InputError, match="expected word vectors in"):
                read_vectors(self.write(tmp_path, whole[:length], name), tuple(TABLE))

    @pytest.mark.parametrize("name", ["v.bin", "v.bin.gz"])
    @pytest.mark.parametrize("claim", ["3 10000000000", "10000000000 3", "3 0", "2 3", "4 3", "3 2", "-3 3", "three 3"])
    def test_claims_that_are_not_true_are_refused(self, name, claim, tmp_path):
        path = self.write(tmp_path, claim.encode() + b"\n" + b"".join(self.rows()), name)
        with pytest.raises(InputError, match="expected word vectors in"):
            read_vectors(path, tuple(TABLE))

    def test_text_that_is_called_binary_is_read_as_text(self, tmp_path):
        """Twelve letters, the numbers of a line, would do for three binary numbers."""
        found = read_vectors(self.write(tmp_path, b"3 3\n" + SOME.encode()), tuple(TABLE))
        np.testing.assert_allclose(found[2:], list(TABLE.values()), rtol=1e-6)

    def test_a_word_without_an_end_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr(rlm.data.word_vectors, "LONGEST_WORD", 1000)
        monkeypatch.setattr(rlm.data.word_vectors, "CHUNK", 100)
        with pytest.raises(InputError, match="a word of more than 1,000 bytes"):
            read_vectors(self.write(tmp_path, b"9 3\n\0" + b"x" * 9000), ("hat",))


@pytest.fixture(scope="module")
def fasttext(tmp_path_factory):
    texts = [["hallo", "welt"], ["hallo", "hund"], ["größe", "мир"]] * 10
    path = tmp_path_factory.mktemp("fasttext") / "model.bin"
    model = FastText(texts, vector_size=4, min_count=1, bucket=50, min_n=2, max_n=4, epochs=1, seed=1)
    save_facebook_model(model, str(path))
    return model, path


class TestFastText:
    def test_equals_gensim(self, fasttext):
        model, path = fasttext
        words = ("hallo", "hunde", "größe", "größen", "мир", "миру", "x", "日本")
        expected = [model.wv[word] for word in words]
        np.testing.assert_allclose(read_vectors(path, words)[2:], expected, rtol=1e-5, atol=1e-8)

    def test_a_model_cut_anywhere_is_refused(self, fasttext, tmp_path):
        content = fasttext[1].read_bytes()
        path = tmp_path / "m.bin"
        for length in range(4, len(content), 7):
            path.write_bytes(content[:length])
            with pytest.raises(InputError, match="expected word vectors in"):
                read_vectors(path, ("hallo",))

    def test_no_changed_byte_asks_for_memory_or_raises_something_else(self, fasttext, tmp_path):
        """Bytes of the sizes at the beginning, of the words, and of the sizes of both matrices."""
        content = fasttext[1].read_bytes()
        path = tmp_path / "m.bin"
        tracemalloc.start()
        for place in [*range(170), *range(170, len(content), 31)]:
            for value in (0x7F, 0xFF):
                path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
                with contextlib.suppress(InputError):
                    assert np.isfinite(read_vectors(path, ("hallo", "hund"))).all()
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
        tracemalloc.stop()

    @pytest.mark.parametrize(
        ("place", "kind", "value", "found"),
        [
            (64 + 8, "<i", 3, "a supervised fastText model"),
            (64 + 20, "<q", 7, "a quantised fastText model"),
            (8, "<i", 2**31 - 1, "impossible sizes"),
            (64, "<2i", (2**31 - 1,) * 2, "impossible sizes"),
        ],
    )
    def test_others_are_refused_by_name(self, place, kind, value, found, fasttext, tmp_path):
        content = bytearray(fasttext[1].read_bytes())
        struct.pack_into(kind, content, place, *np.atleast_1d(value).tolist())
        (tmp_path / "m.bin").write_bytes(content)
        with pytest.raises(InputError, match=found):
            read_vectors(tmp_path / "m.bin", ("hallo",))

    def test_a_compressed_one_is_to_be_decompressed(self, fasttext, tmp_path):
        (tmp_path / "m.bin.gz").write_bytes(gzip.compress(fasttext[1].read_bytes()))
        with pytest.raises(InputError, match="a compressed fastText model; decompress it"):
            read_vectors(tmp_path / "m.bin.gz", ("hallo",))


class TestRewrittenFile:
    """A process remembers the vectors of a file; those of a file that is written again are read again."""

    def test_of_equal_size_time_and_place(self, tmp_path):
        path = tmp_path / "v.txt"
        path.write_text("hat 0.1 0.2\n")
        before = read_vectors(path, ("hat",))
        times = path.stat()
        path.write_text("hat 0.3 0.2\n")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert read_vectors(path, ("hat",))[2].tolist() == pytest.approx([0.3, 0.2])
        assert before[2].tolist() == pytest.approx([0.1, 0.2])

    def test_who_changes_what_was_read_changes_nothing_that_is_read_later(self, tmp_path):
        (tmp_path / "v.txt").write_text("hat 0.1 0.2\n")
        read_vectors(tmp_path / "v.txt", ("hat",))[:] = 7
        assert read_vectors(tmp_path / "v.txt", ("hat",))[2].tolist() == pytest.approx([0.1, 0.2])

    @pytest.mark.parametrize("jobs", [1, 2])
    def test_studies_of_one_session_train_on_what_the_file_has(self, jobs, corpus, tmp_path):
        """The second study is what a new file of the same content gives, in this process and in reused workers."""
        data = topic_pairs(np.random.default_rng(0), topics=6, pairs=90)
        path, other = tmp_path / "v.vec", tmp_path / "other.vec"
        results = []
        for number, target in enumerate([path, path, other]):
            rng = np.random.default_rng(min(number, 1))
            rows = [" ".join([word, *map(str, rng.normal(size=4))]) for word in corpus.phrases.words]
            target.write_text("\n".join(rows))
            config = rlm.StudyConfig(
                word_vectors=str(target), word_dim=4, dim=4, encoder="mean", max_epochs=1, arms=("scratch",)
            )
            found = rlm.run_study(config, 4, data=data, n_jobs=jobs, progress=False)
            results.append(found.sort_values("seed")["test_accuracy"].tolist())
        assert results[1] == results[2] != results[0]


@pytest.fixture
def path(corpus, tmp_path):
    vectors = KeyedVectors(6)
    vectors.add_vectors(corpus.phrases.words, np.random.default_rng(1).normal(size=(len(corpus.phrases.words), 6)))
    path = tmp_path / "all.vec.gz"
    plain = tmp_path / "all.vec"
    vectors.save_word2vec_format(str(plain))
    path.write_bytes(gzip.compress(plain.read_bytes()))
    return str(path)


class TestConfig:
    @pytest.mark.parametrize("kind", ["lstm", "lstm(cnn)", "mean"])
    @pytest.mark.parametrize("fixed", [False, True])
    def test_encoders_start_from_them_and_train_or_leave_them(self, kind, fixed, path, corpus, slices):
        config = rlm.StudyConfig(
            encoder=kind, word_vectors=path, fixed_vectors=fixed, word_dim=6, dim=5, loss="facenet"
        )
        block = rlm.init_block(encoder_maker(config, corpus.phrases), (0, 1))
        trained, _ = rlm.pretrain(block, slices, rlm.Recipe(loss="facenet"), epochs=1, progress=False)
        expected = torch.from_numpy(read_vectors(Path(path), corpus.phrases.words))
        for one, is_same in ((block, True), (trained, fixed)):
            for row in range(2):
                words = {**one.encoder.state_dict(), **{k: w[row] for k, w in one.weights.items()}}
                name = next(name for name in words if name.endswith("words.weight"))
                assert torch.equal(words[name], expected) == is_same

    def test_a_study_reads_them(self, path):
        data = topic_pairs(np.random.default_rng(0), topics=6, pairs=90)
        config = rlm.StudyConfig(word_vectors=path, fixed_vectors=True, word_dim=6, encoder="mean", max_epochs=1)
        assert config.keeps_unseen_words
        assert len(rlm.run_study(config, 1, data=data, n_jobs=1, progress=False)) == 2

    def test_a_word_has_the_vectors_of_both_files(self, path, corpus, tmp_path):
        """Zeros in the place of the file that lacks it."""
        few, dims = corpus.phrases.words[:3], np.arange(6, dtype=float).reshape(3, 2) + 1
        other = tmp_path / "characters.vec"
        other.write_text("".join(f"{word} {a} {b}\n" for word, (a, b) in zip(few, dims, strict=True)))
        config = rlm.StudyConfig(word_vectors=path, character_vectors=str(other), fixed_vectors=True, word_dim=8)
        table = encoder_maker(config, corpus.phrases)().words.weight.numpy()
        np.testing.assert_array_equal(table[:, :6], read_vectors(Path(path), corpus.phrases.words))
        np.testing.assert_array_equal(table[2:5, 6:], dims)
        assert not table[5:, 6:].any()
        assert not table[:2].any()

    def test_characters_come_with_words_and_count_for_the_store(self, path, corpus, tmp_path):
        with pytest.raises(ValueError, match="expected word_vectors, which character_vectors needs, found none; give"):
            rlm.StudyConfig(character_vectors=path)
        other, digests = tmp_path / "other.vec", set()
        for number in range(2):
            other.write_text("".join(f"{word} {number}.5\n" for word in corpus.phrases.words))
            config = rlm.StudyConfig(word_vectors=path, character_vectors=str(other), word_dim=7)
            digests.add(TripletStudy(config, corpus).identify())
        assert len(digests) == 2

    def test_another_size_is_refused(self, path, corpus):
        with pytest.raises(InputError, match=r"expected word_dim 6, the size of the vectors in .*found 32; set it"):
            encoder_maker(rlm.StudyConfig(word_vectors=path), corpus.phrases)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"fixed_vectors": True}, "expected word_vectors, which fixed_vectors needs, found none"),
            ({"encoder": "dssm", "word_vectors": "x"}, "expected no word_vectors or tokenizer for the encoder dssm"),
        ],
    )
    def test_settings_that_do_nothing_are_refused(self, settings, message):
        with pytest.raises(ValueError, match=message):
            rlm.StudyConfig(**settings)


STRANGE = ["\u00a0hat", "\u3000hat", "hat\u2028", "h\u200cat", "\x85hat"]
ODD = ["nan", "inf", "-inf", "1e39"]
FILES = 400


def odd_file(rng):
    """Lines of a text file of two to five numbers, and what became of each by rules that are written here once more."""
    dim, wanted = int(rng.integers(2, 6)), ("hat", "door", "мяу")
    separator = rng.choice([" ", "\t", "  ", " \t"])
    lines, fates, seen = [], [], {}
    for _ in range(rng.integers(20, 40)):
        numbers = [f"{number:.3f}" for number in rng.normal(size=dim)]
        kind = rng.choice(
            ["plain", "spaces", "strange", "odd", "nameless", "long", "empty"], p=[0.5, 0.1, 0.1, 0.1, 0.05, 0.05, 0.1]
        )
        word = str(rng.choice([*wanted, "tree", "Hat", "3", "-0.5"]))
        if kind == "empty":
            lines.append(str(rng.choice(["", " ", "\t "])))
            continue
        if kind == "spaces":
            word, fate = ". . .", "other"
        elif kind == "strange":
            word, fate = str(rng.choice(STRANGE)), "other"
        elif kind == "nameless":
            word, fate = "", "nameless"
        elif kind == "long":
            numbers, fate = [*numbers, "0.5"], "long"
        elif word not in wanted:
            fate = "other"
        elif word in seen:
            fate = "repeated"
        else:
            fate = "used"
        if kind == "odd":
            numbers[rng.integers(dim)] = str(rng.choice(ODD))
            fate = "not finite" if fate == "used" else fate
        if fate == "used":
            seen[word] = np.array(numbers, float)
        fates.append(fate)
        lines.append(separator.join([word, *numbers]))
    end = rng.choice(["\n", "\r\n", " \n"])
    header = f"{len(fates)}{separator}{dim}{end}" if rng.random() < 0.5 else ""
    text = header + end.join(lines) + (end if rng.random() < 0.5 else "")
    return ("\ufeff" if rng.random() < 0.2 else "") + text, wanted, dim, fates, seen


def test_every_row_of_a_text_file_is_used_or_counted(tmp_path, capsys):
    """Conservation: of each generated file every row has the fate that the generator gave it, and its numbers."""
    names = {
        "used": rlm.data.word_vectors.USED,
        "other": rlm.data.word_vectors.OTHER,
        "nameless": rlm.data.word_vectors.NAMELESS,
        "repeated": rlm.data.word_vectors.REPEATED,
        "long": rlm.data.word_vectors.TOO_LONG,
        "not finite": rlm.data.word_vectors.NOT_FINITE,
    }
    rows = 0
    for seed in range(FILES):
        text, wanted, dim, fates, seen = odd_file(np.random.default_rng(seed))
        path = tmp_path / "v.txt"
        path.write_bytes(text.encode())
        found = rlm.data.word_vectors.scan(path, frozenset(wanted))
        assert found.counts == Counter(names[fate] for fate in fates), seed
        assert found.dim == dim
        assert found.vectors.keys() == seen.keys()
        for word, vector in seen.items():
            np.testing.assert_allclose(found.vectors[word], vector, rtol=1e-6)
        rows += len(fates)
    with capsys.disabled():
        print(f" {FILES} files of vectors, {rows:,} rows", end="")
