"""The videos of a run's folder.

* :class:`Clip` -- one of them.
* :func:`read_clips` -- those that are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gato_gym.files.atomic_io import inside
from gato_gym.files.bounded_io import as_type, read_json

FOLDER, INDEX = "videos", "videos.json"


@dataclass(frozen=True)
class Clip:
    """The video of an episode.

    Attributes:
        task: Task id.
        episode: Which of the task's episodes.
        seed: Seed of the episode.
        file: Path, from the run's folder.
        total_return: What the filmed episode returned.
        length: Its timesteps.
        success: Whether it was one; None where the environment does not say.
        same: Whether that is what the run recorded. It is not where a policy's random numbers
            are not the episode's own, or a GPU computes.
    """

    task: str
    episode: int
    seed: int
    file: str
    total_return: float
    length: int
    success: bool | None
    same: bool

    def to_json(self) -> dict[str, Any]:
        """By attribute; ``return`` for ``total_return``."""
        entry = asdict(self)
        return {"return": entry.pop("total_return"), **entry}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Clip:
        """The inverse of :meth:`to_json`.

        Raises:
            KeyError, ValueError: A field is missing or of another type, or there is one too many.
        """
        entry = dict(value)
        clip: Clip = as_type(cls, {"total_return": entry.pop("return"), **entry}, "the video")
        return clip


def _entries(path: Path) -> list[dict[str, Any]]:
    index = as_type(dict[str, Any], read_json(path), INDEX)
    entries: list[dict[str, Any]] = as_type(list[dict[str, Any]], index["clips"], f"{INDEX}: clips")
    return entries


def read_clips(folder: Path) -> tuple[Clip, ...]:
    """The videos of a run that are there, by task and episode; of other folders' files, none."""
    try:
        clips = [Clip.from_json(each) for each in _entries(folder / INDEX)]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    existing = [clip for clip in clips if inside(folder, clip.file)]
    return tuple(sorted(existing, key=lambda clip: (clip.task, clip.episode)))
