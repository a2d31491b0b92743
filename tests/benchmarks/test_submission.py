"""What may be on the leaderboard: a whole suite, its seeds, enough episodes, its simulators."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import references
from benchmarks.protocol import Protocol
from benchmarks.store.run_store import Record, RunHeader
from gato_gym.commands.common import run_command
from gato_gym.tasks import list_tasks
from policies.rollout.outcomes import EpisodeResult

ROOT = Path(__file__).parents[2]


def write_run(
    folder: Path, *, leave_out: int = 0, pattern: str | None = None, **changes: Any
) -> Path:
    """A run of MuJoCo in which every episode returned the expert's mean."""
    whole = Protocol.of_tasks(list_tasks("mujoco", pattern), episodes=changes.pop("episodes", 20),
                              seed=changes.pop("seed", 0))  # fmt: skip
    protocol = dataclasses.replace(whole, **changes)
    measured = references.measured("mujoco")
    header = RunHeader(protocol, {"name": "mine", "weights": None})
    with Record(folder, header, resume=False) as record:
        keys = [key for task in protocol.tasks for key in protocol.episodes_of(task)]
        for key in keys[leave_out:]:
            expert = measured[key.task].expert
            assert expert is not None
            record.append(EpisodeResult(key, total_return=expert.mean, length=1, terminated=True,
                                        success=None, seconds=0.0))  # fmt: skip
    return folder


def submit(*arguments: str) -> int:
    from benchmarks.commands.submit import Submit

    return run_command(Submit, arguments, prog="gato-gym submit")


def test_a_whole_run_is_written_as_one_object(tmp_path: Path) -> None:
    assert submit(str(write_run(tmp_path / "run"))) == 0
    written = json.loads((tmp_path / "run/submission.json").read_text())
    assert written["policy"]["name"] == "mine"
    assert len(written["tasks"]) == 11
    assert written["aggregates"]["normalised mean"]["value"] == pytest.approx(1.0)
    assert written["protocol"]["seed"] == 0
    assert all(task["low"] == pytest.approx(1.0) for task in written["tasks"].values())


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"leave_out": 3}, "3 of 220 episodes are missing"),
        ({"episodes": 5}, "5 episodes a task, expected 20 or more"),
        ({"seed": 4}, "seed 4, expected 0"),
        ({"name": "noisy-observations"}, "protocol noisy-observations, expected standard"),
        ({"pattern": "ant,hopper"}, "protocol.tasks.mujoco-pusher: the whole suite only"),
        ({"simulators": {"gymnasium": "1.4.0", "mujoco": "3.2.0"}}, "mujoco: 3.3.0 -> 3.2.0"),
        ({"rules": {"discount": 0.5}}, "protocol.rules.discount: 1.0 -> 0.5"),
    ],
)
def test_every_shortcoming_is_told(
    how: dict[str, Any], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit(str(write_run(tmp_path / "run", **how))) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run/submission.json").exists()


def test_an_episode_of_another_seed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write_run(tmp_path / "run") / "results.jsonl"
    first, *others = results.read_text().splitlines(keepends=True)
    entry = json.loads(first)
    results.write_text(json.dumps({**entry, "seed": entry["seed"] + 1}) + "\n" + "".join(others))
    assert submit(str(tmp_path / "run")) == 2
    assert "is no episode of this protocol" in capsys.readouterr().err


@pytest.fixture
def leaderboard() -> Any:
    spec = importlib.util.spec_from_file_location("page", ROOT / "scripts/leaderboard_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_every_submission_of_the_file(leaderboard: Any) -> None:
    """The other rows change with each measurement of an expert."""
    entries = json.loads((ROOT / "docs/leaderboard.json").read_text())["entries"]
    page = (ROOT / "docs/leaderboard.md").read_text()
    rows = [line for line in leaderboard.page(entries).splitlines() if line.startswith("| `")]
    assert all(row in page for row in rows), "python scripts/leaderboard_page.py"


def test_a_submission_takes_its_place(leaderboard: Any, tmp_path: Path) -> None:
    assert submit(str(write_run(tmp_path / "run"))) == 0
    new = json.loads((tmp_path / "run/submission.json").read_text())
    entries = leaderboard.add(leaderboard.add([], new), new)
    assert len(entries) == 1, "it replaces itself"
    text = leaderboard.page(entries)
    mujoco = text[text.index("## MuJoCo") :]
    one, (row,) = "1.000 (1.000 to 1.000)", re.findall(r"^\| `mine` .*$", mujoco, re.MULTILINE)
    assert row == f"| `mine` | 11 | {one} | {one} | – | 20 | `{new['protocol_hash']}` |"
    assert "| *random* | 11 | 0.000" in mujoco
    jat = [references.published_normalised(task) for task in references.published()
           if task.startswith("mujoco-")]  # fmt: skip
    assert f"JAT (arXiv 2402.09844): normalised mean {np.mean(jat):.3f}, median" in mujoco
    with pytest.raises(ValueError, match="has no aggregates, policy"):
        leaderboard.add([], {"tasks": {}, "protocol": {}, "protocol_hash": ""})
