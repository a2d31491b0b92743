"""A folder of links to some installed packages and all that they need, and to no other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def link_packages(folder: Path, names: Sequence[str]) -> None:
    """Fill an empty folder, for a Python without site-packages to import from.

    Args:
        folder: Where.
        names: Of distributions; what they require without extras is there too.
    """
    pending, seen = list(names), set[str]()
    while pending:
        name = pending.pop().lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            package = distribution(name)
        except PackageNotFoundError:  # of another platform
            continue
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            target = folder / top
            if not target.exists():
                target.symlink_to(package.locate_file(top))
        for requirement in package.requires or ():
            if "extra ==" not in requirement:
                pending.append(re.split(r"[\s;<>=!~\[(]", requirement)[0])
