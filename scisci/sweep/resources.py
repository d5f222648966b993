"""What a run occupies while it is trained: CPU cores, GPUs or a share of one, memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, PositiveInt, Tag, field_validator

TIME_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
MEMORY_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def quantity(text: str, units: Mapping[str, int], examples: str) -> float:
    """A sum of numbers with units, such as "1h30m"; raises ValueError with `examples` of what can be said."""
    part = rf"(\d+(?:\.\d+)?)\s*({'|'.join(units)})\s*"
    if not re.fullmatch(rf"\s*(?:{part})+", text):
        raise ValueError(f"{text!r} is not a number with a unit, such as {examples}")
    return sum(float(number) * units[unit] for number, unit in re.findall(part, text))


def seconds(text: str) -> float:
    """Seconds in a time span such as "90m", "2h", "1d" or "1h30m"."""
    span = quantity(text, TIME_UNITS, "45s, 90m, 2h, 1d or 1h30m")
    if span <= 0:
        raise ValueError(f"{text!r} is no time at all")
    return span


def _bytes(value: Any) -> Any:
    return round(quantity(value, MEMORY_UNITS, "500MB, 2GB or 1.5GiB")) if isinstance(value, str) else value


class Resources(BaseModel):
    """The `resources` of a study file, or of an entry, which go before the study's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpus: PositiveInt | None = None
    gpus: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    memory: Annotated[PositiveInt, BeforeValidator(_bytes)] | None = Field(default=None, description="bytes")

    @field_validator("gpus")
    @classmethod
    def _share_or_whole(cls, gpus: float | None) -> float | None:
        if gpus and gpus > 1 and gpus % 1:
            raise ValueError(f"{gpus:g} GPUs are neither a share of one nor whole ones")
        return gpus


def _by_size(value: Any) -> str:
    inner = value.values() if isinstance(value, dict) else ()
    return "by size" if any(isinstance(one, dict | Resources) for one in inner) else "of all sizes"


# Resources of an entry: those of all its sizes, or size → resources.
EntryResources = Annotated[
    Annotated[Resources, Tag("of all sizes")] | Annotated[dict[str, Resources], Tag("by size")],
    Discriminator(_by_size),
]


@dataclass(frozen=True)
class Needs:
    """What one run occupies, settled. CPU cores are its threads too; memory is in bytes.

    Without a word on GPUs (None) a run sees those that its process sees, as in a single training; with 0 it sees none.
    """

    cpus: int = 1
    gpus: float | None = None
    memory: int = 0

    @classmethod
    def of(cls, *resources: Resources) -> Needs:
        """Each resource as the last of `resources` that names it says."""
        settled: dict[str, Any] = {}
        for one in resources:
            settled |= one.model_dump(exclude_none=True)
        return cls(**settled)

    @property
    def devices(self) -> int:
        """How many devices a run trains on: more than one where it has several GPUs."""
        return max(1, int(self.gpus or 0))

    def times_in(self, node: Mapping[str, float]) -> int:
        """How many such runs a node with Ray's resources `CPU`, `GPU` and `memory` holds at a time."""
        counts = [int(node.get("CPU", 0) / self.cpus)]
        if self.gpus:
            # a share is of one device, so three runs of 0.4 need two; the little more is for 1 / 0.1
            devices, gpus = int(node.get("GPU", 0)), self.gpus
            counts.append(devices * int(1 / gpus + 1e-6) if gpus < 1 else devices // int(gpus))
        if self.memory:
            counts.append(int(node.get("memory", 0) / self.memory))
        return min(counts)

    def __str__(self) -> str:
        return describe(self.cpus, self.gpus or 0, self.memory)


def describe(cpus: float, gpus: float, memory: float) -> str:
    """Resources in words."""
    parts = [f"{cpus:g} CPU{'s' * (cpus != 1)}"]
    if gpus:
        parts.append(f"{gpus:g} GPU{'s' * (gpus != 1)}")
    if memory:
        parts.append(f"{memory / 10**9:.3g} GB of memory")
    return ", ".join(parts)
