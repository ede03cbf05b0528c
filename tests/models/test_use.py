"""`rlm train`, `rlm query` and `rlm evaluate` as a user meets them."""

import io
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, SMALL
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

import rlm.cli.models
from rlm.cli.models import TrainConfig, train
from rlm.config import StudyConfig
from rlm.engine.accuracy import embed
from rlm.engine.batches import split_batch
from rlm.errors import InputError
from rlm.evaluation.heads import head_accuracy
from rlm.models.model import load_model
from rlm.models.questions import evaluate_questions, read_questions
from rlm.study import load_corpus, run_study, slice_for

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
TRAIN = QUICK[2:]  # without --jobs
PREMISES = ["fill1 topic3 serial7", "Topic0, fill2!", "fill1 topic3 serial7", "", "???", "fill3 topic4", "topic1"]


@pytest.fixture(scope="module")
def trained(pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "model"
    train(save=folder, config=TrainConfig(dataset=str(pairs), min_count=1, **SMALL), arm="pretrained", seed=1)
    return folder


@pytest.fixture
def premises(tmp_path):
    path = tmp_path / "premises.txt"
    path.write_text("\n".join(PREMISES))
    return path


@pytest.fixture
def pipe(monkeypatch):
    def pipe(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return pipe


class TestTrain:
    def test_goes_the_road_of_a_study(self, rlm_command, pairs, tmp_path):
        folder = tmp_path / "model"
        arguments = ["--dataset", pairs, "--arm", "pretrained", "--seed", 1, "--save", folder, *TRAIN]
        code, printed, _ = rlm_command("train", *arguments)
        assert code == 0
        config = StudyConfig(dataset=str(pairs), arms=("pretrained",), **SMALL)
        row = run_study(config, [1], n_jobs=1, progress=False).iloc[0]
        numbers = dict(line.rsplit(maxsplit=1) for line in printed.splitlines() if line.startswith("triplet"))
        assert float(numbers["triplet_accuracy"]) == pytest.approx(row.test_accuracy, abs=5e-4)
        assert f"best epoch {row.best_epoch}, validation accuracy {row.validation_accuracy:.3f}" in printed
        assert f"model: {folder}" in printed
        model = load_model(folder)
        assert model.config == config
        assert model.block.seeds == (1,)

    def test_refuses_what_is_there_before_it_trains(self, rlm_command, pairs, trained, monkeypatch):
        monkeypatch.setattr(rlm.cli.models, "train_arms", lambda *args, **settings: pytest.fail("trains first"))
        code, printed, errors = rlm_command("train", "--dataset", pairs, "--save", trained, *TRAIN)
        assert (code, printed) == (2, "")
        assert "choose another, or use --overwrite" in errors

    def test_overwrites_when_told(self, rlm_command, pairs, tmp_path):
        for seed in (3, 4):
            arguments = ["--dataset", pairs, "--save", tmp_path / "m", "--seed", seed, "--overwrite", *TRAIN]
            assert rlm_command("train", *arguments)[0] == 0
        assert load_model(tmp_path / "m").block.seeds == (4,)
        assert load_model(tmp_path / "m").config.arms == ("scratch",)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--dataset", "chatterbot-english"], ["--save"]),
            (["--save", "no/such/folder/model"], ["no/such/folder", "create that first"]),
            (["--save", "m" * 255], ["expected a folder that can be written at", "too long"]),
            (["--save", "/proc/model"], ["expected a folder that can be written at /proc/model"]),
            (["--save", "model", "--seed", "-1"], ["--seed of at least 0, found -1"]),
            (["--save", "model", "--arm", "lucky"], ["--arm", "lucky"]),
            (["--save", "model", "--head", "linear"], ["--head", "linear", "bilinear"]),
            (["--save", "model", "--arms", "scratch"], ["--arms"]),
        ],
    )
    def test_mistakes(self, rlm_command, arguments, words, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        code, printed, errors = rlm_command("train", *arguments)
        assert (code, printed) == (2, "")
        assert "Traceback" not in errors
        for word in words:
            assert word in errors


class TestHead:
    @pytest.fixture(scope="class", params=["bilinear", "mahalanobis", "classifier"])
    @staticmethod
    def headed(request, pairs, tmp_path_factory):
        folder = tmp_path_factory.mktemp("models") / "model"
        train(
            save=folder, config=TrainConfig(dataset=str(pairs), **SMALL), arm="pretrained", head=request.param, seed=1
        )
        return folder

    def test_the_command_trains_the_one_of_the_library(self, rlm_command, trained, headed, pairs, tmp_path):
        """On an encoder that is the same as without a head."""
        name = load_model(headed).head_name
        arguments = ["--dataset", pairs, "--arm", "pretrained", "--seed", 1, "--head", name, "--min-count", 1, *TRAIN]
        code, printed, _ = rlm_command("train", *arguments, "--save", tmp_path / "m")
        assert code == 0
        model, plain = load_model(tmp_path / "m"), load_model(trained)
        assert plain.head is None
        assert all(torch.equal(weight, plain.block.weights[name]) for name, weight in model.block.weights.items())
        slices = slice_for(model.config, load_corpus(model.config), [1])
        heads, history = rlm.evaluation.train_head(model.block, slices, name, max_epochs=2)
        for name_of_weight, weight in model.head.state_dict().items():
            assert torch.equal(weight, heads.weights[name_of_weight][0])
        batch = split_batch(model.block, slices, "test")
        accuracy = head_accuracy(heads, embed(model.block, batch), batch).item()
        best = history.loc[history["validation_accuracy"].idxmax()]
        assert (
            f"head {name}: best epoch {best.epoch:.0f}, validation accuracy {best.validation_accuracy:.3f}" in printed
        )
        assert f"test triplet accuracy {accuracy:.3f}" in printed

    def test_query_and_evaluate_rank_by_it(self, rlm_command, headed, premises, pipe, tmp_path):
        model = load_model(headed)
        texts = list(dict.fromkeys(text for text in PREMISES if any(map(str.isalnum, text))))
        pipe(b"topic3 fill1")
        code, printed, _ = rlm_command("query", headed, "--premises", premises, "-k", 2)
        assert code == 0
        query, *vectors = map(torch.from_numpy, model.encode(["topic3 fill1", *texts]))
        scores = [model.head(query, one).item() for one in vectors]
        nearest = sorted(range(len(texts)), key=lambda place: -scores[place])[:2]
        assert printed.splitlines()[1:3] == [f"{scores[place]:8.3f}  {texts[place]}" for place in nearest]
        pipe(b"topic3 fill1")
        assert rlm_command("query", headed, "--premises", premises, "--method", "hnsw")[0] == 2

        path = tmp_path / "questions.txt"
        path.write_text(QUESTIONS)
        blocks = read_questions(path)
        everything = list(dict.fromkeys(words_of(text) for block in blocks for text in block.premises))
        for one in evaluate_questions(model, blocks).answers.itertuples():
            query, *vectors = map(torch.from_numpy, model.encode([one.question, *everything]))
            scores = dict(zip(everything, (model.head(query, vector).item() for vector in vectors), strict=True))
            assert one.score == pytest.approx(max(scores.values()), abs=1e-5)
            assert one.right_score == pytest.approx(scores[words_of(one.right)], abs=1e-5)
        code, printed, _ = rlm_command("evaluate", headed, path)
        assert code == 0
        assert f"by {model.head_name}, with two baselines" in printed

    def test_one_that_diverges_is_not_saved(self, rlm_command, pairs, tmp_path, monkeypatch):
        trained = rlm.cli.models.train_head

        def diverges(*args, **settings):
            heads, history = trained(*args, **settings)
            return heads, history.assign(loss=np.nan)

        monkeypatch.setattr(rlm.cli.models, "train_head", diverges)
        code, _, errors = rlm_command(
            "train", "--dataset", pairs, "--head", "bilinear", "--save", tmp_path / "m", *TRAIN
        )
        assert code == 2
        assert "diverged; lower --learning-rate" in errors
        assert not (tmp_path / "m").exists()


class TestQuery:
    def test_prints_the_nearest_of_every_question(self, rlm_command, trained, premises, pipe):
        questions = ["topic3 fill1", "topic4"]
        pipe("\n\n".join(questions).encode())
        code, printed, _ = rlm_command("query", trained, "--premises", premises, "-k", 3)
        assert code == 0
        model, texts = load_model(trained), [PREMISES[0], PREMISES[1], *PREMISES[5:]]
        vectors, asked = model.encode(texts).astype(float), model.encode(questions).astype(float)
        cosine = asked @ vectors.T / np.linalg.norm(asked, axis=1)[:, None] / np.linalg.norm(vectors, axis=1)
        expected = []
        for question, row in zip(questions, cosine, strict=True):
            nearest = sorted(range(4), key=lambda place, row=row: -row[place])[:3]
            expected += [question, *(f"{row[place]:8.3f}  {texts[place]}" for place in nearest), ""]
        assert printed.splitlines() == expected

    @pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt])
    def test_at_a_terminal_it_asks(self, rlm_command, trained, premises, monkeypatch, end):
        answers = iter(["topic1", "", "topic2", end])

        def ask(prompt):
            assert prompt == "question: "
            answer = next(answers)
            if answer is end:
                raise end
            return answer

        monkeypatch.setattr("builtins.input", ask)
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
        code, printed, _ = rlm_command("query", trained, "--premises", premises, "-k", 1)
        assert code == 0
        assert [line for line in printed.splitlines() if not line.startswith(" ")] == ["topic1", "", "topic2", "", ""]

    def test_questions_that_it_knows_nothing_of(self, rlm_command, trained, premises, pipe, caplog):
        pipe("жираф\n??\n".encode() + b"\x1b[31m topic1\n\xff topic2")
        code, printed, _ = rlm_command("query", trained, "--premises", premises, "-k", 1)
        assert code == 0
        assert caplog.text.count("expected a question with a word that the model knows") == 2
        assert "\x1b" not in printed
        assert "?[31m topic1\n" in printed
        assert "\N{REPLACEMENT CHARACTER} topic2\n" in printed

    def test_a_method_can_be_named(self, rlm_command, trained, premises, pipe):
        pytest.importorskip("faiss")
        found = []
        for method in ("exact", "hnsw"):
            pipe(b"topic3")
            found.append(rlm_command("query", trained, "--premises", premises, "--method", method)[:2])
        assert found[0] == found[1]
        assert len(found[0][1].splitlines()) == 6  # the question, four premises, an empty line

    def test_premises_in_another_encoding(self, rlm_command, trained, tmp_path, pipe):
        path = tmp_path / "premises.txt"
        path.write_bytes("topic3 вьюга\n".encode("cp1251"))
        pipe(b"topic3")
        code, printed, _ = rlm_command("query", trained, "--premises", path, "--encoding", "cp1251")
        assert code == 0
        assert "topic3 вьюга" in printed
        code, printed, errors = rlm_command("query", trained, "--premises", path, "--encoding", "ascii")
        assert (code, printed) == (2, "")
        assert "premises.txt: expected ascii, found something else" in errors

    def test_texts_are_printed_as_they_are(self, rlm_command, trained, tmp_path, pipe):
        """Soft hyphens, joiners and wide spaces are part of a text; escapes and overrides of direction are not."""
        kept = "topic3 a\u00a0b\u200cc\u200dd\u00ade\u3000f\u200eg \U0001f469\u200d\U0001f52c \ue000"
        path = tmp_path / "premises.txt"
        path.write_text(f"{kept}\ntopic1 \x1b[31m\x9b\u202etxt\u2066\u2028\x07\n{'topic2 ' * 60}\n", encoding="utf-8")
        pipe(kept.encode())
        code, printed, _ = rlm_command("query", trained, "--premises", path)
        assert code == 0
        lines = printed.split("\n")
        assert lines[0] == kept
        texts = {line[10:] for line in lines[1:4]}
        assert texts == {kept, "topic1 ?[31m??txt???", ("topic2 " * 60)[:299] + "…"}

    def start(self, trained, premises, redirections, **environment):
        """A process of its own, whose streams a shell closes."""
        command = f'{sys.executable} -m rlm query "$0" --premises "$1" -k 1 {redirections}'
        return subprocess.run(
            ["sh", "-c", command, str(trained), str(premises)],
            input="fill1 topic3 serial7 \u0436\n".encode(),
            env=os.environ | {"PYTHONPATH": str(Path(rlm.__file__).parents[1])} | environment,
            capture_output=True,
            check=False,
        )

    def test_closed_standard_input_is_said(self, trained, premises):
        done = self.start(trained, premises, "<&-")
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.decode().splitlines()[-1].startswith("rlm: expected questions from the terminal or a pipe,")
        assert b"Traceback" not in done.stderr

    def test_a_closed_output_is_no_failure(self, trained, premises):
        done = self.start(trained, premises, ">&-")
        assert done.returncode == 0
        assert b"Traceback" not in done.stderr

    def test_what_the_encoding_of_the_terminal_lacks_is_replaced(self, trained, premises):
        """With standard error closed as well, where what is logged would go."""
        done = self.start(trained, premises, "2>&-", PYTHONIOENCODING="cp1252")
        assert (done.returncode, done.stderr) == (0, b"")
        question, premise = done.stdout.splitlines()[:2]
        assert question == b"fill1 topic3 serial7 ?"
        assert b"fill1 topic3 serial7" in premise

    @pytest.mark.parametrize(
        ("content", "arguments", "words"),
        [
            (None, [], "expected a file with one premise per line, found none; check the path"),
            ("\n??\n", [], "expected one premise per line, found no line with a word"),
            ("one", ["-k", "0"], "expected -k of at least 1, found 0"),
            ("one", ["--method", "magic"], "magic"),
        ],
    )
    def test_mistakes(self, rlm_command, trained, tmp_path, content, arguments, words):
        path = tmp_path / "premises.txt"
        if content is not None:
            path.write_text(content)
        code, printed, errors = rlm_command("query", trained, "--premises", path, *arguments)
        assert (code, printed) == (2, "")
        assert words in errors

    def test_no_model(self, rlm_command, premises, tmp_path):
        code, _, errors = rlm_command("query", tmp_path, "--premises", premises)
        assert code == 2
        assert "expected a model that rlm train --save wrote" in errors


