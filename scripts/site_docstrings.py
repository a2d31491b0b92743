"""How `make docs` reads docstrings: an extension of griffe, named in `mkdocs.yml`."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?(?:[\w.]+\.)?(\w+)`")
EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


class SiteDocstrings(griffe.Extension):
    """``:class:`gato_gym.Plan``` becomes ``Plan``, and an example is shown as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite an object's docstring."""
        if obj.docstring is not None:
            text = ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = EXAMPLE.sub("Examples:", text)
