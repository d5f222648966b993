"""Architectures by name: the ones in this folder and those that outside packages register."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from torch import nn

from scisci.contracts.errors import UserError, unknown_name

ENTRY_POINTS = "scisci.models"
SHIPPED = ("nequip", "mpnn", "transformer")
T = TypeVar("T", bound=type[nn.Module])
_registered: dict[str, type[nn.Module]] = {}


def register(name: str) -> Callable[[T], T]:
    """Class decorator that makes a backbone known under `name`.

    The class carries `symmetry` (group → claim) and `SIZES` (size → keyword arguments).
    """

    def add(cls: T) -> T:
        _registered[name] = cls
        return cls

    return add


def _outside() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def architectures() -> list[str]:
    """Names of all architectures."""
    return sorted({*SHIPPED, *_outside(), *_registered})


def get(name: str) -> type[Any]:
    """The backbone class registered under `name`; an unknown name is a `UserError` with the closest ones."""
    if name not in architectures():
        raise unknown_name("architecture", name, architectures())
    if name in SHIPPED:
        import_module(f"scisci.models.{name}")
    elif name not in _registered:
        _registered[name] = _outside()[name].load()
    return _registered[name]


def preset(name: str, size: str) -> dict[str, Any]:
    """Keyword arguments of an architecture's size; an unknown size is a `UserError` with the closest ones."""
    sizes = get(name).SIZES
    if size not in sizes:
        raise unknown_name(f"size of {name}", size, sizes)
    return dict(sizes[size])


def options(name: str, size: str, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """A size's keyword arguments with `overrides` applied; an option the architecture lacks is a `UserError`."""
    known = set(inspect.signature(get(name).__init__).parameters) - {"self", "elements", "average_neighbors"}
    for key in overrides or {}:
        if key not in known:
            raise unknown_name(f"option of {name}", key, known)
    return preset(name, size) | (overrides or {})


def build(name: str, elements: tuple[int, ...], average_neighbors: float, **kwargs: Any) -> nn.Module:
    """Construct a backbone; what its constructor refuses is a `UserError`."""
    try:
        return get(name)(elements=elements, average_neighbors=average_neighbors, **kwargs)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} cannot be built with {kwargs}: {error}") from error


def default(name: str, option: str) -> Any:
    """The default value of an architecture's option."""
    return inspect.signature(get(name).__init__).parameters[option].default
