"""``python -m benchmarks.experts``: measure random and expert play."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from benchmarks.measure_references import EPISODES, check, measure_into_file
from benchmarks.protocol import BenchmarkError
from benchmarks.workers.common import available_cores
from gato_gym.commands.common import DONE, FAILED, Command, CommandFailed, Invocation
from gato_gym.commands.flags import flag
from gato_gym.tasks.registry import SUITES
from policies.processes import WorkerError


@dataclass(frozen=True)
class MeasureReferences(Command):
    """Measure random and expert play on a whole suite.

    Attributes:
        suite: The suite; with --check, by default all.
        tasks: Task ids or patterns, separated by commas.
        player: Measure only this one; by default both.
        check: Fail where an expert drifted from what is recorded.
        episodes: Episodes of each task.
        seed: Chooses the episodes.
        workers: Processes; by default one a core.
        work: Folder of the runs.
    """

    stopped: ClassVar[str] = "stopped; finished episodes are kept. The same command continues."

    suite: str | None = None
    tasks: Annotated[str | None, flag(metavar="PATTERN")] = None
    player: Literal["random", "expert"] | None = None
    check: bool = False
    episodes: int = EPISODES
    seed: int = 0
    workers: int = field(default_factory=available_cores)
    work: Path = Path("results/references")

    def run(self, call: Invocation) -> int:
        suite = self.suite
        if (suite is None and (self.tasks or not self.check)) or suite not in (None, *SUITES):
            raise BenchmarkError(f"--suite is {suite}: expected one of {', '.join(SUITES)}")
        try:
            if suite is None or self.check:
                drifted = check(suite, self.tasks, workers=self.workers, console=call.console)
                return FAILED if drifted else DONE
            measure_into_file(
                suite,
                episodes=self.episodes,
                seed=self.seed,
                workers=self.workers,
                work=self.work,
                console=call.console,
                tasks=self.tasks,
                player=self.player,
            )
        except WorkerError as error:
            raise CommandFailed(str(error)) from error
        return DONE
