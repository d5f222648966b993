from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scisci.contracts.errors import UserError
from scisci.leaderboard.analysis import analyse
from scisci.leaderboard.board import Board, Entry
from scisci.leaderboard.config import Config, DatasetConfig
from scisci.leaderboard.ranks import boards
from scisci.leaderboard.scores import Scored

from . import scores

Z = stats.norm.ppf(0.975)
# errors in and out of distribution, with a standard error of 2 %
MODELS = st.lists(st.tuples(st.floats(1, 50), st.floats(1, 50)), min_size=1, max_size=6)


def one(slug: str, test: float, ood: float, se: float = 0.02, **more: Any) -> Scored:
    """A submission of one run."""
    return scores.scored(slug, {("l", 64, 0): {"test": (test, se * test), "ood_hot": (ood, se * ood)}}, **more)


def board(*submitted: Scored, **options: Any) -> Board:
    (found,) = boards(submitted, **options)
    return found


def entries(found: Board) -> dict[str, Entry]:
    return {entry.slug: entry for entry in found.entries}


def test_no_submissions_make_no_board() -> None:
    assert boards([]) == []


def test_errors_gaps_and_overall_in_closed_form() -> None:
    entry = entries(board(one("a", 10.0, 40.0)))["a"]
    test, ood = entry.scores["test"], entry.scores["ood_hot"]
    assert (test.error.low, test.error.high) == pytest.approx((10 - Z * 0.2, 10 + Z * 0.2))
    assert (test.normalised, ood.normalised) == pytest.approx((0.1, 0.4))
    assert (test.rank, test.samples, test.gap) == (1, 100, None)
    assert ood.gap is not None
    assert ood.gap.value == pytest.approx(4.0)
    assert (ood.gap.low, ood.gap.high) == pytest.approx((4 / np.exp(Z * 0.02 * 2**0.5), 4 * np.exp(Z * 0.02 * 2**0.5)))
    assert entry.overall is not None
    assert entry.overall.value == pytest.approx(0.2)  # geometric mean of 0.1 and 0.4
    assert entry.overall.high == pytest.approx(0.2 * np.exp(Z * 0.02 / 2**0.5))


def test_errors_over_groups_are_preferred() -> None:
    plain, grouped = one("a", 10.0, 40.0), one("a", 10.0, 40.0, se_groups=1.0)
    assert entries(board(plain))["a"].scores["test"].error.high == pytest.approx(10 + Z * 0.2)
    assert entries(board(grouped))["a"].scores["test"].error.high == pytest.approx(10 + Z * 1.0)


def test_each_split_weighs_the_same_however_many_samples_it_has() -> None:
    found = scores.scored("a", {("l", 64, 0): {"test": 1.0, "ood_hot": 10.0, "ood_big": 100.0}}, trivial=1000.0)
    overall = entries(board(found))["a"].overall
    assert overall is not None
    assert overall.value == pytest.approx(0.01)


def test_overlapping_intervals_share_a_rank() -> None:
    """Intervals of a [9.6, 10.4], b [10.0, 10.8], c [10.5, 11.4]: b ties with both, c is above a alone."""
    found = entries(board(one("c", 11.0, 11.0), one("b", 10.4, 10.4), one("a", 10.0, 10.0)))
    assert {slug: entry.scores["test"].rank for slug, entry in found.items()} == {"a": 1, "b": 1, "c": 2}


def test_entries_come_best_first() -> None:
    submitted = [one(f"m{i}", error, error) for i, error in enumerate((30.0, 10.0, 20.0, 10.1))]
    submitted.append(scores.scored("partial", {("l", 64, 0): {"test": 1.0}}))
    assert [entry.slug for entry in board(*submitted).entries] == ["m1", "m3", "m2", "m0", "partial"]


def test_splits_are_in_reading_order() -> None:
    errors = {("l", 64, 0): {"val": 1.0, "ood_1200K": 1.0, "ood_600K": 1.0, "ood_size": 1.0, "test": 1.0}}
    found = scores.scored("a", errors, severities={"ood_600K": 600.0, "ood_1200K": 1200.0})
    assert board(found).splits == ("test", "ood_600K", "ood_1200K", "ood_size")


def test_a_missing_split_leaves_no_overall_and_no_overall_rank() -> None:
    found = entries(board(one("a", 10.0, 10.0), scores.scored("b", {("l", 64, 0): {"test": (5.0, 0.1)}})))
    assert (found["b"].overall, found["b"].rank, set(found["b"].scores)) == (None, None, {"test"})
    assert (found["b"].scores["test"].rank, found["a"].scores["test"].rank, found["a"].rank) == (1, 2, 1)


