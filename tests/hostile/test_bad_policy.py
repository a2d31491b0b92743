"""Policies and environments that do what they must not: an episode fails, and the run goes on."""

from __future__ import annotations

import math
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv

from benchmarks.policies import PolicyChoice
from benchmarks.protocol import BenchmarkError
from benchmarks.run import main
from benchmarks.workers import ray_cluster
from benchmarks.workers.processes import play_episodes
from gato_gym.commands.common import Command, Invocation, run_command
from gato_gym.commands.main import main as gato_gym_main
from policies.rollout import faults
from policies.rollout.env_batch import make_rows
from policies.rollout.faults import close_env, time_limit
from policies.rollout.outcomes import EpisodeFailure, EpisodeKey, EpisodeResult, Outcome
from policies.rollout.vector_rollout import play

SEEDS = (6, 13, 7, 1, 20, 3, 5)
KEYS = [EpisodeKey("babyai-stub", index, seed) for index, seed in enumerate(SEEDS)]


def exits() -> None:
    sys.exit(0)


def raises() -> None:
    raise RuntimeError("gears jammed")


def played(task: Any, policy: Any, rows: int = 3) -> list[Outcome]:
    """What became of all episodes, each of which ended once."""
    outcomes = list(play(make_rows(task, rows), policy, KEYS, deterministic=False))
    assert sorted(outcome.key.index for outcome in outcomes) == [*range(7)]
    return outcomes


def failures(outcomes: list[Outcome]) -> dict[int, str]:
    return {each.key.seed: each.reason for each in outcomes if isinstance(each, EpisodeFailure)}


