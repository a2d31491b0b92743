"""``gato-gym expert``: train, score, convert and ship experts.

* :class:`Expert` -- the command, of the subcommands ``train``, ``status``, ``score``, ``convert``
  and ``ship``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, subcommand

from gato_gym.commands.common import Command, Invocation
from gato_gym.ranges import check_range
from policies.expert_training.settings import QueueSettings

ROOT = Path("runs/experts")


@dataclass(frozen=True)
class _Train(QueueSettings, Command):
    """Train the expert of a task, or of many.

    Run again, it resumes where it stopped. With --suite, a pattern or neither, tasks whose expert
    is missing or below its bar are trained, the cheapest first: those without any expert for a
    while, then all up to their recipe's end.

    Attributes:
        task: Task id or pattern; by default all tasks that have a recipe.
        suite: Every task of a suite that has a recipe.
    """

    task: Positional[str | None] = None
    suite: str | None = None

    def run(self, call: Invocation) -> int:
        from policies.expert_training.queue import TrainQueue, chosen

        tasks = chosen(self.suite, self.task)
        if self.output is not None and len(tasks) > 1:
            raise ValueError(
                f"--output with {len(tasks)} tasks: it names the folder of one training"
            )
        return TrainQueue(tasks, ROOT, self).run(call.console)


@dataclass(frozen=True)
class _Status(Command):
    """Show where each training stands.

    Attributes:
        task: Task id or pattern; by default all.
        suite: Show tasks of one suite.
    """

    task: Positional[str | None] = None
    suite: str | None = None

    def run(self, call: Invocation) -> None:
        from rich.table import Table

        from policies.expert_training.queue import chosen, standings

        table = Table("task", "actions", "of", "best", "bar", "minutes", "shipped, of its bar", "")
        for row in standings(chosen(self.suite, self.task), ROOT):
            table.add_row(
                row.task,
                f"{row.steps:,}",
                f"{row.recipe_steps:,}",
                "–" if row.best is None else f"{row.best:.1f}",
                f"{row.bar:g}",
                f"{row.minutes:.1f}",
                "–" if row.shipped is None else f"{row.shipped:.2f}",
                row.finished or "",
            )
        call.console.print(table)


@dataclass(frozen=True)
class _Score(Command):
    """Play an expert in held-out episodes.

    Attributes:
        task: Task id, such as mujoco-hopper.
        episodes: Number of episodes.
        expert: Folder of the expert; by default the shipped one.
    """

    task: Positional[str]
    episodes: int = 100
    expert: Path | None = None

    def __post_init__(self) -> None:
        check_range(self, "episodes", low=1)

    def run(self, call: Invocation) -> None:
        from gato_gym.seeds import SCORE_SEEDS_START
        from gato_gym.tasks import get_task
        from policies.expert_training.evaluation import EVALUATION_ROWS, Evaluation, evaluate
        from policies.expert_training.recipes import recipe_for
        from policies.experts import load_trained
        from policies.experts.store import shipped_folder

        task = get_task(self.task)
        if self.expert is None and not shipped_folder(task.id).is_dir():
            recipe_for(task.id)  # a task without a recipe says so
        envs = [task.make() for _ in range(EVALUATION_ROWS)]
        spaces = envs[0].observation_space, envs[0].action_space
        policy = load_trained(task.id, *spaces, folder=self.expert)
        returns = evaluate(policy, envs, self.episodes, first_seed=SCORE_SEEDS_START)
        result = Evaluation.of(returns)
        episodes = f"{result.episodes} episode{'' if result.episodes == 1 else 's'}"
        call.console.print(
            f"{task.id}: {result.mean:.2f} ± {result.std:.2f} over {episodes}, seeds from "
            f"{SCORE_SEEDS_START}",
            highlight=False,
        )


@dataclass(frozen=True)
class _Convert(Command):
    """Convert a Stable-Baselines3 .zip to safetensors and JSON.

    A .zip is a pickle: reading it runs whatever code its author put in.

    Attributes:
        zip: The archive.
        task: Id of the task it plays.
        algorithm: The algorithm that trained it.
        output: Folder of the expert.
        trust_zip: I trust the archive's author.
    """

    zip: Positional[Path]
    task: str
    algorithm: Literal["a2c", "ppo", "sac"]
    output: Path
    trust_zip: bool = False

    def run(self, call: Invocation) -> None:
        from gato_gym.tasks import get_task
        from policies.expert_training.sb3.convert import load_zip
        from policies.experts.store import play_with, save_expert

        task = get_task(self.task)
        network = load_zip(self.zip, self.algorithm, trusted=self.trust_zip)
        env = task.make()
        play_with(network, env.observation_space, env.action_space)  # fits, or says why not
        save_expert(self.output, network, {"task": task.id, "algorithm": self.algorithm})
        call.console.print(f"wrote {self.output}", highlight=False)


@dataclass(frozen=True)
class _Ship(Command):
    """Put finished experts into the package.

    They are copied with their curves to policies/experts/trained, where they score more than what
    is there.

    Attributes:
        tasks: Ids or patterns; by default all that are finished.
    """

    tasks: Positional[str | None] = None

    def run(self, call: Invocation) -> None:
        from policies.expert_training.queue import chosen
        from policies.expert_training.shipping import ship

        lines = {task: ship(ROOT / task, task) for task in chosen(None, self.tasks)}
        finished = {task: line for task, line in lines.items() if line is not None}
        for task, line in finished.items():
            call.console.print(f"{task}: {line}", highlight=False)
        if not finished:
            raise ValueError(
                f"{ROOT} holds no finished training of {self.tasks or 'any task'}: "
                "gato-gym expert train TASK makes one"
            )


@dataclass(frozen=True)
class Expert(Command):
    """Train, score, convert and ship the experts of tasks."""

    stopped: ClassVar[str] = "stopped: run the same command again to resume"

    command: (
        Annotated[_Train, subcommand("train")]
        | Annotated[_Status, subcommand("status")]
        | Annotated[_Score, subcommand("score")]
        | Annotated[_Convert, subcommand("convert")]
        | Annotated[_Ship, subcommand("ship")]
    )

    def run(self, call: Invocation) -> int | None:
        return self.command.run(call)
