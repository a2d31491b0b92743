"""Several processes that train one network, started by ``torchrun``.

* :class:`ProcessGroup` -- this process's place among them, and sums over all of them.
* :func:`shard` -- FSDP2: every process holds a part of the backbone.
* :class:`ShardedParameter` -- what a process holds of a parameter, and the way to the whole of it.

Gradients are summed after the backward pass instead of by ``DistributedDataParallel``: a process
whose rows hold no image has no gradient for the image's weights, which DDP finds by a walk over
the graph at every step, and the loss is divided by a weight of the whole batch, not by the number
of processes.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from policies.model.transformer import Backbone

BUCKET = 1 << 25
"""Numbers of a message that gradients are summed by."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those of a run.

    Attributes:
        rank: Number of this process.
        world: Number of processes; 1 without ``torchrun``.
        local: Number of this process on its machine.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def join(cls) -> ProcessGroup:
        """The group that ``torchrun`` describes in the environment; alone without it."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if not dist.is_initialized():
            if torch.cuda.is_available():
                torch.cuda.set_device(local)
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
            atexit.register(dist.destroy_process_group)
        return cls(dist.get_rank(), dist.get_world_size(), local)

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.world > 1:
            dist.barrier()

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor's sum over all processes."""
        if self.world == 1:
            return tensor
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace gradients by their sums over all processes; what none has used keeps none."""
        if self.world == 1 or not parameters:
            return
        mine = torch.tensor([float(p.grad is not None) for p in parameters])
        used = self.sum(mine.to(parameters[0].device)).tolist()
        kept = [p for p, count in zip(parameters, used, strict=True) if count]
        for bucket in _buckets(kept):
            flat = torch.cat(
                [
                    torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
                    for p in bucket
                ]
            )
            dist.all_reduce(flat)
            sums = flat.split([p.numel() for p in bucket])
            for parameter, part in zip(bucket, sums, strict=True):
                parameter.grad = part.view_as(parameter)


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters next to each other, about :data:`BUCKET` numbers together."""
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        bucket.append(parameter)
        size += parameter.numel()
        if size >= BUCKET:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket


def shard(backbone: Backbone, ranks: ProcessGroup, device: torch.device) -> None:
    """Have every process hold a part of the backbone: weights, gradients, optimiser's state.

    A block's weights are gathered for as long as it computes. The embedding and the head, which
    not every batch uses the whole of, stay as they are in every process.

    Args:
        backbone: On ``device``, equal in all processes.
        ranks: More than one.
        device: Where it computes.
    """
    mesh = init_device_mesh(device.type, (ranks.world,))
    for module in (*backbone.blocks, backbone):
        divided = fully_shard(module, mesh=mesh)
        divided.set_gradient_divide_factor(1.0)  # sums, which the loss's scale is made for
        divided.set_force_sum_reduction_for_comms(True)  # gloo multiplies no sums


class ShardedParameter:
    """What this process holds of a parameter: all of it, or some rows of a divided one.

    Args:
        parameter: The network's.

    Attributes:
        held: A parameter of its own with the same memory, which an optimiser steps.
    """

    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter = parameter
        self.divided = isinstance(parameter, DTensor)
        self.held = nn.Parameter(_local(parameter)) if self.divided else parameter

    def take_gradient(self) -> None:
        """Give :attr:`held` this process's part of the gradient."""
        if self.divided:
            self.held.data = _local(self.parameter)
            gradient = self.parameter.grad
            self.held.grad = None if gradient is None else _local(gradient)

    def drop_gradient(self) -> None:
        """Forget the gradient."""
        self.held.grad = self.parameter.grad = None

    def whole(self, rows: Tensor) -> Tensor:
        """The tensor whose parts the processes have; all of them have to call this."""
        like = self.parameter
        if not isinstance(like, DTensor):
            return rows
        return DTensor.from_local(
            rows, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
        ).full_tensor()

    def rows(self, whole: Tensor) -> Tensor:
        """This process's part of a tensor that is equal in all processes."""
        like = self.parameter
        if not isinstance(like, DTensor):
            return whole
        mesh, placements = like.device_mesh, like.placements
        return distribute_tensor(whole, mesh, placements, src_data_rank=None).to_local()


def _local(tensor: Tensor) -> Tensor:
    assert isinstance(tensor, DTensor)
    with torch.no_grad():
        return tensor.to_local()