def test_a_board_without_anything_in_distribution_still_stands() -> None:
    found = board(scores.scored("a", {("l", 64, 0): {"ood_hot": 5.0}}))
    assert found.splits == ("test", "ood_hot")
    assert found.entries[0].scores["ood_hot"].gap is None
    assert found.entries[0].rank is None


def test_a_configuration_without_test_errors_is_an_entry_without_scores() -> None:
    """The largest run is chosen, since not all predicted `val`, but has nothing on the test splits."""
    found = board(scores.scored("a", {("s", 64, 0): {"test": 2.0}, ("l", 64, 0): {"val": 1.0}}))
    entry = found.entries[0]
    assert (entry.size, entry.scores, entry.overall, entry.rank) == ("l", {}, None, None)
    assert [point.size for point in found.points] == ["s"]


def test_what_covers_fewer_samples_is_shown_but_not_ranked() -> None:
    few = one("few", 1.0, 1.0, samples=50)
    found = entries(board(few, one("a", 10.0, 10.0), one("b", 20.0, 20.0)))
    assert {slug: entry.scores["test"].rank for slug, entry in found.items()} == {"few": None, "a": 1, "b": 2}
    assert {slug: entry.rank for slug, entry in found.items()} == {"few": None, "a": 1, "b": 2}
    assert found["few"].overall is not None
    assert found["few"].scores["test"].samples == 50


def test_fewer_samples_on_one_split_cost_that_rank_and_the_overall_one() -> None:
    found = one("few", 1.0, 1.0)
    (run,) = found.submission.runs
    fewer = run.model_copy(update={"splits": {"test": 100, "ood_hot": 50}})
    trivial = found.trivial | {("molecules", "ood_hot", 50): {"force_mae": 100.0}}
    few = replace(found, submission=found.submission.model_copy(update={"runs": (fewer,)}), trivial=trivial)
    entry = entries(board(few, one("a", 10.0, 10.0)))["few"]
    assert (entry.scores["test"].rank, entry.scores["ood_hot"].rank, entry.rank) == (1, None, None)


# size x data → error on val and test
CELLS = {("s", 256): (3.0, 1.0), ("m", 256): (2.0, 3.0), ("l", 64): (4.0, 2.0)}


@pytest.mark.parametrize(
    ("change", "chosen", "by"),
    [
        ({}, ("m", 256), "lowest error on the validation split"),
        ({"val": ("l", 64)}, ("l", 64), "most training compute"),
        ({"val": ("l", 64), "flops": ("m", 256)}, ("l", 64), "most parameters times samples seen"),
    ],
)
def test_a_configuration_is_chosen_without_the_test_splits(change: dict[str, Any], chosen: Any, by: str) -> None:
    """The one with the lowest error on `test`, s, never is; where a val error or FLOPs are missing, others decide."""
    errors = {}
    for (size, data), (val, test) in CELLS.items():
        of_val = {} if change.get("val") == (size, data) else {"val": val}
        errors[size, data, 0] = {**of_val, "test": test}
    found = scores.scored("a", errors)
    if "flops" in change:
        rows = found.table.to_pylist()
        for row in rows:
            row["flops"] = None if (row["size"], row["data"]) == change["flops"] else row["flops"]
        found = replace(found, table=type(found.table).from_pylist(rows, found.table.schema))
    entry = board(found).entries[0]
    assert ((entry.size, entry.data), entry.chosen_by) == (chosen, by)
    assert entry.scores["test"].error.value == CELLS[chosen][1]


def test_the_validation_error_is_the_mean_over_seeds() -> None:
    errors = {("s", 64, 0): 1.0, ("s", 64, 1): 9.0, ("m", 64, 0): 4.0, ("m", 64, 1): 4.0}
    found = scores.scored("a", {cell: {"val": value, "test": 10 * value} for cell, value in errors.items()})
    entry = board(found).entries[0]
    assert (entry.size, entry.seeds, entry.scores["test"].error.value) == ("m", 2, 40.0)


