"""The documentation site: no warning, nothing from elsewhere, the whole public interface."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gato_gym
import policies

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=\"([^\"]+)", text)
        assert [address for address in loaded if "//" in address] == [], page
    assert "gato-mini.webp" in (site / "index.html").read_text(encoding="utf-8")
    assert (site / "gato-mini.webp").is_file()


@pytest.mark.parametrize("package", [gato_gym, policies], ids=lambda package: package.__name__)
def test_the_reference_has_every_public_name(package: object, site: Path) -> None:
    name = package.__name__  # type: ignore[attr-defined]
    text = (site / "reference" / name / "index.html").read_text(encoding="utf-8")
    shown = set(re.findall(rf'id="{name}\.(\w+)"', text))
    assert shown >= set(package.__all__)  # type: ignore[attr-defined]
    assert not re.search(r":(?:class|func|mod|meth|data|attr):", text)
    assert "&gt;&gt;&gt;" in text
