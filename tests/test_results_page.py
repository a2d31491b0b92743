"""The pages of results say what the summaries of runs say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "scripts" / "results_page.py"
    spec = importlib.util.spec_from_file_location("results_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def summary(suite: str, scores: dict[str, float | None]) -> dict[str, Any]:
    known = [score for score in scores.values() if score is not None]
    average = {"value": float(np.mean(known)), "low": 0.25, "high": 0.75, "tasks": len(known)}
    return {
        "protocol": {"suite": suite, "episodes": 20, "seed": 0},
        "protocol_hash": "abc",
        "policy": {"name": "some-policy"},
        "complete": True,
        "aggregates": {"normalised mean": average, "normalised IQM": average},
        "tasks": {
            task: {
                "random": 0.0, "expert": 10.0, "mean": 5.0, "normalised": score, "success": None,
                "episodes": 20, "distinct": 20,
            }
            for task, score in scores.items()
        },
    }  # fmt: skip


def test_tasks_are_counted_at_each_share_of_their_expert(script: ModuleType) -> None:
    run = summary("atari", {"a": 1.2, "b": 0.5, "c": 0.1, "d": None, "e": -0.3})
    counts = script.tasks_above(run, np.array([0.0, 0.1, 0.11, 0.5, 1.0]))
    assert counts == [3, 3, 2, 2, 1]


def test_every_page_is_written(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [summary("atari", {"atari-pong": 0.5}), summary("mine", {"mine-one": 0.75, "m2": 0.25})]
    folders = [tmp_path / run["protocol"]["suite"] for run in runs]
    for folder, run in zip(folders, runs, strict=True):
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps(run))
    pages = tmp_path / "results.md", tmp_path / "results.png", tmp_path / "README.md"
    pages[2].write_text("before\n<!-- scores: begin -->\nold\n<!-- scores: end -->\nafter\n")
    monkeypatch.setattr(script, "PAGES", pages)
    monkeypatch.setattr("sys.argv", ["results_page.py", *map(str, folders)])
    script.main()
    table = pages[2].read_text()
    assert (
        "| Atari, 1 games | 0.500 (0.250 to 0.750) | 0.500 | small networks trained here |" in table
    )
    assert "| mine, 2 tasks | 0.500 (0.250 to 0.750) | 0.500 |  |" in table
    assert "old" not in table
    assert "| mine-one | 0 | 10 | 5 | 0.75 | – |" in pages[0].read_text()
    assert pages[1].read_bytes().startswith(b"\x89PNG")
