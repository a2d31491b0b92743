"""Write the table of ``docs/experts.md`` from the shipped experts and the measured references.

python scripts/experts_page.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.references import TaskReferences, measured, published
from gato_gym.commands.common import exit_status
from gato_gym.files.bounded_io import read_text
from gato_gym.tasks import list_tasks
from policies.expert_training.recipes import RECIPES
from policies.expert_training.shipping import share_of_bar
from policies.experts.store import SHIPPED, read_config

PAGE = Path(__file__).parents[1] / "docs" / "experts.md"
BEGIN, END = "<!-- table: scripts/experts_page.py -->", "<!-- end of table -->"


def row(task: str, references: TaskReferences) -> str:
    """A task's line; dashes where no expert is shipped yet."""
    folder, recipe = SHIPPED / task, RECIPES[task]
    digits = 1 if abs(recipe.bar) < 1000 else 0
    random = f"{references.random.mean:.{digits}f}" if references.random else "–"
    jat = published().get(task, TaskReferences()).expert
    bar = jat.mean if jat is not None and task.startswith("mujoco-") else recipe.bar
    if not (folder / "config.json").is_file():
        return f"| {task} | – | – | – | {random} | – | {bar:.{digits}f} | – |"
    config = read_config(folder)
    score = references.expert
    mean = config["score"]["mean"] if score is None else score.mean
    spread = config["score"]["std"] if score is None else (score.std or 0.0)
    note = "" if score is not None else " *"
    if score is not None and score.distinct is not None:
        note = f" ({score.distinct} of {score.episodes} distinct)"
    return (
        f"| {task} | {config['algorithm']} | {config['best_steps'] / 1e6:.1f} M | "
        f"{config['minutes']:.0f} | {random} | {mean:.{digits}f} ± {spread:.{digits}f}{note} | "
        f"{bar:.{digits}f} | {share_of_bar(mean, bar):.2f} |"
    )


def table() -> list[str]:
    """A line for each task of the trained suites."""
    lines = [
        "| task | algorithm | steps | minutes | random | expert | bar | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for suite in ("mujoco", "dm_control", "atari"):
        references = measured(suite)
        for task in list_tasks(suite):
            lines.append(row(task.id, references.get(task.id, TaskReferences())))
    return lines


def main() -> None:
    """Replace the table between the two marks."""
    text = read_text(PAGE)
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text("\n".join([before + BEGIN, *table(), END]) + after)
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
