"""Where the time goes: parts in one another, laps, sittings, and that the rest is small."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from small import SMALL

from benchmarks import run
from benchmarks.policies import PolicyChoice
from benchmarks.report.html import main as page
from benchmarks.settings import RunSettings
from benchmarks.workers.processes import play_episodes
from gato_gym import PlanOptions, compile_plan
from policies import GatoPolicy
from policies.model.network import GatoNetwork
from policies.rollout import timing as clock
from policies.rollout.timing import Clock, Costs, TimeSpent, with_clock


class Hours:
    """A time that passes when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(clock.time, "perf_counter", lambda: self.now)


def test_an_inner_part_counts_for_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = Hours(monkeypatch)
    clock = Clock()
    hours.now += 1.0
    with clock.of("inference"):
        hours.now += 2.0
        with clock.of("tokenising"):
            hours.now += 3.0
        with clock.of("tokenising"):
            hours.now += 4.0
        hours.now += 5.0
    with clock.of("environments"):
        hours.now += 6.0
    with contextlib.suppress(OSError), clock.of("loading"):
        hours.now += 7.0
        raise OSError
    assert clock.lap() == TimeSpent(6.0, 7.0, 7.0, loading=7.0, rest=1.0)
    hours.now += 8.0
    assert clock.lap() == TimeSpent(rest=8.0)
    began = clock.begin()
    hours.now += 4.0
    clock.end("inference", began, idle=0.25)
    assert clock.lap() == TimeSpent(inference=3.0, idle=1.0)


def test_tokenising_is_measured_and_changes_no_action() -> None:
    plan = compile_plan(spaces.Box(-1, 1, (3,)), spaces.Discrete(4), PlanOptions(vector_size=16))
    network = GatoNetwork(SMALL)
    clock = Clock()
    plain = GatoPolicy(network, plan)
    timed = with_clock(with_clock(GatoPolicy(network, plan), Clock()), clock)
    observations = np.zeros((2, 3), np.float32)
    assert np.array_equal(timed.predict(observations)[0], plain.predict(observations)[0])
    spent = clock.lap()
    assert spent.tokenising > 0.0
    assert spent.environments == spent.inference == 0.0
    assert with_clock(len, clock) is len  # policies of other libraries have nothing to report


def test_parts_are_those_of_a_real_run() -> None:
    """All that a process does is measured; the shipped network tokenises, the expert does not."""
    from policies.rollout.outcomes import EpisodeKey

    pending = {"babyai-go-to-obj": [EpisodeKey("babyai-go-to-obj", k, k) for k in range(8)]}
    for policy, tokens in (("gato-mini", True), ("expert", False)):
        started = time.perf_counter()
        spent = TimeSpent()
        for report in play_episodes(pending, PolicyChoice(policy, deterministic=True), workers=1):
            if isinstance(report, TimeSpent):
                spent += report
        wall = time.perf_counter() - started
        assert 0 < spent.total <= wall  # what is counted twice would be more
        assert spent.environments > 0
        assert spent.inference > 0
        assert spent.loading > 0
        assert (spent.tokenising > 0) is tokens
        assert 0 <= spent.rest < spent.total


def test_the_cost_of_all_sittings_is_summed_and_told(
    task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quiet, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "select_tasks", lambda suite, pattern: [task])
    monkeypatch.setattr("gato_gym.tasks.get_task", lambda name: task)
    settings = RunSettings("babyai", tmp_path, policy=PolicyChoice("random"), episodes=3, workers=1)
    first = run.run_benchmark(settings, console=quiet)
    assert first.cost is not None
    recorded = json.loads((tmp_path / "cost.json").read_text())
    assert recorded == json.loads((tmp_path / "summary.json").read_text())["cost"]
    parts = ("environments", "tokenising", "inference", "idle", "loading", "rest")
    assert recorded["total"] == pytest.approx(sum(recorded[part] for part in parts), abs=0.01)
    # An episode is lost and played again: what is spent on it is added.
    lines = (tmp_path / "results.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_text("".join(lines[:-1]))
    (tmp_path / "cost.json").write_text(
        json.dumps(Costs(TimeSpent(environments=1000.0), wall=500.0).to_json())
    )
    again = run.run_benchmark(
        RunSettings("babyai", tmp_path, policy=settings.policy, episodes=3, workers=1, resume=True),
        console=quiet,
    )
    assert again.cost is not None
    assert 1000.0 < again.cost.spent.total < 1100.0
    assert 500.0 < again.cost.wall < 600.0
    assert "environments 100 %" in (tmp_path / "report.html").read_text()
    (tmp_path / "report.html").unlink()
    assert page([str(tmp_path)]) == 0
    assert "environments 100 %" in (tmp_path / "report.html").read_text()
    capsys.readouterr()
