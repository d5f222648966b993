"""Which samples each batch has: a function of seed, epoch and place alone, whatever the number of processes.

An epoch is one permutation of the training subset, cut into batches. Processes take them in turn, and `accumulate`
turns make one step of the optimiser. So the samples of a step do not depend on how many processes share it, and a run
that was interrupted goes on with the very batches that it would have had.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Sampler

from scisci.contracts.errors import UserError
from scisci.data.batch import graph_batch
from scisci.data.ragged import offsets_of
from scisci.data.store import Store

POINTS_AT_ONCE = 2**16
_counted: dict[tuple[str, float], np.ndarray] = {}


class Weights(NamedTuple):
    """What a batch's means over systems and over points count for, relative to those of the other batches of a step.

    A mean over all samples of a step is the mean over its batches of weight x mean over a batch.
    """

    systems: float = 1.0
    points: float = 1.0


class Turn(NamedTuple):
    """One batch in every process: how many samples these have, and those of the processes before this one."""

    samples: int
    before: int = 0
    weights: Weights = Weights()


def equal_batches(samples: int, step: int, share: int) -> np.ndarray:
    """[M + 1] where batches begin of which `share` make a step of `step` samples; they are equal to within a sample.

    What remains of the samples is left out; those that are too few for a step make one nevertheless.
    """
    step = min(step, samples)
    starts = np.arange(samples // step * share + 1)
    return starts // share * step + starts % share * step // share


def packed(sizes: np.ndarray, cap: int) -> np.ndarray:
    """[M + 1] where batches of successive samples begin whose `sizes` [n] add up to `cap` at most; none is larger."""
    ends, starts = np.cumsum(sizes), [0]
    while starts[-1] < len(sizes):
        held = ends[starts[-1] - 1] if starts[-1] else 0
        starts.append(int(np.searchsorted(ends, held + cap, side="right")))
    return np.array(starts)


def in_multiples(starts: np.ndarray, share: int) -> np.ndarray:
    """The same batches, those of the most samples halved until their number is a multiple of `share`.

    Where all are of one sample already, the last few are left out.
    """
    while extra := -(len(starts) - 1) % share:
        counts = np.diff(starts)
        most = np.argsort(-counts, kind="stable")[:extra]
        most = most[counts[most] > 1]
        if not len(most):
            return starts[: len(counts) // share * share + 1]
        starts = np.sort(np.concatenate([starts, starts[most] + counts[most] // 2]))
    return starts


@dataclass(frozen=True)
class _Epoch:
    number: int
    order: np.ndarray
    starts: np.ndarray
    points: np.ndarray


class TrainingBatches(Sampler[list[int]]):
    """Batches of this process: the rest of an epoch, or the next one, whichever the turns that were taken leave.

    Of `batch_size` samples each, or of samples whose `sizes` [n] add up to `cap` at most, which every epoch has each of
    exactly once. All processes have equally many batches. An item is epoch x n + sample, so that what is drawn at
    random for it can be its own in every epoch.

    Args:
        points: [n] atoms, points or steps of each sample, for the weights of batches.
        batch_size: samples per batch and process.
        seed: of the permutations.
        sizes: [n] edges or points of each sample.
        cap: of the sum of a batch's sizes; `None` takes `batch_size`.
        processes: how many there are, and `rank` which of them this is.
        accumulate: batches of each process per step.
        step_size: samples per step, of which batches are equal shares to within a sample; `None`: by `batch_size`.
    """

    def __init__(
        self,
        points: np.ndarray,
        batch_size: int,
        seed: int,
        sizes: np.ndarray | None = None,
        cap: int | None = None,
        processes: int = 1,
        rank: int = 0,
        accumulate: int = 1,
        step_size: int | None = None,
    ) -> None:
        self._points, self._sizes, self.rank = points, sizes, rank
        self._settings: dict[str, int | None] = {
            "training samples": len(points),
            "batch_size": batch_size if cap is None else None,
            "cap": cap,
            "seed": seed,
            "devices": processes,
            "accumulate_grad_batches": accumulate,
        }
        if step_size is not None:
            self._settings |= {"batch_size": None, "step_size": step_size}
        self._cap, self._seed = cap, seed
        self._processes, self._share = processes, processes * accumulate
        self._step_size = step_size or batch_size * self._share
        if self._step_size < self._share:
            raise UserError(
                f"steps of {step_size} samples cannot be divided into {processes} devices x {accumulate} accumulated"
                " batches; give larger ones"
            )
        if len(points) < self._share:
            raise UserError(
                f"{len(points)} training samples are too few for {processes} devices x {accumulate} accumulated"
                " batches; give more samples or lower one of them"
            )
        if cap is not None and sizes is not None:
            _check_cap(cap, sizes)
        self.epoch = self.position = 0
        self._latest: _Epoch | None = None

    def _of(self, number: int) -> _Epoch:
        """The batches of an epoch."""
        if self._latest is None or self._latest.number != number:
            samples = len(self._points)
            order = np.random.default_rng([self._seed, number]).permutation(samples)
            if self._cap is None or self._sizes is None:
                starts = equal_batches(samples, self._step_size, self._share)
            else:
                starts = in_multiples(packed(self._sizes[order], self._cap), self._share)
            points = offsets_of(self._points[order])[starts] if self._share > 1 else starts
            self._latest = _Epoch(number, order, starts, points)
        return self._latest

    def _count(self, epoch: _Epoch) -> int:
        """Batches of each process."""
        return (len(epoch.starts) - 1) // self._processes

    def __len__(self) -> int:
        if self._cap is not None:
            # Lightning asks once and takes the answer for all epochs.
            raise TypeError("epochs of batches with a cap on their size have no length in common")
        return self._count(self._of(self.epoch))

    def __iter__(self) -> Iterator[list[int]]:
        number, first = self.epoch, self.position
        epoch = self._of(number)
        for turn in range(first, self._count(epoch)):
            at = turn * self._processes + self.rank
            chosen = epoch.order[epoch.starts[at] : epoch.starts[at + 1]]
            yield (chosen + number * len(self._points)).tolist()

    def turn(self) -> Turn:
        """What is known of the next batch that is trained on; the one after it is the first after an interruption."""
        epoch = self._of(self.epoch)
        first = self.position * self._processes
        of_turn = epoch.starts[first : first + self._processes + 1]
        step = slice(first // self._share * self._share, (first // self._share + 1) * self._share + 1)
        at = first + self.rank
        found = Turn(
            samples=int(of_turn[-1] - of_turn[0]),
            before=int(of_turn[self.rank] - of_turn[0]),
            weights=Weights(*(_relative(starts, at, step, self._share) for starts in (epoch.starts, epoch.points))),
        )
        self.position += 1
        if self.position == self._count(epoch):
            self.epoch, self.position = self.epoch + 1, 0
        return found

    def state_dict(self) -> dict[str, Any]:
        """Where training is, and what decides the batches."""
        return {"epoch": self.epoch, "position": self.position, "settings": self._settings}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; `UserError` where other batches would follow."""
        for name, value in state["settings"].items():
            if self._settings[name] != value:
                raise UserError(
                    f"this run was begun with {name} {value}, not {self._settings[name]}, and would not go on with the"
                    " same batches; give it as it was, or start a new run"
                )
        self.epoch, self.position = state["epoch"], state["position"]