def check_others(outcomes: list[Outcome], right_return: Callable[[int], float]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, EpisodeResult):
            assert outcome.total_return == right_return(outcome.key.seed)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda answer: (answer[0][:-1], answer[1]), "gave 2 actions for 3 observations"),
        (lambda answer: (np.append(answer[0], 0), answer[1]), "gave 4 actions for 3 observations"),
        (lambda answer: (answer[0][:0], answer[1]), "gave 0 actions for 3 observations"),
        (lambda answer: (None, answer[1]), "TypeError"),
        (lambda answer: None, "predict returned None: expected the actions and its state"),
        (lambda answer: answer[0], "expected the actions and its state"),
        (lambda answer: raises(), "RuntimeError: gears jammed"),
        (lambda answer: exits(), "SystemExit: 0"),
    ],
)
@pytest.mark.parametrize("call", [1, 3])
def test_a_policy_at_fault_fails_the_episodes_under_way(
    task, policy, right_return, change: Callable[[Any], Any], said: str, call: int
) -> None:
    predict, calls = policy.predict, 0

    def wrong_once(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        answer = predict(*args, **kwargs)
        return change(answer) if calls == call else answer

    policy.predict = wrong_once
    outcomes = played(task, policy)
    failed = failures(outcomes)
    # Rows begin with the seeds 6, 13 and 7; 7 is over after one timestep, and 1 two later.
    assert set(failed) == {6, 13, 7 if call == 1 else 1}
    assert all(said in reason for reason in failed.values())
    check_others(outcomes, right_return)


def test_a_policy_that_always_raises_fails_every_episode(task) -> None:
    outcomes = played(task, SimpleNamespace(predict=lambda *_, **__: raises()))
    assert set(failures(outcomes)) == set(SEEDS)


class Push(gym.Env[Any, Any]):
    """Four timesteps of numbers; pays the action."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.full(2, (seed or 0) / 100, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.zeros(2, np.float32), float(action[0]), self.steps == 4, False, {}


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bound", [1.0, math.inf])
def test_an_action_that_is_no_number_is_not_played(
    wrong: float, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Push, "action_space", spaces.Box(-bound, bound, (1,)))

    class Policy:
        def predict(self, observation: Any, *_: Any, **__: Any) -> tuple[Any, None]:
            thirteen = observation[:, :1] == np.float32(0.13)
            return np.where(thirteen, np.float32(wrong), np.float32(0.5)), None

    outcomes = played(SimpleNamespace(make=Push), Policy())
    failed = failures(outcomes)
    assert set(failed) == {13}
    assert "which is no member of Box" in failed[13]
    returns = {o.key.seed: o.total_return for o in outcomes if isinstance(o, EpisodeResult)}
    assert returns == {seed: 2.0 for seed in SEEDS if seed != 13}


class TestEnvironments:
    """Of the seeds 13 and 20 alone."""

    @pytest.fixture
    def shows(self, task, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """Makes the environment show something else, in its reset or its first step."""
        kind = type(task.make())
        task.envs.clear()

        def apply(change: Callable[[Any], Any], method: str) -> None:
            before = getattr(kind, method)

            def changed(self: Any, *args: Any, **kwargs: Any) -> Any:
                observation, *rest = before(self, *args, **kwargs)
                wrong = self.seed_ in (13, 20) and self.clock <= 1
                return change(observation) if wrong else observation, *rest

            monkeypatch.setattr(kind, method, changed)

        return apply

    @pytest.mark.parametrize("method", ["reset", "step"])
    @pytest.mark.parametrize(
        "change",
        [
            lambda shown: None,
            lambda shown: {"numbers": shown["numbers"]},
            lambda shown: shown | {"words": None},
            lambda shown: shown | {"words": ("a", "b")},
            lambda shown: shown | {"numbers": shown["numbers"][:1]},
            lambda shown: shown | {"numbers": np.stack([shown["numbers"]] * 3)},
            lambda shown: shown | {"numbers": np.array([0.5, 0.5])},
            lambda shown: shown | {"numbers": ["one", "two"]},
        ],
    )
    def test_what_is_no_observation_fails_its_episode_alone(
        self, task, policy, right_return, shows, change: Callable[[Any], Any], method: str
    ) -> None:
        shows(change, method)
        outcomes = played(task, policy)
        assert set(failures(outcomes)) == {13, 20}
        check_others(outcomes, right_return)

    @pytest.mark.parametrize("reward", [1e308, -1e308, 1e39, math.nan, None, "much"])
    def test_a_reward_that_no_episode_can_keep_fails_it(
        self, task, policy, right_return, monkeypatch: pytest.MonkeyPatch, reward: Any
    ) -> None:
        kind = type(task.make())
        step = kind.step

        def pays(self: Any, action: int) -> Any:
            observation, usual, *rest = step(self, action)
            return observation, reward if self.seed_ in (13, 20) else usual, *rest

        monkeypatch.setattr(kind, "step", pays)
        outcomes = played(task, policy)
        assert set(failures(outcomes)) == {13, 20}
        check_others(outcomes, right_return)

    @pytest.mark.parametrize("method", ["reset", "step"])
    def test_sys_exit_fails_its_episode(
        self, task, policy, right_return, shows, method: str
    ) -> None:
        shows(lambda _: exits(), method)
        outcomes = played(task, policy)
        assert {*failures(outcomes).values()} == {"SystemExit: 0"}
        check_others(outcomes, right_return)

    def test_one_that_does_not_close_is_left(
        self, task, policy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def hang(self: Any) -> None:
            while True:
                time.sleep(0.01)

        monkeypatch.setattr(type(task.make()), "close", hang)
        monkeypatch.setattr(faults, "CLOSING_SECONDS", 0.05)
        assert failures(played(task, policy)) == {}


def test_a_score_is_shown_though_its_environment_does_not_close(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def hang(self: Any) -> None:
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(CartPoleEnv, "close", hang)
    monkeypatch.setattr(faults, "CLOSING_SECONDS", 0.05)
    assert gato_gym_main(["score", "CartPole-v1", "--policy", "random", "--episodes", "1"]) == 0
    assert "1 episodes each" in capsys.readouterr().out


def test_nan_fails_its_episode_alone_unless_the_policy_reads_it() -> None:
    class Broken(Push):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.wrong = seed == 13
            return super().reset(seed=seed)

        def step(self, action: Any) -> Any:
            shown, *rest = super().step(action)
            return np.full_like(shown, np.nan) if self.wrong else shown, *rest

    policy = SimpleNamespace(predict=lambda shown, **_: (np.zeros((3, 1), np.float32), None))
    failed = failures(played(SimpleNamespace(make=Broken), policy))
    assert set(failed) == {13}
    assert "the observation has NaN: expected numbers" in failed[13]
    policy.accepts_nan = True
    assert failures(played(SimpleNamespace(make=Broken), policy)) == {}


def test_a_time_limit_in_another_leaves_the_outer_one_running() -> None:
    with time_limit(0.2, "outer"):
        close_env(Push())
        with time_limit(60.0, "inner"):
            pass
        with pytest.raises(faults.EpisodeTimeout, match="outer"):
            time.sleep(5.0)


MODULE = """
import os, sys
from policies.random_policy import RandomPolicy

class Policy(RandomPolicy):
    calls = 0

    def predict(self, *arguments, **options):
        Policy.calls += 1
        if Policy.calls == 3:
            {act}
        return super().predict(*arguments, **options)

def make(env):
    {make}
    return Policy(env.single_observation_space, env.single_action_space)
"""


@pytest.fixture
def factory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Callable[..., str]]:
    """Writes a module of one's own; returns the name of its policy."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(path for path in sys.path if path)}")
    name = f"policy_{abs(hash(request.node.nodeid))}"

    def write(act: str = "pass", make: str = "pass") -> str:
        (tmp_path / f"{name}.py").write_text(MODULE.format(act=act, make=make))
        return f"{name}:make"

    yield write
    sys.modules.pop(name, None)


def bench(policy: str, output: Path, *more: str) -> list[str]:
    options = "--suite babyai --tasks go-to-obj --episodes 4 --num-envs 2"
    return [*options.split(), "--policy", policy, "--output", str(output), *more]


@pytest.mark.parametrize("act", ["sys.exit(0)", "raise KeyError('gears')"])
def test_the_command_goes_on_and_says_what_failed(
    factory, tmp_path: Path, capsys: pytest.CaptureFixture[str], act: str
) -> None:
    assert main(bench(factory(act), tmp_path / "run", "--workers", "1")) == 1
    lines = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert sum('"error"' in line for line in lines) == 2
    assert "some episodes failed" in capsys.readouterr().err


@pytest.mark.parametrize("make", ["sys.exit(0)", "raise RuntimeError('gears jammed')", "1 / 0"])
def test_a_policy_that_cannot_be_made_is_said_in_one_line(
    factory, tmp_path: Path, capsys: pytest.CaptureFixture[str], make: str
) -> None:
    assert main(bench(factory(make=make), tmp_path / "run", "--workers", "1")) == 2
    error = capsys.readouterr().err
    assert "cannot be made" in error
    assert error.count("\n") == 1


def test_a_process_that_a_policy_ends_has_not_played(factory, tmp_path: Path) -> None:
    """By ``os._exit(0)``, which looks like the end of the work."""
    once = f"os.path.exists({str(tmp_path / 'once')!r}) or (open({str(tmp_path / 'once')!r}, 'w'),"
    choice = PolicyChoice(factory(f"{once} os._exit(0))"))
    keys = [EpisodeKey("babyai-go-to-obj", index, index) for index in range(4)]
    reports = play_episodes({"babyai-go-to-obj": keys}, choice, workers=2, num_envs=1)
    results = [report for report in reports if isinstance(report, EpisodeResult)]
    assert sorted(result.key.index for result in results) == [0, 1, 2, 3]
    assert (tmp_path / "once").exists()


@dataclass(frozen=True)
class Exit(Command):
    """Ends the interpreter."""

    def run(self, call: Invocation) -> None:
        exits()


def test_no_command_that_is_ended_has_succeeded(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(Exit, [], prog="exit") == 1
    assert "sys.exit(0) was called" in capsys.readouterr().err


class TestRay:
    """A cluster that is not there any more."""

    @pytest.fixture
    def connect(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
        def connect(address: str, init: Callable[..., None]) -> None:
            ray = SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: None)
            monkeypatch.setitem(sys.modules, "ray", ray)
            monkeypatch.setenv("RAY_ADDRESS", address)
            choice = PolicyChoice("random")
            list(ray_cluster.play_on_cluster({"babyai-stub": KEYS}, choice))

        return connect

    @pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
    def test_an_address_where_nothing_listens_is_said_at_once(self, connect, form: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(BenchmarkError, match=r"no Ray cluster: .*refused.*set RAY_ADDRESS"):
            connect(form.format(port), lambda *_, **__: pytest.fail("Ray was asked"))

    def test_a_cluster_that_does_not_answer_is_given_up(
        self, connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def wait(*_: Any, **__: Any) -> None:
            while True:
                time.sleep(0.01)

        monkeypatch.setattr(ray_cluster, "CONNECT_SECONDS", 0.1)
        with pytest.raises(BenchmarkError, match=r"does not answer within 0\.1 s"):
            connect("auto", wait)
