"""Files of one's own: every format gives the same slices, whatever is wrong is said with its line."""

import gzip
import json
import lzma
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import topic_pairs
from hypothesis import HealthCheck, given, settings, strategies as st

import rlm
from rlm.errors import InputError

MESSY = ["Null", 'say "no, no"', "NA", "ёж; ёжик | nan", "سلام دنیا", "=1+1", "1e5", "😀 smile"]


@pytest.fixture(scope="module")
def triplets():
    rng = np.random.default_rng(0)
    frame = rlm.data.make_triplets(topic_pairs(rng, topics=12, pairs=60), 2, rng=rng)
    frame.loc[:3, "negative"] = MESSY[:4]
    frame.loc[4:7, "negative"] = MESSY[4:]
    return frame


def fingerprint(frame):
    return rlm.slice_corpus(rlm.index_corpus(frame), seed=0).fingerprint


def compress(path, kind):
    target = path.with_name(path.name + kind)
    with pa.output_stream(str(target), compression="detect") as out:
        out.write(path.read_bytes())
    path.unlink()
    return target


def as_text(encoding="utf-8", suffix=".csv", **style):
    def write(frame, folder):
        path = folder / f"own{suffix}"
        frame.to_csv(path, index=False, encoding=encoding, **style)
        return path

    return write


def as_jsonl(frame, folder):
    frame.to_json(folder / "own.jsonl", orient="records", lines=True)
    return folder / "own.jsonl"


def as_parquet(frame, folder):
    frame.to_parquet(folder / "own.parquet")
    return folder / "own.parquet"


def as_dictionaries(frame, folder):
    frame.astype("category").to_parquet(folder / "own.pq")
    return folder / "own.pq"


def as_saved_dataset(frame, folder):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_pandas(frame).save_to_disk(folder / "own")
    return folder / "own"


def as_dataset_of_parts(frame, folder):
    datasets = pytest.importorskip("datasets")
    parts = {"train": datasets.Dataset.from_pandas(frame), "test": datasets.Dataset.from_pandas(frame[:1])}
    datasets.DatasetDict(parts).save_to_disk(folder / "own")
    return folder / "own"


def as_hub_folder(frame, folder):
    pytest.importorskip("datasets")
    (folder / "own").mkdir()
    frame.to_parquet(folder / "own" / "train-00000.parquet")
    return folder / "own"


FORMATS = {
    "csv": (as_text(), {}),
    "tsv": (as_text(suffix=".tsv", sep="\t", quotechar="`"), {}),
    "quoted tsv": (as_text(sep="\t", quoting=1), {"quotechar": '"'}),
    "semicolons, byte order mark": (as_text("utf-8-sig", sep=";"), {}),
    "bars, UTF-16": (as_text("utf-16", sep="|"), {}),
    "another delimiter and quotation mark": (as_text(sep="~", quotechar="'"), {"delimiter": "~", "quotechar": "'"}),
    "CRLF": (as_text(lineterminator="\r\n"), {}),
    "UTF-8 by name": (as_text(), {"encoding": "utf-8"}),
    "UTF-8 by name, byte order mark": (as_text("utf-8-sig"), {"encoding": "UTF8"}),
    "UTF-16 by name": (as_text("utf-16"), {"encoding": "utf-16-le"}),
    "jsonl": (as_jsonl, {}),
    "parquet": (as_parquet, {}),
    "parquet with dictionaries": (as_dictionaries, {}),
    "dataset": (as_saved_dataset, {}),
    "dataset of parts": (as_dataset_of_parts, {}),
    "folder of a hub dataset": (as_hub_folder, {}),
}


class TestFormats:
    @pytest.mark.parametrize("name", FORMATS)
    def test_every_format_gives_the_same_slices(self, name, triplets, tmp_path):
        write, options = FORMATS[name]
        found = rlm.read(write(triplets, tmp_path), **options)
        assert found.to_numpy().tolist() == triplets.to_numpy().tolist()
        assert fingerprint(found) == fingerprint(triplets)

    @pytest.mark.parametrize("compression", [".gz", ".zst", ".bz2"])
    @pytest.mark.parametrize("name", ["csv", "bars, UTF-16", "jsonl", "parquet"])
    def test_each_may_be_compressed(self, name, compression, triplets, tmp_path):
        write, options = FORMATS[name]
        found = rlm.read(compress(write(triplets, tmp_path), compression), **options)
        assert fingerprint(found) == fingerprint(triplets)

    def test_names_may_be_in_capitals(self, triplets, tmp_path):
        path = compress(as_text()(triplets, tmp_path), ".gz").rename(tmp_path / "OWN.CSV.GZ")
        assert fingerprint(rlm.read(path)) == fingerprint(triplets)

    def test_cp1251_is_read_by_its_name_or_guessed_with_a_warning(self, tmp_path):
        rows = [("Я жду ваших звонков", "ты ждёшь ваших звонков?"), ("Снег белый", "какого цвета снег?")] * 3
        frame = pd.DataFrame(rows, columns=["anchor", "positive"])
        path = as_text("cp1251", sep=";")(frame, tmp_path)
        assert rlm.read(path, encoding="cp1251").to_numpy().tolist() == frame.to_numpy().tolist()
        with pytest.warns(UserWarning, match="is not UTF-8 and was read as cp1251, a guess; name its encoding"):
            assert rlm.read(path).to_numpy().tolist() == frame.to_numpy().tolist()

    def test_columns_have_any_names_and_rows_know_their_lines(self, tmp_path):
        path = tmp_path / "own.csv"
        path.write_text('id,fact,other,question\n1,a,"c\nc",b\n\n2,d,f,e\n')
        found = rlm.read(path, anchor="fact", positive="question", negative="other")
        assert found.index.name == "line"
        assert found.to_dict("index") == {
            2: {"anchor": "a", "positive": "b", "negative": "c\nc"},
            5: {"anchor": "d", "positive": "e", "negative": "f"},
        }
        assert list(rlm.read(path, anchor="fact", positive="question")) == ["anchor", "positive"]

    def test_a_large_file_is_read_in_pieces(self, tmp_path, monkeypatch):
        monkeypatch.setattr("rlm.data.parsers.ROWS_AT_ONCE", 7)
        path = tmp_path / "own.csv"
        path.write_text("anchor,positive\n" + "".join(f"a {i},b {i}\n" for i in range(50)))
        found = rlm.read(path)
        assert found["positive"].tolist() == [f"b {i}" for i in range(50)]
        assert found.index.tolist() == list(range(2, 52))

    def test_attributes_say_where_it_is_from(self, tmp_path):
        path = as_text()(pd.DataFrame({"anchor": ["a"], "positive": ["b"]}), tmp_path)
        attributes = rlm.read(path).attrs
        assert (attributes["name"], attributes["source"], attributes["title"]) == (
            "own.csv",
            str(path),
            "Pairs of own.csv",
        )
        assert attributes["version"].startswith("sha256:")


