"""Families by name.

* :func:`find_family` -- one of :data:`policies.training.settings.FAMILIES`.
"""

from __future__ import annotations

from typing import Any

from policies.training.families.dt import DtFamily
from policies.training.families.family import Family
from policies.training.families.gato import GatoFamily
from policies.training.families.jat import JatFamily
from policies.training.families.tt import TtFamily

_BY_NAME: dict[str, Family[Any, Any, Any, Any]] = {
    family.name: family for family in (GatoFamily(), JatFamily(), DtFamily(), TtFamily())
}


def find_family(name: str) -> Family[Any, Any, Any, Any]:
    """The family of a name.

    Raises:
        ValueError: There is none.

    Example:
        >>> find_family("jat").backbone
        'transformer.h.'
    """
    if name not in _BY_NAME:
        raise ValueError(f"family {name!r} is unknown: choose one of {', '.join(_BY_NAME)}")
    return _BY_NAME[name]
