"""The LightningDataModule for packed stores: nested training subsets, ID validation, named test splits."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from scisci.contracts.errors import UserError
from scisci.data.batch import Elements, graph_batch
from scisci.data.library import open_dataset
from scisci.data.parcel import Parcel
from scisci.data.sampling import EvaluationBatches, TrainingBatches, edge_counts
from scisci.data.series import SeriesDataset
from scisci.data.statistics import Statistics, measure_statistics
from scisci.data.store import Store

# What a store of each domain must hold to be trained on.
NEEDED = {
    "atoms": {"energy", "forces"},
    "particles": {"velocities", "charges", "target_positions"},
}


class GraphDataset(Dataset):
    """Whole batches of a store by lists of items, epoch x n + sample: `__getitems__` returns one collated batch."""

    def __init__(self, store: Store, indices: np.ndarray, cutoff: float, elements: Elements | None) -> None:
        self.samples = indices
        self._cutoff, self._elements = cutoff, elements
        self._source, self._indices = store.kept(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitems__(self, batch: list[int]) -> Any:
        chosen = self._indices[np.asarray(batch) % len(self)]
        collated = graph_batch(self._source.take(chosen), self._cutoff, self._elements)
        return collated if get_worker_info() is None else Parcel(collated)


def _same(batch: Any) -> Any:
    return batch


class StoreDataModule(L.LightningDataModule):
    """Batches of a packed store for training, validation, test and prediction.

    Args:
        dataset: name of a data set (`scisci data list`) or path of a store.
        train_samples: size of the training subset: a count, or a fraction of the split; `None` is all of it. The
            D-sized subset is the first D of one fixed permutation, so subsets are nested.
        batch_size: systems per training batch and device.
        max_points: instead of that, so many atoms, points, nodes or (of series) steps times channels at most.
        max_edges: instead of that, so many edges at most. With either, an epoch has every sample exactly once.
        step_size: instead of those, so many systems per step, which devices and accumulated batches share out equally,
            to within one.
        eval_batch_size: systems per evaluation batch.
        val_samples: use only the first so many validation samples.
        test_splits: splits for `test` and `predict`; default: `test` and every `ood_*`.
        test_samples: use only the first so many samples of each of them.
        num_workers: loader processes; 0 loads in the training process.
    """

    def __init__(
        self,
        dataset: str = "xtb-molecules",
        train_samples: int | float | None = None,
        batch_size: int = 16,
        max_points: int | None = None,
        max_edges: int | None = None,
        step_size: int | None = None,
        eval_batch_size: int = 128,
        val_samples: int | None = None,
        test_splits: list[str] | None = None,
        test_samples: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.options = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.dataset, self.train_samples = dataset, train_samples
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.step_size, self.max_points, self.max_edges = step_size, max_points, max_edges
        self.val_samples, self.test_samples = val_samples, test_samples
        self._test_splits = test_splits
        self.num_workers = num_workers
        self.cutoff = 0.0
        self.context = self.horizon = 0
        self.elements: Elements | None = None
        self._heaviest: int | None = None
        self._store: Store | None = None
        self._batches: TrainingBatches | None = None

    @property
    def store(self) -> Store:
        """The store, opened at the first use."""
        if self._store is None:
            self._store = open_dataset(self.dataset)
        return self._store

    def require(self, domain: str, labels: bool = True) -> None:
        """Raise `UserError` unless the samples are of `domain`, the one a task is for, and have what training needs.

        Without `labels`, the domain is enough.
        """
        if self.store.domain != domain:
            raise UserError(
                f"{self.store.path} holds samples of the domain {self.store.domain!r}, this task needs {domain!r};"
                " choose another data set ('scisci data list' shows them)"
            )
        if labels and (absent := NEEDED.get(domain, set()) - set(self.store.fields)):
            raise UserError(
                f"{self.store.path} has no {' and no '.join(sorted(absent))}, which training needs; it has"
                f" {', '.join(self.store.fields)}; import it again with the right label keys"
            )

    @property
    def test_splits(self) -> list[str]:
        """Names of the splits that `test` and `predict` run over."""
        if self._test_splits is None:
            return ["test", *(name for name in self.store.splits if name.startswith("ood_"))]
        return [self.store.split(name).name for name in self._test_splits]

    def train_indices(self) -> np.ndarray:
        """Store indices of the training subset, in the fixed order."""
        split = self.store.split("train")
        wanted = self.train_samples
        if wanted is None:
            return split.indices()
        count = round(wanted * len(split)) if isinstance(wanted, float) else wanted
        if (isinstance(wanted, float) and not 0 < wanted <= 1) or not 0 < count <= len(split):
            raise UserError(
                f"train_samples {wanted!r} is not possible: give a count from 1 to {len(split)} or a fraction above 0"
                " and up to 1.0"
            )
        return split.indices(count)

    def statistics(self, cutoff: float) -> Statistics:
        """Statistics of the atoms of the training subset, with neighbours within `cutoff` Å."""
        self.require("atoms")
        return measure_statistics(self.store, self.train_indices(), cutoff)

    def check(self, domain: str = "atoms", training: bool = True) -> None:
        """Raise `UserError` if the data set is not of `domain`, or not what the options ask for; reads no samples.

        Without `training` it needs neither labels nor the splits `train` and `val`.
        """
        self.require(domain, labels=training)
        for name in (
            "batch_size",
            "step_size",
            "max_points",
            "max_edges",
            "eval_batch_size",
            "val_samples",
            "test_samples",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}, but must be at least 1")
        given = [name for name in ("step_size", "max_points", "max_edges") if getattr(self, name)]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} each say how large a batch is; leave all but one out")
        if not self.test_splits:
            raise UserError("test_splits is empty; name at least one split, or leave it out for all of them")
        if training:
            self.train_indices()
        for name in (*(["val"] if training else []), *self.test_splits):
            self.store.split(name)

    def setup(self, stage: str) -> None:
        """Take from what is to be fed the cutoff, and the elements of a model of atoms; or context and horizon.

        Data sets are numbered as the model knows them. For training, `UserError` where batches are not possible.
        """
        task: Any = self.trainer.lightning_module  # type: ignore[union-attr]
        model = task.model
        self.cutoff = getattr(model, "cutoff", 0.0)
        self.context, self.horizon = getattr(task, "context", 0), getattr(task, "horizon", 0)
        self.elements = getattr(model, "known_elements", None)
        self._heaviest = task.hparams.get("heaviest")
        self._store = self.store.numbered(getattr(model, "datasets", ()))
        if stage == "fit":
            self._batches = self._training_batches()

    @property
    def batches(self) -> TrainingBatches:
        """Which samples each training batch has."""
        if self._batches is None:
            self._batches = self._training_batches()
        return self._batches

    def _training_batches(self) -> TrainingBatches:
        indices, trainer = self.train_indices(), self.trainer
        points = self._points(indices)
        return TrainingBatches(
            points,
            self.batch_size,
            torch.initial_seed(),
            sizes=self._edges(indices) if self.max_edges else points,
            cap=self.max_edges or self.max_points,
            processes=trainer.world_size if trainer else 1,
            rank=trainer.global_rank if trainer else 0,
            accumulate=trainer.accumulate_grad_batches if trainer else 1,
            step_size=self.step_size,
        )

    def _points(self, indices: np.ndarray) -> np.ndarray:
        """[n] points that a model is given of each sample, those that are not observed included."""
        if self.store.domain == "series":
            return self.store.sample_column("channels")[indices] * (self.context + self.horizon)
        lengths = self.store.lengths(indices)
        return lengths if self._heaviest is None else np.minimum(lengths, self._heaviest)

    def _edges(self, indices: np.ndarray) -> np.ndarray:
        if self.store.domain == "series":
            raise UserError("series have no edges whose number could be capped; give max_points")
        return edge_counts(self.store, indices, self.cutoff)

    def state_dict(self) -> dict[str, Any]:
        """Where training is among the batches."""
        return self.batches.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there, when training does."""
        if self._batches is not None:
            self._batches.load_state_dict(state_dict)

    def loader(self, split: str, samples: int | None = None, batch_size: int | None = None) -> DataLoader:
        """A loader over the first `samples` of a split, in stored order."""
        indices = self.store.split(split).indices(samples)
        dataset, size = self._dataset(indices, training=False), batch_size or self.eval_batch_size
        if self.trainer is None or self.trainer.world_size == 1:
            return self._loader(dataset, batch_size=size)
        batches = EvaluationBatches(len(dataset), size, self.trainer.world_size, self.trainer.global_rank)
        return self._loader(dataset, batch_sampler=batches)

    def _dataset(self, indices: np.ndarray, training: bool) -> GraphDataset | SeriesDataset:
        if self.store.domain == "series":
            seed = torch.initial_seed()
            return SeriesDataset(self.store, indices, self.context, self.horizon, rolling=not training, seed=seed)
        return GraphDataset(self.store, indices, self.cutoff, self.elements)

    def _loader(self, dataset: GraphDataset | SeriesDataset, **batches: Any) -> DataLoader:
        return DataLoader(
            dataset,
            **batches,
            collate_fn=_same,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches of the training subset."""
        return self._loader(self._dataset(self.train_indices(), training=True), batch_sampler=self.batches)

    def val_dataloader(self) -> DataLoader:
        """The ID validation split."""
        return self.loader("val", self.val_samples)

    def test_dataloader(self) -> list[DataLoader]:
        """One loader per test split."""
        return [self.loader(name, self.test_samples) for name in self.test_splits]

    def predict_dataloader(self) -> list[DataLoader]:
        """The same loaders as for `test`."""
        return self.test_dataloader()
