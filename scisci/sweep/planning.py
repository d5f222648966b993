"""From a study to its plan: bound to its data and to this code, its FLOPs counted, and refused if it could not run."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scisci.contracts.errors import UserError, unknown_name
from scisci.contracts.run import OptimizationSpec
from scisci.sweep.plan import PLAN_FILE, Plan
from scisci.sweep.study import Study, load_study

if TYPE_CHECKING:
    from scisci.models.blocks.graph import Inputs

# Arguments of a task for which a study has keys of its own.
_OWN_KEYS = {
    *OptimizationSpec.model_fields,
    "architecture",
    "size",
    "overrides",
    "symmetry_treatment",
    "symmetry_samples",
}
# Fewer are no training: the warm-up, a tenth of them, would have none.
LEAST_STEPS = 10


def plan_for(study: Path, out: Path | None = None) -> Plan:
    """The plan of a study file, or the one in a sweep's folder, which must be of this data and this code."""
    if not study.is_dir():
        return make_plan(load_study(study), Plan.read(out) if out and (out / PLAN_FILE).exists() else None)
    from scisci.data.library import open_dataset
    from scisci.tasks.version import code_version

    plan = Plan.read(study)
    if plan.code_version != code_version():
        raise UserError(
            f"the code that decides outcomes has changed since {study} was planned; plan it anew from its study file, "
            f"or let what is recorded count with 'scisci sweep extend {study} --keep-versions'"
        )
    check_data(plan, open_dataset(plan.study.dataset).fingerprint, study)
    return plan


def check_data(plan: Plan, fingerprint: str, folder: Path) -> None:
    """`UserError` unless a data set has the content that it had when a sweep's `folder` was planned."""
    if plan.fingerprint != fingerprint:
        raise UserError(
            f"the content of {plan.study.dataset} has changed since {folder} was planned; choose another folder for "
            "runs on it"
        )


def make_plan(study: Study, known: Plan | None = None) -> Plan:
    """Bind a study to its data set and to this code, count its FLOPs, and refuse what could not run.

    Opens the data set as training does and builds every model of the study once. FLOPs that an earlier plan, `known`,
    has of the same models are taken from it. Raises `UserError` for an unknown data set, architecture, size, option or
    split, for options that no model can be built with, for a data set without what training needs, for more training
    samples than there are, and for budgets of compute that do not make a training.
    """
    from scisci.data.module import StoreDataModule
    from scisci.tasks.domains import task_for
    from scisci.tasks.energy import check_energy
    from scisci.tasks.loggers import parse as parse_loggers
    from scisci.tasks.version import code_version

    data = StoreDataModule(study.dataset, test_splits=list(study.evaluation.splits))
    store = data.store
    available = len(store.split("train"))
    if max(study.amounts, default=0) > available:
        raise UserError(
            f"the study asks for {max(study.amounts)} training samples but {study.dataset} has {available}; "
            "lower the data amounts"
        )
    task = task_for(store.domain)
    data.check(task.domain)
    of_some = {"energy_weight", "force_weight", "stress_weight", "compiled"} & study.optimization.model_fields_set
    if foreign := sorted(of_some - set(signature(task.__init__).parameters)):
        raise UserError(f"the study's {foreign[0]} means nothing for data of the domain {store.domain!r}; remove it")
    allowed = set(signature(task.__init__).parameters) - {"self", *_OWN_KEYS}
    if strange := sorted(set(study.task) - allowed):
        raise unknown_name(f"option in task of data of the domain {store.domain!r}", strange[0], allowed)
    parse_loggers(study.loggers)
    if study.energy:
        check_energy()
    inputs = task.inputs(store)
    for label in study.architectures:
        _build(study, label, inputs, task)
    plan = Plan(
        study=study,
        domain=store.domain,
        fingerprint=store.fingerprint,
        code_version=code_version(),
        available=available,
    )
    plan = plan.model_copy(update={"flops": _counted(plan, known)})
    if study.compute:
        _check_budgets(plan)
    return plan


