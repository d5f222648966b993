"""`scisci symmetry measure` on trained models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from scisci import cli
from scisci.contracts.errors import UserError
from scisci.data.batch import graph_batch
from scisci.data.store import Store
from scisci.symmetry.actions import ACTIONS, apply
from scisci.symmetry.groups import GROUPS, Element
from scisci.tasks.checkpoints import load_task
from scisci.tasks.cli import main as fit
from scisci.tasks.symmetry import measured
from scisci.tasks.symmetry_cli import main

ISOLATED = [group for group in GROUPS if group != "torus"]


def trained(store: Path, runs: Path, *options: str) -> Path:
    fit(
        [
            *("fit", f"--data.dataset={store}", f"--runs={runs}", "--model.size=3k", "--trainer.max_steps=10"),
            *("--trainer.val_check_interval=10", "--trainer.enable_progress_bar=false", "--model.symmetry_samples=0"),
            *options,
        ]
    )
    (folder,) = runs.iterdir()
    return folder


@pytest.fixture(scope="module")
def potential(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(small_store, tmp_path_factory.mktemp("mpnn"), "--model.architecture=mpnn")


@pytest.fixture(scope="module")
def of_particles(particle_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(particle_store, tmp_path_factory.mktemp("egnn"), "--model.architecture=egnn")


def only(table: pd.DataFrame, **where: Any) -> pd.Series:
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_figures_are_printed_and_written(
    potential: Path, small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = []
    for ending in (".json", ".csv", ".parquet"):
        out = tmp_path / f"found{ending}"
        cli.run(
            [
                *("symmetry", "measure", str(potential), "--data", str(small_store), "--split", "test", "ood_600K"),
                *("--group", "rotation", "permutation", "--samples", "12", "--elements", "3", "--out", str(out)),
            ]
        )
        assert f"wrote {out}" in capsys.readouterr().out
        read = {".json": pd.read_json, ".csv": pd.read_csv, ".parquet": pd.read_parquet}[ending]
        tables.append(read(out, **({"precise_float": True} if ending == ".json" else {})))
    for table in tables:
        assert set(table.split) == {"test", "ood_600K"}
        assert set(table.group) == {"rotation", "permutation"}
        assert set(table.quantity) == {"energy", "forces"}
        assert set(table.fingerprint) == {Store(small_store).fingerprint}
        assert len(table) == len(tables[0])
        np.testing.assert_allclose(table.value.astype(float), tables[0].value.astype(float), rtol=1e-12)
    found = only(tables[0], split="test", group="rotation", quantity="forces", statistic="relative")
    assert 0 < found.low < found.value < found.high
    assert (found.samples, found.elements) == (12, 3)
    only(tables[0], split="test", group="rotation", quantity="forces", statistic="sd_between_elements")
    assert (tables[0][tables[0].statistic == "absolute"].unit.isin(["eV", "eV/Å"])).all()
    assert all(isinstance(row["value"], float) for row in json.loads((tmp_path / "found.json").read_text()))


def test_precision_shows_in_exact_symmetries_alone(potential: Path, small_store: Path) -> None:
    errors = {}
    for dtype in ("float32", "float64"):
        table = measured(str(potential), str(small_store), samples=8, elements=2, dtype=dtype)
        for group in ACTIONS:
            errors[dtype, group] = only(table, group=group, quantity="forces", statistic="relative").value
    for group in ("translation", "permutation"):
        assert errors["float64", group] < 1e-13 < 1e-9 < errors["float32", group] < 1e-4
    for group in ("rotation", "reflection"):
        assert errors["float32", group] == pytest.approx(errors["float64", group], rel=1e-3)
        assert errors["float64", group] > 1e-3


def test_worst_case_is_found_again_from_what_is_written(potential: Path, small_store: Path) -> None:
    """All 48 elements of O_h: the sample and the matrix named give the error stated, and no other is larger."""
    table = measured(str(potential), str(small_store), groups=["cubic"], samples=6, elements=1)
    worst = only(table, quantity="forces", statistic="worst")
    assert worst.elements == 48
    store, model = Store(small_store), load_task(potential).model
    ids = store.split("test").indices(6)
    everything = graph_batch(store.take(ids), model.cutoff)
    rms = model(everything)["forces"].square().mean().sqrt()
    batch = graph_batch(store.take(np.array([worst["sample"]])), model.cutoff)
    matrix = torch.tensor([float(x) for x in worst["matrix"].split()]).double().reshape(1, 3, 3)

    def error(by: torch.Tensor) -> float:
        acted, undo = apply(Element(by, torch.zeros(1, 3).double()), batch)
        missed = undo(model(acted))["forces"] - model(batch)["forces"]
        return float(missed.square().mean().sqrt() / rms)

    assert error(matrix) == pytest.approx(worst.value, rel=1e-4)
    assert GROUPS["cubic"].elements is not None
    assert max(error(by[None]) for by in GROUPS["cubic"].elements) == pytest.approx(worst.value, rel=1e-4)


def test_ratio_to_the_label_error(potential: Path, small_store: Path) -> None:
    """Their quotient is the rms error against the labels, computed here from predictions."""
    store, model = Store(small_store), load_task(potential).model
    batch = graph_batch(store.take(store.split("test").indices(10)), model.cutoff)
    outputs = model(batch)
    table = measured(str(potential), str(small_store), groups=["rotation"], samples=10, elements=2)
    for quantity in ("energy", "forces"):
        absolute, over = (only(table, quantity=quantity, statistic=s).value for s in ("absolute", "over_label_error"))
        missed = (outputs[quantity] - batch[quantity]).square().mean().sqrt()
        assert absolute / over == pytest.approx(float(missed), rel=1e-4)


def test_equivariant_model_of_particles(of_particles: Path, particle_store: Path) -> None:
    table = measured(str(of_particles), str(particle_store), ["ood_bodies8"], ISOLATED, 8, 2, "float64")
    assert set(table.quantity) == {"positions"}
    assert set(table.group) == set(ISOLATED)
    assert table[table.statistic.isin(["relative", "worst", "over_label_error"])].value.max() < 1e-12


def test_potential_of_crystals_with_its_stress(crystals: Path, tmp_path: Path) -> None:
    run = trained(crystals, tmp_path, "--model.architecture=schnet")
    groups = ("rotation", "inversion", "torus")
    table = measured(str(run), str(crystals), groups=groups, samples=8, elements=2, dtype="float64")
    assert set(table.quantity) == {"energy", "forces", "stress"}
    assert set(table.group) == set(groups)
    assert table[table.statistic == "relative"].value.max() < 1e-12
    label = only(table, group="torus", quantity="stress", statistic="over_label_error")
    assert label.value < 1e-10
    with pytest.raises(UserError, match=r"'cubic' cannot act .* a cubic box with sides along x, y and z"):
        measured(str(run), str(crystals), groups=["cubic"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--group", "rotatoin"], "unknown symmetry group 'rotatoin'; did you mean .* 'rotation'"),
        (["--group", "torus"], "the group 'torus' cannot act on these data"),
        (["--split", "ood_700K"], "unknown split 'ood_700K'; did you mean"),
        (["--samples", "0"], "--samples is 0"),
        (["--elements", "-3"], "--elements is -3"),
        (["--out", "found.xlsx"], "unknown ending of --out '.xlsx'"),
        (["--data", "nowhere/data.h5"], "no store at"),
    ],
)
def test_wrong_options_are_one_sentence_and_write_nothing(
    potential: Path,
    small_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        main(["measure", str(potential), "--data", str(small_store), "--out", "found.json", *options])
    assert list(tmp_path.iterdir()) == []


def test_model_of_another_domain_or_none_is_refused(
    potential: Path, particle_store: Path, small_store: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="the model is for samples of 'atoms', not of 'particles'"):
        main(["measure", str(potential), "--data", str(particle_store)])
    with pytest.raises(UserError, match="no trained model"):
        main(["measure", str(tmp_path), "--data", str(small_store)])


def test_checkpoint_may_be_any_file_of_the_run(potential: Path, small_store: Path) -> None:
    given = (potential, potential / "model.safetensors", potential / "checkpoints" / "best.ckpt")
    values = [
        only(
            measured(str(path), str(small_store), groups=["rotation"], samples=5),
            quantity="energy",
            statistic="relative",
        ).value
        for path in given
    ]
    assert values == pytest.approx([values[0]] * 3)


def test_groups_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["groups"])
    shown = capsys.readouterr().out
    assert all(f"│ {name} " in shown for name in GROUPS)


def test_model_whose_outputs_are_not_finite_is_told(potential: Path, small_store: Path, tmp_path: Path) -> None:
    broken = tmp_path / "run"
    shutil.copytree(potential, broken)
    weights = load_file(broken / "model.safetensors")
    save_file(
        {name: w * (np.nan if name.startswith("readout") else 1) for name, w in weights.items()},
        broken / "model.safetensors",
    )
    with pytest.raises(UserError, match="the model's energy is not finite"):
        main(["measure", str(broken), "--data", str(small_store)])