class TestLayouts:
    def test_blocks_of_premises_and_questions(self, tmp_path):
        path = tmp_path / "own.txt"
        path.write_text("T: Снег белый\nQ: какой снег?\nA: белый\nQ:что белое?\n\nT: a\nQ: b\n")
        found = rlm.read(path, layout="blocks")
        assert found.to_numpy().tolist() == [["Снег белый", "какой снег?"], ["Снег белый", "что белое?"], ["a", "b"]]
        assert found.index.tolist() == [2, 4, 7]

    BLOCKS = """\
T: Снег белый
T: Снег холодный.

Q: какой снег?
A: белый

Q:что это?
------------------------
-----
T: Трава зелёная
Q: что зелёное?
T: Лёд тает
Q: что тает?
Q: что со льдом?
----
"""

    def test_every_premise_of_a_block_goes_with_every_question_of_it(self, tmp_path):
        """Empty lines may be among its questions; a line of hyphens, or a premise after a question, ends a block."""
        (tmp_path / "own.txt").write_text(self.BLOCKS)
        found = rlm.read(tmp_path / "own.txt", layout="blocks")
        snow = [[t, q] for q in ("какой снег?", "что это?") for t in ("Снег белый", "Снег холодный.")]
        grass, ice = ["Трава зелёная", "что зелёное?"], "Лёд тает"
        assert found.to_numpy().tolist() == [*snow, grass, [ice, "что тает?"], [ice, "что со льдом?"]]
        assert found.index.tolist() == [4, 4, 7, 7, 11, 13, 14]

    GROUPS = """\
Солнце всходит рано.
(+) рано всходит солнце
(+) восход ранний
(-) Солнце светит ярко!
(-) - Рано ещё...
---
кот спит
кошка спит

(+) дождь идёт
(-) дождя нет
"""

    def test_texts_marked_minus_are_irrelevant_to_those_that_mean_the_same(self, tmp_path):
        (tmp_path / "own.txt").write_text(self.GROUPS)
        found = rlm.read(tmp_path / "own.txt", layout="groups")
        assert found.attrs["dropped"]["alone with their label"] == 2
        corpus = rlm.index_corpus(found)
        texts = np.array(corpus.phrases.texts)
        same = ["Солнце всходит рано.", "рано всходит солнце", "восход ранний"]
        assert {frozenset(pair) for pair in texts[corpus.rows].tolist()} == {
            *map(frozenset, [same[:2], same[1:], same[::2], ["кот спит", "кошка спит"]])
        }
        other = ["Солнце светит ярко!", "- Рано ещё..."]
        assert sorted(texts[corpus.irrelevant].tolist()) == sorted([a, b] for a in same for b in other)
        assert set(found.index[found["relevance"] == "0"]) == {4, 5}

    def test_manual_negatives_of_marked_groups_are_the_texts_marked_minus(self, tmp_path):
        groups = [[f"g{i} m{j}" for j in range(4)] + [f"(-) g{i} other{j}" for j in range(3)] for i in range(40)]
        (tmp_path / "own.txt").write_text(
            "\n\n".join("\n(+) ".join(group) for group in groups).replace("(+) (-)", "(-)")
        )
        slices = rlm.slice_corpus(rlm.index_corpus(rlm.read(tmp_path / "own.txt", layout="groups")))
        assert slices.summary["redrawn_negatives"].sum() == 0
        for anchor, positive, negative in np.array(slices.phrases.texts)[slices.train]:
            assert anchor.split()[0] == positive.split()[0] == negative.split()[0]
            assert [text.split()[1][0] for text in (anchor, positive, negative)] == ["m", "m", "o"]

    def test_a_group_without_marks_has_no_relevance(self, tmp_path):
        (tmp_path / "own.txt").write_text("a\nb\n\n(+) c\n(+) d\n")
        found = rlm.read(tmp_path / "own.txt", layout="groups")
        assert found.to_dict("list") == {"anchor": ["a", "c"], "positive": ["b", "d"], "label": ["0", "3"]}

    @pytest.mark.parametrize("style", [{"newline": "\r\n"}, {"encoding": "utf-8-sig"}, {"encoding": "utf-16"}])
    @pytest.mark.parametrize("layout", ["blocks", "groups"])
    def test_line_ends_and_marks_make_no_difference(self, tmp_path, layout, style):
        content = {"blocks": self.BLOCKS, "groups": self.GROUPS}[layout]
        (tmp_path / "own.txt").write_text(content, encoding="utf-8")
        expected = rlm.read(tmp_path / "own.txt", layout=layout)
        (tmp_path / "own.txt").write_text(content, **{"encoding": "utf-8"} | style)
        pd.testing.assert_frame_equal(rlm.read(tmp_path / "own.txt", layout=layout), expected)
        joined = f"\ufeff{content}---\n\ufeff{content}".replace("\n", "\r\n")
        (tmp_path / "own.txt").write_bytes(joined.encode())
        twice = rlm.read(tmp_path / "own.txt", layout=layout)
        columns = ["anchor", "positive"]
        pd.testing.assert_frame_equal(
            twice[columns].drop_duplicates().reset_index(drop=True),
            expected[columns].drop_duplicates().reset_index(drop=True),
        )

    def test_groups_and_labels_are_connected_and_give_no_negatives_of_their_own(self, tmp_path):
        rng = np.random.default_rng(0)
        groups = [[f"g{group} m{member}" for member in range(rng.integers(1, 7))] for group in range(40)]
        (tmp_path / "groups.txt").write_text("\n\n".join("\n".join(group) for group in groups))
        labelled = [(text, str(number)) for number, group in enumerate(groups) for text in group]
        rng.shuffle(labelled)
        pd.DataFrame(labelled, columns=["what", "class"]).to_csv(tmp_path / "labels.csv", index=False)
        for found in (
            rlm.read(tmp_path / "groups.txt", layout="groups"),
            rlm.read(tmp_path / "labels.csv", text="what", label="class"),
        ):
            alone = sum(len(group) == 1 for group in groups)
            assert found.attrs["dropped"]["alone with their label"] == alone
            assert len(found) == sum({1: 0, 2: 1}.get(len(group), len(group)) for group in groups)
            slices = rlm.slice_corpus(rlm.index_corpus(found), seed=0, negatives=6)
            group_of = np.array([text.split()[0] for text in slices.phrases.texts])
            for split in (slices.train, slices.validation, slices.test):
                anchor, positive, negative = group_of[split].T
                assert (anchor == positive).all()
                assert (anchor != negative).all()
            assert len(np.unique(group_of[np.unique(slices.train)])) > 1

    def test_empty_labels_are_no_label_and_wordless_texts_break_no_group(self, tmp_path):
        path = tmp_path / "own.csv"
        rows = ["one a,x", "red apple,", "two b,x", "?,x", "fast car,", "three c,x", "four d,x", "!,x", "one a,x"]
        path.write_text("text,label\n" + "\n".join(rows))
        found = rlm.read(path)
        assert found[["anchor", "positive"]].to_numpy().tolist() == [
            ["one a", "two b"],
            ["two b", "three c"],
            ["three c", "four d"],
            ["four d", "one a"],
        ]
        corpus = rlm.index_corpus(found)
        assert corpus.explain_dropped() == "4 without label or words, 1 repeated with the same label"
        path = tmp_path / "own.jsonl"
        path.write_text(
            '{"text": "a", "label": NaN}\n{"text": "b", "label": null}\n' + '{"text": "c", "label": 1}\n' * 2
        )
        with pytest.raises(InputError, match="expected at least two texts with one label"):
            rlm.read(path)

    @pytest.mark.parametrize(("yes", "no"), [("true", "false"), ("True", "False"), ("1", "0"), ("1.0", "0.0")])
    def test_relevance_may_be_said_in_several_ways(self, tmp_path, yes, no):
        (tmp_path / "own.csv").write_text(f"anchor,positive,relevance\na,b,{yes}\na,c,{no}\n")
        corpus = rlm.index_corpus(rlm.read(tmp_path / "own.csv"))
        assert (len(corpus.rows), len(corpus.irrelevant)) == (1, 1)

    def test_relevance_makes_known_negatives(self, tmp_path):
        rng = np.random.default_rng(1)
        rows = [(f"q {i}", f"a {i} {j}", 1) for i in range(60) for j in range(2)]
        rows += [(f"q {i}", f"wrong {i} {j}", 0) for i in range(60) for j in range(2)]
        rng.shuffle(rows)
        path = as_text()(pd.DataFrame(rows, columns=["anchor", "positive", "is_duplicate"]), tmp_path)
        corpus = rlm.index_corpus(rlm.read(path, relevance="is_duplicate"))
        slices = rlm.slice_corpus(corpus, seed=0)
        texts = np.array(slices.phrases.texts)
        for anchor, _, negative in texts[slices.train]:
            assert negative.startswith(f"wrong {anchor.split()[1]} ")
        assert slices.summary["redrawn_negatives"].sum() == 0

    def test_irrelevant_pairs_come_from_a_file_of_their_own(self, tmp_path):
        pairs = pd.DataFrame({"anchor": ["a", "b"], "positive": ["c", "d"]})
        path = as_text()(pairs, tmp_path)
        (tmp_path / "irrelevant.txt").write_text("a|d\n\nb | c\n")
        found = rlm.read(path, irrelevant=str(tmp_path / "irrelevant.txt"))
        corpus = rlm.index_corpus(found)
        texts = np.array(corpus.phrases.texts)
        assert texts[corpus.rows].tolist() == [["a", "c"], ["b", "d"]]
        assert texts[corpus.irrelevant].tolist() == [["a", "d"], ["b", "c"]]
        (tmp_path / "irrelevant.txt").write_bytes("\ufeffa|d\r\n\r\nb | c\r\n".encode())
        pd.testing.assert_frame_equal(rlm.read(path, irrelevant=str(tmp_path / "irrelevant.txt")), found)


