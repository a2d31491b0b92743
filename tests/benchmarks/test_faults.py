"""Environments that raise, hang or cannot be made: recorded, told, and no harm to the others."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import run
from benchmarks.policies import PolicyChoice
from benchmarks.protocol import BenchmarkError
from benchmarks.report.summary import render
from benchmarks.run import RunSettings, main, run_benchmark
from benchmarks.settings import check_time_limit
from benchmarks.workers import worker as playing
from policies.rollout.env_batch import make_rows
from policies.rollout.faults import EpisodeTimeout, time_limit
from policies.rollout.outcomes import EpisodeFailure, EpisodeKey, EpisodeResult
from policies.rollout.vector_rollout import play

SEEDS = (6, 13, 7, 1, 20, 3, 5)
KEYS = [EpisodeKey("babyai-stub", index, seed) for index, seed in enumerate(SEEDS)]


def hang() -> None:
    while True:
        time.sleep(0.01)


def explode() -> None:
    raise RuntimeError("gears jammed")


@pytest.fixture
def break_at(task, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the environment do something at a timestep of chosen seeds; -1 is its reset."""
    kind = type(task.make())
    task.envs.clear()
    reset, step = kind.reset, kind.step

    def broken(seeds: Container[int], clock: int, do: Callable[[], Any]) -> None:
        def reset_(self: Any, *, seed: int, options: Any = None) -> Any:
            if clock < 0 and seed in seeds:
                do()
            return reset(self, seed=seed, options=options)

        def step_(self: Any, action: int) -> Any:
            reward = do() if self.seed_ in seeds and self.clock == clock else None
            observation, usual, *rest = step(self, action)
            return observation, usual if reward is None else reward, *rest

        monkeypatch.setattr(kind, "reset", reset_)
        monkeypatch.setattr(kind, "step", step_)

    return broken


@pytest.mark.parametrize("num_envs", [1, 3, 9])
@pytest.mark.parametrize(
    ("clock", "do", "said"),
    [
        (-1, explode, "RuntimeError: gears jammed"),
        (2, explode, "RuntimeError: gears jammed"),
        (0, lambda: math.inf, "timestep 0: the reward is inf"),
        (1, hang, "longer than the 0.2 s of --episode-timeout"),
        (-1, hang, "longer than the 0.2 s of --episode-timeout"),
    ],
)
def test_a_fault_fails_its_episode_and_no_other(
    task, policy, right_return, break_at, num_envs: int, clock: int, do: Any, said: str
) -> None:
    break_at({13, 20}, clock, do)
    envs = make_rows(task, num_envs)
    outcomes = list(play(envs, policy, KEYS, deterministic=False, episode_timeout=0.2))
    assert sorted(outcome.key.index for outcome in outcomes) == [*range(7)]
    failures = [outcome for outcome in outcomes if isinstance(outcome, EpisodeFailure)]
    assert {failure.key.seed for failure in failures} == {13, 20}
    for failure in failures:
        assert said in failure.reason
        assert "Traceback" in failure.error
        assert failure.length == max(clock, 0)
    for outcome in outcomes:
        if isinstance(outcome, EpisodeResult):
            assert outcome.total_return == right_return(outcome.key.seed)


def test_an_environment_that_failed_is_not_used_again(task, policy, break_at) -> None:
    break_at({6}, 0, explode)
    list(play(make_rows(task, 1), policy, KEYS, deterministic=False))
    assert [env.resets for env in task.envs] == [1, 6]


