"""Gato's networks in Stable-Baselines3's own algorithms: imitate first, then reinforce.

* :class:`GatoActorCriticPolicy` -- a checkpoint as a policy class.
* :func:`history_env` -- an environment as it plays it.
* :class:`Imitation` -- a callback that adds the loss on given episodes to the algorithm's.
* :func:`reinforce` -- a checkpoint, better at one task.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policies.sb3.callbacks import Imitation
    from policies.sb3.history import history_env
    from policies.sb3.policy import GatoActorCriticPolicy
    from policies.sb3.run import reinforce

__all__ = ["GatoActorCriticPolicy", "Imitation", "history_env", "reinforce"]

_LAZY = {
    "GatoActorCriticPolicy": "policies.sb3.policy",
    "Imitation": "policies.sb3.callbacks",
    "history_env": "policies.sb3.history",
    "reinforce": "policies.sb3.run",
}
"""Modules imported on first use: a command's help has no use for torch."""


def __getattr__(name: str) -> Any:
    """The names that are imported on first use."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
