"""What an off-policy training remembers, in a file beside its state.

Without it, a resumed training learns from nothing but its latest steps: finger-turn's
expert had 970 before it was stopped, and 570 after.

* :func:`narrow` -- a memory in float32.
* :func:`save_memory`, :func:`restore_memory` -- one safetensors file, renamed into place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from gato_gym.files.atomic_io import appearing_file
from policies.expert_training.training_state import TrainingStateError

PARTS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def narrow(memory: Any) -> None:
    """Let an empty replay buffer of Stable-Baselines3 hold observations in float32.

    MuJoCo's are float64, which networks do not see: twice the bytes to keep and to gather.
    """
    for name in PARTS[:2]:
        setattr(memory, name, np.zeros(getattr(memory, name).shape, np.float32))


def save_memory(path: Path, memory: Any) -> None:
    """Write what a replay buffer of Stable-Baselines3 holds."""
    held = memory.buffer_size if memory.full else memory.pos
    arrays = {name: getattr(memory, name)[:held] for name in PARTS}
    with appearing_file(path) as partial:
        save_file(arrays, partial, metadata={"next": str(memory.pos)})


def restore_memory(path: Path, memory: Any) -> None:
    """Put back what :func:`save_memory` wrote.

    The environments do not continue where they were when it was written: no sum of rewards
    crosses that place.

    Raises:
        TrainingStateError: The file is damaged, or of another task or recipe.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            following = int((file.metadata() or {})["next"])
            for name in PARTS:
                part, room = file.get_tensor(name), getattr(memory, name)
                if part.shape[1:] != room.shape[1:] or not 0 < len(part) <= len(room):
                    raise ValueError(f"{name} {part.shape}, expected at most {room.shape}")
                room[: len(part)] = part
                held = len(part)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingStateError(
            f"{path} is no memory of this training ({error!r}): remove it to resume without"
        ) from error
    memory.full, memory.pos = held == memory.buffer_size, following % memory.buffer_size
    last = memory.pos - 1
    memory.timeouts[last] = np.maximum(memory.timeouts[last], 1 - memory.dones[last])