HEADER = "anchor\tpositive\tnegative\n"
GZIP = gzip.compress(b"anchor,positive\n" + b"".join(b"word%d,other%d\n" % (i, i) for i in range(3000)))
WRONG = [
    ("own.csv", "", "expected a first line of column names, found nothing"),
    ("own.csv", "\n \n", "expected a first line of column names, found nothing"),
    ("own.csv", HEADER, "expected at least one row, found none"),
    (
        "own.csv",
        "question,answer\na,b\n",
        "column 'anchor' not found; the file has: question, answer. Expected columns",
    ),
    ("own.csv", "anchor\tnegative\na\tb\n", "column 'positive' not found; the file has: anchor, negative"),
    ("own.csv", "anchor,positive,anchor\na,b,c\n", "column 'anchor' found 2 times"),
    ("own.csv", "anchor,positive,negative,relevance\na,b,c,1\n", "either negatives or relevance, found both"),
    (
        "own.csv",
        "anchor,positive\nй,é\n".encode() + b"\xff,b\n",
        "expected UTF-8, found other bytes in line 3; correct",
    ),
    ("own.csv", HEADER + "a\tb\tc\nd\te\n", "expected 3 cells as in the first line, found 2 in line 3"),
    ("own.csv", HEADER + "\na\tb\tc\td\n", "expected 3 cells as in the first line, found 4 in line 3"),
    (
        "own.csv",
        'anchor,positive\n"a\nb",c\nd,e, f\n',
        "found 3 in line 4; correct the line, quoting cells that contain",
    ),
    ("own.csv", 'anchor,positive\na,b\nc,"d\ne,f\n', "found a row at line 3 that cannot be read"),
    ("own.csv", 'anchor,positive\na,"b"c\n', "found a row at line 2 that cannot be read"),
    ("own.csv", "anchor,positive\na," + "b" * 10_000_001, "expected lines of at most 10,000,000 characters"),
    ("own.csv", b"\xff\xfea\x00n\x00c", "expected utf-16, found something else"),
    ("own.csv.gz", GZIP[:2000], "expected a whole file, found"),
    ("own.csv.gz", b"anchor,positive\na,b\n", "expected a whole file, found"),
    ("own.csv.zst", b"nonsense", "expected a whole file, found"),
    ("own.jsonl", "", "expected one JSON object per line, found an empty file"),
    (
        "own.jsonl",
        '{"anchor": "a", "positive": "b"}\n{"anchor": "a"',
        "expected one JSON object per line, found '{\"anch",
    ),
    (
        "own.jsonl",
        '{"anchor": "a", "positive": "b"}\n\n["a", "b"]',
        'expected a JSON object, found \'["a", "b"]\' in line 3',
    ),
    (
        "own.jsonl",
        '{"anchor": "a", "positive": "b"}\n{"anchor": "a"}',
        "expected 'positive' in every line, found anchor in",
    ),
    ("own.jsonl", '{"anchor": "a", "positive": 3}', "expected text as positive, found '3' in line 1"),
    ("own.jsonl", '{"anchor": "a", "positive": "\\ud800"}', "half of a character (a lone surrogate)"),
    ("own.jsonl", "[" * 100_000, "expected one JSON object per line"),
    ("own.parquet", b"PAR1 nonsense", "expected a Parquet file, found"),
    ("own.parquet", "", "expected a Parquet file, found"),
    ("own.xlsx", "PK", "expected CSV, TSV, JSON lines or Parquet, found .xlsx; convert the file"),
    ("own.csv", "text,label,anchor\na,b,c\n", "column 'positive' not found"),
    ("own.csv", "\x1b[31m,b\n1,2\n", "the file has: ?[31m, b"),
    (
        "own.csv",
        b"anchor,positive\n" + "мама,рама\n".encode("cp1251") * 11_000 + b"\x98,b\n",
        "found what begins like",
    ),
]


