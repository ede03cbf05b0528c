"""Where numbers come from: versions, commit and device, nothing that names a machine."""

import platform
import shutil
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGES = ("rlm", "torch", "numpy", "scipy")


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that determine numbers."""
    return {name: metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()}


@cache
def commit() -> str | None:
    """Return the commit of this checkout, with ``-dirty`` after changes; None for an installed package."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists() or not shutil.which("git"):
        return None
    asked = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None
