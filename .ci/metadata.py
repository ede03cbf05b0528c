"""Metadata of the package that depend on where its repository is: addresses, and absolute links in README."""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

SERVER, REPOSITORY = "GITHUB_SERVER_URL", "GITHUB_REPOSITORY"  # which GitHub sets for its workflows


class Addresses(MetadataHookInterface):
    """Read README; where the address of the repository is known, its links and the project's addresses use it."""

    def update(self, metadata: dict[str, Any]) -> None:
        readme = Path(self.root, "README.md").read_text(encoding="utf-8")
        if SERVER in os.environ and REPOSITORY in os.environ:
            address = f"{os.environ[SERVER]}/{os.environ[REPOSITORY]}"
            pages = {"Documentation": "blob/HEAD/docs/README.md", "Changelog": "blob/HEAD/CHANGELOG.md"}
            metadata["urls"] = {"Repository": address} | {name: f"{address}/{page}" for name, page in pages.items()}
            readme = re.sub(r"\]\((?!https?:|#)", f"]({address}/blob/HEAD/", readme)
            readme = re.sub(r'src="(?!https?:)', f'src="{address}/raw/HEAD/', readme)
        metadata["readme"] = {"content-type": "text/markdown", "text": readme}
