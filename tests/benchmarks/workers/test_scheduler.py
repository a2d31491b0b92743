"""Every episode is given out once, whoever asks; what is lost is given out again."""

from __future__ import annotations

import random

import pytest

from benchmarks.workers.scheduler import EpisodeScheduler, longest_first
from gato_gym.tasks import get_task
from policies.rollout.outcomes import EpisodeKey


def keys(task: str, count: int) -> list[EpisodeKey]:
    return [EpisodeKey(task, index, index) for index in range(count)]


@pytest.mark.parametrize("workers", [1, 2, 5, 100])
@pytest.mark.parametrize("rows", [1, 4, 500])
def test_every_episode_is_given_once_also_when_workers_are_lost(workers: int, rows: int) -> None:
    chance = random.Random(f"{workers}/{rows}")
    pending = {"a": keys("a", 7), "b": keys("b", 70), "c": []}
    scheduler = EpisodeScheduler(pending, workers=workers)
    played: list[EpisodeKey] = []
    held: dict[int, list[EpisodeKey]] = {worker: [] for worker in range(workers)}
    newest = workers
    while scheduler.left or any(held.values()):
        worker = chance.choice(sorted(held))
        taken = scheduler.take(worker, rows)
        assert len({key.task for key in taken}) <= 1
        assert len(taken) <= rows
        held[worker].extend(taken)
        if chance.random() < 0.1:
            assert set(scheduler.lost(worker)) == set(held.pop(worker))
            held[newest] = []
            newest += 1
        elif held[worker]:
            key = held[worker].pop(0)
            assert scheduler.ended(worker, key)
            assert not scheduler.ended(worker, key)
            played.append(key)
    assert sorted(key.index for key in played if key.task == "a") == [*range(7)]
    assert sorted(key.index for key in played if key.task == "b") == [*range(70)]
    assert scheduler.losses() > 0


def test_a_worker_stays_with_its_task_and_then_takes_one_that_nobody_plays() -> None:
    scheduler = EpisodeScheduler({task: keys(task, 8) for task in "abc"}, workers=2)
    asked = [scheduler.take(worker, 4)[0].task for worker in (0, 1, 0, 0, 1, 0, 1)]
    assert asked == ["a", "b", "a", "c", "b", "c", "c"]


def test_the_last_episodes_are_shared() -> None:
    scheduler = EpisodeScheduler({"a": keys("a", 40)}, workers=2)
    sizes = [len(scheduler.take(turn % 2, 32)) for turn in range(6)]
    assert sizes == [20, 10, 5, 3, 1, 1]


def test_one_task_can_be_asked_for() -> None:
    scheduler = EpisodeScheduler({"a": keys("a", 3), "b": keys("b", 1)}, workers=1)
    assert [key.task for key in scheduler.take(0, 2, "b")] == ["b"]
    assert scheduler.take(0, 2, "b") == ()
    assert scheduler.left == 3


def test_what_is_lost_is_given_out_first() -> None:
    scheduler = EpisodeScheduler({"a": keys("a", 6)}, workers=1)
    taken = scheduler.take(0, 2)
    assert scheduler.ended(0, taken[0])
    assert scheduler.lost(0) == taken[1:]
    assert not scheduler.ended(0, taken[1])
    assert [key.index for key in scheduler.take(1, 3)] == [1, 2, 3]
    assert scheduler.losses() == 1


def test_tasks_of_long_episodes_are_begun_first() -> None:
    names = ["go-to-local", "move-two-across-s8n9", "open"]
    ordered = longest_first([get_task(f"babyai-{name}") for name in names])
    assert [task.id for task in ordered] == [
        f"babyai-{name}" for name in ("move-two-across-s8n9", "open", "go-to-local")
    ]
