"""Episodes that begin alike are played differently, and the same whoever plays beside them."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from rich.console import Console
from small import SMALL

from benchmarks import experts as experts_command
from benchmarks import measure_references, references, run
from benchmarks.measure_references import ReferenceSettings
from benchmarks.policies import PolicyChoice
from benchmarks.protocol import BenchmarkError, Protocol, TaskRules
from benchmarks.report.compare import compare
from benchmarks.run import run_benchmark
from benchmarks.settings import RunSettings
from benchmarks.store.run_store import Record, RunHeader, read_run
from benchmarks.video.viewer import WatchSettings, watch
from gato_gym import PlanOptions
from gato_gym.tasks import get_task, list_tasks
from gato_gym.tasks.atari import AtariEnv
from policies import GatoPolicy
from policies.random_policy import RandomPolicy
from policies.rollout.env_batch import RestartableEnv, make_rows
from policies.rollout.outcomes import EpisodeKey, EpisodeResult
from policies.rollout.vector_rollout import play

GAME = "atari-breakout"


def quiet() -> Console:
    return Console(file=io.StringIO())


def by_hand(seed: int, *, sticky: float = 0.0) -> tuple[float, int]:
    """Return and length of an episode of random actions, without a policy of this package."""
    env, actions = AtariEnv("Breakout", sticky=sticky), spaces.Discrete(4)
    actions.seed(int(np.random.default_rng([0, seed, 0]).integers(2**31)))
    env.reset(seed=seed)
    total, length, over = 0.0, 0, False
    while not over:
        _, reward, terminated, truncated, _ = env.step(actions.sample())
        total, length, over = total + reward, length + 1, terminated or truncated
    env.close()
    return total, length


def test_ten_random_games_of_breakout_are_ten_games(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")

    def settings(name: str, **changes: Any) -> RunSettings:
        given: dict[str, Any] = {"episodes": 10, "workers": 1, "num_envs": 4, **changes}
        return RunSettings(
            "atari", tmp_path / name, tasks="breakout", policy=PolicyChoice("random"), **given
        )

    summary = run_benchmark(settings("whole"), console=quiet())
    results = read_run(tmp_path / "whole").results
    expected = {key: by_hand(key.seed) for key in results}
    assert {key: (r.total_return, r.length) for key, r in results.items()} == expected
    assert len(set(expected.values())) > 5, "lengths alone tell most of them apart"
    assert len({result.digest for result in results.values()}) == 10
    (task,) = summary.tasks
    assert (task.episodes, task.distinct) == (10, 10)

    lines = (tmp_path / "whole" / "results.jsonl").read_text().splitlines(keepends=True)
    part = tmp_path / "part"
    part.mkdir()
    (part / "run.json").write_text((tmp_path / "whole" / "run.json").read_text())
    (part / "results.jsonl").write_text("".join(lines[:7]))
    run_benchmark(settings("part", num_envs=1, resume=True), console=quiet())
    again = read_run(part).results
    assert {key: result.digest for key, result in again.items()} == {
        key: result.digest for key, result in results.items()
    }


def test_digests_tell_episodes_apart_by_what_was_seen_done_and_paid(
    task, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Choosing:
        def predict(self, observation: Any, *_: Any, **__: Any) -> tuple[Any, None]:
            return np.full(len(observation["numbers"]), self.action), None

        action = 0

    policy = Choosing()

    def digest(seed: int, action: int) -> str | None:
        policy.action = action
        (result,) = play(
            make_rows(task, 1), policy, [EpisodeKey(task.id, 0, seed)], deterministic=False
        )
        assert isinstance(result, EpisodeResult)
        return result.digest

    # Of seeds 7 and 14 an episode has one timestep, which pays for action 3 alone.
    assert digest(7, 0) == digest(7, 0)
    assert digest(7, 0) != digest(7, 1), "another action, the same reward"
    assert digest(7, 0) != digest(14, 0), "another observation, the same action and reward"
    assert len(digest(7, 0) or "") == 16
    before = digest(7, 0)

    def paid(self: Any, action: int) -> Any:
        return self._observation(), 1.0, True, False, {}

    monkeypatch.setattr(type(task.make()), "step", paid)
    assert digest(7, 0) != before, "another reward"


class Blank(gym.Env[Any, Any]):
    """Every episode shows the same; four steps that pay what was chosen."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(900)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.clock = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        self.clock += 1
        return np.full(3, self.clock / 9, np.float32), float(action), self.clock == 4, False, {}


