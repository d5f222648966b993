"""The fits of a study, as `scisci scale study` writes them (layout: `scisci.scaling.records`)."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from scisci.contracts.errors import UserError
from scisci.contracts.metrics import METRICS
from scisci.report.theme import VERDICTS
from scisci.report.wording import capital, series_name, unsigned_zeros

Bound = float | None
ROUNDING = 1e-9  # of exponents: errors that do not depend on the axis differ in their last digit
SYMBOLS = {"params": "N", "data": "D", "flops": "C"}


class _Entry(BaseModel):
    """The keys that the report shows; a fit's entry may have more."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Estimate(_Entry):
    value: float | None
    ci95: tuple[Bound, Bound] | None = None


class Points(_Entry):
    x: list[Bound]
    y: list[Bound]
    run: list[str]


class Curve(_Entry):
    x: list[float]
    value: list[Bound]
    lo: list[Bound]
    hi: list[Bound]


class Audit(_Entry):
    verdict: Literal["identified", "weak", "not identified"]
    reasons: list[str] = []


class Difference(_Entry):
    """This fit's exponent minus that of the group `to`."""

    kind: str
    to: dict[str, str]
    parameter: str
    value: float | None
    ci95: tuple[Bound, Bound] | None
    verdict: str = ""
    text: str
    method: str = ""

    @property
    def decided(self) -> bool:
        """Whether the 95 % interval is there and leaves zero out; what is zero but for rounding does not."""
        if self.value is None or self.ci95 is None or abs(self.value) < ROUNDING:
            return False
        low, high = self.ci95
        return (low is not None and low > 0) or (high is not None and high < 0)


class Interval(_Entry):
    method: str
    words: str = ""


class Fit(_Entry):
    """One law fitted to one architecture on one split along one axis."""

    schema_version: Literal[1]
    law: str
    formula: str
    axis: Literal["params", "data", "flops"] | None
    metric: str
    group: dict[str, str]
    fixed: dict[str, float | str | None] = {}
    n: int
    loss: str | None = None
    left_out: dict[str, int] = {}
    points: Points | None = None
    parameters: dict[str, Estimate] = {}
    interval: Interval | None = None
    audit: Audit
    exponent: str | None = None
    printed: str = Field(alias="text")
    curve: Curve | None = None
    differences: list[Difference] = []
    warnings: list[str] = []

    @property
    def series(self) -> str:
        return series_name(self.group.get("architecture", "all"), self.group.get("treatment"))

    @property
    def split(self) -> str:
        return self.group.get("split", "")

    @property
    def equation(self) -> str:
        """The law's LaTeX in the symbol of the axis; laws of one variable are written in N, whatever they are of."""
        return re.sub(r"\bN\b", SYMBOLS[self.axis], self.formula) if self.axis else self.formula

    @property
    def text(self) -> str:
        """The exponent as it may be shown: never a number where it is not identified."""
        return "not identified" if self.audit.verdict == "not identified" else unsigned_zeros(self.printed)

    @property
    def rank(self) -> int:
        """0 for identified, 1 for weak, 2 for not identified."""
        return VERDICTS.index(self.audit.verdict)

    @property
    def runs(self) -> list[str]:
        return self.points.run if self.points else []

    @property
    def remarks(self) -> list[str]:
        """What the audit says of the fit and of its metric, as sentences that call the metric by its label."""
        known = METRICS.get(self.metric)
        said = (text.rstrip(". ") for text in (*self.audit.reasons, *self.warnings))
        return [f"{capital(text.replace(self.metric, known.label) if known else text)}." for text in said]


def parse(entries: list[dict[str, Any]], source: str) -> list[Fit]:
    """Check records of `scisci.scaling` and bring them into form; `source` is what an error calls them."""
    try:
        return TypeAdapter(list[Fit]).validate_python(entries)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{source} does not have the layout of fits (at {where}: {first['msg']}); "
            "write it again with 'scisci scale study TABLE --y METRIC --json FILE'"
        ) from error
