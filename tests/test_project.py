"""The project's own files agree with each other."""

import ast
import builtins
import doctest
import importlib
import inspect
import re
import tomllib
from dataclasses import is_dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from statistics import median

import nbformat
import pytest
import yaml
from numpydoc.validate import validate
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from prose import BANNED, sentences
from pydantic import BaseModel

import rlm
from benchmarks.size import measure, tabulate

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"build": "python-build", "torch": "pytorch"}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {**project["optional-dependencies"], "mlflow": []}  # its pins contradict those of the constraints
    listed = project["dependencies"] + [r for extra in extras.values() for r in extra]
    return {requirement.name: requirement for requirement in map(Requirement, listed) if requirement.name != "rlm"}


@pytest.fixture(scope="module")
def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.lower().split("==") for line in lines if not line.startswith("#"))


def test_constraints_meet_every_lower_bound(requirements, constraints):
    for name, requirement in requirements.items():
        assert requirement.specifier.contains(constraints[name]), name


def test_environment_names_the_same_versions(requirements, constraints):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = {extra: {Requirement(one).name for one in listed} for extra, listed in extras.items()}
    bench = names.pop("bench") - set().union(*names.values())
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    conda = dict(
        entry.split("=", 1) for entry in listed if isinstance(entry, str) and re.search(r"[^<>]=[\d.]+$", entry)
    )
    found = conda | dict(entry.split("==") for entry in pip if "==" in entry)
    assert found == {CONDA_NAMES.get(name, name): constraints[name] for name in requirements.keys() - bench}


def test_python_bounds_agree(requirements):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    lower = project["requires-python"].removeprefix(">=")
    assert f"python>={lower},<3.14" in listed
    assert Version(lower) == Version("3.11")


def test_workflows_test_every_version_of_python():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    supported = {one.rpartition(" ")[2] for one in project["classifiers"] if re.search(r"Python :: \d\.", one)}
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())["jobs"]
    assert supported <= set(jobs["systems"]["strategy"]["matrix"]["python"])
    run = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    targets = {command.removeprefix("make ") for command in run if command.startswith("make ")}
    assert targets == {"test", "floor"}
    assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE) for target in targets)


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda form: form.stem
)
def test_issue_forms_have_what_the_page_of_issues_requires(form):
    content = yaml.safe_load(form.read_text())
    if form.stem == "config":
        assert set(content) <= {"blank_issues_enabled", "contact_links"}
        return
    assert {"name", "description", "body"} <= set(content)
    assert len({field["id"] for field in content["body"]}) == len(content["body"])
    assert all(field["attributes"]["label"] for field in content["body"])


def test_the_citation_is_that_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert citation["authors"] == project["authors"]
    assert set(citation["keywords"]) < set(project["keywords"])


def public():
    """All names of the face and of the sub-packages that it names."""
    for name in rlm.__all__:
        member = getattr(rlm, name)
        yield name, member
        for inner in getattr(member, "__all__", ()) if inspect.ismodule(member) else ():
            yield f"{name}.{inner}", getattr(member, inner)


# What numpydoc checks: sections, summaries, parameters and returns, and that there is an example.
CHECKS = {
    *("GL03", "GL06", "GL07", "GL08", "SS01", "SS02", "SS03", "SS05", "SS06"),
    *("PR01", "PR02", "PR03", "PR06", "PR10", "RT01", "RT03", "YD01", "EX01"),
}
FIELDS = {"PR01", "PR02"}  # the fields of a config or a tuple are no parameters of a function


def problems_of(name, member):
    found = validate(f"rlm.{name}")["errors"]
    has_fields = inspect.isclass(member) and (issubclass(member, (tuple, BaseModel)) or is_dataclass(member))
    return [f"rlm.{name}: {code} {text}" for code, text in found if code in CHECKS - (FIELDS if has_fields else set())]


def test_public_names_are_documented_with_an_example():
    documented = [(name, member) for name, member in public() if callable(member)]
    assert len(documented) > 90
    assert not [problem for name, member in documented for problem in problems_of(name, member)]


def missing_names(docstring):
    """Return the names that the examples use and do not define."""
    examples = doctest.DocTestParser().get_examples(docstring)
    nodes = list(ast.walk(ast.parse("".join(example.source for example in examples))))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    known = {alias.asname or alias.name for node in nodes for alias in getattr(node, "names", ())}
    known |= {node.name for node in nodes if isinstance(node, (ast.ExceptHandler, ast.FunctionDef, ast.ClassDef))}
    known |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    known |= {name.id for name in names if isinstance(name.ctx, ast.Store)}
    return {name.id for name in names} - known - set(dir(builtins))


def test_examples_can_be_pasted():
    missing = {name: missing_names(member.__doc__ or "") for name, member in public() if callable(member)}
    assert not {name: names for name, names in missing.items() if names}