def test_costs_and_runs_of_an_entry() -> None:
    errors: dict[scores.Cell, Mapping[str, scores.Error]] = {
        ("l", 64, 0): {"test": 2.0},
        ("l", 64, 1): {"test": 2.0},
        ("s", 64, 0): {"test": 3.0},
        ("l", 64, 2): {},
    }
    reported = {"symmetry_rotation_forces": 0.25, "force_mae": 1.0}
    entry = board(scores.scored("a", errors, reported=reported, peak_memory=None)).entries[0]
    assert (entry.size, entry.data, entry.seeds, entry.runs_ok, entry.runs) == ("l", 64, 2, 3, 4)
    assert (entry.params, entry.flops, entry.peak_memory) == (100_000, 60.0 * 100_000 * 64, None)
    assert entry.symmetry == {"symmetry_rotation_forces": 0.25}


@pytest.mark.parametrize(
    ("of_runs", "shared"),
    [((False, False), False), ((False, True), True), ((None, True), True), ((None, False), None), ((None, None), None)],
)
def test_a_device_was_shared_if_it_was_during_any_run(of_runs: tuple[Any, Any], shared: bool | None) -> None:
    """Of the configuration shown: what others of the submission did does not count."""
    errors: dict[scores.Cell, Mapping[str, scores.Error]] = {
        ("l", 64, 0): {"test": 2.0},
        ("l", 64, 1): {"test": 2.0},
        ("s", 64, 0): {"test": 3.0},
    }
    found = scores.scored("a", errors)
    by_run = dict(zip(dict.fromkeys(found.table["run"].to_pylist()), (*of_runs, True), strict=True))
    rows = [row | {"shared": by_run[row["run"]]} for row in found.table.to_pylist()]
    entry = board(replace(found, table=type(found.table).from_pylist(rows, found.table.schema))).entries[0]
    assert entry.shared is shared


def test_a_submission_of_failed_runs_alone_is_shown_with_nothing() -> None:
    found = entries(board(one("a", 1.0, 1.0), scores.scored("b", {("s", 64, 0): {}, ("m", 64, 0): {}})))
    lost = found["b"]
    assert (lost.scores, lost.overall, lost.rank, lost.runs_ok, lost.runs, lost.seeds) == ({}, None, None, 0, 2, 0)
    assert (lost.size, lost.chosen_by, lost.exponents) == ("m", "no run ended well", ())


def test_points_are_all_runs_on_all_shown_splits() -> None:
    cell = {"val": (1.0, 0.1), "test": (2.0, 0.1), "ood_hot": (0.1, 0.1)}
    points = board(scores.scored("a", {("s", 64, 0): cell, ("m", 64, 0): cell, ("l", 64, 0): {}})).points
    assert {(point.size, point.split) for point in points} == {
        (s, split) for s in "sm" for split in ("test", "ood_hot")
    }
    first = points[0]
    assert (first.slug, first.params, first.data, first.flops) == ("a", 1000, 64, 60.0 * 1000 * 64)
    assert (first.error.value, first.error.low, first.error.high) == pytest.approx((2.0, 2 - Z * 0.1, 2 + Z * 0.1))
    assert points[1].error.low == 0.0


def test_sealed_errors_stand_beside_public_ones() -> None:
    """Both seeds are 50 % worse on the sealed samples; the samples of both sets have independent errors of 2 %."""
    public = {("l", 64, seed): {"test": (v, 0.02 * v), "ood_hot": 4 * v} for seed, v in enumerate((10.0, 11.0))}
    sealed = {("l", 64, seed): {"test": (1.5 * v, 0.03 * v)} for seed, v in enumerate((10.0, 11.0))}
    plain = one("b", 10.0, 10.0)
    found = entries(board(scores.scored("a", public, sealed=sealed), plain))
    score = found["a"].scores["test"]
    assert score.sealed is not None
    assert score.sealed_gap is not None
    assert score.sealed.value == pytest.approx(15.75)
    half = Z * 0.02 * 2**0.5
    gap = (score.sealed_gap.value, score.sealed_gap.low, score.sealed_gap.high)
    assert gap == pytest.approx((1.5, 1.5 * np.exp(-half), 1.5 * np.exp(half)), rel=1e-6)
    assert found["a"].scores["ood_hot"].sealed is None
    assert found["b"].scores["test"].sealed_gap is None


def test_sealed_predictions_of_other_runs_and_splits_are_no_concern() -> None:
    sealed = {("s", 64, 0): {"test": 2.0}, ("l", 64, 0): {"test": 3.0, "ood_new": 1.0}}
    entry = board(scores.scored("a", {("l", 64, 0): {"test": 2.0}}, sealed=sealed)).entries[0]
    assert entry.scores["test"].sealed is not None
    assert (entry.scores["test"].sealed.value, set(entry.scores)) == (3.0, {"test"})


