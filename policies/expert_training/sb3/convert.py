"""Stable-Baselines3's algorithms as experts of safetensors and JSON.

* :func:`network_of` -- the policy of an algorithm with its observation normalisation.
* :func:`load_zip` -- an algorithm from its ``.zip``, which is trusted code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.expert_training.sb3.sbx_state import actor_layers, is_jax
from policies.experts.mlp import Array, ExpertNetwork

Layer = tuple[Array, Array]


def network_of(
    algorithm: Any, normalization: Any = None, *, size: int | None = None
) -> ExpertNetwork:
    """The network of a PPO, A2C or SAC algorithm with a plain MLP policy.

    Args:
        algorithm: Of Stable-Baselines3 or SBX's SAC, over a Box of actions and a vector of
            observations.
        normalization: Its ``VecNormalize``; None takes the algorithm's own, if it has one.
        size: Numbers of the task's observations, where the algorithm saw only the first of them;
            the network takes all and weighs the others zero.

    Raises:
        ValueError: The policy is of another kind; says which part.
    """
    if normalization is None:
        normalization = algorithm.get_vec_normalize_env()
    policy = algorithm.policy
    squash = hasattr(policy, "actor")
    layers, activation = _jax_layers(algorithm) if is_jax(algorithm) else _torch_layers(policy)
    *hidden, action, log_std = map(_rounded, layers)
    (first, bias), *rest = hidden
    mean, scale, clip = _normalization(normalization, first.shape[1])
    unseen = 0 if size is None else size - first.shape[1]
    mean, scale = np.pad(mean, (0, unseen)), np.pad(scale, (0, unseen))
    hidden = [(np.pad(first, ((0, 0), (0, unseen))), bias), *rest]
    return ExpertNetwork(mean, scale, tuple(hidden), action, log_std, activation, squash, clip)


def _rounded(layer: Layer) -> Layer:
    """As the file will hold it, so that what is evaluated is what is saved."""
    weight, bias = layer
    return weight.astype(np.float16).astype(np.float32), bias.astype(np.float32)


def _numbers(layer: Any) -> Layer:
    weight, bias = (tensor.detach().cpu().numpy() for tensor in (layer.weight, layer.bias))
    return weight.astype(np.float32), bias.astype(np.float32)


def _jax_layers(algorithm: Any) -> tuple[list[Layer], str]:
    from flax import linen

    names = {linen.tanh: "tanh", linen.relu: "relu"}
    function = algorithm.policy.actor.activation_fn
    if function not in names:
        raise ValueError(f"the policy's activation is {function}: expected tanh or relu of flax")
    return actor_layers(algorithm), names[function]


def _torch_layers(policy: Any) -> tuple[list[Layer], str]:
    """Weight and bias of the hidden layers, the mean's and the deviation's; and the activation."""
    from torch import nn

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

    arrays = [_numbers(layer) for layer in (*linear, head)]
    if isinstance(log_std, nn.Linear):
        arrays.append(_numbers(log_std))
    elif log_std.shape == arrays[-1][1].shape:
        arrays.append((np.zeros_like(arrays[-1][0]), log_std.detach().cpu().numpy().astype("f4")))
    else:
        raise ValueError("the policy explores with gSDE: expected a standard deviation an action")
    return arrays, "tanh" if kinds == {nn.Tanh} else "relu"


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
