from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from scisci.contracts.errors import UserError
from scisci.contracts.run import RunResult
from scisci.data.batch import graph_batch
from scisci.data.library import domain_of
from scisci.data.store import Store
from scisci.models.registry import domains, get
from scisci.tasks.checkpoints import load_model
from scisci.tasks.cli import main

ROOT = Path(__file__).resolve().parents[2]


def options(store: Path, runs: Path, steps: int = 20, every: int = 10) -> list[str]:
    return [
        f"--data.dataset={store}",
        f"--runs={runs}",
        "--model.architecture=mpnn",
        "--model.size=3k",
        f"--trainer.max_steps={steps}",
        f"--trainer.val_check_interval={every}",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
    ]


@pytest.fixture(scope="module")
def finished(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    main(["fit", *options(small_store, runs)])
    (folder,) = runs.iterdir()
    return folder


def test_fit_leaves_config_model_and_result(finished: Path) -> None:
    result = RunResult.model_validate_json((finished / "result.json").read_text())
    assert result.status == "ok"
    assert list(result.splits) == ["test", "ood_600K"]
    assert {"config.yaml", "model.safetensors", "model.json", "curve.parquet"} <= {p.name for p in finished.iterdir()}


def test_every_fit_has_its_own_run_directory(small_store: Path, tmp_path: Path) -> None:
    for _ in range(2):
        main(["fit", *options(small_store, tmp_path, steps=2, every=2)])
    assert len(list(tmp_path.iterdir())) == 2


def test_test_reproduces_the_numbers_of_fit(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = RunResult.model_validate_json((finished / "result.json").read_text())
    main(["test", "--run", str(finished), "--trainer.enable_progress_bar=false"])
    shown = capsys.readouterr().out
    for split in result.splits.values():
        assert f"{split.metrics['force_mae'].value:.4g}" in shown


def test_predictions_are_those_of_the_model(finished: Path, small_store: Path) -> None:
    main(["predict", "--run", str(finished), "--trainer.enable_progress_bar=false"])
    store, model = Store(small_store), load_model(finished)
    for split in ("test", "ood_600K"):
        with h5py.File(finished / "predictions" / f"{split}.h5") as file:
            assert file.attrs["fingerprint"] == store.fingerprint
            ids = file["ids"][...]
            assert sorted(ids) == sorted(store.split(split).indices())
            out = model(graph_batch(store.take(ids), model.cutoff))
            np.testing.assert_allclose(file["energy"][...], out["energy"].numpy(), atol=1e-4)
            np.testing.assert_allclose(file["forces"][...], out["forces"].numpy(), atol=1e-4)
            assert file["offsets"][-1] == len(file["forces"])


def wait_for_checkpoint(process: subprocess.Popen[str], runs: Path) -> Path:
    while not list(runs.glob("*/checkpoints/last.ckpt")):
        assert process.poll() is None, "the run ended before its first checkpoint"
        time.sleep(0.05)
    (folder,) = runs.iterdir()
    return folder


def start(store: Path, runs: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scisci.cli", "fit", *options(store, runs, steps=400, every=25)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_run_goes_on_where_it_was(small_store: Path, tmp_path: Path) -> None:
    process = start(small_store, tmp_path)
    folder = wait_for_checkpoint(process, tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "result.json").exists()
    reached = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    main(["fit", f"--run={folder}"])
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]
    result = RunResult.model_validate_json((folder / "result.json").read_text())
    assert result.samples_seen == 400 * 16
    steps = pq.read_table(folder / "curve.parquet").to_pandas().dropna(subset="train/loss")["step"]
    assert steps.tolist() == list(range(1, 401))
    assert reached >= 25
    version = sorted((folder / "log").iterdir())[-1]
    resumed = pd.read_csv(version / "metrics.csv")["step"]
    assert resumed.min() >= reached
    with pytest.raises(UserError, match="finished at 400 steps"):
        main(["fit", f"--run={folder}"])


def test_finished_run_can_be_trained_longer(small_store: Path, tmp_path: Path) -> None:
    main(["fit", *options(small_store, tmp_path, steps=15, every=40)])
    (folder,) = tmp_path.iterdir()
    main(["fit", "--run", str(folder), "--trainer.max_steps=25"])
    result = RunResult.model_validate_json((folder / "result.json").read_text())
    assert result.samples_seen == 25 * 16
    assert pq.read_table(folder / "curve.parquet").to_pandas()["step"].max() == 25


def test_interrupted_run_says_how_to_go_on(small_store: Path, tmp_path: Path) -> None:
    process = start(small_store, tmp_path)
    wait_for_checkpoint(process, tmp_path)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "interrupted; go on with 'scisci fit --run'" in errors
    assert "Traceback" not in errors


def test_diverged_run_is_recorded(small_store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="diverged"):
        main(["fit", *options(small_store, tmp_path), "--model.learning_rate=1e30", "--trainer.gradient_clip_val=1e30"])
    (folder,) = tmp_path.iterdir()
    result = RunResult.model_validate_json((folder / "result.json").read_text())
    assert result.status == "diverged"


def test_accumulated_batches_count_every_sample_once(small_store: Path, tmp_path: Path) -> None:
    main(["fit", *options(small_store, tmp_path, steps=4, every=2), "--trainer.accumulate_grad_batches=2"])
    (folder,) = tmp_path.iterdir()
    result = RunResult.model_validate_json((folder / "result.json").read_text())
    assert result.samples_seen == 4 * 2 * 16


def test_validate_prints_the_metrics(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["validate", "--run", str(finished), "--trainer.enable_progress_bar=false"])
    assert "val/force_mae: " in capsys.readouterr().out


def test_damaged_model_is_one_sentence(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    weights, last = copy / "model.safetensors", copy / "checkpoints/last.ckpt"
    for path, command in ((last, "fit"), (weights, "test")):
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(UserError, match="damaged"):
            main([command, "--run", str(copy)])
    with pytest.raises(UserError, match="leave out options of the model"):
        main(["test", "--run", str(finished), "--model.size=10k"])
    with pytest.raises(UserError, match="no checkpoint at"):
        main(["test", f"--data.dataset={finished}", "--ckpt_path=nowhere.ckpt"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.architecture=nequp"], "unknown architecture 'nequp'; did you mean 'nequip'"),
        (["--model.size=11k"], "unknown size of .* did you mean"),
        (["--model.overrides={lmax: 2}"], "unknown option of .* 'lmax'"),
        (["--model.overrides={channels: -3}"], "option channels of mpnn is -3, but must be"),
        (["--model.overrides={channels: x}"], "option channels of mpnn is 'x', but must be"),
        (["--model.overrides={cutoff: 0}"], "option cutoff of mpnn is 0, but must be"),
        (["--model.overrides={cutoff: 0.1}"], "give a larger one"),
        (["--model.learning_rate=-1"], "learning_rate is -1"),
        (["--model.warmup=2"], "warmup is 2"),
        (["--data.batch_size=0"], "batch_size is 0"),
        (["--data.test_samples=-5"], "test_samples is -5"),
        (["--data.test_splits=[]"], "test_splits is empty"),
        (["--trainer.precision=bf16-true"], "bf16-mixed"),
        (["--ckpt_path=nowhere"], "no checkpoint at nowhere"),
        (["--runs=/proc/x"], "cannot make a run directory"),
        (["--model.colour=red"], "model.colour"),
        (["--data.train_samples=1.5"], "not possible"),
        (["--data.test_splits=[ood_700K]"], "unknown split 'ood_700K'; did you mean"),
        (["--data.dataset=xtb-molecule"], "unknown data set .* did you mean 'xtb-crystals' or 'xtb-molecules'"),
        (["--data.dataset=nowhere/data.h5"], "no store at"),
        (["--trainer.logger={class_path: os.system, init_args: {command: 'touch pwned'}}"], "'os.system', but only"),
        (["--trainer.logger={class_path: numpy.save}"], "'numpy.save', but only"),
    ],
)
def test_bad_options_are_one_sentence_and_leave_nothing(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        main(["fit", *options(small_store, tmp_path / "runs"), *arguments])
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_config_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("model: {architecture: mpnn, colour: red}\n")
    with pytest.raises(UserError, match="colour"):
        main(["fit", "--config", str(tmp_path / "bad.yaml")])


def test_commands_without_a_model_say_what_to_give(small_store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a trained model"):
        main(["test", f"--data.dataset={small_store}"])
    with pytest.raises(UserError, match="not a run directory"):
        main(["fit", "--run", str(tmp_path)])


def architecture_of(config: Path) -> str:
    return str(yaml.safe_load(config.read_text())["model"]["architecture"])


@pytest.mark.parametrize(
    ("model", "data"),
    [
        pytest.param(model, data, id=f"{model.stem}-{data.stem}")
        for model in sorted((ROOT / "configs/models").glob("*.yaml"))
        for data in sorted((ROOT / "configs/data").glob("*.yaml"))
        if domain_of(data.stem) in domains(get(architecture_of(model)))
    ],
)
def test_every_shipped_config_is_understood(model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fit", "--config", str(model), "--config", str(data), "--print_config"])
    assert caught.value.code in (0, None)
    assert f"architecture: {architecture_of(model)}" in capsys.readouterr().out