def test_each_target_of_a_data_set_has_a_board() -> None:
    halos = {"dataset": "halos", "domain": "cloud"}
    cell = {("l", 64, 0): {"test": 0.5}}
    velocities = scores.scored("v", cell, metric="velocities_fvu", **halos)
    parameters = scores.scored(
        "p", cell, scores.results("p", cell, metric="sigma_8_fvu", **halos), metric="omega_m_fvu", **halos
    )
    found = boards([velocities, parameters, one("a", 1.0, 2.0)])
    assert [(each.name, each.dataset, each.metric.name) for each in found] == [
        ("halos", "halos", "velocities_fvu"),
        ("halos-omega-m-fvu", "halos", "omega_m_fvu"),
        ("halos-sigma-8-fvu", "halos", "sigma_8_fvu"),
        ("molecules", "molecules", "force_mae"),
    ]
    assert [[entry.slug for entry in each.entries] for each in found] == [["v"], ["p"], ["p"], ["a"]]
    only = Config(datasets={"halos": DatasetConfig(metric="omega_m_fvu", title="Halos")})
    assert [(each.name, each.title) for each in boards([parameters], only)] == [("halos-omega-m-fvu", "Halos")]


def law(slug: str, alpha: float, scale: float, **more: Any) -> Scored:
    """Exact exponents along parameters, with a scatter of 1 % that is the same for all."""
    sizes = ("1000", "4000", "16000", "64000", "256000")
    errors = {
        (size, 64, 0): {
            "val": scale * float(size) ** -alpha,
            "test": scale * float(size) ** -alpha * (1 + 0.01 * (-1) ** i),
        }
        for i, size in enumerate(sizes)
    }
    found = scores.scored(slug, errors, **more)
    return replace(found, analysis=tuple(analyse(found.table)))


def test_scaling_is_compared_with_the_reference() -> None:
    submitted = [law("ref", 0.3, 100.0), law("steep", 0.5, 100.0), law("low", 0.3, 50.0), law("twin", 0.3, 100.1)]
    configured = Config(datasets={"molecules": DatasetConfig(reference="ref", compute=5e10)})
    found = board(*submitted, config=configured)
    verdicts = {entry.slug: entry.exponent("params", "test") for entry in found.entries}
    told = {slug: one.against_reference for slug, one in verdicts.items() if one}
    assert told == {"ref": "is the reference", "steep": "slope", "low": "offset", "twin": "none"}
    forecasted = found.entries[0].exponent("flops", "test")
    assert (found.reference, found.compute) == ("ref", 5e10)
    assert forecasted is not None
    assert forecasted.forecast is not None
    given = board(*submitted, reference="ref")
    assert [entry.exponents for entry in given.entries] != [entry.exponents for entry in board(*submitted).entries]
    assert given.reference == "ref"
    assert board(*submitted).reference is None


def test_exponents_are_those_of_the_chosen_treatment() -> None:
    """The same sizes with augmentation, which fall faster and have the lowest error on `val`."""
    plain, augmented = law("a", 0.3, 100.0), law("a", 0.5, 100.0, treatment="augmentation", metric="force_mae")
    rows = [row | {"run": f"{row['run']}-augmented"} for row in augmented.table.to_pylist()]
    both = scores.scored("a", {}, plain.table, type(plain.table).from_pylist(rows, plain.table.schema))
    found = board(replace(both, analysis=(*augmented.analysis, *plain.analysis))).entries[0]
    exponent = found.exponent("params", "test")
    assert len(found.exponents) == 3
    assert exponent is not None
    assert exponent.estimate is not None
    assert exponent.estimate.value == pytest.approx(0.5, abs=0.01)


def test_a_failed_run_beside_others_puts_nobody_on_another_targets_board() -> None:
    halos = {"dataset": "halos", "domain": "cloud"}
    mixed = scores.scored("v", {("l", 64, 0): {"test": 0.5}, ("s", 64, 0): {}}, metric="velocities_fvu", **halos)
    other = scores.scored("p", {("l", 64, 0): {"test": 0.5}}, metric="omega_m_fvu", **halos)
    assert [[entry.slug for entry in each.entries] for each in boards([mixed, other])] == [["v"], ["p"]]


