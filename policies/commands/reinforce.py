"""``gato-gym reinforce``: a checkpoint's task, improved by PPO.

* :class:`Reinforce` -- the command.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gato_gym.commands.common import Command, Invocation
from gato_gym.commands.flags import MOST_THREADS
from gato_gym.ranges import check_range
from policies.sb3.settings import ReinforceSettings


@dataclass(frozen=True)
class Reinforce(ReinforceSettings, Command):
    """Improve one task of a checkpoint by reinforcement learning.

    Stable-Baselines3's PPO goes on from what the network has learned by imitation. With --dataset
    it keeps imitating these episodes beside; --check-tasks shows what other tasks lose. Stopped at
    any moment, the same command resumes.

    Attributes:
        threads: Threads of a CPU; by default all cores.
    """

    sections: ClassVar[Mapping[str, str]] = {
        "--from": "checkpoint and task",
        "--dataset": "imitation beside",
        "--check-tasks": "scores before and after",
        "--num-envs": "rollouts and updates",
        "--seed": "what is kept, and computing",
    }

    threads: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "threads", low=1, high=MOST_THREADS)

    def run(self, call: Invocation) -> None:
        import torch

        from gato_gym.tasks.task import need

        need("stable_baselines3", "sb3")
        from policies.sb3.run import reinforce

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        reinforce(self, console=call.console)
        call.console.print(
            f"{self.output} holds the network, report.json the scores. Next:\n"
            f"  gato-gym score {self.task} --policy {self.output}\n"
            f'  GatoPolicy.load("{self.output}", env=env)',
            highlight=False,
            markup=False,
        )
