"""Policies: anything that acts, behind Stable-Baselines3's ``predict``.

* :class:`GatoPolicy` -- one transformer for every environment.
* :func:`make_policy` -- a policy by name: ``random``, ``expert``, a shipped checkpoint, a folder,
  a hub id, a factory of one's own.
* :class:`Policy` -- the contract.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.base import Policy

if TYPE_CHECKING:
    from policies.gato.policy import GatoPolicy

__all__ = ["GatoPolicy", "Policy", "make_policy"]


def make_policy(
    name: str | Path,
    *,
    env: Any,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    prompt: str = "shipped",
    cut: str | None = None,
) -> Policy:
    """A policy by name, for an environment.

    Args:
        name: ``random``, ``expert``, the name of a shipped checkpoint, a checkpoint's folder, a
            hub id, or ``module:factory``, a function that takes ``env`` and returns anything with
            Stable-Baselines3's ``predict``.
        env: The environment, vector environment or SB3 VecEnv that it plays in.
        seed: Of its choices; a factory's policy has its own.
        device: Of a network.
        precision: Of a network, as in :meth:`policies.gato.policy.GatoPolicy.load`.
        prompt: Of a network: "shipped", "none", or what :func:`policies.gato.prompts.demonstration`
            takes.
        cut: Which part of a demonstration that is too long is kept, as in
            :meth:`policies.gato.policy.GatoPolicy.load`.

    Raises:
        ValueError: The expert of an environment that is not one of the tasks was asked for; or a
            factory is none, or returns no policy.
    """
    from policies.gato.task_specs import spaces_of
    from policies.registry import call_factory, is_factory

    if name == "random":
        from policies.experts import RandomPolicy

        return RandomPolicy(*spaces_of(env), seed=seed)
    if name == "expert":
        from gato_gym.tasks import task_id_of
        from policies.experts import make_expert

        task = task_id_of(env)
        if task is None:
            raise ValueError(
                "policy 'expert' needs an environment of a task: "
                "make it with gym.make('Gato/<task>')"
            )
        return make_expert(task, env)
    if is_factory(name):
        made: Policy = call_factory(str(name), env)
        return made
    from policies.gato.policy import GatoPolicy

    return GatoPolicy.load(
        name, env=env, seed=seed, device=device, precision=precision, prompt=prompt, cut=cut
    )


def __getattr__(name: str) -> Any:
    """:class:`GatoPolicy`, whose torch the experts' processes have no use for."""
    if name == "GatoPolicy":
        from policies.gato.policy import GatoPolicy

        return GatoPolicy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