def _counted(plan: Plan, known: Plan | None) -> dict[str, dict[str, float]]:
    """FLOPs per training sample of every entry and size, each model counted once."""
    from scisci.tasks.costs import flops_per_sample

    study, found = plan.study, {} if known is None else _known_flops(plan, known)
    counted: dict[str, dict[str, float]] = {label: {} for label in study.architectures}
    for label, entry in study.architectures.items():
        for size in entry.sizes:
            model = _model(study, label, size)
            if model not in found:
                found[model] = flops_per_sample(plan.bare_spec(label, size))
            counted[label][size] = found[model]
    return counted


def _known_flops(plan: Plan, known: Plan) -> dict[str, float]:
    """Model → FLOPs that an earlier plan has, if they are still those."""
    decides = [(one.fingerprint, one.code_version, one.study.task) for one in (plan, known)]
    if decides[0] != decides[1]:
        return {}
    entries = known.flops.items()
    return {_model(known.study, label, size): flops for label, sizes in entries for size, flops in sizes.items()}


def _model(study: Study, label: str, size: str) -> str:
    """What an entry's FLOPs depend on."""
    entry = study.architectures[label]
    return json.dumps([study.architecture(label), size, entry.overrides, entry.treatment], sort_keys=True)


def _check_budgets(plan: Plan) -> None:
    """`UserError` for a budget that is no training, and for two that are the same one."""
    study = plan.study
    for label, entry in study.architectures.items():
        if not study.trained(label):
            raise UserError(
                f"{study.architecture(label)} is a baseline, which no compute is given to; remove {label!r}"
            )
        for size in entry.sizes:
            trainings = plan.trainings(label, size)
            budgets = [budget for budget in study.compute for _ in study.amounts or (0,)]
            for budget, (steps, _) in zip(budgets, trainings, strict=True):
                if steps < LEAST_STEPS:
                    least = plan.flops[label][size] * study.optimization.batch_size * LEAST_STEPS
                    raise UserError(
                        f"compute {budget:.3g} gives {label} {size} {steps} steps, which is no training; leave the "
                        f"size out or give it {least:.2g} or more"
                    )
            if len(set(trainings)) < len(trainings):
                raise UserError(
                    f"two budgets of compute give {label} {size} the same training; take them further apart"
                )


def _build(study: Study, label: str, inputs: Inputs, task: type[Any]) -> None:
    """Build the models of an entry once, so that what is wrong with it is said before anything runs."""
    from scisci.models import registry
    from scisci.tasks.baselines import registry as baselines

    name, entry = study.architecture(label), study.architectures[label]
    if name in baselines.names():
        if study.learning_rates:
            raise UserError(
                f"{name} is a baseline, which is fitted and not trained at learning_rates; remove {label!r}"
            )
        trained = {"learning_rate": None, "treatment": "none", "parametrization": "standard"}
        if given := [key for key, untold in trained.items() if getattr(entry, key) != untold]:
            raise UserError(f"{name} is a baseline, which is fitted and not trained; remove {given[0]} of {label!r}")
        for size in entry.sizes:
            baselines.build(name, task.domain, study.task, size, entry.overrides)
    else:
        if ":" not in name and name not in registry.architectures():
            raise unknown_name("architecture", name, [*registry.architectures(), *baselines.names()])
        chosen: dict[str, Any] = {"symmetry_treatment": entry.treatment, "parametrization": entry.parametrization}
        if study.optimization.compiled:
            chosen["compiled"] = True
        made = task(name, entry.sizes[0], entry.overrides, **chosen, **study.task)
        for size in entry.sizes:
            made.backbone(inputs, 1.0, registry.options(name, size, entry.overrides))
        if entry.learning_rate is None and not study.learning_rates:
            raise UserError(
                f"the entry {label!r} lacks the learning_rate that {name} is trained with; add it, or have "
                "'scisci tune' choose it"
            )
    if (entry.overrides or study.variant(label)) and label in (*registry.architectures(), *baselines.names()):
        raise UserError(
            f"the entry {label!r} makes {name} another model, so tables must not call it {label!r}; "
            f"give it a label of its own and the key 'architecture: {name}'"
        )
