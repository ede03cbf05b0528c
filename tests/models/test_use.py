"""`rlm train`, `rlm query` and `rlm evaluate` as a user meets them."""

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import QUICK, SMALL

import rlm.cli.models
from rlm.cli.models import TrainConfig, train
from rlm.config import StudyConfig
from rlm.errors import InputError
from rlm.models.model import load_model
from rlm.models.questions import evaluate_questions, read_questions
from rlm.study import run_study

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
        found, ranks = evaluate_questions(model, blocks), self.slow(model, blocks)
        assert found["mean"].to_dict() == pytest.approx(
            {f"top_{k}": (ranks <= k).mean() for k in (1, 5, 10)} | {"mean_reciprocal_rank": (1 / ranks).mean()}
        )
        assert 0 < found.loc["top_1", "mean"] < 1

    def test_interval_is_that_of_resampled_blocks(self, trained, tmp_path):
        """Percentiles of means over blocks drawn with replacement, by NumPy; here blocks share nothing."""
        rng = np.random.default_rng(0)
        lines = [
            f"T: topic{t} serial{rng.integers(40)}\n" + f"Q: topic{t} fill{t % 5}\n" * (1 + t % 3) for t in range(6)
        ]
        model, blocks = load_model(trained), read_questions(self.write(tmp_path, "\n".join(lines)))
        found, ranks = evaluate_questions(model, blocks), self.slow(model, blocks)
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
        found = evaluate_questions(load_model(trained), read_questions(self.write(tmp_path, content)))
        assert found[["low", "high"]].isna().all(axis=None)
        assert found["mean"].notna().all()

    def test_command_prints_it(self, rlm_command, trained, tmp_path):
        path = self.write(tmp_path, QUESTIONS)
        code, printed, _ = rlm_command("evaluate", trained, path)
        assert code == 0
        assert "6 questions in 4 blocks, 6 different premises" in printed
        found = evaluate_questions(load_model(trained), read_questions(path))
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
            (
                "T: a\nQ: b\nT: c",
                "expected an empty line before the premises of the next block, found 'T: c' in line 3",
            ),
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
