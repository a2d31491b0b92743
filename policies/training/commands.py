"""The commands ``gato-gym train``, ``record``, ``score`` and ``import``: a network of your own.

* :func:`main` -- runs one of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from policies.command_line import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status: 0, 1 where something failed, 130 after Ctrl-C."""
    return run_command(_parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gato-gym", description="A network of your own.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_train(commands)
    _add_record(commands)
    _add_score(commands)
    rows = commands.add_parser(
        "import",
        help="episodes in the JAT dataset's schema as a Minari dataset",
        description="Turn rows of the JAT dataset's schema, one an episode, into a Minari dataset.",
    )
    rows.set_defaults(run=_import)
    rows.add_argument("source", help="a .parquet or .jsonl file, a folder, or jat:TASK of the hub")
    rows.add_argument("--dataset", required=True, metavar="ID", help="such as jat/halfcheetah-v0")
    rows.add_argument("--env", metavar="ENV_ID", help="gives spaces and id (default: inferred)")
    return parser


def _add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="train a network on your own episodes",
        description="Train a network on Minari datasets. Stopped at any moment, the same command "
        "goes on where it was.",
    )
    train.set_defaults(run=_train)
    add = train.add_argument
    add("--dataset", nargs="+", required=True, metavar="ID", help="Minari ids or paths")
    add("--text", nargs="+", type=Path, default=[], metavar="FILE", help="texts: .jsonl, .txt")
    add(
        "--pairs", nargs="+", type=Path, default=[], metavar="FILE", help="images and texts: .jsonl"
    )
    add("--output", type=Path, required=True, help="folder of the run")
    add("--preset", default="mini", help="tiny, mini (default), small, 79m, 364m, 1.18b")
    amount = train.add_mutually_exclusive_group()
    amount.add_argument("--steps", type=int, help="updates (default: 2000)")
    amount.add_argument("--minutes", type=float, help="time for updates, measured at the start")
    add("--layout", choices=("lean", "paper"), help="of the tokens (default: lean)")
    add("--memory", choices=("all", "observations", "none"), help="what later timesteps see")
    add("--options", type=json.loads, default={}, help="other PlanOptions, as JSON")
    add("--keep", type=float, default=0.8, help="least share of the expert's return; 0: all")
    add(
        "--weights",
        type=json.loads,
        default={},
        help='of tasks and texts, as JSON: {"CartPole-v1": 2}',
    )
    add("--prompt-share", type=float, default=0.25, help="of documents (default: 0.25)")
    add("--prompt-end", type=float, default=0.5, help="of prompts, episodes' ends (default: 0.5)")
    add("--optimiser", choices=("muon", "adamw", "paper"), help="paper: as published")
    add("--rows", type=int, help="packed sequences of a batch (default: 8)")
    add("--length", type=int, help="tokens of a sequence (default: 256)")
    add("--accumulate", type=int, help="parts of a batch, for less memory (default: 1)")
    add("--recompute", action="store_true", help="activations, for less memory")
    add("--precision", choices=("float32", "bfloat16"), default="float32")
    add("--device", default="auto", help="cpu, cuda (default: auto)")
    add("--attention", choices=("auto", "dense", "flex"), default="auto", help="flex: GPUs alone")
    add("--threads", type=int, help="of a CPU (default: 1 for tiny, else all cores)")
    add("--fsdp", action="store_true", help="under torchrun: each process holds a part (FSDP2)")
    add("--tensorboard", action="store_true", help="write its events as well")
    add("--score-every", type=int, metavar="N", help="play tasks every N steps (default: never)")
    add("--score-tasks", nargs="+", default=(), metavar="ID", help="which (default: all)")
    add("--score-episodes", type=int, default=5, metavar="N", help="of each (default: 5)")
    add("--seed", type=int, default=0)
    add("--dry-run", action="store_true", help="encode, print the mixture, and stop")
    _add_loss_options(train)


def _add_loss_options(train: argparse.ArgumentParser) -> None:
    group = train.add_argument_group("loss and regularisation, measured in docs/training.md")
    add = group.add_argument
    add("--sigma", type=float, default=4.0, help="bins a label is spread over (default: 4; 0: one)")
    add(
        "--observation-weight", type=float, default=0.0, metavar="SHARE",
        help="of the loss, for predicting the next observation (default: 0; JAT: 0.005)",
    )  # fmt: skip
    add("--action-drop", type=float, default=0.0, metavar="P", help="of past actions, memory all")
    add("--depth-drop", type=float, default=0.0, metavar="P", help="stochastic depth (paper: 0.1)")
    add("--observation-noise", type=float, default=0.0, metavar="STD", help="of their numbers")
    add(
        "--numeric-features", action=argparse.BooleanOptionalAction, default=True,
        help="in embeddings of continuous values",
    )  # fmt: skip


def _add_record(commands: Any) -> None:
    record = commands.add_parser(
        "record",
        help="record a policy's episodes as a Minari dataset",
        description="Record episodes of a policy. A Stable-Baselines3 .zip holds pickles: reading "
        "it runs whatever code its author put in.",
    )
    record.set_defaults(run=_record)
    add = record.add_argument
    add("environment", metavar="ENV_ID", help="such as CartPole-v1, or module:ENV_ID")
    add("--policy", required=True, help="model.zip, expert, random, a folder, or module:factory")
    add("--algorithm", help="of a .zip: ppo, a2c, dqn, sac, td3, ddpg")
    add("--trust-zip", action="store_true", help="I trust the archive's author")
    add("--episodes", type=int, default=100, help="default: 100")
    add("--dataset", required=True, metavar="ID", help="such as my/cartpole-v0")
    add("--stochastic", action="store_true", help="sample the policy's actions")
    add("--noise", type=float, default=0.0, help="executed, not recorded: 0 (default) to 1")
    add("--overwrite", action="store_true", help="replace a dataset of this id")
    add("--seed", type=int, default=0)


