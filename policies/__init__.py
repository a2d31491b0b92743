"""Policies: anything that acts, behind Stable-Baselines3's ``predict``.

* :class:`DtPolicy`, :class:`TtPolicy` -- a Decision and a Trajectory Transformer of one task.
* :class:`GatoPolicy` -- one transformer for every environment.
* :class:`JatPolicy` -- the other family, with one embedding an observation; published weights.
* :class:`MultiTaskPolicy` -- one network in environments of several tasks at once.
* :class:`RetrievalPolicy` -- the actions of demonstrations, without a network.
* :func:`make_policy` -- a policy by name: ``random``, ``expert``, ``retrieve``, a shipped
  checkpoint, a folder, a hub id, or your own ``module:factory``.
* :func:`record_episodes` -- a policy's episodes as a Minari dataset.
* :class:`Policy` -- the contract of all of them; :func:`spaces_of` -- the spaces that one acts in.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gato_gym.tasks import load_offered
from policies.base import Policy, spaces_of
from policies.registry import make_policy

if TYPE_CHECKING:
    from policies.collection.record import record_episodes
    from policies.dt.policy import DtPolicy
    from policies.gato.multitask import MultiTaskPolicy
    from policies.gato.policy import GatoPolicy
    from policies.jat.policy import JatPolicy
    from policies.retrieval.policy import RetrievalPolicy
    from policies.tt.policy import TtPolicy

__all__ = [
    "DtPolicy",
    "GatoPolicy",
    "JatPolicy",
    "MultiTaskPolicy",
    "Policy",
    "RetrievalPolicy",
    "TtPolicy",
    "make_policy",
    "record_episodes",
    "spaces_of",
]

_LAZY = {
    "DtPolicy": "policies.dt.policy",
    "GatoPolicy": "policies.gato.policy",
    "JatPolicy": "policies.jat.policy",
    "MultiTaskPolicy": "policies.gato.multitask",
    "RetrievalPolicy": "policies.retrieval.policy",
    "TtPolicy": "policies.tt.policy",
    "record_episodes": "policies.collection.record",
}
"""Modules imported on first use: the experts' processes have no use for torch."""

load_offered(last=False)  # a suite whose experts are policies could not be imported before


def __getattr__(name: str) -> Any:
    """The names that are imported on first use."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
