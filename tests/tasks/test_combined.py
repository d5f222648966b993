"""One potential of several data sets: it learns each one's labels, and must be told, or know, which are meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.calculators.emt import EMT
from safetensors.torch import load_file

from scisci.contracts.errors import UserError
from scisci.data.batch import graph_batch
from scisci.data.combine import combine
from scisci.data.ragged import Ragged
from scisci.data.samples import AtomsSample
from scisci.data.statistics import Statistics
from scisci.data.store import Store
from scisci.data.writer import StoreWriter
from scisci.models import registry
from scisci.models.blocks.graph import Inputs
from scisci.models.compiled import trace
from scisci.models.framed import FramedPotential
from scisci.models.potential import Potential
from scisci.symmetry.frames import Frames
from scisci.tasks.base import Task
from scisci.tasks.calculator import ScisciCalculator
from scisci.tasks.checkpoints import load_model, load_task
from scisci.tasks.cli import main
from scisci.tasks.evaluate import energy_shift, structures
from scisci.tasks.predictions import write_predictions

# A potential trained by the code that knew no combined data sets, and what that code said of ethanol.
BEFORE = Path(__file__).parent / "before"
FACTOR, SHIFT = 2.0, -3.0


@pytest.fixture(scope="session")
def levels(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with real molecules, the same with energies of another level of theory, and both in one store.

    At the other level energies are twice as large, and shifted by a constant per element.
    """
    folder, low = tmp_path_factory.mktemp("levels"), Store(small_store)
    ragged = low.take(np.arange(len(low)))
    for name, factor, shift in (("low", 1.0, 0.0), ("high", FACTOR, SHIFT)):
        with StoreWriter(folder / f"{name}.h5", "atoms") as writer:
            for k, (a, b) in enumerate(zip(ragged.offsets[:-1], ragged.offsets[1:], strict=True)):
                numbers, energy = ragged.items["numbers"][a:b], float(ragged.samples["energy"][k])
                energy = factor * energy + shift * int(numbers.sum())
                forces = factor * ragged.items["forces"][a:b]
                sample = AtomsSample(numbers, ragged.items["positions"][a:b], energy=energy, forces=forces)
                writer.append(sample, low.groups[ragged.samples["group"][k]])
            for split in low.splits.values():
                writer.split(split.name, split.indices(), split.shift, split.severity)
            writer.reference("energy", factor * low.references["energy"] + shift * np.arange(119))
    combine({name: Store(folder / f"{name}.h5") for name in ("low", "high")}, folder / "levels")
    return folder


def fit(folder: Path, architecture: str, steps: int, *options: str) -> Path:
    """Train a small potential on both levels; returns its run directory."""
    runs = folder / f"runs-{architecture}"
    command = ["fit", "--seed_everything=0", f"--data.dataset={folder / 'levels'}", f"--runs={runs}"]
    command += [f"--model.architecture={architecture}", "--model.size=3k", "--data.test_splits=[test]"]
    command += [f"--trainer.max_steps={steps}", f"--trainer.val_check_interval={steps}"]
    main([*command, "--trainer.enable_progress_bar=false", *options])
    (found,) = runs.iterdir()
    return found


@pytest.fixture(scope="session")
def run(levels: Path) -> Path:
    """Run directory of an architecture that reads of which data set atoms are."""
    return fit(levels, "dpa3", 250, "--model.learning_rate=0.01", "--data.batch_size=8", "--model.symmetry_samples=8")


def outputs(model: Potential, store: Store) -> tuple[dict[str, torch.Tensor], Any]:
    """What a model says of a store's test samples, and the batch of these."""
    store = store.numbered(model.datasets)
    batch = graph_batch(store.take(store.split("test").indices()), model.cutoff, model.known_elements)
    return model(batch), batch


