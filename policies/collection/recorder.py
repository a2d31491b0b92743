"""Playing an expert, under noise if asked, and keeping what is worth learning from.

* :class:`RecordSettings` -- what decides an episode beside its task and number.
* :func:`episode_seed` -- the seed of a task's episode.
* :class:`Recorder` -- plays a task's episodes.
* :class:`Recording` -- an episode as it is played.
* :class:`NavigationNoise`, :class:`HeldNoise`, :class:`UniformNoise` -- what is executed instead of
  the expert's choice.

The label is always the expert's own action in the state at hand; noise only decides which states
those are, so that a network learns the way back to the expert's path.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.episodes.episode import Episode
from gato_gym.episodes.frames import ObservationList
from gato_gym.ranges import check_range
from gato_gym.seeds import TRAINING_SEEDS_START
from gato_gym.tasks import Task, get_suite
from policies.base import Policy
from policies.collection.env_faults import Beat, GuardedEnv
from policies.collection.filtering import least_return
from policies.collection.noise import (
    HeldNoise,
    NavigationNoise,
    Noise,
    OtherPlayer,
    UniformNoise,
)
from policies.experts import make_expert
from policies.random_policy import RandomPolicy
from policies.rollout.members import as_action, stack_members, success_in
from policies.rollout.vector_rollout import play_one

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
        self.env: gym.Env[Any, Any] = self.task.make()
        self._guarded = GuardedEnv(self.task.id, self.env, self._beat)
        self.expert: Policy
        if self.settings.policy == "random":
            self.expert = RandomPolicy(self.env.observation_space, self.env.action_space)
        else:
            self.expert = make_expert(self.task.id, self.env)
        self._player = self._make_player()

    def _make_player(self) -> Policy | None:
        if self.settings.player is None:
            return None
        from policies.registry import make_policy

        return make_policy(self.settings.player, env=self.env)

    def reopen(self) -> None:
        """Make the environment anew, after a fault; one that cannot even be closed is left."""
        with contextlib.suppress(Exception):
            self.env.close()
        self._open()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

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
        seed = episode_seed(self.task.id, index, seed=self.settings.seed)
        noise = self._noise(np.random.default_rng([seed, 1]), seed)
        recording = _ExpertRecording(
            self.expert,
            self.env,
            noise,
            steps_after_success=self.settings.steps_after_success,
            most_steps=self.settings.most_steps,
            lost=DONE if get_suite(self.task.suite).navigation else None,
        )
        try:
            self._play(seed, recording)
        except ExpertFailure:
            if self._player is None or not recording.length:
                return "expert failed"
        success = bool(recording.success)
        episode = recording.episode(
            self.task.id, seed, {"noise": noise.level, "success": success, "index": index}
        )
        return self._shortcoming(episode, expert_return) or episode

    def _shortcoming(self, episode: Episode, expert_return: float | None) -> str | None:
        """Why an episode is not good enough; None where it is.

        An episode whose recording stops after success has a shorter, smaller return than the
        expert's whole episodes: there, success is what is asked for.
        """
        if expert_return is None or not self.settings.keep or self._player is not None:
            return None
        if self.settings.steps_after_success is not None and not episode.terminations[-1]:
            return None if episode.info["success"] else "without success"
        least = least_return(expert_return, self.settings.keep)
        return None if episode.total_return >= least else "below the expert"

    def _noise(self, generator: np.random.Generator, seed: int) -> Noise:
        if self._player is not None:
            return OtherPlayer(self._player, seed)
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
        return play_one(self._guarded, self.expert, seed, deterministic=None, record=record)


class Recording:
    """One episode as it is played: what was seen, chosen and executed.

    Args:
        env: Where; gives the spaces.
        noise: What is executed instead of the policy's choice.
        steps_after_success: Stop so many steps after the first success; None plays to the end.
        most_steps: Stop after so many steps; None plays to the end.

    Attributes:
        success: Whether the environment reported one; None where it reported nothing.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        noise: Noise,
        *,
        steps_after_success: int | None = None,
        most_steps: int | None = None,
    ) -> None:
        self._spaces = env.observation_space, env.action_space
        self._noise, self._spare, self._most = noise, steps_after_success, most_steps
        self._observations = ObservationList()
        self._labels: list[Any] = []
        self._executed: list[Any] = []
        self._distributions: list[NDArray[np.float16] | None] = []
        self._rewards: list[float] = []
        self._terminated = False
        self.success: bool | None = None

    def begin(self, observation: Any) -> None:
        """Take the first observation."""
        self._see(observation)

    @property
    def length(self) -> int:
        """Steps so far."""
        return len(self._rewards)

    def _see(self, observation: Any) -> None:
        self._observations.append(copy.deepcopy(observation))
        self._noise.see(observation)

    def execute(
        self, label: Any, state: Any, row: int, distribution: NDArray[np.float16] | None
    ) -> Any:
        """What to execute where the policy chose ``label``, which is what the episode keeps."""
        action = self._noise.execute(label)
        if action is not label:
            action = as_action(self._spaces[1], action)
        self._labels.append(copy.deepcopy(label))
        self._distributions.append(distribution)
        self._executed.append(copy.deepcopy(action))
        return action

    def step(
        self, observation: Any, reward: float, terminated: bool, info: Mapping[str, Any]
    ) -> bool:
        """Take what a timestep led to; whether the recording stops here."""
        self._see(observation)
        self._rewards.append(reward)
        self._terminated = terminated
        success = success_in(info)
        if success is not None:
            self.success = bool(self.success) or success
        if self.length == self._most:
            return True
        if not self.success or self._spare is None or terminated:
            return False
        self._spare -= 1
        return self._spare < 0

    def episode(self, task_id: str, seed: int, info: dict[str, Any]) -> Episode:
        """The episode; ``info`` holds JSON values."""
        seen = self._observations
        last: NDArray[np.bool_] = np.zeros(len(self._rewards), np.bool_)
        last[-1] = True
        never = np.zeros(len(self._rewards), np.bool_)
        distributions = [each for each in self._distributions if each is not None]
        return Episode(
            task=task_id,
            observations=seen.stacked()
            if seen.overlap
            else stack_members(self._spaces[0], seen.parts()),
            actions=stack_members(self._spaces[1], self._labels),
            rewards=np.asarray(self._rewards, np.float32),
            terminations=last if self._terminated else never,
            truncations=never if self._terminated else last,
            seed=seed,
            info=info,
            executed=stack_members(self._spaces[1], self._executed) if self._noise.level else None,
            distribution=np.stack(distributions) if len(distributions) == len(last) else None,
        )


class _ExpertRecording(Recording):
    """Ends where the expert gives up, or chooses ``lost``; reports to it what is executed."""

    def __init__(
        self,
        expert: Policy,
        env: gym.Env[Any, Any],
        noise: Noise,
        *,
        steps_after_success: int | None,
        most_steps: int | None,
        lost: int | None,
    ) -> None:
        super().__init__(env, noise, steps_after_success=steps_after_success, most_steps=most_steps)
        self._expert, self._lost = expert, lost

    def execute(
        self, label: Any, state: Any, row: int, distribution: NDArray[np.float16] | None
    ) -> Any:
        failure = self._expert.failure_of(state, row)
        if failure is not None or (self._lost is not None and label == self._lost):
            raise ExpertFailure
        action = super().execute(label, state, row, distribution)
        self._expert.execute(state, row, action)
        return action


class ExpertFailure(Exception):
    """The expert has lost its way: nothing is to be learned from this episode."""
