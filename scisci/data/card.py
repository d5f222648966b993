"""The card of a data set: what it is, where it comes from, how to make or get it, and what to mind."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scisci.contracts.errors import UserError
from scisci.data.store import Store


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Regenerate(_Part):
    """The command that remakes a simulated data set, and its seed."""

    command: str
    seed: int


class Download(_Part):
    """Where a data set can be had, and how to tell that it arrived whole."""

    url: str
    sha256: str


class CardSplit(_Part):
    """One split: its size and how it differs from `train`."""

    samples: int = Field(gt=0)
    shift: str
    severity: float | None = None


class Card(_Part):
    """`datasets/<name>/card.yaml`. Unknown keys are refused."""

    schema_version: Literal[1]
    title: str
    domain: Literal["atoms", "particles", "cloud", "tree", "series"]
    source: str
    citation: list[str]
    licence: str
    units: dict[str, str]
    method: str = Field(description="level of theory or simulator, with its version")
    regenerate: Regenerate | None = None
    download: Download | None = None
    samples: int = Field(gt=0)
    groups: int = Field(gt=0)
    fingerprint: str | None = None
    splits: dict[str, CardSplit]
    caveats: list[str]

    @classmethod
    def read(cls, path: Path) -> Card:
        """Read and check a card; `UserError` names the first key that is wrong."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{path}: {where}: {first['msg'].lower()}; correct that key") from error
        except yaml.YAMLError as error:
            raise UserError(f"{path} is not valid YAML; correct it") from error

    @property
    def how_to_get(self) -> str:
        """One clause that says how the data can be had."""
        if self.regenerate:
            return f"make it with '{self.regenerate.command}'"
        if self.download:
            return f"download it from {self.download.url}"
        return "its card does not say how to get it"

    def differences(self, store: Store) -> list[str]:
        """Where the card and the store disagree, in words."""
        stated = {name: (s.samples, s.severity) for name, s in self.splits.items()}
        actual = {name: (s.size, s.severity) for name, s in store.splits.items()}
        pairs = [
            ("domain", self.domain, store.domain),
            ("samples", self.samples, len(store)),
            ("groups", self.groups, len(store.groups)),
            ("splits", stated, actual),
            ("fingerprint", self.fingerprint or store.fingerprint, store.fingerprint),
        ]
        return [f"{what}: the card says {a}, the store has {b}" for what, a, b in pairs if a != b]