def _add_score(commands: Any) -> None:
    score = commands.add_parser(
        "score",
        help="a policy's return beside chance's and the expert's",
        description="Play a policy in any environment. The tasks of this package have a benchmark "
        "of their own, python -m benchmarks.run.",
    )
    score.set_defaults(run=_score)
    add = score.add_argument
    add("environment", metavar="ENV_ID")
    add("--policy", required=True, help="a run's or checkpoint's folder, or as in record")
    add("--algorithm", help="of a .zip")
    add("--trust-zip", action="store_true", help="I trust the archive's author")
    add("--dataset", metavar="ID", help="whose expert it is compared with")
    add("--episodes", type=int, default=20, help="default: 20")
    add("--stochastic", action="store_true", help="sample the policy's actions")


def _train(args: argparse.Namespace, console: Console) -> int:
    import torch

    from policies.training.own import OwnRun, OwnSettings

    threads = args.threads or (1 if args.preset == "tiny" else torch.get_num_threads())
    torch.set_num_threads(threads)
    left = ("command", "run", "dry_run", "threads")
    given = {k: v for k, v in vars(args).items() if k not in left}
    given["score_tasks"] = tuple(given["score_tasks"])
    datasets, texts, pairs = (tuple(given.pop(name)) for name in ("dataset", "text", "pairs"))
    run = OwnRun(OwnSettings(datasets=datasets, texts=texts, pairs=pairs, **given), console)
    run.describe()
    if args.dry_run:
        console.print("nothing was trained: leave out --dry-run to do so")
        return 0
    run.train()
    first = run.tasks[0].id
    console.print(
        f"{args.output} holds the network. Next:\n"
        f"  gato-gym score {first} --policy {args.output} --dataset {args.dataset[0]}\n"
        f'  GatoPolicy.load("{args.output}", env=gym.make("{first}"))',
        highlight=False,
        markup=False,
    )
    return 0


def _import(args: argparse.Namespace, console: Console) -> int:
    import gato_gym
    from gato_gym.jat import import_rows, read_rows

    env = None if args.env is None else gato_gym.make(args.env)
    returns = import_rows(read_rows(args.source), args.dataset, env=env)
    console.print(
        f"{args.dataset}: {len(returns)} episodes, mean return {sum(returns) / len(returns):.2f}",
        highlight=False,
    )
    return 0


def _record(args: argparse.Namespace, console: Console) -> int:
    import numpy as np
    from rich.progress import Progress

    import gato_gym
    from policies.training.playing import load_player, record_episodes

    env = gato_gym.make(args.environment)
    policy = load_player(args.policy, env, algorithm=args.algorithm, trust_zip=args.trust_zip)
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("episodes", total=args.episodes)
        returns = record_episodes(
            env,
            policy,
            args.episodes,
            args.dataset,
            seed=args.seed,
            deterministic=_likeliest(policy, args),
            noise=args.noise,
            replace=args.overwrite,
            on_episode=lambda _: progress.advance(bar),
        )
    env.close()
    console.print(
        f"{args.dataset}: {len(returns)} episodes, return {np.mean(returns):.2f} ± "
        f"{np.std(returns):.2f}. Next:\n"
        f"  gato-gym train --dataset {args.dataset} --output runs/mine",
        highlight=False,
        markup=False,
    )
    return 0


def _likeliest(policy: Any, args: argparse.Namespace) -> bool:
    return not (args.stochastic or getattr(policy, "samples", False))


def _score(args: argparse.Namespace, console: Console) -> int:
    import numpy as np
    import torch

    import gato_gym
    from gato_gym.episodes import find_minari
    from policies.training.playing import load_player, play_returns

    torch.set_num_threads(1)  # one environment at a time: more threads would wait for each other
    env = gato_gym.make(args.environment)
    policy = load_player(args.policy, env, algorithm=args.algorithm, trust_zip=args.trust_zip)
    chance = load_player("random", env)
    found = play_returns(env, policy, args.episodes, deterministic=_likeliest(policy, args))
    least = play_returns(env, chance, args.episodes)
    env.close()
    mean, low = float(np.mean(found)), float(np.mean(least))
    console.print(f"random  {low:10.2f} ± {np.std(least):.2f}", highlight=False)
    console.print(f"policy  {mean:10.2f} ± {np.std(found):.2f}", highlight=False)
    expert = None
    if args.dataset is not None:
        expert = find_minari(args.dataset).storage.metadata.get("expert_return")
        if expert is None:
            raise ValueError(
                f"dataset {args.dataset!r} holds no expert_return: record it with gato-gym record"
            )
        console.print(f"expert  {float(expert):10.2f}", highlight=False)
        score = (mean - low) / (float(expert) - low) if float(expert) > low else float("nan")
        console.print(f"score   {score:10.3f}  (policy - random) / (expert - random)")
    console.print(f"{args.episodes} episodes each, seeds 0 to {args.episodes - 1}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
