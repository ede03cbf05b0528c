"""Run `rlm ARGUMENTS` as after a plain `pip install rlm`: packages that only an extra or a tool installs are hidden."""

import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def list_needed():
    """Return the distributions that `rlm` needs without extras, and all that they need."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    waiting, needed = list(map(Requirement, project["dependencies"])), {"rlm"}
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in needed and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            needed.add(name)
            waiting += map(Requirement, metadata.requires(name) or [])
    return needed


class Hider:
    """Find no module of the packages that are hidden."""

    def __init__(self, hidden):
        self.hidden = hidden

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


if __name__ == "__main__":
    needed = list_needed()
    installed = metadata.packages_distributions().items()
    sys.meta_path.insert(0, Hider({module for module, by in installed if not needed & set(map(canonicalize_name, by))}))
    from rlm.cli.main import main

    main()
