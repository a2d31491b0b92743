"""The protocol in words: rendered in the docs, hashed into every report, and true."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from benchmarks import protocol, rules
from benchmarks.policies import PolicyChoice
from benchmarks.protocol import ALL, BenchmarkError, Protocol, TaskRules
from benchmarks.report.compare import compare
from benchmarks.run import run_benchmark
from benchmarks.settings import RunSettings
from benchmarks.statistics import bootstrap
from benchmarks.store.run_store import Record, RunHeader, read_run
from gato_gym.tasks import atari, dm_control, get_task, list_tasks, metaworld
from policies import make_policy
from policies.rollout.env_batch import make_rows
from policies.rollout.outcomes import EpisodeKey, EpisodeResult
from policies.rollout.vector_rollout import play

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
WORDS = " ".join(rule for section in rules.RULES.values() for rule in section)


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == rules.render_rules(), "python -m benchmarks.rules > docs/protocol.md"
    assert rules.rules_hash() in PAGE.read_text()


def test_every_word_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = rules.rules_hash()
    sections = list(rules.RULES)
    for section in sections:
        sentences = rules.RULES[section]
        changed = {**rules.RULES, section: (*sentences[:-1], sentences[-1] + "!")}
        monkeypatch.setattr(rules, "RULES", changed)
        assert rules.rules_hash() != before
        monkeypatch.undo()
    monkeypatch.setattr(rules, "RULES", {each: rules.RULES[each] for each in sections[::-1]})
    assert rules.rules_hash() != before


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


def test_runs_under_other_rules_are_not_compared_and_not_resumed(tmp_path: Path) -> None:
    tasks = {"babyai-open": TaskRules("BabyAI-Open-v0", None)}
    now = Protocol("babyai", tasks, 1, 0, {})
    before = dataclasses.replace(now, rules="0" * 16)
    assert now.rules == rules.rules_hash()
    assert now.hash != before.hash
    for name, each in (("now", now), ("before", before)):
        with Record(tmp_path / name, RunHeader(each, {}), resume=False) as record:
            record.append(EpisodeResult(each.episodes_of("babyai-open")[0], 1, 1, True, True, 0))
    with pytest.raises(BenchmarkError, match=rf"protocol\.rules: {rules.rules_hash()} -> 0000"):
        compare(read_run(tmp_path / "now"), read_run(tmp_path / "before"))
    with pytest.raises(BenchmarkError, match=r"protocol\.rules: 0000"):
        Record(tmp_path / "before", RunHeader(now, {}), resume=True)


def test_a_protocol_from_before_the_rules_were_hashed_keeps_its_hash() -> None:
    old = Protocol("babyai", {}, 1, 0, {}, rules="")
    assert "rules" not in old.to_json()
    assert Protocol.from_json(old.to_json()) == old
    assert Protocol.from_json(old.to_json()).hash == old.hash


def test_several_suites_are_one_protocol_with_the_same_episodes() -> None:
    tasks = [get_task("babyai-open"), get_task("mujoco-reacher")]
    both = Protocol.of_tasks(tasks, episodes=2, seed=3)
    alone = Protocol.of_tasks(tasks[:1], episodes=2, seed=3)
    assert (both.suite, alone.suite) == (ALL, "babyai")
    assert {"minigrid", "mujoco"} <= set(both.simulators)
    assert both.episodes_of("babyai-open") == alone.episodes_of("babyai-open")
    assert both.hash != alone.hash


def test_rules_are_in_every_report(task, tmp_path: Path, monkeypatch, quiet) -> None:
    monkeypatch.setattr("benchmarks.run.select_tasks", lambda suite, pattern: [task])
    monkeypatch.setattr("gato_gym.tasks.get_task", lambda name: task)
    settings = RunSettings("babyai", tmp_path, policy=PolicyChoice("random"), episodes=1, workers=1)
    run_benchmark(settings, console=quiet)
    for name in ("run.json", "summary.json"):
        assert json.loads((tmp_path / name).read_text())["protocol"]["rules"] == rules.rules_hash()
    page = (tmp_path / "report.html").read_text()
    assert rules.rules_hash() in page
    assert "Losing a life ends no episode." in page


def test_losing_a_life_ends_no_episode() -> None:
    """Breakout has five lives: a random game loses them all, and ends once."""
    task = get_task("atari-breakout")
    key = EpisodeKey(task.id, 0, 11)
    lives: list[int] = []
    envs = make_rows(task, 1)

    def watch(step: Any) -> Any:
        def watched(action: Any) -> Any:
            found = step(action)
            lives.append(found[-1]["lives"])
            return found

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
