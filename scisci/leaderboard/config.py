"""How a leaderboard is set up, `leaderboard/board.yaml`: per data set the reference model and the board's compute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scisci.contracts.errors import UserError, unknown_name
from scisci.leaderboard.submission import SLUG, Text

# Per domain, the errors that are ranked, one board for each target; all have zero as the floor of a perfect model.
HEADLINES: Mapping[str, tuple[str, ...]] = {
    "atoms": ("force_mae",),
    "particles": ("position_mse",),
    "cloud": ("velocities_fvu", "omega_m_fvu", "sigma_8_fvu"),
    "tree": ("omega_m_fvu", "sigma_8_fvu", "infilling_nll"),
    "series": ("series_wql",),
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetConfig(_Part):
    """The boards of one data set."""

    title: Text | None = None
    metric: str | None = Field(default=None, description="one of its domain's HEADLINES; all of them where absent")
    reference: Annotated[str, Field(pattern=SLUG)] | None = Field(
        default=None, description="slug of the model that the others' scaling is compared with"
    )
    compute: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="training FLOPs at which errors are forecast"
    )


class Config(_Part):
    """`board.yaml`; a data set that is not listed has a board too, without reference and compute."""

    schema_version: Literal[1] = 1
    datasets: dict[str, DatasetConfig] = Field(default_factory=dict)

    def of(self, dataset: str) -> DatasetConfig:
        """The configuration of a data set, which it need not have."""
        return self.datasets.get(dataset, DatasetConfig())


def headlines(domain: str, chosen: str | None = None) -> tuple[str, ...]:
    """The ranked errors of a domain, or the one `chosen` of them; another one is a `UserError`."""
    if domain not in HEADLINES:
        raise unknown_name("domain", domain, HEADLINES)
    if chosen is not None and chosen not in HEADLINES[domain]:
        raise unknown_name(f"ranked metric of the domain {domain!r}", chosen, HEADLINES[domain])
    return HEADLINES[domain] if chosen is None else (chosen,)


def load_config(path: Path | str) -> Config:
    """Read a board's configuration; whatever is wrong with it is a `UserError` that names the place."""
    try:
        return Config.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {})
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise UserError(f"{path}: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    # a misspelt key comes first: that the right one is missing only follows from it
    problem = min(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
    place = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        section = DatasetConfig if len(place) > 1 else Config
        return str(unknown_name(f"key in {'.'.join(place[:-1]) or 'the file'}", place[-1], section.model_fields))
    return f"{'.'.join(place)}: {problem['msg']}" if place else problem["msg"]
