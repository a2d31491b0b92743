"""Files and folders that nobody sees half written.

* :func:`appearing` -- a folder that is filled under another name and takes its place when whole.
* :func:`surviving` -- the folder, or what a process left of it that was killed in between.
* :func:`appearing_file` -- a file that takes its place when it is whole.
* :func:`write_whole`, :func:`write_json` -- a text file, bytes, or JSON, written so.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
        for path in partial.rglob("*"):
            if path.is_file():
                _write_through(path)
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


@contextmanager
def appearing_file(path: Path, *, alone: bool = True) -> Iterator[Path]:
    """A file to write; it takes ``path``'s place when the block ends without an error.

    Args:
        path: What appears. Its folder is there.
        alone: Whether no other process writes it at the same time.

    Yields:
        A path beside it, ``.NAME.partial``, or ``.NAME.PID.partial`` of several processes.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    partial = _beside(path, "partial" if alone else f"{os.getpid()}.partial")
    try:
        yield partial
        _write_through(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file; who reads it meanwhile finds what was there before, or all of it.

    Args:
        path: The file. Its folder is there.
        content: What it is to hold; text in UTF-8.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    with appearing_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as :func:`write_whole` writes."""
    write_whole(path, json.dumps(value, indent=1) + "\n")


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{ending}")


def _write_through(path: Path) -> None:
    """Have the disk hold a file, so that a power cut after the rename finds it whole."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
