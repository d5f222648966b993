"""What a submission says of itself: `submission.yaml`, every key of it, and nothing else."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, model_validator

from scisci.contracts.errors import UserError
from scisci.contracts.metrics import metric
from scisci.contracts.run import Status

SCHEMA_VERSION: Literal[1] = 1
SLUG = r"^[a-z0-9]+(-[a-z0-9]+)*$"
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
# Names that a file cannot have on Windows, whatever its suffix.
RESERVED = {"con", "prn", "aux", "nul"} | {f"{port}{k}" for port in ("com", "lpt") for k in range(1, 10)}


def _visible(text: str) -> str:
    """Text without characters that nobody sees and that can make it read otherwise, such as bidirectional overrides."""
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") and character != "\n":
            raise ValueError(f"it has the invisible character U+{ord(character):04X}; leave that out")
    return text


def _portable(name: str) -> str:
    if name.partition(".")[0].lower() in RESERVED or name.endswith("."):
        raise ValueError(f"{name!r} is no name for a file on every system; choose another one")
    return name


Visible = AfterValidator(_visible)
Text = Annotated[str, Field(min_length=1, max_length=2000), Visible]
Name = Annotated[str, Field(pattern=NAME), AfterValidator(_portable)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Claim = Literal["exact", "approximate", "learned", "none"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Author(_Part):
    """Who made the model."""

    name: Text
    affiliation: Text | None = None


class Links(_Part):
    """Where more is to be found."""

    paper: HttpUrl | None = None
    code: HttpUrl | None = None
    weights: HttpUrl | None = None
    logs: HttpUrl | None = None


class TrainingData(_Part):
    """What the model was trained on, and whether test samples may be among it.

    Disclosing costs nothing: entries are marked, not demoted.
    """

    description: Text
    contamination: Literal["none known", "possible", "known"]
    statement: Text = Field(description="how overlap with the test splits was looked for, and what was found")


class Tuning(_Part):
    """How much was spent on choosing hyper-parameters."""

    trials: Count | None = Field(
        description="training runs made to choose them, all sizes together; null where nobody counted"
    )
    selected_on: Text = Field(description="the split and metric that chose, such as 'val, force_mae'")
    description: Text = "not given"


class Hardware(_Part):
    """What all of it ran on and cost: mandatory, since a score without its cost says little."""

    description: Text
    device_hours: float = Field(ge=0, allow_inf_nan=False, description="of all submitted runs together")
    cost_usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class Run(_Part):
    """One trained model: what it is, what it cost, and of which samples there are predictions.

    Its predictions are `predictions/<run>/<split>.h5`, for the first `splits[split]` samples of each split in stored
    order. A run that did not end well is listed too, with its reason and without splits: what is missing is shown.
    """

    run: Name
    dataset: Name
    fingerprint: Sha256 = Field(description="sha256 over the content of the data set's store")
    status: Status = "ok"
    reason: Text | None = None
    size: Name
    treatment: Name = "none"
    params: Count | None = None
    params_body: Count | None = Field(default=None, description="without embeddings and references")
    horizon: Count | None = Field(default=None, gt=0, description="of series: how many steps are forecast")
    data: Count = Field(gt=0, description="unique training samples")
    samples_seen: Count
    flops: Positive | None = Field(default=None, description="of the whole training, measured")
    seed: Count
    lr: Positive | None = None
    seconds: float = Field(ge=0, allow_inf_nan=False, description="wall time of training and evaluation")
    peak_memory: Positive | None = Field(default=None, description="MiB")
    device: Text
    shared: bool | None = Field(default=None, description="whether other processes used the device; null: not known")
    splits: dict[Name, Annotated[Count, Field(gt=0)]] = Field(default_factory=dict)
    reported: dict[Name, dict[Name, Annotated[float, Field(allow_inf_nan=False)]]] = Field(
        default_factory=dict, description="split → metric → value, as the authors measured it; compared, never ranked"
    )

    @model_validator(mode="after")
    def _predicted_if_ok(self) -> Run:
        if (self.status == "ok") != bool(self.splits):
            wanted = "lists no splits" if self.status == "ok" else f"is {self.status} but lists splits"
            raise ValueError(f"run {self.run!r} {wanted}; a run that ended well has predictions, another has none")
        if self.status != "ok" and self.reason is None:
            raise ValueError(f"run {self.run!r} is {self.status} without a reason; give one")
        if self.status == "ok" and self.params is None:
            raise ValueError(f"run {self.run!r} lacks params; give the number of parameters")
        return self

    @model_validator(mode="after")
    def _reported_is_known(self) -> Run:
        for split, values in self.reported.items():
            if split not in self.splits:
                raise ValueError(f"run {self.run!r} reports errors on {split!r}, which is not among its splits")
            try:
                [metric(name) for name in values]
            except UserError as error:
                raise ValueError(f"run {self.run!r} reports on {split!r}: {error}") from error
        return self


class Submission(_Part):
    """A model as it is submitted; the name of its folder is its slug."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Annotated[str, Field(min_length=1, max_length=80), Visible]
    family: Literal["equivariant", "invariant", "unconstrained", "learned symmetry", "baseline"]
    symmetry: dict[Name, Claim] = Field(description="group → what is claimed of it")
    summary: Text
    authors: tuple[Author, ...] = Field(min_length=1)
    date: datetime.date
    licence: Text = Field(description="of code and weights, as an SPDX identifier")
    links: Links = Links()
    training_data: TrainingData
    tuning: Tuning
    hardware: Hardware
    runs: tuple[Run, ...] = Field(min_length=1, max_length=10_000)

    @model_validator(mode="after")
    def _runs_are_distinct(self) -> Submission:
        if twice := repeated(self.runs):
            raise ValueError(twice)
        return self


def repeated(runs: Iterable[Run]) -> str | None:
    """The first name that two runs have, on a system that does not tell capitals apart, in words; None if none."""
    seen: set[str] = set()
    for run in runs:
        if (name := run.run.lower()) in seen:
            return f"the run {run.run!r} is listed twice; give each run a name of its own (capitals do not count)"
        seen.add(name)
    return None


def slug_fault(slug: str) -> str | None:
    """Why a folder's name is no slug, in words; None if it is one."""
    advice = "name the folder with a-z, 0-9 and single hyphens"
    if odd := next((character for character in slug if ord(character) > 127), None):
        return f"the slug {slug!a} has {odd!a} ({unicodedata.name(odd, 'without a name')}); {advice}"
    if len(slug) > 64:
        return f"the slug {slug[:20] + '...'!r} has {len(slug)} characters, more than 64; {advice}"
    if re.fullmatch(SLUG, slug) is None or slug in RESERVED:
        return f"the slug {slug!r} is not as slugs are; {advice}"
    return None
