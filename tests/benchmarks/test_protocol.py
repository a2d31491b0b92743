"""What is played is decided by (seed, task, index) alone, and every change of rules shows."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from benchmarks.protocol import (
    TRAINING_SEEDS_START,
    BenchmarkError,
    Protocol,
    TaskRules,
    differences,
    episode_seed,
)
from gato_gym.tasks import get_task
from policies.rollout.outcomes import EpisodeKey, EpisodeResult

PROTOCOL = Protocol(
    suite="babyai",
    tasks={"babyai-open": TaskRules("BabyAI-Open-v0", None)},
    episodes=3,
    seed=0,
    simulators={"minigrid": "3.2.0"},
)


def test_seeds_are_below_training_seeds_and_distinct_within_a_task() -> None:
    seeds = [episode_seed(7, "metaworld-reach", index) for index in range(20_000)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0
    assert max(seeds) < TRAINING_SEEDS_START


def test_stride_is_coprime_to_the_range_so_that_a_million_episodes_are_distinct() -> None:
    stride = (episode_seed(0, "a", 1) - episode_seed(0, "a", 0)) % TRAINING_SEEDS_START
    assert stride == 618_033
    assert math.gcd(stride, TRAINING_SEEDS_START) == 1


def test_seeds_depend_on_seed_and_task() -> None:
    first = episode_seed(0, "babyai-open", 0)
    # printf 0/babyai-open | b2sum -l 64, its lowest byte first
    assert first == int.from_bytes(bytes.fromhex("b30fd9b3dd79e463"), "little") % 1_000_000
    assert first != episode_seed(1, "babyai-open", 0)
    assert first != episode_seed(0, "babyai-open-door", 0)


def test_more_episodes_begin_with_the_same_ones() -> None:
    longer = dataclasses.replace(PROTOCOL, episodes=9)
    assert longer.episodes_of("babyai-open")[:3] == PROTOCOL.episodes_of("babyai-open")


def test_its_label_says_how_many_episodes() -> None:
    assert PROTOCOL.label.startswith("3 episodes a task, seed 0, ")
    assert dataclasses.replace(PROTOCOL, episodes=1).label.startswith("1 episode a task, ")
    assert PROTOCOL.label.endswith(PROTOCOL.hash)


def test_an_episode_belongs_to_it_by_task_index_and_seed() -> None:
    keys = dataclasses.replace(PROTOCOL, episodes=4).episodes_of("babyai-open")
    assert [PROTOCOL.has_episode(key) for key in keys] == [True, True, True, False]
    last, other_seed = keys[2], dataclasses.replace(keys[2], seed=keys[2].seed + 1)
    assert not PROTOCOL.has_episode(other_seed)
    assert not PROTOCOL.has_episode(dataclasses.replace(last, task="babyai-pickup"))
    assert not PROTOCOL.has_episode(dataclasses.replace(last, index=-1))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"episodes": 4},
        {"simulators": {"minigrid": "3.3.0"}},
        {"version": 3},
        {"tasks": {"babyai-open": TaskRules("BabyAI-Open-v0", 99)}},
    ],
)
def test_hash_changes_with_every_rule(change) -> None:
    changed = dataclasses.replace(PROTOCOL, **change)
    assert changed.hash != PROTOCOL.hash
    assert len(differences(PROTOCOL.to_json(), changed.to_json())) == 1


def test_protocol_and_hash_survive_json() -> None:
    again = Protocol.from_json(json.loads(json.dumps(PROTOCOL.to_json())))
    assert again == PROTOCOL
    assert again.hash == PROTOCOL.hash


def test_result_survives_json() -> None:
    result = EpisodeResult(EpisodeKey("t", 4, 77), 0.1 + 0.2, 5, None, True, 1.25)
    assert EpisodeResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_differences_name_the_path_and_both_values() -> None:
    recorded = {"a": {"b": 1, "gone": 2}, "same": [1, 2]}
    asked = {"a": {"b": 3, "new": 4}, "same": [1, 2]}
    assert differences(recorded, asked) == [
        "a.b: 1 -> 3",
        "a.gone: recorded only",
        "a.new: asked for only",
    ]


def test_protocol_of_no_tasks_is_refused() -> None:
    with pytest.raises(BenchmarkError, match="got no tasks"):
        Protocol.of_tasks([], episodes=1, seed=0)


def test_more_episodes_than_seeds_are_refused() -> None:
    task = get_task("babyai-open")
    assert Protocol.of_tasks([task], episodes=1_000_000, seed=0).episodes == 1_000_000
    with pytest.raises(BenchmarkError, match="episodes is 1000001, expected 1 to 1000000"):
        Protocol.of_tasks([task], episodes=1_000_001, seed=0)
