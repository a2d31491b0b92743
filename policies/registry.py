"""Policies by name.

* :class:`PolicySpec` -- what a name stands for.
* :func:`make_policy` -- a policy by name, for an environment.
* :func:`find_factory` -- your own function by ``module:factory``; :func:`source_of` -- the file
  that defines it.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from policies.base import Policy, spaces_of

Factory = Callable[[Any], Any]
"""Called with an environment, or a vector environment; returns an object with
Stable-Baselines3's ``predict``."""

BUILT_IN: tuple[Literal["random", "expert", "retrieve"], ...] = ("random", "expert", "retrieve")
ALGORITHMS = ("ppo", "a2c", "dqn", "sac", "td3", "ddpg")

_FORM = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class PolicySpec:
    """What the name of a policy stands for: every command asks here.

    Attributes:
        name: As given.
        kind: "random"; "expert"; "retrieve", from demonstrations; "archive", a Stable-Baselines3
            ``.zip``; "factory", a function of one's own ``module:factory``; or "network": a
            shipped checkpoint's name, the folder of a checkpoint or of a run, or a hub id.
    """

    name: str
    kind: Literal["random", "expert", "retrieve", "archive", "factory", "network"]

    @classmethod
    def parse(cls, name: str | Path) -> PolicySpec:
        """What a name stands for; whether there is such a thing shows when it is made.

        Example:
            >>> names = "expert", "ppo.zip", "my.policies:make", "gato-mini", "owner/name"
            >>> [PolicySpec.parse(name).kind for name in names]
            ['expert', 'archive', 'factory', 'network', 'network']
        """
        text = str(name)
        for kind in BUILT_IN:
            if text == kind:
                return cls(text, kind)
        if text.endswith(".zip"):
            return cls(text, "archive")
        is_factory = _FORM.fullmatch(text) and not Path(text).exists()
        return cls(text, "factory" if is_factory else "network")


def make_policy(
    name: str | Path,
    *,
    env: Any,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    prompt: str = "shipped",
    cut: str | None = None,
    demonstrations: Any = None,
    demonstration_episodes: int | None = None,
    algorithm: str | None = None,
    trust_zip: bool = False,
) -> Policy:
    """A policy by name, for an environment.

    Args:
        name: ``random``, ``expert``, ``retrieve``, the name of a shipped checkpoint, a
            checkpoint's or run's folder, a hub id, a Stable-Baselines3 archive ``….zip``, or
            ``module:factory``, a function that takes ``env`` and returns anything with
            Stable-Baselines3's ``predict``.
        env: The environment, vector environment or SB3 VecEnv that it plays in.
        seed: Seed of its actions; a factory's policy, or an archive's, has its own.
        device: Device of a network.
        precision: Precision of a network, as in :meth:`policies.gato.policy.GatoPolicy.load`.
        prompt: Prompt of a network: "shipped", "none", or what
            :func:`policies.gato.prompts.demonstration` takes.
        cut: Which part of a longer demonstration is kept, as in
            :meth:`policies.gato.policy.GatoPolicy.load`.
        demonstrations: What ``retrieve`` plays from, as in
            :func:`policies.retrieval.policy.demonstrations_of`; of a name, ``{task}`` stands for
            the id of the environment's task.
        demonstration_episodes: How many of them, the first ones; None for all.
        algorithm: Algorithm of an archive, which does not name it: one of :data:`ALGORITHMS`.
        trust_zip: Whether an archive's author is trusted: reading it runs code that is in it.

    Raises:
        ValueError: The name stands for nothing, ``retrieve`` has no demonstrations or they do not
            fit, ``expert`` is requested for an environment that is not a task, a factory does not
            exist or returns no policy, or an archive is not trusted.
        ImportError: The factory's module, or Stable-Baselines3, cannot be imported.
    """
    spec = PolicySpec.parse(name)
    if spec.kind == "random":
        from policies.random_policy import RandomPolicy

        return RandomPolicy(*spaces_of(env), seed=seed)
    if spec.kind == "expert":
        from gato_gym.tasks import task_id_of
        from policies.experts import make_expert

        task = task_id_of(env)
        if task is None:
            raise ValueError(
                "policy 'expert' needs an environment of a task: "
                "make it with gym.make('Gato/<task>')"
            )
        return make_expert(task, env)
    if spec.kind == "retrieve":
        return _retrieving(env, demonstrations, demonstration_episodes)
    policy: Policy
    if spec.kind == "factory":
        policy = call_factory(spec.name, env)
    elif spec.kind == "archive":
        policy = _load_archive(Path(spec.name), algorithm, trust_zip)
    else:
        policy = _load_network(
            name, env=env, seed=seed, device=device, precision=precision, prompt=prompt, cut=cut
        )
    return policy


