"""``python -m benchmarks.experts``: measure random and expert play."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from benchmarks.measure_references import ReferenceSettings, check, measure_into_file
from benchmarks.protocol import ALL, BenchmarkError
from gato_gym.commands.common import DONE, FAILED, Command, CommandFailed, Invocation
from gato_gym.tasks import list_suites
from policies.processes import WorkerError


@dataclass(frozen=True)
class MeasureReferences(ReferenceSettings, Command):
    """Measure random and expert play on a whole suite.

    Attributes:
        check: Fail where an expert drifted from what is recorded.
    """

    stopped: ClassVar[str] = "stopped; finished episodes are kept. The same command continues."

    check: bool = False

    def run(self, call: Invocation) -> int:
        is_whole = self.suite == ALL and self.check and not self.tasks
        if not is_whole and self.suite not in (suites := list_suites()):
            raise BenchmarkError(f"--suite is {self.suite}: expected one of {', '.join(suites)}")
        try:
            if self.check:
                suite = None if is_whole else self.suite
                drifted = check(suite, self.tasks, workers=self.workers, console=call.console)
                return FAILED if drifted else DONE
            measure_into_file(self, console=call.console)
        except WorkerError as error:
            raise CommandFailed(str(error)) from error
        return DONE
