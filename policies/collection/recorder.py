"""Playing an expert, under noise if asked, and keeping what is worth learning from.

* :class:`RecordSettings` -- what decides an episode beside its task and number.
* :func:`episode_seed` -- the seed of a task's episode.
* :class:`Recorder` -- plays a task's episodes.

The label is always the expert's own action in the state at hand; noise, or another player, only
decides which states those are, so that a network learns the way back to the expert's path.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from gato_gym.episodes.episode import Episode
from gato_gym.ranges import check_range
from gato_gym.seeds import TRAINING_SEEDS_START
from gato_gym.tasks import Task, get_suite
from policies.base import Policy
from policies.collection.env_faults import Beat, GuardedEnv
from policies.collection.filtering import least_return
from policies.collection.noise import HeldNoise, NavigationNoise, Noise, UniformNoise
from policies.collection.recording import (
    ExpertFailure,
    ExpertRecording,
    LabelledRecording,
    Recording,
)
from policies.experts import make_expert
from policies.random_policy import RandomPolicy
from policies.rollout.outcomes import EpisodeKey
from policies.rollout.vector_rollout import play, play_one

SEED_RANGE = 2**30
POLICIES = ("expert", "random")
DONE = 6
"""BabyAI's action that does nothing: its bot chooses it only where it has lost its way."""


@dataclass(frozen=True)
class RecordSettings:
    """What decides an episode beside its task and number.

    Attributes:
        seed: Seed of the collection; another seed gives other episodes.
        noise: Strength p of the noise, at least 0. Half of BabyAI's episodes execute a random
            action with probability p a step, and so do half of Atari's. Where actions are a Box, an
            episode draws its standard deviation from {0, p/4, p/2, 3p/4, p}, in units of half the
            action's range.
        steps_after_success: Stop recording so many steps after an episode's first success; None
            records to the end.
        keep: Share of the expert's mean return that an episode must reach; 0 keeps every one.
        policy: Whose choices are recorded: "expert", or "random", whose episodes are all kept.
        player: Who plays while the expert says what it would have done in each state: a checkpoint
            or another policy's name. All such episodes are kept. None lets the expert play.
        most_steps: Stop recording an episode after so many steps; None records to the end.
    """

    seed: int = 0
    noise: float = 0.0
    steps_after_success: int | None = None
    keep: float = 0.8
    policy: str = "expert"
    player: str | None = None
    most_steps: int | None = None

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"policy is {self.policy!r}: expected {' or '.join(POLICIES)}")
        if self.policy == "random" and self.noise:
            raise ValueError(f"noise is {self.noise} with the random policy: expected 0")
        check_range(self, "noise", "seed", "steps_after_success", "keep")
        check_range(self, "most_steps", low=1)
        if self.player is not None and (self.noise or self.policy != "expert"):
            raise ValueError(
                f"player is {self.player!r} with noise {self.noise} and policy {self.policy!r}: "
                "expected no noise, and the expert's choices"
            )


def episode_seed(task_id: str, index: int, *, seed: int, purpose: str = "collect") -> int:
    """The seed of a task's episode number ``index``: in [1,000,000, 2**30 + 1,000,000 + index].

    Episodes of one task and one ``seed`` have consecutive seeds, so none repeats.

    Example:
        >>> first, second = (episode_seed("babyai-go-to", i, seed=0) for i in range(2))
        >>> second - first, first >= 1_000_000
        (1, True)
    """
    digest = hashlib.blake2b(f"{purpose}/{task_id}/{seed}".encode(), digest_size=8).digest()
    return TRAINING_SEEDS_START + int.from_bytes(digest, "little") % SEED_RANGE + index