class TestErrors:
    @pytest.mark.parametrize(("name", "content", "message"), WRONG, ids=[message[:40] for *_, message in WRONG])
    def test_what_is_wrong_is_said(self, tmp_path, name, content, message):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(InputError, match=f"(?s)^{re.escape(str(path))}: .*{re.escape(message)}"):
            rlm.read(path)

    @pytest.mark.parametrize(
        ("layout", "content", "message"),
        [
            ("blocks", "Q: what?\n", "expected a premise (T:) to begin a block, found 'Q: what?' in line 1"),
            ("blocks", "T: a\nQ: b\nWhat?\n", "expected T:, Q: or A: to begin a line, found 'What?' in line 3"),
            ("blocks", "T: a\nQ: b\n---\nQ: c\n", "expected a premise (T:) to begin a block, found 'Q: c' in line 4"),
            (
                "blocks",
                "T: a\n---\nQ: c\n",
                "expected a question (Q:) after the premises, found the end of the block in",
            ),
            ("blocks", "T: a\n", "expected a question (Q:) after the premises, found the end of the block in line 2"),
            ("blocks", "", "expected at least one row, found none"),
            ("groups", "\n\n", "expected at least one row, found none"),
            ("groups", "a\n\nb\n", "expected at least two texts with one label, or in one group; found none"),
        ],
    )
    def test_layouts_say_what_is_wrong(self, tmp_path, layout, content, message):
        (tmp_path / "own.txt").write_text(content)
        with pytest.raises(InputError, match=re.escape(message)):
            rlm.read(tmp_path / "own.txt", layout=layout)

    def test_parquet_that_is_no_text(self, tmp_path):
        bad = pa.array([b"a", b"\xff"]).cast(pa.binary()).view(pa.string())
        pq.write_table(pa.table({"anchor": bad, "positive": ["b", "c"]}), tmp_path / "own.parquet")
        with pytest.raises(InputError, match="expected text in column 'anchor'"):
            rlm.read(tmp_path / "own.parquet")
        pd.DataFrame({"text": ["a"], "label": [["b"]]}).to_parquet(tmp_path / "own.parquet")
        with pytest.raises(InputError, match="expected text in column 'label', found list"):
            rlm.read(tmp_path / "own.parquet")

    def test_columns_of_numbers_are_no_text(self, tmp_path):
        pd.DataFrame({"anchor": ["a"], "positive": [3]}).to_parquet(tmp_path / "own.parquet")
        with pytest.raises(InputError, match="expected text in column 'positive', found int64"):
            rlm.read(tmp_path / "own.parquet")

    def test_options_are_checked(self, tmp_path):
        path = as_text()(pd.DataFrame({"anchor": ["a"], "positive": ["b"]}), tmp_path)
        with pytest.raises(InputError, match="column 'fact' not found; the file has: anchor, positive"):
            rlm.read(path, anchor="fact")
        with pytest.raises(InputError, match="an encoding that Python knows, such as cp1251; found 'utf-9'"):
            rlm.read(path, encoding="utf-9")
        with pytest.raises(ValueError, match=r"(?s)columns.*expected columns for anchor, positive.*found 'anchr'"):
            rlm.read(path, columns={"anchr": "fact"})
        with pytest.raises(ValueError, match=r"expected a known setting, found 'encodin'; did you mean 'encoding'"):
            rlm.read(path, encodin="utf-8")
        with pytest.raises(InputError, match=r"expected columns for anchor.*found label as well; drop it"):
            rlm.read(path, anchor="anchor", label="positive")
        with pytest.raises(ValueError, match="delimiter"):
            rlm.read(path, delimiter="\n")
        with pytest.raises(FileNotFoundError, match="expected a file of premise"):
            rlm.read(path, irrelevant=str(tmp_path / "nothing.txt"))
        with pytest.raises(FileNotFoundError, match=r"other\.csv: expected triplets or pairs in a file, found nothing"):
            rlm.read(tmp_path / "other.csv")


