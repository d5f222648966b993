"""Batches: every sample once an epoch, whatever the sizes, the cap and the number of processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Batch

from scisci.contracts.errors import UserError
from scisci.data import sampling
from scisci.data.batch import graph_batch
from scisci.data.module import StoreDataModule
from scisci.data.ragged import Ragged
from scisci.data.sampling import EvaluationBatches, TrainingBatches, Turn, edge_counts
from scisci.data.store import Store


def together(points: np.ndarray, processes: int, **options: int) -> list[TrainingBatches]:
    """The batches of every process; a cap is on points."""
    given = {"batch_size": 1, "seed": 0, "sizes": points, **options}
    return [TrainingBatches(points, processes=processes, rank=rank, **given) for rank in range(processes)]  # type: ignore[arg-type]


def epoch(ranks: list[TrainingBatches]) -> tuple[list[list[list[int]]], list[list[Turn]]]:
    """Batches and turns of every process in an epoch: [process][turn]."""
    batches = [list(rank) for rank in ranks]
    return batches, [[rank.turn() for _ in own] for rank, own in zip(ranks, batches, strict=True)]


sizes = st.lists(st.integers(0, 50), min_size=1, max_size=200).map(np.array)
shares = st.tuples(st.integers(1, 4), st.integers(1, 3))


@given(sizes, shares, st.integers(0, 60), st.integers(0, 2**40))
def test_capped_epochs_have_every_sample_once(points: np.ndarray, share: tuple[int, int], room: int, seed: int) -> None:
    processes, accumulate = share
    if len(points) < processes * accumulate:
        with pytest.raises(UserError, match="too few"):
            together(points, processes, accumulate=accumulate, cap=100)
        return
    cap = int(points.max()) + room
    ranks = together(points, processes, accumulate=accumulate, cap=cap, seed=seed)
    for number in range(3):
        batches, _ = epoch(ranks)
        counts = {len(own) for own in batches}
        assert len(counts) == 1
        assert counts.pop() % accumulate == 0
        items = [item for own in batches for batch in own for item in batch]
        seen = np.bincount(np.array(items) - number * len(points), minlength=len(points))
        assert seen.max() == 1
        # Only where all batches are of one sample can some be left for another epoch.
        if not seen.all():
            assert {len(batch) for own in batches for batch in own} == {1}
            assert (seen == 0).sum() < processes * accumulate
        assert all(batch for own in batches for batch in own)
        assert max(points[np.array(batch) % len(points)].sum() for own in batches for batch in own) <= cap


@given(st.integers(1, 300), st.integers(1, 12), shares, st.integers(0, 2**40))
def test_processes_and_accumulation_share_the_batch_of_one(
    samples: int, size: int, share: tuple[int, int], seed: int
) -> None:
    processes, accumulate = share
    whole = size * processes * accumulate
    if samples < whole:
        return
    points = np.ones(samples, dtype=int)
    (alone,) = together(points, 1, batch_size=whole, seed=seed)
    ranks = together(points, processes, batch_size=size, accumulate=accumulate, seed=seed)
    for _ in range(2):
        (steps,), _ = epoch([alone])
        batches, _ = epoch(ranks)
        for number, step in enumerate(steps):
            turns = range(number * accumulate, (number + 1) * accumulate)
            assert sorted(item for turn in turns for own in batches for item in own[turn]) == sorted(step)
        assert len(batches[0]) == len(steps) * accumulate == samples // whole * accumulate


@given(sizes, shares, st.integers(1, 12), st.booleans())
def test_weights_make_means_over_batches_the_mean_over_the_step(
    points: np.ndarray, share: tuple[int, int], size: int, capped: bool
) -> None:
    processes, accumulate = share
    points = points + 1
    if len(points) < processes * accumulate:
        return
    how = {"cap": int(points.max()) * 3} if capped else {"batch_size": size}
    values = np.random.default_rng(0).normal(size=points.sum())
    of = np.split(values, np.cumsum(points)[:-1])
    batches, turns = epoch(together(points, processes, accumulate=accumulate, **how))
    for first in range(0, len(batches[0]), accumulate):
        at = [(rank, turn) for turn in range(first, first + accumulate) for rank in range(processes)]
        step = [item for rank, turn in at for item in batches[rank][turn]]
        expected = np.concatenate([of[item] for item in step]).mean()
        parts = [np.concatenate([of[item] for item in batches[rank][turn]]).mean() for rank, turn in at]
        weights = [turns[rank][turn].weights for rank, turn in at]
        assert np.mean([w.points * part for w, part in zip(weights, parts, strict=True)]) == pytest.approx(expected)
        systems = [points[batches[rank][turn]].mean() for rank, turn in at]
        mean = np.mean([w.systems * part for w, part in zip(weights, systems, strict=True)])
        assert mean == pytest.approx(points[step].mean())
    counted = [sum(len(own[turn]) for own in batches) for turn in range(len(batches[0]))]
    for rank, own in enumerate(turns):
        assert [turn.samples for turn in own] == counted
        assert [turn.before for turn in own] == [sum(len(b[k]) for b in batches[:rank]) for k in range(len(own))]


@given(sizes, shares, st.integers(0, 40), st.booleans())
def test_interrupted_epochs_go_on_with_the_same_batches(
    points: np.ndarray, share: tuple[int, int], taken: int, capped: bool
) -> None:
    processes, accumulate = share
    points = points + 1
    if len(points) < processes * accumulate:
        return
    how = {"cap": int(points.max()) * 2} if capped else {"batch_size": 3}
    make = lambda: together(points, processes, accumulate=accumulate, seed=3, **how)[-1]

    def stream(batches: TrainingBatches, turns: int) -> list[list[int]]:
        found: list[list[int]] = []
        while len(found) < turns:
            for batch in batches:
                batches.turn()
                found.append(batch)
                if len(found) == turns:
                    break
        return found

    whole, first, second = make(), make(), make()
    expected = stream(whole, taken + 20)
    assert stream(first, taken) == expected[:taken]
    second.load_state_dict(first.state_dict())
    assert stream(second, 20) == expected[taken:]


def test_batches_of_another_run_are_refused() -> None:
    batches = TrainingBatches(np.ones(20, int), 4, seed=0)
    with pytest.raises(UserError, match="begun with devices 2, not 1"):
        batches.load_state_dict(TrainingBatches(np.ones(20, int), 4, seed=0, processes=2).state_dict())


def test_sample_above_the_cap_is_named() -> None:
    with pytest.raises(UserError, match="training sample 1 alone has 9, above the 8"):
        TrainingBatches(np.array([1, 9]), 4, seed=0, sizes=np.array([1, 9]), cap=8)


def test_seeds_and_epochs_give_other_orders() -> None:
    orders = set()
    for seed in range(3):
        batches = TrainingBatches(np.ones(50, int), 50, seed)
        for _ in range(3):
            ((order,),), _ = epoch([batches])
            orders.add(tuple(np.array(order) % 50))
    assert len(orders) == 9


@given(st.integers(1, 100), st.integers(1, 20), st.integers(1, 5))
def test_evaluation_batches_are_those_of_one_process(samples: int, size: int, processes: int) -> None:
    alone = list(EvaluationBatches(samples, size, 1, 0))
    found: dict[int, list[int]] = {}
    ranks = [EvaluationBatches(samples, size, processes, rank) for rank in range(processes)]
    assert len({len(rank) for rank in ranks}) == 1
    for rank in ranks:
        for turn, batch in enumerate(rank):
            assert found.setdefault(rank.number(turn), batch) == batch
    assert [found[number] for number in sorted(found)] == alone
    assert [item for batch in alone for item in batch] == list(range(samples))


def test_edges_are_counted_once_and_as_batches_have_them(shipped: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    indices = shipped.split("train").indices(60)
    monkeypatch.setattr(sampling, "_counted", {})
    monkeypatch.setattr(sampling, "POINTS_AT_ONCE", 100)
    few = edge_counts(shipped, indices[:25], 4.0)
    calls: list[int] = []

    def counting(ragged: Ragged, cutoff: float) -> Batch:
        calls.append(len(ragged))
        return graph_batch(ragged, cutoff)

    monkeypatch.setattr(sampling, "graph_batch", counting)
    counts = edge_counts(shipped, indices, 4.0)
    assert sum(calls) == 35
    assert edge_counts(shipped, indices[:40], 4.0).tolist() == counts[:40].tolist()
    assert sum(calls) == 35
    expected = [graph_batch(shipped.take(indices[k : k + 1]), 4.0).edge_index.shape[1] for k in range(60)]
    assert counts.tolist() == expected
    assert few.tolist() == expected[:25]


def test_caps_hold_for_real_batches(small_store: Path) -> None:
    for option, cap, counted in (("max_edges", 2000, "edge_index"), ("max_points", 120, "pos")):
        data = StoreDataModule(str(small_store), **{option: cap})  # type: ignore[arg-type]
        data.cutoff = 4.0
        batches = list(data.train_dataloader())
        assert sum(batch.num_graphs for batch in batches) == 96
        found = [max(batch[counted].shape) for batch in batches]
        assert max(found) <= cap
        assert np.median(found) > 0.75 * cap
