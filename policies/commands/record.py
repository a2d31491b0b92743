"""The command ``gato-gym record``: a policy's episodes as a Minari dataset.

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
    _add_record(parser.add_subparsers(dest="command", required=True))
    return parser


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


def _record(args: argparse.Namespace, console: Console) -> int:
    import numpy as np
    from rich.progress import Progress

    import gato_gym
    from policies.collection.record import likeliest, record_episodes
    from policies.registry import make_policy

    env = gato_gym.make(args.environment)
    policy = make_policy(args.policy, env=env, algorithm=args.algorithm, trust_zip=args.trust_zip)
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("episodes", total=args.episodes)
        returns = record_episodes(
            env,
            policy,
            args.episodes,
            args.dataset,
            seed=args.seed,
            deterministic=likeliest(policy, stochastic=args.stochastic),
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


if __name__ == "__main__":
    sys.exit(main())