def test_a_policy_that_hangs_fails_the_episodes_under_way(task, policy) -> None:
    calls = 0
    predict = policy.predict

    def hangs_once(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            hang()
        return predict(*args, **kwargs)

    policy.predict = hangs_once
    outcomes = list(
        play(make_rows(task, 2), policy, KEYS, deterministic=False, episode_timeout=0.3)
    )
    failed = [outcome.key.seed for outcome in outcomes if isinstance(outcome, EpisodeFailure)]
    assert failed == [6, 13]
    assert len(outcomes) == 7


def test_a_time_limit_is_kept_only_where_it_can_be() -> None:
    with pytest.raises(EpisodeTimeout, match="too slow"), time_limit(0.05, "too slow"):
        hang()
    with time_limit(None, ""), time_limit(5.0, "not reached"):
        pass
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(BenchmarkError, match="pass --episode-timeout 60"):
            check_time_limit(wrong)


class TestTheCommand:
    @pytest.fixture(autouse=True)
    def _stubbed(self, task, policy, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(run, "select_tasks", lambda suite, pattern: [task])

        def make(choice: Any, task_: Any, make_envs: Any, loaded: Any = None) -> Any:
            with monkeypatch.context() as context:
                context.setattr("policies.registry.make_policy", lambda *_, **__: policy)
                return make_envs_and_policy(choice, task, make_envs)

        make_envs_and_policy = playing.make_envs_and_policy
        monkeypatch.setattr(playing, "make_envs_and_policy", make)
        monkeypatch.setattr("gato_gym.tasks.get_task", lambda name: task)

    def arguments(self, folder: Path) -> list[str]:
        options = "--suite babyai --policy random --episodes 7 --workers 1 --num-envs 2"
        return [*options.split(), "--output", str(folder)]

    def test_failures_are_recorded_told_and_tried_again(
        self, break_at, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        odd = range(1, 1_000_000, 2)
        break_at(odd, 0, explode)
        assert main(self.arguments(tmp_path / "run")) == 1
        shown = capsys.readouterr()
        assert "episodes failed" in shown.out
        assert "gears jammed" in shown.out
        assert "--resume" in shown.err
        lines = [*map(json.loads, (tmp_path / "run" / "results.jsonl").read_text().splitlines())]
        failed = [line for line in lines if "error" in line]
        assert len(lines) == 7
        assert 0 < len(failed) < 7
        assert all(line["seed"] % 2 for line in failed)
        assert all("gears jammed" in line["error"] for line in failed)
        summary = json.loads((tmp_path / "run" / "summary.json").read_text())
        assert not summary["complete"]
        assert len(summary["failures"]) == len(failed)
        assert summary["tasks"]["babyai-stub"]["failed"] == len(failed)
        assert summary["tasks"]["babyai-stub"]["episodes"] == 7 - len(failed)
        assert any("episodes failed" in warning for warning in summary["warnings"])

        break_at(set(), 0, explode)
        assert main([*self.arguments(tmp_path / "run"), "--resume"]) == 0
        summary = json.loads((tmp_path / "run" / "summary.json").read_text())
        assert summary["complete"]
        assert summary["failures"] == []
        assert len((tmp_path / "run" / "results.jsonl").read_text().splitlines()) == 7 + len(failed)

    def test_an_environment_that_cannot_be_made_fails_all_its_episodes(
        self, task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(type(task), "make", lambda self: explode())
        settings = RunSettings(
            "babyai", tmp_path, policy=PolicyChoice("random"), episodes=3, workers=1
        )
        summary = run_benchmark(settings, console=Console(file=io.StringIO()))
        assert len(summary.failures) == 3
        assert "gears jammed" in summary.failures[0].reason
        assert summary.tasks == ()
        assert summary.unplayed == {"babyai-stub": 3}
        with (console := Console(width=100)).capture() as captured:
            console.print(render(summary))
        assert "3 failed" in captured.get()

    def test_a_full_disk_ends_the_run_with_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write, lines = "benchmarks.store.run_store._write_line", 0

        def full(file: Any, line: bytes) -> None:
            nonlocal lines
            lines += 1
            if lines > 3:
                raise OSError(28, "No space left on device")
            file.write(line)

        def no_room(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as context:
            context.setattr(write, full)
            context.setattr(run, "write_json", no_room)
            assert main(self.arguments(tmp_path / "run")) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert "No space left" in error
        assert error.count("\n") == 2  # what happened, and how to go on
        assert main([*self.arguments(tmp_path / "run"), "--resume"]) == 0
        recorded = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
        assert sorted(json.loads(line)["episode"] for line in recorded) == [*range(7)]
