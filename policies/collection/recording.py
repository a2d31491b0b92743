"""An episode as it is played and kept.

* :class:`Recording` -- what was seen, chosen and executed.
* :class:`ExpertRecording` -- of an expert that plays; :class:`LabelledRecording` -- of another
  policy that plays, with the expert's choices as labels.
* :class:`ExpertFailure` -- the expert gave up.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from gato_gym.episodes.episode import Episode
from gato_gym.episodes.frames import ObservationList
from policies.base import Policy
from policies.collection.noise import Noise
from policies.distributions import Categorical
from policies.rollout.members import as_action, stack_members, success_in


class Recording:
    """One episode as it is played: what was seen, chosen and executed.

    Args:
        env: Where; gives the spaces.
        noise: What is executed instead of the policy's choice; None for the choice itself.
        steps_after_success: Stop so many steps after the first success; None plays to the end.
        most_steps: Stop after so many steps; None plays to the end.

    Attributes:
        success: Whether the environment reported one; None where it reported nothing.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        noise: Noise | None,
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
    def level(self) -> float:
        """Strength of the noise; 0 where what is executed is what was chosen."""
        return 0.0 if self._noise is None else self._noise.level

    @property
    def length(self) -> int:
        """Steps so far."""
        return len(self._rewards)

    def _see(self, observation: Any) -> None:
        self._observations.append(copy.deepcopy(observation))

    def execute(
        self, label: Any, state: Any, row: int, distribution: NDArray[np.float16] | None
    ) -> Any:
        """What to execute where the policy chose ``label``, which is what the episode keeps."""
        action = label if self._noise is None else self._noise.execute(label)
        if action is not label:
            action = as_action(self._spaces[1], action)
        self._keep(label, action, distribution)
        return action

    def _keep(self, label: Any, action: Any, distribution: NDArray[np.float16] | None) -> None:
        self._labels.append(copy.deepcopy(label))
        self._distributions.append(distribution)
        self._executed.append(copy.deepcopy(action))

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
            executed=stack_members(self._spaces[1], self._executed) if self.level else None,
            distribution=np.stack(distributions) if len(distributions) == len(last) else None,
        )


class ExpertRecording(Recording):
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


class LabelledRecording(Recording):
    """Another policy plays; the expert's choices are the labels (DAgger, arXiv 1011.0686).

    Ends where the expert gives up, or chooses ``lost``.
    """

    def __init__(
        self,
        expert: Policy,
        env: gym.Env[Any, Any],
        seed: int,
        *,
        steps_after_success: int | None,
        most_steps: int | None,
        lost: int | None,
    ) -> None:
        super().__init__(env, None, steps_after_success=steps_after_success, most_steps=most_steps)
        self._expert, self._lost, self._is_lost = expert, lost, False
        self._state, self._starts = expert.seed_episodes([seed]), np.array([True])
        self._observation: Any = None

    @property
    def level(self) -> float:
        """All that is executed is the other policy's."""
        return 1.0

    def _see(self, observation: Any) -> None:
        super()._see(observation)
        self._observation = observation

    def execute(
        self, label: Any, state: Any, row: int, distribution: NDArray[np.float16] | None
    ) -> Any:
        deterministic = not self._expert.samples
        choice, self._state, chances = self._expert.decide(
            self._observation, self._state, self._starts, deterministic=deterministic
        )
        self._starts = np.array([False])
        failure = self._expert.failure_of(self._state, 0)
        self._is_lost = failure is not None or (self._lost is not None and choice == self._lost)
        if not self._is_lost:
            if not (deterministic or isinstance(chances, Categorical)):
                chances = None  # a sample is not the mean, which an episode has as its label
            kept = None if chances is None else chances.recorded_row(None)
            self._keep(as_action(self._spaces[1], choice), label, kept)
            self._expert.execute(self._state, 0, label)
        return label

    def step(
        self, observation: Any, reward: float, terminated: bool, info: Mapping[str, Any]
    ) -> bool:
        return self._is_lost or super().step(observation, reward, terminated, info)


class ExpertFailure(Exception):
    """The expert has lost its way: nothing is to be learned from this episode."""
