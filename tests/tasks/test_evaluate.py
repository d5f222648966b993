"""Outside calculators on the splits: zero error against their own labels, and clear words when they fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from scisci.contracts.errors import UserError
from scisci.data.samples import AtomsSample
from scisci.data.store import Store
from scisci.data.writer import StoreWriter
from scisci.tasks.cli import main as lightning
from scisci.tasks.evaluate import Evaluator, energy_shift, evaluate, quantities, structures
from scisci.tasks.evaluate_cli import main

NO_SHIFT = np.zeros(119)


class Shifted(EMT):
    """EMT with another zero of energy, as another code has."""

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] += 7.5 * len(self.atoms)


class OnlyEnergy(Calculator):
    """A calculator without forces."""

    implemented_properties = ["energy"]  # noqa: RUF012


class Foreign:
    """Computes, but derives from nothing of ASE's, as some codes' calculators do."""

    def get_potential_energy(self, atoms: Any = None, force_consistent: bool = False) -> float:
        return 0.25 * len(atoms)

    def get_forces(self, atoms: Any = None) -> np.ndarray:
        return np.full((len(atoms), 3), 0.5)


class Failing(EMT):
    """Fails on the cell whose first atom is where the test says."""

    fails_at: float = np.inf

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        if atoms.positions[0, 0] == self.fails_at:
            raise RuntimeError("SCF not\nconverged")
        super().calculate(atoms, properties, system_changes)


class NotANumber(EMT):
    """Gives NaN forces."""

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results["forces"] *= np.nan


def evaluator(store: Store, calculator: Calculator, shift: np.ndarray = NO_SHIFT) -> Evaluator:
    return Evaluator(calculator, quantities(store, calculator), shift)


def test_labels_made_with_emt_have_no_error_under_emt(
    crystals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, path = Store(crystals), tmp_path / "test.h5"
    errors = evaluate(store, "test", evaluator(store, EMT()), path)
    # Labels are of the positions before they were rounded to float32, forces are stored in float32.
    assert errors["energy_mae"].value < 1e-4
    assert errors["force_mae"].value < 1e-2
    assert errors["stress_mae"].value < 1e-3
    assert errors["force_cosine"].value == pytest.approx(1, abs=1e-9)
    assert errors["force_mae"].n == 16
    with h5py.File(path) as file:
        labels = store.take(store.split("test").indices())
        np.testing.assert_array_equal(file["ids"][...], store.split("test").indices())
        np.testing.assert_array_equal(file["offsets"][...], labels.offsets)
        np.testing.assert_allclose(file["stress"][...], labels.samples["stress"], atol=1e-6)
        assert (file.attrs["split"], file.attrs["fingerprint"]) == ("test", store.fingerprint)


def test_file_and_errors_do_not_depend_on_the_batch(
    crystals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, found = Store(crystals), []
    for size in (32, 5):
        monkeypatch.setattr("scisci.tasks.evaluate.BATCH", size)
        errors = evaluate(store, "test", evaluator(store, Shifted()), tmp_path / f"{size}.h5", samples=12)
        with h5py.File(tmp_path / f"{size}.h5") as file:
            found.append((errors, {name: file[name][...] for name in file}))
    assert found[0][0] == found[1][0]
    for name, values in found[0][1].items():
        np.testing.assert_array_equal(values, found[1][1][name])
    assert len(found[0][1]["ids"]) == 12


def test_alignment_takes_out_another_zero_of_energy_fitted_on_train_alone(crystals: Path, tmp_path: Path) -> None:
    store = Store(crystals)
    plain = evaluate(store, "test", evaluator(store, Shifted()), tmp_path / "plain.h5")
    assert plain["energy_mae"].value == pytest.approx(7500, rel=1e-6)
    shift = energy_shift(store, Shifted())
    assert np.flatnonzero(np.isfinite(shift)).tolist() == [29]
    assert shift[29] == pytest.approx(-7.5, abs=1e-6)
    aligned = evaluate(store, "test", evaluator(store, Shifted(), shift), tmp_path / "aligned.h5")
    assert aligned["energy_mae"].value < 1e-3
    assert aligned["force_mae"] == plain["force_mae"]


def test_alignment_sees_no_test_sample(crystals: Path, tmp_path: Path) -> None:
    """Labels with another zero of energy in the test split alone: the shift that would hide it is not found."""
    source, path = Store(crystals), tmp_path / "moved.h5"
    with StoreWriter(path, "atoms") as writer:
        for name in ("train", "test"):
            ragged, start = source.take(source.split(name).indices(12)), len(writer)
            for k, (a, b) in enumerate(zip(ragged.offsets[:-1], ragged.offsets[1:], strict=True)):
                fields = {field: values[k] for field, values in ragged.samples.items() if field != "group"}
                fields |= {field: values[a:b] for field, values in ragged.items.items()}
                fields["energy"] += 4 * 2.0 if name == "test" else 0.0
                writer.append(AtomsSample(**fields), "copper")
            writer.split(name, np.arange(start, len(writer)), "none")
    store = Store(path)
    shift = energy_shift(store, EMT())
    aligned = evaluate(store, "test", evaluator(store, EMT(), shift), tmp_path / "test.h5")
    assert aligned["energy_mae"].value == pytest.approx(2000, rel=1e-6)


def test_shipped_labels_are_those_of_gfn2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tblite")
    options = ["--calculator-options", "method=GFN2-xTB", "accuracy=0.01", "verbosity=0"]
    command = ["--data=xtb-molecules", "--split", "test", "ood_size", "--samples=3", f"--out={tmp_path}", *options]
    main(["--calculator=tblite.ase:TBLite", *command])
    shown = capsys.readouterr().out
    assert "energies are the calculator's own" in shown
    for split in ("test", "ood_size"):
        energy, force = (
            float(cell.split("±")[0])
            for cell in next(line for line in shown.splitlines() if line.startswith(f"│ {split} ")).split("│")[2:4]
        )
        assert energy < 1e-4
        assert force < 1e-2


def test_own_models_evaluate_as_they_test(
    copper_run: Path, crystals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`test` and `evaluate` print one row, so their digits are the same."""
    rows, calculator = [], "--calculator=scisci.tasks.calculator:ScisciCalculator"
    options = [calculator, "--calculator-options", f"checkpoint={copper_run}"]
    for run, arguments in (
        (lightning, ["test", "--run", str(copper_run), "--trainer.enable_progress_bar=false"]),
        (main, [*options, f"--data={crystals}", "--split=test", f"--out={tmp_path}"]),
    ):
        capsys.readouterr()
        run(arguments)
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("│ test"))
        rows.append([float(cell.split("±")[0]) for cell in line.split("│")[2:-1]])
    assert rows[0][: len(rows[1])] == pytest.approx(rows[1], rel=1e-3)


