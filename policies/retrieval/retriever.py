"""Demonstrations for a network: what they would do, how sure that is, and what to show of them.

* :class:`Retriever` -- the nearest demonstrated steps, in the tokens of a network's plan.
* :class:`Demonstrations` -- what a policy does with them.
* :func:`speaking` -- the weight of what was retrieved.

Demonstrations may *share the say*. Where the nearest demonstrated step is at distance d, its action
has the weight w of :func:`speaking`, and each action token is chosen, one by one, from
``w * retrieved + (1 - w) * network``:

* a discrete choice, and a number chosen from bins, from the network's probabilities (after
  temperature and ``top_p``) mixed with all probability on the retrieved id. Of a number that is not
  sampled, "mean" and "peak" of :class:`policies.gato.sampling.Sampler` weigh the two; its "mode"
  nearly always is the retrieved bin, as a network spreads its probability over neighbours;
* a number by regression is the mixture's mean, sampled or not: the head gives a mean alone.

They may be *shown*: the nearest steps, with their actions, are the network's prompt, nearest first,
:data:`SHOWN` or as many as its prompt region holds. They are those of an episode's first
observation, and of every observation where the task remembers nothing. ``gato-gym train
--prompt-retrieved`` trains a network with such prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gato_gym.spaces import Plan, TokenizedBatch
from policies.retrieval.policy import RetrievalPolicy, demonstrations_of, steps_of

DECAY = 10.0
"""Lambda of :func:`speaking`."""

SHOWN = 19
"""Steps that are shown, so that they and the query are twenty, as REGENT's (arXiv 2412.04759)."""


def speaking(distances: NDArray[np.float32], spread: float) -> NDArray[np.float32]:
    """The weight of the nearest step's action, ``exp(-lambda d / d95)``, in [0, 1].

    Args:
        distances: float32 ``[B]``, d, to the nearest demonstrated step; infinite for none.
        spread: d95, the 95th percentile of the distances from a demonstrated step to the nearest
            other one. Where it is 0, the weight is 1 at distance 0 and 0 elsewhere.

    Example:
        >>> speaking(np.array([0, 0.1, 1, np.inf], np.float32), 1.0).round(3).tolist()
        [1.0, 0.36800000071525574, 0.0, 0.0]
    """
    if not spread:
        return (distances == 0).astype(np.float32)
    return np.exp(-DECAY * distances / np.float32(spread)).astype(np.float32)


class Retriever:
    """The nearest demonstrated steps, in the tokens of a network's plan.

    Args:
        plan: How the network reads the spaces.
        demonstrations: As :func:`policies.retrieval.policy.demonstrations_of` takes them.

    Attributes:
        policy: Finds the steps.
        actions: int32 ``[N, A]``, ids of the demonstrated actions, by the step's place.
        spread: See :func:`speaking`.

    Raises:
        ValueError: There is no demonstration, or one does not fit the plan's spaces.
        FileNotFoundError: There is no such dataset.

    Example:
        >>> from gymnasium.spaces import Box, Discrete
        >>> from gato_gym import Episode, compile_plan
        >>> never = np.zeros(2, bool)
        >>> places = np.array([[0], [4], [9]], np.float32)
        >>> shown = Episode("line", places, np.array([1, 0]), np.ones(2, np.float32), never, never)
        >>> plan = compile_plan(Box(-9, 9, (1,)), Discrete(2))
        >>> ids, weights = Retriever(plan, shown).retrieve(np.array([[0], [4], [5]], np.float32))
        >>> plan.decode_batch(ids).tolist(), weights.round(2).tolist()
        ([1, 0, 0], [1.0, 1.0, 0.07999999821186066])
    """

    def __init__(self, plan: Plan, demonstrations: Any) -> None:
        spaces = plan.observation_space, plan.action_space
        self._episodes = list(demonstrations_of(demonstrations))
        self._plan = plan
        self.policy = RetrievalPolicy(*spaces, self._episodes, options=plan.options)
        self.actions = plan.encode_actions(self.policy.actions_at(np.arange(self.policy.steps)))
        self.spread = self.policy.spread()

    def __deepcopy__(self, memo: dict[int, Any]) -> Retriever:
        """Itself: nothing in it changes, and an index of faiss cannot be copied."""
        return self

    def retrieve(self, observation: Any) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """What the nearest steps would do.

        Args:
            observation: A batch.

        Returns:
            Their action ids, int32 ``[B, A]``, and their weights, float32 ``[B]``: see
            :func:`speaking`; 0 for an observation whose text was not demonstrated.
        """
        near = self.policy.neighbours(observation, 1)
        apart = [distances[0] if same else np.inf for _, distances, same in near]
        ids = self.actions[[places[0] for places, _, _ in near]]
        return ids, speaking(np.array(apart, np.float32), self.spread)

    def shown(self, observation: Any) -> list[NDArray[np.intp]]:
        """Places of the steps to show for each of a batch of observations, nearest first."""
        return [places for places, _, _ in self.policy.neighbours(observation, SHOWN)]

    @cached_property
    def steps(self) -> TokenizedBatch:
        """The demonstrated steps by their place, as the network's plan encodes them."""
        whole = TokenizedBatch.join([steps_of(self._plan, each) for each in self._episodes])
        order = self.policy.order
        return TokenizedBatch(
            tuple(whole.text[place] for place in order),
            whole.ids[order],
            whole.vectors[order],
            whole.images[order],
            whole.grids[order],
        )


@dataclass(frozen=True)
class Demonstrations:
    """What a policy does with demonstrations.

    Attributes:
        retriever: Has them.
        interpolate: Whether they share the say.
        show: Whether they are shown.
    """

    retriever: Retriever
    interpolate: bool = True
    show: bool = False
