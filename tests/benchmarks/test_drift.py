"""What is recorded of the experts: consistent, and still what they score."""

from __future__ import annotations

import copy
import io
import json
from importlib import resources
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks import measure_references
from benchmarks.experts import main
from benchmarks.measure_references import PINNED, ReferenceSettings, find_drift
from benchmarks.protocol import BenchmarkError, Protocol

PACKAGES = {
    "atari": "ale_py",
    "babyai": "minigrid",
    "dm_control": "shimmy",
    "metaworld": "metaworld",
    "mujoco": "mujoco",
}


def recorded() -> dict[str, Any]:
    text = resources.files("benchmarks.references").joinpath("measured.json").read_text()
    suites: dict[str, Any] = json.loads(text)["suites"]
    return suites


@pytest.mark.parametrize("suite", sorted(PACKAGES))
def test_figures_say_how_many_episodes_they_are_of(suite: str) -> None:
    entry = recorded()[suite]
    protocol = Protocol.from_json(entry["protocol"])
    assert protocol.episodes == measure_references.EPISODES
    assert protocol.hash == entry["protocol_hash"]
    assert list(protocol.tasks) == list(entry["tasks"])
    for players in entry["tasks"].values():
        assert {figure["episodes"] for figure in players.values()} == {protocol.episodes}
        if "expert" in players:
            assert len(players["expert"]["first"]) == PINNED
            spread = players["expert"]["std"] * np.sqrt(protocol.episodes) + 1e-5
            # no episode of N lies further from the mean than sqrt(N) standard deviations
            assert np.ptp([*players["expert"]["first"], players["expert"]["mean"]]) <= 2 * spread


@pytest.mark.parametrize(
    ("suite", "tasks"),
    [
        ("atari", "kangaroo"),
        ("babyai", "go-to-local,open,pickup-dist,put-next"),
        ("dm_control", "cartpole-balance_sparse"),
        ("metaworld", "drawer-close"),
        ("mujoco", "reacher,pendulum"),
    ],
)
def test_experts_play_as_they_did(suite: str, tasks: str, capsys: Any) -> None:
    pytest.importorskip(PACKAGES[suite])
    status = main(["--check", "--suite", suite, "--tasks", tasks, "--workers", "1"])
    out = capsys.readouterr().out
    assert status == 0, out
    assert f"{suite}: {tasks.count(',') + 1} experts, 0 drifted" in out


def test_two_percent_is_the_limit() -> None:
    pytest.importorskip("mujoco")
    entry, task = recorded()["mujoco"], "mujoco-reacher"

    def drift(factor: float) -> list[str]:
        changed = copy.deepcopy(entry)
        expert = changed["tasks"][task]["expert"]
        expert["first"] = [value * factor for value in expert["first"]]
        return find_drift(changed, [task], workers=1)

    assert drift(1.015) == drift(0.985) == []
    for factor in (1.025, 0.975, float("nan")):
        (line,) = drift(factor)
        assert line.startswith(f"{task}: its expert scored ")
    assert "no pinned episodes" in find_drift(entry, ["mujoco-nothing"], workers=1)[0]


def test_another_simulator_is_named() -> None:
    pytest.importorskip("mujoco")
    entry = copy.deepcopy(recorded()["mujoco"])
    entry["protocol"]["simulators"]["mujoco"] = "3.2.0"
    entry["tasks"]["mujoco-reacher"]["expert"]["first"] = [-1.0] * PINNED
    (line,) = find_drift(entry, ["mujoco-reacher"], workers=1)
    assert "simulators.mujoco: 3.2.0 -> " in line


def test_the_check_fails_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(
        measure_references, "find_drift", lambda entry, tasks, workers: ["x: drifted"]
    )
    assert main(["--check", "--suite", "mujoco", "--tasks", "reacher"]) == 1
    out = capsys.readouterr().out
    assert "mujoco: 1 experts, 1 drifted" in out
    assert "measure again" in out
    recorded = {"mujoco": {}, "babyai": {}}
    monkeypatch.setattr(measure_references, "recorded_entry", recorded.get)
    assert main(["--check", "--suite", "atari"]) == 2
    assert "atari was not measured: expected one of babyai, mujoco" in capsys.readouterr().err


def test_some_tasks_are_measured_into_what_is_recorded(tmp_path: Any) -> None:
    pytest.importorskip("mujoco")
    quiet = Console(file=io.StringIO())

    def entry(tasks: str, seed: int = 0) -> dict[str, Any]:
        work = tmp_path / str(seed)
        settings = ReferenceSettings("mujoco", tasks, episodes=2, seed=seed, workers=1, work=work)
        return measure_references.measure(settings, console=quiet)

    both = measure_references.merged(entry("pusher"), entry("reacher"))
    assert list(both["tasks"]) == list(both["protocol"]["tasks"])
    assert list(both["tasks"]) == ["mujoco-pusher", "mujoco-reacher"]
    assert "expert" in both["tasks"]["mujoco-reacher"]
    assert both["protocol_hash"] == Protocol.from_json(both["protocol"]).hash
    with pytest.raises(BenchmarkError, match="seed: 0 -> 1"):
        measure_references.merged(both, entry("reacher", seed=1))
    assert measure_references.merged(None, both) == both
