"""Prompts: where a demonstration comes from, and how much of it is shown."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces
from small import SMALL, STATE, state_plan

from gato_gym import Episode, compile_plan
from gato_gym.episodes.minari_datasets import minari_root
from gato_gym.episodes.minari_writing import write_minari
from policies import GatoPolicy
from policies.gato.prompts import demonstration, prompt_from_episode
from policies.model.network import GatoNetwork

NAME = "test/act-v0"


class Acting(gym.Env[Any, Any]):
    """Two spaces."""

    observation_space = STATE
    action_space = spaces.Box(-1, 1, (2,), np.float32)


def recorded(length: int, *, seed: int = 0) -> Episode:
    generator = np.random.default_rng(seed)
    return Episode(
        task="act",
        observations=generator.uniform(-1, 1, (length + 1, 3)).astype(np.float32),
        actions=generator.uniform(-1, 1, (length, 2)).astype(np.float32),
        rewards=np.zeros(length, np.float32),
        terminations=np.zeros(length, bool),
        truncations=np.arange(length) == length - 1,
    )


EPISODES = [recorded(9, seed=1), recorded(12, seed=2)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    write_minari(NAME, EPISODES, env=Acting(), root=folder)
    return folder


@pytest.fixture(scope="module")
def policy() -> GatoPolicy:
    torch.manual_seed(0)
    return GatoPolicy(GatoNetwork(SMALL), state_plan())


def same(episode: Episode, expected: Episode) -> bool:
    return np.array_equal(episode.observations, expected.observations) and np.array_equal(
        episode.actions, expected.actions
    )


def test_an_episode_is_its_own_demonstration() -> None:
    assert demonstration(EPISODES[0]) is EPISODES[0]


def test_a_dataset_by_folder_file_and_object(root: Path) -> None:
    folder = root / NAME
    (file,) = folder.glob("data/*.hdf5")
    with minari_root(root):
        dataset = minari.load_dataset(NAME)
        assert same(demonstration(NAME), EPISODES[0])
        assert same(demonstration(f"{NAME}#1"), EPISODES[1])
    for source in (folder, folder / "data", file, str(folder), dataset):
        assert same(demonstration(source), EPISODES[0])
    assert same(demonstration(f"{folder}#1"), EPISODES[1])


def test_a_part_of_a_dataset_shows_its_own_first_episode(root: Path) -> None:
    with minari_root(root):
        dataset = minari.load_dataset(NAME)
    long = dataset.filter_episodes(lambda each: len(each.rewards) == 12)
    assert same(demonstration(long), EPISODES[1])
    none = dataset.filter_episodes(lambda each: False)
    with pytest.raises(ValueError, match=r"test/act-v0 is a part of a dataset, and has no episode"):
        demonstration(none)


def test_what_is_no_demonstration_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"test/act-v0 has episodes 0 to 1, .* to be 2"):
        demonstration(f"{root / NAME}#2")
    with pytest.raises(ValueError, match="prompt is a list: expected"):
        demonstration([1])
    with pytest.raises(ValueError, match="is no Minari dataset"):
        demonstration(tmp_path)
    with pytest.raises(FileNotFoundError, match="no Minari dataset 'gone/away-v0'"):
        demonstration("gone/away-v0")


def test_a_policy_is_prompted_from_a_dataset(policy: GatoPolicy, root: Path) -> None:
    observation = np.array([0.1, -0.2, 0.3], np.float32)
    by_name = policy.with_prompt(root / NAME)
    by_episode = policy.with_prompt(EPISODES[0])
    other = policy.with_prompt(EPISODES[1])
    assert by_name.network is policy.network
    keys = []
    for view in (by_name, by_episode, other):
        _, state = view.predict(observation)
        assert state.cache.pinned == view.prompt.steps.vectors.shape[0]
        keys.append(state.cache.keys[-1, 0, :, :, state.cache.pinned].clone())
    assert torch.equal(keys[0], keys[1])
    assert not torch.equal(keys[0], keys[2])


def test_an_episode_start_leaves_the_prompt_as_it_was(policy: GatoPolicy) -> None:
    view = policy.with_prompt(EPISODES[0])
    observation = np.array([[0.1, -0.2, 0.3]], np.float32)
    _, state = view.predict(observation)
    pinned = state.cache.pinned
    before = state.cache.keys[..., :pinned].clone()
    for step in range(30):
        _, state = view.predict(observation, state, np.array([step % 3 == 0]))
    assert torch.equal(state.cache.keys[..., :pinned], before)
    assert before.abs().sum() > 0


def test_one_longer_than_the_region_states_both_lengths() -> None:
    long = recorded(20)
    with pytest.raises(ValueError, match=r"20 timesteps, 20 tokens, .* 16 timesteps, 16 tokens"):
        prompt_from_episode(state_plan(), long, capacity=16)
    with pytest.raises(ValueError, match=r"17 timesteps, 17 tokens, .* 16 timesteps"):
        prompt_from_episode(state_plan(), recorded(17), capacity=16)
    with pytest.raises(ValueError, match="cut is 'middle': expected 'end', 'start', 'select'"):
        prompt_from_episode(state_plan(), long, capacity=16, cut="middle")
    end = prompt_from_episode(state_plan(), long, capacity=16, cut="end")
    start = prompt_from_episode(state_plan(), long, capacity=16, cut="start")
    whole = state_plan().encode_batch(long.observations).vectors
    assert np.array_equal(end.steps.vectors, whole[4:20])
    assert np.array_equal(start.steps.vectors, whole[:16])


def test_selected_steps_cover_a_demonstration_better_than_its_end_or_start() -> None:
    """A walk that rests twice: its two ways between the three places are what there is to see."""
    rests = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 1]], np.float32)
    ways = np.linspace(rests[:-1], rests[1:], 6, axis=1)
    walk = np.concatenate([np.repeat(rests[:1], 12, 0), *ways, np.repeat(rests[2:], 12, 0)])
    length = len(walk)
    long = dataclasses.replace(
        recorded(length), observations=np.concatenate([walk, walk[-1:]]).astype(np.float32)
    )
    spread = walk.std(axis=0)

    def uncovered(cut: str) -> float:
        """Distance of the step that is farthest from the nearest shown, in deviations."""
        shown = prompt_from_episode(state_plan(), long, capacity=10, cut=cut).steps.vectors
        shown = shown.reshape(10, -1)[:, :3]
        apart = np.linalg.norm((walk[:, None] - shown[None]) / spread, axis=2)
        return float(apart.min(axis=1).max())

    assert uncovered("select") < 0.5 * min(uncovered("end"), uncovered("start"))
    steps = prompt_from_episode(state_plan(), long, capacity=10, cut="select").steps
    whole = state_plan().encode_batch(walk.astype(np.float32)).vectors
    places = [int(np.flatnonzero((whole == one).all(axis=(1, 2)))[-1]) for one in steps.vectors]
    assert places == sorted(places)
    assert places[-1] == length - 1, "the last step, where the task is done, is kept"
    short = prompt_from_episode(state_plan(), recorded(9), capacity=16, cut="select")
    assert np.array_equal(
        short.steps.vectors, state_plan().encode_batch(recorded(9).observations[:9]).vectors
    )


def test_with_prompt_refuses_a_long_one_unless_it_is_cut(policy: GatoPolicy) -> None:
    with pytest.raises(ValueError, match="20 timesteps"):
        policy.with_prompt(recorded(20))
    assert policy.with_prompt(recorded(20), cut="start").prompt is not None


@pytest.mark.parametrize(
    ("observations", "actions", "said"),
    [
        (np.zeros((5, 4)), np.zeros((4, 2)), r"observation is of shape \(4, 4\): expected \(3,\)"),
        ({"a": np.zeros((5, 3))}, np.zeros((4, 2)), r"observation is a dict of 1: expected \(3,\)"),
        (["left"] * 5, np.zeros((4, 2)), r"observation is a list of 4: expected \(3,\)"),
        (np.zeros((5, 3)), np.zeros(4, np.int64), r"action is of shape \(4,\): expected \(2,\)"),
        (np.zeros((5, 3)), np.zeros((3, 2)), r"action has 3 rows: expected 4"),
    ],
)
def test_a_prompt_of_another_environment_says_what_was_got_and_expected(
    policy: GatoPolicy, observations: Any, actions: Any, said: str
) -> None:
    other = dataclasses.replace(
        recorded(4), task="Other-v0", observations=observations, actions=actions
    )
    spaces_of = r".*observations of Box\(-1.0, 1.0, \(3,\), .* actions of Box\(-1.0, 1.0, \(2,\)"
    with pytest.raises(ValueError, match="'Other-v0' that does not fit .*" + said + spaces_of):
        policy.with_prompt(other)


def test_fractions_are_no_choices() -> None:
    plan = compile_plan(STATE, spaces.MultiDiscrete([3, 3]))
    with pytest.raises(ValueError, match=r"action has 0\.5: expected whole numbers, of MultiDisc"):
        prompt_from_episode(
            plan, dataclasses.replace(recorded(4), actions=np.full((4, 2), 0.5)), capacity=16
        )