def test_energies_and_forces_of_both_levels_are_learnt(run: Path, levels: Path) -> None:
    """Each energy is much closer than its references alone, and the ratio of forces is that of the labels."""
    model, forces = load_model(run), []
    for name in ("low", "high"):
        found, batch = outputs(model, Store(levels / f"{name}.h5"))
        atoms = batch.ptr.diff()
        missed = (found["energy"] - batch.energy).abs() / atoms
        unexplained = (found["energy"] - found["interaction"] - batch.energy).abs() / atoms
        assert missed.mean() < 0.75 * unexplained.mean()
        forces.append(found["forces"].flatten())
    low, high = forces
    # Without the encoding both would be the same, and the slope 1.
    assert low @ high / (low @ low) == pytest.approx(FACTOR, rel=0.15)


def test_rotations_leave_it_as_it_is(run: Path) -> None:
    metrics = json.loads((run / "result.json").read_text())["splits"]["test"]["metrics"]
    for quantity in ("energy", "forces"):
        assert metrics[f"symmetry_rotation_{quantity}_float64"]["value"] < 1e-10
        assert metrics[f"symmetry_rotation_{quantity}"]["value"] < 1e-4


def test_without_the_encoding_levels_differ_by_their_references(levels: Path) -> None:
    model = load_model(fit(levels, "schnet", 20, "--model.symmetry_samples=0"))
    (low, batch), (high, _) = (outputs(model, Store(levels / f"{name}.h5")) for name in ("low", "high"))
    assert torch.equal(low["forces"], high["forces"])
    shipped = Store(levels / "low.h5").references["energy"]
    protons = torch.zeros(batch.num_graphs).index_add(0, batch.batch, batch.numbers.float()).double()
    composition = torch.zeros(batch.num_graphs, dtype=torch.float64)
    composition.index_add_(0, batch.batch, torch.from_numpy(shipped)[batch.numbers])
    torch.testing.assert_close(high["energy"] - low["energy"], (FACTOR - 1) * composition + SHIFT * protons)


@pytest.fixture
def model() -> Potential:
    """An untrained potential of two data sets, the second of which has no oxygen; in float64."""
    torch.manual_seed(0)
    inputs = Inputs(elements=(1, 6, 8), datasets=2)
    small = {"channels": 4, "edge_channels": 4, "angle_channels": 4, "layers": 1, "fitting": 4}
    backbone = registry.build("dpa3", inputs, 7.0, False, **small)
    references = (-13.0, -1030.0, -2040.0), (-1.0, -2.0, float("nan"))
    return Potential(backbone, references, 0.7, datasets=("a", "b")).double().eval()


def molecules(*datasets: int) -> Any:
    """A batch of copies of formic acid, turned and shaken, of these data sets; in float64."""
    atoms, rng = molecule("HCOOH"), np.random.default_rng(len(datasets))
    size, copies = len(atoms), len(datasets)
    positions = [atoms.positions + rng.normal(scale=0.05, size=(size, 3)) for _ in datasets]
    items = {"numbers": np.tile(atoms.numbers, copies), "positions": np.concatenate(positions)}
    samples = {"group": np.arange(copies), "dataset": np.array(datasets)}
    return graph_batch(Ragged(size * np.arange(copies + 1), items, samples), 5.0, dtype=np.float64)


def test_each_system_has_the_references_of_its_own_data_set(model: Potential) -> None:
    batch = molecules(0, 0)
    found = model(batch)
    expected = 2 * -13.0 - 1030.0 + 2 * -2040.0
    torch.testing.assert_close(found["energy"] - found["interaction"], torch.full((2,), expected).double())
    assert model.known_elements == (frozenset({1, 6, 8}), frozenset({1, 6}))
    del batch.dataset
    with pytest.raises(UserError, match=r"data sets a, b, and the batch does not say .*store.numbered"):
        model(batch)


