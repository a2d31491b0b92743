"""What each option of training is worth: ``python -m benchmarks.studies.ablation``.

Trains one small network for each variant on a slice of the shipped mixture, and plays the same
episodes with each. Variants of one layout, whose steps cost the same, have equally many; those of
another have as much processor time. A variant that is finished is kept, so that the command can be
stopped and run again; the table is drawn from all that are there.

* :data:`VARIANTS` -- what is compared.
* :func:`run_variant` -- trains one and plays with it.
* :func:`main` -- the command.
* :func:`write_table` -- as CSV, and between two comments of a page.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from benchmarks.protocol import episode_seed
from benchmarks.statistics.aggregates import suite_of
from benchmarks.statistics.bootstrap import stratified_bootstrap
from benchmarks.statistics.scores import mean_of_tasks
from gato_gym import compile_plan, get_task
from policies import GatoPolicy
from policies.model.config import NetworkConfig
from policies.rollout.outcomes import EpisodeKey, EpisodeResult
from policies.rollout.vector_rollout import play
from policies.training.config import TrainConfig
from policies.training.data.packing import Mixture, Packer
from policies.training.data.shards import (
    TaskShard,
    moments,
    read_task_episodes,
    with_statistics,
    write_shard,
)
from policies.training.export import PROMPTED_SUITES, demonstration, write_checkpoint
from policies.training.loss import action_loss
from policies.training.optimizer import OptimiserConfig
from policies.training.trainer import Trainer, open_shards

BEGIN, END = "<!-- ablation: begin -->", "<!-- ablation: end -->"


COLUMNS = (
    "variant", "what", "steps", "parameters", "accuracy", "error",
    "babyai", "babyai_low", "babyai_high", "metaworld", "metaworld_low", "metaworld_high",
)  # fmt: skip


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
    values = {name: result[name] for name in COLUMNS[:6]}
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
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for values in lines:
            rounded = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in values.items()}
            writer.writerow(rounded)
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{page} has no place for the table: expected {BEGIN} and {END} once each")
    before, rest = text.split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{markdown(lines)}\n{END}{rest.split(END)[1]}")


TASKS = (
    "babyai-go-to-local", "babyai-pickup-loc",
    "metaworld-button-press-topdown", "metaworld-door-open", "metaworld-reach",
)  # fmt: skip
NETWORK = {
    "width": 64, "layers": 2, "heads": 2, "head_size": 32, "feed_forward": 128,
    "vector_hidden": 128, "text_rank": 16, "grid_channels": 16,
}  # fmt: skip
EPISODES = {"babyai": (2000, 200), "metaworld": (64, 16)}
"""Episodes of a task's dataset to train on, and the following ones to hold out."""
PROMPT_SHARE = {"babyai": 0.06, "metaworld": 0.75}
HELD_OUT_BATCHES = 16
MEASURED_STEPS = 10


@dataclass(frozen=True)
class Variant:
    """One network, by what differs from the first.

    Attributes:
        name: Of its folder and its line.
        what: The difference in words.
        layout: Of the tokens.
        memory: What later timesteps see, of every task; None for each task's own.
        network, mixture, training: Changes of the configurations.
    """

    name: str
    what: str
    layout: str = "lean"
    memory: str | None = None
    network: Mapping[str, Any] = field(default_factory=dict)
    mixture: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


