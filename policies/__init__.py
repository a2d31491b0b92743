"""Policies: anything that acts, behind Stable-Baselines3's ``predict``.

* :class:`GatoPolicy` -- one transformer for every environment.
* :func:`make_policy` -- a policy by name: ``random``, ``expert``, a shipped checkpoint, a folder,
  a hub id, a factory of one's own.
* :class:`Policy` -- the contract.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.base import Policy
from policies.registry import make_policy

if TYPE_CHECKING:
    from policies.gato.policy import GatoPolicy

__all__ = ["GatoPolicy", "Policy", "make_policy"]


def __getattr__(name: str) -> Any:
    """:class:`GatoPolicy`, whose torch the experts' processes have no use for."""
    if name == "GatoPolicy":
        from policies.gato.policy import GatoPolicy

        return GatoPolicy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
