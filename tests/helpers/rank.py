"""One of several processes that train the small network: ``rank.py WHAT MODE FOLDER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from small_training import config, losses, shards  # noqa: E402

from policies.training.config import TrainConfig  # noqa: E402
from policies.training.trainer import Trainer  # noqa: E402

MODES = ("data-parallel", "fsdp")


def settings(mode: str) -> TrainConfig:
    """Sharded weights are tried with parts of a batch and recomputed activations as well."""
    return config(accumulate=2, recompute=True) if mode == "fsdp" else config()


def trainer(mode: str, folder: Path) -> Trainer:
    """A trainer that took up the folder's run."""
    resumed = Trainer(settings(mode), shards(), folder, device="cpu", fsdp=mode == "fsdp")
    resumed.resume()
    return resumed


def compute(mode: str, folder: Path) -> None:
    """Fifty steps of a run; six of another, and six more when another process has gone on."""
    straight = trainer(mode, folder / "straight")
    results = {"straight": losses(straight, 50), "divided": straight.divided}
    straight.save()
    first = trainer(mode, folder / "moved")
    results["first"] = losses(first, 6)
    first.save()
    if not first.ranks.rank:
        print("saved", flush=True)
    sys.stdin.readline()
    results["third"] = losses(trainer(mode, folder / "moved"), 6)
    (folder / f"rank-{first.ranks.rank}.json").write_text(json.dumps(results))


def endless(mode: str, folder: Path) -> None:
    """A run that is to be stopped; every save leaves a line."""

    def note(saved: Trainer) -> None:
        with (folder / "saves").open("a") as file:
            print(saved.step, file=file)

    endless = Trainer(
        config(steps=100_000), shards(), folder / "run", save_every=100_000, log_every=1,
        on_save=note,        fsdp=mode == "fsdp",
    )  # fmt: skip
    endless.resume()
    endless.run()


if __name__ == "__main__":
    what, mode, folder = sys.argv[1:]
    {"compute": compute, "endless": endless}[what](mode, Path(folder))
