"""Makes ``gym.make_vec(id, wrappers=[GatoTokenize])`` work for every environment.

If an environment has its own vector implementation (as CartPole-v1 does), Gymnasium chooses it and
then refuses ``wrappers``, unless ``vectorization_mode`` is set.

* :func:`accept_tokenize` -- ``make_vec`` that vectorizes wrapped environments one by one.
* :func:`install` -- puts it in Gymnasium's place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym

from gato_gym.wrappers import GatoTokenize

__all__ = ["accept_tokenize", "install"]


def accept_tokenize(make_vec: Callable[..., Any]) -> Callable[..., Any]:
    """``make_vec`` with mode "sync" as the default for wrappers that contain `GatoTokenize`."""

    @functools.wraps(make_vec)
    def make_vec_tokenized(
        id: Any,
        num_envs: int = 1,
        vectorization_mode: Any = None,
        vector_kwargs: dict[str, Any] | None = None,
        wrappers: Sequence[Callable[..., Any]] | None = None,
        **kwargs: Any,
    ) -> Any:
        if vectorization_mode is None and any(map(_tokenizes, wrappers or ())):
            vectorization_mode = "sync"
        return make_vec(id, num_envs, vectorization_mode, vector_kwargs, wrappers, **kwargs)

    return make_vec_tokenized


def install() -> None:
    """Replace ``gymnasium.make_vec`` by `accept_tokenize` of it, once."""
    if not hasattr(gym.make_vec, "__wrapped__"):
        gym.make_vec = accept_tokenize(gym.make_vec)


def _tokenizes(wrapper: Callable[..., Any]) -> bool:
    function = wrapper.func if isinstance(wrapper, functools.partial) else wrapper
    return isinstance(function, type) and issubclass(function, GatoTokenize)
