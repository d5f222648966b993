"""Saying everything that is wrong with a submission at once, and everything that a person should look at."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa

from scisci.contracts.errors import UserError
from scisci.data.store import Store
from scisci.leaderboard.contents import examine
from scisci.leaderboard.findings import Finding, Findings
from scisci.leaderboard.hdf5_faults import quoted
from scisci.leaderboard.reading import FILE, Loaded, load, open_listed
from scisci.leaderboard.safe_hdf5 import Refused, open_untrusted
from scisci.leaderboard.similarity import similar
from scisci.leaderboard.submission import Run
from scisci.leaderboard.suspicions import of_agreements, of_disclosures, of_reports
from scisci.tasks.scoring import View

__all__ = ["Finding", "Findings", "check", "similar"]

MOST_ENTRIES = 100_000
StoreOf = Callable[[str], Store]


def check(folder: Path, store_of: StoreOf = open_listed, others: Iterable[Path] | None = None) -> Findings:
    """Look at all of a submission; nothing outside of its folder is touched, and nothing in it is run.

    `store_of` opens data sets by name; `others` are folders of submissions to compare with, by default those beside
    it. Memory does not grow with the predictions. Suspicions that need scores are looked for where nothing is refused.
    """
    folder = Path(os.path.abspath(folder))
    if folder.is_symlink() or not folder.is_dir():
        return Findings((Finding("folder", "there is no folder of that name (links do not count); give a submission"),))
    loaded = load(folder)
    refused, flagged = [*loaded.faults, *_strangers(folder, loaded)], list[Finding]()
    stores: dict[str, Store | UserError] = {}
    windows: dict[str, View] = {}
    table: pa.Table | None = None
    for run in loaded.runs:
        store, fault = _store(run, stores, store_of)
        if fault:
            refused.append(Finding(f"{FILE}: run {run.run}", fault))
        for split in run.splits:
            wrong, suspicious = _check_file(folder, run, split, store, windows)
            where = f"predictions/{run.run}/{split}.h5"
            refused += [Finding(where, what) for what in wrong]
            flagged += [Finding(where, what) for what in suspicious]
    if loaded.submission is not None:
        flagged += of_disclosures(loaded.submission)
        if not refused:
            from scisci.leaderboard.scoring import score

            try:
                table = score(folder, store_of=store_of)
                flagged += of_reports(loaded.submission, folder.name, table)
            except UserError as error:
                refused.append(Finding("scores", str(error)))
            flagged += similar(folder, _beside(folder) if others is None else others, store_of)
    return Findings(tuple(refused), tuple(flagged), table)


def _beside(folder: Path) -> list[Path]:
    """The other submissions in the folder of a submission."""
    return sorted(path.parent for path in folder.parent.glob(f"*/{FILE}") if path.parent != folder)


def _store(run: Run, stores: dict[str, Store | UserError], store_of: StoreOf) -> tuple[Store | None, str | None]:
    """The store that a run is of, opened once, or what is wrong with what the run says of it."""
    if run.dataset not in stores:
        try:
            stores[run.dataset] = store_of(run.dataset)
        except UserError as error:
            stores[run.dataset] = error
    found = stores[run.dataset]
    if isinstance(found, UserError):
        return None, str(found)
    if found.fingerprint != run.fingerprint:
        return None, f"its fingerprint is not that of {run.dataset!r} ({found.fingerprint[:12]}...); predict again"
    return found, None


def _check_file(
    folder: Path, run: Run, split: str, store: Store | None, windows: dict[str, View]
) -> tuple[list[str], list[str]]:
    """What is wrong with one predictions file, and what is suspicious, a clause each."""
    wrong: list[str] = []
    if store is not None:
        try:
            if (most := len(store.split(split))) < run.splits[split]:
                wrong.append(f"{run.splits[split]:,} samples are listed, but {split!r} has {most:,}; list these")
        except UserError as error:
            wrong.append(str(error))
    path = folder / "predictions" / run.run / f"{split}.h5"
    try:
        with open_untrusted(path, folder) as file:
            if store is None or wrong:
                return wrong, []
            found = examine(file, run, split, store, Path(f"{split}.h5"))
    except Refused as error:
        return wrong + list(error.faults), []
    wrong += found.faults
    if found.view and found.view.horizon != run.horizon:
        wrong.append(
            f"forecasts {found.view.horizon} steps, not {run.horizon} as its run says; put the run's horizon right"
        )
    if found.view and found.view.horizon != run.horizon:
        wrong.append(
            f"forecasts {found.view.horizon} steps, but the run's horizon is {run.horizon}; give the one that is"
        )
    if store.domain == "series" and found.view and windows.setdefault(run.dataset, found.view) != found.view:
        wrong.append("has another context or horizon than another file on its data; submit these by themselves")
    return wrong, [] if wrong else [*of_agreements(found.agreements)]


def _strangers(folder: Path, loaded: Loaded) -> Iterator[Finding]:
    """Whatever a folder holds beside its description and the predictions that this lists."""
    yield from _entries(folder, folder, {FILE: stat.S_ISREG, "predictions": stat.S_ISDIR})
    top = folder / "predictions"
    if top.is_symlink() or not top.is_dir() or not loaded.names:
        return
    listed = {run.run: run for run in loaded.runs}
    yield from _entries(top, folder, dict.fromkeys(loaded.names, stat.S_ISDIR))
    for name, run in listed.items():
        inside = top / name
        if not inside.is_symlink() and inside.is_dir():
            yield from _entries(inside, folder, {f"{split}.h5": stat.S_ISREG for split in run.splits})


def _entries(place: Path, root: Path, wanted: dict[str, Callable[[int], bool]]) -> Iterator[Finding]:
    """What does not belong into a folder, without following links; files that do are looked at when they are read."""
    with os.scandir(place) as entries:
        for count, entry in enumerate(islice(entries, MOST_ENTRIES)):
            where = quoted(Path(entry.path).relative_to(root))[1:-1]
            mode = entry.stat(follow_symlinks=False).st_mode
            if entry.name not in wanted:
                link = " is a symbolic link and" if stat.S_ISLNK(mode) else ""
                scores = " (scores are always recomputed)" if "score" in entry.name.lower() else ""
                yield Finding(where, f"{link} does not belong to a submission{scores}; remove it".strip())
            elif wanted[entry.name] is stat.S_ISDIR and not stat.S_ISDIR(mode):
                yield Finding(
                    where, f"is {'a symbolic link' if stat.S_ISLNK(mode) else 'no folder'}; put a folder there"
                )
            if count == MOST_ENTRIES - 1:
                yield Finding(where, f"has {MOST_ENTRIES:,} or more beside it; keep to what is listed")
