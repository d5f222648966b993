"""Architectures by name: the ones in this folder and those that outside packages register."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from torch import nn

from scisci.contracts.errors import UserError, unknown_name
from scisci.models.blocks.graph import Inputs

ENTRY_POINTS = "scisci.models"
SHIPPED = (
    *("nequip", "mpnn", "transformer", "schnet", "painn", "egnn", "esen", "mace", "ponita", "equiformer", "escaip"),
    *("dpa3", "deepsets", "pointnet", "gin"),
    *("dlinear", "fernn"),
    *("patch_encoder", "patch_decoder", "time_moe", "channel_mixer", "tcn"),
)
# Arguments of architectures that data and task decide.
GIVEN = {"self", "inputs", "average_neighbors", "vector_output", "context", "horizon"}
# What a backbone of edge vectors is for, unless it declares other `domains`.
GEOMETRIC = ("atoms", "particles", "cloud")
T = TypeVar("T", bound=type[nn.Module])
_registered: dict[str, type[nn.Module]] = {}


def register(name: str) -> Callable[[T], T]:
    """Class decorator that makes a backbone known under `name`.

    The class carries `symmetry` (group → claim) and `SIZES` (size → keyword arguments), and `domains` where these are
    not those of every backbone of edge vectors.
    """

    def add(cls: T) -> T:
        _registered[name] = cls
        return cls

    return add


def _outside() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def architectures(domain: str | None = None) -> list[str]:
    """Names of all architectures, or of those that declare to be for a domain, for which each is imported."""
    names = sorted({*SHIPPED, *_outside(), *_registered})
    return names if domain is None else [name for name in names if domain in domains(get(name))]


def domains(architecture: type[nn.Module]) -> tuple[str, ...]:
    """The domains that an architecture declares to be for."""
    declared: tuple[str, ...] = getattr(architecture, "domains", GEOMETRIC)
    return declared


def require(name: str, domain: str) -> None:
    """Raise `UserError` unless an architecture, or "module:Class", is for samples of `domain`."""
    if domain not in (declared := domains(load(name))):
        raise UserError(
            f"{name} is for samples of the domain {' or '.join(map(repr, declared))}, not {domain!r}; choose one of:"
            f" {', '.join(architectures(domain))}"
        )


def get(name: str) -> type[Any]:
    """The backbone class registered under `name`; an unknown name is a `UserError` with the closest ones."""
    if name not in architectures():
        raise unknown_name("architecture", name, architectures())
    if name in SHIPPED:
        import_module(f"scisci.models.{name}")
    elif name not in _registered:
        _registered[name] = _outside()[name].load()
    return _registered[name]


def load(name: str) -> type[Any]:
    """The backbone class of a registered name, or of "module:Class" that anyone can import."""
    module, colon, attribute = name.partition(":")
    if not colon:
        return get(name)
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"cannot load {name}: {error}; give module:Class as Python would import it") from error
    if lacking := [part for part in ("symmetry", "SIZES", "forward") if not hasattr(found, part)]:
        raise UserError(f"{name} is no backbone: it has no {', '.join(lacking)}; see CONTRIBUTING on adding a model")
    return found


def preset(name: str, size: str) -> dict[str, Any]:
    """Keyword arguments of an architecture's size; an unknown size is a `UserError` with the closest ones."""
    return options(name, size)


def options(name: str, size: str, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """A size's keyword arguments with `overrides` applied; `name` may also be "module:Class".

    An option the architecture lacks, or a value of the wrong kind or out of range, is a `UserError`.
    """
    cls = load(name)
    if size not in cls.SIZES:
        raise unknown_name(f"size of {name}", size, cls.SIZES)
    parameters = inspect.signature(cls.__init__).parameters
    known = set(parameters) - GIVEN
    for key, value in (overrides or {}).items():
        if key not in known:
            raise unknown_name(f"option of {name}", key, known)
        _check_value(name, key, value, parameters[key].default)
    return cls.SIZES[size] | (overrides or {})


def _check_value(name: str, key: str, value: Any, default: Any) -> None:
    """Options are of the kind of their default: true or false, a count, or a positive number."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        lowest = 0 if key in ("l_max", "velocities", "max_neighbors") else 1
        fits, wanted = is_number and isinstance(value, int) and value >= lowest, f"a whole number from {lowest} up"
    elif isinstance(default, float):
        fits, wanted = is_number and 0 < value < float("inf"), "a positive number"
    else:
        fits, wanted = isinstance(value, type(default)), f"of type {type(default).__name__}"
    if not fits:
        raise UserError(f"option {key} of {name} is {value!r}, but must be {wanted}")


def build(name: str, inputs: Inputs, average_neighbors: float, vector_output: bool = True, **kwargs: Any) -> nn.Module:
    """Construct a backbone; what its constructor refuses is a `UserError`.

    `vector_output=False` spares an architecture that can do without them the vectors that nothing would read.
    """
    if "vector_output" in inspect.signature(get(name).__init__).parameters:
        kwargs["vector_output"] = vector_output
    return _construct(name, kwargs, inputs=inputs, average_neighbors=average_neighbors)


def build_forecaster(name: str, context: int, horizon: int, **kwargs: Any) -> nn.Module:
    """Construct a model of time series, which sees `context` steps and forecasts `horizon`; otherwise like `build`."""
    return _construct(name, kwargs, context=context, horizon=horizon)


def _construct(name: str, chosen: dict[str, Any], **given: Any) -> nn.Module:
    try:
        made: nn.Module = get(name)(**given, **chosen)
    except (TypeError, ValueError, RuntimeError, ArithmeticError, NotImplementedError) as error:
        raise UserError(f"{name} cannot be built with {chosen}: {error}") from error
    return made


def default(name: str, option: str, otherwise: Any = None) -> Any:
    """The default value of an architecture's option, or `otherwise` if it has no such option."""
    parameters = inspect.signature(get(name).__init__).parameters
    return parameters[option].default if option in parameters else otherwise