# A corpus of damaged files


def damaged_files():
    """Names and contents: every base format under every kind of damage, at several places."""
    rng = np.random.default_rng(7)
    rows = [(f"question {i} {rng.integers(99)}", f"answer {i} ё{rng.integers(99)}", f"other {i}") for i in range(40)]
    frame = pd.DataFrame(rows, columns=["anchor", "positive", "negative"])
    parquet = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(frame), parquet)
    bases = {
        "own.csv": frame.to_csv(index=False).encode(),
        "own.tsv": frame.to_csv(index=False, sep="\t").encode(),
        "own.jsonl": frame.to_json(orient="records", lines=True, force_ascii=False).encode(),
        "own.parquet": parquet.getvalue().to_pybytes(),
        "own.txt": "\n".join(f"T: {a}\nQ: {p}\nA: {n}\n" for a, p, n in rows).encode(),
    }
    bases |= {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in bases.items()}
    inserted = {
        "NUL": b"\0" * 3,
        "latin-1": b"\xe9\xe8",
        "lone surrogate": b"\xed\xa0\x80",
        "surrogate escape": b'"\\ud800"',
        "quotation mark": b'"',
        "delimiters": b",,\t\t;;",
        "empty lines": b"\n\n\n",
        "carriage return": b"\r",
        "formula": b"=cmd|' /C calc'!A0",
        "right to left": "\u202eمرحبا\u200f".encode(),
        "emoji": "👩‍👩‍👧‍👦".encode(),
        "utf-16": "ключ".encode("utf-16"),
        "brackets": b"{[" * 200,
        "nothing": b"",
    }
    for name, content in bases.items():
        for place in np.linspace(0, len(content), 5).astype(int):
            yield f"{name}, cut at {place}", name, content[:place]
            for damage, some in inserted.items():
                yield f"{name}, {damage} at {place}", name, content[:place] + some + content[place:]
    header = b"anchor,positive\n"
    yield "a line of 10 MB", "own.csv", header + b"a," + b"word " * 2_000_000 + b"\n"
    yield "a cell of 10 MB", "own.jsonl", json.dumps({"anchor": "a", "positive": "word " * 2_000_000}).encode()
    yield "empty columns", "own.csv", header + b",\n" * 30
    yield "header of blanks", "own.csv", b" , \na,b\n"
    yield "random bytes", "own.csv", rng.bytes(5000)
    yield "random bytes, compressed", "own.csv.gz", gzip.compress(rng.bytes(5000))


@pytest.mark.filterwarnings("ignore:.*a guess.*:UserWarning")
def test_damaged_files_are_read_as_documented_or_refused(tmp_path, capsys):
    tried, messages = 0, {}
    for what, name, content in damaged_files():
        path = tmp_path / name
        path.write_bytes(content)
        layout = "blocks" if ".txt" in name else "columns"
        tried += 1
        try:
            frame = rlm.read(path, layout=layout)
            corpus = rlm.index_corpus(frame)
        except InputError as error:
            messages[what] = str(error)
            continue
        assert len(corpus.rows) + len(corpus.irrelevant) + len(corpus.dropped) == len(frame), what
    for what, message in messages.items():
        assert re.search(r"expected|not found|found \d+ times", message), what
        assert message.encode(), what
    with capsys.disabled():
        print(f"{tried} damaged files: {len(messages)} refused, {tried - len(messages)} read", end=" ")
    assert tried >= 300
    assert 0 < len(messages) < tried


