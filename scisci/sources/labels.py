"""Which entries of a frame are its labels: looked up by name, all of one level of theory, the same in every frame.

A label that is missing, half present or of the wrong shape is always a `UserError`, since a wrong name or a mixture of
levels of theory is behind it; a label that is not finite makes one bad frame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.stress import voigt_6_to_full_3x3_stress

from scisci.contracts.errors import UserError, unknown_name
from scisci.data.samples import AtomsSample, misfit, problem
from scisci.sources.frames import BadFrame, Frame

REQUIRED = ("energy", "forces")
OPTIONAL = ("stress", "charge", "spin")
KEEP = "keep"
STRESS = ("stress", "virials", "virial")
NONE = "none"
# Prefixes of a level of theory, tried in this order: MACE's, then the plain names.
PREFIXES = ("REF_", "")


class Labels:
    """Reads the labels of the frames of one file.

    `keys` maps `energy`, `forces`, `stress`, `charge` and `spin` to the names they have in the file, or to `none` to
    leave one out. Without it the first frame decides between `REF_energy` with `REF_forces` and the plain names. A
    stress (or a virial) beside them is read too; beside names of your own it is read only under the name you give.
    `charge` and `spin` are read where the first frame has them. In the file, spin is the multiplicity 2S+1, as in
    OMol25; the sample gets 2S, the number of unpaired electrons. `keep` names entries, separated by commas, that become
    metadata columns, such as a temperature: a number or a word in every frame.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        for label in keys:
            if label not in (*REQUIRED, *OPTIONAL, KEEP):
                raise unknown_name("label of atoms in --key", label, (*REQUIRED, *OPTIONAL, KEEP))
        self._given = {label: name for label, name in keys.items() if label != KEEP}
        self._kept = [name for name in keys.get(KEEP, "").split(",") if name]
        self._names: dict[str, str] | None = None

    def frame(
        self, where: str, structure: AtomsSample, entries: Mapping[str, Any], info: Mapping[str, Any]
    ) -> Frame | BadFrame:
        """The structure with its labels from `entries`; `UserError` names the frame and the entries found.

        Its group is `group` or `config_type` in `info`, or else its chemical formula.
        """
        if reason := problem(structure):
            return BadFrame(where, reason)
        if self._names is None:
            self._names = self._choose(entries, where)
        for label, name in self._names.items():
            if name not in entries:
                raise _missing(label, f"{name} as the first frame has", entries, where)
        for label in OPTIONAL:
            if label not in self._names and (late := self._present(label, self._names, entries)):
                raise UserError(
                    f"{where} has a {label} under {late} where the first frame has none; it has {_listed(entries)};"
                    f" leave it out with --key {label}={NONE}"
                )
        for label, name in self._names.items():
            setattr(structure, label, _value(label, name, entries, structure, where))
        if reason := misfit(structure):
            return BadFrame(where, reason)
        _count_unpaired(structure, where)
        kept = {name: _column(name, {**entries, **info}, where) for name in self._kept}
        return Frame(where, structure, _group(info, structure.numbers), kept)

    def _choose(self, entries: Mapping[str, Any], where: str) -> dict[str, str]:
        """The name in the file of each label that is read."""
        wanted = [label for label in REQUIRED if self._given.get(label) != NONE]
        for prefix in PREFIXES:
            names = {label: self._given.get(label, prefix + label) for label in wanted}
            if all(name in entries for name in names.values()):
                for label in OPTIONAL:
                    if found := self._present(label, names, entries):
                        names[label] = found
                    elif (name := self._given.get(label, NONE)) != NONE:
                        raise _missing(label, name, entries, where)
                return names
        for label in wanted:
            tried = [self._given[label]] if label in self._given else [prefix + label for prefix in PREFIXES]
            if not any(name in entries for name in tried):
                raise _missing(label, " or ".join(tried), entries, where)
        raise UserError(
            f"{where} has energy and forces of different levels of theory; it has {_listed(entries)}; name those"
            " that belong together with --key energy=NAME --key forces=NAME"
        )

    def _present(self, label: str, names: Mapping[str, str], entries: Mapping[str, Any]) -> str | None:
        """The name under which the frame has an optional label; a stress must be of the same level as `names`."""
        if label in self._given:
            tried = [self._given[label]]
        elif label == "stress":
            chosen = [(name, required) for required in REQUIRED if (name := names.get(required))]
            level = [p for p in PREFIXES if chosen and all(name == p + required for name, required in chosen)]
            tried = [prefix + name for prefix in level for name in STRESS]
        else:
            # A column of charges or spins per atom is another quantity.
            tried = [label] if np.ndim(entries.get(label, [])) == 0 else []
        return next((name for name in tried if name != NONE and name in entries), None)


