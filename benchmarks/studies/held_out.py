"""A small network that two tasks were held out of, for few-shot curves of tasks it never saw.

    python -m benchmarks.studies.held_out --shards data/shards --root data --work runs/held-out

* :func:`held_out_config` -- what is trained.

Stopped at any moment, the same command goes on. ``gato-gym finetune --from runs/held-out``
fine-tunes it on a task of :data:`HELD_OUT`; docs/training.md shows what came of it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from policies.gato.checkpoint import RUN_CHECKPOINT, RUN_STATE
from policies.model.config import preset
from policies.training.config import TrainConfig
from policies.training.data.packing import Mixture
from policies.training.data.shards import TaskShard
from policies.training.export import PROMPTED_SUITES, demonstration, write_checkpoint
from policies.training.optimizer import OptimiserConfig
from policies.training.trainer import Trainer

PRETRAINING = {
    "babyai": (
        "action-obj-door", "go-to-door", "go-to-local", "go-to-obj", "go-to-obj-door",
        "go-to-red-ball", "go-to-red-blue-ball", "open-door", "open-red-door", "unlock-local",
    ),
    "metaworld": (
        "button-press", "button-press-topdown", "door-close", "door-open", "drawer-close",
        "drawer-open", "faucet-close", "faucet-open", "handle-press", "plate-slide", "push",
        "reach",
    ),
}  # fmt: skip
"""Tasks by suite: of no level is the mission to pick an object up, and in no task is a window or
a hammer."""

HELD_OUT = ("babyai-pickup-dist", "metaworld-hammer", "metaworld-window-open")
"""Tasks of the same suites that it does not see."""


def held_out_config(steps: int) -> TrainConfig:
    """What it is trained with: the smallest preset, prompted as ``gato-mini`` is."""
    return TrainConfig(
        network=preset("tiny"),
        mixture=Mixture(
            weights={"babyai": 0.5, "metaworld": 0.5},
            prompt_share={"babyai": 0.06, "metaworld": 0.75},
        ),
        optimiser=OptimiserConfig(),
        steps=steps,
        rows=16,
        length=256,
    )


def main() -> int:
    """The command line; its exit status: 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--until", type=int, help="stop at this one of the steps")
    parser.add_argument("--shards", type=Path, default=Path("data/shards"))
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--work", type=Path, default=Path("runs/held-out"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    names = [f"{suite}-{name}" for suite, group in PRETRAINING.items() for name in group]
    shards = {name: TaskShard.open(args.shards / name) for name in names}
    shown = {
        name: (demonstration(name, args.root), shard.group in PROMPTED_SUITES)
        for name, shard in shards.items()
    }

    def export(trainer: Trainer) -> None:
        card = f"# held-out\n\nA small network without {', '.join(HELD_OUT)}; step "
        card += f"{trainer.step} of {args.steps}.\n"
        place = args.work / RUN_CHECKPOINT
        write_checkpoint(trainer.output, shards, shown, place, card=card)
        if args.until is not None and trainer.step >= args.until:
            raise KeyboardInterrupt

    trainer = Trainer(
        held_out_config(args.steps),
        shards,
        args.work / RUN_STATE,
        save_every=args.until or 100,
        kept_every=None,
        device="cpu",
        on_save=export,
    )
    trainer.resume()
    try:
        trainer.run()
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
