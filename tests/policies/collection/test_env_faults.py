"""Collecting from environments at fault: told with task, seed and step; the others go on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from gato_gym import get_task, read_minari
from gato_gym.commands.main import main
from policies.collection.collect import collect
from policies.collection.env_faults import GuardedEnv
from policies.collection.jobs import CollectSettings, Job, JobRunner, dataset_id, unit_path
from policies.collection.recorder import Recorder, RecordSettings, episode_seed
from policies.collection.workers import Workers
from policies.processes import WorkerError, WorkerFailure
from policies.rollout.faults import EnvironmentFault
from policies.rollout.members import as_observation

pytest.importorskip("minigrid")

GOOD, BAD = "babyai-go-to-obj", "babyai-open-door"


class Counting(gym.Env[Any, Any]):
    """Wrong in a way of choice at its third step."""

    observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)})
    action_space = spaces.Discrete(2)

    def __init__(self, wrong: str) -> None:
        self.wrong, self.steps = wrong, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        self.steps = 0
        if self.wrong == "reset":
            raise OSError("no such file")
        return {"a": np.zeros(2, np.float32), "b": np.int64(0)}, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.steps += 1
        wrong = self.wrong if self.steps == 3 else ""
        if wrong == "raise":
            raise ZeroDivisionError("by zero")
        if wrong == "exit":
            raise SystemExit(0)
        a = np.array([0, np.nan if wrong == "nan" else 1], np.float32)
        a = np.append(a, a[:1]) if wrong == "shape" else a
        reward = {"reward": float("inf"), "large": 1e39}.get(wrong, 0.0)
        return {"a": a, "b": np.int64(1)}, reward, False, False, {}


@pytest.mark.parametrize(
    ("wrong", "step", "what"),
    [
        ("reset", 0, "reset raised OSError('no such file')"),
        ("raise", 3, "the environment raised ZeroDivisionError('by zero')"),
        ("nan", 3, "the observation['a'] has NaN: expected numbers"),
        (
            "shape",
            3,
            "the observation['a'] has shape (3,): expected (2,), as "
            "Box(-1.0, 1.0, (2,), float32) has",
        ),
        ("reward", 3, "the reward is inf, expected a finite number of float32"),
        ("large", 3, "the reward is 1e+39, expected a finite number of float32"),
        ("exit", 3, "the environment raised SystemExit(0)"),
    ],
)
def test_a_fault_names_task_seed_and_step(wrong: str, step: int, what: str) -> None:
    beats: list[tuple[int, int]] = []
    env = GuardedEnv("my-task", Counting(wrong), lambda seed, step: beats.append((seed, step)))

    def play() -> None:
        env.reset(seed=77)
        for _ in range(5):
            env.step(0)

    with pytest.raises(EnvironmentFault) as caught:
        play()
    assert str(caught.value) == f"my-task, seed 77, step {step}: {what}"
    assert beats == [(77, number) for number in range(step + 1)]


def test_infinite_observations_are_no_fault() -> None:
    shown = {"a": np.array([np.inf, 0.0]), "b": 2}
    as_observation(Counting.observation_space, shown, accepts_nan=False)


def break_at(
    monkeypatch: pytest.MonkeyPatch, is_bad: Callable[[str, int], bool], step: int = 2
) -> None:
    """Environments of these tasks and seeds raise at a step."""
    honest = GuardedEnv.step

    def faulty(self: GuardedEnv, action: Any) -> Any:
        if self._step + 1 == step and is_bad(self._task, self._seed):
            self._step += 1
            raise self._fault("the environment raised Broken()")
        return honest(self, action)

    monkeypatch.setattr(GuardedEnv, "step", faulty)


def test_an_episode_at_fault_is_left_out_and_the_others_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = CollectSettings(tmp_path / "a", RecordSettings(noise=0.3), episodes=60)
    clean = CollectSettings(tmp_path / "b", RecordSettings(noise=0.3), episodes=60)
    whole = JobRunner(clean).run(Job("unit", GOOD, 0, 0.0))
    bad = episode_seed(GOOD, 5, seed=0)
    break_at(monkeypatch, lambda task, seed: seed == bad)
    report = JobRunner(settings).run(Job("unit", GOOD, 0, 0.0))
    assert report.faults == [f"{GOOD}, seed {bad}, step 2: the environment raised Broken()"]
    assert report.dropped == {**whole.dropped, "faults": 1}
    assert report.lengths == whole.lengths[:5] + whole.lengths[6:]


class InlineWorkers:
    """Does jobs in this process; failures as :class:`Workers` tells them."""

    def __init__(self, settings: CollectSettings, count: int) -> None:
        self.runner, self.jobs = JobRunner(settings), list[Job]()

    @property
    def has_idle(self) -> bool:
        return not self.jobs

    def start(self, job: Job) -> None:
        self.jobs.append(job)

    def finished(self, timeout: float | None = None) -> list[tuple[Job, Any]]:
        done: list[tuple[Job, Any]] = []
        while self.jobs:
            job = self.jobs.pop()
            try:
                done.append((job, self.runner.run(job)))
            except EnvironmentFault as fault:
                done.append((job, WorkerFailure(str(fault))))
        return done

    def __enter__(self) -> InlineWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_other_tasks_go_on_and_the_run_fails_with_a_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("policies.collection.collect.Workers", InlineWorkers)
    arguments = ["--suite", "babyai", "--tasks", "go-to-obj,open-door", "--episodes", "20"]
    arguments += ["--expert-episodes", "3", "--root", str(tmp_path)]
    with monkeypatch.context() as patch:
        expert_seeds = {episode_seed(BAD, i, seed=0, purpose="expert return") for i in range(3)}
        break_at(patch, lambda task, seed: task == BAD and seed not in expert_seeds)
        assert main(["collect", *arguments]) == 1
    summary = capsys.readouterr().err
    assert "faults in 1 of 2 tasks, 1 of them not collected" in summary
    for index in range(3):  # given up at the third
        assert f"{BAD}, seed {episode_seed(BAD, index, seed=0)}, step 2: " in summary
    assert "run the same command again" in summary
    assert len(list(read_minari(dataset_id(get_task(GOOD)), root=tmp_path))) == 20
    assert not (tmp_path / "gato" / f"{BAD}-v0").exists()
    assert main(["collect", *arguments]) == 0  # mended, the same command collects what is missing
    assert len(list(read_minari(dataset_id(get_task(BAD)), root=tmp_path))) == 20


def test_one_fault_in_a_finished_dataset_fails_the_run_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policies.collection.collect.Workers", InlineWorkers)
    bad = episode_seed(GOOD, 0, seed=0)
    break_at(monkeypatch, lambda task, seed: seed == bad)
    settings = CollectSettings(tmp_path, episodes=20, expert_episodes=3)
    with pytest.raises(WorkerError, match=rf"0 of them not collected:\n{GOOD}, seed {bad}, step 2"):
        collect([get_task(GOOD)], settings, workers=1)
    assert len(list(read_minari(dataset_id(get_task(GOOD)), root=tmp_path))) == 20


def test_the_environment_is_made_anew_after_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(get_task(GOOD), RecordSettings())
    first = recorder.env
    monkeypatch.setattr(first, "close", lambda: 1 / 0)
    recorder.reopen()
    assert recorder.env is not first
    assert not isinstance(recorder.record(0, 0.0), str)


def wait_for(pool: Workers, seconds: float = 120.0) -> list[tuple[Job, Any]]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if finished := pool.finished(timeout=0.2):
            return finished
    raise AssertionError("nothing came back")


def test_a_worker_that_hangs_or_dies_is_told_of_and_replaced(tmp_path: Path) -> None:
    settings = CollectSettings(tmp_path, episodes=2000, time_limit=60.0)
    with Workers(settings, 1) as pool:
        for deed in (signal.SIGSTOP, signal.SIGKILL):
            job = Job("unit", GOOD, 0, 0.0)
            pool.start(job)
            ((number, place),) = pool.places.items()
            while place[0] < 0:  # it is still being started
                time.sleep(0.02)
            os.kill(pool.pool.pid(number), deed)
            object.__setattr__(settings, "time_limit", 0.5)
            ((returned, failure),) = wait_for(pool)
            object.__setattr__(settings, "time_limit", 60.0)
            assert returned is job
            assert isinstance(failure, WorkerFailure)
            if deed == signal.SIGSTOP:
                seed, step = int(place[0]), int(place[1])
                assert failure.message.startswith(f"{GOOD}, seed {seed}, step {step}: no answer")
                assert episode_seed(GOOD, 0, seed=0) <= seed < episode_seed(GOOD, 64, seed=0)
            else:
                assert "worker died" in failure.message
            assert pool.has_idle
            assert not list(settings.folder(get_task(GOOD)).glob("*.partial"))
        pool.start(Job("unit", GOOD, 0, 0.0))
        ((_, report),) = wait_for(pool)
        assert len(report.lengths) > 50
        assert unit_path(settings, get_task(GOOD), 0).exists()
