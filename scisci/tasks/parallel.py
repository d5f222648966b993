"""What training on several devices and in parts of batches asks of a config."""

from __future__ import annotations

from typing import Any

from scisci.contracts.errors import UserError

# Some architectures have parameters without gradient, of vectors in the last layer that nobody reads.
PARALLEL = "ddp_find_unused_parameters_true"
STRATEGIES = (
    *("auto", "ddp", PARALLEL, "ddp_find_unused_parameters_false", "fsdp"),
    *("SingleDeviceStrategy", "DDPStrategy", "FSDPStrategy"),
)


def check_parallel(config: Any) -> None:
    """Refuse ways of training on several devices that do not give the results of one; choose one if none is given."""
    trainer = config.trainer
    named = isinstance(trainer.strategy, str)
    strategy = trainer.strategy if named else trainer.strategy.class_path.split(".")[-1]
    if strategy not in STRATEGIES:
        raise UserError(f"the strategy {strategy} is not supported; give ddp or fsdp")
    if "fsdp" in strategy.lower() and trainer.accelerator == "cpu":
        raise UserError("the strategy fsdp needs GPUs; give ddp")
    if "fsdp" in strategy.lower() and config.model.get("symmetry_curve"):
        raise UserError("symmetry_curve needs the whole model in every process; give ddp, or leave it out")
    if not named and trainer.strategy.get("init_args", {}).get("state_dict_type") == "sharded":
        raise UserError("sharded checkpoints are not supported; leave state_dict_type out")
    one = trainer.devices in (1, "1") or (isinstance(trainer.devices, list) and len(trainer.devices) == 1)
    if strategy == "ddp" or (strategy == "auto" and not (one and trainer.num_nodes == 1)):
        trainer.strategy = PARALLEL


def check_batches(config: Any) -> None:
    """Refuse options that would leave a checkpoint within a step, or the number of steps unknown."""
    trainer, capped = config.trainer, config.data.max_points or config.data.max_edges
    if trainer.max_steps < 0 and trainer.max_epochs in (None, -1):
        raise UserError("the learning rate's schedule has to know the number of steps; give max_steps or max_epochs")
    accumulate, interval = trainer.accumulate_grad_batches, trainer.val_check_interval
    if accumulate > 1 and not (isinstance(interval, int) and interval % accumulate == 0):
        raise UserError(
            f"val_check_interval counts batches and must be a multiple of accumulate_grad_batches, {accumulate}, since"
            " checkpoints lie between steps"
        )
    if capped and (trainer.max_steps < 0 or not isinstance(interval, int)):
        raise UserError(
            "epochs of batches with a cap differ in length; give max_steps and val_check_interval in batches"
        )