def _listed(entries: Mapping[str, Any]) -> str:
    return ", ".join(sorted(map(str, entries))) or "no labels at all"


def _missing(what: str, names: str, entries: Mapping[str, Any], where: str) -> UserError:
    return UserError(
        f"{where} has no {what} under {names}; it has {_listed(entries)}; name the right one with --key {what}=NAME,"
        f" or import without it with --key {what}={NONE}"
    )


def _value(label: str, name: str, entries: Mapping[str, Any], structure: AtomsSample, where: str) -> Any:
    """The label in the project's units; one that is no array of numbers of the right shape is a `UserError`."""
    by_label: dict[str, list[tuple[int, ...]]] = {
        "forces": [(len(structure.numbers), 3)],
        "stress": [(3, 3), (9,), (6,)],
    }
    shapes = by_label.get(label, [()])
    try:
        value = np.asarray(entries[name])
    except ValueError as error:
        raise UserError(f"{where} has no array of numbers under {name} ({error}); correct the file") from error
    if value.shape not in shapes or value.dtype.kind not in "iuf":
        wanted = " or ".join(str(shape) for shape in shapes)
        raise UserError(
            f"{where} has {value.dtype} of shape {value.shape} under {name}, where {label} is numbers of shape"
            f" {wanted}; it has {_listed(entries)}; name the right one with --key {label}=NAME"
        )
    return _stress(name, value.astype(np.float64), structure, where) if label == "stress" else value[()]


def _column(name: str, entries: Mapping[str, Any], where: str) -> float | str:
    """A number or a word to keep beside the sample."""
    if name not in entries:
        raise UserError(
            f"{where} has no {name} to keep; it has {_listed(entries)}; name another with --key {KEEP}=NAME"
        )
    value = np.asarray(entries[name])
    if value.shape != () or value.dtype.kind not in "biufU":
        raise UserError(f"{where} has no single number or word under {name}; leave it out of --key {KEEP}=")
    try:
        return float(value)  # extended XYZ has numbers as words
    except ValueError:
        return str(value)


def _stress(name: str, value: np.ndarray, structure: AtomsSample, where: str) -> np.ndarray:
    """[3, 3] eV/Å³, tensile positive, from a stress (ASE's sign) or a virial, which is minus stress times volume."""
    value = voigt_6_to_full_3x3_stress(value) if value.shape == (6,) else value.reshape(3, 3)
    if "virial" not in name.lower():
        return value
    volume = abs(np.linalg.det(structure.cell)) if structure.cell is not None else 0.0
    if volume == 0:
        raise UserError(f"{where} has a virial under {name} but no cell, so it has no stress; correct the file")
    return -value / volume


def _count_unpaired(structure: AtomsSample, where: str) -> None:
    """Make charge and spin whole numbers, and spin the number of unpaired electrons instead of the multiplicity.

    Electrons come in pairs or are unpaired, so their number and that of the unpaired ones are both even or both odd:
    a file that counts unpaired electrons under `spin` cannot pass for one that gives multiplicities.
    """
    for label in ("charge", "spin"):
        if (value := getattr(structure, label)) is not None:
            if value != round(value):
                raise UserError(f"{where} has {label} {value}, no whole number; leave it out with --key {label}={NONE}")
            setattr(structure, label, round(value))
    if structure.spin is None:
        return
    electrons = int(structure.numbers.sum()) - (structure.charge or 0)
    structure.spin -= 1
    if not 0 <= structure.spin <= electrons or (electrons - structure.spin) % 2:
        raise UserError(
            f"{where} has spin {structure.spin + 1}, which is no multiplicity 2S+1 that {electrons} electrons can have;"
            f" write multiplicities, or leave it out with --key spin={NONE}"
        )


def _group(info: Mapping[str, Any], numbers: np.ndarray) -> str:
    named = (info.get(key) for key in ("group", "config_type"))
    name = next((name for name in named if name is not None), None)
    return _formula(np.sort(numbers).astype(np.uint8).tobytes()) if name is None else str(name)


@lru_cache(maxsize=4096)
def _formula(numbers: bytes) -> str:
    """As ASE writes it, but much faster: carbon and hydrogen first, the others by the alphabet."""
    counts = Counter(chemical_symbols[z] for z in numbers)
    first = [symbol for symbol in "CH" if symbol in counts]
    ordered = first + sorted(counts.keys() - set(first))
    return "".join(symbol + (str(counts[symbol]) if counts[symbol] > 1 else "") for symbol in ordered)
