"""The rules: their values hashed into every report, their words in the docs, and both true."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from benchmarks import protocol, rules
from benchmarks.measure_references import merged
from benchmarks.policies import PolicyChoice
from benchmarks.protocol import ALL, BenchmarkError, Protocol
from benchmarks.report.compare import compare
from benchmarks.run import run_benchmark
from benchmarks.settings import RunSettings
from benchmarks.statistics import bootstrap
from benchmarks.store.run_store import Record, RunHeader, read_run
from gato_gym.tasks import atari, dm_control, get_suite, get_task, list_tasks, metaworld
from policies import make_policy
from policies.rollout.env_batch import make_rows
from policies.rollout.outcomes import EpisodeKey, EpisodeResult
from policies.rollout.vector_rollout import play

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
WORDS = " ".join(rule for section in rules.RULES.values() for rule in section)


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == rules.render_rules(), "python -m benchmarks.rules > docs/protocol.md"


def test_the_hash_covers_values_and_no_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [get_task("babyai-open"), get_task("atari-pong")]
    before = Protocol.of_tasks(tasks, episodes=1, seed=0)
    monkeypatch.setattr(rules, "RULES", {"Ends": ("An episode ends.",)})
    assert Protocol.of_tasks(tasks, episodes=1, seed=0).hash == before.hash
    for values, name in ((rules._VALUES, "seed_stride"), (get_suite("atari").rules, "sticky")):
        monkeypatch.setitem(values, name, 7)  # type: ignore[arg-type]
        changed = Protocol.of_tasks(tasks, episodes=1, seed=0)
        assert changed.hash != before.hash
        (line,) = before.differences(changed)
        assert name in line
        monkeypatch.delitem(values, name)  # type: ignore[arg-type]
        monkeypatch.undo()


def test_a_suite_has_the_values_of_its_own_rules_alone() -> None:
    values = {
        suite: Protocol.of_tasks(list_tasks(suite), episodes=1, seed=0).rules
        for suite in ("atari", "babyai", "metaworld")
    }
    assert set(values["atari"]) - set(values["babyai"]) == {"atari"}
    assert set(values["metaworld"]) - set(values["babyai"]) == {"metaworld"}
    assert "interval" in values["babyai"]


def test_the_values_are_those_of_the_code() -> None:
    values = rules.rule_values(("atari", "dm_control", "metaworld"))
    assert values["seed_stride"] == protocol._SEED_STRIDE
    assert values["training_seeds_start"] == protocol.TRAINING_SEEDS_START
    assert values["interval"]["replicates"] == bootstrap.REPETITIONS
    assert values["interval"]["fewest_episodes"] == bootstrap.FEWEST
    assert values["atari"]["most_frames"] == atari.FRAMES
    assert values["atari"]["most_idle_frames"] == atari.IDLE_FRAMES
    assert values["dm_control"]["max_episode_steps"] == dm_control.STEPS
    assert values["metaworld"]["max_episode_steps"] == metaworld.STEPS
    env = get_task("atari-pong").make()
    size, stack = values["atari"]["frame_size"], values["atari"]["frames_stacked"]
    assert sorted(env.observation_space.shape or ()) == sorted((size, size, stack))


def test_the_numbers_in_the_rules_are_those_of_the_code() -> None:
    for number, unit in (
        (protocol._SEED_STRIDE, ", modulo"),
        (protocol.TRAINING_SEEDS_START, ". Training"),
        (bootstrap.REPETITIONS, " bootstrap replicates"),
        (len(list_tasks("atari")), " games"),
        (atari.FRAMES, " frames a game"),
        (atari.IDLE_FRAMES, " idle frames"),
        (len(list_tasks("babyai")), " levels"),
        (len(list_tasks("dm_control")), " tasks of the suite's"),
        (dm_control.STEPS, " steps, rewards"),
        (len(list_tasks("metaworld")), " tasks of MT50"),
        (metaworld.STEPS, " steps; an episode"),
        (len(list_tasks("mujoco")), " `-v5` tasks"),
    ):
        assert f"{number:,}{unit}" in WORDS


def test_the_values_are_what_the_sentences_say() -> None:
    values = rules.rule_values(("atari", "metaworld"))
    game, arm = values["atari"], values["metaworld"]
    frames = f"An action lasts {game['frames_per_action']} frames"
    pooled = f"the maximum of the last {game['frames_pooled']}"
    for holds, said in (
        (True, frames),
        (True, pooled),
        (True, f"Intervals are {100 * values['interval']['confidence']:g} % percentiles"),
        (values["discount"] == 1, "undiscounted"),
        (not values["clipping"], "unclipped"),
        (not values["life_loss_ends_episode"], "Losing a life ends no episode."),
        (not game["full_action_space"], "A game has its own action set"),
        (arm["goal_visible"], "the goal visible"),
        (not arm["success_ends_episode"], "an episode continues after success."),
    ):
        assert holds == (said in WORDS), said
    assert get_task("atari-pong").make().action_space.n == 6, "of the 18 there are"
    assert inspect.signature(bootstrap.interval_of).parameters["confidence"].default == 0.95


def old_form(rules_hash: str | None, task: str = "babyai-open") -> dict[str, Any]:
    """What version 1 wrote of a task."""
    env_id = get_task(task).env_id
    success = "info['success'] is true at any timestep"
    entry = {"env_id": env_id, "max_episode_steps": None, "success": success}
    return {
        "version": 1,
        **({"rules": rules_hash} if rules_hash else {}),
        "suite": "babyai",
        "episodes": 1,
        "seed": 0,
        "simulators": {"gymnasium": "1", "minigrid": "3"},
        "tasks": {task: entry},
    }


NOW = dataclasses.replace(
    Protocol.of_tasks([get_task("babyai-open")], episodes=1, seed=0),
    simulators={"gymnasium": "1", "minigrid": "3"},
)


@pytest.mark.parametrize("wording", [None, "ebc6c0ac508a9812", "0" * 16])
def test_version_one_is_read_with_the_hash_it_had(wording: str | None) -> None:
    old = old_form(wording)
    text = json.dumps(old, sort_keys=True, separators=(",", ":"))
    read = Protocol.from_json(old)
    assert read.hash == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert read.to_json() == old
    assert read.rules_label == (f"in words, hash {wording}" if wording else "not recorded")


def record(folder: Path, each: Protocol) -> None:
    with Record(folder, RunHeader(each, {}), resume=False) as run:
        run.append(EpisodeResult(each.episodes_of("babyai-open")[0], 1, 1, True, True, 0))


@pytest.mark.parametrize(
    ("wording", "said"),
    [
        ("ebc6c0ac508a9812", None),
        ("210673693253d701", "hash 210673693253d701: its random numbers or intervals followed"),
        ("0" * 16, "version 1, sentences of hash 0000000000000000: which this version does not"),
        (None, r"protocol\.rules: B only"),
    ],
)
def test_runs_of_version_one_compare_and_resume_where_they_mean_the_same(
    tmp_path: Path, wording: str | None, said: str | None
) -> None:
    old = Protocol.from_json(old_form(wording))
    record(tmp_path / "old", old)
    record(tmp_path / "now", NOW)
    runs = [read_run(tmp_path / name) for name in ("old", "now")]
    assert runs[0].header.protocol == old, "written as it was read"
    if said is None:
        assert compare(*runs).unlike == ()
        assert runs[0].header.protocol.hash != runs[1].header.protocol.hash
        with Record(tmp_path / "old", RunHeader(NOW, {}), resume=True) as resumed:
            assert len(resumed.results) == 1
        return
    with pytest.raises(BenchmarkError, match=said):
        compare(*runs)
    with pytest.raises(BenchmarkError, match=r"protocol\.rules"):
        Record(tmp_path / "old", RunHeader(NOW, {}), resume=True)


def test_references_of_version_one_take_new_figures() -> None:
    """What is measured now joins what was measured before, and only the same."""
    figures = {"random": {"mean": 0.0}}
    tasks = {"babyai-open": figures}
    old = {"protocol": old_form(None), "versions": {}, "tasks": tasks}
    new = dataclasses.replace(NOW, rules="").to_json()
    entry = merged(old, {"protocol": new, "versions": {}, "tasks": {"babyai-open": {"expert": 1}}})
    assert entry["tasks"] == {"babyai-open": {**figures, "expert": 1}}
    assert entry["protocol"]["version"] == rules.VERSION
    other = {**new, "seed": 3}
    with pytest.raises(BenchmarkError, match="seed: 0 -> 3"):
        merged(old, {"protocol": other, "versions": {}, "tasks": {}})


def test_several_suites_are_one_protocol_with_the_same_episodes() -> None:
    tasks = [get_task("babyai-open"), get_task("mujoco-reacher")]
    both = Protocol.of_tasks(tasks, episodes=2, seed=3)
    alone = Protocol.of_tasks(tasks[:1], episodes=2, seed=3)
    assert (both.suite, alone.suite) == (ALL, "babyai")
    assert set(both.simulators) == {"gymnasium", "minigrid", "mujoco"}
    assert both.tasks["mujoco-reacher"].max_episode_steps == 50
    assert both.episodes_of("babyai-open") == alone.episodes_of("babyai-open")
    assert both.hash != alone.hash


def test_rules_are_in_every_report(task, tmp_path: Path, monkeypatch, quiet) -> None:
    monkeypatch.setattr("benchmarks.run.select_tasks", lambda suite, pattern: [task])
    monkeypatch.setattr("gato_gym.tasks.get_task", lambda name: task)
    settings = RunSettings("babyai", tmp_path, policy=PolicyChoice("random"), episodes=1, workers=1)
    run_benchmark(settings, console=quiet)
    for name in ("run.json", "summary.json"):
        assert json.loads((tmp_path / name).read_text())["protocol"]["rules"] == rules.rule_values()
    page = (tmp_path / "report.html").read_text()
    assert f"version {rules.VERSION}, <code>docs/protocol.md</code>" in page
    assert "Losing a life ends no episode." in page


def test_losing_a_life_ends_no_episode() -> None:
    """Breakout has five lives: a random game loses them all, and ends once."""
    task = get_task("atari-breakout")
    key = EpisodeKey(task.id, 0, 11)
    lives: list[int] = []
    envs = make_rows(task, 1)

    def watch(step: Any) -> Any:
        def watched(action: Any) -> Any:
            result = step(action)
            lives.append(result[-1]["lives"])
            return result

        return watched

    row = envs.envs[0]
    monkey = pytest.MonkeyPatch()
    monkey.setattr(row, "step", watch(row.step))
    (result,) = play(envs, make_policy("random", env=envs), [key], deterministic=False)
    monkey.undo()
    envs.close()
    assert isinstance(result, EpisodeResult)
    assert result.terminated
    assert sorted(set(lives)) == [0, 1, 2, 3, 4, 5]
    assert result.length == len(lives)
    assert lives.index(0) == len(lives) - 1, "it ends with the last life, and not before"


class Still:
    """Does nothing."""

    def predict(self, observation: Any, state: Any = None, **_: Any) -> tuple[Any, None]:
        return np.zeros((len(observation), 1), np.float32), None


class Pushes:
    """Pushes to one side."""

    def predict(self, observation: Any, state: Any = None, **_: Any) -> tuple[Any, None]:
        return np.full((len(observation), 1), 3.0, np.float32), None


def one_episode(task_id: str, policy: Any) -> EpisodeResult:
    envs: SyncVectorEnv = make_rows(get_task(task_id), 1)
    (result,) = play(envs, policy, [EpisodeKey(task_id, 0, 5)], deterministic=True)
    envs.close()
    assert isinstance(result, EpisodeResult)
    return result


def test_termination_and_truncation_are_told_apart() -> None:
    fallen = one_episode("mujoco-pendulum", Pushes())
    assert fallen.terminated
    assert fallen.length < 1000
    timed_out = one_episode("dm_control-cartpole-swingup", Still())
    assert not timed_out.terminated
    assert timed_out.length == 1000
    assert [each.to_json()["terminated"] for each in (fallen, timed_out)] == [True, False]
