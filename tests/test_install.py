"""What is installed: a wheel without the checkout, and the packages of `rlm` without those of its extras."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import QUICK, topic_pairs
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import rlm
from rlm.errors import EXTRAS, naming_extras
from rlm.runtime.resources import copy_notebooks, find_notebooks

ROOT = Path(__file__).parents[1]
ADDRESS = "https://host.example"
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


def run(*command, **settings):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **settings)
    return done.returncode, done.stdout, done.stderr


class TestExtras:
    def test_the_core_trains_and_judges_without_them(self, pairs, tmp_path):
        minimal = [sys.executable, ROOT / "tests" / "minimal_install.py"]
        files = ["--db", tmp_path / "study.db", "--out", tmp_path / "results.csv"]
        code, printed, errors = run(*minimal, "study", "--dataset", pairs, "--seeds", 10, *files, *QUICK)
        assert code == 0, errors
        assert rlm.compare(pd.read_csv(tmp_path / "results.csv")).headline in printed

    @pytest.mark.parametrize(
        ("arguments", "package", "importer"),
        [
            (["report", "--seeds", 1], "papermill", "rlm.report.notebooks"),
            (["lab", "mine"], "jupyterlab.labapp", "jupyterlab.labapp"),
        ],
    )
    def test_a_command_names_the_extra_that_it_needs(
        self, rlm_command, tmp_path, monkeypatch, arguments, package, importer
    ):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delitem(sys.modules, importer, raising=False)
        monkeypatch.setitem(sys.modules, package, None)  # as if it was not installed
        code, _, errors = rlm_command(*arguments)
        assert code == 2
        name = package.partition(".")[0]
        assert errors == f"rlm: expected the package {name}, found none; run: pip install 'rlm[lab]'\n"
        assert not list(tmp_path.iterdir())

    def test_a_name_of_the_package_does_so_too(self):
        code = """if True:
            import sys
            sys.modules["matplotlib"] = None
            import rlm
            try:
                rlm.plots
            except rlm.InputError as error:
                print(error)
        """
        printed = run(sys.executable, "-c", code)[1]
        assert printed == "expected the package matplotlib, found none; run: pip install 'rlm[lab]'\n"

    def test_every_package_of_an_extra_is_known_by_the_names_it_is_imported_by(self):
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        installed = metadata.packages_distributions()
        for extra, listed in extras.items():
            if extra in ("dev", "bench", "mlflow"):  # mlflow contradicts the constraints, and is not installed
                continue
            named = {canonicalize_name(one) for module in EXTRAS[extra] for one in installed[module]}
            assert named >= {canonicalize_name(Requirement(one).name) for one in listed}

    def test_other_errors_stay_as_they_are(self):
        with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"), naming_extras():
            import nothing_of_this_name  # noqa: F401


class TestNotebooks:
    def test_are_copied_as_they_are(self, rlm_command, tmp_path):
        assert rlm_command("notebooks", tmp_path / "mine")[0] == 0
        assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == NOTEBOOKS
        for name in NOTEBOOKS:
            assert nbformat.read(tmp_path / "mine" / name, 4) == nbformat.read(ROOT / "notebooks" / name, 4)

    def test_are_not_overwritten_without_being_told(self, rlm_command, tmp_path):
        (tmp_path / NOTEBOOKS[1]).write_text("changed")
        code, printed, _ = rlm_command("notebooks", tmp_path)
        assert code == 0
        assert f"kept as they are: {NOTEBOOKS[1]}; rlm notebooks {tmp_path} --overwrite" in printed
        assert (tmp_path / NOTEBOOKS[1]).read_text() == "changed"
        assert (tmp_path / NOTEBOOKS[0]).exists()
        code, printed, _ = rlm_command("notebooks", tmp_path, "--overwrite")
        assert "kept" not in printed
        assert (tmp_path / NOTEBOOKS[1]).read_bytes() == (ROOT / "notebooks" / NOTEBOOKS[1]).read_bytes()

    def test_a_folder_that_is_a_file_is_named(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(rlm.InputError, match=r"expected a folder for notebooks, found .*file"):
            copy_notebooks(tmp_path / "file")

    def test_lab_opens_a_copy_on_this_machine_behind_a_token(self, rlm_command, tmp_path, monkeypatch):
        from jupyterlab.labapp import LabApp

        opened = []

        def start(arguments):
            server = LabApp.initialize_server(arguments)
            opened.append((server.ip, server.root_dir, server.open_browser, bool(server.identity_provider.token)))

        monkeypatch.setattr(LabApp, "launch_instance", start)
        monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "config"))
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
        assert rlm_command("lab", tmp_path / "mine", "--no-browser", "--port=0")[0] == 0
        assert opened == [("localhost", str(tmp_path / "mine"), False, True)]
        assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == NOTEBOOKS

    def test_those_of_a_checkout_are_its_own(self):
        assert find_notebooks() == ROOT / "notebooks"


def list_files(folder):
    return sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Scripts of a fresh environment that has a wheel, and the other packages of this one, without the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    code, _, errors = run(*build, env=os.environ | {"GITHUB_SERVER_URL": ADDRESS, "GITHUB_REPOSITORY": "some/lab"})
    assert code == 0, errors
    (wheel,) = folder.glob("*.whl")
    assert run(sys.executable, "-m", "venv", "--without-pip", folder / "env")[0] == 0
    scripts = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    pip = [sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--no-deps", "--no-index"]
    code, _, errors = run(*pip, wheel)
    assert code == 0, errors
    _, site, _ = run(scripts / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    Path(site.strip(), "others.pth").write_text(sysconfig.get_path("purelib"))  # whose own .pth files are not read
    return scripts, Path(site.strip()) / "rlm"


class TestWheel:
    @pytest.fixture
    def start(self, installed, tmp_path):
        scripts, _ = installed
        away = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        away |= {"JUPYTER_PATH": str(Path(sys.prefix, "share", "jupyter")), "OMP_NUM_THREADS": "1"}
        return lambda *command: run(scripts / command[0], *command[1:], cwd=tmp_path, env=away)

    def test_has_all_that_the_checkout_has(self, installed):
        tracked = run("git", "-C", ROOT, "ls-files", "rlm", "notebooks")[1].split()
        _, package = installed
        for path in tracked:
            inside = package / path if path.startswith("notebooks") else package.parent / path
            assert inside.read_bytes() == (ROOT / path).read_bytes()

    def test_describes_itself_by_absolute_links(self, installed):
        """PyPI shows the README, and has none of the files that it links to."""
        _, package = installed
        (described,) = metadata.distributions(name="rlm", path=[str(package.parent)])
        text = described.read_text("METADATA").partition("\n\n")[2]  # another finder's message has it as a header
        targets = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text)
        assert not [target for target in targets if not target.startswith(("https://", "#"))]
        linked = {target.partition("/HEAD/")[2].partition("#")[0] for target in targets if ADDRESS in target}
        assert len(linked) > 20
        assert not [path for path in linked if not (ROOT / path).exists()]
        assert f"Repository, {ADDRESS}/some/lab" in described.metadata.get_all("Project-URL")

    def test_reports_from_another_folder(self, installed, start, tmp_path):
        _, package = installed
        for path in sorted((package / "notebooks").iterdir())[1:]:
            path.unlink()  # the first is enough, and short
        before = list_files(package)
        topic_pairs(np.random.default_rng(0), topics=6, pairs=60).to_csv(tmp_path / "own.csv", index=False)
        code, printed, errors = start("rlm", "report", "--dataset", "own.csv", "--seeds", 1, "--out", "pages")
        assert code == 0, errors
        assert printed.strip() == str(Path("pages", "index.html"))
        page = (tmp_path / "pages" / "01_data.html").read_text(encoding="utf-8")
        assert "own.csv" in page
        assert re.search(r"<dt>commit</dt><dd>of an installed package</dd>", page)
        assert list_files(package) == before
