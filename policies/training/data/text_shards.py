"""Texts, and pairs of an image and a text, to train on beside tasks.

* :class:`TextSource` -- a file or a folder of them, as it is found.
* :func:`find_texts` -- the sources of some paths.
* :class:`TextShard` -- its tokens as arrays, memory-mapped.
* :func:`shard_texts` -- from sources to shards.
* :class:`TextDocument` -- one before it is placed in a row.
* :func:`draw_text_document` -- draws one.
* :func:`usual_text_size` -- how long one is.

Texts are a ``.txt`` file, which is one document; a ``.jsonl`` file, whose every line is a JSON
object with a document under ``text``; or a folder of these. Pairs are a ``.jsonl`` file whose every
line also has ``image``, the path of a PNG or JPEG image from the file's folder on.

A shard is a folder of ``.npy`` files and ``meta.json``, whose ``kind`` is "texts" or "pairs":

===============  ================  =============================================================
file             shape             holds
===============  ================  =============================================================
text_ids         [L]               the pieces of all texts, one after another, int32
text_ends        [X]               one past the last piece of each text, int64
patches          [M, 16, 16, 3]    of pairs: patches of all images in RGB, in raster order, uint8
patch_ends       [X]               of pairs: one past the last patch of each image, int64
intervals        [M, 4]            of pairs: rows and columns of each patch in 128ths of its image
===============  ================  =============================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gato_gym.files.atomic_io import file_name, inside
from gato_gym.files.bounded_io import (
    as_type,
    check_file,
    parse_json,
    read_bytes,
    read_json,
    read_text,
)
from gato_gym.text import default_tokenizer
from policies.model.config import NetworkConfig
from policies.model.inputs.text_sequence import Passage, TextLayout, image_patches, lay_out_passages
from policies.training.data.shards import check_ends, is_made_of, load_arrays, save_arrays

FORMAT = 1
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
        for file in self.files:
            if file.suffix == ".txt":
                yield _checked_text(read_text(file, largest=LARGEST_TEXTS), str(file)), None
                continue
            for entry, where in _lines(file):
                text = _checked_text(entry.get("text"), where)
                yield text, _read_image(file.parent, entry, where) if self.pairs else None

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


@dataclass(frozen=True)
class TextShard:
    """A source's tokens.

    Attributes:
        name: The source's.
        pairs: Whether each text has an image.
        arrays: Memory-mapped arrays by the names of the module's table.
    """

    name: str
    pairs: bool
    arrays: dict[str, NDArray[Any]]

    @classmethod
    def open(cls, folder: Path) -> TextShard:
        """Open a shard's folder.

        Raises:
            FileNotFoundError: It holds no shard.
        """
        if not (folder / "meta.json").exists():
            raise FileNotFoundError(f"{folder} holds no shard: gato-gym train --text makes it")
        path = folder / "meta.json"
        meta = as_type(dict[str, Any], read_json(path), str(path))
        source = as_type(str, meta.get("name"), f"{path}: name")
        kind = as_type(Literal["texts", "pairs"], meta.get("kind"), f"{path}: kind")
        pairs = kind == "pairs"
        names = ("text_ids", "text_ends", *(("patches", "patch_ends", "intervals") * pairs))
        arrays = load_arrays(folder, names)
        ends = {"text_ends": "text_ids", **({"patch_ends": "patches"} if pairs else {})}
        check_ends(folder, arrays, ends)
        if pairs and len(arrays["intervals"]) != len(arrays["patches"]):
            raise ValueError(f"{folder} has another number of intervals than patches: delete it")
        return cls(source, pairs, arrays)

    def __len__(self) -> int:
        """X, how many texts it holds."""
        return len(self.arrays["text_ends"])

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """int64 ``[X]``: tokens of each text, with those of its image and the separator."""
        sizes = np.diff(self.arrays["text_ends"], prepend=0) + 1
        if self.pairs:
            sizes = sizes + np.diff(self.arrays["patch_ends"], prepend=0)
        return np.asarray(sizes, np.int64)

    def passage(self, index: int, *, first: int = 0, most: int | None = None) -> Passage:
        """Text ``index`` with its image, from piece ``first`` on, ``most`` pieces at most."""
        begin, end = self._span("text_ends", index)
        stop = end if most is None else min(end, begin + first + most)
        text = np.asarray(self.arrays["text_ids"][begin + first : stop], np.int64)
        if not self.pairs:
            return Passage(text, first=first)
        begin, end = self._span("patch_ends", index)
        patches = np.asarray(self.arrays["patches"][begin:end])
        return Passage(text, patches, np.asarray(self.arrays["intervals"][begin:end]), first)

    def _span(self, ends: str, index: int) -> tuple[int, int]:
        stops = self.arrays[ends]
        return int(stops[index - 1]) if index else 0, int(stops[index])


def shard_texts(sources: Sequence[TextSource], folder: Path) -> dict[str, TextShard]:
    """Encode sources into shards; those that are there, made of the same files, are kept.

    Args:
        sources: The sources.
        folder: The shards' folder.

    Returns:
        The shards by name.

    Raises:
        FileNotFoundError, ImportError, ValueError: A source cannot be read, see
            :class:`TextSource`.
    """
    shards = {}
    for source in sources:
        place = folder / file_name(source.name)
        meta = {"name": source.name, "group": source.name, **source.identity()}
        if not is_made_of(place, meta):
            save_arrays(place, _encoded(source), meta)
        shards[source.name] = TextShard.open(place)
    return shards


def _encoded(source: TextSource) -> dict[str, NDArray[Any]]:
    tokenizer = default_tokenizer()
    texts, images = [], []
    room = source._patches_limit() if source.pairs else 0
    for text, image in source:
        texts.append(tokenizer.encode(text))
        if image is not None:
            room -= image.nbytes
            if room < 0:
                raise ValueError(
                    f"the images of {source.files[0]} are far larger than their files, or named "
                    f"too often: expected at most {PATCHES_TO_FILES} times the files' bytes, or "
                    f"{LARGEST_PATCHES >> 20} MiB; scale them down, or name each image once"
                )
            images.append(image_patches(image))
    if not texts:
        files = ", ".join(str(file) for file in source.files)
        raise ValueError(f"{files} holds no text: expected at least one")
    arrays: dict[str, NDArray[Any]] = {
        "text_ids": np.concatenate(texts).astype(np.int32),
        "text_ends": np.cumsum([len(text) for text in texts]).astype(np.int64),
    }
    if source.pairs:
        arrays["patches"] = np.concatenate([patches for patches, _ in images])
        arrays["patch_ends"] = np.cumsum([len(patches) for patches, _ in images]).astype(np.int64)
        arrays["intervals"] = np.concatenate([places for _, places in images]).astype(np.int32)
    return arrays


@dataclass(frozen=True)
class TextDocument:
    """A document whose targets are the tokens of its texts.

    Attributes:
        name: Its shard's.
        layout: Its tokens.
    """

    name: str
    layout: TextLayout

    @property
    def size(self) -> int:
        return len(self.layout.ids)


def draw_text_document(
    shard: TextShard,
    generator: np.random.Generator,
    config: NetworkConfig,
    *,
    budget: int,
    length: int,
    pairs: int,
) -> TextDocument | None:
    """A document of a shard.

    Args:
        shard: Shard of texts or of pairs.
        generator: Draws it.
        config: The network's sizes.
        budget: Most tokens; what is beyond is cropped.
        length: Tokens of a row.
        pairs: How many pairs one has.

    Returns:
        The document; None where not even an image fits.
    """
    first = 0
    if shard.pairs:
        drawn = generator.choice(len(shard), size=min(pairs, len(shard)), replace=False)
        passages = [shard.passage(int(index)) for index in drawn]
        sizes = shard.sizes[drawn]
        images = np.array([passage.num_patches for passage in passages])
        # an image whose text is cropped away altogether would teach nothing
        fits = np.cumsum(sizes) - sizes + images <= budget
        passages = passages[: int(np.argmin(np.r_[fits, False]))]
        if not passages:
            return None
    else:
        index = int(generator.integers(len(shard)))
        pieces = int(shard.sizes[index]) - 1
        first = int(generator.choice(np.arange(0, pieces, max(1, length // 2))))
        # one piece more than fits: the last token that does predicts it
        passages = [shard.passage(index, first=first, most=budget + 1)]
    start = config.prompt_tokens + first
    layout = lay_out_passages(passages, config.vocabulary, first_position=start, budget=budget)
    return TextDocument(shard.name, layout)


def usual_text_size(shard: TextShard, *, length: int, pairs: int) -> float:
    """Expected tokens of a document of this shard."""
    if shard.pairs:
        return min(float(length), min(pairs, len(shard)) * float(shard.sizes.mean()))
    return float(np.minimum(shard.sizes, length).mean())