@given(st.lists(st.lists(st.text(max_size=8), min_size=2, max_size=3), min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_any_text_survives_csv_and_json(tmp_path, rows):
    frame = pd.DataFrame([row[:2] for row in rows], columns=["anchor", "positive"])
    try:
        frame["anchor"].str.cat().encode() and frame["positive"].str.cat().encode()
    except UnicodeEncodeError:
        return
    as_jsonl_path = tmp_path / "own.jsonl"
    as_jsonl_path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")), encoding="utf-8")
    assert rlm.read(as_jsonl_path).to_numpy().tolist() == frame.to_numpy().tolist()
    path = tmp_path / "own.csv"
    frame.to_csv(path, index=False, quoting=1, lineterminator="\n")
    assert rlm.read(path).to_numpy().tolist() == frame.to_numpy().tolist()


# Layouts that collections of sentence pairs are published in


def texts_of(path, **options):
    found = rlm.read(path, **options)
    return found.drop(columns="label", errors="ignore").to_numpy().tolist()


class TestRecords:
    FRAME = pd.DataFrame({"anchor": ["a", "b"], "positive": ["c", None], "negative": ["e", "NA"]})

    @pytest.mark.parametrize("orient", ["records", "columns", "index", "split", "table", "values"])
    @pytest.mark.parametrize("indent", [None, 2])
    def test_every_orientation_of_pandas(self, tmp_path, orient, indent):
        self.FRAME.to_json(tmp_path / "own.json", orient=orient, indent=indent)
        found = rlm.read(tmp_path / "own.json")
        assert found.index.name == "row"
        assert found.fillna("missing").to_dict("list") == self.FRAME.fillna("missing").to_dict("list")

    def test_lists_are_pairs_or_triplets(self, tmp_path):
        for rows in ([["a", "b"], ["c", "d"]], [["a", "b", "c"], ["d", "e", "f"]]):
            for content in ("\n".join(map(json.dumps, rows)), json.dumps(rows)):
                (tmp_path / "own.jsonl").write_text(content)
                assert texts_of(tmp_path / "own.jsonl") == rows

    def test_sets_are_groups_of_paraphrases(self, tmp_path):
        (tmp_path / "own.jsonl").write_text(
            '{"set": ["a", "b", "c"]}\n{"set": ["d", "e"]}\n{"set": ["f"]}\n{"set": []}\n'
        )
        found = rlm.read(tmp_path / "own.jsonl")
        assert texts_of(tmp_path / "own.jsonl") == [["a", "b"], ["b", "c"], ["c", "a"], ["d", "e"]]
        assert found.attrs["dropped"] == {
            "without label or words": 1,
            "repeated with the same label": 0,
            "alone with their label": 1,
        }
        (tmp_path / "lists.jsonl").write_text('["a", "b", "c"]\n["d", "e"]\n["f", "g", "h", "i", "j"]')
        assert len(texts_of(tmp_path / "lists.jsonl", layout="groups")) == 3 + 1 + 5

    def test_queries_have_relevant_and_irrelevant_texts(self, tmp_path):
        records = [{"query": "a", "pos": ["b", "c"], "neg": ["d"]}, {"query": "e", "pos": ["f"], "scores": [1]}]
        expected = [["a", "b", "1"], ["a", "c", "1"], ["a", "d", "0"], ["e", "f", "1"]]
        for name, content in (("plain", records), ("wrapped", [{"set": record} for record in records])):
            (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)))
            assert texts_of(tmp_path / f"{name}.jsonl") == expected
        pq.write_table(pa.Table.from_pylist(records), tmp_path / "own.parquet")
        assert texts_of(tmp_path / "own.parquet") == expected

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (
                '{"anchor": "a", "positive": "b"}\n{"anchor": "a", "positive": "c", "relevance": 0}',
                "expected anchor, positive as in the lines before, found anchor, positive, relevance in line 2",
            ),
            (
                '{"anchor": "a", "positive": "b", "relevance": 1}\n\n{"anchor": "a", "positive": "c"}',
                "expected 'relevance' in every line, found anchor, positive in line 3",
            ),
            ('["a", "b"]\n["a", "b", "c"]', "expected anchor, positive as in the lines before, found anchor"),
            ('["a", "b", "c", "d"]', "expected lists of two texts (pairs) or three (triplets), found 4 in line 1"),
            ('["a", 3]', "expected text as positive, found '3' in line 1"),
            (
                '[{"anchor": "a", "positive": "b"}',
                "expected a comma or the end of the array, found 'the end of the file'",
            ),
            ('[["a", "b"]] ["c", "d"]', "expected the end after the array"),
            ('{"anchor": "a", "positive": "b", "anchor": "c"}', "a key occurs twice"),
            ('{"anchor": {"0": "a"}, "positive": {"1": "b"}}', "expected columns of the same rows"),
            ("[]", "expected one JSON object per line, found an empty file"),
            ('{"set": "a"}', "expected texts as set, found"),
            ('{"set": ["a"], "label": "b"}', "column 'anchor' not found"),
        ],
    )
    def test_no_role_is_ignored(self, tmp_path, content, message):
        (tmp_path / "own.jsonl").write_text(content)
        with pytest.raises(InputError, match=re.escape(message)):
            rlm.read(tmp_path / "own.jsonl")


