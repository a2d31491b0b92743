"""What a task is.

* :class:`Task` -- one task: its environment, and how its spaces become tokens.
* :func:`need` -- imports a simulator, or reports how to install it.
* :func:`vector_of` -- description of a Box of one axis.
* :class:`UnknownTaskError`, :class:`MissingPackageError` -- the errors.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from gato_gym.episodes.episode import Episode
from gato_gym.options import PlanOptions

NAMESPACE = "Gato"


Symmetry = Callable[[Episode, np.random.Generator], Episode]


class UnknownTaskError(ValueError):
    """No task has this id, or none matches this pattern."""


class MissingPackageError(ImportError):
    """A task's simulator is not installed."""


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        id: The task's id, such as ``babyai-go-to-local``.
        suite: Its suite, such as ``babyai``.
        env_id: The simulator's own id.
        max_episode_steps: Steps after which an episode is truncated; None if the environment sets
            its own limit for each episode.
        options: How its spaces become tokens.
        factory: Makes the environment; called with ``render_mode``.
        extra: The pip extra that installs its simulator.
        description: One line.
        observation: Short description of an observation.
        action: Short description of an action.
        augment: Transforms an episode by a random symmetry of the task; None without symmetries.
    """

    id: str
    suite: str
    env_id: str
    max_episode_steps: int | None
    options: PlanOptions
    factory: Callable[..., gym.Env[Any, Any]] = field(repr=False, compare=False)
    extra: str = ""
    description: str = ""
    observation: str = ""
    action: str = ""
    augment: Symmetry | None = field(default=None, repr=False, compare=False)

    def make(self, *, render_mode: str | None = None, sticky: float = 0.0) -> gym.Env[Any, Any]:
        """The environment, as ``gym.make("Gato/<id>")`` gives it.

        Args:
            render_mode: As in Gymnasium.
            sticky: Probability that a frame of an Atari game repeats the previous action.

        Raises:
            MissingPackageError: Its simulator is not installed; names the command to install it.
            ValueError: ``sticky`` is set for a task that is not an Atari game.
        """
        options: dict[str, Any] = {"sticky": sticky} if sticky else {}
        return gym.make(f"{NAMESPACE}/{self.id}", render_mode=render_mode, **options)


def vector_of(numbers: int) -> str:
    """Description of a Box of one axis."""
    return "1 number" if numbers == 1 else f"{numbers} numbers"


def need(package: str, extra: str) -> Any:
    """Import a simulator.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingPackageError(
            f"package {package!r} could not be imported ({error}): "
            f'run pip install "gato-gym[{extra}]"'
        ) from error