def _load_network(
    name: str | Path,
    *,
    env: Any,
    seed: int,
    device: str,
    precision: str,
    prompt: str,
    cut: str | None,
) -> Policy:
    """The policy of a checkpoint, whose configuration says of which family it is."""
    from policies.gato.checkpoint_folder import family_of, locate_checkpoint

    folder = locate_checkpoint(name)
    family = family_of(folder)
    if family == "gato":
        from policies.gato.policy import GatoPolicy

        return GatoPolicy.load(
            folder, env=env, seed=seed, device=device, precision=precision, prompt=prompt, cut=cut
        )
    if prompt not in ("shipped", "none") or cut is not None:
        raise ValueError(
            f"prompt is {prompt!r} and {name} is a {family.upper()} checkpoint, which acts "
            "after no demonstration: expected none"
        )
    from policies.dt.policy import DtPolicy
    from policies.jat.policy import JatPolicy
    from policies.tt.policy import TtPolicy

    kinds: dict[str, Any] = {"jat": JatPolicy, "dt": DtPolicy, "tt": TtPolicy}
    policy: Policy = kinds[family].load(
        folder, env=env, seed=seed, device=device, precision=precision
    )
    return policy


def _retrieving(env: Any, demonstrations: Any, episodes: int | None) -> Policy:
    from gato_gym.tasks import task_id_of
    from policies.retrieval.policy import RetrievalPolicy

    if demonstrations is None:
        raise ValueError(
            "policy 'retrieve' plays from demonstrations: pass --demonstrations with the id or "
            "path of a Minari dataset (demonstrations=...)"
        )
    if isinstance(demonstrations, str):
        demonstrations = demonstrations.replace("{task}", task_id_of(env) or "{task}")
    return RetrievalPolicy.create(env, demonstrations, episodes=episodes)


def find_factory(
    name: str,
    *,
    of: str = "policy",
    form: str = "takes an environment and returns a policy",
) -> Callable[..., Any]:
    """The function that ``module:factory`` names; also finds modules in the working directory.

    Args:
        name: ``module:factory``.
        of: What it makes, for errors.
        form: What it does, for errors.

    Raises:
        ImportError: The module cannot be imported.
        ValueError: The module has no such function.
    """
    module, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        factory: Callable[..., Any] | None = getattr(
            importlib.import_module(module), attribute, None
        )
    except ImportError as error:
        raise ImportError(
            f"the module of {of} {name!r} cannot be imported ({error}): expected one that is "
            "installed, or in the folder where the command is given"
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    if not callable(factory):
        raise ValueError(
            f"module {module!r} has no function {attribute!r}: expected MODULE:FUNCTION, a "
            f"function that {form}"
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


def _load_archive(path: Path, algorithm: str | None, trusted: bool) -> Any:
    if not path.is_file():
        raise ValueError(f"no archive {str(path)!r}: expected the .zip that an SB3 model saved")
    if not trusted:
        raise ValueError(
            f"{path} is a Stable-Baselines3 archive, which holds pickles: reading it runs whatever "
            "code its author put in. If you made it, or trust who did, pass --trust-zip"
        )
    if algorithm not in ALGORITHMS:
        raise ValueError(
            f"algorithm is {algorithm!r}: pass --algorithm, one of {', '.join(ALGORITHMS)}, as the "
            "archive does not name its own"
        )
    try:
        import stable_baselines3
    except ImportError as error:
        raise ImportError(
            "a Stable-Baselines3 archive needs that package: run pip install 'gato-gym[sb3]'"
        ) from error
    return getattr(stable_baselines3, algorithm.upper()).load(path, device="cpu")
