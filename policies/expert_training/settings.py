"""The settings of ``gato-gym expert train``, which its flags are too.

* :class:`QueueSettings` -- how the experts of some tasks are trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from gato_gym.commands.flags import MOST_THREADS, flag
from gato_gym.ranges import check_range


@dataclass(frozen=True)
class QueueSettings:
    """How the experts of some tasks are trained.

    Attributes:
        seed: Seed of every training.
        steps: Actions to learn from; by default the recipe's.
        output: Folder of a single task's training; by default runs/experts/TASK.
        from_expert: Begin with the package's expert of the task: of games, and where SAC trains it.
        device: Where the networks of games learn.
        jobs: Trainings side by side, each a process.
        threads: Threads of each training that play games.
        minutes: Stop after so many minutes, to be resumed; by default when all is done.
        ships: Put what is better than the package's expert into the package.
        tensorboard: Write TensorBoard's events as well.
        callback: module:function that returns a Stable-Baselines3 callback, such as one that logs
            or stops; of tasks that are not games.
    """

    seed: int = 0
    steps: float | None = None
    output: Path | None = None
    from_expert: bool = False
    device: Literal["cpu", "cuda"] = "cpu"
    jobs: int = 1
    threads: int = 1
    minutes: float | None = None
    ships: Annotated[bool, flag(name="ship")] = False
    tensorboard: bool = False
    callback: str | None = None

    def __post_init__(self) -> None:
        check_range(self, "steps", "jobs", low=1)
        check_range(self, "threads", low=1, high=MOST_THREADS)
        check_range(self, "minutes", above=True)
        check_range(self, "seed")
