"""Exactly the chosen episodes, each played alone as far as anyone can tell."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from gato_gym.tasks import get_task
from policies import GatoPolicy
from policies.model.config import NetworkConfig
from policies.rollout.env_batch import make_rows
from policies.rollout.outcomes import EpisodeKey, EpisodeResult
from policies.rollout.vector_rollout import Rollout, play

SMALL = NetworkConfig(width=32, layers=1, heads=2, head_size=16, feed_forward=32)
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
    assert sum(env.resets for env in task.envs) == max(len(KEYS), num_envs)


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
    assert "seed 6, timestep 0: the reward is nan" in failures[0].reason


@pytest.mark.parametrize(
    ("asked", "samples", "expected"),
    [(True, True, True), (False, False, False), (None, False, True), (None, True, False)],
)
def test_deterministic_reaches_the_policy(task, policy, asked, samples, expected) -> None:
    seen = set()

    class Noting(type(policy)):
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            seen.add(deterministic)
            return super().predict(observation, state, episode_start, deterministic)

    noting = Noting()
    noting.samples = samples
    list(play(make_rows(task, 2), noting, KEYS[:2], deterministic=asked))
    assert seen == {expected}


def test_rows_of_several_tasks_act_in_one_forward_and_idle_ones_are_dropped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    ids = ("babyai-go-to-obj", "babyai-open-red-door", "babyai-go-to-red-ball")
    with closing(get_task(ids[0]).make()) as env:
        GatoPolicy.create(env, config=SMALL).save(tmp_path / "network")
    first = GatoPolicy.load(tmp_path / "network")
    views = {name: first.with_env(make_rows(get_task(name), 1)) for name in ids}
    rows: list[int] = []
    step = first.network.backbone.step

    def counted(*arguments: Any, **named: Any) -> Any:
        rows.append(len(set(arguments[1].tolist())))
        return step(*arguments, **named)

    monkeypatch.setattr(first.network.backbone, "step", counted)
    rollout = Rollout(deterministic=False)
    keys = {name: [EpisodeKey(name, index, index) for index in range(4)] for name in ids}
    together: dict[EpisodeKey, Any] = {}
    ended: list[Any] = []
    for name in ids:
        ended += rollout.add(make_rows(get_task(name), 3), views[name], keys[name])
    assert rollout.active == 9
    steps = 0
    while rollout.active:
        ended += rollout.step()
        steps += 1
    assert len(rows) == steps  # one action token: one forward a timestep, of all tasks
    assert max(rows) == 9
    assert min(rows) < 9
    assert rollout.batches == [] or all(not table.active for table in rollout.batches)
    together = outcomes(ended)
    assert len(together) == len(ended) == 12
    rows.clear()
    for name in ids:
        alone = play(make_rows(get_task(name), 1), views[name], keys[name], deterministic=False)
        for key, outcome in outcomes(list(alone)).items():
            assert together[key] == outcome
    assert set(rows) == {1}
