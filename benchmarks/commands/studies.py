"""``gato-gym finetune`` and ``gato-gym scaling``.

* :class:`Finetune` -- how few episodes are enough.
* :class:`Scaling` -- loss and score of several sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.studies.settings import FinetuneSettings, ScalingSettings
from gato_gym.commands.common import Command, Invocation
from gato_gym.commands.flags import MOST_THREADS
from gato_gym.ranges import check_range


@dataclass(frozen=True)
class Finetune(FinetuneSettings, Command):
    """Fine-tune a network on a few of your own episodes.

    It is fine-tuned on nested subsets of the episodes of one environment and scored after each;
    the curve is drawn. Stopped at any moment, the same command resumes.

    Attributes:
        threads: Threads of a CPU; by default all cores.
    """

    sections: ClassVar[Mapping[str, str]] = {
        "--from": "checkpoint and episodes",
        "--episodes": "the curve",
        "--rate": "optimisation",
        "--layout": "tokens",
        "--keep": "batches and computing",
    }

    threads: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "threads", low=1, high=MOST_THREADS)

    def run(self, call: Invocation) -> None:
        from benchmarks.studies.finetune import FinetuneRun

        _set_threads(self.threads)
        study = FinetuneRun(self, call.console)
        checkpoint = study.run()
        call.console.print(
            f"{self.output / 'curve.csv'} has the curve, {checkpoint} the network. Next:\n"
            f"  gato-gym score {self.env or study.task.environment} --policy {self.output}\n"
            f'  GatoPolicy.load("{self.output}", env=env)',
            highlight=False,
            markup=False,
        )


@dataclass(frozen=True)
class Scaling(ScalingSettings, Command):
    """Train several sizes on the same tokens, and draw loss and score.

    Loss on held-out episodes, and the score, are measured along the way. Stopped at any moment,
    the same command resumes.

    Attributes:
        threads: Threads of a CPU; by default all cores.
    """

    threads: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "threads", low=1, high=MOST_THREADS)

    def run(self, call: Invocation) -> None:
        from benchmarks.studies.scaling import ScalingRun

        _set_threads(self.threads)
        ScalingRun(self, call.console).run()
        call.console.print(f"{self.output / 'scaling.csv'} has the table", highlight=False)


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
