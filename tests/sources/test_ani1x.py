from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.store import Store
from scisci.sources.ani1x import read_ani1x
from scisci.sources.frames import BadFrame

# CODATA 2018, eV.
HARTREE = 27.211386245988


@pytest.fixture
def ani(tmp_path: Path, ethanol: Any, ammonia: Any) -> Path:
    """A file in the layout of ANI-1x: `dz` computed for all, `tz` and coupled cluster for the first two of each."""
    with h5py.File(tmp_path / "ani1x-release.h5", "w") as file:
        for name, data in (("C2H6O1", ethanol), ("H3N1", ammonia)):
            group, rows = file.create_group(name), len(data.energies)
            group.create_dataset("atomic_numbers", data=data.numbers, dtype="u1")
            group.create_dataset("coordinates", data=data.positions, dtype="f4")
            group.create_dataset("path", data=["/gpfs/x"] * rows, dtype=h5py.string_dtype())
            group["wb97x_dz.energy"] = data.energies / HARTREE
            group.create_dataset("wb97x_dz.forces", data=data.forces / HARTREE, dtype="f4")
            few = np.where(np.arange(rows) < 2, data.energies / HARTREE, np.nan)
            group["ccsd(t)_cbs.energy"] = few + 2
            group["wb97x_tz.energy"] = few + 1
            group["wb97x_tz.forces"] = np.where(np.isnan(few)[:, None, None], np.nan, data.forces / HARTREE * 2)
    return tmp_path / "ani1x-release.h5"


def test_units_and_groups(ani: Path, ethanol: Any, ammonia: Any) -> None:
    frames = list(read_ani1x(ani))
    assert [frame.group for frame in frames] == ["C2H6O1"] * 12 + ["H3N1"] * 5
    for data, read in ((ethanol, frames[:12]), (ammonia, frames[12:])):
        for k, frame in enumerate(read):
            np.testing.assert_array_equal(frame.sample.numbers, data.numbers)
            np.testing.assert_allclose(frame.sample.positions, data.positions[k], rtol=1e-6, atol=1e-6)
            assert frame.sample.energy == pytest.approx(data.energies[k], rel=1e-8)
            np.testing.assert_allclose(frame.sample.forces, data.forces[k], rtol=1e-6, atol=1e-6)


def test_another_level_brings_its_own_forces(ani: Path, ethanol: Any) -> None:
    frames = list(read_ani1x(ani, {"energy": "wb97x_tz.energy"}))
    assert frames[1].sample.energy == pytest.approx(ethanol.energies[1] + HARTREE, rel=1e-8)
    np.testing.assert_allclose(frames[1].sample.forces, 2 * ethanol.forces[1], rtol=1e-6, atol=1e-9)
    bad = [frame for frame in frames if isinstance(frame, BadFrame)]
    assert len(bad) == 10 + 3
    assert bad[0].where == f"frame 2 of C2H6O1 in {ani}"
    assert bad[0].reason == "wb97x_tz.energy was not computed (it is NaN)"


def test_a_level_without_forces_is_only_read_if_asked(ani: Path) -> None:
    chosen = {"energy": "ccsd(t)_cbs.energy"}
    with pytest.raises(
        UserError, match=r"C2H6O1 in .* has no forces under ccsd\(t\)_cbs\.forces; it has atomic_numbers"
    ):
        list(read_ani1x(ani, chosen))
    frames = list(read_ani1x(ani, {**chosen, "forces": "none"}))
    assert frames[0].sample.forces is None
    assert frames[2].reason == "ccsd(t)_cbs.energy was not computed (it is NaN)"
    assert sum(isinstance(frame, BadFrame) for frame in frames) == 13


def test_energy_can_be_left_out(ani: Path) -> None:
    frame = next(iter(read_ani1x(ani, {"energy": "none"})))
    assert frame.sample.energy is None
    assert frame.sample.forces is not None


def test_import_skips_what_was_not_computed_and_counts_it(ani: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["import", str(ani), "--format", "ani1x", "--out", str(ani.with_name("x.h5"))]
    command += ["--key", "energy=ccsd(t)_cbs.energy", "--key", "forces=none"]
    with pytest.raises(UserError, match=r"frame 2 of C2H6O1 in .* cannot be used: ccsd"):
        main(command)
    splits = ["--split", "train=0.5", "val=0.25", "test=0.25"]
    main([*command, "--skip-bad", *splits])
    assert len(Store(ani.with_name("x.h5"))) == 4
    assert "skipped 13 " in "".join(capsys.readouterr())


def test_absent_and_misshapen_arrays_are_named(ani: Path) -> None:
    with h5py.File(ani, "a") as file:
        del file["H3N1/wb97x_dz.energy"]
    with pytest.raises(
        UserError, match=r"H3N1 in .*release\.h5 has no energy under wb97x_dz\.energy; it has atomic_num"
    ):
        list(read_ani1x(ani))
    with h5py.File(ani, "a") as file:
        file["H3N1/wb97x_dz.energy"] = np.zeros(6)
    with pytest.raises(UserError, match=r"H3N1 in .* has wb97x_dz\.energy in shape \(6,\) instead of \(5,\)"):
        list(read_ani1x(ani))


def test_a_file_cut_off_is_one_sentence(ani: Path) -> None:
    ani.write_bytes(ani.read_bytes()[:-100])
    with pytest.raises(UserError, match="is not a whole HDF5 file"):
        list(read_ani1x(ani))
