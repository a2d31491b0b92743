"""The command ``gato-gym score``: a policy's return beside chance's and the expert's.

* :func:`main` -- runs it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from gato_gym.commands.common import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, 1 where something failed, 130 after Ctrl-C."""
    return run_command(_parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gato-gym", description="A network of your own.")
    _add_score(parser.add_subparsers(dest="command", required=True))
    return parser


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


def _score(args: argparse.Namespace, console: Console) -> int:
    import numpy as np
    import torch

    import gato_gym
    from gato_gym.episodes.minari_datasets import find_minari
    from policies.collection.record import likeliest, play_returns
    from policies.registry import make_policy

    torch.set_num_threads(1)  # one environment at a time: more threads would wait for each other
    env = gato_gym.make(args.environment)
    policy = make_policy(args.policy, env=env, algorithm=args.algorithm, trust_zip=args.trust_zip)
    chance = make_policy("random", env=env)
    choice = likeliest(policy, stochastic=args.stochastic)
    returns = play_returns(env, policy, args.episodes, deterministic=choice)
    least = play_returns(env, chance, args.episodes)
    env.close()
    mean, low = float(np.mean(returns)), float(np.mean(least))
    console.print(f"random  {low:10.2f} ± {np.std(least):.2f}", highlight=False)
    console.print(f"policy  {mean:10.2f} ± {np.std(returns):.2f}", highlight=False)
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
