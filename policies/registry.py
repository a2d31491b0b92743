"""Policies by name.

* :func:`make_policy` -- ``random``, ``expert``, a checkpoint, or your own function.
* :func:`is_factory` -- whether a name has the form ``module:factory``.
* :func:`find_factory` -- the function.
* :func:`source_of` -- the file that defines it.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from policies.base import Policy, spaces_of

Factory = Callable[[Any], Any]
"""Called with an environment, or a vector environment; returns an object with
Stable-Baselines3's ``predict``."""

_FORM = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


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
        seed: Seed of its actions; a factory's policy has its own.
        device: Device of a network.
        precision: Precision of a network, as in :meth:`policies.gato.policy.GatoPolicy.load`.
        prompt: Prompt of a network: "shipped", "none", or what
            :func:`policies.gato.prompts.demonstration` takes.
        cut: Which part of a longer demonstration is kept, as in
            :meth:`policies.gato.policy.GatoPolicy.load`.

    Raises:
        ValueError: ``expert`` is requested for an environment that is not a task, or a factory does
            not exist or returns no policy.
    """
    if name == "random":
        from policies.random_policy import RandomPolicy

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
        policy: Policy = call_factory(str(name), env)
        return policy
    from policies.gato.policy import GatoPolicy

    return GatoPolicy.load(
        name, env=env, seed=seed, device=device, precision=precision, prompt=prompt, cut=cut
    )


def is_factory(name: str | Path) -> bool:
    """Whether a name has the form ``module:factory`` and is not a folder.

    Example:
        >>> is_factory("my.policies:make"), is_factory("gato-mini"), is_factory("owner/name")
        (True, False, False)
    """
    return bool(_FORM.fullmatch(str(name))) and not Path(name).exists()


def find_factory(name: str) -> Factory:
    """The function that ``module:factory`` names; also finds modules in the working directory.

    Raises:
        ImportError: The module cannot be imported.
        ValueError: The module has no such function.
    """
    module, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        factory: Factory | None = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise ImportError(
            f"the module of policy {name!r} cannot be imported ({error}): expected one that is "
            "installed, or in the folder where the command is given"
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    if not callable(factory):
        raise ValueError(
            f"module {module!r} has no function {attribute!r}: expected MODULE:FUNCTION, a "
            "function that takes an environment and returns a policy"
        )
    return factory


def source_of(factory: Factory) -> Path | None:
    """The file that defines a factory; None for compiled ones."""
    try:
        return Path(inspect.getfile(factory))
    except TypeError:
        return None


def call_factory(name: str, env: Any) -> Any:
    """The policy that a factory makes for an environment.

    Raises:
        ImportError, ValueError: As :func:`find_factory`, or the policy has no ``predict``.
    """
    policy = find_factory(name)(env)
    if not callable(getattr(policy, "predict", None)):
        raise ValueError(
            f"{name} returned a {type(policy).__name__} without predict: expected a policy with "
            "predict(observation, state, episode_start, deterministic)"
        )
    return policy
