"""``gato-gym train``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gato_gym.commands.common import Command, Invocation
from gato_gym.commands.flags import MOST_THREADS
from gato_gym.ranges import check_range
from policies.training.settings import TrainSettings


@dataclass(frozen=True)
class Train(TrainSettings, Command):
    """Train a network on your own episodes.

    Stopped at any moment, the same command resumes. The last options of the loss and of
    regularisation are measured in docs/training.md.

    Attributes:
        threads: Threads of a CPU; by default 1 for tiny, else all cores.
        dry_run: Encode, print the mixture, and stop.
    """

    sections: ClassVar[Mapping[str, str]] = {
        "--dataset": "data",
        "--family": "network",
        "--tasks": "tasks and their tokens",
        "--weights": "mixture",
        "--optimiser": "optimisation",
        "--sigma": "loss and regularisation",
        "--recompute": "computing",
        "--tensorboard": "what is kept",
        "--score-every": "scores while training",
        "--threads": "this command",
    }

    threads: int | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "threads", low=1, high=MOST_THREADS)

    def run(self, call: Invocation) -> None:
        import torch

        from policies.training.memory_choice import prepare_run
        from policies.training.run import TrainRun

        tiny = self.preset == "tiny"
        usual = 1 if tiny else torch.get_num_threads()
        torch.set_num_threads(usual if self.threads is None else self.threads)
        run = (TrainRun if self.dry_run else prepare_run)(self, call.console)
        run.describe()
        if self.dry_run:
            call.console.print("nothing was trained: leave out --dry-run to do so")
            return
        run.train()
        first = run.tasks[0].environment or "ENV_ID"
        call.console.print(
            f"{self.output} holds the network. Next:\n"
            f"  gato-gym score {first} --policy {self.output} --dataset {self.datasets[0]}\n"
            f'  {run.family.policy}.load("{self.output}", env=gato_gym.make("{first}"))',
            highlight=False,
            markup=False,
        )
