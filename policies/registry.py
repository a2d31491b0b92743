"""Policies from a function of somebody's own, named ``module:factory``.

* :func:`is_factory` -- whether a name has that form.
* :func:`find_factory` -- the function.
* :func:`source_of` -- the file it is in.
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

Factory = Callable[[Any], Any]
"""Called with an environment, or a vector environment; returns an object with
Stable-Baselines3's ``predict``."""

_FORM = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_factory(name: str | Path) -> bool:
    """Whether a name is ``module:factory``, and no folder's.

    Example:
        >>> is_factory("my.policies:make"), is_factory("gato-mini"), is_factory("owner/name")
        (True, False, False)
    """
    return bool(_FORM.fullmatch(str(name))) and not Path(name).exists()


def find_factory(name: str) -> Factory:
    """The function that ``module:factory`` names; modules beside where one stands are found too.

    Raises:
        ImportError: The module cannot be imported.
        ValueError: It has no such function.
    """
    module, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise ImportError(
            f"the module of policy {name!r} cannot be imported ({error}): expected one that is "
            "installed, or in the folder where the command is given"
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    if not callable(found):
        raise ValueError(
            f"module {module!r} has no function {attribute!r}: expected MODULE:FUNCTION, a "
            "function that takes an environment and returns a policy"
        )
    made: Factory = found
    return made


def source_of(factory: Factory) -> Path | None:
    """The file a factory is written in; None where there is none, as of compiled ones."""
    try:
        return Path(inspect.getfile(factory))
    except TypeError:
        return None


def call_factory(name: str, env: Any) -> Any:
    """The policy that a factory makes for an environment.

    Raises:
        ImportError, ValueError: As :func:`find_factory`; or what it made has no ``predict``.
    """
    policy = find_factory(name)(env)
    if not callable(getattr(policy, "predict", None)):
        raise ValueError(
            f"{name} returned a {type(policy).__name__} without predict: expected a policy with "
            "predict(observation, state, episode_start, deterministic)"
        )
    return policy
