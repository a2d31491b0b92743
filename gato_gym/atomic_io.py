"""Folders and files that are replaced without a moment at which no whole one is there.

* :func:`appearing` -- a folder that is filled under another name and takes its place when whole.
* :func:`surviving` -- the folder, or what a process left of it that was killed in between.
* :func:`write_whole` -- a text file that nobody sees half written.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to fill; it takes ``folder``'s place when the block ends without an error.

    A folder cannot be renamed over another, so the one that is there is moved aside first. A
    process killed at any moment leaves a whole one, under its own name or aside; :func:`surviving`
    finds it.

    Args:
        folder: What appears. Its parents are made.

    Yields:
        An empty folder beside it.
    """
    partial, aside = _beside(folder, "partial"), _beside(folder, "previous")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        _write_through(partial)
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(folder, aside)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(aside, ignore_errors=True)


def surviving(folder: Path) -> Path:
    """The folder, or where it is missing the one that a killed process had moved aside."""
    if folder.exists():
        return folder
    aside = _beside(folder, "previous")
    return aside if aside.exists() else folder


def write_whole(path: Path, text: str) -> None:
    """Write a text file; who reads it meanwhile finds what was there before, or all of it.

    Args:
        path: The file. Its folder is there.
        text: What it is to hold, in UTF-8.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    partial = _beside(path, "partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(f".{folder.name}.{ending}")


def _write_through(folder: Path) -> None:
    """Have the disk hold every file, so that a power cut after the rename finds them whole."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