class TestRoles:
    @pytest.mark.parametrize("labels", [["1", "0"], ["True", "False"], ["yes", "no"], ["0.8", "0.1"], ["x", "y"]])
    def test_a_label_beside_pairs_is_no_relevance_and_no_class_in_silence(self, tmp_path, labels):
        frame = pd.DataFrame({"anchor": ["a", "a"], "positive": ["b", "c"], "label": labels})
        for read in (rlm.index_corpus, lambda frame: rlm.read(as_text()(frame, tmp_path))):
            with pytest.raises(InputError, match="is relevance meant, 1 for relevant and 0 for irrelevant pairs"):
                read(frame)

    def test_a_label_that_is_named_as_relevance_is_one(self, tmp_path):
        frame = pd.DataFrame({"anchor": ["a", "a"], "positive": ["b", "c"], "label": [1, 0]})
        corpus = rlm.index_corpus(rlm.read(as_text()(frame, tmp_path), relevance="label"))
        assert (len(corpus.rows), len(corpus.irrelevant)) == (1, 1)

    def test_labels_of_texts_may_be_numbers_in_files_and_frames(self, tmp_path):
        frame = pd.DataFrame({"text": ["a", "b", "c", "d"], "label": [0, 1, 0, 1]})
        corpora = [rlm.index_corpus(frame), rlm.index_corpus(rlm.read(as_text()(frame, tmp_path)))]
        assert corpora[0].fingerprint == corpora[1].fingerprint
        assert corpora[0].is_transitive

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            (["anchor", "positive", "Relevance"], "use relevance='Relevance'"),
            (["anchor", "positive", "negative_1"], "use negative='negative_1'"),
            (["anchor", "positive", "text"], "found 'text'; drop or rename it"),
            *(
                (["anchor", "positive", name], f"use relevance='{name}'")
                for name in (
                    "relevant",
                    "is_relevant",
                    "relevance_score",
                    "gold_label",
                    "gold",
                    "score",
                    "is_duplicate",
                    "target",
                )
            ),
            (["anchor", "positive", "hard_negative"], "use negative='hard_negative'"),
            (["anchor", "positive", "positive.1"], "found 'positive.1'"),
            (["text", "label", "relevance"], "found 'relevance'; drop or rename it"),
            (["text", "label", "negative"], "found 'negative'; drop or rename it"),
        ],
    )
    def test_columns_that_cannot_be_used_are_refused_by_name(self, tmp_path, columns, message):
        frame = pd.DataFrame([["a", "b", "1"], ["c", "b", "1"]], columns=columns)
        for read in (rlm.index_corpus, lambda frame: rlm.read(as_text()(frame, tmp_path))):
            with pytest.raises(InputError, match=re.escape(message)):
                read(frame)

    @pytest.mark.parametrize(
        "labels",
        [
            *(["1", "0", "?"], ["0.8", "0.1", "n/a"], ["50%", "10%", "90%"], ["entailment", "contradiction", "-"]),
            *(["yes", "no", "maybe"], ["pos", "neg"], ["similar", "different"], ["paraphrase", "not_paraphrase"]),
            *(["duplicate", "non-duplicate"], ["LABEL_1", "LABEL_0"], ["да", "нет"], ["１", "０"], ["good", "bad"]),
            ["related", "unrelated"],
        ],
        ids=",".join,
    )
    def test_answers_are_no_classes(self, labels):
        """Pairs that are told irrelevant are not trained as relevant."""
        rows = [(f"hat {number}", f"cap {number}", label) for number, label in enumerate(labels * 4)]
        frame = pd.DataFrame(rows, columns=["anchor", "positive", "label"])
        with pytest.raises(InputError, match="is relevance meant"):
            rlm.index_corpus(frame)

    def test_a_level_of_the_index_may_be_called_label(self):
        index = pd.Index([1, 2, 3, 4], name="label")
        frame = pd.DataFrame({"text": ["a b", "c d", None, "e f"], "label": ["x", "x", "y", "x"]}, index=index)
        assert len(rlm.index_corpus(frame).phrases.texts) == 3

    def test_lists_by_other_names_are_not_ignored(self, tmp_path):
        path = tmp_path / "q.jsonl"
        path.write_text('{"query": "a b", "pos": ["c d"], "negs": ["e f"]}\n', encoding="utf-8")
        with pytest.raises(InputError, match="found 'negs' in line 1; rename or drop it"):
            rlm.read(path)

    def test_pairs_of_a_label_that_share_nothing_are_told(self):
        texts = {"anchor": ["a", "c", "e", "g", "i"], "positive": ["b", "d", "f", "h", "j"]}
        frame = pd.DataFrame(texts | {"label": ["x", "x", "y", "z", "v"]})
        with pytest.warns(UserWarning, match="found 2 groups with label 'x' that share none"):
            rlm.index_corpus(frame)


class TestBounds:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        for name in ("textfiles", "parsers", "json_records", "files"):
            monkeypatch.setattr(f"rlm.data.{name}.MOST_CHARACTERS", 1000)
        monkeypatch.setattr("rlm.data.parsers.MOST_PAIRS", 20)
        monkeypatch.setattr("rlm.data.textfiles.ENOUGH_BYTES", 20_000)
        monkeypatch.setattr("rlm.data.parsers.MOST_ROWS_WITHOUT_USE", 50)
        for name in ("parsers", "files"):
            monkeypatch.setattr(f"rlm.data.{name}.ROWS_AT_ONCE", 10)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            (
                "own.csv",
                "anchor,positive\na,b\nc," + "d" * 1000,
                "lines of at most 1,000 characters, found more in line 3",
            ),
            ("own.csv", "a" * 2000, "found more in line 1"),
            ("own.csv", 'anchor,positive\na,b\nc,"' + "d\n" * 1000, "found more in the row that begins in line 3"),
            ("own.csv", "anchor,positive\n" + "a,A!\n" * 60, "found none in the first 50; drop"),
            ("own.csv.gz", "anchor,positive\n" + "a,b\n" * 10_000, "expected at most 100 times the size"),
            ("own.csv.xz", "anchor,positive\n" + "\n" * 30_000, "expected at most 100 times the size"),
            ("own.jsonl", '{"anchor": "a", "positive": "' + "b" * 1000, "found more in the one that begins in line 1"),
            ("own.txt", "T: a\n" * 7 + "Q: b\n" * 7, "at most 20 pairs of a premise and a question in a block"),
            (
                "own.txt",
                "T: a\n" * 30,
                "at most 20 pairs of a premise and a question in a block, found more in line 21",
            ),
        ],
    )
    def test_what_would_fill_the_memory_is_refused(self, tmp_path, name, content, message):
        path = tmp_path / name
        compress_text = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
        path.write_bytes(compress_text(content.encode()))
        with pytest.raises(InputError, match=re.escape(message)):
            rlm.read(path, layout="blocks" if ".txt" in name else "columns")

    @pytest.mark.parametrize(
        ("column", "message"),
        [
            (["a" * 5_000_000], "expected cells of at most 1,000 bytes|bytes of data in a Parquet file of this size"),
            (["a" * 900] * 500, "bytes of data in a Parquet file of this size, found"),
            ([None] * 50_000, "bytes of data in a Parquet file of this size, found"),
        ],
    )
    def test_parquet_is_read_piece_by_piece(self, tmp_path, column, message):
        table = pa.table({"anchor": pa.array(column, pa.string()), "positive": pa.array(column, pa.string())})
        pq.write_table(table, tmp_path / "own.parquet", compression="zstd")
        with pytest.raises(InputError, match=message):
            rlm.read(tmp_path / "own.parquet")