def test_the_traced_graph_takes_data_sets_as_they_come(model: Potential) -> None:
    graph = trace(model.train(), model.geometry(molecules(0, 0, 1)))
    geometry = model.geometry(molecules(1, 0, 1, 1))
    for found, expected in zip(graph(*geometry), model.evaluate(geometry), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    other = model.evaluate(geometry._replace(dataset=1 - geometry.dataset))
    assert (other.interaction - model.evaluate(geometry).interaction).abs().min() > 1e-6


def test_averaging_over_frames_changes_nothing_for_an_invariant_model(model: Potential) -> None:
    references, names = model.energy_references.tolist(), model.datasets
    framed = FramedPotential(model.backbone, references, 0.7, frames=Frames(), datasets=names).double().eval()
    framed.load_state_dict(model.state_dict())
    batch = molecules(1, 0, 0)
    torch.testing.assert_close(framed(batch)["interaction"], model(batch)["interaction"], rtol=1e-9, atol=1e-9)


def test_statistics_survive_json() -> None:
    """Strict JSON has no NaN; what a model of one data set writes is what it always was."""
    several = Statistics((1, 8), ((-1.0, -2.0), (-3.0, float("nan"))), 0.5, 7.0, ("a", "b"))
    restored = Statistics.from_dict(json.loads(json.dumps(several.as_dict(), allow_nan=False)))
    assert restored.datasets == ("a", "b")
    np.testing.assert_array_equal(restored.energy_references, several.energy_references)
    one = Statistics((1, 8), (-1.0, -2.0), 0.5, 7.0)
    assert one.as_dict().keys() == {"elements", "energy_references", "energy_scale", "average_neighbors"}
    assert Statistics.from_dict(json.loads(json.dumps(one.as_dict()))) == one


def predicted(task: Task, store: Store, path: Path) -> np.ndarray:
    """Energies of the test samples."""
    write_predictions(task, store, "test", path)
    with h5py.File(path) as file:
        return file["energy"][...]


def test_a_store_is_told_by_its_name(run: Path, levels: Path, tmp_path: Path) -> None:
    """Alone, in another order, or renamed, samples are predicted as in the store that the model was trained on."""
    task, joint = load_task(run), Store(levels / "levels")
    members = joint.split("test").indices()
    together = predicted(task, joint, tmp_path / "joint.h5")
    low, high = (Store(levels / f"{name}.h5") for name in ("low", "high"))
    for name, store, first in (("low", low, True), ("high", high, False)):
        alone = predicted(task, store, tmp_path / f"{name}.h5")
        np.testing.assert_allclose(alone, together[(members < len(low)) == first], atol=1e-4)
    combine({"high": high, "low": low}, tmp_path / "turned")
    turned = predicted(task, Store(tmp_path / "turned"), tmp_path / "turned.h5")
    np.testing.assert_allclose(np.sort(turned), np.sort(together), atol=1e-4)
    (tmp_path / "other.h5").write_bytes((levels / "high.h5").read_bytes())
    with pytest.raises(UserError, match=r"low, high, and .*other.h5 is 'other'; say .*combine NAME="):
        predicted(task, Store(tmp_path / "other.h5"), tmp_path / "other")
    combine({"high": Store(tmp_path / "other.h5")}, tmp_path / "named")
    np.testing.assert_array_equal(predicted(task, Store(tmp_path / "named"), tmp_path / "named.h5"), alone)


def test_the_command_tests_a_model_on_one_of_its_data_sets(
    run: Path, levels: Path, capsys: pytest.CaptureFixture[str], small_store: Path
) -> None:
    command = ["--run", str(run), "--trainer.enable_progress_bar=false", "--model.symmetry_samples=0"]
    main(["test", *command, f"--data.dataset={levels / 'high.h5'}"])
    shown = capsys.readouterr().out
    found, batch = outputs(load_model(run), Store(levels / "high.h5"))
    error = 1e3 * ((found["energy"] - batch.energy).abs() / batch.ptr.diff()).mean()
    assert f"{float(error):.4g}"[:4] in shown
    with pytest.raises(UserError, match="is 'small'"):
        main(["test", *command, f"--data.dataset={small_store}"])


def test_a_calculator_must_be_told_whose_labels_to_give(run: Path, levels: Path) -> None:
    with pytest.raises(UserError, match="give dataset=, one of: low, high"):
        ScisciCalculator(run)
    with pytest.raises(UserError, match="did you mean 'high'"):
        ScisciCalculator(run, dataset="hihg")
    with pytest.raises(UserError, match="none available"):
        ScisciCalculator(BEFORE, dataset="low")
    model = load_model(run)
    for name in ("low", "high"):
        store, calculator = Store(levels / f"{name}.h5"), ScisciCalculator(run, dataset=name)
        found, _ = outputs(model, store)
        for k, atoms in enumerate(structures(store.take(store.split("test").indices(3)))):
            atoms.calc = calculator
            assert atoms.get_potential_energy() == pytest.approx(float(found["energy"][k]), abs=1e-4)


def test_elements_of_another_data_set_are_refused(small_store: Path, crystals: Path, tmp_path: Path) -> None:
    """A model of molecules and of copper knows copper in crystals alone."""
    combine({"molecules": Store(small_store), "copper": Store(crystals)}, tmp_path / "all", without=["stress"])
    command = [f"--data.dataset={tmp_path / 'all'}", f"--runs={tmp_path / 'runs'}", "--trainer.max_steps=2"]
    command += ["--model.architecture=dpa3", "--model.size=3k", "--model.symmetry_samples=4"]
    main(["fit", *command, "--trainer.val_check_interval=2", "--trainer.enable_progress_bar=false"])
    (run,) = (tmp_path / "runs").iterdir()
    atoms = molecule("H2O")
    atoms.calc = ScisciCalculator(run, dataset="molecules")
    assert np.isfinite(atoms.get_potential_energy())
    atoms.calc = ScisciCalculator(run, dataset="copper")
    with pytest.raises(UserError, match=r"trained on \[29\] only"):
        atoms.get_potential_energy()


def test_no_single_shift_aligns_several_data_sets(levels: Path) -> None:
    with pytest.raises(UserError, match="combines low, high; align energies on one of them at a time"):
        energy_shift(Store(levels / "levels"), EMT())


@pytest.mark.parametrize("name", ["", "model.safetensors", "best.ckpt"])
def test_models_of_before_are_what_they_were(name: str) -> None:
    atoms = molecule("CH3CH2OH")
    atoms.calc = ScisciCalculator(BEFORE / name, dtype="float64")
    assert atoms.get_potential_energy() == pytest.approx(-309.39321061949585, abs=1e-9)
    np.testing.assert_allclose(atoms.get_forces()[0], [0.05550078, -0.01050555, 0.0], atol=1e-8)


def test_models_of_one_data_set_are_saved_as_before(small_store: Path, tmp_path: Path) -> None:
    main(
        [
            *("fit", f"--data.dataset={small_store}", f"--runs={tmp_path}", "--model.architecture=schnet"),
            *("--model.size=3k", "--model.overrides={channels: 4, layers: 1}", "--model.symmetry_samples=0"),
            *("--trainer.max_steps=2", "--trainer.val_check_interval=2", "--trainer.enable_progress_bar=false"),
        ]
    )
    (run,) = tmp_path.iterdir()
    files = {"old": BEFORE, "new": run}
    weights = {name: load_file(folder / "model.safetensors") for name, folder in files.items()}
    shapes = {name: {key: value.shape for key, value in held.items()} for name, held in weights.items()}
    assert shapes["new"] == shapes["old"]
    described = {name: json.loads((folder / "model.json").read_text()) for name, folder in files.items()}
    assert described["new"].keys() == described["old"].keys()
    assert described["new"]["statistics"].keys() == described["old"]["statistics"].keys()