def _relative(starts: np.ndarray, at: int, step: slice, share: int) -> float:
    """How large a batch is, relative to the mean of the batches of its step."""
    whole = int(starts[step][-1] - starts[step][0])
    return share * int(starts[at + 1] - starts[at]) / whole if whole else 1.0


def _check_cap(cap: int, sizes: np.ndarray) -> None:
    largest = int(sizes.argmax())
    if sizes[largest] > cap:
        raise UserError(
            f"training sample {largest} alone has {sizes[largest]}, above the {cap} that a batch may have; raise"
            f" max_points or max_edges to {sizes[largest]} or more, or leave such samples out"
        )


class EvaluationBatches(Sampler[list[int]]):
    """Batches of this process of all samples in order; processes take them in turn.

    All processes have equally many, since some ways of training in parallel wait for each other in every batch: the
    last of some are batches that another process has, by which `number` they are known.
    """

    def __init__(self, samples: int, batch_size: int, processes: int, rank: int) -> None:
        self._samples, self._batch_size, self._processes, self._rank = samples, batch_size, processes, rank
        self._batches = -(-samples // batch_size)

    def __len__(self) -> int:
        return -(-self._batches // self._processes)

    def number(self, turn: int) -> int:
        """Which of all batches this process has at a turn."""
        return (turn * self._processes + self._rank) % self._batches

    def __iter__(self) -> Iterator[list[int]]:
        for turn in range(len(self)):
            first = self.number(turn) * self._batch_size
            yield list(range(first, min(first + self._batch_size, self._samples)))


def edge_counts(store: Store, indices: np.ndarray, cutoff: float) -> np.ndarray:
    """[n] edges within `cutoff` of each sample of a training subset.

    Counted once for a store and a cutoff: subsets are nested, and a larger one is counted from where the last one ends.
    """
    known = _counted.get((store.fingerprint, cutoff), np.zeros(0, np.int64))
    rest = indices[len(known) :]
    lengths = store.lengths(rest)
    found = [known]
    starts = packed(lengths, max(POINTS_AT_ONCE, int(lengths.max(initial=0))))
    for start, stop in zip(starts[:-1], starts[1:], strict=True):
        batch = graph_batch(store.take(rest[start:stop]), cutoff)
        if "edge_ptr" not in batch:
            raise UserError("the model has no edges whose number could be capped; give max_points")
        found.append(batch.edge_ptr.diff().numpy())
    counts = _counted[store.fingerprint, cutoff] = np.concatenate(found)
    return counts[: len(indices)]
