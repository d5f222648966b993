"""`scisci fit | validate | test | predict`: LightningCLI with run directories of its own."""

from __future__ import annotations

import time
import warnings
from argparse import ArgumentError
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only

from scisci.contracts.errors import UserError
from scisci.contracts.files import digest, write_text
from scisci.contracts.run import Recipe
from scisci.data.library import domain_of
from scisci.data.module import StoreDataModule
from scisci.tasks.accounting import reset_peak_memory
from scisci.tasks.arguments import allow_imports, dataset_named, one_sentence, take_option
from scisci.tasks.base import Task
from scisci.tasks.baselines import stored
from scisci.tasks.checkpoints import read_checkpoint, restore
from scisci.tasks.curve import Curve
from scisci.tasks.directory import RunDirectory, new_run_folder
from scisci.tasks.divergence import Divergence
from scisci.tasks.domains import task_for
from scisci.tasks.energy import check_energy, metered
from scisci.tasks.loggers import check, in_config
from scisci.tasks.parallel import check_batches, check_parallel
from scisci.tasks.predictions import writing_outputs
from scisci.tasks.run import TRAINER_DEFAULTS, accelerator, alone, best_checkpoint, conclude, quiet
from scisci.tasks.tables import show_errors


class CLI(LightningCLI):
    """LightningCLI for one task. Every `fit` has its own run directory, made before training starts."""

    def __init__(self, task: type[Task], argv: list[str], run: Path | None, out: Path | None = None) -> None:
        self.run_folder, self.out = run, out
        self.curve = Curve()
        super().__init__(
            task,
            StoreDataModule,
            args=argv,
            seed_everything_default=0,
            save_config_callback=None,
            # The task brings its optimiser and schedule; --lr_scheduler alone would be ignored without a word.
            auto_configure_optimizers=False,
            trainer_defaults=TRAINER_DEFAULTS
            | {
                "enable_progress_bar": True,
                "max_steps": 1000,
                "val_check_interval": 200,
                "gradient_clip_val": Recipe.model_fields["gradient_clip"].default,
            },
            parser_kwargs={"prog": "scisci", "exit_on_error": False},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options of scisci's own."""
        parser.add_argument("--runs", type=str, default="runs", help="folder in which fit makes its run directory")
        parser.add_argument(
            "--run", type=str | None, default=None, help="run directory to go on with (fit), or whose model to use"
        )
        parser.add_argument(
            "--energy", type=bool, default=False, help="measure the electricity that training takes, with codecarbon"
        )
        parser.add_argument(
            "--divergence_bound",
            type=float | None,
            default=Recipe.model_fields["divergence_bound"].default,
            help="a loss so many times that of a constant prediction ends the training; null: none does",
        )
        parser.add_argument(
            "--out", type=str | None, default=None, help="folder of predictions (predict): in the run directory"
        )

    def before_instantiate_classes(self) -> None:
        """Settings that training needs, whatever the config says."""
        config = self.config[self.subcommand]
        # Forces are gradients, which inference mode cannot take.
        config.trainer.inference_mode = False
        if config.trainer.accelerator == "auto":
            config.trainer.accelerator = accelerator()
        config.trainer.use_distributed_sampler = False
        # Loggers follow training alone, and are made with the run directory, in which they write.
        self.logger, config.trainer.logger = config.trainer.logger, False
        if self.subcommand == "fit":
            check(in_config(self.logger))
            if config.energy:
                check_energy()
            check_parallel(config)
            check_batches(config)
        else:
            # A run's config may name several; what is measured is then the same to the last digit.
            devices = config.trainer.devices
            config.trainer.devices = devices[:1] if isinstance(devices, list) else 1
            config.trainer.strategy, config.trainer.num_nodes = "auto", 1
        if config.trainer.precision in ("bf16-true", "16-true", "transformer-engine"):
            raise UserError(
                f"precision {config.trainer.precision} would round outputs away; give bf16-mixed or 32-true"
            )
        if self.subcommand != "fit" and "verbose" in config:
            config.verbose = False

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """For `fit`: once model and data are known to be sound, have a run directory made and log into it."""
        if self.subcommand == "fit":
            self.datamodule.check(self.model.domain)
            self.model.prepare(self.datamodule)
            config = self.config["fit"]
            if config.ckpt_path is not None:
                self._check_continuation(read_checkpoint(config.ckpt_path), config.trainer.max_steps)
            self.best = best_checkpoint()
            last = ModelCheckpoint(filename="last", enable_version_counter=False)
            config.trainer.logger = self.logger
            self.directory = RunDirectory(self._run_directory, [self.best, last], in_config(self.logger))
            bound = Divergence(self.curve, config.divergence_bound)
            given = self.config_init["fit"].trainer.callbacks or []
            kwargs["callbacks"] = [self.directory, *given, self.best, last, self.curve, bound]
        return super().instantiate_trainer(**kwargs)

    def _check_continuation(self, checkpoint: dict[str, Any], max_steps: int) -> None:
        if checkpoint["fingerprint"] != self.model.fingerprint:
            raise UserError("the data set changed since this run began; start a new run, or give it the old data")
        if StoreDataModule.__qualname__ not in checkpoint:
            raise UserError("this run was begun by an older scisci, whose order of samples is lost; start a new run")
        if checkpoint["global_step"] >= max_steps > -1:
            raise UserError(f"this run is finished at {max_steps} steps; to train longer, give --trainer.max_steps")

    def _run_directory(self) -> Path:
        config = self.config[self.subcommand]
        if self.run_folder is None:
            self.run_folder = new_run_folder(Path(config.runs), f"{config.model.architecture}-{config.model.size}")
            # Absolute, so that the run can be taken up from anywhere.
            if Path(config.data.dataset).exists():
                config.data.dataset = str(Path(config.data.dataset).resolve())
            text = self._parser(self.subcommand).dump(config, skip_none=False)
            write_text(self.run_folder / "config.yaml", text)
        return self.run_folder

    def before_fit(self) -> None:
        """Start the account of the run."""
        config = self.config["fit"]
        several = self.trainer.num_devices * self.trainer.num_nodes > 1
        if config.energy and (several or config.ckpt_path is not None):
            raise UserError("energy is measured of whole trainings on one device; give --energy false")
        self._metered = metered(config.energy)
        self._energy = self._metered.__enter__()
        reset_peak_memory(self.trainer.strategy.root_device)

    def after_fit(self) -> None:
        """Measure the best weights and write the result."""
        self._metered.__exit__(None, None, None)
        start, folder = time.perf_counter(), self.directory.path
        found = alone(self.model, self.trainer, self.curve, self.directory.last)
        if found is None:
            return
        self.model, self.trainer = found
        run = digest((folder / "config.yaml").read_bytes())[:16]
        result = conclude(self.model, self.datamodule, self.trainer, self.best, self.curve, folder, run)
        self.directory.close()
        seconds = result.training_seconds + time.perf_counter() - start
        result = result.model_copy(update=self._energy | {"seconds": seconds})
        write_text(folder / "result.json", result.model_dump_json(indent=1) + "\n")
        if result.status != "ok":
            raise UserError(f"the run {result.status}: {result.reason}; lower --model.learning_rate")
        show(self.model)
        print(f"run directory: {folder}")

    def _restore(self) -> None:
        config = self.config[self.subcommand]
        self.datamodule.require(self.model.domain, labels=self.subcommand != "predict")
        if self.run_folder is not None:
            restore(self.model, self.run_folder)
        elif config.ckpt_path is None:
            raise UserError(f"{self.subcommand} needs a trained model: give --run DIR or --ckpt_path FILE")
        else:
            self.model.on_load_checkpoint(read_checkpoint(config.ckpt_path))

    before_validate = before_test = before_predict = _restore

    @rank_zero_only
    def after_validate(self) -> None:
        """Print what was measured."""
        for name, value in self.trainer.callback_metrics.items():
            print(f"{name}: {float(value):.5g}")

    @rank_zero_only
    def after_test(self) -> None:
        """Print what was measured."""
        show(self.model)

    def after_predict(self) -> None:
        """Write one predictions file per split."""
        folder = self.out or (self.run_folder or Path(self.config[self.subcommand].runs)) / "predictions"
        outputs = self.trainer.predict_loop.predictions
        data: StoreDataModule = self.datamodule
        splits = data.test_splits
        for split, batches in zip(splits, outputs if len(splits) > 1 else [outputs], strict=True):
            path = folder / f"{split}.h5"
            with writing_outputs(path, self.model, data.store, split, data.test_samples) as write:
                for out in batches:
                    write(out, out["ptr"])
            print(f"wrote {path}")


def show(task: Task) -> None:
    """Print the test results; of the symmetry errors, the one of rotations that shows most."""
    shown = [f"symmetry_rotation_{quantity}" for quantity in list(task.compared)[-1:]]
    names = next(iter(task.test_results.values()))
    show_errors(task.test_results, [name for name in names if not name.startswith("symmetry") or name in shown])


def main(argv: list[str]) -> None:
    """Run a LightningCLI sub-command. `--run DIR` stands for a run directory: its config, model and checkpoints."""
    quiet()
    allow_imports()
    # Shown for every start from a notebook or a script with a dash in its name; means nothing here.
    warnings.filterwarnings("ignore", message=r".*LightningCLI's args parameter.*")
    command, *rest = argv
    given, rest = take_option("--run", rest)
    chosen, rest = take_option("--out", rest)
    if chosen is not None and command != "predict":
        raise UserError(f"--out says where predictions go, and {command} writes none; leave it out")
    run, out = (None if path is None else Path(path) for path in (given, chosen))
    if run is not None and stored.is_baseline(run):
        stored.main(command, run, rest, out)
        return
    if run is not None:
        if not (run / "config.yaml").is_file():
            raise UserError(f"{run} is not a run directory: it has no config.yaml; give one that fit or sweep made")
        rest = ["--config", str(run / "config.yaml"), *rest]
        if command == "fit":
            rest += ["--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    path, _ = take_option("--ckpt_path", rest)
    # Lightning reads it while parsing, and fails there without a word that helps.
    checkpoint = None if path is None else read_checkpoint(path)
    task = task_for(domain_of(dataset_named(rest)))
    if checkpoint is not None:
        task.check_checkpoint(checkpoint)
    try:
        CLI(task, [command, *rest], run, out)
    except ArgumentError as error:
        raise UserError(one_sentence(str(error), command)) from error
    except SystemExit as error:
        # Lightning turns an interruption into a silent exit.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt("go on with 'scisci fit --run' and its run directory") from error
        raise
