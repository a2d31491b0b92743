"""What acts in one pair of spaces.

* :class:`Decoder` -- a network, a plan, a prompt, a seed.
* :func:`alike_places` -- action positions that are chosen together.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gato_gym.spaces import Plan
from policies.chance import RowGenerator, begin_episodes
from policies.gato.prompts import retrieved_prompt, write_prompts
from policies.gato.sampling import Sampler
from policies.gato.state import GatoState
from policies.gato.task_specs import task_number
from policies.model.inputs.embedding import TEXT_PLACES, TokenInputs
from policies.model.kv_cache import RingCache
from policies.model.lone_tokens import LoneVectors
from policies.model.network import GatoNetwork
from policies.model.row_blocks import BlockSizes
from policies.retrieval.retriever import Demonstrations

MOST_PREDICTIONS = 256
"""Numbers of rows, and positions, whose indices for the action heads are kept."""


def alike_places(plan: Plan, places: range) -> list[range]:
    """Runs of action positions with the same legal ids."""
    ranges = plan.action_ranges
    runs = itertools.groupby(places, key=lambda place: tuple(ranges[place].tolist()))
    spans = [list(run) for _, run in runs]
    return [range(run[0], run[-1] + 1) for run in spans]


class Decoder:
    """What acts in one pair of spaces.

    Args:
        network: The weights.
        plan: How the spaces become tokens.
        sampler: How action tokens are chosen.
        pinned: A cache row with the encoded prompt, or None.
        seed: Seed of the sampled actions.
        task: Id of the task; without a prompt, its learned embedding says what is played.
        target: Scaled return that an episode is played for, where the network reads returns.
        demonstrations: Their steps share the say, or are shown in place of ``pinned``.

    Attributes:
        owner: Number of the task, which the states of its rows carry.
        body_tokens: Tokens of bodies by their tasks, kept to be used again with other values.
    """

    def __init__(
        self,
        network: GatoNetwork,
        plan: Plan,
        sampler: Sampler,
        pinned: RingCache | None,
        seed: int,
        *,
        task: str | None = None,
        target: float = 0.0,
        demonstrations: Demonstrations | None = None,
    ) -> None:
        self.demonstrations = demonstrations
        self.shows = demonstrations is not None and demonstrations.show
        self.speaks = demonstrations is not None and demonstrations.interpolate
        if self.shows:
            pinned = self._unwritten(network, plan)
        self.network, self.plan, self.sampler, self.pinned = network, plan, sampler, pinned
        self.seed, self.owner, self._layout = seed, task_number(task, plan), _layout(plan)
        self.body_sizes, self.head_sizes = BlockSizes(), BlockSizes()
        self.target = target
        self.body_tokens: dict[tuple[int, ...], TokenInputs] = {}
        self._predictions: dict[tuple[int, range], tuple[Tensor, Tensor]] = {}
        named = network.config.tasks if pinned is None else ()
        self.task_row = named.index(task) if task in named else -1

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.head.weight.device

    @property
    def prompt_slots(self) -> int:
        """Slots of a row that hold the prompt."""
        return 0 if self.pinned is None else self.pinned.pinned

    @property
    def ring(self) -> int:
        """Live slots of a row: the window and the longest chunk.

        None where a timestep is one token and nothing is remembered: it sees itself alone.
        """
        plan = self.plan
        single = plan.num_tokens == 1 and not plan.has_text and plan.options.memory == "none"
        if single and self.pinned is None and (plan.has_parallel_actions or plan.num_actions == 1):
            return 0
        chunk = plan.num_tokens + plan.num_actions + 1 + TEXT_PLACES * plan.has_text
        return chunk + (0 if plan.options.memory == "none" else self.network.config.window)

    @functools.cached_property
    def regresses(self) -> bool:
        """Whether all actions are numbers by regression, which has nothing to draw."""
        regression = self.network.config.continuous_head == "regression"
        return regression and bool(self.plan.action_is_continuous.all())

    @property
    def sees_alone(self) -> bool:
        """Whether tokens see themselves alone, and rows are exact: they need no cache."""
        return not self.ring and self.network.is_exact

    @functools.cached_property
    def lone_vectors(self) -> LoneVectors | None:
        """What chooses actions at once, where they are numbers and the observation is a vector."""
        plan, network = self.plan, self.network
        config, counts = network.config, (len(plan.id_slots), len(plan.grid_slots))
        vector = (*counts, len(plan.image_slots), len(plan.vector_slots)) == (0, 0, 0, 1)
        apart = self.speaks or config.return_conditioned or not plan.has_parallel_actions
        if apart or not (self.regresses and vector and self.sees_alone):
            return None
        return LoneVectors(
            network.backbone.lone_tokens,
            network.embedding,
            network.action_heads,
            size=plan.options.vector_size,
            place=int(plan.vector_places[0]),
            actions=plan.num_actions,
        )

    @functools.cached_property
    def all_runs(self) -> list[range]:
        """Runs of action positions with the same legal ids."""
        return alike_places(self.plan, range(self.plan.num_actions))

    def runs(self, places: range) -> list[range]:
        """Runs of action positions with the same legal ids, among neighbouring positions."""
        cut = [
            range(max(run.start, places.start), min(run.stop, places.stop)) for run in self.all_runs
        ]
        return [run for run in cut if run]

    def predictions(self, count: int, places: range) -> tuple[Tensor, Tensor]:
        """What the action heads read: int64 ``[count * len(places)]`` each, on the device.

        The row of each prediction, and its position; -1 where actions are not chosen side by side.
        """
        if (count, places) not in self._predictions:
            if len(self._predictions) >= MOST_PREDICTIONS:
                self._predictions.clear()
            owners = torch.arange(count).repeat_interleave(len(places))
            numbers = torch.arange(places.start, places.stop).repeat(count)
            if not self.plan.has_parallel_actions:
                numbers = torch.full_like(numbers, -1)
            self._predictions[count, places] = owners.to(self.device), numbers.to(self.device)
        return self._predictions[count, places]

    def acts_like(self, other: Decoder) -> bool:
        """Whether encoded rows of both can be decoded as one batch."""
        if self.network is not other.network or self.sampler != other.sampler:
            return False
        return self._layout == other._layout and self.speaks == other.speaks

    def empty_cache(self, rows: int) -> RingCache:
        """A cache for ``rows`` episodes."""
        return RingCache.empty(
            self.network.config,
            rows=rows,
            ring=self.ring,
            pinned=self.prompt_slots,
            like=self.network.head.weight,
        )

    def new_state(self, rows: int, cache: RingCache | None = None) -> GatoState:
        """The state of ``rows`` episodes that have not begun.

        Args:
            rows: B.
            cache: The cache of these rows, with at least ``ring`` live slots and ``prompt_slots``
                pinned ones; None makes one.
        """
        config, pinned = self.network.config, self.pinned
        cache = self.empty_cache(rows) if cache is None else cache
        if pinned is not None:
            cache.keys[..., : pinned.pinned] = pinned.keys[..., : pinned.pinned]
            cache.values[..., : pinned.pinned] = pinned.values[..., : pinned.pinned]
            cache.positions[:, : pinned.pinned] = pinned.positions[:, : pinned.pinned]
        return GatoState(
            cache=cache,
            next_positions=np.full(rows, config.prompt_tokens, np.int64),
            pending=np.full(rows, -1, np.int64),
            conditions=torch.zeros(
                rows, config.condition_size, device=self.network.head.weight.device
            ),
            texts=np.full(rows, None, np.object_),
            ages=np.zeros(rows, np.int64),
            generators=np.full(rows, RowGenerator(), np.object_),
            owners=np.full(rows, self.owner, np.int64),
            returns=np.full(rows, self.target, np.float64),
        )

    def begin(
        self, state: GatoState, observation: Any, starts: NDArray[np.bool_], *, deterministic: bool
    ) -> NDArray[np.float32]:
        """Restart the rows that begin an episode; the pinned prompt stays.

        Returns:
            float32 ``[B, A]`` in [0, 1), the random numbers of the timestep's action tokens; zeros
            where none is drawn.
        """
        space = self.plan.observation_space
        begun = begin_episodes(
            state.generators, starts, seed=self.seed, space=space, observation=observation
        )
        for row in np.flatnonzero(begun).tolist():
            state.cache.positions[row, state.cache.pinned :] = -1
            state.next_positions[row] = self.network.config.prompt_tokens
            state.pending[row], state.texts[row], state.ages[row] = -1, None, 0
            state.returns[row] = self.target
        if self.shows:
            forgets = self.plan.options.memory == "none"
            self._show(state, observation, begun | forgets)
        uniforms = np.zeros((len(starts), self.plan.num_actions), np.float32)
        if not deterministic and not self.regresses:
            for row, generator in enumerate(state.generators):
                uniforms[row] = generator.under_way.random(self.plan.num_actions, np.float32)
        return uniforms

    def retrieved(self, observation: Any) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """What the demonstrations would do, see :meth:`Retriever.retrieve`; None without a say."""
        if self.demonstrations is None or not self.speaks:
            return None
        ids, weights = self.demonstrations.retriever.retrieve(observation)
        return ids.astype(np.int64), weights

    @staticmethod
    def _unwritten(network: GatoNetwork, plan: Plan) -> RingCache:
        """A cache row with an empty prompt region, for prompts that are written while acting."""
        step, room = plan.num_tokens + plan.num_actions, network.config.prompt_tokens
        if step > room:
            raise ValueError(
                f"a shown step has {step} tokens and the network's prompt region {room}: expected "
                "room for one or more; retrieve without showing (prompt='none')"
            )
        like = network.head.weight
        return RingCache.empty(network.config, rows=1, ring=1, pinned=room, like=like)

    def _show(self, state: GatoState, observation: Any, refreshed: NDArray[np.bool_]) -> None:
        """Give rows the steps nearest to their observation as their prompt."""
        assert self.demonstrations is not None
        rows = np.flatnonzero(refreshed)
        if not len(rows):
            return
        retriever, room = self.demonstrations.retriever, self.network.config.prompt_tokens
        near = retriever.shown(observation)
        prompts = [retrieved_prompt(self.plan, retriever, near[row], room) for row in rows]
        write_prompts(self.network, self.plan, prompts, rows, state.cache, acted=True)


def _layout(plan: Plan) -> tuple[object, ...]:
    """All of a plan that decides how encoded observations are decoded."""
    options = plan.options
    arrays = (
        *(plan.id_slots, plan.vector_slots, plan.grid_slots, plan.image_slots),
        *(plan.id_places, plan.vector_places, plan.grid_places, plan.image_places),
        *(plan.image_intervals, plan.action_ranges, plan.action_is_continuous),
    )
    return (
        *(plan.num_tokens, plan.num_actions, plan.has_text, plan.vocabulary),
        *(options.text, options.text_refresh, options.memory, options.actions),
        *(options.vector_size, plan.image_shape, plan.grid_size),
        *(np.asarray(array).tobytes() for array in arrays),
    )
