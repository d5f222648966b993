"""The study file: which architectures are compared, at which sizes and data amounts, and trained how."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    ValidationError,
    model_validator,
)

from scisci.contracts.errors import UserError, unknown_name
from scisci.contracts.run import EvaluationSpec, OptimizationSpec, Parametrization, Recipe, TreatmentName
from scisci.sweep.resources import EntryResources, Needs, Resources

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
LearningRate = Positive


def _ladder(value: Any) -> Any:
    """A list as it is, or the one that {from, to, ratio} stands for."""
    if not isinstance(value, dict):
        return value
    try:
        start, end, ratio = (float(value[key]) for key in ("from", "to", "ratio"))
    except (KeyError, TypeError, ValueError):
        start = end = ratio = math.nan
    if len(value) != 3 or not (0 < start <= end < math.inf and 1 < ratio < math.inf):
        raise ValueError("a ladder is {from: 256, to: 16384, ratio: 2}, with a ratio above 1")
    count = int(math.log(end / start) / math.log(ratio) + 1e-9) + 1
    return [start * ratio**k for k in range(count)]


def _whole_ladder(value: Any) -> Any:
    rungs = _ladder(value)
    return [round(rung) for rung in rungs] if rungs is not value else value


SEEN: Literal["seen"] = "seen"
# Numbers of training samples, as a list or a ladder; or as many as are seen, each once as far as they reach.
DataAmounts = Annotated[
    Annotated[Literal["seen"], Tag("seen")]
    | Annotated[tuple[PositiveInt, ...], Field(min_length=1), BeforeValidator(_whole_ladder), Tag("amounts")],
    Discriminator(lambda value: "seen" if isinstance(value, str) else "amounts"),
]
Budgets = Annotated[tuple[Positive, ...], BeforeValidator(_ladder)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArchitectureEntry(_Section):
    """One architecture of a study: its sizes, and how each is trained.

    The entry's key in the study file is the architecture's name, unless `architecture` gives that.
    `learning_rate` is one number, one per size, or one per size and amount of data; a baseline has none, nor has any
    entry of a study with `learning_rates`. How it was chosen is one text, or one per size. With `steps` of its own an
    entry can be trained by as many FLOPs as the others instead of as many steps. Under the maximal-update
    `parametrization` rates are those at the architecture's reference width.
    """

    architecture: str | None = None
    sizes: tuple[str, ...] = Field(min_length=1)
    learning_rate: LearningRate | dict[str, LearningRate | dict[PositiveInt, LearningRate]] | None = None
    learning_rate_choice: str | dict[str, str] = "given"
    parametrization: Parametrization = "standard"
    treatment: TreatmentName = "none"
    steps: PositiveInt | None = Field(default=None, description="instead of those of the study's recipe")
    overrides: dict[str, Any] = Field(default_factory=dict)
    resources: EntryResources = Field(default=Resources(), description="instead of the study's; also size → resources")

    def rate(self, size: str, data: int) -> float | None:
        """Learning rate of one size and amount of data."""
        rate = self.learning_rate[size] if isinstance(self.learning_rate, dict) else self.learning_rate
        return rate[data] if isinstance(rate, dict) else rate

    def choice(self, size: str) -> str:
        """How the learning rate of one size was chosen."""
        choice = self.learning_rate_choice
        return choice[size] if isinstance(choice, dict) else choice

    @model_validator(mode="after")
    def _sizes_have_rates(self) -> ArchitectureEntry:
        _distinct("sizes", self.sizes)
        for key in ("learning_rate", "learning_rate_choice", "resources"):
            by_size = getattr(self, key)
            if not isinstance(by_size, dict):
                continue
            missing = [size for size in self.sizes if size not in by_size]
            if missing and key != "resources":
                raise ValueError(f"{key} lacks the sizes {', '.join(missing)}")
            for size in by_size:
                if size not in self.sizes:
                    raise ValueError(str(unknown_name(f"size in {key}", size, self.sizes)))
        return self


class StudyRecipe(Recipe):
    """How all models of a study are trained: by so many steps, or epochs, unless the study has compute."""

    steps: PositiveInt | None = None
    epochs: Positive | None = Field(default=None, description="instead of steps: how often each sample is seen")


class Study(_Section):
    """A comparison of architectures: the grid of entry × size × data × seed, trained by one recipe.

    With `compute`, training FLOPs, in place of steps the grid is entry × size × compute × data × seed: each model is
    trained by as many steps as each budget gives it. With data `seen`, each run has as many samples as it sees, so
    that each is seen once as far as the training split reaches: an iso-FLOP grid (Hoffmann et al. 2022, approach 2).
    With `learning_rates` the grid has them as one more dimension: every entry is trained at each, and measured on ID
    validation alone, which is to choose among them.
    """

    schema_version: Literal[1] = 1
    study: str = Field(pattern=r"^\w[\w.-]*$")
    dataset: str
    task: dict[str, Any] = Field(default_factory=dict, description="options of the data's task, such as its target")
    architectures: dict[str, ArchitectureEntry] = Field(min_length=1)
    data: DataAmounts
    compute: Budgets = Field(default=(), description="training FLOPs of a run, in place of steps")
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    learning_rates: tuple[LearningRate, ...] = Field(default=(), description="instead of the entries' own")
    optimization: StudyRecipe
    evaluation: EvaluationSpec
    resources: Resources = Field(default=Resources(), description="what each run occupies while it is trained")
    loggers: tuple[str | dict[str, Any], ...] = Field(default=(), description="of Lightning, to follow training by")
    energy: bool = Field(default=False, description="measure the electricity that training takes")

    def architecture(self, label: str) -> str:
        """Registered name of the architecture that an entry trains."""
        return self.architectures[label].architecture or label

    def variant(self, label: str) -> str | None:
        """What tables call an entry that overrides or a parametrization set apart from its architecture's preset."""
        entry = self.architectures[label]
        differs = bool(entry.overrides) or entry.parametrization != "standard"
        return label if differs and label != self.architecture(label) else None

    @property
    def amounts(self) -> tuple[int, ...]:
        """Numbers of training samples; none where each run has as many as it sees."""
        return () if isinstance(self.data, str) else self.data

    @property
    def runs(self) -> int:
        """Number of runs of the whole grid."""
        models = sum(len(entry.sizes) for entry in self.architectures.values())
        amounts, budgets, rates = (max(1, len(one)) for one in (self.amounts, self.compute, self.learning_rates))
        return models * amounts * budgets * rates * len(self.seeds)

    def trained(self, label: str) -> bool:
        """Whether an entry is trained; a baseline, which is fitted, has no learning rate."""
        return bool(self.learning_rates) or self.architectures[label].learning_rate is not None

    def batch(self, data: int) -> int:
        """Samples of one step of a run with so many training samples."""
        return min(self.optimization.batch_size, data)

    def steps(self, label: str, data: int) -> int:
        """Steps of an entry with so many training samples, where no budget of compute decides them."""
        epochs = self.optimization.epochs
        steps = self.architectures[label].steps or self.optimization.steps
        return steps or max(1, round((epochs or 0) * data / self.batch(data)))

    def recipe(
        self, label: str, size: str, data: int, rate: float | None = None, steps: int | None = None
    ) -> OptimizationSpec:
        """The full recipe of one entry, size and amount of data.

        At `rate` instead of its own learning rate, by `steps` instead of its own.
        """
        entry = self.architectures[label]
        return OptimizationSpec(
            **self.optimization.model_dump(exclude={"steps", "epochs"}),
            steps=steps or self.steps(label, data),
            learning_rate=rate or entry.rate(size, data),
            learning_rate_choice=entry.choice(size),
            parametrization=entry.parametrization,
        )

    def needs(self, label: str, size: str) -> Needs:
        """What a run of one entry and size occupies: as the entry says, else as the study says, else one core."""
        own = self.architectures[label].resources
        return Needs.of(self.resources, own.get(size, Resources()) if isinstance(own, dict) else own)

    @model_validator(mode="after")
    def _runs_are_distinct(self) -> Study:
        self._say_how_long()
        _distinct("data", self.amounts)
        _distinct("compute", self.compute)
        _distinct("seeds", self.seeds)
        _distinct("evaluation.splits", self.evaluation.splits)
        _distinct("learning_rates", self.learning_rates)
        if self.learning_rates and self.evaluation.splits != ("val",):
            raise ValueError(
                "the study has learning_rates, which 'val' is to choose among; set evaluation.splits: [val]"
            )
        for label, entry in self.architectures.items():
            for size in entry.sizes:
                if self.optimization.batch_size % (devices := self.needs(label, size).devices):
                    raise ValueError(
                        f"runs of {label} {size} have {devices} GPUs, over which batches of"
                        f" {self.optimization.batch_size} samples cannot be shared out; give a multiple as batch_size"
                    )
                if self.energy and devices > 1:
                    raise ValueError(
                        f"runs of {label} {size} have {devices} GPUs, and energy is measured of trainings on one;"
                        " leave energy out, or have runs on one GPU each"
                    )
            if self.learning_rates and entry.learning_rate is not None:
                raise ValueError(f"the study has learning_rates and {label!r} a learning_rate; remove one of the two")
            rates = entry.learning_rate if isinstance(entry.learning_rate, dict) else {}
            for size, by_data in rates.items():
                if isinstance(by_data, dict) and not self.amounts:
                    raise ValueError(f"learning_rate of {label}, {size} is by amount of data, which is {SEEN!r}")
                if isinstance(by_data, dict) and (missing := [str(n) for n in self.amounts if n not in by_data]):
                    raise ValueError(f"learning_rate of {label}, {size} lacks the data amounts {', '.join(missing)}")
        shown: dict[tuple[str, str], str] = {}
        for label, entry in self.architectures.items():
            name = (self.variant(label) or self.architecture(label), entry.treatment)
            if name in shown:
                raise ValueError(
                    f"architectures {shown[name]!r} and {label!r} would have one name in the results table; "
                    "give the one with overrides a label of its own, or merge their sizes"
                )
            shown[name] = label
        return self

    def _say_how_long(self) -> None:
        """Exactly one of the three decides how long models are trained."""
        recipe = self.optimization
        decides = {"compute": self.compute, "optimization.steps": recipe.steps, "optimization.epochs": recipe.epochs}
        given = [key for key, value in decides.items() if value]
        if len(given) != 1:
            found = f"both {given[0]} and {given[1]}" if given else "none of them"
            raise ValueError(f"one of {', '.join(decides)} says how long models are trained, but there is {found}")
        if recipe.steps is None and (own := [label for label, entry in self.architectures.items() if entry.steps]):
            raise ValueError(f"the entry {own[0]!r} has steps of its own, the study {given[0]}; remove one of the two")
        if self.data == SEEN and not self.compute:
            raise ValueError(f"data: {SEEN} needs compute, which says how many samples are seen; list amounts of data")


