"""Algorithms of SBX, whose networks are JAX's: their tensors, by name, and their policy's layers.

* :func:`is_jax` -- whether an algorithm is one.
* :func:`jax_tensors`, :func:`restore_jax` -- weights and optimisers, out and in.
* :func:`actor_layers`, :func:`put_actor` -- the weights of an actor, as PyTorch has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STATES = ("actor_state", "qf_state")
"""States of an algorithm's policy: weights, optimiser, and the critic's slower copy."""

ENTROPY = "ent_coef_state"


def is_jax(algorithm: Any) -> bool:
    """Whether the algorithm is one of SBX."""
    return hasattr(algorithm.policy, "actor_state")


def jax_tensors(algorithm: Any) -> dict[str, Tensor]:
    """Everything that is learned, by names with "/" between parts."""
    tensors = {}
    for name, state in _states(algorithm).items():
        for key, value in _leaves(state).items():
            tensors[f"{name}/{key}"] = torch.from_numpy(np.array(value))
    return tensors


def restore_jax(algorithm: Any, tensors: Mapping[str, Tensor], *, optimisers: bool = True) -> None:
    """Put the tensors of :func:`jax_tensors` back.

    Args:
        algorithm: Made by the same recipe.
        tensors: What was saved.
        optimisers: False leaves the optimisers and the entropy's weight as they are.

    Raises:
        KeyError: One is missing.
        ValueError: One is of another shape.
    """
    import jax

    for name, state in _states(algorithm).items():
        if name == ENTROPY and not optimisers:
            continue
        new = []
        for key, value in _leaves(state).items():
            if not optimisers and "params" not in key.split("/")[0]:
                new.append(value)
                continue
            saved = tensors[f"{name}/{key}"].numpy()
            if saved.shape != np.shape(value):
                raise ValueError(
                    f"{name}/{key} has shape {saved.shape}, expected {np.shape(value)}"
                )
            # counters begin as Python's own numbers, which JAX holds in 32 bits
            new.append(jax.numpy.asarray(saved, dtype=f"{saved.dtype.kind}4"))
        owner = algorithm if name == ENTROPY else algorithm.policy
        setattr(owner, name, jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(state), new))


Layers = list[tuple[NDArray[Any], NDArray[Any]]]


def actor_layers(algorithm: Any) -> Layers:
    """Weight ``[outputs, inputs]`` and bias of each layer; the mean's and the deviation's last."""
    layers = algorithm.policy.actor_state.params["params"]
    return [
        # in the order of a file's numbers: sums over another one round otherwise
        (np.ascontiguousarray(np.asarray(layers[name]["kernel"]).T), np.array(layers[name]["bias"]))
        for name in _in_order(layers)
    ]


def put_actor(algorithm: Any, layers: Layers) -> None:
    """The inverse of :func:`actor_layers`.

    Raises:
        ValueError: A layer is of another shape.
    """
    import jax

    state = algorithm.policy.actor_state
    params = state.params["params"]
    names = _in_order(params)
    was = [layer["kernel"].T.shape for layer in map(params.get, names)]
    if (shapes := [weight.shape for weight, _ in layers]) != was:
        raise ValueError(f"layers of {shapes}, expected {was}")
    new = {
        name: {"kernel": jax.numpy.asarray(weight.T), "bias": jax.numpy.asarray(bias)}
        for name, (weight, bias) in zip(names, layers, strict=True)
    }
    algorithm.policy.actor_state = state.replace(params={"params": new})


def _in_order(layers: Mapping[str, Any]) -> list[str]:
    return sorted(layers, key=lambda name: int(name.rpartition("_")[2]))


def _states(algorithm: Any) -> dict[str, Any]:
    states = {name: getattr(algorithm.policy, name) for name in STATES}
    return {**states, ENTROPY: getattr(algorithm, ENTROPY)}


def _leaves(state: Any) -> dict[str, Any]:
    import jax

    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {
        "/".join(str(getattr(k, "name", getattr(k, "key", getattr(k, "idx", k)))) for k in path): v
        for path, v in leaves
    }
