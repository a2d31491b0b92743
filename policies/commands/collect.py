"""The command ``gato-gym collect``: experts' episodes as Minari datasets, ``gato/<task id>-v0``.

    gato-gym collect --suite babyai --episodes 200
    gato-gym collect --suite babyai --steps 24000 --noise 0.2
    gato-gym collect --suite metaworld --episodes 80 --noise 0.8 \\
        --steps-after-success 40
    gato-gym collect --suite mujoco --episodes 100 --noise 0.3
    gato-gym collect --tasks atari-pong --steps 100000 --policy random

* :func:`main` -- runs it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from gato_gym.tasks import SUITES, list_tasks
from policies.collection.collect import collect, with_experts
from policies.collection.jobs import CollectSettings
from policies.collection.recorder import POLICIES, RecordSettings
from policies.expert_training.recipes import RECIPES
from policies.processes import WorkerError


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="gato-gym collect",
        description="Collect experts' episodes as Minari datasets.",
    )
    add = parser.add_argument
    add("--suite", choices=SUITES, default=None, help="default: all suites")
    add("--tasks", default=None, help="pattern of task ids, such as 'go-to-*'")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--episodes", type=int, default=None, help="a task (default 200)")
    amount.add_argument("--steps", type=int, default=None, help="recorded steps a task, at least")
    add("--policy", choices=POLICIES, default="expert", help="who plays (default: expert)")
    add("--noise", type=float, default=0.0, help="execute noise, record the expert's own actions")
    add("--steps-after-success", type=int, default=None, help="default: record to the end")
    add("--expert-episodes", type=int, default=20, help="that measure the expert's return")
    add("--workers", type=int, default=None, help="processes (default: one a core)")
    add("--time-limit", type=float, default=300.0, help="seconds a step may take (default: 300)")
    add("--seed", type=int, default=0)
    add("--root", type=Path, default=Path("data"), help="folder of the datasets (default: data)")
    add("--overwrite", action="store_true", help="replace datasets that other settings made")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_arguments(arguments)
    console = Console(soft_wrap=True)
    try:
        settings = CollectSettings(
            root=args.root,
            record=RecordSettings(
                seed=args.seed,
                noise=args.noise,
                steps_after_success=args.steps_after_success,
                policy=args.policy,
            ),
            episodes=args.episodes if args.steps or args.episodes else 200,
            steps=args.steps,
            expert_episodes=args.expert_episodes,
            time_limit=args.time_limit,
        )
        tasks = list_tasks(args.suite, args.tasks)
        if args.policy == "expert":
            tasks = with_experts(tasks, console, trainable=RECIPES)
        collect(tasks, settings, workers=args.workers, overwrite=args.overwrite, console=console)
    except KeyboardInterrupt:
        console.print("stopped: run the same command again to go on")
        return 130
    except (ValueError, ImportError, WorkerError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
