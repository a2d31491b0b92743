"""Stable-Baselines3's algorithms as experts of safetensors and JSON.

* :func:`network_of` -- the policy of an algorithm with its observation normalisation.
* :func:`load_zip` -- an algorithm from its ``.zip``, which is trusted code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.experts.networks import Array, ExpertNetwork


def network_of(algorithm: Any, normalization: Any = None) -> ExpertNetwork:
    """The network of a PPO, A2C or SAC algorithm with a plain MLP policy.

    Args:
        algorithm: Of Stable-Baselines3, over a Box of actions and a vector of observations.
        normalization: Its ``VecNormalize``; None takes the algorithm's own, if it has one.

    Raises:
        ValueError: The policy is of another kind; says which part.
    """
    import torch
    from torch import nn

    policy = algorithm.policy
    if normalization is None:
        normalization = algorithm.get_vec_normalize_env()
    squash = hasattr(policy, "actor")
    trunk = policy.actor.latent_pi if squash else policy.mlp_extractor.policy_net
    head = policy.actor.mu if squash else policy.action_net
    log_std = policy.actor.log_std if squash else policy.log_std
    layers = list(trunk)
    linear, functions = layers[::2], layers[1::2]
    kinds = {type(function) for function in functions}
    if len(kinds) != 1 or not kinds <= {nn.Tanh, nn.ReLU} or len(linear) != len(functions):
        raise ValueError(
            f"the policy's layers are {layers}: expected Linear and Tanh, or Linear and ReLU, "
            "in turn"
        )
    if not all(isinstance(layer, nn.Linear) for layer in (*linear, head)):
        raise ValueError(f"the policy's layers are {linear} and {head}: expected Linear ones")

    def numbers(tensor: torch.Tensor) -> Array:
        return tensor.detach().cpu().numpy().astype(np.float32)

    def rounded(layer: nn.Linear) -> tuple[Array, Array]:
        """As the file will hold it, so that what is evaluated is what is saved."""
        weight = numbers(layer.weight).astype(np.float16).astype(np.float32)
        return weight, numbers(layer.bias)

    action = rounded(head)
    if isinstance(log_std, nn.Linear):
        spread = rounded(log_std)
    elif log_std.shape == action[1].shape:
        spread = np.zeros_like(action[0]), numbers(log_std)
    else:
        raise ValueError("the policy explores with gSDE: expected a standard deviation an action")
    mean, scale, clip = _normalization(normalization, linear[0].in_features)
    return ExpertNetwork(
        mean, scale, tuple(rounded(layer) for layer in linear), action, spread,
        "tanh" if kinds == {nn.Tanh} else "relu", squash, clip,
    )  # fmt: skip


def _normalization(wrapper: Any, size: int) -> tuple[Array, Array, float]:
    if wrapper is None or not wrapper.norm_obs:
        return np.zeros(size, np.float32), np.ones(size, np.float32), float(np.finfo("f4").max)
    variance: NDArray[np.float64] = wrapper.obs_rms.var
    scale = 1.0 / np.sqrt(variance + wrapper.epsilon)
    return wrapper.obs_rms.mean.astype(np.float32), scale.astype(np.float32), wrapper.clip_obs


def load_zip(path: Path, algorithm: str, *, trusted: bool = False) -> ExpertNetwork:
    """The network of a Stable-Baselines3 ``.zip``, as it is without normalised observations.

    An archive does not hold its ``VecNormalize``: where there is one, load both with
    Stable-Baselines3 and pass them to :func:`network_of`.

    Args:
        path: The archive.
        algorithm: "a2c", "ppo" or "sac".
        trusted: The file runs code when it is read: True says that its author is trusted.

    Raises:
        PermissionError: ``trusted`` is False.
        ValueError: The algorithm is unknown, or its policy is not convertible.
    """
    if not trusted:
        raise PermissionError(
            f"{path} is a pickle: reading it runs whatever code its author put in. If you trust "
            "the author as you trust a program, convert it with --trust-zip"
        )
    import stable_baselines3

    kinds = {"a2c": "A2C", "ppo": "PPO", "sac": "SAC"}
    if algorithm not in kinds:
        raise ValueError(f"algorithm is {algorithm!r}: expected one of {', '.join(kinds)}")
    loaded = getattr(stable_baselines3, kinds[algorithm]).load(path, device="cpu")
    return network_of(loaded)
