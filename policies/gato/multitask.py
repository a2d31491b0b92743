"""One network in several environments at once, whatever their tasks and spaces.

* :class:`MultiTaskPolicy` -- a ``predict`` whose rows belong to different policies.
* :class:`MultiTaskState` -- its state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.base import batch_of_one, row_of
from policies.chance import with_seeds
from policies.gato.decoding import act, row_spans
from policies.gato.policy import GatoPolicy
from policies.gato.state import GatoState, check_state
from policies.model.kv_cache import RingCache
from policies.observations import rows_of

__all__ = ["MultiTaskPolicy", "MultiTaskState"]


@dataclass
class MultiTaskState:
    """The state of several policies' rows; opaque to the caller.

    Attributes:
        whole: The state of all rows, one policy's after another's.
        sizes: Rows of each policy.
    """

    whole: GatoState
    sizes: list[int]

    @property
    def parts(self) -> list[GatoState]:
        """Each policy's part, a view."""
        return [self.whole.part(rows) for rows in row_spans(self.sizes)]


class MultiTaskPolicy:
    """Several views of one network that act together, in one forward for each action token.

    Args:
        policies: Views that share their network, from :meth:`GatoPolicy.with_env` or
            :meth:`GatoPolicy.with_prompt`.

    Raises:
        ValueError: There is no policy, or their networks differ.

    Example:
        >>> import gymnasium as gym
        >>> import gato_gym
        >>> ids = ("Gato/babyai-go-to-local", "Gato/metaworld-reach")
        >>> envs = [gym.make(name) for name in ids]
        >>> first = GatoPolicy.load("gato-mini", env=envs[0])
        >>> policy = MultiTaskPolicy([first, first.with_env(envs[1])])
        >>> observations = [env.reset(seed=0)[0] for env in envs]
        >>> actions, state = policy.predict(observations, deterministic=True)
        >>> [env.action_space.contains(a) for env, a in zip(envs, actions, strict=True)]
        [True, True]
    """

    def __init__(self, policies: Sequence[GatoPolicy]) -> None:
        self.policies = list(policies)
        if not self.policies:
            raise ValueError("there are no policies: expected one or more")
        self.network = self.policies[0].network
        for index, policy in enumerate(self.policies):
            if policy.network is not self.network:
                raise ValueError(
                    f"policy {index} has a network of its own: expected views of one network; "
                    "make them with with_env or with_prompt of the first"
                )

    def __repr__(self) -> str:
        """Its policies, in order."""
        return f"{type(self).__name__}({self.policies!r})"

    def predict(
        self,
        observations: Sequence[Any],
        state: MultiTaskState | None = None,
        episode_start: Sequence[NDArray[np.bool_] | None] | None = None,
        deterministic: bool = False,
    ) -> tuple[list[Any], MultiTaskState]:
        """Choose actions for every policy's environments.

        Args:
            observations: An observation or a batch for each policy.
            state: What the previous call returned; None starts every row afresh.
            episode_start: For each policy, as in :meth:`policies.base.Policy.predict`.
            deterministic: As in :meth:`policies.base.Policy.predict`.

        Returns:
            An action or a batch for each policy, and the next state.

        Raises:
            ValueError: The numbers of observations, policies or rows differ.
        """
        if len(observations) != len(self.policies):
            raise ValueError(
                f"{len(observations)} observations for {len(self.policies)} policies: "
                "pass one, or one batch, for each"
            )
        spaces = [policy.observation_space for policy in self.policies]
        given = [rows_of(*pair) for pair in zip(spaces, observations, strict=True)]
        single = [rows is None for rows in given]
        batches = [
            batch_of_one(space, observation) if one else observation
            for space, observation, one in zip(spaces, observations, single, strict=True)
        ]
        sizes = [rows or 1 for rows in given]
        starts = self._starts(sizes, episode_start, fresh=state is None)
        state = self._new_state(sizes) if state is None else state
        for part, size, policy in zip(state.parts, sizes, self.policies, strict=True):
            check_state(part, size, policy.decoder.owner)
        actions = act(
            [policy.decoder for policy in self.policies],
            batches,
            starts,
            state.whole,
            deterministic=deterministic,
            span=self.policies[0].span,
        )
        return [
            row_of(policy.action_space, action) if one else action
            for policy, action, one in zip(self.policies, actions, single, strict=True)
        ], state

    def seed_episodes(
        self, seeds: Sequence[Sequence[int | None]], state: MultiTaskState | None = None
    ) -> MultiTaskState:
        """Seed the episodes that begin with the next call of :meth:`predict`.

        Args:
            seeds: For each policy, as in :meth:`policies.base.Policy.seed_episodes`.
            state: What ``predict`` returned last; None before its first call.

        Returns:
            The state for the next call.

        Raises:
            ValueError: The numbers of seeds, policies or rows differ.
        """
        if len(seeds) != len(self.policies):
            raise ValueError(
                f"seeds of {len(seeds)} policies for {len(self.policies)}: pass one list for each"
            )
        state = self._new_state([len(each) for each in seeds]) if state is None else state
        for part, part_seeds in zip(state.parts, seeds, strict=True):
            part.generators[:] = with_seeds(part.generators.tolist(), part_seeds)
        return state

    def join(self, states: Sequence[GatoState | int]) -> MultiTaskState:
        """A state of rows from other batches, and of new rows.

        Args:
            states: For each policy, the state of its rows from another batch, or the number of its
                rows, all of which start an episode with the next call. All policies need the same
                memory a row.

        Returns:
            A copy.

        Raises:
            ValueError: The rows of two policies need different memory.

        Example:
            >>> import gymnasium as gym
            >>> import gato_gym
            >>> policy = GatoPolicy.load("gato-mini", env=gym.make("Gato/babyai-open"))
            >>> state = MultiTaskPolicy([policy, policy]).join([3, 1])
            >>> some = state.parts[0].take(np.array([2, 0]))  # rows 2 and 0 of the first
            >>> MultiTaskPolicy([policy, policy, policy]).join([some, state.parts[1], 4]).sizes
            [2, 1, 4]
        """
        joined = [
            policy.new_state(state) if isinstance(state, int) else state
            for policy, state in zip(self.policies, states, strict=True)
        ]
        return MultiTaskState(GatoState.join(joined), [state.rows for state in joined])

    def _starts(
        self,
        sizes: Sequence[int],
        given: Sequence[NDArray[np.bool_] | None] | None,
        *,
        fresh: bool,
    ) -> list[NDArray[np.bool_]]:
        all_starts = []
        for index, size in enumerate(sizes):
            start = None if given is None else given[index]
            starts = np.full(size, fresh) if start is None else np.asarray(start, np.bool_).ravel()
            if len(starts) != size:
                raise ValueError(
                    f"episode_start of policy {index} has {len(starts)} entries for {size} "
                    "observations: pass one bool a row"
                )
            all_starts.append(starts | fresh)
        return all_starts

    def _new_state(self, sizes: Sequence[int]) -> MultiTaskState:
        ring = max(policy.ring for policy in self.policies)
        pinned = max(policy.prompt_slots for policy in self.policies)
        cache = RingCache.empty(
            self.network.config,
            rows=sum(sizes),
            ring=ring,
            pinned=pinned,
            like=self.network.head.weight,
        )
        states = [
            policy.new_state(rows.stop - rows.start, cache.part(rows))
            for policy, rows in zip(self.policies, row_spans(sizes), strict=True)
        ]
        return MultiTaskState(GatoState.join(states, cache), list(sizes))
