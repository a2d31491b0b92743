"""Many games of one kind side by side, as a learner sees them.

* :class:`TrainingGames` -- games played by ALE's own threads.
* :class:`GamesStep` -- what a step of all of them gives.
* :func:`pixel_statistics` -- the mean and the scale of a game's pixels.

Frames are halved, as an expert's network sees them: a quarter of the pixels is three times as many
steps a second on a CPU. For training alone, rewards are their sign and the loss of a life ends the
return that is estimated, though the game continues (Mnih et al., Nature 518, 2015, "Training
details"). The games' own returns are kept beside them, unclipped and over whole games.

Shapes: N games, C frames of a stack.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from torch import Tensor

from gato_gym.images import halved
from gato_gym.tasks.atari import make_ale

Frames = NDArray[np.uint8]

KEPT_RETURNS = 1_000
"""Returns of games that are remembered until they are asked for."""

STATISTICS_STEPS, STATISTICS_EVERY = 500, 5
"""Steps of random actions, and how many lie between the frames that count."""

LEAST_DEVIATION = 0.02
"""What a pixel's standard deviation is taken to be beside what was seen of it."""


@dataclass(frozen=True)
class GamesStep:
    """What a step of all games gives.

    Attributes:
        frames: uint8 ``[N, C, 42, 42]``, what the games show now, the newest frame last.
        rewards: float32 ``[N]``, each the sign of what a step scored, summed over repeats.
        ended: bool ``[N]``, True where a life or the game was lost, or its time is over.
    """

    frames: Frames
    rewards: NDArray[np.float32]
    ended: NDArray[np.bool_]


class TrainingGames:
    """Many games of one kind, which begin anew by themselves.

    Args:
        game: ALE's name, such as ``BankHeist``.
        num_envs: How many.
        threads: ALE's threads; 0 takes as many as there are cores.
        repeat: Steps that an action lasts; it ends with a life.

    Attributes:
        actions: How many actions the game has.
        finished: Returns of the games that ended since the caller last emptied it, the latest of
            them at most :data:`KEPT_RETURNS`.
    """

    def __init__(self, game: str, num_envs: int, *, threads: int = 1, repeat: int = 1) -> None:
        self._ale = make_ale(
            game,
            num_envs,
            threads=threads,
            life_loss_info=True,
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
        self.num_envs, self._repeat = num_envs, repeat
        self.actions = int(self._ale.single_action_space.n)
        self.finished: deque[float] = deque(maxlen=KEPT_RETURNS)
        self._scores = np.zeros(num_envs)
        channels, height, width = self._ale.single_observation_space.shape
        self._frames: Frames = np.zeros((num_envs, channels, height // 2, width // 2), np.uint8)
        self._played: NDArray[np.int64] = np.zeros(num_envs, np.int64)

    def reset(self, seed: int) -> Frames:
        """Start every game; ``seed`` and the numbers after it decide how."""
        seeds = np.arange(seed, seed + self.num_envs) % 2**31
        observations, info = self._ale.reset(seed=seeds)
        self._frames = halved(observations)
        self._played = info["episode_frame_number"].copy()
        self._scores[:] = 0
        return self._frames

    def step(self, actions: NDArray[np.integer]) -> GamesStep:
        """Play one action of every game; ``actions`` is ``[N]``, within ``[0, A)``."""
        played = np.asarray(actions, np.int32)
        rewards = np.zeros(self.num_envs, np.float32)
        ended = np.zeros(self.num_envs, np.bool_)
        for _ in range(self._repeat):
            observations, scored, terminated, truncated, info = self._ale.step(played)
            self._scores += scored
            rewards += np.where(ended, 0, np.sign(scored))
            frame_numbers = info["episode_frame_number"]
            # others that terminated have lost a life, and their game continues
            begun = np.flatnonzero(frame_numbers < self._played)
            self._played = frame_numbers.copy()
            ended |= terminated | truncated
            self.finished.extend(self._scores[begun].tolist())
            self._scores[begun] = 0
            self._frames = np.roll(self._frames, -1, axis=1)
            self._frames[:, -1] = halved(observations[:, -1])
            self._frames[begun] = halved(observations[begun])
        return GamesStep(self._frames, rewards, ended)


def pixel_statistics(games: TrainingGames, seed: int) -> tuple[Tensor, Tensor]:
    """Mean and scale of a game's pixels under random actions, each float32 ``[42, 42]``.

    Args:
        games: They are played, and are to be reset afterwards.
        seed: Decides actions and episodes.
    """
    generator = np.random.default_rng(seed)
    games.reset(seed)
    newest = []
    for step in range(STATISTICS_STEPS):
        shown = games.step(generator.integers(games.actions, size=games.num_envs))
        if step % STATISTICS_EVERY == 0:
            newest.append(shown.frames[:, -1].copy())
    pixels = np.concatenate(newest).astype(np.float32) / 255
    scale = 1 / (pixels.std(0) + LEAST_DEVIATION)
    return torch.from_numpy(pixels.mean(0)), torch.from_numpy(scale)
