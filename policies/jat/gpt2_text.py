"""GPT-2's text tokens: byte-level byte-pair encoding.

* :class:`Gpt2Tokenizer` -- texts to ids; read from the files that GPT-2's tokenizers come as.

Every byte has a printable character; a text is cut into words, numbers and runs of signs, and in
each the pair of pieces that comes first among the merges is joined, until none is left.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gato_gym.files.bounded_io import as_type, read_json, read_text

LARGEST_FILE = 16 * 2**20
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt")
"""The first alone is enough, as are the others together."""

_CONTRACTION = re.compile("'s|'t|'re|'ve|'m|'ll|'d")
_RUN = re.compile(" ?l+| ?n+| ?o+|[ w]+(?![^ w])|[ w]+")
"""Over kinds of characters: letters, numbers, others, and white space other than blanks."""

_INFORMATION_SEPARATORS = "\x1c\x1d\x1e\x1f"
"""White space to Python, but not to Unicode."""


def byte_characters() -> list[str]:
    """The character of each byte, printable ones being their own.

    Example:
        >>> characters = byte_characters()
        >>> characters[ord("a")], characters[ord(" ")]
        ('a', 'Ġ')
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable}
    characters |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    return [characters[byte] for byte in range(256)]


class Gpt2Tokenizer:
    """Texts to ids.

    Args:
        vocabulary: The id of each piece, a byte being spelt as in :func:`byte_characters`.
        merges: Pairs of pieces, the first to be joined first.

    Raises:
        ValueError: The vocabulary lacks a byte, or what a merge makes.

    Example:
        >>> Gpt2Tokenizer.of_bytes().encode("go!")
        [70, 78, 0]
    """

    def __init__(self, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> None:
        self.vocabulary, self.merges = dict(vocabulary), [tuple(pair) for pair in merges]
        self._characters = byte_characters()
        needed = itertools.chain(self._characters, (first + second for first, second in merges))
        if lacking := next((piece for piece in needed if piece not in self.vocabulary), None):
            raise ValueError(
                f"the vocabulary has no piece {lacking!r}: expected GPT-2's, with every byte and "
                "what every merge makes; take a fresh copy of the tokenizer's files"
            )
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._encode_word = functools.lru_cache(maxsize=4096)(self._merged)

    @classmethod
    def of_bytes(cls) -> Gpt2Tokenizer:
        """Without merges: each byte is a token, with the id that GPT-2 gives it."""
        ordered = sorted(byte_characters(), key=lambda character: (ord(character) > 255, character))
        return cls({character: index for index, character in enumerate(ordered)}, [])

    @classmethod
    def learned(cls, texts: Iterable[str], size: int) -> Gpt2Tokenizer:
        """Bytes, and merges of the most frequent pairs of pieces (arXiv 1508.07909).

        Args:
            texts: What it is to encode shortly; each counts once.
            size: Most ids, 256 or more; there are fewer where every word is one piece.

        Example:
            >>> tokenizer = Gpt2Tokenizer.learned(["go to a ball", "go to a box"], 300)
            >>> len(tokenizer.encode("go to a ball"))
            4
        """
        counts = Counter(word for text in texts for word in _words(text))
        characters, merges = byte_characters(), list[tuple[str, str]]()
        words = {word: [characters[byte] for byte in word.encode()] for word in sorted(counts)}
        vocabulary = dict(cls.of_bytes().vocabulary)
        while len(vocabulary) < size:
            pairs: Counter[tuple[str, str]] = Counter()
            for word, pieces in words.items():
                for pair in itertools.pairwise(pieces):
                    pairs[pair] += counts[word]
            if not pairs:
                break
            best = min(pairs, key=lambda pair: (-pairs[pair], pair))
            merges.append(best)
            vocabulary.setdefault("".join(best), len(vocabulary))
            words = {word: _joined(pieces, best) for word, pieces in words.items()}
        return cls(vocabulary, merges)

    @classmethod
    def read(cls, folder: Path) -> Gpt2Tokenizer | None:
        """The tokenizer in a checkpoint's folder; None where it has none.

        Raises:
            ValueError: The files are no tokenizer's.
        """
        whole, vocabulary, merges = (folder / name for name in TOKENIZER_FILES)
        if whole.is_file():
            content = as_type(
                dict[str, Any], read_json(whole, largest=LARGEST_FILE), str(whole)
            ).get("model")
            model = as_type(dict[str, Any], content, f"{whole}: model")
            lines: Any = model.get("merges")
            return cls(_ids(model.get("vocab"), whole), _pairs(lines, whole))
        if not (vocabulary.is_file() and merges.is_file()):
            return None
        lines = read_text(merges, largest=LARGEST_FILE).splitlines()
        lines = [line for line in lines if line and not line.startswith("#version")]
        ids = _ids(read_json(vocabulary, largest=LARGEST_FILE), vocabulary)
        return cls(ids, _pairs(lines, merges))

    def encode(self, text: str) -> list[int]:
        """Ids of a text.

        Raises:
            ValueError: It has lone surrogates.
        """
        return [id for word in _words(text) for id in self._encode_word(word)]

    def _merged(self, word: str) -> tuple[int, ...]:
        pieces = [self._characters[byte] for byte in word.encode()]
        while len(pieces) > 1:
            best = min(
                itertools.pairwise(pieces), key=lambda pair: self._ranks.get(pair, len(self.merges))
            )
            if best not in self._ranks:
                break
            pieces = _joined(pieces, best)
        return tuple(self.vocabulary[piece] for piece in pieces)

    def __reduce__(self) -> tuple[Any, ...]:
        return Gpt2Tokenizer, (self.vocabulary, self.merges)


def _joined(pieces: list[str], pair: tuple[str, ...]) -> list[str]:
    """The pieces with each occurrence of a pair as one."""
    joined, at = [], 0
    while at < len(pieces):
        size = 2 if tuple(pieces[at : at + 2]) == pair else 1
        joined.append("".join(pieces[at : at + size]))
        at += size
    return joined


def _ids(value: Any, path: Path) -> dict[str, int]:
    return as_type(dict[str, int], value, f"{path}: vocabulary")


def _pairs(value: Any, path: Path) -> list[tuple[str, str]]:
    """Merges, each a list of two pieces, or the two with a blank between them."""
    lines = as_type(list[list[str] | str], value, f"{path}: merges")
    pairs = [line.split(" ") if isinstance(line, str) else line for line in lines]
    if wrong := next((pair for pair in pairs if len(pair) != 2), None):
        raise ValueError(f"{path}: merges has {wrong!r}, expected two pieces; take a fresh copy")
    return [(first, second) for first, second in pairs]


def _words(text: str) -> Iterator[str]:
    """The parts of a text in which pieces are joined."""
    kinds, at = "".join(map(_kind, text)), 0
    while at < len(text):
        match = _CONTRACTION.match(text, at) or _RUN.match(kinds, at)
        assert match is not None, "every character has a kind"
        yield text[at : match.end()]
        at = match.end()


def _kind(character: str) -> str:
    if character == " ":
        return " "
    if character.isspace() and character not in _INFORMATION_SEPARATORS:
        return "w"
    category = unicodedata.category(character)[0]
    return {"L": "l", "N": "n"}.get(category, "o")
