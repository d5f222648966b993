"""What a scaling law is, and the registry of those that ship.

A law is added by building one `Law` and passing it to `register`; everything else (starts, bounds,
intervals, commands) follows from its fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scisci.contracts.errors import unknown_name

Array = NDArray[np.float64]
Value = tuple[Array, Sequence[Array]]  # L and its derivatives by the parameters


@dataclass(frozen=True)
class Parameter:
    """One constant of a law.

    `transform` "log" keeps it positive and optimises its logarithm (scales such as A); "identity" optimises
    it as it is. `start` is the range searched for starts, `lower` and `upper` bound the fit, both in natural
    units. `linear` marks the non-negative coefficients the law is linear in: they are eliminated by variable
    projection and need no `start`. With `start_within` the range is a share of that variable's observed
    range, in logarithms.
    """

    name: str
    latex: str
    transform: Literal["log", "identity"] = "identity"
    start: tuple[float, float] | None = None
    lower: float = -np.inf
    upper: float = np.inf
    linear: bool = False
    start_within: str | None = None


@dataclass(frozen=True)
class Law:
    """A parametric form of the loss: L = value(*variables, *parameters).

    `evaluate` takes one array per variable and one per parameter, all broadcastable, in the order of
    `variables` and `parameters`, in natural units, and gives L and the tuple of dL/d(parameter) (each
    broadcastable to L). `exponent` names the parameter a reader asks for first.
    `log_linear` says that ln L is linear in the internal parameters, so that t intervals are exact.
    `more_exponents` are those the verdict covers besides. `starts` replaces the search for starts: it takes
    the variables and ln L and gives natural parameters [m, p]. `zero_allowed` are variables that may be zero.
    `derived` are further quantities, each a function of the parameters by name. `source` says where the form
    comes from.
    """

    name: str
    formula: str
    variables: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    evaluate: Callable[..., Value]
    source: str
    exponent: str
    more_exponents: tuple[str, ...] = ()
    log_linear: bool = False
    starts: Callable[[Sequence[Array], Array], Array] | None = None
    zero_allowed: tuple[str, ...] = ()
    derived: Mapping[str, Callable[[Mapping[str, Array]], Array]] = field(default_factory=dict)

    def value(self, *arguments: Any) -> Array:
        """L at variables and parameters, as `evaluate` takes them."""
        return self.evaluate(*arguments)[0]

    def gradient(self, *arguments: Any) -> Sequence[Array]:
        """dL/d(parameter), one array per parameter, at variables and parameters as `evaluate` takes them."""
        return self.evaluate(*arguments)[1]

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names, in order."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def exponents(self) -> tuple[str, ...]:
        """All exponents the verdict covers, the headline one first."""
        return (self.exponent, *self.more_exponents)

    def index(self, name: str) -> int:
        """Position of a parameter; an unknown one is a `UserError`."""
        if name not in self.names:
            raise unknown_name(f"parameter of the law {self.name!r}", name, self.names)
        return self.names.index(name)

    def natural(self, internal: Array) -> Array:
        """Natural parameters [..., p] from internal ones (logarithms where the transform says so)."""
        logs = np.array([parameter.transform == "log" for parameter in self.parameters])
        with np.errstate(over="ignore"):
            return np.where(logs, np.exp(np.where(logs, internal, 0.0)), internal)

    def internal(self, natural: Array) -> Array:
        """Internal parameters [..., p] from natural ones."""
        logs = np.array([parameter.transform == "log" for parameter in self.parameters])
        with np.errstate(divide="ignore"):
            return np.where(logs, np.log(np.where(logs, natural, 1.0)), natural)

    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper bounds [p] of the internal parameters."""
        lower = np.array([parameter.lower for parameter in self.parameters], float)
        upper = np.array([parameter.upper for parameter in self.parameters], float)
        positive = np.array([parameter.transform == "log" for parameter in self.parameters])
        return self.internal(np.where(positive, np.maximum(lower, 0.0), lower)), self.internal(upper)

    def predict(self, x: Sequence[Array], internal: Array) -> Array:
        """Loss [..., n] at the variables `x` (each [n]) for internal parameters [..., p]."""
        theta = self.natural(internal)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
            return np.asarray(self.value(*x, *np.moveaxis(theta[..., None], -2, 0)))

    def log_predict(self, x: Sequence[Array], internal: Array) -> tuple[Array, Array]:
        """ln L [..., n] and its derivative [..., n, p] by the internal parameters."""
        theta = self.natural(internal)
        columns = np.moveaxis(theta[..., None], -2, 0)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
            value, gradient = self.evaluate(*x, *columns)
            jacobian = np.empty((*value.shape, len(self.parameters)))
            inverse = 1.0 / value
            for i, (parameter, column, slope) in enumerate(zip(self.parameters, columns, gradient, strict=True)):
                np.multiply(slope, column * inverse if parameter.transform == "log" else inverse, jacobian[..., i])
            return np.log(value), jacobian


LAWS: dict[str, Law] = {}


def register(law: Law) -> Law:
    """Make a law known by its name; a second law of the same name is a bug."""
    assert law.name not in LAWS, f"a law named {law.name!r} exists"
    LAWS[law.name] = law
    return law


def laws() -> dict[str, Law]:
    """Every law by name: those that ship, those of the entry-point group `scisci.laws`, those registered since."""
    from scisci.scaling import laws as shipped  # importing it registers them

    assert shipped
    _load_plugins()
    return LAWS


@cache
def _load_plugins() -> None:
    """Import what other packages offer; importing registers it."""
    for point in entry_points(group="scisci.laws"):
        point.load()


def law(name: str) -> Law:
    """Look a law up by name; an unknown one is a `UserError` with the closest names."""
    if name not in laws():
        raise unknown_name("law", name, LAWS)
    return LAWS[name]
