"""Episodes to play, and what becomes of them.

* :class:`EpisodeKey` -- one episode to play; :class:`EpisodeResult` -- how it went;
  :class:`EpisodeFailure` -- why it could not be played to its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gato_gym.files.bounded_io import as_type
from policies.rollout.disturbances import UNDISTURBED, Disturbance


@dataclass(frozen=True)
class EpisodeKey:
    """One episode to play.

    Attributes:
        task: Task id.
        index: Which of the task's episodes, from 0.
        seed: What the environment is reset with, and what a policy's random numbers follow from.
        disturbance: What its environment does beside what the task says; not part of which
            episode it is.
    """

    task: str
    index: int
    seed: int
    disturbance: Disturbance = field(default=UNDISTURBED, compare=False)


@dataclass(frozen=True)
class EpisodeResult:
    """One episode played.

    Attributes:
        key: Which episode.
        total_return: Sum of rewards, undiscounted.
        length: Timesteps played.
        success: Whether the task was solved, by the protocol's rule; None where the
            environment does not say.
        terminated: True when the environment ended it, False when its time limit did.
        seconds: Wall-clock time from reset to end, beside the other episodes of its batch.
        digest: 16 hexadecimal digits of a hash of its first observation, its actions and its
            rewards; None of episodes recorded before there was one. Equal ones are one episode
            played twice.
    """

    key: EpisodeKey
    total_return: float
    length: int
    success: bool | None
    terminated: bool
    seconds: float
    digest: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A line of ``results.jsonl``."""
        return {
            "task": self.key.task,
            "episode": self.key.index,
            "seed": self.key.seed,
            "return": self.total_return,
            "length": self.length,
            "success": self.success,
            "terminated": self.terminated,
            "seconds": round(self.seconds, 3),
            "digest": self.digest,
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> EpisodeResult:
        """The inverse of :meth:`to_json`.

        Raises:
            KeyError: A field is missing.
            ValueError: One is of another type.
        """
        return cls(
            _key_of(line),
            total_return=as_type(float, line["return"], "return"),
            length=as_type(int, line["length"], "length"),
            success=as_type(bool | None, line["success"], "success"),
            terminated=as_type(bool, line["terminated"], "terminated"),
            seconds=as_type(float, line["seconds"], "seconds"),
            digest=as_type(str | None, line.get("digest"), "digest"),
        )


@dataclass(frozen=True)
class EpisodeFailure:
    """An episode that its environment made impossible to finish. It has no score.

    Attributes:
        key: Which episode.
        error: The traceback.
        length: Timesteps played until then.
        seconds: Wall-clock time from reset until then.
    """

    key: EpisodeKey
    error: str
    length: int = 0
    seconds: float = 0.0

    @property
    def reason(self) -> str:
        """The traceback's last line: the error's type and message."""
        return self.error.rstrip().rsplit("\n", 1)[-1]

    def to_json(self) -> dict[str, Any]:
        """A line of ``results.jsonl``: ``error``, and no ``return``."""
        return {
            "task": self.key.task,
            "episode": self.key.index,
            "seed": self.key.seed,
            "length": self.length,
            "seconds": round(self.seconds, 3),
            "error": self.error,
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> EpisodeFailure:
        """The inverse of :meth:`to_json`.

        Raises:
            KeyError: A field is missing.
            ValueError: One is of another type.
        """
        return cls(
            _key_of(line),
            error=as_type(str, line["error"], "error"),
            length=as_type(int, line["length"], "length"),
            seconds=as_type(float, line["seconds"], "seconds"),
        )


def _key_of(line: Mapping[str, Any]) -> EpisodeKey:
    return EpisodeKey(
        as_type(str, line["task"], "task"),
        as_type(int, line["episode"], "episode"),
        as_type(int, line["seed"], "seed"),
    )


Outcome = EpisodeResult | EpisodeFailure
"""What becomes of an episode."""
