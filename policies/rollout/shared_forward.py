"""Rows of several tasks in one forward, where a network plays them.

* :class:`SharedForward` -- the batches of one network, of equal memory a row.
* :func:`shared_by` -- what batches have in common that can act together.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from policies.gato.multitask import MultiTaskPolicy, MultiTaskState


def shared_by(policy: Any) -> Hashable | None:
    """What policies share that can act together; None for one that cannot.

    One that reads rewards acts alone, as its batch hands them on. The memory of a row is part of
    it: attention over more slots, though they are empty, may round a sum differently.
    """
    if not hasattr(policy, "acts_like") or getattr(policy, "observes_rewards", False):
        return None
    return id(policy.network), policy.ring, policy.prompt_slots


class SharedForward:
    """The state of rows of several policies, which may come and go.

    Attributes:
        members: What the rows were arranged by last: an object and a number of rows each.
    """

    def __init__(self) -> None:
        self.members: list[tuple[object, int]] = []
        self._policy: MultiTaskPolicy | None = None
        self._state: MultiTaskState | None = None

    def arrange(self, batches: Sequence[tuple[object, Any, NDArray[np.int64]]]) -> None:
        """Say whose rows act from now on.

        Args:
            batches: A member, its policy, and its rows: numbers of rows that it has here already,
                in their new order, or -1 for rows that start an episode with the next call. All
                policies share what :func:`shared_by` returns.
        """
        from policies.gato.multitask import MultiTaskPolicy

        parts = (
            {} if self._state is None else dict(zip(self._owners(), self._state.parts, strict=True))
        )
        policy = MultiTaskPolicy([each for _, each, _ in batches])
        states = [
            len(rows) if rows[0] < 0 else parts[id(member)].take(rows)
            for member, _, rows in batches
        ]
        self._policy, self._state = policy, policy.join(states)
        self.members = [(member, len(rows)) for member, _, rows in batches]

    def _owners(self) -> list[int]:
        return [id(member) for member, _ in self.members]

    def predict(
        self,
        observations: Sequence[Any],
        seeds: Sequence[Sequence[int | None]],
        starts: Sequence[NDArray[np.bool_]],
        *,
        deterministic: bool,
    ) -> list[Any]:
        """Actions of every member's rows; arguments one for each member."""
        assert self._policy is not None
        if any(seed is not None for batch_seeds in seeds for seed in batch_seeds):
            self._state = self._policy.seed_episodes(seeds, self._state)
        actions, self._state = self._policy.predict(
            observations, self._state, starts, deterministic
        )
        return actions
