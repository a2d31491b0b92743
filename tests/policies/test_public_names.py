"""What ``policies`` exports, although most of it is imported on first use."""

from __future__ import annotations

import importlib

import pytest

import policies


@pytest.mark.parametrize("name", policies.__all__)
def test_every_listed_name_is_exported(name: str) -> None:
    exported = getattr(policies, name)
    home = importlib.import_module(exported.__module__)
    assert getattr(home, name) is exported
    assert exported.__module__.startswith("policies.")


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Gato'"):
        getattr(policies, "Gato")  # noqa: B009
