"""README and docs: links lead somewhere, commands and names exist, examples print what is quoted."""

import ast
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from pkgutil import resolve_name
from statistics import median

import nbformat
import pytest
from prose import BANNED, blocks, sentences

from rlm.cli.main import app

ROOT = Path(__file__).parents[1]
README, INDEX = ROOT / "README.md", ROOT / "docs" / "README.md"
GENERATED = ("index.md", "contributing.md", "changelog.md")  # by docs/conf.py, for the site
DOCS = sorted(page for page in (ROOT / "docs").glob("*.md") if page.name not in GENERATED)
PAGES = [README, ROOT / "CONTRIBUTING.md", *DOCS]
USED = INDEX.read_text().split("## What was measured")[0]
GUIDES = [README, *(ROOT / "docs" / name for name in re.findall(r"\]\((\w+\.md)\)", USED))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NEEDED = 10  # guides
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
guides = pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)


def anchors_of(page):
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pages
def test_links_lead_somewhere(page):
    text = page.read_text()
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    assert targets or page not in (README, INDEX)
    for target in targets:
        name, _, anchor = target.partition("#")
        found = (page.parent / name) if name else page
        assert found.exists(), target
        assert not anchor or anchor in anchors_of(found), target


@pages
def test_pages_name_files_that_exist(page):
    named = re.findall(r"`([\w./-]+\.(?:pyi?|md|toml|yaml))`", page.read_text())
    assert len(named) > 20 or page.stem != "CONTRIBUTING"
    assert not [path for path in named if not any((folder / path).is_file() for folder in (ROOT, ROOT / "rlm"))]


def test_the_index_lists_every_page():
    assert len(GUIDES) > NEEDED
    listed = set(re.findall(r"\]\(([\w/.]+\.md)\)", INDEX.read_text()))
    assert {page.name for page in DOCS} - {"README.md"} <= listed


@guides
def test_guides_open_with_their_purpose_and_are_plain(page):
    found = sentences(page.read_text())
    assert page == README or "This page is for those who" in found[0]
    assert median(len(sentence.split()) for sentence in found) <= 14


TEMPLATES = sorted((ROOT / "benchmarks").glob("*.jinja"))


@pytest.mark.parametrize("page", [*PAGES, *TEMPLATES], ids=lambda page: page.name)
def test_pages_and_their_templates_have_no_banned_words(page):
    text = re.sub(r"{[{%].*?[%}]}", "", page.read_text(encoding="utf-8"))
    assert not [found[0] for sentence in sentences(text) if (found := BANNED.search(sentence))]


# Options of the program: those of `launch`, which parses the others, and those that are commands.
EVERY = {name for argument in app.meta.assemble_argument_collection() for name in argument.names}
EVERY |= {name for name in app if name.startswith("--")}


def commands_of(page):
    """Return the words of every `rlm` command of the blocks for a shell, also of those that a session shows."""
    text = page.read_text()
    lines = [line for block in blocks(text, "sh") for line in block.replace("\\\n", "").splitlines()]
    lines += [
        line[2:]
        for block in blocks(text, "text")
        for line in block.replace("\\\n", "").splitlines()
        if line.startswith("$ ")
    ]
    words = [shlex.split(part, comments=True) for line in lines for part in re.split(r"&&|\|", line)]
    of_rlm = [found[1:] for found in words if found and Path(found[0]).name == "rlm"]
    return [[word for word in found if word not in EVERY] for found in of_rlm if found[0] not in EVERY]


@guides
def test_commands_can_be_run(page):
    for words in commands_of(page):
        app.parse_args(words, exit_on_error=False, print_error=False)


def test_there_are_commands_to_check():
    assert {words[0] for page in GUIDES for words in commands_of(page)} == {
        name for name in app if not name.startswith("-")
    }


@guides
def test_options_exist(page):
    known = {
        name
        for command in app
        if not command.startswith("-")
        for argument in app[command].assemble_argument_collection()
        for name in argument.names
    } | EVERY
    lines = [line for line in page.read_text().splitlines() if not re.search(r"benchmarks|dask|pip|run_mode", line)]
    named = {option for line in lines for option in re.findall(r"(?<=[`\s])--[a-z][\w.-]*", line)}
    assert named <= known


@guides
def test_python_of_pages_names_what_exists(page):
    text = page.read_text()
    code = blocks(text, "python")
    inline = re.findall(r"`(rlm(?:\.\w+)+)", text)
    for source in code:
        ast.parse(source)
    for name in [*inline, *(name for source in code for name in re.findall(r"\brlm(?:\.\w+)+", source))]:
        resolve_name(name)


def test_readme_lists_the_notebooks_with_their_questions():
    listed = re.findall(r"^\| \[`(\w+)`\]\(notebooks/\1\.ipynb\) \| (.*) \|$", README.read_text(), re.MULTILINE)
    titles = {path.stem: nbformat.read(path, as_version=4).cells[0].source.splitlines()[0] for path in NOTEBOOKS}
    assert listed == [(name, title.partition(" · ")[2]) for name, title in titles.items()]


def quotes_of(page):
    quoted = re.findall(r"(?:^> .*\n?)+", page.read_text(), re.MULTILINE)
    return [" ".join(re.sub("^> ", "", quote, flags=re.MULTILINE).split()) for quote in quoted]


def test_readme_and_notebook_4_quote_the_answer_of_the_experiment():
    answer = sentences((ROOT / "docs" / "experiment.md").read_text())[0]
    assert answer in quotes_of(README)
    assert f"> {answer}" in (ROOT / "notebooks" / "04_variance.ipynb").read_text()


def test_the_first_study_of_readme_shows_what_is_quoted(tmp_path):
    """Another CPU rounds otherwise, so that some seeds stop at another epoch."""
    (words,) = (words for words in commands_of(README) if words[:3] == ["study", "--encoder", "mean"])
    run = subprocess.run(
        [sys.executable, "-m", "rlm", *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    numbers = r"([+-][\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\]"
    quoted = re.search(rf"half a minute has .*?{numbers} points", README.read_text(), re.DOTALL)
    found = re.search(rf"a difference of {numbers} points", " ".join(run.stdout.split()))
    assert [float(one) for one in found.groups()] == pytest.approx([float(one) for one in quoted.groups()], abs=0.3)


def test_the_example_of_readme_prints_what_is_quoted(tmp_path):
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
    if metadata.version("scikit-learn") != pinned["scikit-learn"]:
        pytest.skip("another version of scikit-learn trains otherwise")
    source = blocks(README.read_text(), "python")[0].replace("seeds=20", "seeds=20, n_jobs=1")  # sooner here
    (tmp_path / "example.py").write_text(source)
    run = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert any(run.stdout.startswith(quote) for quote in quotes_of(README))
