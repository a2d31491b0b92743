"""What each suite's environments are simulated by.

* :data:`SIMULATORS` -- packages by suite; :func:`installed_versions` -- their versions.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

SIMULATORS = {
    "atari": ("ale-py",),
    "babyai": ("minigrid",),
    "dm_control": ("dm_control", "mujoco", "shimmy"),
    "metaworld": ("metaworld", "mujoco"),
    "mujoco": ("gymnasium", "mujoco"),
}
"""Packages whose versions decide a suite's episodes, beside Gymnasium's wrappers."""


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Version of each of ``packages``; ``"absent"`` for one that is not installed."""
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return versions
