"""Text to token ids and back, with the SentencePiece model that ships with the package.

* :class:`TextTokenizer` -- encode any string, decode it unchanged.
* :func:`default_tokenizer` -- the packaged model, loaded when first asked for.
* :func:`is_text_space` -- whether a space's members are strings.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.files.bounded_io import read_bytes

__all__ = ["TextTokenizer", "default_tokenizer", "is_text_space"]

_CACHED_STRINGS = 65536

SPACE_MARK = "\u2581"
"""What SentencePiece writes for a space inside its pieces."""


def is_text_space(space: gym.Space[Any]) -> bool:
    """Whether members of ``space`` are strings: Text, and MiniGrid's MissionSpace."""
    return isinstance(space, spaces.Text) or hasattr(space, "mission_func")


class TextTokenizer:
    """A SentencePiece model with byte fallback: every Unicode string encodes and decodes unchanged.

    Args:
        model: The bytes of a SentencePiece model file.

    Raises:
        ValueError: If the bytes are not a SentencePiece model.

    Example:
        >>> tokenizer = default_tokenizer()
        >>> tokenizer.decode(tokenizer.encode("go to the red ball"))
        'go to the red ball'
    """

    def __init__(self, model: bytes) -> None:
        from sentencepiece import SentencePieceProcessor

        self._model = bytes(model)
        self._processor = SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(self._model)
        except RuntimeError as error:
            raise ValueError(
                f"{len(self._model)} bytes are not a SentencePiece model ({error}): pass the "
                "content of a .model file"
            ) from error
        self.encode_cached = lru_cache(maxsize=_CACHED_STRINGS)(self._encode_frozen)

    def __len__(self) -> int:
        """Number of pieces; ids are below it."""
        return int(self._processor.GetPieceSize())

    @property
    def model(self) -> bytes:
        """The content of the model file."""
        return self._model

    def encode(self, text: str) -> NDArray[np.int32]:
        """Ids of a string, int32 ``[L]``.

        Raises:
            ValueError: If the string holds a lone surrogate, which is not Unicode text.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"text has a lone surrogate at index {error.start}: expected Unicode text; decode "
                'its bytes with errors="replace" first'
            ) from error
        if SPACE_MARK in text:
            return np.array(self._encode_space_marks(text), dtype=np.int32)
        return np.array(self._processor.EncodeAsIds(text), dtype=np.int32)

    def _encode_space_marks(self, text: str) -> list[int]:
        """Ids of a text with U+2581, which SentencePiece would read as a space: spelt in bytes.

        A character of the private use area that the text lacks stands in for it. Both are three
        bytes of UTF-8, and no other run of bytes in a text equals the stand-in's.
        """
        stand_in = next(mark for mark in map(chr, range(0xE000, 0xF900)) if mark not in text)
        pieces = self._processor.EncodeAsIds(text.replace(SPACE_MARK, stand_in))
        mark, other = (self._byte_pieces(character) for character in (SPACE_MARK, stand_in))
        at = 0
        while at + 3 <= len(pieces):
            if pieces[at : at + 3] == other:
                pieces[at : at + 3] = mark
                at += 2
            at += 1
        return list(pieces)

    def _byte_pieces(self, character: str) -> list[int]:
        return [self._processor.PieceToId(f"<0x{byte:02X}>") for byte in character.encode()]

    def decode(self, ids: Iterable[int]) -> str:
        """The string of ids.

        Raises:
            ValueError: If an id is outside [0, len(self)).
        """
        pieces = [int(i) for i in ids]
        for piece in pieces:
            if not 0 <= piece < len(self):
                raise ValueError(f"text id {piece} is outside [0, {len(self)}): it names no piece")
        return str(self._processor.DecodeIds(pieces))

    def piece(self, index: int) -> str:
        """The piece of an id as the model spells it, spaces as "▁"."""
        return str(self._processor.IdToPiece(index))

    def _encode_frozen(self, text: str) -> NDArray[np.int32]:
        ids = self.encode(text)
        ids.flags.writeable = False
        return ids

    def __reduce__(self) -> tuple[Any, ...]:
        return TextTokenizer, (self._model,)


@cache
def default_tokenizer() -> TextTokenizer:
    """The tokenizer of the packaged 32,000 pieces; the same object at every call.

    Raises:
        FileNotFoundError: If the package was built without its model file.
    """
    asset = resources.files("gato_gym") / "assets" / "text.model"
    if not asset.is_file():
        raise FileNotFoundError(
            "gato_gym/assets/text.model is missing: expected the packaged text model; reinstall "
            "gato-gym, or pass tokenizer=TextTokenizer(...)"
        )
    return TextTokenizer(read_bytes(Path(str(asset))))
