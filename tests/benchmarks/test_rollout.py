"""Exactly the chosen episodes, each played alone as far as anyone can tell."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.protocol import EpisodeKey, EpisodeResult
from benchmarks.rollout import play
from benchmarks.tables import make_rows

KEYS = [
    EpisodeKey("babyai-stub", index, seed) for index, seed in enumerate((6, 13, 7, 1, 20, 3, 5))
]


def outcomes(results: list[EpisodeResult]) -> dict[EpisodeKey, tuple[float, int, bool | None]]:
    return {r.key: (r.total_return, r.length, r.success) for r in results}


@pytest.mark.parametrize("num_envs", [1, 2, 3, 7, 10])
def test_each_episode_once_with_the_same_outcome_for_any_number_of_envs(
    task, policy, right_return, num_envs: int
) -> None:
    envs = make_rows(task, num_envs)
    results = list(play(envs, policy, KEYS, deterministic=False))
    expected = {
        key: (right_return(key.seed), 1 + key.seed % 7, 1 + key.seed % 7 >= 3) for key in KEYS
    }
    assert len(results) == len(KEYS)
    assert outcomes(results) == expected
    # Rows beyond the number of episodes are reset once, to have something to show.
    assert sum(env.resets for env in task.made) == max(len(KEYS), num_envs)


def test_the_batch_keeps_its_rows_to_the_end(task, policy) -> None:
    list(play(make_rows(task, 3), policy, KEYS, deterministic=False))
    assert set(policy.batches) == {3}


def test_no_step_more_than_the_longest_chain_of_episodes_needs(task, policy) -> None:
    # Rows play 7, then 6: [6], [13], then 7, 1, ... as rows come free.
    list(play(make_rows(task, 2), policy, KEYS, deterministic=False))
    free = [0, 0]
    for key in KEYS:
        row = free.index(min(free))
        free[row] += 1 + key.seed % 7
    assert len(policy.batches) == max(free)


def test_stopping_abandons_what_is_under_way_and_keeps_what_ended(task, policy) -> None:
    asked = iter([False] * 3)
    results = list(
        play(
            make_rows(task, 7),
            policy,
            KEYS,
            deterministic=False,
            stopped=lambda: next(asked, True),
        )
    )
    assert {result.key.seed for result in results} == {7, 1}


def test_a_reward_that_is_not_finite_fails_the_episode(
    task, policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any, action: int) -> Any:
        return self._observation(), math.nan, False, False, {}

    monkeypatch.setattr(type(task.make()), "step", broken)
    failures = list(play(make_rows(task, 1), policy, KEYS, deterministic=False))
    assert [failure.key for failure in failures] == KEYS
    assert "seed 6: reward nan at timestep 0" in failures[0].reason


def test_deterministic_reaches_the_policy(task, policy) -> None:
    seen = set()

    class Noting(type(policy)):
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            seen.add(deterministic)
            return super().predict(observation, state, episode_start, deterministic)

    list(play(make_rows(task, 2), Noting(), KEYS[:2], deterministic=True))
    assert seen == {True}
