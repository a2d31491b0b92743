"""Progress that can be read in a log."""

from __future__ import annotations

import io

from rich.console import Console

from benchmarks.report.progress import progress
from policies.rollout.outcomes import EpisodeKey, EpisodeResult


def test_a_log_has_a_line_a_task_and_counts_what_was_recorded_before() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=False, width=60)
    with progress(console, total=5, done=2, pending={"a": 1, "b": 2}) as advance:
        for task, index, total in (("b", 0, 1.0), ("a", 0, 4.0), ("b", 1, 2.0)):
            advance(EpisodeResult(EpisodeKey(task, index, index), total, 1, None, True, 0.0))
    lines = file.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == "2 of 5 episodes recorded, 3 to play"
    assert lines[1].startswith("4/5 episodes")
    assert "a done, mean return 4.00" in lines[1]
    assert lines[2].startswith("5/5 episodes")
    assert "b done, mean return 1.50" in lines[2]
    assert "\x1b" not in file.getvalue()
    assert "\r" not in file.getvalue()
