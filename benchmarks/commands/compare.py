"""``gato-gym compare``, also ``python -m benchmarks.compare``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from benchmarks.report.compare import compare, render
from benchmarks.store.run_store import read_run
from gato_gym.commands.common import Command, Invocation
from gato_gym.files.atomic_io import write_json
from gato_gym.terminal import new_console


@dataclass(frozen=True)
class Compare(Command):
    """Show what changed from run A to run B, regressions first.

    Attributes:
        a: Folder of the run that is compared with.
        b: Folder of the run that is compared.
        force: Compare runs of different protocols.
        output: Write the comparison to a file as JSON, too.
    """

    a: Positional[Path]
    b: Positional[Path]
    force: bool = False
    output: Path | None = None

    def run(self, call: Invocation) -> None:
        comparison = compare(read_run(self.a), read_run(self.b), force=self.force)
        if self.output is not None:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.output, comparison.to_json())
        new_console().print(render(comparison))