def test_calculator_of_a_foreign_class_will_do(crystals: Path, tmp_path: Path) -> None:
    store = Store(crystals)
    errors = evaluate(store, "test", evaluator(store, Foreign()), tmp_path / "test.h5")  # type: ignore[arg-type]
    labels = store.take(store.split("test").indices())
    assert errors["force_mae"].value == pytest.approx(1000 * np.abs(labels.items["forces"] - 0.5).mean(), rel=1e-6)
    assert errors["energy_mae"].value == pytest.approx(
        1000 * np.abs(labels.samples["energy"] / 4 - 0.25).mean(), rel=1e-6
    )


def test_charge_and_spin_reach_the_calculator(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "ions.h5", "atoms") as writer:
        for charge, spin in ((1, 1), (-1, 0)):
            sample = AtomsSample(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 0.97]]), charge=charge, spin=spin)
            writer.append(sample, "OH")
    cation, anion = structures(Store(tmp_path / "ions.h5").take(np.arange(2)))
    assert (cation.info["charge"], cation.info["spin"]) == (1, 2)
    assert (anion.info["charge"], anion.info["spin"]) == (-1, 1)
    assert cation.get_initial_charges().sum() == 1
    assert cation.get_initial_magnetic_moments().sum() == 1
    assert anion.get_initial_charges().sum() == -1
    assert not anion.get_initial_magnetic_moments().any()


def test_calculator_that_fails_is_told_with_the_sample(
    crystals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scisci.tasks.evaluate.BATCH", 4)
    store, path = Store(crystals), tmp_path / "test.h5"
    bad = Failing()
    bad.fails_at = float(store.take(store.split("test").indices()[9:10]).items["positions"][0, 0])
    words = r"failed on sample 9 of split 'test' \(Cu4\): RuntimeError: SCF not converged"
    with pytest.raises(UserError, match=words):
        evaluate(store, "test", evaluator(store, bad), path)
    with pytest.raises(UserError, match=r"sample 0 of split 'test' .* not finite"):
        evaluate(store, "test", evaluator(store, NotANumber()), path)
    with pytest.raises(UserError, match="cannot compute forces"):
        evaluator(store, OnlyEnergy())
    lacking = np.full(119, np.nan)
    with pytest.raises(UserError, match="leave out --align energy"):
        evaluate(store, "test", evaluator(store, EMT(), lacking), path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calculator=nowhere:EMT"], "cannot load nowhere:EMT: No module named 'nowhere'"),
        (["--calculator=ase.calculators.emt:EMTT"], "cannot load ase.calculators.emt:EMTT"),
        (["--calculator=emt"], "give module:factory"),
        (["--calculator=builtins:dict"], "gives a dict"),
        (["--calculator=pathlib:Path.home"], "cannot load"),
        (["--calculator-options", "a"], "write it as KEY=VALUE"),
        (["--split", "tset"], "unknown split 'tset'; did you mean 'test'"),
        (["--data", "xtb"], "unknown data set 'xtb'; did you mean 'xtb-crystals' or 'xtb-molecules'"),
        (["--samples", "0"], "--samples is 0"),
    ],
)
def test_bad_options_are_one_sentence(crystals: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    given = ["--calculator=ase.calculators.emt:EMT", f"--data={crystals}", "--split=test", f"--out={tmp_path / 'out'}"]
    with pytest.raises(UserError, match=message):
        main([*given, *arguments])
    assert list(tmp_path.iterdir()) == []


def test_samples_without_forces_are_refused(particle_store: Path) -> None:
    with pytest.raises(UserError, match="has no atoms with energy and forces"):
        quantities(Store(particle_store), EMT())
