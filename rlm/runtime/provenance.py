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
    """
    The versions that decide numbers.

    Returns
    -------
    dict
        Of Python and the packages that compute, by name.
    """
    return {name: metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()}


@cache
def commit() -> str | None:
    """
    The commit of the checkout that this package is run from.

    Returns
    -------
    str or None
        Its hash, with ``-dirty`` where files have changed since; None for an installed package.
    """
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists() or not shutil.which("git"):
        return None
    asked = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None
