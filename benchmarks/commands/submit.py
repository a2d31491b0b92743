"""``gato-gym submit``: a run's figures for the leaderboard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from gato_gym.commands.common import Command, Invocation


@dataclass(frozen=True)
class Submit(Command):
    """Check a run and write its figures for the leaderboard.

    It must have played the whole suite under this version's protocol, in the simulators of the
    reference scores, with seed 0 and 20 episodes a task or more.

    Attributes:
        results: What was --output of gato-gym bench.
        output: The JSON file; by default submission.json in that folder.
    """

    results: Positional[Path]
    output: Path | None = None

    def run(self, call: Invocation) -> None:
        from benchmarks.submission import submission_of
        from gato_gym.files.atomic_io import write_json

        output = self.output or self.results / "submission.json"
        write_json(output, submission_of(self.results))
        call.console.print(
            f"wrote {output}: python scripts/leaderboard_page.py {output} puts it on the "
            "leaderboard, docs/leaderboard.md",
            markup=False,
            highlight=False,
        )
