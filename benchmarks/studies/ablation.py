"""What each option of training is worth: ``python -m benchmarks.studies.ablation``.

Trains one small network for each variant on a slice of the shipped mixture, and plays the same
episodes with each. Variants of one layout, whose steps cost the same, have equally many; those of
another have as much time. A variant that is finished is kept, so that the command can be
stopped and run again; the table is drawn from all that are there.

* :data:`VARIANTS` -- what is compared.
* :func:`run_variant` -- trains one and plays with it.
* :func:`main` -- the command.
* :func:`write_table` -- as CSV, and between two comments of a page.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, SupportsFloat

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from benchmarks.protocol import episode_seed
from benchmarks.statistics.aggregates import suite_of
from benchmarks.statistics.bootstrap import stratified_bootstrap
from benchmarks.statistics.scores import mean_of_tasks
from benchmarks.studies.plots import check_page, fill_page, write_csv
from gato_gym import get_task
from gato_gym.commands.common import exit_status
from gato_gym.files.atomic_io import write_json, write_whole
from gato_gym.files.bounded_io import read_json
from gato_gym.files.folder_lock import FolderLock
from policies import GatoPolicy
from policies.model.network import GatoNetwork, count_parameters
from policies.rollout.outcomes import EpisodeKey, EpisodeResult
from policies.rollout.vector_rollout import play
from policies.training.config import TrainConfig, gato_sizes
from policies.training.data.packing import Packer
from policies.training.data.shards import TaskShard
from policies.training.loss import mean_losses
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings

MARK = "ablation"

COLUMNS = ("variant", "what", "steps", "parameters", "accuracy", "error")
"""Columns of the table; success in each suite and its interval follow."""

Result = Mapping[str, Any]


def successes(result: Result, suite: str) -> list[NDArray[np.float64]]:
    """Success of each episode, an array a task: float64 ``[episodes]``, 0 or 1."""
    by_task: dict[str, list[float]] = {}
    for episode in result["episodes"]:
        if suite_of(episode["task"]) == suite:
            by_task.setdefault(episode["task"], []).append(float(episode["success"]))
    return [np.array(values) for _, values in sorted(by_task.items())]


def line(result: Result) -> dict[str, Any]:
    """A variant's figures by column: success with its 95 % interval, episodes redrawn by task."""
    values = {name: result[name] for name in COLUMNS}
    for suite in ("babyai", "metaworld"):
        scores = successes(result, suite)
        interval = stratified_bootstrap(scores, mean_of_tasks)
        values[suite] = float(np.mean([np.mean(task) for task in scores]))
        values[f"{suite}_low"], values[f"{suite}_high"] = interval.low, interval.high
    return values


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """The lines as a table."""
    rows = [
        "| variant | steps | accuracy | error | BabyAI success | Meta-World success |",
        "|---|---|---|---|---|---|",
    ]
    for v in lines:
        shown = [
            f"{v[s]:.2f} ({v[f'{s}_low']:.2f} to {v[f'{s}_high']:.2f})"
            for s in ("babyai", "metaworld")
        ]
        rows.append(
            f"| {v['what']} | {v['steps']} | {v['accuracy']:.3f} | "
            f"{v['error']:.4f} | {shown[0]} | {shown[1]} |"
        )
    return "\n".join(rows)


def write_table(results: Sequence[Result], table: Path, page: Path) -> None:
    """Write the table as CSV, and into a page where its comments say.

    Raises:
        ValueError: The page has no such place.
    """
    lines = [line(result) for result in results]
    write_csv(table, lines)
    fill_page(page, MARK, markdown(lines))


TASKS = (
    "babyai-go-to-local", "babyai-pickup-loc",
    "metaworld-button-press-topdown", "metaworld-door-open", "metaworld-reach",
)  # fmt: skip
NETWORK = {
    "width": 64, "layers": 2, "heads": 2, "head_size": 32, "feed_forward": 128,
    "vector_hidden": 128, "text_rank": 16, "grid_channels": 16,
}  # fmt: skip
HELD_OUT = 0.2
"""Share of a task's episodes, the last ones, that are not trained on."""
HELD_OUT_BATCHES = 16


@dataclass(frozen=True)
class Variant:
    """One network, by what differs from the first.

    Attributes:
        name: Name of its folder and its line.
        what: The difference in words.
        layout: Layout of the tokens.
        memory: What later timesteps see, of every task; None for each task's own.
        changes: Other fields of :class:`~policies.training.settings.TrainSettings`.
    """

    name: str
    what: str
    layout: str = "lean"
    memory: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


PAPER = {
    "rows": 4, "length": 512, "network": {**NETWORK, "prompt_tokens": 160, "window": 512},
}  # fmt: skip
HIDDEN = "past actions hidden, observations kept"
VARIANTS = (
    Variant("lean", "the defaults"),
    Variant("sigma-0", "labels not spread", changes={"sigma": 0.0}),
    Variant("no-features", "no numeric features", changes={"numeric_features": False}),
    Variant("memory-all", "past actions kept", memory="all"),
    Variant(
        "memory-all-drop", "past actions dropped, p = 0.5", memory="all",
        changes={"action_drop": 0.5},
    ),
    Variant("memory-observations", HIDDEN, memory="observations"),
    Variant(
        "kappa-0.005", "next observation, weight 0.005", changes={"observation_weight": 0.005}
    ),
    Variant("depth-0.1", "stochastic depth 0.1", changes={"depth_drop": 0.1}),
    Variant("noise-0.1", "noise 0.1 on observations", changes={"observation_noise": 0.1}),
    Variant("paper", "layout `paper`, all remembered", "paper", "all", changes=PAPER),
)  # fmt: skip
NAMES = tuple(variant.name for variant in VARIANTS)


