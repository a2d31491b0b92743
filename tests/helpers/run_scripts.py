"""Code as it stands in pages, examples and notebooks, run as a script in a folder of its own.

* :func:`run_script` -- what a script prints.
* :func:`code_of` -- a notebook's code.
"""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch


def run_script(script: Path, folder: Path, arguments: Sequence[str] = ()) -> str:
    """What a script prints; its datasets are in the folder, and warnings are no errors.

    Args:
        script: The file; its modules precede others, as in a process of its own.
        folder: Where it is run.
        arguments: Of its command line.
    """
    printed = io.StringIO()
    with (
        contextlib.chdir(folder),
        patch.dict("os.environ", MINARI_DATASETS_PATH=str(folder / "minari"), COLUMNS="100"),
        patch("sys.argv", [str(script), *arguments]),
        patch("sys.path", [str(script.parent), *sys.path]),
        contextlib.redirect_stdout(printed),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        status: object = None
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            status = end.code
    assert not status, f"{script.name} ends with {status}: {printed.getvalue()}"
    return printed.getvalue()


def code_of(notebook: Path) -> str:
    """The code cells of a notebook, in order."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
