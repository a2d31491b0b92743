"""Texts, and pairs of an image and a text, in files.

* :class:`TextSource` -- a file or a folder of them, as it is found.
* :func:`find_texts` -- the sources of some paths.

Texts are a ``.txt`` file, which is one document; a ``.jsonl`` file, whose every line is a JSON
object with a document under ``text``; or a folder of these. Pairs are a ``.jsonl`` file whose every
line also has ``image``, the path of a PNG or JPEG image from the file's folder on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gato_gym.files.atomic_io import inside
from gato_gym.files.bounded_io import check_file, parse_json, read_bytes, read_text

FORMAT = 1
"""Version of what :meth:`TextSource.identity` returns."""

LARGEST_IMAGE = 4096
"""Pixels of the longest side of an image that is read."""
LARGEST_TEXTS, LARGEST_IMAGE_FILE = 2**30, 64 * 2**20
"""Bytes of the largest file of texts, and of the largest of an image, that is read."""
LARGEST_PATCHES, PATCHES_TO_FILES = 2**30, 256
"""Bytes of a source's patches that are kept, or so many times the bytes of its files where that is
more: a few kilobytes can hold an image of 50 megabytes, and a thousand lines can name it."""


@dataclass(frozen=True)
class TextSource:
    """Texts, or pairs of an image and a text, in files.

    Attributes:
        name: What the mixture knows it by: the path's last part, without its ending.
        files: What is read, in order.
        pairs: Whether each text has an image.
    """

    name: str
    files: tuple[Path, ...]
    pairs: bool

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.uint8] | None]]:
        """Each text, and its image, uint8 ``[H, W, 3]``, or None.

        Raises:
            FileNotFoundError: An image is missing.
            ImportError: There are images, and Pillow is not installed.
            ValueError: A line or an image is not what it should be, with its file and line.
        """
        room = self._patches_limit() if self.pairs else 0
        for file in self.files:
            if file.suffix == ".txt":
                yield _checked_text(read_text(file, largest=LARGEST_TEXTS), str(file)), None
                continue
            for entry, where in _lines(file):
                text = _checked_text(entry.get("text"), where)
                if not self.pairs:
                    yield text, None
                    continue
                image = _read_image(file.parent, entry, where)
                room -= image.nbytes
                if room < 0:
                    raise ValueError(
                        f"the images of {file} are far larger than their files, or named too "
                        f"often: expected at most {PATCHES_TO_FILES} times the files' bytes, or "
                        f"{LARGEST_PATCHES >> 20} MiB; scale them down, or name each image once"
                    )
                yield text, image

    @cached_property
    def content(self) -> str:
        """Digest of all that its files hold.

        Raises:
            FileNotFoundError, ValueError: As in iterating.
        """
        digest = hashlib.blake2b(digest_size=16)
        for file in self.files:
            digest.update(read_bytes(file, largest=LARGEST_TEXTS))
            if self.pairs:
                for entry, where in _lines(file):
                    image = _image_path(file.parent, entry, where)
                    digest.update(read_bytes(image, largest=LARGEST_IMAGE_FILE))
        return digest.hexdigest()

    def identity(self) -> dict[str, Any]:
        """What its tokens depend on, as JSON values."""
        kind = "pairs" if self.pairs else "texts"
        return {"format": FORMAT, "kind": kind, "content": self.content}

    def _patches_limit(self) -> int:
        """Bytes that its patches may have: each of its files counts once, however often named."""
        files = set(self.files)
        for file in self.files:
            files |= {_image_path(file.parent, entry, where) for entry, where in _lines(file)}
        size = sum(file.stat().st_size for file in files)
        return max(LARGEST_PATCHES, PATCHES_TO_FILES * size)


def find_texts(texts: Sequence[Path], pairs: Sequence[Path]) -> list[TextSource]:
    """The sources of some paths, sorted by name.

    Args:
        texts: ``.jsonl`` and ``.txt`` files, and folders of them.
        pairs: ``.jsonl`` files.

    Raises:
        FileNotFoundError: A path is not there, or a folder has no such file.
        ValueError: A file is of another kind, or two sources have the same name.
    """
    sources = [TextSource(path.stem, _files(path), False) for path in texts]
    for path in pairs:
        if path.suffix != ".jsonl":
            raise ValueError(f"pairs are in {path}: expected a .jsonl file")
        sources.append(TextSource(path.stem, _files(path), True))
    names = [source.name for source in sources]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"several texts or pairs are named {twice}: rename their files")
    return sorted(sources, key=lambda source: source.name)


def _files(path: Path) -> tuple[Path, ...]:
    if path.is_dir():
        names = sorted(p.name for p in path.iterdir() if p.suffix in (".txt", ".jsonl"))
        files = tuple(_file_in(path, name, str(path)) for name in names)
        if not files:
            raise FileNotFoundError(f"{path} holds no .txt or .jsonl file: expected texts in it")
        return files
    if not path.exists():
        raise FileNotFoundError(f"no file {path}: expected texts, .jsonl or .txt, or a folder")
    if path.suffix not in (".txt", ".jsonl"):
        raise ValueError(f"texts are in {path}: expected a .jsonl or .txt file, or a folder")
    return (path,)


def _lines(file: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The JSON objects of a file's lines that are not blank, and where each is."""
    lines = read_text(file, largest=LARGEST_TEXTS).split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        entry = parse_json(line, where, fix='expected an object such as {"text": "…"}')
        if not isinstance(entry, dict):
            raise ValueError(f"{where} is a {type(entry).__name__}: expected a JSON object")
        yield entry, where


def _checked_text(text: Any, where: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'{where}: "text" is {text!r}: expected a text that is not empty')
    return text


def _image_path(folder: Path, entry: Mapping[str, Any], where: str) -> Path:
    name = entry.get("image")
    if not isinstance(name, str) or not name:
        raise ValueError(f'{where}: "image" is {name!r}: expected the path of an image')
    return _file_in(folder, name, where)


def _file_in(folder: Path, name: str, where: str) -> Path:
    path = inside(folder, name)
    if path is None:
        raise FileNotFoundError(
            f"{where}: no file {name} in {folder}, links followed: expected one in this folder, "
            "its path relative to it; others are not read"
        )
    return path


def _read_image(folder: Path, entry: Mapping[str, Any], where: str) -> NDArray[np.uint8]:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            'images are read with Pillow, which is not installed: pip install "gato-gym[images]"'
        ) from error
    path = _image_path(folder, entry, where)
    check_file(path, largest=LARGEST_IMAGE_FILE)
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            width, height = image.size
            if max(width, height) <= LARGEST_IMAGE:
                return np.array(image.convert("RGB"), np.uint8)
    except Exception as error:  # a broken image is a SyntaxError to Pillow, an EOFError, or others
        raise ValueError(
            f"{where}: {path} is no PNG or JPEG image ({error}): save it again as one"
        ) from error
    raise ValueError(
        f"{where}: {path} has {width} x {height} pixels: expected at most {LARGEST_IMAGE} a side, "
        "scale it down"
    )