@pytest.mark.parametrize("kind", ["gato", "random"])
def test_episodes_that_begin_alike_differ_in_any_number_of_environments(kind: str) -> None:
    """Of a network, whose tables act together, and of a policy that acts alone."""

    @dataclasses.dataclass(frozen=True)
    class BlankTask:
        def make(self) -> Blank:
            return Blank()

    keys = [EpisodeKey("blank-task", index, 50 + index) for index in range(7)]

    def returns(num_envs: int) -> dict[int, float]:
        envs: Any = make_rows(BlankTask(), num_envs)  # type: ignore[arg-type]
        if kind == "gato":
            options = PlanOptions(vector_size=16)
            policy: Any = GatoPolicy.create(envs, config=SMALL, options=options)
        else:
            policy = RandomPolicy(Blank.observation_space, Blank.action_space)
        outcomes = play(envs, policy, keys, deterministic=False)
        return {each.key.seed: each.total_return for each in outcomes}  # type: ignore[union-attr]

    alone = returns(1)
    assert len(set(alone.values())) == 7
    assert returns(3) == returns(4) == returns(9) == alone


def test_a_policy_without_episodes_seeds_plays_the_same_episodes_again(task) -> None:
    """What the count of distinct episodes is for: a policy that ignores its episode."""

    class Alone(RandomPolicy):
        def seed_episodes(self, seeds: Any, state: Any = None) -> Any:
            return super().seed_episodes([7] * len(seeds), state)

    keys = [EpisodeKey(GAME, index, 3) for index in range(4)]  # one and the same game
    pytest.importorskip("ale_py")
    envs = make_rows(get_task(GAME), 4)
    policy = Alone(envs.single_observation_space, envs.single_action_space)
    digests = {each.digest for each in play(envs, policy, keys, deterministic=False)}  # type: ignore[union-attr]
    assert len(digests) == 1


# ---------------------------------------------------------------- sticky actions


def test_sticky_actions_are_another_protocol() -> None:
    tasks = list_tasks("atari", "breakout")
    plain = Protocol.of_tasks(tasks, episodes=2, seed=0)
    sticky = Protocol.of_tasks(tasks, episodes=2, seed=0, name="atari-sticky")
    assert plain.hash != sticky.hash
    assert sticky.tasks[GAME].sticky == 0.25
    assert [key.disturbance.sticky for key in sticky.episodes_of(GAME)] == [0.25, 0.25]
    assert sticky.episodes_of(GAME) == plain.episodes_of(GAME), "the same seeds"
    again = Protocol.from_json(json.loads(json.dumps(sticky.to_json())))
    assert again == sticky
    assert again.hash == sticky.hash
    assert "name" not in plain.to_json()
    assert "sticky" not in plain.to_json()["tasks"][GAME]
    both = Protocol.of_tasks(
        [*tasks, *list_tasks("babyai", "open")], episodes=2, seed=0, name="atari-sticky"
    )
    assert [rules.sticky for rules in both.tasks.values()] == [0.25, 0.0]
    with pytest.raises(BenchmarkError, match="is of Atari's games, not of babyai"):
        Protocol.of_tasks(list_tasks("babyai", "open"), episodes=2, seed=0, name="atari-sticky")
    with pytest.raises(BenchmarkError, match="--protocol is 'nope', expected one of standard, at"):
        Protocol.of_tasks(tasks, episodes=2, seed=0, name="nope")


