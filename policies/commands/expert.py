"""The command ``gato-gym expert``: train experts, score, convert and ship them.

* :func:`main` -- ``train``, ``score``, ``convert`` and ``ship``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from gato_gym.commands.common import run_command

ROOT = Path("runs/experts")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status: 0, 1 where something failed, 130 after Ctrl-C."""
    return run_command(_parser(), arguments, stopped="stopped: run the same command again to go on")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gato-gym expert", description="Experts of the tasks.")
    commands = parser.add_subparsers(dest="command", required=True)

    train = commands.add_parser(
        "train",
        help="train the expert of a task, or of a whole suite",
        description="Train an expert; run again, it resumes where it stopped. With --suite, a "
        "pattern or neither, tasks whose expert is missing or below its bar are trained, the "
        "cheapest first: those without any expert for a while, then all up to their recipe's end.",
    )
    train.set_defaults(run=_train)
    train.add_argument("task", nargs="?", help="task id or pattern (default: all)")
    train.add_argument("--suite", help="every task of a suite that has a recipe")
    train.add_argument("--seed", type=int, default=0, help="default: 0")
    train.add_argument("--steps", type=float, help="actions to learn from (default: the recipe's)")
    train.add_argument("--output", type=Path, help=f"default: {ROOT}/TASK")
    train.add_argument(
        "--from-expert",
        action="store_true",
        help="begin with the package's expert of the task rather than with nothing; SAC's alone",
    )
    train.add_argument(
        "--device",
        default="cpu",
        choices=("cpu", "cuda"),
        help="where PPO learns; a GPU is quicker for Atari alone (default: cpu)",
    )
    train.add_argument("--jobs", type=int, default=1, help="trainings side by side (default: 1)")
    train.add_argument(
        "--threads", type=int, default=1, help="threads of each that play games (default: 1)"
    )
    train.add_argument(
        "--minutes",
        type=float,
        help="stop after so many, to be resumed (default: when all is done)",
    )
    train.add_argument(
        "--ship", action="store_true", help="put what is better into the package when it is done"
    )
    train.add_argument("--tensorboard", action="store_true", help="write its events as well")

    status = commands.add_parser(
        "status",
        help="where each training stands",
        description="A table of the tasks whose experts are trained.",
    )
    status.set_defaults(run=_status)
    status.add_argument("task", nargs="?", help="task id or pattern (default: all)")
    status.add_argument("--suite", help="tasks of one suite")

    score = commands.add_parser(
        "score",
        help="an expert's return",
        description="Play an expert in held-out episodes.",
    )
    score.set_defaults(run=_score)
    score.add_argument("task", help="task id, such as mujoco-hopper")
    score.add_argument("--episodes", type=int, default=100, help="default: 100")
    score.add_argument("--expert", type=Path, help="its folder (default: the shipped one)")

    convert = commands.add_parser(
        "convert",
        help="an SB3 .zip into an expert",
        description="Convert a Stable-Baselines3 .zip to safetensors and JSON. A .zip is a "
        "pickle: reading it runs whatever code its author put in.",
    )
    convert.set_defaults(run=_convert)
    convert.add_argument("zip", type=Path, help="the archive")
    convert.add_argument("--task", required=True, help="task id it plays")
    convert.add_argument("--algorithm", required=True, choices=("a2c", "ppo", "sac"))
    convert.add_argument("--output", type=Path, required=True, help="folder of the expert")
    convert.add_argument("--trust-zip", action="store_true", help="I trust the archive's author")

    ship = commands.add_parser(
        "ship",
        help="put finished experts into the package",
        description="Copy finished experts and their curves to policies/experts/trained, where "
        "they score more than what is there.",
    )
    ship.set_defaults(run=_ship)
    ship.add_argument("tasks", nargs="?", help="ids or patterns (default: all that are finished)")
    return parser


def _train(args: argparse.Namespace, console: Console) -> int:
    from policies.expert_training.queue import TrainQueue, chosen

    tasks = chosen(args.suite, args.task)
    if args.output is not None and len(tasks) > 1:
        raise ValueError(f"--output with {len(tasks)} tasks: it names the folder of one training")
    queue = TrainQueue(
        tasks,
        root=ROOT,
        output=args.output,
        steps=None if args.steps is None else int(args.steps),
        seed=args.seed,
        tensorboard=args.tensorboard,
        from_expert=args.from_expert,
        device=args.device,
        jobs=args.jobs,
        threads=args.threads,
        minutes=args.minutes,
        ships=args.ship,
    )
    return queue.run(console)


def _status(args: argparse.Namespace, console: Console) -> int:
    from rich.table import Table

    from policies.expert_training.queue import chosen, standings

    table = Table("task", "actions", "of", "best", "bar", "minutes", "shipped, of its bar", "")
    for row in standings(chosen(args.suite, args.task), ROOT):
        table.add_row(
            row.task,
            f"{row.steps:,}",
            f"{row.recipe_steps:,}",
            "–" if row.best is None else f"{row.best:.1f}",
            f"{row.bar:g}",
            f"{row.minutes:.1f}",
            "–" if row.shipped is None else f"{row.shipped:.2f}",
            row.finished or "",
        )
    console.print(table)
    return 0


def _score(args: argparse.Namespace, console: Console) -> int:
    from gato_gym.seeds import SCORE_SEEDS_START
    from gato_gym.tasks import get_task
    from policies.expert_training.evaluation import EVALUATION_ROWS, Evaluation, evaluate
    from policies.expert_training.recipes import recipe_for
    from policies.experts import load_trained
    from policies.experts.store import shipped_folder

    task = get_task(args.task)
    if args.expert is None and not shipped_folder(task.id).is_dir():
        recipe_for(task.id)  # a task without a recipe says so
    envs = [task.make() for _ in range(EVALUATION_ROWS)]
    spaces = envs[0].observation_space, envs[0].action_space
    policy = load_trained(task.id, *spaces, folder=args.expert)
    evaluation = Evaluation.of(evaluate(policy, envs, args.episodes, first_seed=SCORE_SEEDS_START))
    episodes = f"{evaluation.episodes} episode{'' if evaluation.episodes == 1 else 's'}"
    console.print(
        f"{task.id}: {evaluation.mean:.2f} ± {evaluation.std:.2f} over {episodes}, seeds from "
        f"{SCORE_SEEDS_START}",
        highlight=False,
    )
    return 0


def _convert(args: argparse.Namespace, console: Console) -> int:
    from gato_gym.tasks import get_task
    from policies.expert_training.sb3.convert import load_zip
    from policies.experts.store import play_with, save_expert

    task = get_task(args.task)
    network = load_zip(args.zip, args.algorithm, trusted=args.trust_zip)
    env = task.make()
    play_with(network, env.observation_space, env.action_space)  # fits, or says why not
    save_expert(args.output, network, {"task": task.id, "algorithm": args.algorithm})
    console.print(f"wrote {args.output}", highlight=False)
    return 0


def _ship(args: argparse.Namespace, console: Console) -> int:
    from policies.expert_training.queue import chosen
    from policies.expert_training.shipping import ship

    said = {task: ship(ROOT / task, task) for task in chosen(None, args.tasks)}
    finished = {task: line for task, line in said.items() if line is not None}
    for task, line in finished.items():
        console.print(f"{task}: {line}", highlight=False)
    if not finished:
        raise ValueError(
            f"{ROOT} holds no finished training of {args.tasks or 'any task'}: "
            "gato-gym expert train TASK makes one"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