class Recorder:
    """Plays a task's expert, episode by episode.

    Args:
        task: The task.
        settings: What decides an episode.
        beat: Told the seed and the number of each step before it is played.
    """

    def __init__(
        self, task: Task, settings: RecordSettings, *, beat: Beat = lambda seed, step: None
    ) -> None:
        self.task, self.settings, self._beat = task, settings, beat
        self._open()

    def _open(self) -> None:
        self._seats = [self._seat()]
        self._player = self._make_player()

    def _seat(self) -> tuple[GuardedEnv, Policy]:
        """An environment, and the expert that plays or labels in it."""
        env = self.task.make()
        guarded = GuardedEnv(self.task.id, env, self._beat)
        if self.settings.policy == "random":
            return guarded, RandomPolicy(env.observation_space, env.action_space)
        return guarded, make_expert(self.task.id, env)

    @property
    def env(self) -> gym.Env[Any, Any]:
        """The environment; the first of them where several episodes are played at a time."""
        return self._seats[0][0].env

    @property
    def expert(self) -> Policy:
        """Its expert."""
        return self._seats[0][1]

    def _make_player(self) -> Policy | None:
        if self.settings.player is None:
            return None
        from policies.registry import make_policy

        return make_policy(self.settings.player, env=self.env)

    def reopen(self) -> None:
        """Make the environment anew, after a fault; one that cannot even be closed is left."""
        with contextlib.suppress(Exception):
            self.close()
        self._open()

    def close(self) -> None:
        """Close the environments."""
        for guarded, _ in self._seats:
            guarded.env.close()

    def expert_returns(self, episodes: int) -> list[float]:
        """Returns of clean, whole episodes of the expert, of seeds of their own.

        Where the expert fails, the episode counts as it ended.

        Raises:
            EnvironmentFault: The environment raised, or returned NaN.
        """
        seed, purpose = self.settings.seed, "expert return"
        return [
            self._play(episode_seed(self.task.id, index, seed=seed, purpose=purpose))
            for index in range(episodes)
        ]

    def record(self, index: int, expert_return: float | None) -> Episode | str:
        """Episode number ``index``, or why it is not kept.

        Args:
            index: Its number, which with the settings decides it.
            expert_return: The expert's mean return; None keeps every episode.

        Raises:
            EnvironmentFault: The environment raised, or returned NaN; :meth:`reopen` follows.
        """
        if self._player is not None:
            return self.record_labelled([index])[index]
        seed = episode_seed(self.task.id, index, seed=self.settings.seed)
        noise = self._noise(np.random.default_rng([seed, 1]))
        recording = ExpertRecording(self.expert, self.env, noise, **self._ends())
        try:
            self._play(seed, recording)
        except ExpertFailure:
            return "expert failed"
        episode = recording.episode(self.task.id, seed, self._info(recording, index))
        return self._shortcoming(episode, expert_return) or episode

    def record_labelled(self, indices: Sequence[int]) -> dict[int, Episode | str]:
        """Episodes of the player, all at a time, with what the expert would have done; by number.

        An episode ends where the expert gives up, and is not kept where that is its first step.

        Raises:
            EnvironmentFault: An environment raised, or returned NaN; :meth:`reopen` follows.
        """
        assert self._player is not None
        self._seats += [self._seat() for _ in range(len(indices) - len(self._seats))]
        seats, recordings, keys = self._seats[: len(indices)], {}, []
        for index, (guarded, expert) in zip(indices, seats, strict=True):
            seed = episode_seed(self.task.id, index, seed=self.settings.seed)
            keys.append(EpisodeKey(self.task.id, index, seed))
            recordings[index] = LabelledRecording(expert, guarded.env, seed, **self._ends())
        rows = [guarded for guarded, _ in seats]
        for _ in play(
            rows, self._player, keys, deterministic=False, guard=False,
            record=lambda key: recordings[key.index],
        ):  # fmt: skip
            pass
        return {
            key.index: recordings[key.index].episode(
                self.task.id, key.seed, self._info(recordings[key.index], key.index)
            )
            if recordings[key.index].length
            else "expert failed"
            for key in keys
        }

    def _ends(self) -> dict[str, int | None]:
        """Where a recording ends."""
        return {
            "steps_after_success": self.settings.steps_after_success,
            "most_steps": self.settings.most_steps,
            "lost": DONE if get_suite(self.task.suite).navigation else None,
        }

    @staticmethod
    def _info(recording: Recording, index: int) -> dict[str, Any]:
        return {"noise": recording.level, "success": bool(recording.success), "index": index}

    def _shortcoming(self, episode: Episode, expert_return: float | None) -> str | None:
        """Why an episode is not good enough; None where it is.

        An episode whose recording stops after success has a shorter, smaller return than the
        expert's whole episodes: there, success is what is asked for.
        """
        if expert_return is None or not self.settings.keep:
            return None
        if self.settings.steps_after_success is not None and not episode.terminations[-1]:
            return None if episode.info["success"] else "without success"
        least = least_return(expert_return, self.settings.keep)
        return None if episode.total_return >= least else "below the expert"

    def _noise(self, generator: np.random.Generator) -> Noise:
        strength, actions = self.settings.noise, self.env.action_space
        if isinstance(actions, spaces.Box):
            return HeldNoise(strength, actions, generator)
        if get_suite(self.task.suite).navigation:
            return NavigationNoise(strength, generator)
        assert isinstance(actions, spaces.Discrete), "registered tasks have Boxes or choices"
        return UniformNoise(strength, actions, generator)

    def _play(self, seed: int, recording: Recording | None = None) -> float:
        """Play the episode of a seed; its return."""
        record = None if recording is None else (lambda _: recording)
        guarded, expert = self._seats[0]
        return play_one(guarded, expert, seed, deterministic=None, record=record)