def test_a_reference_that_was_not_submitted_is_named() -> None:
    with pytest.raises(UserError, match="unknown reference 'rfe'; did you mean 'ref'"):
        boards([one("ref", 1.0, 1.0)], reference="rfe")
    config = Config(datasets={"molecules": DatasetConfig(reference="gone")})
    with pytest.raises(UserError, match="unknown reference of 'molecules' 'gone'"):
        boards([one("a", 1.0, 1.0)], config)


def test_a_given_reference_is_none_where_it_was_not_submitted() -> None:
    elsewhere = scores.scored("b", {("l", 64, 0): {"test": 1.0}}, dataset="crystals")
    found = boards([one("a", 1.0, 1.0), elsewhere], reference="a")
    assert {each.dataset: each.reference for each in found} == {"crystals": None, "molecules": "a"}


def test_a_reference_on_one_target_compares_nothing_on_another() -> None:
    cell, halos = {("l", 64, 0): {"test": 0.5}}, {"dataset": "halos", "domain": "cloud"}
    submitted = [scores.scored(metric[0], cell, metric=metric, **halos) for metric in ("velocities_fvu", "omega_m_fvu")]
    config = Config(datasets={"halos": DatasetConfig(reference="v")})
    assert [each.reference for each in boards(submitted, config)] == ["v", None]
    assert [each.reference for each in boards(submitted, config, reference="o")] == ["v", "o"]


def test_scores_without_a_trivial_error_are_named() -> None:
    for broken in (
        {},
        {("molecules", "test", 100): {"force_mae": 0.0}, ("molecules", "ood_hot", 100): {"force_mae": 1.0}},
    ):
        with pytest.raises(UserError, match=r"the scores of 'a' lack the force_mae of a trivial predictor on '.*'"):
            boards([replace(one("a", 1.0, 1.0), trivial=broken)])


def test_only_what_was_reproduced_is_marked_so() -> None:
    submitted = [one(slug, 1.0, 1.0) for slug in ("a", "b", "c")]
    found = entries(board(*submitted, reproduced={"a": "d" * 64, "b": "e" * 64}))
    assert {slug: entry.status for slug, entry in found.items()} == {
        "a": "reproduced",
        "b": "recomputed",
        "c": "recomputed",
    }


def test_scores_of_older_scoring_are_flagged() -> None:
    new, old = replace(one("new", 1.0, 1.0), scoring_version=2), replace(one("old", 1.0, 1.0), flags=("x",))
    found = entries(board(new, old))
    assert (found["new"].flags, found["old"].flags[0], len(found["old"].flags)) == ((), "x", 2)
    assert "version 1" in found["old"].flags[1]


def models(errors: list[tuple[float, float]]) -> list[Scored]:
    return [one(f"m{i}", test, ood) for i, (test, ood) in enumerate(errors)]


@settings(max_examples=15)
@given(MODELS, st.randoms(use_true_random=False))
def test_the_order_of_submissions_changes_nothing(errors: list[tuple[float, float]], order: random.Random) -> None:
    submitted = models(errors)
    shuffled = list(submitted)
    order.shuffle(shuffled)
    assert entries(board(*shuffled)) == entries(board(*submitted))


@settings(max_examples=15)
@given(MODELS)
def test_a_worse_entry_changes_nobodys_rank_and_nobodys_score(errors: list[tuple[float, float]]) -> None:
    submitted = models(errors)
    before, after = entries(board(*submitted)), entries(board(*submitted, one("worst", 200.0, 200.0)))
    worst = after.pop("worst")
    assert after == before
    assert worst.rank == 1 + len(errors)


@settings(max_examples=15)
@given(MODELS)
def test_a_better_entry_changes_ranks_alone(errors: list[tuple[float, float]]) -> None:
    submitted = models(errors)
    before, after = entries(board(*submitted)), entries(board(*submitted, one("best", 0.1, 0.1)))
    assert after.pop("best").rank == 1
    for slug, entry in after.items():
        assert entry.rank == (before[slug].rank or 0) + 1
        assert entry.overall == before[slug].overall
        assert entry.scores["test"].normalised == before[slug].scores["test"].normalised


@settings(max_examples=15)
@given(st.floats(1, 50), MODELS)
def test_equal_entries_share_every_rank(error: float, others: list[tuple[float, float]]) -> None:
    found = entries(board(*models(others), one("x", error, error), one("y", error, error)))
    assert found["x"].rank == found["y"].rank
    for split in ("test", "ood_hot"):
        assert found["x"].scores[split].rank == found["y"].scores[split].rank
