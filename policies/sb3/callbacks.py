"""What is added to Stable-Baselines3's algorithms, as callbacks.

* :class:`Imitation` -- adds the loss on given episodes to the algorithm's.
* :class:`CriticFirst` -- keeps the network as it is while the value head begins to learn.
"""

from __future__ import annotations

from collections.abc import Callable

from stable_baselines3.common.callbacks import BaseCallback
from torch.utils.hooks import RemovableHandle

from policies.model.network import PackedBatch
from policies.sb3.policy import GatoActorCriticPolicy
from policies.training.loss import action_loss

SIGMA = 4.0
"""Spread of continuous labels, in bins, as training has it unless asked."""


def _policy_of(callback: BaseCallback) -> GatoActorCriticPolicy:
    policy = callback.model.policy
    if not isinstance(policy, GatoActorCriticPolicy):
        raise TypeError(
            f"the algorithm's policy is a {type(policy).__name__}: expected GatoActorCriticPolicy"
        )
    return policy


class Imitation(BaseCallback):
    """Adds ``weight`` times the imitation loss to what the algorithm minimises.

    After GEA (arXiv 2412.08442): ``L = PPO + 0.1 * imitation``. Before each step of the optimiser,
    its gradient on one batch is added to the algorithm's, which has been clipped; so the network
    keeps what the episodes show while it learns what the rewards say.

    Args:
        batches: Batch number k of the episodes, such as :meth:`Packer.batch
            <policies.training.data.packing.Packer.batch>`. The numbers are those of the algorithm's
            timesteps, so that a run that is resumed sees other batches.
        weight: Its weight, above 0.

    Raises:
        ValueError: ``weight`` is not above 0.
    """

    def __init__(self, batches: Callable[[int], PackedBatch], *, weight: float = 0.1) -> None:
        super().__init__()
        if not weight > 0:
            raise ValueError(f"weight is {weight}: expected more than 0, or no such callback")
        self.batches, self.weight = batches, weight
        self._steps = 0
        self._handle: RemovableHandle | None = None

    def _on_training_start(self) -> None:
        optimizer = _policy_of(self).optimizer
        self._handle = optimizer.register_step_pre_hook(lambda *_: self._add_gradient())

    def _on_rollout_end(self) -> None:
        self._steps = 0

    def _add_gradient(self) -> None:
        policy = _policy_of(self)
        if not policy.network.head.weight.requires_grad:
            return
        batch = self.batches(self.num_timesteps + self._steps).to(policy.device)
        self._steps += 1
        report = action_loss(policy.network, policy.network(batch), batch.targets, sigma=SIGMA)
        loss = report.total / report.scale
        (self.weight * loss).backward()
        self.logger.record_mean("train/imitation_loss", loss.item())

    def _on_training_end(self) -> None:
        if self._handle is not None:
            self._handle.remove()

    def _on_step(self) -> bool:
        return True


class CriticFirst(BaseCallback):
    """Trains the value head alone in the rollouts up to a timestep.

    A new value head knows nothing, and by its advantages the network would unlearn what it can.

    Args:
        steps: The timestep.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def _on_rollout_end(self) -> None:
        _policy_of(self).train_actor(self.num_timesteps > self.steps)

    def _on_step(self) -> bool:
        return True
