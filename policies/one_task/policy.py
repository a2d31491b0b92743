"""The policy around a network of one task.

* :class:`OneTaskPolicy` -- its spaces, its task, what it knows of returns.
* :class:`OneTaskState` -- what every row remembers.
* :func:`choices_of`, :func:`values_of`, :func:`bins_of` -- actions as numbers and choices.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gato_gym.spaces import Plan, compile_plan
from policies.base import Policy, check_rows, spaces_of
from policies.chance import RowGenerator, begin_episodes, with_seeds
from policies.gato.task_specs import TaskRecord, find_task
from policies.model.network import count_parameters
from policies.model.quantization import choose_device
from policies.one_task.checkpoint import OneTaskCheckpoint, load_checkpoint, save_checkpoint
from policies.returns import ReturnScale


@dataclass
class OneTaskState:
    """What a batch of running episodes remembers. ``predict`` writes into it.

    Attributes:
        lengths: int64 ``[B]``, timesteps so far.
        actions: int64 ``[B, A]``, the last action: its number among the choices of each position.
        rewards: float64 ``[B]``, what was told since then.
        generators: object ``[B]``, each row's :class:`policies.chance.RowGenerator`.
    """

    lengths: NDArray[np.int64]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float64]
    generators: NDArray[np.object_]

    @property
    def rows(self) -> int:
        """B."""
        return len(self.lengths)


class OneTaskPolicy(Policy):
    """A network that acts in the one pair of spaces that it was trained in.

    A row's numbers do not depend on the batch that it is in.

    Args:
        network: The weights.
        plan: How the spaces become numbers.
        task: Id of the task.
        returns: Of its episodes in training.
        seed: Seed of the sampled actions.
        card: The description that a checkpoint came with; :meth:`save` writes it again.
    """

    family: ClassVar[str]
    state_type: ClassVar[type[OneTaskState]] = OneTaskState

    def __init__(
        self,
        network: Any,
        plan: Plan,
        *,
        task: str = "custom",
        returns: ReturnScale | None = None,
        seed: int = 0,
        card: str = "",
    ) -> None:
        super().__init__(plan.observation_space, plan.action_space)
        self.network, self.plan = network.eval().requires_grad_(False), plan
        self.task, self.returns, self.seed, self.card = task, returns or ReturnScale(), seed, card
        self.accepts_nan = plan.options.on_nan == "replace"

    @staticmethod
    @abstractmethod
    def build(sizes: dict[str, Any]) -> nn.Module:
        """A network of some sizes, which are JSON values."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        env: Any = None,
        device: str = "auto",
        precision: str = "auto",
        seed: int = 0,
        **options: Any,
    ) -> Self:
        """Load a checkpoint for an environment.

        Args:
            name: The folder of a checkpoint or of a run, or a hub id.
            env: The environment to act in, a vector environment, or SB3's VecEnv; None takes the
                spaces of training.
            device: "cpu", "cuda", or "auto": a GPU if there is one.
            precision: "float32" or "auto".
            seed: Seed of the sampled actions.
            options: Further arguments of the class.

        Raises:
            policies.gato.tensor_files.CheckpointError: The checkpoint is missing, damaged or of
                another family.
            policies.gato.task_specs.SpaceMismatchError: The environment has other spaces.
            ValueError: There is no such device or precision.
        """
        if precision not in ("auto", "float32"):
            raise ValueError(f"precision is {precision!r}: expected float32, or auto")
        checkpoint = load_checkpoint(name, cls.family, cls.build)
        task, record = find_task({checkpoint.task: checkpoint.record}, env, None)
        spaces = record.read_spaces() if env is None else spaces_of(env)
        return cls(
            checkpoint.network.to(choose_device(device)),
            compile_plan(*spaces, record.options),
            task=task,
            returns=record.returns,
            seed=seed,
            card=checkpoint.card,
            **options,
        )

    def save(self, folder: str | Path) -> None:
        """Write a checkpoint folder that :meth:`load` reads.

        Raises:
            FileExistsError: ``folder`` holds what is no checkpoint's.
        """
        record = TaskRecord.of(self.plan, prompted=False, returns=self.returns)
        checkpoint = OneTaskCheckpoint(self.network, self.task, record, self.card)
        save_checkpoint(Path(folder), self.family, self.network.config.to_json(), checkpoint)

    def __repr__(self) -> str:
        """Its network's size and place, its task and its spaces."""
        return (
            f"{type(self).__name__}({count_parameters(self.network):,} parameters on "
            f"{self.device}, task={self.task!r}, observation_space={self.observation_space}, "
            f"action_space={self.action_space})"
        )

    def seed_episodes(
        self, seeds: Sequence[int | None], state: OneTaskState | None = None
    ) -> OneTaskState:
        """As :meth:`policies.base.Policy.seed_episodes`."""
        state = self.new_state(len(seeds)) if state is None else state
        state.generators[:] = with_seeds(state.generators.tolist(), seeds)
        return state

    def observe_reward(self, state: OneTaskState, row: int, reward: float) -> None:
        """As :meth:`policies.base.Policy.observe_reward`."""
        state.rewards[row] = reward

    @abstractmethod
    def new_state(self, rows: int) -> OneTaskState:
        """The state of rows that start afresh."""

    def _fields(
        self, rows: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.object_]]:
        """The fields of :class:`OneTaskState` for rows that start afresh."""
        return (
            np.zeros(rows, np.int64),
            np.zeros((rows, self.plan.num_actions), np.int64),
            np.zeros(rows),
            np.full(rows, RowGenerator(), np.object_),
        )

    @abstractmethod
    def _choose(
        self, state: Any, encoded: Any, generators: Sequence[np.random.Generator | None]
    ) -> NDArray[np.int64]:
        """The actions of the rows of ``encoded``, int64 ``[B, A]`` as in the state.

        Without a generator a row's is the likeliest. The state takes up the observations.
        """

    @torch.inference_mode()
    def _predict_batch(
        self,
        observation: Any,
        state: OneTaskState | None,
        starts: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[Any, OneTaskState]:
        state = self.new_state(len(starts)) if state is None else state
        check_rows(state, self.state_type, len(starts))
        if state.actions.shape[1] != self.plan.num_actions:
            raise ValueError(
                "state is of another action space: pass the state that predict returned for the "
                "same environments"
            )
        with self.span("tokenising"):
            encoded = self.plan.encode_batch(observation)
        begun = begin_episodes(
            state.generators,
            starts,
            seed=self.seed,
            space=self.observation_space,
            observation=observation,
        )
        state.lengths[begun], state.rewards[begun] = 0, 0.0
        drawn = [None if deterministic else each.under_way for each in state.generators]
        state.actions[:] = self._choose(state, encoded, drawn)
        state.lengths += 1
        state.rewards[:] = 0
        return self.plan.decode_batch(self.plan.action_ranges[:, 0] + state.actions), state


def choices_of(plan: Plan) -> tuple[int, ...]:
    """Choices of each position of a plan's actions; 0 for a number."""
    sizes = (plan.action_ranges[:, 1] - plan.action_ranges[:, 0]).tolist()
    pairs = zip(sizes, plan.action_is_continuous.tolist(), strict=True)
    return tuple(0 if continuous else int(size) for size, continuous in pairs)


def values_of(plan: Plan, chosen: NDArray[np.integer]) -> NDArray[np.float32]:
    """Actions ``[..., A]`` counted from 0, as numbers: a bin's centre in [-1, 1], or the choice.

    Returns:
        float32 ``[..., A]``.
    """
    ranges = np.asarray(plan.action_ranges)
    counts = ranges[:, 1] - ranges[:, 0]
    centres = (chosen + 0.5) * (2.0 / counts) - 1.0
    return np.where(plan.action_is_continuous, centres, chosen).astype(np.float32)


def bins_of(plan: Plan, values: NDArray[np.floating]) -> NDArray[np.int64]:
    """The actions of numbers, as :func:`values_of` has them; others are clipped to the nearest."""
    ranges = np.asarray(plan.action_ranges)
    counts = ranges[:, 1] - ranges[:, 0]
    bins = np.floor((np.clip(values, -1, 1) + 1) * (counts / 2))
    chosen = np.where(plan.action_is_continuous, bins, np.rint(values))
    return np.clip(chosen, 0, counts - 1).astype(np.int64)
