"""Stable-Baselines3's and SBX's algorithms as tensors by name, out and in.

* :func:`tensors_of`, :func:`restore` -- an algorithm with its optimisers and normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policies.expert_training.sb3.sbx_state import is_jax, jax_tensors, restore_jax
from policies.expert_training.training_state import TrainingStateError


def tensors_of(algorithm: Any) -> dict[str, Tensor]:
    """Weights, optimisers and normalisation of an algorithm, by names with "/" between parts."""
    tensors = jax_tensors(algorithm) if is_jax(algorithm) else _torch_tensors(algorithm)
    for name, statistics in _normalisations(algorithm):
        for key in ("mean", "var", "count"):
            number = np.asarray(getattr(statistics, key), np.float64)
            tensors[f"{name}/{key}"] = torch.from_numpy(number.copy())
    return tensors


def restore(algorithm: Any, tensors: Mapping[str, Tensor], *, optimisers: bool = True) -> None:
    """Put the tensors of :func:`tensors_of` back.

    Args:
        algorithm: Made by the same recipe.
        tensors: What was saved.
        optimisers: False leaves the optimisers, the returns' statistics and the exploration as
            they are: what another task's training knows of its own rewards.

    Raises:
        TrainingStateError: They are of another network.
    """
    put_back = restore_jax if is_jax(algorithm) else _restore_torch
    try:
        put_back(algorithm, tensors, optimisers=optimisers)
        for name, statistics in _normalisations(algorithm)[: 2 if optimisers else 1]:
            statistics.mean = tensors[f"{name}/mean"].numpy()
            statistics.var = tensors[f"{name}/var"].numpy()
            statistics.count = float(tensors[f"{name}/count"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise TrainingStateError(
            f"the saved training does not fit this recipe ({error!r}): remove it to start afresh"
        ) from error


def _normalisations(algorithm: Any) -> list[tuple[str, Any]]:
    """Running statistics by name; none where observations are images."""
    wrapper = algorithm.get_vec_normalize_env()
    if wrapper is None:
        return []
    observations = [("observation", wrapper.obs_rms)] if wrapper.norm_obs else []
    return [*observations, ("return", wrapper.ret_rms)]


def _torch_tensors(algorithm: Any) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, part in algorithm.get_parameters().items():
        if "param_groups" in part:
            for index, entry in part["state"].items():
                tensors |= {f"{name}/{index}/{key}": value for key, value in entry.items()}
        else:
            tensors |= {f"{name}/{key}": value for key, value in part.items()}
    return tensors


def _restore_torch(algorithm: Any, tensors: Mapping[str, Tensor], *, optimisers: bool) -> None:
    parameters = {}
    for name, part in algorithm.get_parameters().items():
        if "param_groups" in part:
            entries: dict[int, dict[str, Tensor]] = {}
            for key, value in _under(name, tensors).items():
                index, _, slot = key.partition("/")
                entries.setdefault(int(index), {})[slot] = value
            if optimisers:
                part = {"state": entries, "param_groups": part["param_groups"]}
            parameters[name] = part
        else:
            parameters[name] = {key: tensors[f"{name}/{key}"] for key in part}
            if not optimisers and "log_std" in part:
                parameters[name]["log_std"] = part["log_std"]
    algorithm.set_parameters(parameters, exact_match=True)


def _under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"{name}/"
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
