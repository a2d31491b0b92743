"""Stacks of frames: each frame kept once, and the stacks as they were."""

from __future__ import annotations

from pathlib import Path

import h5py
import minari
import numpy as np
import pytest
from numpy.typing import NDArray

from gato_gym import Episode, read_minari, write_minari
from gato_gym.episodes import hdf5
from gato_gym.episodes.frames import ObservationList, frames_of, stacks_of
from gato_gym.episodes.minari_datasets import minari_root
from gato_gym.tasks import get_task

pytest.importorskip("ale_py")

NAME = "gato/atari-pong-v0"


def stacks(length: int, seed: int = 0) -> NDArray[np.uint8]:
    """Observations of ``length`` steps, each stack copied out of random frames."""
    frames = np.random.default_rng(seed).integers(0, 256, (length + 4, 84, 84), np.uint8)
    return np.stack([frames[step : step + 4] for step in range(length + 1)])


def episode(observations: NDArray[np.uint8]) -> Episode:
    length = len(observations) - 1
    ends = np.zeros(length, np.bool_)
    ends[-1] = True
    return Episode(
        task="atari-pong",
        observations=observations,
        actions=np.arange(length) % 6,
        rewards=np.zeros(length, np.float32),
        terminations=ends,
        truncations=~ends & False,
    )


def broken(length: int) -> NDArray[np.uint8]:
    """As :func:`stacks`, but one stack repeats the one before it."""
    seen = stacks(length)
    seen[length // 2] = seen[length // 2 - 1]
    return seen


def test_frames_are_those_of_the_stacks() -> None:
    seen = stacks(700)
    frames = frames_of(seen)
    assert frames is not None
    assert frames.shape == (704, 84, 84)
    np.testing.assert_array_equal(stacks_of(frames, 4), seen)
    again = frames_of(stacks_of(frames, 4))
    assert again is not None
    np.testing.assert_array_equal(again, frames)


@pytest.mark.parametrize("step", [1, 2, 255, 256, 257, 600])
def test_one_stack_that_does_not_move_on_is_noticed(step: int) -> None:
    seen = stacks(600)
    seen[step, 0, 0, 0] ^= 1
    assert frames_of(seen) is None


def test_observations_as_they_come() -> None:
    for seen, overlap in ((stacks(20), True), (broken(20), False)):
        kept, buffer = ObservationList(), np.empty((4, 84, 84), np.uint8)
        for observation in seen:
            buffer[:] = observation  # as an environment that writes over what it gave
            kept.append(buffer if overlap else observation)
        assert kept.overlap is overlap
        observations = kept.stacked() if overlap else np.stack(kept.parts())
        np.testing.assert_array_equal(observations, seen)


def test_minari_reads_the_stacks_and_h5py_one_of_them(tmp_path: Path) -> None:
    written = [stacks(30, seed=1), broken(12), stacks(1, seed=2), stacks(50, seed=3)]
    env = get_task("atari-pong").make()
    write_minari(NAME, map(episode, written), env=env, root=tmp_path)
    with minari_root(tmp_path):
        dataset = minari.load_dataset(NAME)
    assert dataset.observation_space == env.observation_space
    assert dataset.total_steps == 93
    for seen, theirs, ours in zip(
        written, dataset.iterate_episodes(), read_minari(NAME, root=tmp_path), strict=True
    ):
        np.testing.assert_array_equal(theirs.observations, seen)
        np.testing.assert_array_equal(ours.observations, seen)
        assert ours.observations.dtype == theirs.observations.dtype == np.uint8
    (path,) = tmp_path.glob("**/*.hdf5")
    with h5py.File(path) as file:
        assert "frames" not in file["episode_1"]
        assert file["episode_3/frames"].shape == (54, 84, 84)
        np.testing.assert_array_equal(file["episode_3/observations"][17], written[3][17])


def test_a_copy_has_its_own_frames(tmp_path: Path) -> None:
    with hdf5.open_file(tmp_path / "a.hdf5", "w") as file:
        for index in range(3):
            hdf5.append_episode(file, index, episode(stacks(9, seed=index)))
    with (
        hdf5.open_file(tmp_path / "a.hdf5", "r") as source,
        hdf5.open_file(tmp_path / "b.hdf5", "w") as file,
    ):
        for new, old in enumerate((2, 0)):
            hdf5.copy_episode(source, old, file, new)
    (tmp_path / "a.hdf5").unlink()
    with h5py.File(tmp_path / "b.hdf5") as file:
        for new, old in enumerate((2, 0)):
            np.testing.assert_array_equal(
                file[f"episode_{new}/observations"][()], stacks(9, seed=old)
            )
    with hdf5.open_file(tmp_path / "b.hdf5", "r") as file:
        np.testing.assert_array_equal(
            hdf5.read_episode(file, 0, task="").observations, stacks(9, seed=2)
        )