def settings_of(
    variant: Variant, root: Path, work: Path, seconds: float = 60.0, *, device: str = "cpu"
) -> TrainSettings:
    """What a variant is trained with: as many steps as fit into so many seconds."""
    base = TrainSettings(
        datasets=tuple(str(root / "gato" / f"{task}-v0") for task in TASKS),
        output=work / variant.name,
        shards=work / "shards" / f"{variant.layout}-{variant.memory or 'usual'}",
        network=NETWORK,
        minutes=seconds / 60,
        group_by="suite",
        adaptive="none",
        layout=variant.layout,
        memory=variant.memory,
        keep=0.0,
        held_out=HELD_OUT,
        weights={"babyai": 0.5, "metaworld": 0.5},
        prompt_shares={"babyai": 0.06, "metaworld": 0.75},
        optimiser_options={"average": 0.99},
        device=device,
        score_every=0,
    )
    return dataclasses.replace(base, **variant.changes)


def held_out_errors(
    network: GatoNetwork, config: TrainConfig, shards: dict[str, TaskShard]
) -> dict[str, float]:
    """How well a network says held-out actions, nothing changed in documents."""
    mixture = dataclasses.replace(config.mixture, action_drop=0.0, observation_noise=0.0)
    packer = Packer(
        shards, mixture, gato_sizes(config), rows=config.rows, length=config.length, seed=1
    )
    batches = (packer.batch(index) for index in range(HELD_OUT_BATCHES))
    losses = mean_losses(network, batches, sigma=config.sigma)
    return {"accuracy": losses["discrete_accuracy"], "error": losses["continuous_error"]}


def run_variant(variant: Variant, settings: TrainSettings, *, episodes: int) -> dict[str, Any]:
    """Train one network, and play with it.

    Args:
        variant: What is trained.
        settings: Its run, which is resumed where it has begun.
        episodes: Episodes of each task to play.

    Returns:
        Everything that the table is made of, as JSON values.
    """
    run = TrainRun(settings)
    checkpoint = run.train()
    network = run.export(checkpoint)
    errors = held_out_errors(network, run.config, run.held_out)
    results = [
        result
        for task in TASKS
        for result in play_task(task, checkpoint, episodes, settings.device)
    ]
    return {
        "variant": variant.name,
        "what": variant.what,
        "steps": run.config.steps,
        "parameters": count_parameters(network),
        **errors,
        "episodes": [result.to_json() for result in results],
    }


class UntilSolved(gym.Wrapper[Any, Any, Any, Any]):
    """Ends an episode where it is solved: what comes after would say nothing more."""

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """As the environment's, and terminated once it reports success."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated or bool(info["success"]), truncated, info


def play_task(task_id: str, checkpoint: Path, episodes: int, device: str) -> list[EpisodeResult]:
    """The episodes of a task, always the same ones."""
    keys = [EpisodeKey(task_id, i, episode_seed(0, task_id, i)) for i in range(episodes)]
    task = get_task(task_id)
    envs = SyncVectorEnv(
        [lambda: UntilSolved(task.make())] * episodes, autoreset_mode=AutoresetMode.DISABLED
    )
    policy = GatoPolicy.load(checkpoint, env=envs, device=device)
    results = []
    for outcome in play(envs, policy, keys, deterministic=False):
        if not isinstance(outcome, EpisodeResult):
            raise RuntimeError(f"an episode of {task_id} failed: {outcome}")
        results.append(outcome)
    envs.close()
    return sorted(results, key=lambda result: result.key.index)


def main(
    *,
    variants: tuple[str, ...] = NAMES,
    seconds: float = 120.0,
    episodes: int = 16,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
    root: Path = Path("data"),
    work: Path = Path("runs/ablation"),
    csv: Path = Path("docs/ablation.csv"),
    page: Path = Path("docs/training.md"),
) -> None:
    """Measure what each option of training is worth.

    Args:
        variants: Names of the variants to train.
        seconds: Time of a training, on a core of its own.
        episodes: Episodes of each task to play.
        device: Where networks are trained and play.
        root: Folder of the datasets.
        work: Folder of the study.
        csv: File of the table.
        page: File that shows the table.
    """
    check_page(page, MARK)
    torch.set_num_threads(1)
    by_name = {variant.name: variant for variant in VARIANTS}
    if unknown := sorted(set(variants) - set(by_name)):
        raise ValueError(f"variants names {unknown}: expected some of {list(by_name)}")
    with FolderLock(work):
        for name in variants:
            if not (work / name / "result.json").exists():
                settings = settings_of(by_name[name], root, work, seconds, device=device)
                _measure(by_name[name], settings, work / "steps.json", episodes=episodes)
    files = [work / name / "result.json" for name in by_name]
    results = [read_json(path) for path in files if path.exists()]
    write_table(results, csv, page)


def _measure(variant: Variant, settings: TrainSettings, budget: Path, *, episodes: int) -> None:
    known = read_json(budget) if budget.exists() else {}
    if variant.layout not in known:
        known[variant.layout] = TrainRun(settings).config.steps
        write_json(budget, known)
    steps = known[variant.layout]
    print(f"{variant.name}: {steps} steps", flush=True)
    settings = dataclasses.replace(settings, steps=steps, minutes=None)
    result = run_variant(variant, settings, episodes=episodes)
    write_whole(settings.output / "result.json", json.dumps(result))
    solved = [e["success"] for e in result["episodes"]]
    print(
        f"{variant.name}: success {sum(solved) / len(solved):.3f}, "
        f"held-out accuracy {result['accuracy']:.3f}, error {result['error']:.4f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(main)))
