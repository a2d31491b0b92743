"""What studies write is asked for before the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.studies import memory, offline, reinforce, unseen_tasks
from benchmarks.studies.plots import check_page, fill_page


def test_a_table_is_written_between_its_comments(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a: begin -->\nold\n<!-- a: end -->\nafter\n")
    check_page(page, "a")
    fill_page(page, "a", "| new |")
    text = "before\n<!-- a: begin -->\n| new |\n<!-- a: end -->\nafter\n"
    assert page.read_text() == text
    with pytest.raises(ValueError, match="no place for the table: expected <!-- b: begin -->"):
        check_page(page, "a", "b")


@pytest.mark.parametrize("study", [memory, offline, reinforce, unseen_tasks])
def test_a_page_that_is_not_there_is_said_before_any_work(study: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.md is not there: expected the page"):
        study.main(work=tmp_path / "work", page=tmp_path / "nowhere.md")
    assert not (tmp_path / "work").exists()
