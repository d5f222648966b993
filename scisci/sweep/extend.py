"""More of a study that was planned already: what is recorded stays, and is not done again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scisci.contracts.errors import UserError, unknown_name
from scisci.sweep.plan import Plan
from scisci.sweep.planning import check_data, make_plan
from scisci.sweep.study import Study, checked


def extended(
    study: Study,
    *,
    sizes: Mapping[str, tuple[str, ...]] | None = None,
    rates: Mapping[tuple[str, str], float] | None = None,
    data: tuple[int, ...] = (),
    compute: tuple[float, ...] = (),
    seeds: tuple[int, ...] = (),
) -> Study:
    """The study with more sizes of entries (at `rates`, by entry and size), amounts of data, budgets and seeds.

    `UserError` for what it has already, for unknown entries, for rates of sizes that are not new or rates that lack,
    and for amounts or budgets where the study goes by others.
    """
    content: dict[str, Any] = study.model_dump(mode="json", exclude_unset=True)
    for label, more in (sizes or {}).items():
        if label not in study.architectures:
            raise unknown_name("entry", label, study.architectures)
        content["architectures"][label]["sizes"] += more
    for (label, size), rate in (rates or {}).items():
        if size not in (sizes or {}).get(label, ()):
            raise UserError(f"a learning rate is given for {label} {size}, which is not among the new sizes")
        _add_rate(content["architectures"][label], study, label, size, rate)
    if data and not study.amounts:
        raise UserError("runs of this study have as much data as they see; add budgets with --compute")
    if compute and not study.compute:
        raise UserError("this study does not go by compute; add amounts of data with --data")
    added: dict[str, tuple[Any, ...]] = {"data": data, "compute": compute, "seeds": seeds}
    content |= {key: [*getattr(study, key), *more] for key, more in added.items() if more}
    return checked(content, "the extended study")


def _add_rate(entry: dict[str, Any], study: Study, label: str, size: str, rate: float) -> None:
    """Give a new size a rate of its own; how the rates of the others were chosen says nothing of it."""
    before = study.architectures[label]
    for key, new in (("learning_rate", rate), ("learning_rate_choice", "given")):
        known = entry.get(key, getattr(before, key))
        entry[key] = (known if isinstance(known, dict) else dict.fromkeys(before.sizes, known)) | {size: new}


def extended_plan(folder: Path, before: Plan, study: Study, keep_versions: bool = False) -> Plan:
    """Plan an extension of the study in `folder` and write the plan there.

    Where the code has changed since `before`, runs have other names now: that is a `UserError`, unless with
    `keep_versions` the plan names the earlier versions of the code, under which a recording still counts. FLOPs that
    were counted stay, and so do the steps that budgets of compute give.
    """
    from scisci.tasks.version import code_version

    now = code_version()
    if now != before.code_version and not keep_versions:
        raise UserError(
            f"the code that decides outcomes has changed since {folder} was planned, so that all its runs would be "
            "done again; go back to that code, or let what it recorded count beside new runs with --keep-versions"
        )
    if study == before.study and now == before.code_version:
        raise UserError("there is nothing to add; give --sizes, --data, --compute or --seeds")
    plan = make_plan(study, before.model_copy(update={"code_version": now}))
    check_data(before, plan.fingerprint, folder)
    versions = dict.fromkeys((before.code_version, *before.earlier))
    changes = {"extended": True, "earlier": tuple(version for version in versions if version != now)}
    plan = plan.model_copy(update=changes)
    plan.write(folder)
    return plan
