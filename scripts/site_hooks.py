"""What `make docs` changes in pages, which are also read where they are; named in `mkdocs.yml`."""

from __future__ import annotations

import re
from typing import Any

SOURCE_LINK = re.compile(r"\[([^\]]+)\]\([./]+[\w/]+\.py\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A link to a source file is its text: the site has no sources."""
    return SOURCE_LINK.sub(r"\1", markdown)