QUESTIONS = """\
T: fill1 topic3 serial8
T: topic3
Q: topic3 fill2
Q: fill0 topic3
A: no matter

T: topic1 fill4
Q: fill2 topic1
Q: topic3  FILL2?

T: Topic3!
T: fill0 fill1 topic5
Q: topic5 fill3

T: topic0
Q: topic1 fill4
"""


DISTRACTORS = ["fill0 fill2 topic3", "topic1 fill4", "fill3 topic5 fill4 unheard", "Topic0.", "nothing known"]


def words_of(text):
    return " ".join(rlm.data.phrases.tokenise(text))


class TestEvaluate:
    def write(self, tmp_path, content):
        path = tmp_path / "questions.txt"
        path.write_text(content)
        return path

    def slow(self, model, blocks):
        """Reciprocal ranks, question by question; every text is known by its words."""
        words = {text: " ".join(rlm.data.phrases.tokenise(text)) for block in blocks for part in block for text in part}
        candidates = sorted({words[text] for block in blocks for text in block.premises})
        ranks = []
        for block in blocks:
            for question in block.questions:
                same = [one for one in blocks if words[question] in {words[other] for other in one.questions}]
                right = {words[text] for one in same for text in one.premises}
                points = model.encode([words[question], *candidates]).astype(float)
                points /= np.linalg.norm(points, axis=1, keepdims=True)
                cosine = dict(zip(candidates, points[1:] @ points[0], strict=True))
                best = max(cosine[text] for text in right)
                ranks.append(1 + sum(cosine[text] >= best for text in candidates if text not in right))
        return np.array(ranks)

    def test_equals_a_slow_loop(self, trained, tmp_path):
        model, blocks = load_model(trained), read_questions(self.write(tmp_path, QUESTIONS))
        assert [(len(block.premises), len(block.questions)) for block in blocks] == [(2, 2), (1, 2), (2, 1), (1, 1)]
        found, ranks = evaluate_questions(model, blocks).scores, self.slow(model, blocks)
        assert found["mean"].to_dict() == pytest.approx(
            {f"top_{k}": (ranks <= k).mean() for k in (1, 5, 10)} | {"mean_reciprocal_rank": (1 / ranks).mean()}
        )
        assert 0 < found.loc["top_1", "mean"] < 1

    def likenesses(self, model, blocks):
        """How alike a question and a premise are: by the model, by shared trigrams and by scikit-learn's TF-IDF."""
        candidates = sorted(
            {words_of(text) for block in blocks for text in block.premises} | set(map(words_of, DISTRACTORS))
        )
        tfidf = TfidfVectorizer(token_pattern=r"\S+").fit(candidates)

        def grams(text):
            padded = f" {words_of(text)} "
            return {padded[i : i + 3] for i in range(len(padded) - 2)}

        def cosine(read, q, t):
            return cosine_similarity(*(read([words_of(one)]) for one in (q, t))).item()

        return {
            "mean": partial(cosine, lambda texts: model.encode(texts).astype(float)),
            "trigram overlap": lambda q, t: len(grams(q) & grams(t)) / len(grams(q) | grams(t)),
            "TF-IDF cosine": partial(cosine, tfidf.transform),
        }

    def test_a_distractor_without_a_word_is_no_candidate(self, trained, tmp_path):
        model, blocks = load_model(trained), read_questions(self.write(tmp_path, QUESTIONS))
        one, other = (evaluate_questions(model, blocks, foils).scores for foils in (DISTRACTORS, [*DISTRACTORS, "..."]))
        pd.testing.assert_frame_equal(one, other)

    def test_distractors_and_baselines_equal_a_slow_loop(self, trained, tmp_path):
        """The rows pair_ as nn_relevancy_tripleloss counts: a right premise of a block alone among the distractors."""
        model, blocks = load_model(trained), read_questions(self.write(tmp_path, QUESTIONS))
        found = evaluate_questions(model, blocks, DISTRACTORS)
        distractors = set(map(words_of, DISTRACTORS))
        everything = {words_of(text) for block in blocks for text in block.premises} | distractors
        for name, alike in self.likenesses(model, blocks).items():
            ranks, of_pairs = [], []
            for block in blocks:
                for question in block.questions:
                    same = [one for one in blocks if words_of(question) in map(words_of, one.questions)]
                    right = {words_of(text) for one in same for text in one.premises}
                    score = {text: round(alike(question, text), 5) for text in everything}
                    for premise, among in [
                        (None, everything),
                        *((t, distractors | {words_of(t)}) for t in block.premises),
                    ]:
                        best = max(score[text] for text in among & right)
                        rank = 1 + sum(score[text] >= best for text in among - right)
                        (ranks if premise is None else of_pairs).append(rank)
            assert len(of_pairs) == sum(len(block.premises) * len(block.questions) for block in blocks)
            expected = {f"top_{k}": (np.array(ranks) <= k).mean() for k in (1, 5, 10)}
            expected |= {"mean_reciprocal_rank": (1 / np.array(ranks)).mean()}
            expected |= {f"pair_top_{k}": (np.array(of_pairs) <= k).mean() for k in (1, 5, 10)}
            assert found.scores[name].to_dict() == pytest.approx(expected), name
            if name == "mean":
                assert found.answers["rank"].tolist() == ranks
                assert (found.answers["result"] == "right").tolist() == [rank == 1 for rank in ranks]
        assert 0 < found.scores["mean"]["top_1"] < 1

    def test_answers_are_the_nearest_premises(self, trained, tmp_path):
        model, blocks = load_model(trained), read_questions(self.write(tmp_path, QUESTIONS))
        answers = evaluate_questions(model, blocks, DISTRACTORS).answers
        assert answers["question"].tolist() == [question for block in blocks for question in block.questions]
        assert answers["block"].tolist() == [1, 1, 2, 2, 3, 4]
        everything = [text for block in blocks for text in block.premises] + DISTRACTORS
        for one in answers.itertuples():
            score = cosine_similarity(*(model.encode(texts).astype(float) for texts in ([one.question], everything)))[0]
            assert one.score == pytest.approx(score.max(), abs=1e-6)
            assert score[everything.index(one.chosen)] == pytest.approx(score.max(), abs=1e-6)
            assert one.right_score == pytest.approx(score[everything.index(one.right)], abs=1e-6)
            assert (one.chosen == one.right) == (one.result == "right")

    def test_of_equal_premises_a_wrong_one_is_chosen(self, trained, tmp_path):
        """All words of both are unknown, so that their embeddings are the same."""
        path = self.write(tmp_path, "T: unheard\nQ: unseen\n\nT: unread\nQ: unknown\n")
        answers = evaluate_questions(load_model(trained), read_questions(path)).answers
        assert answers["result"].tolist() == ["wrong", "wrong"]
        assert answers["chosen"].tolist() == ["unread", "unheard"]

    @pytest.mark.parametrize(
        ("suffix", "read"), [(".csv", pd.read_csv), (".tsv", pd.read_table), (".json", pd.read_json)]
    )
    def test_answers_are_written_and_the_missed_are_printed(
        self, rlm_command, trained, premises, tmp_path, suffix, read
    ):
        path, out = self.write(tmp_path, QUESTIONS), tmp_path / f"answers{suffix}"
        code, printed, _ = rlm_command("evaluate", trained, path, "--premises", premises, "--out", out)
        assert code == 0
        texts = list(dict.fromkeys(text for text in PREMISES if any(map(str.isalnum, text))))
        found = evaluate_questions(load_model(trained), read_questions(path), texts)
        pd.testing.assert_frame_equal(read(out), found.answers, check_dtype=False, atol=1e-6)
        missed = found.answers[found.answers["result"] == "wrong"]
        assert 0 < len(missed) < len(found.answers)
        head, _, listed = printed.partition(f"missed: {len(missed)} of 6 questions\n")
        assert "9 pairs, 4 distractors; " in head.splitlines()[0]
        assert "pair_top_1 " in head
        expected = [
            f"{one.question}\n{one.score:8.3f}  {one.chosen}\n"
            f"{one.right_score:8.3f}  {one.right} (right, rank {one.rank})"
            for one in missed.itertuples()
        ]
        assert listed.strip() == "\n".join([*expected, "", f"answers: {out}"]).strip()

    def test_an_output_of_another_kind_is_refused_first(self, rlm_command, trained, tmp_path):
        code, printed, errors = rlm_command("evaluate", trained, tmp_path / "none.txt", "--out", tmp_path / "a.xlsx")
        assert (code, printed) == (2, "")
        assert "ending in .csv, .json, .md, .parquet, .tex, .tsv" in errors

    @pytest.mark.parametrize(("unheard", "share", "warns"), [(0, "0 %", False), (1, "14 %", False), (4, "40 %", True)])
    def test_many_unknown_words_are_a_warning(self, rlm_command, trained, tmp_path, caplog, unheard, share, warns):
        path = self.write(
            tmp_path, f"T: topic1 fill1 {'unheard ' * unheard}\nQ: topic1\nQ: topic1\nQ: fill2 fill3 topic2\n"
        )
        code, printed, _ = rlm_command("evaluate", trained, path)
        assert code == 0
        assert f"{share.replace(' ', '')} of the words are unknown to the model" in printed.splitlines()[0]
        assert ("unknown to the model; train it on data that have them, or use --encoder dssm" in caplog.text) == warns

    def test_a_file_as_the_author_writes_them_counts_every_pair(self, rlm_command, trained, tmp_path):
        """Own sentences in the layout of Koziev's evaluate_relevancy.txt, with CRLF and a byte order mark."""
        content = """\
T: Лягушка прыгает в пруд
Q: Куда прыгнула лягушка

T: Ёжик шуршит листьями
T: листьями шуршат ежи

Q: Кто шуршит листвой
Q: чем шуршит ёж?
Q: а ёжик чем шуршит



T: два плюс два - четыре
T: четыре это два да два
T: сумма двух двоек равна четырем
Q: сколько будет дважды два
Q: чему равна сумма двух двоек


"""
        path = tmp_path / "evaluate.txt"
        path.write_text(content, encoding="utf-8-sig", newline="\r\n")
        code, printed, _ = rlm_command("evaluate", trained, path)
        assert code == 0
        assert "6 questions in 3 blocks, 6 different premises, 13 pairs, 0 distractors; 100%" in printed.splitlines()[0]

    def test_interval_is_that_of_resampled_blocks(self, trained, tmp_path):
        """Percentiles of means over blocks drawn with replacement, by NumPy; here blocks share nothing."""
        rng = np.random.default_rng(0)
        lines = [
            f"T: topic{t} serial{rng.integers(40)}\n" + f"Q: topic{t} fill{t % 5}\n" * (1 + t % 3) for t in range(6)
        ]
        model, blocks = load_model(trained), read_questions(self.write(tmp_path, "\n".join(lines)))
        found, ranks = evaluate_questions(model, blocks).scores, self.slow(model, blocks)
        sizes = [len(block.questions) for block in blocks]
        total = np.array([part.sum() for part in np.split(1 / ranks, np.cumsum(sizes)[:-1])])
        drawn = rng.integers(len(blocks), size=(20_000, len(blocks)))
        means = total[drawn].sum(axis=1) / np.array(sizes)[drawn].sum(axis=1)
        np.testing.assert_allclose(
            found.loc["mean_reciprocal_rank", ["low", "high"]].astype(float),
            np.quantile(means, [0.025, 0.975]),
            atol=0.02,
        )

    def test_blocks_that_share_a_text_are_one(self, trained, tmp_path):
        content = "T: topic1\nQ: topic1 fill1\n\nT: topic1\nQ: topic1 fill2\n\n\nT: topic2\nQ: topic1 fill2\n"
        found = evaluate_questions(load_model(trained), read_questions(self.write(tmp_path, content))).scores
        assert found[["low", "high"]].isna().all(axis=None)
        assert found["mean"].notna().all()

    def test_command_prints_it(self, rlm_command, trained, tmp_path):
        path = self.write(tmp_path, QUESTIONS)
        code, printed, _ = rlm_command("evaluate", trained, path)
        assert code == 0
        assert "6 questions in 4 blocks, 6 different premises" in printed
        found = evaluate_questions(load_model(trained), read_questions(path)).scores
        for name, row in found.iterrows():
            assert [name, *(f"{value:.3f}" for value in row)] in [line.split() for line in printed.lower().splitlines()]

    def test_line_ends_marks_and_spaces_make_no_difference(self, tmp_path):
        plain = read_questions(self.write(tmp_path, QUESTIONS))
        (tmp_path / "other.txt").write_bytes(("\ufeff\n \n" + QUESTIONS.replace("\n", "\r\n") + "\t\r\n").encode())
        assert read_questions(tmp_path / "other.txt") == plain
        (tmp_path / "tight.txt").write_text(QUESTIONS.replace(": ", ":").strip())
        assert read_questions(tmp_path / "tight.txt") == plain

    def test_the_encoding_can_be_named(self, rlm_command, trained, tmp_path):
        path = self.write(tmp_path, QUESTIONS)
        said = rlm_command("evaluate", trained, path)[:2]
        path.write_text(QUESTIONS, encoding="utf-16-le")
        assert rlm_command("evaluate", trained, path, "--encoding", "utf-16-le")[:2] == said

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("", "expected blocks of T: and Q: lines, found none"),
            ("\n\n", "expected blocks of T: and Q: lines, found none"),
            ("Q: why\nT: so", "expected a premise (T:) to begin a block, found 'Q: why' in line 1; put one before it"),
            ("T: a\nQ: b\n\nA: c", "expected a premise (T:) to begin a block, found 'A: c' in line 4"),
            ("T: a\n\nT: b\nQ: c", "expected a question (Q:) after the premises, found the end of the block in line 2"),
            ("T: a", "expected a question (Q:) after the premises, found the end of the block in line 2; add one"),
            ("T: a\nQ: b\nT: c", "expected a question (Q:) after the premises, found the end of the block in line 4"),
            ("T: a\nwhat\n", "expected T:, Q: or A: to begin a line, found 'what' in line 2; correct the line"),
            ("T: ...\nQ: b", "expected a text after T:, found no word in line 1; give one or drop it"),
        ],
    )
    def test_mistakes_give_the_line(self, tmp_path, content, words):
        path = self.write(tmp_path, content)
        with pytest.raises(InputError) as caught:
            read_questions(path)
        assert str(caught.value).startswith(f"{path}: expected ")
        assert words in str(caught.value)

    def test_no_file(self, rlm_command, trained, tmp_path):
        code, _, errors = rlm_command("evaluate", trained, tmp_path / "none.txt")
        assert code == 2
        assert "none.txt: expected an evaluation file of T: and Q: lines, found none; check the path" in errors


def test_train_offers_what_a_study_does(rlm_command):
    options = set(StudyConfig.model_fields) - {"reading", "arms"} | {"arm", "seed", "save", "overwrite"}
    code, printed, _ = rlm_command("train", "--help")
    assert code == 0
    for option in options:
        assert f"--{option.replace('_', '-')} " in printed
    assert "--arms " not in printed
