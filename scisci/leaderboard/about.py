"""What a sweep cannot know of a model that is submitted: `--about FILE`, a YAML file."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scisci.contracts.errors import UserError, unknown_name
from scisci.leaderboard.submission import Author, Claim, Hardware, Links, Text, TrainingData, Tuning


class About(BaseModel):
    """What a sweep cannot know of a model, and what may be said otherwise; keys as in `submission.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = None
    family: str | None = None
    symmetry: dict[str, Claim] | None = None
    summary: Text | None = None
    authors: tuple[Author, ...] = (Author(name="anonymous"),)
    licence: Text = "NOASSERTION"
    links: Links = Links()
    training_data: TrainingData | None = None
    tuning: Tuning | None = None
    hardware: Hardware | None = None
    date: datetime.date | None = None


class AboutSweep(About):
    """`--about FILE`: keys for all submissions of a sweep, and under `models` those of one of its entries."""

    models: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None, labels: Iterable[str]) -> AboutSweep:
        """Read and check the file; whatever is wrong with it is a `UserError` that names the place."""
        if path is None:
            return cls()
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
        except yaml.YAMLError as error:
            raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
        with checked(path, AboutSweep):
            about = cls.model_validate(content or {})
            known = list(labels)
            for label in about.models:
                if label not in known:
                    raise unknown_name(f"model in {path}", label, known)
                about.of(label)
        return about

    def of(self, label: str) -> About:
        """What is said of one entry of the study."""
        shared = self.model_dump(exclude={"models"}, exclude_unset=True)
        return About.model_validate(shared | self.models.get(label, {}))


@contextmanager
def checked(where: object, schema: type[BaseModel]) -> Iterator[None]:
    """Turn the first thing that a schema refuses into a `UserError`."""
    try:
        yield
    except ValidationError as error:
        one = error.errors(include_url=False)[0]
        place = ".".join(map(str, one["loc"]))
        if one["type"] == "extra_forbidden" and len(one["loc"]) == 1:
            raise unknown_name(f"key in {where}", place, schema.model_fields) from error
        message = one["msg"].removeprefix("Value error, ")
        advice = "" if ";" in message else "; correct it"
        raise UserError(f"{where}: {f'{place}: ' * bool(place)}{message[0].lower()}{message[1:]}{advice}") from error