def test_a_sticky_run_plays_sticky_games_and_is_not_compared_with_others(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    command = ["--suite", "atari", "--tasks", "breakout", "--policy", "random", "--workers", "1"]
    command += ["--episodes", "2", "--output"]
    assert run.main([*command, str(tmp_path / "plain")]) == 0
    assert run.main([*command, str(tmp_path / "sticky"), "--protocol", "atari-sticky"]) == 0
    plain, sticky = (read_run(tmp_path / name) for name in ("plain", "sticky"))
    outcomes = {key: (r.total_return, r.length) for key, r in sticky.results.items()}
    assert outcomes == {key: by_hand(key.seed, sticky=0.25) for key in outcomes}
    assert outcomes != {key: (r.total_return, r.length) for key, r in plain.results.items()}
    with pytest.raises(BenchmarkError, match=r"different protocols .*name: B only.*sticky: B only"):
        compare(plain, sticky)
    summary = json.loads((tmp_path / "sticky" / "summary.json").read_text())
    assert any("measured under the standard protocol" in each for each in summary["warnings"])
    assert not any("measured under other rules" in each for each in summary["warnings"])
    plain_summary = json.loads((tmp_path / "plain" / "summary.json").read_text())
    assert not any("standard protocol" in each for each in plain_summary["warnings"])

    class Blank:
        closed = False

        def show(self, picture: Any, *, seconds: float = 0.0) -> None:
            pass

        def close(self) -> None:
            pass

    settings = WatchSettings(GAME, PolicyChoice("random"), episodes=1, protocol="atari-sticky")
    (seen,) = watch(settings, lambda fps: Blank())
    assert sticky.results[seen.key].digest == seen.digest


def test_only_games_are_made_sticky() -> None:
    with pytest.raises(ValueError, match=r"sticky is 0\.25 for babyai-open, expected 0"):
        get_task("babyai-open").make(sticky=0.25)


# ---------------------------------------------------------------- references


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where references go; the recorded ones of MuJoCo are two tasks', of two episodes."""
    path = tmp_path / "measured.json"
    protocol = Protocol.of_tasks(list_tasks("mujoco", "ant,pendulum"), episodes=2, seed=0)
    entry = {
        "protocol_hash": "", "protocol": dataclasses.replace(protocol, rules="").to_json(),
        "versions": {}, "tasks": {"mujoco-ant": {"random": {"mean": 1}}, "mujoco-pendulum": {}},
    }  # fmt: skip
    path.write_text(json.dumps({"suites": {"mujoco": entry}}))
    monkeypatch.setattr(measure_references, "measured_path", lambda suite: path)
    return path


def measured(path: Path) -> dict[str, Any]:
    tasks: dict[str, Any] = json.loads(path.read_text())["suites"]["mujoco"]["tasks"]
    return tasks


def stopping_after(count: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the command be stopped after so many tasks; which it measured."""
    asked: list[str] = []
    measure = measure_references.measure

    def stopped(settings: ReferenceSettings, *, console: Console) -> dict[str, Any]:
        if len(asked) == count:
            raise KeyboardInterrupt
        asked.append(str(settings.tasks))
        return measure(settings, console=console)

    monkeypatch.setattr(measure_references, "measure", stopped)
    return asked


def command(tmp_path: Path, *more: str) -> int:
    work = ["--work", str(tmp_path / "work"), "--workers", "1"]
    return experts_command.main(["--suite", "mujoco", *work, *more])


def test_what_was_measured_before_a_stop_is_kept(
    tmp_path: Path, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mujoco")
    asked = stopping_after(1, monkeypatch)
    assert command(tmp_path, "--episodes", "2", "--tasks", "pendulum,reacher") == 130
    assert asked == ["mujoco-pendulum"]
    kept = measured(written)
    assert list(kept) == ["mujoco-ant", "mujoco-pendulum"]
    assert kept["mujoco-ant"] == {"random": {"mean": 1}}, "another's figures stay"
    assert kept["mujoco-pendulum"]["random"]["episodes"] == 2
    assert "distinct" not in kept["mujoco-pendulum"]["random"]
    entry = json.loads(written.read_text())["suites"]["mujoco"]
    assert entry["protocol_hash"] == Protocol.from_json(entry["protocol"]).hash


def test_another_protocol_is_written_down_when_all_is_measured(
    tmp_path: Path, written: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pytest.importorskip("mujoco")
    before = written.read_text()
    assert command(tmp_path, "--episodes", "3", "--tasks", "reacher") == 2
    assert (
        "another protocol (protocol.episodes: 2 -> 3): measure all of it" in capsys.readouterr().err
    )
    assert not (tmp_path / "work").exists(), "it is told before anything is played"
    chosen = list_tasks("mujoco", "reacher,pendulum")
    monkeypatch.setattr(measure_references, "select_tasks", lambda suite, tasks: chosen)
    stopping_after(1, monkeypatch)
    assert command(tmp_path, "--episodes", "3") == 130
    assert written.read_text() == before
    monkeypatch.undo()
    monkeypatch.setattr(measure_references, "measured_path", lambda suite: written)

    def ordered(suite: str, tasks: str | None, player: str | None) -> list[str]:
        return [tasks] if tasks else ["mujoco-reacher", "mujoco-pendulum"]

    monkeypatch.setattr(measure_references, "_ordered", ordered)
    assert command(tmp_path, "--episodes", "3") == 0
    assert list(measured(written)) == ["mujoco-pendulum", "mujoco-reacher"], "Ant is gone"


def test_tasks_with_an_expert_are_measured_first() -> None:
    ordered = measure_references._ordered("atari", "montezumarevenge,pong,boxing,pitfall", None)
    assert ordered == ["atari-boxing", "atari-pong", "atari-montezumarevenge", "atari-pitfall"]
    assert measure_references._ordered("atari", "pitfall,pong", "expert") == ["atari-pong"]
    with pytest.raises(BenchmarkError, match="none of these tasks of atari has an expert"):
        measure_references._ordered("atari", "pitfall", "expert")


def test_a_reference_says_how_many_of_its_episodes_are_distinct(
    tmp_path: Path, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two episodes that are one: their environment is reset to the same start, and is still."""
    pytest.importorskip("mujoco")

    class Still(RandomPolicy):
        def seed_episodes(self, seeds: Any, state: Any = None) -> Any:
            return super().seed_episodes([None if seed is None else 1 for seed in seeds], state)

    def same(self: Any, *, seed: int | None = None, options: Any = None) -> Any:
        return reset(self, seed=1, options=options)

    monkeypatch.setattr("policies.random_policy.RandomPolicy", Still)
    reset = RestartableEnv.reset
    monkeypatch.setattr(RestartableEnv, "reset", same)
    given = ["--episodes", "2", "--tasks", "pendulum", "--player", "random"]
    assert command(tmp_path, *given) == 0
    figures = measured(written)["mujoco-pendulum"]["random"]
    assert (figures["episodes"], figures["distinct"]) == (2, 1)
    content = json.loads(written.read_text())
    monkeypatch.setattr("benchmarks.references._read", lambda path: content)
    known = references.measured("mujoco")["mujoco-pendulum"].random
    assert known is not None
    assert known.distinct == 1


def test_one_player_is_measured_and_the_other_kept(tmp_path: Path, written: Path) -> None:
    pytest.importorskip("mujoco")
    content = json.loads(written.read_text())
    content["suites"]["mujoco"]["tasks"]["mujoco-pendulum"] = {
        "random": {"mean": 2},
        "expert": {"mean": 7},
    }
    written.write_text(json.dumps(content))
    given = ["--episodes", "2", "--tasks", "pendulum", "--player", "random"]
    assert command(tmp_path, *given) == 0
    figures = measured(written)["mujoco-pendulum"]
    assert figures["expert"] == {"mean": 7}
    assert figures["random"]["episodes"] == 2
    folders = [path.name for path in (tmp_path / "work").iterdir()]
    assert folders == ["mujoco-pendulum-random"], "the expert does not play"


# ---------------------------------------------------------------- labels


def test_runs_that_differ_in_the_prompt_alone_say_so(tmp_path: Path) -> None:
    protocol = Protocol("babyai", {"babyai-open": TaskRules("x", None)}, 4, 0, {})

    def recorded(prompt: str) -> Any:
        policy = {"name": "gato-mini", "weights": "abc", "prompt": prompt, "seed": 0}
        with Record(tmp_path / prompt, RunHeader(protocol, policy), resume=False) as record:
            for key in protocol.episodes_of("babyai-open"):
                total = float(prompt == "shipped")
                record.append(EpisodeResult(key, total, 3, True, True, 0.1))
        return read_run(tmp_path / prompt)

    comparison = compare(recorded("shipped"), recorded("none"))
    assert comparison.players == ("gato-mini (abc), prompt shipped", "gato-mini (abc), prompt none")
    (task,) = comparison.tasks
    assert task.difference < 0
    assert (task.low, task.high, task.verdict) == (None, None, ""), "four are too few to say worse"
    assert {(each.low, each.high) for each in comparison.averages} == {(None, None)}
    assert comparison.improvement is not None
    assert comparison.improvement[1:] == (None, None)
    assert any("which take 5 episodes" in note for note in comparison.notes)
