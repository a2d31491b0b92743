"""On the real suites: the same episodes for any number of environments and workers."""

from __future__ import annotations

import io
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.policies import PolicyChoice
from benchmarks.protocol import BenchmarkError
from benchmarks.run import RunSettings, main, run_benchmark
from gato_gym.tasks import get_task
from policies import GatoPolicy
from policies.model.config import NetworkConfig


def play(output: Path, suite: str, tasks: str, policy: str, **how: Any) -> list[dict[str, Any]]:
    settings = RunSettings(suite, output, tasks=tasks, policy=PolicyChoice(policy), **how)
    summary = run_benchmark(settings, console=Console(file=io.StringIO()))
    assert summary.complete
    records = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    for line in records:
        del line["seconds"]
    return sorted(records, key=lambda line: (line["task"], line["episode"]))


@pytest.mark.parametrize("policy", ["expert", "random"])
@pytest.mark.parametrize(
    ("suite", "tasks"),
    [("babyai", "go-to-obj,unlock-local"), ("metaworld", "reach"), ("mujoco", "reacher")],
)
def test_number_of_envs_changes_nothing(
    tmp_path: Path, suite: str, tasks: str, policy: str
) -> None:
    alone = play(tmp_path / "1", suite, tasks, policy, episodes=3, num_envs=1, workers=1)
    together = play(tmp_path / "2", suite, tasks, policy, episodes=3, num_envs=2, workers=1)
    assert alone == together
    if policy == "expert" and suite != "mujoco":  # which says nothing of success
        assert all(line["success"] for line in alone)


def test_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    how = {"suite": "babyai", "tasks": "go-to-obj", "policy": "random", "episodes": 4}
    assert play(tmp_path / "1", **how, workers=1) == play(tmp_path / "2", **how, workers=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_policy_that_cannot_be_loaded_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    arguments = ["--suite", "babyai", "--tasks", "go-to-obj", "--policy", str(folder)]
    arguments += ["--episodes", "2", "--output", str(tmp_path / "run")]
    assert main([*arguments, "--workers", str(workers)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert f"{folder}/config.json names no format version" in error
    assert not (tmp_path / "run").exists()


def test_a_missing_simulator_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "minigrid", None)
    with pytest.raises(BenchmarkError, match=r'pip install "gato-gym\[babyai\]"'):
        play(tmp_path / "run", "babyai", "go-to-obj", "random", episodes=1, workers=1)


def test_a_network_acts_the_same_beside_other_environments_and_tasks(tmp_path: Path) -> None:
    config = NetworkConfig(width=32, layers=1, heads=2, head_size=16, feed_forward=32)
    with closing(get_task("babyai-go-to-obj").make()) as env:
        GatoPolicy.create(env, config=config).save(tmp_path / "network")
    how = {"suite": "babyai", "tasks": "go-to-obj,open-red-door,go-to-red-ball", "episodes": 2}
    policy = str(tmp_path / "network")
    alone = play(tmp_path / "1", policy=policy, num_envs=1, workers=1, **how)
    for num_envs, workers in ((2, 1), (5, 1), (None, 2)):
        output = tmp_path / f"{num_envs} {workers}"
        assert alone == play(output, policy=policy, num_envs=num_envs, workers=workers, **how)
    assert len({line["length"] for line in alone}) > 1
