"""From a finished sweep, or from predictions of an outside model, to submissions."""

from __future__ import annotations

import datetime
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import yaml

from scisci.contracts.errors import UserError
from scisci.contracts.files import creating
from scisci.contracts.metrics import SERIES_GROUPS, SPACE_GROUPS
from scisci.contracts.run import RunResult, RunSpec
from scisci.data.library import datasets, open_dataset, read_card
from scisci.data.store import Store
from scisci.leaderboard.about import About, AboutSweep, checked
from scisci.leaderboard.reading import FILE
from scisci.leaderboard.submission import (
    SCHEMA_VERSION,
    Hardware,
    Run,
    Submission,
    TrainingData,
    Tuning,
    slug_fault,
)
from scisci.models import registry
from scisci.sweep.plan import Plan
from scisci.sweep.records import Records
from scisci.tasks.base import Task
from scisci.tasks.baselines import registry as baselines
from scisci.tasks.checkpoints import load_task
from scisci.tasks.domains import task_for
from scisci.tasks.predictions import write_predictions

# The group that tells families apart, where it is not rotations; and the groups that can act.
TELLING = {"tree": "permutation", "series": "flow"}
ACTING = {"tree": ("permutation",), "series": SERIES_GROUPS}
# Of these all features are scalars, as of others where l_max is 0.
INVARIANT = ("schnet", "gin")


@dataclass(frozen=True)
class Packed:
    """The runs of one architecture and treatment, which become one submission."""

    label: str
    slug: str
    runs: list[tuple[RunSpec, RunResult]]


def pack(sweep: Path, out: Path, about: Path | None = None, inputs: Path | None = None) -> list[Path]:
    """Make a submission in `out` of each architecture and treatment of a finished sweep; returns their folders.

    Predictions are those that the runs kept, or else are made now with the models they left. `about` is a YAML file
    with what a sweep cannot know (`AboutSweep`); without it authors are anonymous, no licence is asserted, and nobody
    counted trials. With `inputs`, the inputs of a sealed test set, all is predicted for these. Either all submissions
    are written or none. Raises `UserError` for a sweep that is not finished, one on data without a name, or submissions
    that exist.
    """
    plan = Plan.read(sweep)
    told = AboutSweep.read(about, plan.study.architectures)
    packed = _groups(plan, Records(sweep))
    for one in packed:
        if fault := slug_fault(one.slug):
            raise UserError(f"{fault}; rename the study or its entry {one.label!r}")
        if (out / one.slug).exists():
            raise UserError(f"{out / one.slug} exists already; remove it, or give another folder")
    source = _source(plan, inputs)
    with _all_or_none(out, [one.slug for one in packed]) as folder:
        for one in packed:
            _write(one, plan, Records(sweep), source, told.of(one.label), folder / one.slug)
    return [out / one.slug for one in packed]


def _groups(plan: Plan, records: Records) -> list[Packed]:
    """All runs of a sweep by what they are submitted as; `UserError` where some have not ended."""
    found: dict[str, Packed] = {}
    missing = 0
    for cell, spec in plan.specs():
        result = records.result(spec.run)
        if result is None:
            missing += 1
            continue
        name = "-".join([spec.study, spec.variant or spec.architecture, *[spec.treatment] * (spec.treatment != "none")])
        one = found.setdefault(cell.label, Packed(cell.label, _slug(name), []))
        one.runs.append((spec, result))
    if missing:
        raise UserError(
            f"{missing} of {len(plan)} runs of {records.folder} are not done; go on with 'scisci sweep run', or take"
            " them out of the study"
        )
    if len({one.slug for one in found.values()}) < len(found):
        raise UserError("two entries of the study would have the same slug; rename one of them")
    return list(found.values())


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _source(plan: Plan, inputs: Path | None) -> Store:
    """The store that predictions are for: the sweep's own, or inputs of the same domain."""
    name = plan.study.dataset
    if name not in datasets():
        raise UserError(
            f"the sweep is on {name}, which has no name; put the store and a card into a folder of SCISCI_DATASETS"
        )
    found = Store(inputs) if inputs is not None else open_dataset(name)
    if inputs is None and found.fingerprint != plan.fingerprint:
        raise UserError(f"{name} is not what the sweep was trained on (the fingerprints differ); get that version")
    if found.domain != plan.domain:
        raise UserError(f"{inputs} holds samples of {found.domain!r}, but the models are for {plan.domain!r}")
    return found


@contextmanager
def _all_or_none(out: Path, slugs: Sequence[str]) -> Iterator[Path]:
    """A folder in which to make the submissions, which appear in `out` together."""
    temporary = out / f".packing.{os.getpid()}.tmp"
    with creating(out):
        temporary.mkdir(parents=True)
    try:
        yield temporary
        for slug in slugs:
            with creating(out / slug):
                (temporary / slug).rename(out / slug)
    finally:
        shutil.rmtree(temporary)


def _write(one: Packed, plan: Plan, records: Records, store: Store, about: About, folder: Path) -> None:
    """Write one submission."""
    runs = []
    for spec, result in one.runs:
        name = f"{_part(spec.size)}-{spec.data}-{spec.seed}"
        splits = dict[str, int]()
        if result.status == "ok":
            splits = _predictions(spec, records.path(spec.run), store, plan, folder / "predictions" / name)
        runs.append(_run(name, spec, result, store, splits))
    write_submission(folder, _submission(one, plan, records, about, runs))