HEADS = {"observation_heads": True}
PAPER = {"rows": 4, "length": 512}
PAPER_NETWORK = {"prompt_tokens": 160, "window": 512}
VARIANTS = (
    Variant("lean", "the defaults"),
    Variant("sigma-0", "labels not spread", training={"sigma": 0.0}),
    Variant("no-features", "no numeric features", network={"numeric_features": False}),
    Variant("memory-all", "past actions kept", memory="all"),
    Variant(
        "memory-all-drop", "past actions dropped, p = 0.5", memory="all",
        mixture={"action_drop": 0.5},
    ),
    Variant("memory-observations", "past actions hidden, observations kept", memory="observations"),
    Variant(
        "kappa-0.005", "next observation, weight 0.005", network=HEADS,
        training={"observation_weight": 0.005},
    ),
    Variant("depth-0.1", "stochastic depth 0.1", training={"depth_drop": 0.1}),
    Variant("noise-0.1", "noise 0.1 on observations", mixture={"observation_noise": 0.1}),
    Variant(
        "paper", "layout `paper`, all remembered", layout="paper", memory="all",
        network=PAPER_NETWORK, training=PAPER,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """A layout's episodes: those to train on and those held out, by task id."""

    training: dict[str, TaskShard]
    held_out: dict[str, TaskShard]

    def remembering(self, memory: str | None) -> Slice:
        """The same where later timesteps see something else."""
        if memory is None:
            return self
        return Slice(*(
            {task: _remembering(shard, memory) for task, shard in shards.items()}
            for shards in (self.training, self.held_out)
        ))  # fmt: skip


def _remembering(shard: TaskShard, memory: str) -> TaskShard:
    old = shard.plan
    options = dataclasses.replace(old.options, memory=memory)
    plan = compile_plan(old.observation_space, old.action_space, options)
    return TaskShard(shard.task, plan, shard.arrays, shard.group)


def make_slice(layout: str, root: Path, work: Path) -> Slice:
    """The episodes of a layout as shards, encoded if they are not there yet."""
    for task in TASKS:
        encode(task, layout, root, work)
    training, held_out = (
        open_shards(work / f"{part}-{layout}", sorted(EPISODES)) for part in ("train", "held-out")
    )
    return Slice(training, held_out)


def encode(task_id: str, layout: str, root: Path, work: Path) -> None:
    """Write a task's two shards; vectors are normalised by what is trained on."""
    folders = [work / f"{part}-{layout}" / task_id for part in ("train", "held-out")]
    if all((folder / "meta.json").exists() for folder in folders):
        return
    task = get_task(task_id)
    count, more = EPISODES[task.suite]
    episodes = list(read_task_episodes(task_id, root, limit=count + more))
    # the layout decides anew when text is emitted
    options = dataclasses.replace(task.options, layout=layout, text="")
    env = task.make()
    plan = compile_plan(env.observation_space, env.action_space, options)
    if plan.vector_length:
        options = with_statistics(options, [moments(plan, episodes[:count])])
        plan = compile_plan(env.observation_space, env.action_space, options)
    env.close()
    meta = {"task": task_id, "options": options.to_json(), "layout": layout}
    for folder, part in zip(folders, (episodes[:count], episodes[count:]), strict=True):
        write_shard(folder, plan, part, meta)


def configure(variant: Variant, steps: int) -> TrainConfig:
    """The configuration of a variant."""
    shape = {"rows": 8, "length": 256}
    return TrainConfig(
        network=NetworkConfig(**{**NETWORK, **variant.network}),
        mixture=Mixture(
            weights={"babyai": 0.5, "metaworld": 0.5},
            prompt_share=PROMPT_SHARE,
            **variant.mixture,
        ),
        optimiser=OptimiserConfig(warmup=max(1, min(100, steps // 10)), average=0.99),
        steps=steps,
        **{**shape, **variant.training},
    )


def steps_in(variant: Variant, shards: dict[str, TaskShard], folder: Path, seconds: float) -> int:
    """Updates that this much processor time is enough for."""
    trainer = Trainer(configure(variant, 1000), shards, folder, kept_every=None, device="cpu")
    for _ in range(2):
        trainer.update()
    begun = time.process_time()
    for _ in range(MEASURED_STEPS):
        trainer.update()
    return max(1, int(seconds * MEASURED_STEPS / (time.process_time() - begun)))


def held_out_errors(trainer: Trainer, shards: dict[str, TaskShard]) -> dict[str, float]:
    """How well held-out actions are said by the averaged weights, nothing changed in documents."""
    config, network = trainer.config, trainer.network
    mixture = dataclasses.replace(config.mixture, action_drop=0.0, observation_noise=0.0)
    packer = Packer(
        shards,
        {task: shard.group for task, shard in shards.items()},
        mixture,
        config.network,
        rows=config.rows,
        length=config.length,
        seed=1,
    )
    network.load_state_dict({**network.state_dict(), **trainer.optimiser.average})
    network.eval()
    sums = torch.zeros(9)
    with torch.no_grad():
        for index in range(HELD_OUT_BATCHES):
            batch = packer.batch(index)
            sums += action_loss(network, network(batch), batch.targets, sigma=config.sigma).sums
    network.train()
    errors = sums.tolist()
    return {"accuracy": errors[2] / errors[0], "error": errors[5] / errors[3]}


def run_variant(
    variant: Variant, parts: Slice, folder: Path, *, root: Path, steps: int, episodes: int
) -> dict[str, Any]:
    """Train one network, and play with it.

    Args:
        variant: What is trained.
        parts: The episodes.
        folder: Its own, which a network that was begun there goes on in.
        root: Folder of the datasets, for the demonstrations.
        steps: Updates.
        episodes: Of each task to play.

    Returns:
        Everything that the table is made of, as JSON values.
    """
    shards = parts.training
    trainer = Trainer(configure(variant, steps), shards, folder, kept_every=None, device="cpu")
    trainer.resume()
    trainer.run()
    errors = held_out_errors(trainer, parts.held_out)
    shown = {
        task: (demonstration(task, root), get_task(task).suite in PROMPTED_SUITES)
        for task in shards
    }
    write_checkpoint(folder, shards, shown, folder / "checkpoint")
    results = [r for task in TASKS for r in play_task(task, folder / "checkpoint", episodes)]
    return {
        "variant": variant.name,
        "what": variant.what,
        "steps": steps,
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        **errors,
        "episodes": [result.to_json() for result in results],
    }


class UntilSolved(gym.Wrapper[Any, Any, Any, Any]):
    """Ends an episode where it is solved: what comes after would say nothing more."""

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """As the environment's, and terminated once it reports success."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated or bool(info["success"]), truncated, info


def play_task(task_id: str, checkpoint: Path, episodes: int) -> list[EpisodeResult]:
    """The episodes of a task, always the same ones."""
    keys = [EpisodeKey(task_id, i, episode_seed(0, task_id, i)) for i in range(episodes)]
    task = get_task(task_id)
    envs = SyncVectorEnv(
        [lambda: UntilSolved(task.make())] * episodes, autoreset_mode=AutoresetMode.DISABLED
    )
    policy = GatoPolicy.load(checkpoint, env=envs)
    results = []
    for outcome in play(envs, policy, keys, deterministic=False):
        if not isinstance(outcome, EpisodeResult):
            raise RuntimeError(f"an episode of {task_id} failed: {outcome}")
        results.append(outcome)
    envs.close()
    return sorted(results, key=lambda result: result.key.index)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure what each option of training is worth.")
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--variants", nargs="+", choices=names, default=names)
    parser.add_argument("--seconds", type=float, default=120.0, help="of training, processor time")
    parser.add_argument("--episodes", type=int, default=16, help="of each task to play")
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--csv", type=Path, default=Path("docs/ablation.csv"))
    parser.add_argument("--page", type=Path, default=Path("docs/training.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    by_name = {variant.name: variant for variant in VARIANTS}
    for name in args.variants:
        folder = args.work / name
        if not (folder / "result.json").exists():
            _measure(by_name[name], folder, args)
    files = [args.work / name / "result.json" for name in names]
    results = [json.loads(path.read_text()) for path in files if path.exists()]
    write_table(results, args.csv, args.page)


def _measure(variant: Variant, folder: Path, args: argparse.Namespace) -> None:
    parts = make_slice(variant.layout, args.root, args.work).remembering(variant.memory)
    budget = args.work / "steps.json"
    known = json.loads(budget.read_text()) if budget.exists() else {}
    if variant.layout not in known:
        measured = steps_in(variant, parts.training, folder / "measuring", args.seconds)
        known[variant.layout] = measured
        shutil.rmtree(folder / "measuring", ignore_errors=True)
        budget.write_text(json.dumps(known))
    steps = known[variant.layout]
    print(f"{variant.name}: {steps} steps", flush=True)
    result = run_variant(
        variant, parts, folder, root=args.root, steps=steps, episodes=args.episodes
    )
    temporary = folder / "result.json.partial"
    temporary.write_text(json.dumps(result))
    temporary.replace(folder / "result.json")
    solved = [e["success"] for e in result["episodes"]]
    print(
        f"{variant.name}: success {sum(solved) / len(solved):.3f}, "
        f"held-out accuracy {result['accuracy']:.3f}, error {result['error']:.4f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