def _distinct(name: str, values: tuple[Any, ...]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"{name} lists {twice[0]!r} twice")


_SECTIONS: dict[str, type[BaseModel]] = {
    "architectures": ArchitectureEntry,
    "optimization": StudyRecipe,
    "evaluation": EvaluationSpec,
    "resources": Resources,
}


def load_study(path: Path | str) -> Study:
    """Read a study file; whatever is wrong with it is a `UserError` that names the place."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the study {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())
        raise UserError(f"{path} is not YAML: {detail}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a study; it lacks the keys study, dataset, architectures, data …")
    return checked(content, path)


def checked(content: dict[str, Any], source: Path | str) -> Study:
    """The study with this content; whatever is wrong with it is a `UserError` that names the place in `source`."""
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{source}: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    # a misspelt key comes first: that the right one is missing only follows from it
    problem = min(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
    place = [str(part) for part in problem["loc"] if part not in ("of all sizes", "by size", "amounts", "seen")]
    if problem["type"] == "extra_forbidden":
        section: type[BaseModel] = Study
        if len(place) > 1:
            section = _SECTIONS["resources" if "resources" in place[:-1] else place[0]]
        within = f"key in {'.'.join(place[:-1])}" if len(place) > 1 else "key"
        return str(unknown_name(within, place[-1], section.model_fields))
    message = problem["msg"].removeprefix("Value error, ")
    return f"{'.'.join(place)}: {message}" if place else message
