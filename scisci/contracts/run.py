"""A run's two records: what was asked for (`RunSpec`) and what came out (`RunResult`)."""

from __future__ import annotations

import json
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scisci.contracts.files import digest

SCHEMA_VERSION: Literal[1] = 1
TreatmentName = Literal["none", "augmentation", "frames", "penalty", "constraint", "latent"]
Parametrization = Literal["standard", "maximal_update"]
Status = Literal["ok", "diverged", "failed", "out_of_memory"]
# In a run's folder, what it goes on from after an interruption; no part of its record.
CHECKPOINT_FILE = "last.ckpt"
# What recipes did not say at first.
LATER = ("parametrization", "precision", "compiled", "divergence_bound")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Recipe(_Record):
    """How a model is trained, its learning rate and for how long apart.

    AdamW on the loss `energy_weight * per-atom energy + force_weight * force + stress_weight * stress`.
    """

    batch_size: int = Field(default=16, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of the steps over which the rate rises")
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_clip: float = Field(default=10.0, gt=0)
    energy_weight: float = Field(default=10.0, ge=0)
    force_weight: float = Field(default=10.0, ge=0)
    stress_weight: float = Field(default=0.0, ge=0)
    validations: int = Field(default=5, gt=0, description="evenly spaced validations; the best checkpoint counts")
    divergence_bound: float | None = Field(
        default=10.0, gt=1, description="a loss so many times that of a constant prediction ends the run; null: none"
    )
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    compiled: bool = Field(default=False, description="potentials alone: compile the training step")

    @model_validator(mode="after")
    def _compiled_in_full_precision(self) -> Self:
        if self.compiled and self.precision != "32-true":
            raise ValueError(f"compiled training is in full precision, not {self.precision}; leave one of them out")
        return self


class OptimizationSpec(Recipe):
    """A recipe with its steps and learning rate, and how that was chosen; a baseline, which is fitted, has no rate.

    Under the maximal-update parametrisation the rate is that at the architecture's reference width, here and in tables.
    """

    steps: int = Field(gt=0)
    learning_rate: float | None = Field(gt=0)
    learning_rate_choice: str = "given"
    parametrization: Parametrization = "standard"


class EvaluationSpec(_Record):
    """Where the trained model is measured: the first `max_samples` of each split, in stored order."""

    splits: tuple[str, ...] = Field(min_length=1)
    max_samples: int | None = Field(default=None, gt=0)
    max_validation_samples: int | None = Field(default=None, gt=0)
    symmetry_samples: int = Field(default=16, ge=0)
    predictions: bool = Field(default=False, description="keep what the model says of every sample it is measured on")


class RunSpec(_Record):
    """Everything that decides the outcome of one run; its hash is the run's name."""

    schema_version: Literal[1] = SCHEMA_VERSION
    study: str
    dataset: str
    fingerprint: str = Field(description="sha256 over the content of the data set's store")
    architecture: str
    variant: str | None = Field(default=None, description="its name in tables, with its overrides")
    size: str
    overrides: dict[str, Any] = Field(default_factory=dict)
    treatment: TreatmentName = "none"
    task: dict[str, Any] = Field(default_factory=dict, description="options of the data's task, such as its target")
    data: int = Field(gt=0, description="unique training samples: the first `data` of the fixed permutation")
    seed: int = 0
    optimization: OptimizationSpec
    evaluation: EvaluationSpec
    code_version: str
    loggers: tuple[str | dict[str, Any], ...] = ()
    energy: bool = Field(default=False, description="measure the electricity that training takes")

    @property
    def run(self) -> str:
        """The run's name: the first 16 hexadecimal digits of the sha256 of its canonical JSON (keys sorted).

        Loggers, and whether predictions are kept or energy is measured, decide nothing and are left out of it; so are
        the defaults of `LATER`, without which runs were named before there was a choice.
        """
        asked = self.model_dump(mode="json", exclude={"evaluation": {"predictions"}, "loggers": True, "energy": True})
        for name in LATER:
            if asked["optimization"][name] == OptimizationSpec.model_fields[name].default:
                del asked["optimization"][name]
        canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return digest(canonical.encode())[:16]


class MetricValue(_Record):
    """A metric on one split, with its standard error over samples and over groups (molecules, series)."""

    value: float
    se: float | None = None
    se_groups: float | None = None
    n: int


class SplitResult(_Record):
    """All metrics of one split; `severity` is the size of its distribution shift where it has one."""

    severity: float | None = None
    metrics: dict[str, MetricValue]


class Hardware(_Record):
    """What a run was made on; None where the machine does not tell, and of a GPU for a run without one."""

    processor: str
    cores: int | None = Field(default=None, description="that the process may use")
    memory: float = Field(description="MiB")
    gpu: str | None = None
    gpu_memory: float | None = Field(default=None, description="MiB")
    driver: str | None = None
    cuda: str | None = None


class RunResult(_Record):
    """What a run leaves behind, whether it ended well or not; written once, atomically."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run: str
    status: Status
    reason: str | None = None
    notes: tuple[str, ...] = Field(default=(), description="what else is to be known of how it came about")
    domain: str
    params: int | None = None
    params_body: int | None = Field(default=None, description="parameters without embeddings and references")
    flops_per_sample: float | None = Field(default=None, description="one training step, backward included")
    samples_seen: int = 0
    unique_samples: int = 0
    epochs: float = 0.0
    learning_rate: float | None = None
    learning_rate_choice: str = "given"
    best_step: int | None = None
    accumulation: int = Field(default=1, description="parts that each batch was had in, where memory was short")
    seconds: float = 0.0
    training_seconds: float = 0.0
    peak_memory: float | None = Field(default=None, description="MiB; of the process on a CPU")
    device: str
    hardware: Hardware | None = None
    shared: bool | None = Field(
        default=None, description="whether other processes used the device during training; None: not known"
    )
    energy_kwh: float | None = Field(default=None, description="electricity of training, where it was asked for")
    energy_method: str | None = Field(default=None, description="by what, and which of its parts are estimates")
    splits: dict[str, SplitResult] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def flops(self) -> float | None:
        """Training FLOPs in all."""
        return None if self.flops_per_sample is None else self.flops_per_sample * self.samples_seen