def _plain(text: str) -> str:
    """A text on one line, without what cannot be printed, and not too long."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:2000]


def _part(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "_", text)


def _predictions(spec: RunSpec, run: Path, store: Store, plan: Plan, folder: Path) -> dict[str, int]:
    """Put predictions of all splits that a run was measured on, and the store has, into `folder`; split → samples."""
    folder.mkdir(parents=True)
    task: Task | None = None
    count = spec.evaluation.max_samples
    splits = [name for name in spec.evaluation.splits if name in store.splits]
    for split in splits:
        kept = run / "predictions" / f"{split}.h5"
        if store.fingerprint == plan.fingerprint and kept.is_file():
            shutil.copyfile(kept, folder / kept.name)
            continue
        task = task or load_task(run)
        write_predictions(task, store, split, folder / kept.name, count)
    return {split: len(store.split(split).indices(count)) for split in splits}


def _run(name: str, spec: RunSpec, result: RunResult, store: Store, splits: dict[str, int]) -> Run:
    public = store.fingerprint == spec.fingerprint
    return Run(
        run=name,
        dataset=spec.dataset,
        fingerprint=store.fingerprint,
        status=result.status,
        reason=None if result.status == "ok" else _plain(result.reason or "not given"),
        size=_part(spec.size),
        treatment=spec.treatment,
        params=result.params,
        params_body=result.params_body,
        horizon=_horizon(spec, store),
        data=spec.data,
        samples_seen=result.samples_seen,
        flops=result.flops or None,
        seed=spec.seed,
        lr=result.learning_rate,
        seconds=result.seconds,
        peak_memory=result.peak_memory,
        device=result.device,
        shared=result.shared,
        splits=splits,
        reported={split: _reported(split, result) for split in splits} if public else {},
    )


def _horizon(spec: RunSpec, store: Store) -> int | None:
    """How many steps a model of series forecasts."""
    if store.domain != "series":
        return None
    default = signature(task_for("series").__init__).parameters["horizon"].default
    return int(spec.task.get("horizon", default))


def _reported(split: str, result: RunResult) -> dict[str, float]:
    """The errors that a run recorded; those of symmetry, which are many, in distribution alone."""
    metrics = result.splits[split].metrics
    return {name: m.value for name, m in metrics.items() if split == "test" or not name.startswith("symmetry")}


def _submission(one: Packed, plan: Plan, records: Records, about: About, runs: list[Run]) -> Submission:
    """What is known of a sweep's model, and what `about` says."""
    spec = one.runs[0][0]
    claims = _claims(one, plan.domain, records)
    chosen = list(dict.fromkeys(result.learning_rate_choice for _, result in one.runs))
    known = {
        "name": (spec.variant or spec.architecture) + (f" with {spec.treatment}" if spec.treatment != "none" else ""),
        "family": _family(spec, plan.domain, claims),
        "symmetry": claims,
        "summary": f"{_first_line(spec, plan.domain)} Trained in the study {plan.study.study!r}.",
        "date": datetime.date.today(),
        "training_data": TrainingData(
            description=f"samples of the split 'train' of {plan.study.dataset} ({_title(plan)}), from random weights",
            contamination="none known",
            statement="trained by scisci on 'train' alone; the weights that count were chosen on 'val'",
        ),
        "tuning": Tuning(
            trials=0 if _fitted(spec) else None,
            selected_on="val" if _fitted(spec) else "not given",
            description=_plain("learning rate: " + "; ".join(chosen)),
        ),
        "hardware": Hardware(
            description=", ".join(dict.fromkeys(result.device for _, result in one.runs)),
            device_hours=round(sum(result.seconds for _, result in one.runs) / 3600, 6),
        ),
    }
    told = {name: value for name, value in about if value is not None}
    with checked(f"the submission {one.slug}", Submission):
        return Submission.model_validate({**known, **told, "runs": runs})


def _fitted(spec: RunSpec) -> bool:
    """Whether a run is of a baseline, which is fitted."""
    return spec.architecture in baselines.names()


def _class(spec: RunSpec, domain: str) -> type[Any]:
    if _fitted(spec):
        return baselines.find(spec.architecture, domain, spec.task.get("target"))
    return registry.load(spec.architecture)


def _first_line(spec: RunSpec, domain: str) -> str:
    return (_class(spec, domain).__doc__ or spec.architecture).strip().splitlines()[0]


def _title(plan: Plan) -> str:
    name = plan.study.dataset
    return read_card(name).title if name in datasets() else name


def _claims(one: Packed, domain: str, records: Records) -> dict[str, str]:
    """What the model claims of the groups that act on its data: the trained one, since options can change it."""
    ended = [spec for spec, result in one.runs if result.status == "ok"]
    spec = one.runs[0][0]
    model: Any = load_task(records.path(ended[0].run)).model if ended else _class(spec, domain)
    claims = {name: claim for name, claim in model.symmetry.items() if name in ACTING.get(domain, SPACE_GROUPS)}
    if spec.treatment not in ("none", "frames") and claims.get("rotation") == "none":
        claims["rotation"] = "learned"
    return claims


def _family(spec: RunSpec, domain: str, claims: dict[str, str]) -> str:
    """By the group that tells families apart: rotations, or what acts on trees or series."""
    if _fitted(spec):
        return "baseline"
    claim = claims.get(TELLING.get(domain, "rotation"), "none")
    if claim == "learned":
        return "learned symmetry"
    if claim == "none":
        return "unconstrained"
    options = registry.options(spec.architecture, spec.size, spec.overrides)
    return "invariant" if spec.architecture in INVARIANT or options.get("l_max") == 0 else "equivariant"


def write_submission(folder: Path, submission: Submission) -> None:
    """Write `submission.yaml`, without what is as by default."""
    content = {"schema_version": SCHEMA_VERSION, **submission.model_dump(mode="json", exclude_defaults=True)}
    folder.mkdir(parents=True, exist_ok=True)
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text = yaml.dump(content, Dumper=dumper, sort_keys=False, allow_unicode=True, width=110)
    (folder / FILE).write_text(text, encoding="utf-8")
