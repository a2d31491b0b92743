"""Units cover every episode once, however they are cut."""

from __future__ import annotations

import pytest

from benchmarks.protocol import EpisodeKey
from benchmarks.workers import MAX_ROWS, split_units


def keys(task: str, count: int) -> list[EpisodeKey]:
    return [EpisodeKey(task, index, index) for index in range(count)]


@pytest.mark.parametrize("workers", [1, 2, 5, 100])
@pytest.mark.parametrize("num_envs", [None, 1, 4, 500])
def test_every_episode_is_in_one_unit(workers: int, num_envs: int | None) -> None:
    pending = {"a": keys("a", 7), "b": keys("b", 70), "c": []}
    units = split_units(pending, workers=workers, num_envs=num_envs)
    assert sorted(key.index for unit in units if unit.task == "a" for key in unit.episodes) == [
        *range(7)
    ]
    assert sorted(key.index for unit in units if unit.task == "b" for key in unit.episodes) == [
        *range(70)
    ]
    for unit in units:
        assert {key.task for key in unit.episodes} == {unit.task}
        assert 1 <= unit.num_envs <= min(len(unit.episodes), num_envs or MAX_ROWS)


def test_tasks_are_cut_only_when_workers_would_idle() -> None:
    assert len(split_units({"a": keys("a", 9), "b": keys("b", 9)}, workers=2, num_envs=1)) == 2
    assert len(split_units({"a": keys("a", 9)}, workers=3, num_envs=1)) == 3
    assert len(split_units({"a": keys("a", 2)}, workers=3, num_envs=1)) == 2


def test_a_unit_has_no_more_environments_than_episodes() -> None:
    sizes = {
        (count, num_envs): split_units({"a": keys("a", count)}, workers=1, num_envs=num_envs)[
            0
        ].num_envs
        for count in (3, 100)
        for num_envs in (None, 8)
    }
    assert sizes == {(3, None): 3, (3, 8): 3, (100, None): MAX_ROWS, (100, 8): 8}


def test_nothing_to_play_is_no_units() -> None:
    assert split_units({"a": []}, workers=2, num_envs=None) == []
