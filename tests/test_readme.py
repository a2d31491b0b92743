"""The code in README.md and in docs/ runs as it is written there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from run_scripts import run_script

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")


def blocks() -> list[tuple[str, str]]:
    return [
        (f"{page.name}-{number}", block)
        for page in PAGES
        for number, block in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), start=1)
    ]


def test_the_readme_opens_with_the_two_commands_and_the_example() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    assert text.index("make demo") < text.index("make test") < text.index("evaluate_policy(policy")
    assert len(BLOCK.findall(text)[0].strip().splitlines()) == 12


@pytest.mark.parametrize(("name", "block"), blocks(), ids=[name for name, _ in blocks()])
def test_code_runs(name: str, block: str, tmp_path: Path) -> None:
    run_block(block, tmp_path / f"{name.replace('.', '_')}.py")


def run_block(block: str, script: Path) -> str:
    """What a block prints."""
    script.write_text(block, encoding="utf-8")
    return run_script(script, script.parent)


def test_three_recorded_episodes_are_enough_to_dock(tmp_path: Path) -> None:
    """The ship of seed 0 begins 0.55 from its place; at rest within 0.2 of it is docked."""
    text = PAGES[0].read_text(encoding="utf-8")
    (block,) = [each for each in BLOCK.findall(text) if "Docking" in each]
    assert text.index("class Docking") < text.index("## Installing")
    _, _, numbers = run_block(block, tmp_path / "docking.py").partition("end: [")
    place, speed = map(float, numbers.rstrip("]\n").split())
    assert abs(place) < 0.2
    assert abs(speed) < 0.2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_commands_name_modules_and_make_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for module in re.findall(r"python -m (?!rl_zoo3)([\w.]+)", text):
            path = ROOT.joinpath(*module.split("."))
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
        for target in re.findall(r"^make ([\w.]+)", text, re.MULTILINE):
            assert f"\n{target}: " in makefile, target