def test_a_long_cell_is_read(tmp_path):
    (tmp_path / "own.csv").write_text("anchor,positive\na," + "b " * 67_500 + "\n")
    assert len(rlm.read(tmp_path / "own.csv")["positive"].iloc[0]) == 135_000


def test_reading_shows_how_far_it_is(tmp_path, monkeypatch, capsys):
    path = as_text()(pd.DataFrame({"anchor": ["a"], "positive": ["b"]}), tmp_path)
    rlm.read(path)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("rlm.data.textfiles.SECONDS_WITHOUT_BAR", 0)
    rlm.read(path)
    assert "reading own.csv" in capsys.readouterr().err


class TestFilesAsTheyCome:
    def test_the_named_encoding_is_that_of_the_irrelevant_pairs_too(self, tmp_path):
        (tmp_path / "own.csv").write_bytes("anchor,positive\nкот спит,пёс ест\nснег,дом\n".encode("koi8-r"))
        (tmp_path / "irrelevant.txt").write_bytes("кот спит|дом\n".encode("koi8-r"))
        options = {"encoding": "koi8-r", "irrelevant": str(tmp_path / "irrelevant.txt")}
        corpus = rlm.index_corpus(rlm.read(tmp_path / "own.csv", **options))
        assert [corpus.phrases.texts[phrase] for phrase in corpus.irrelevant[0]] == ["кот спит", "дом"]
        assert rlm.load("chatterbot-dutch", **options).iloc[-1].tolist() == ["кот спит", "дом", "0"]
        (tmp_path / "irrelevant.txt").write_text("кот спит|дом\n", encoding="utf-8")
        with pytest.warns(UserWarning, match="was read as koi8-r, as named, but seems to be UTF-8"):
            rlm.read(tmp_path / "own.csv", **options)

    def test_quoted_cells_with_line_breaks_between_tabs_name_the_remedy(self, tmp_path):
        (tmp_path / "own.tsv").write_text('id\tanchor\tpositive\n1\t"How do I bake\nbread?"\tnull\n')
        with pytest.raises(InputError, match="set quotechar='\"' \\(--quotechar '\"'\\)"):
            rlm.read(tmp_path / "own.tsv")
        assert texts_of(tmp_path / "own.tsv", quotechar='"') == [["How do I bake\nbread?", "null"]]

    def test_a_lone_quotation_mark_names_the_remedy(self, tmp_path):
        (tmp_path / "own.csv").write_text('anchor,positive\n"so she said,hello\n')
        with pytest.raises(InputError, match=r"line 2 that cannot be read .*set quotechar=''"):
            rlm.read(tmp_path / "own.csv")
        assert texts_of(tmp_path / "own.csv", quotechar="") == [['"so she said', "hello"]]

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("own.csv", gzip.compress(b"anchor,positive\na,b\n", mtime=0), "found gzip; let its name end in .gz"),
            ("own.csv", lzma.compress(b"anchor,positive\na,b\n"), "found xz; let its name end in .xz"),
            ("own.csv.xz", lzma.compress(b"anchor,positive\na,b\n")[:-20], "expected a whole file"),
            ("own.csv.xz", lzma.compress(b"anchor,positive\na,b\n") + b"damaged", "expected a whole file"),
            ("own.csv.zip", b"PK", "compression zip is not supported; uncompress the file"),
            ("own.csv.br", b"x", "compression br is not supported; uncompress the file"),
            ("own.tar.gz", gzip.compress(b"x", mtime=0), "found .tar; convert the file"),
            ("own.csv", "anchor,positive\na,b\n".encode("utf-16-le"), "name its encoding: encoding='utf-16-le'"),
            ("own.csv", "anchor,positive\nё,ж\n".encode("utf-16-be"), "name its encoding: encoding='utf-16-be'"),
        ],
    )
    def test_what_is_no_text_is_said(self, tmp_path, name, content, message):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=re.escape(message)):
            rlm.read(tmp_path / name)

    def test_streams_of_xz_follow_each_other(self, tmp_path):
        parts = [b"anchor,positive\na,b\n", b"c,d\n"]
        (tmp_path / "own.csv.xz").write_bytes(b"\0\0\0\0".join(map(lzma.compress, parts)))
        assert texts_of(tmp_path / "own.csv.xz") == [["a", "b"], ["c", "d"]]

    def test_a_mark_that_contradicts_the_named_encoding(self, tmp_path):
        path = as_text("utf-8-sig")(pd.DataFrame({"anchor": ["a"], "positive": ["b"]}), tmp_path)
        with pytest.raises(InputError, match="expected cp1251, found the byte order mark of utf-8-sig"):
            rlm.read(path, encoding="cp1251")

    def test_missing_labels_of_parquet_are_no_class(self, tmp_path):
        labels = pa.array([1.0, 1.0, float("nan"), float("nan")], from_pandas=False)
        pq.write_table(pa.table({"text": ["a", "b", "c", "d"], "label": labels}), tmp_path / "own.parquet")
        assert texts_of(tmp_path / "own.parquet") == [["a", "b"]]

    def test_a_part_is_of_datasets_alone(self, tmp_path):
        path = as_text()(pd.DataFrame({"anchor": ["a"], "positive": ["b"]}), tmp_path)
        with pytest.raises(InputError, match="expected no subset or part for a file"):
            rlm.read(path, part="test")
        pytest.importorskip("datasets")
        (tmp_path / "saved").mkdir()
        path = as_saved_dataset(pd.DataFrame({"anchor": ["a"], "positive": ["b"]}), tmp_path / "saved")
        with pytest.raises(InputError, match="this saved dataset is a single one"):
            rlm.read(path, part="test")
