"""The code in README.md and in docs/ runs as it is written there, and its commands are ones."""

from __future__ import annotations

import re
import shlex
from functools import partial
from importlib import import_module
from pathlib import Path

import gymnasium as gym
import pytest
from run_scripts import run_script

from gato_gym.commands.common import parse
from gato_gym.commands.main import find_commands, main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )*(?:torchrun .*-m gato_gym|python -m|gato-gym) (\S+)(.*)$")
LINK = re.compile(r"\]\(([^)#:]+)\)")


def blocks() -> list[tuple[str, str]]:
    return [
        (f"{page.name}-{number}", block)
        for page in PAGES
        for number, block in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), start=1)
    ]


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """The command lines of a page: a subcommand of gato-gym or a module, and its arguments."""
    lines = "\n".join(SHELL.findall(page.read_text(encoding="utf-8"))).replace("\\\n", " ")
    matches = filter(None, map(COMMAND.match, lines.splitlines()))
    return [(match[1], shlex.split(match[2], comments=True)) for match in matches]


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


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda p: p.name)
def test_commands_have_the_flags_that_pages_give_them(page: Path) -> None:
    for name, arguments in commands(page):
        if name in find_commands():
            parse(find_commands()[name].load(), arguments, prog=name)
        elif name != "rl_zoo3.train" and arguments[:1] != ["gpu"]:  # parsers of their own
            package = (ROOT / name.replace(".", "/") / "__main__.py").exists()
            module = import_module(f"{name}.__main__" if package else name)
            if isinstance(getattr(module, "main", None), partial):
                parse(module.main.args[0], arguments, prog=name)


def test_an_environment_of_ones_own_is_learned_by_the_commands_of_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = ROOT / "docs" / "guides" / "environment.md"
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    (tmp_path / "harbour.py").write_text(blocks[1], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.delitem(gym.registry, "Docking-v0", raising=False)  # of the page's block alone
    smaller = {"--minutes": ["--steps", "3"], "--episodes": ["--episodes", "2"]}
    names = []
    for name, arguments in commands(page):
        for flag, replacement in smaller.items():
            if flag in arguments:
                place = arguments.index(flag)
                arguments[place : place + 2] = replacement
        names.append(name)
        assert main([name, *arguments]) == 0
    assert names == ["record", "train", "score"]


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
