"""Training in Atari: ALE's vector environment as Stable-Baselines3 wants it, and a small network.

* :class:`AtariVecEnv` -- many environments of a game, played by ALE's own threads.
* :class:`SmallCNN` -- the features of a stack of frames.
* :func:`look_around` -- the mean and the deviation of a game's pixels.
* :func:`image_layers` -- the layers of a policy that has them.

Frames are halved, as an expert's network sees them: a quarter of the pixels is three times as many
steps a second on a CPU. For training alone, rewards are their sign and the loss of a life ends the
return that is estimated, though the game goes on (Mnih et al., Nature 518, 2015, "Training
details"). Evaluations and the benchmark play whole games for their own rewards.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn
from torch import Tensor, nn

from gato_gym.tasks.atari import make_ale
from policies.experts.cnn import PIXEL_LIMIT, halved


class AtariVecEnv(VecEnv):
    """Environments of one game, for training.

    Args:
        game: ALE's name, such as ``BankHeist``.
        num_envs: How many.
        threads: ALE's threads; 0 takes as many as there are cores.
        repeat: Steps that an action lasts; their rewards are added, up to an end.
    """

    def __init__(self, game: str, num_envs: int, *, threads: int = 1, repeat: int = 1) -> None:
        self._ale = make_ale(
            game,
            num_envs,
            threads=threads,
            reward_clipping=True,
            life_loss_info=True,
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
        self._actions: NDArray[np.int32] = np.zeros(num_envs, np.int32)
        self._frames: NDArray[np.int64] = np.zeros(num_envs, np.int64)
        self._seed: NDArray[np.int64] | None = None
        self._repeat = repeat
        self.render_mode = None
        channels, height, width = self._ale.single_observation_space.shape
        seen = spaces.Box(0, 255, (channels, height // 2, width // 2), np.uint8)
        super().__init__(num_envs, seen, self._ale.single_action_space)

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Seeds of the next reset."""
        if seed is None:
            self._seed = None
            return [None] * self.num_envs
        self._seed = np.arange(seed, seed + self.num_envs) % 2**31
        return [int(one) for one in self._seed]

    def reset(self) -> NDArray[np.uint8]:
        """Start every game."""
        observations, info = self._ale.reset(seed=self._seed)
        self._frames, self._seed = info["episode_frame_number"].copy(), None
        return halved(observations)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self._actions = np.asarray(actions, np.int32)

    def step_wait(self) -> VecEnvStepReturn:
        """Four frames of every game, or as often as actions last; an ended game begins anew."""
        rewards = np.zeros(self.num_envs, np.float32)
        ended = np.zeros(self.num_envs, np.bool_)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for _ in range(self._repeat):
            observations, given, terminated, truncated, info = self._ale.step(self._actions)
            rewards += np.where(ended, 0, given)
            frames = info["episode_frame_number"].copy()
            begun = frames < self._frames  # others have lost a life, and their game goes on
            self._frames = frames
            for row in np.flatnonzero((terminated | truncated) & ~ended):
                infos[row]["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
                shown = info["final_obs"] if begun[row] else observations
                infos[row]["terminal_observation"] = halved(shown[row])
                ended[row] = True
        return halved(observations), rewards, ended, infos

    def close(self) -> None:
        """Nothing is held beside memory."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of this object, for each environment."""
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """There are no environments in Python to set it on."""
        raise AttributeError(f"{attr_name} cannot be set: the games are played by ALE's threads")

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """There are no environments in Python to call it on."""
        raise AttributeError(f"{method_name} cannot be called: ALE's threads play the games")

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Any = None) -> list[bool]:
        """None is."""
        return [False] * len(list(self._get_indices(indices)))


class SmallCNN(BaseFeaturesExtractor):
    """Two convolutions and a dense layer: 120,000 weights, as an expert has to be small.

    Frames are laid with their channels last in memory, where its weights should lie so too: a
    gradient step takes a CPU 0.55 to 0.65 of the time.

    Args:
        observation_space: Box ``(4, 42, 42)``.
        features_dim: Units of the dense layer.

    Attributes:
        mean, scale: float ``[42, 42]``, of pixels within [0, 1]. What moves is seldom in one place,
            so it stands out however faint it is, and what stays is nothing.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, observation_space: spaces.Box, features_dim: int = 128) -> None:
        super().__init__(observation_space, features_dim)
        channels, *size = observation_space.shape
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 16, 6, 3), nn.ReLU(),
            nn.Conv2d(16, 32, 4, 2), nn.ReLU(),
            nn.Flatten(), nn.Linear(800, features_dim), nn.ReLU(),
        )  # fmt: skip

    def see(self, mean: Tensor, scale: Tensor) -> None:
        """Take over a game's mean and scale."""
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def forward(self, frames: Tensor) -> Tensor:
        """float ``[B, 4, 42, 42]`` within [0, 255] to ``[B, features_dim]``."""
        limit = float(PIXEL_LIMIT)
        # in two passes over memory: bytes, mean and scale one by one would take six
        shift = -self.mean * self.scale
        pixels = torch.addcmul(shift, frames, self.scale / 255).clamp_(-limit, limit)
        features: Tensor = self.layers(pixels.contiguous(memory_format=torch.channels_last))
        return features


LOOK_STEPS, LOOK_EVERY = 500, 5
"""Steps of random actions, and how many lie between frames that are looked at."""

LEAST_DEVIATION = 0.02
"""What a pixel's standard deviation is taken to be beside what was seen of it."""


def look_around(games: AtariVecEnv, seed: int) -> tuple[Tensor, Tensor]:
    """Mean and scale of a game's pixels under random actions, for :class:`SmallCNN`.

    Args:
        games: They are played, and reset when they are next.
        seed: Of actions and episodes.
    """
    assert isinstance(games.action_space, spaces.Discrete)
    generator, actions = np.random.default_rng(seed), games.action_space.n
    games.seed(seed)
    games.reset()
    frames = []
    for step in range(LOOK_STEPS):
        games.step_async(generator.integers(actions, size=games.num_envs))
        observations = games.step_wait()[0]
        if step % LOOK_EVERY == 0:
            frames.append(np.asarray(observations)[:, -1])
    seen = np.concatenate(frames).astype(np.float32) / 255
    scale = 1 / (seen.std(0) + LEAST_DEVIATION)
    return torch.from_numpy(seen.mean(0)), torch.from_numpy(scale)


def image_layers(policy: Any) -> tuple[list[nn.Conv2d], list[nn.Linear]]:
    """Convolutions and dense layers of a policy with :class:`SmallCNN`, the logits' layer last."""
    layers = list(policy.features_extractor.layers)
    dense = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return [layer for layer in layers if isinstance(layer, nn.Conv2d)], [*dense, policy.action_net]
