"""``gato-gym collect``: experts' episodes as Minari datasets, ``gato/<task id>-v0``.

    gato-gym collect --suite babyai --episodes 200
    gato-gym collect --suite babyai --steps 24000 --noise 0.2
    gato-gym collect --suite metaworld --episodes 80 --noise 0.8 \\
        --steps-after-success 40
    gato-gym collect --suite mujoco --episodes 100 --noise 0.3
    gato-gym collect --tasks atari-pong --steps 100000 --policy random

* :class:`Collect` -- the command.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from gato_gym.commands.common import Command, CommandFailed, Invocation
from gato_gym.ranges import check_range
from gato_gym.tasks import list_tasks
from policies.collection.jobs import CollectSettings


@dataclass(frozen=True)
class Collect(CollectSettings, Command):
    """Collect experts' episodes of the tasks as Minari datasets.

    Attributes:
        episodes: Episodes of each task, at least if steps are given too; by default 200.
        steps: Recorded steps of each task, at least.
        suite: Collect one suite; by default all.
        tasks: Pattern of task ids, such as 'go-to-*'.
        workers: Processes; by default one a core.
        overwrite: Replace datasets that other settings made.
    """

    stopped: ClassVar[str] = "stopped: run the same command again to resume"

    root: Path = Path("data")
    suite: str | None = None
    tasks: str | None = None
    workers: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.episodes is None and self.steps is None:
            object.__setattr__(self, "episodes", 200)
        super().__post_init__()
        check_range(self, "workers", low=1)

    def run(self, call: Invocation) -> None:
        from policies.collection.collect import collect, with_experts
        from policies.expert_training.recipes import all_recipes
        from policies.processes import WorkerError

        tasks = list_tasks(self.suite, self.tasks)
        if self.record.policy == "expert":
            tasks = with_experts(tasks, call.console, trainable=all_recipes())
        try:
            collect(
                tasks, self, workers=self.workers, overwrite=self.overwrite, console=call.console
            )
        except WorkerError as error:
            raise CommandFailed(str(error)) from error
