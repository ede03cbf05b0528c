"""The experiment that CONTRIBUTING.md shows runs, and its types are those of the protocol."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    page = (ROOT / "CONTRIBUTING.md").read_text()
    section = re.search(r"## Add an experiment\n.*?```python\n(.*?)```", page, re.DOTALL)
    path = tmp_path_factory.mktemp("own") / "trees.py"
    path.write_text(section[1])
    return path


def test_it_prints_what_its_comment_says(example):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, example.name]
    done = subprocess.run(command, cwd=example.parent, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == example.read_text().split("# ")[-1].strip()


def test_it_passes_the_checker_of_types(example):
    settings = f'include = ["{example.name}"]\nextraPaths = ["{ROOT}"]\ntypeCheckingMode = "standard"\n'
    (example.parent / "pyproject.toml").write_text(f"[tool.basedpyright]\n{settings}")
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=example.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