@pytest.mark.parametrize("stub", sorted((ROOT / "rlm").rglob("__init__.pyi")), ids=lambda path: path.parent.name)
def test_every_name_of_a_stub_can_be_imported(stub):
    package = importlib.import_module(".".join(stub.parent.relative_to(ROOT).parts))
    names = re.findall(r"\b(\w+) as \1\b", stub.read_text())
    assert sorted(names) == sorted(package.__all__)
    assert not [name for name in names if not hasattr(package, name)]


def test_the_face_is_small():
    assert sum(not inspect.ismodule(getattr(rlm, name)) for name in rlm.__all__) <= 29


def test_sizes():
    found = tabulate(measure())
    assert (found["found"] <= found["limit"]).all(), found.to_string()
    quoted = (ROOT / "docs" / "architecture.md").read_text()
    assert found.to_string() in quoted


def test_the_diagram_shows_the_layers():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = [set(layer.split(" | ")) for layer in settings["contracts"][0]["layers"]]
    diagram = re.search(r"```mermaid\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL)[1]
    shown = dict(re.findall(r'^ +(L\d+)\["([^"]+)"\]$', diagram, re.MULTILINE))
    assert [set(names.split(", ")) for names in shown.values()] == layers
    arrows = re.findall(r"^ +(L\d+) --> (L\d+)$", diagram, re.MULTILINE)
    assert arrows == list(pairwise(shown))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stripped_and_define_nothing_but_encoders(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    defined = re.compile(
        r"^(def(?! train\(arm, seed\))|class(?! \w+\((nn\.Module|rlm\.zoo\.FrozenEncoder)\))) ", re.MULTILINE
    )
    assert not any(defined.search(cell.source) for cell in code)
    assert max(cell.source.count("\n") for cell in code) < 20
    assert not any(".style" in cell.source for cell in code)  # rlm.show
    assert [cell.metadata.get("tags", []) for cell in code].count(["parameters"]) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_open_with_a_question_and_close_with_an_answer(path):
    cells = nbformat.read(path, as_version=4).cells
    assert re.match(r"# \d · .*\?\n", cells[0].source)
    assert cells[-2].source == "## Answer"
    assert "Markdown(" in cells[-1].source


def test_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert median(len(sentence.split()) for sentence in sentences(text)) <= 14


GPU = re.compile(r"nvidia-.*|cuda-.*|triton")  # of PyTorch's build for GPUs, which the constraints leave open


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_constraints_name_all_that_is_installed(version, requirements, constraints):
    """What any version of Python needs, by the markers of the packages that are installed here."""
    pinned = {canonicalize_name(name) for name in constraints}
    environment = {"python_version": version, "python_full_version": f"{version}.0", "sys_platform": "linux"}
    waiting, seen = list(requirements.values()), set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, *requirement.extras) in seen or GPU.fullmatch(name):
            continue
        seen.add((name, *requirement.extras))
        assert name in pinned, f"Python {version} needs {requirement}"
        try:
            needed = [Requirement(text) for text in metadata.requires(requirement.name) or []]
        except metadata.PackageNotFoundError:
            continue  # of another version of Python
        for one in needed:
            extras = ["", *requirement.extras]
            if one.marker is None or any(one.marker.evaluate(environment | {"extra": extra}) for extra in extras):
                waiting.append(one)
    assert len(seen) > 100


def test_kernels_that_break_widgets_from_threads_are_excluded(requirements, constraints):
    specifier = requirements["ipykernel"].specifier
    assert not any(specifier.contains(version) for version in ("7.0.0", "7.0.1"))
    assert all(specifier.contains(version) for version in ("6.29", "7.1.0", constraints["ipykernel"]))


def shows(source):
    """Return whether a cell shows something: its last line is an expression, or it makes a figure."""
    last = ast.parse(source).body[-1]
    is_shown = isinstance(last, ast.Expr) and not ast.unparse(last).startswith("sns.set_theme")
    return is_shown or "plt.subplots" in source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_read_what_they_show(path):
    cells = nbformat.read(path, as_version=4).cells[:-1]  # the last shows the answer
    after = [below for cell, below in pairwise(cells) if cell.cell_type == "code" and shows(cell.source)]
    is_read = [cell.cell_type == "markdown" and not cell.source.startswith("#") for cell in after]
    assert sum(is_read) >= 0.8 * len(is_read) > 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_plain(path):
    text = "\n\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    assert median(len(sentence.split()) for sentence in sentences(text)) <= 15
    assert not BANNED.search(text)


@pytest.mark.parametrize("number", ["02", "03", "04"])
def test_lessons_explain_words_before_use_and_end_with_something_to_try(number):
    path = next(path for path in NOTEBOOKS if path.stem.startswith(number))
    text = "\n\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    assert 500 <= len(text.split()) <= 700
    assert "## Try it" in text
    for word in {"02": ["component list", "seed", "block"], "03": ["arm", "pair", "cluster"], "04": ["spread"]}[number]:
        first = re.search(rf"\b{word}s?\b", text, re.IGNORECASE).start()
        assert text[first - 2 : first] == "**", text[first - 20 : first + 20]
