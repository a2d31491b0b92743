"""What scores are normalised by is measured whole, or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import measure_references as experts
from benchmarks.protocol import Protocol, TaskRules
from benchmarks.report.summary import summarise
from benchmarks.store.run_store import RunHeader
from policies.processes import WorkerError
from policies.rollout.outcomes import EpisodeFailure, EpisodeKey


def test_failed_episodes_do_not_become_a_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = Protocol("babyai", {"babyai-open": TaskRules("x", None)}, 1, 0, {})
    failure = EpisodeFailure(EpisodeKey("babyai-open", 0, 5), "Traceback\nOSError: broken")
    summary = summarise(RunHeader(protocol, {"name": "expert"}), [], [failure])
    monkeypatch.setattr(experts, "run_benchmark", lambda settings, console: summary)
    console = Console(file=io.StringIO())
    settings = experts.ReferenceSettings("babyai", episodes=1, workers=1, work=tmp_path)
    with pytest.raises(WorkerError, match=r"1 episodes of random failed.*OSError: broken"):
        experts.measure(settings, console=console)
