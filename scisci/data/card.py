"""The card of a data set: what it is, where it comes from, how to make or get it, and what to mind."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from scisci.contracts.errors import UserError
from scisci.data.store import Store


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Regenerate(_Part):
    """The command that remakes a simulated data set, and its seed."""

    command: str
    seed: int


class RemoteFile(_Part):
    """One file of a data set on a server, and how to tell that it arrived whole."""

    url: str = Field(pattern=r"^https?://[^/]+/.+")
    checksum: str | None = Field(
        pattern=r"^(sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}|git:[0-9a-f]{40})$",
        description="null if none is published: then the first copy's is recorded, and another one is refused; git is"
        " the SHA-1 of a git blob",
    )
    name: str | None = Field(default=None, pattern=r"^[^/]+$", description="of the file, where its URL does not say it")
    member: str | None = Field(default=None, description="path of the data in the file, which is a tar or zip archive")
    part: str | None = Field(default=None, description="a name under which the file can be had alone")
    split: str | None = Field(default=None, description="the published split that its samples are")

    @property
    def filename(self) -> str:
        """What the file is called in the cache."""
        return self.name or self.url.partition("?")[0].rstrip("/").rpartition("/")[2]


class Download(_Part):
    """Where a data set can be had, and how its files become a store."""

    format: str = Field(description="one that 'scisci data import' reads")
    files: list[RemoteFile] = Field(min_length=1)
    keys: dict[str, str] = Field(default_factory=dict, description="label → its name in the files")
    division: dict[str, float] = Field(
        default={"train": 0.8, "val": 0.1, "test": 0.1},
        description="how samples of files without a split are divided at random: split → fraction",
    )
    divide_by: Literal["sample", "group"] = "sample"
    seed: int = 0
    skip_bad: bool = Field(default=False, description="frames that cannot be used are expected, and skipped")


class CardSplit(_Part):
    """One split: its size, where it is known before the data are here, and how it differs from `train`."""

    samples: int | None = Field(default=None, gt=0)
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
    samples: int | None = Field(default=None, gt=0)
    groups: int | None = Field(default=None, gt=0)
    fingerprint: str | None = None
    splits: dict[str, CardSplit]
    caveats: list[str]

    @model_validator(mode="after")
    def _download_is_described(self) -> Card:
        if self.download is None:
            return self
        named = {
            split for file in self.download.files for split in ([file.split] if file.split else self.download.division)
        }
        if lacking := sorted(named ^ set(self.splits)):
            raise ValueError(f"the split {lacking[0]!r} is not both downloaded and described under 'splits'")
        names = [name for name, _ in {(file.filename, file.url) for file in self.download.files}]
        if twice := sorted(name for name in names if names.count(name) > 1):
            raise ValueError(f"two files are called {twice[0]!r}; give one of them another 'name'")
        return self

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

    def how_to_get(self, name: str) -> str:
        """One clause that says how the data set, which is called `name`, can be had."""
        if self.regenerate:
            return f"make it with '{self.regenerate.command}'"
        if self.download:
            return f"get it with 'scisci data download {name}'"
        return "its card does not say how to get it"

    def differences(self, store: Store) -> list[str]:
        """Where the card and the store disagree, in words; what the card leaves open cannot."""
        actual = {name: (s.size, s.severity) for name, s in store.splits.items()}
        sizes = {name: split.size for name, split in store.splits.items()}
        stated = {name: (s.samples or sizes.get(name), s.severity) for name, s in self.splits.items()}
        pairs = [
            ("domain", self.domain, store.domain),
            ("samples", self.samples, len(store)),
            ("groups", self.groups, len(store.groups)),
            ("splits", stated, actual),
            ("fingerprint", self.fingerprint, store.fingerprint),
        ]
        return [f"{what}: the card says {a}, the store has {b}" for what, a, b in pairs if a not in (None, b)]
