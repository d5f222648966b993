"""Plans: the grid, the names of its runs, and what is refused before anything runs."""

from __future__ import annotations

import hashlib
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scisci.contracts.errors import UserError
from scisci.contracts.run import LATER
from scisci.data.samples import AtomsSample
from scisci.data.writer import StoreWriter
from scisci.sweep.design_cli import plan_table
from scisci.sweep.drive import Shard
from scisci.sweep.plan import Plan
from scisci.sweep.planning import make_plan
from scisci.sweep.study import Study
from scisci.sweep.tables import print_table

from .grid import plan, study

AMOUNTS = st.lists(st.integers(1, 10**6), min_size=1, max_size=4, unique=True)
NAMES = st.sampled_from(["3k", "10k", "30k", "100k", "1M", "tiny"])
SIZES = st.lists(NAMES, min_size=1, max_size=4, unique=True)
SEEDS = st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True)
ENTRIES = st.dictionaries(st.sampled_from(["nequip", "mpnn", "transformer"]), SIZES, min_size=1)


def grid_of(entries: dict[str, list[str]], data: list[int], seeds: list[int]) -> Plan:
    architectures = {name: {"sizes": sizes, "learning_rate": 0.01} for name, sizes in entries.items()}
    return plan(architectures=architectures, data=data, seeds=seeds)


def names(plan: Plan) -> list[str]:
    return [spec.run for _, spec in plan.specs()]


@given(ENTRIES, AMOUNTS, SEEDS)
def test_the_grid_is_the_product(entries, data, seeds):
    grid = grid_of(entries, data, seeds)
    asked = {(name, *rest) for name, sizes in entries.items() for rest in itertools.product(sizes, data, seeds)}
    planned = [(s.architecture, s.size, s.data, s.seed) for _, s in grid.specs()]
    assert set(planned) == asked
    assert len(planned) == len(asked) == len(grid) == len(set(names(grid)))


@given(ENTRIES, AMOUNTS, SEEDS, st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=3, unique=True))
def test_learning_rates_are_one_more_dimension_of_the_grid(entries, data, seeds, rates):
    architectures, val = {name: {"sizes": sizes} for name, sizes in entries.items()}, {"splits": ["val"]}
    grid = plan(architectures=architectures, data=data, seeds=seeds, learning_rates=rates, evaluation=val)
    at = lambda rate: {name: entry | {"learning_rate": rate} for name, entry in architectures.items()}
    alone = [names(plan(architectures=at(rate), data=data, seeds=seeds, evaluation=val)) for rate in rates]
    assert sorted(names(grid)) == sorted(itertools.chain(*alone))
    assert len(grid) == sum(map(len, alone))


@given(ENTRIES, AMOUNTS, SEEDS, st.randoms())
def test_a_runs_name_does_not_depend_on_the_rest_of_the_study(entries, data, seeds, random):
    whole = names(grid_of(entries, data, seeds))
    shuffled = lambda items: random.sample(list(items), len(items))
    order = {name: shuffled(entries[name]) for name in shuffled(entries)}
    assert set(names(grid_of(order, shuffled(data), shuffled(seeds)))) == set(whole)
    assert set(names(grid_of(entries, data[:1], seeds))) <= set(whole)
    assert not set(names(grid_of(entries, [max(data) + 1], seeds))) & set(whole)


@given(ENTRIES, AMOUNTS, SEEDS, st.integers(1, 7))
def test_shards_share_out_every_run_once(entries, data, seeds, count):
    grid = grid_of(entries, data, seeds)
    runs = [grid.count(cell) for cell in grid.cells]
    cells = list(zip(itertools.accumulate([0, *runs[:-1]]), runs, grid.cells, strict=True))
    shards = [Shard(index, count) for index in range(1, count + 1)]
    parts = [[grid.spec(cell, n).run for at, n, cell in cells for n in shard.select(at, n)] for shard in shards]
    assert sorted(itertools.chain(*parts)) == sorted(names(grid))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_runs_name_is_the_hash_of_its_spec_whatever_is_kept_and_followed():
    _, spec = next(plan().specs())
    content = spec.model_dump(mode="json")
    del content["evaluation"]["predictions"], content["loggers"], content["energy"]
    for name in LATER:
        del content["optimization"][name]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert spec.run == hashlib.sha256(text.encode()).hexdigest()[:16]
    _, kept = next(plan(evaluation={"splits": ["test"], "predictions": True}).specs())
    assert (kept.evaluation.predictions, kept.run) == (True, spec.run)
    _, followed = next(plan(loggers=["WandbLogger"]).specs())
    assert (followed.loggers, followed.run) == (("WandbLogger",), spec.run)
    for change in ({"precision": "bf16-mixed"}, {"compiled": True}):
        _, other = next(plan(optimization={"steps": 20} | change).specs())
        assert other.run != spec.run


def test_runs_recorded_before_there_was_another_parametrization_keep_their_names():
    entry = {"linear": {"sizes": ["2"], "learning_rate": 0.1}}
    assert names(plan(architectures=entry))[:2] == ["9b9a74f51381d7ce", "8fff61312ada707a"]
    entry["linear"]["parametrization"] = "maximal_update"
    wide = names(plan(architectures=entry))
    assert len({*wide, *names(plan())}) == len(wide) + len(names(plan()))


def test_a_runs_name_does_not_depend_on_the_order_of_its_options():
    orders = [dict(options) for options in itertools.permutations({"a": 1, "b": {"d": 1, "c": 2}, "ä": "x"}.items())]
    orders.append(orders[0] | {"b": {"c": 2, "d": 1}})
    entries = [{"linear": {"sizes": ["2"], "learning_rate": 0.1, "overrides": order}} for order in orders]
    assert len({tuple(names(plan(architectures=one))) for one in entries}) == 1
    entries[0]["linear"]["overrides"]["b"] = {"d": 2, "c": 1}
    assert names(plan(architectures=entries[0])) != names(plan(architectures=entries[1]))


def test_a_plan_survives_being_written(tmp_path):
    entry = {"sizes": ["2"], "learning_rate": {"2": 0.3}, "overrides": {"a": [1]}}
    grid = plan(architectures={"linear": entry})
    grid.write(tmp_path)
    assert Plan.read(tmp_path) == grid
    assert names(Plan.read(tmp_path)) == names(grid)


def test_a_folder_belongs_to_one_study(tmp_path):
    plan().write(tmp_path)
    plan(seeds=[5]).write(tmp_path)
    assert Plan.read(tmp_path).study.seeds == (5,)
    with pytest.raises(UserError, match="holds the study 'regressions', not 'other'; choose another --out"):
        plan(study="other").write(tmp_path)
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(UserError, match=r"plan\.json is damaged"):
        plan().write(tmp_path)
    with pytest.raises(UserError, match="no sweep in"):
        Plan.read(tmp_path / "elsewhere")


def real_study(store, **changes):
    entries = {"mpnn": {"sizes": ["3k", "10k"], "learning_rate": 0.01}}
    content = study(architectures=entries, dataset=str(store), data=[64, 96]) | changes
    return Study.model_validate(content)


def test_a_plan_is_bound_to_the_content_of_its_data_set(small_store):
    grid = make_plan(real_study(small_store))
    assert (grid.domain, len(grid.fingerprint), len(grid)) == ("atoms", 64, 8)
    assert {spec.fingerprint for _, spec in grid.specs()} == {grid.fingerprint}


def entry(name, **changes):
    return {"architectures": {name: {"sizes": ["3k"], "learning_rate": 1} | changes}}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": [64, 97]}, "the study asks for 97 training samples but .* has 96; lower the data amounts"),
        ({"evaluation": {"splits": ["tests"]}}, "unknown split 'tests'; did you mean 'test'"),
        ({"dataset": "no-such-data"}, "unknown data set 'no-such-data'"),
        (
            entry("mpn"),
            "unknown architecture 'mpn'.*'mpnn'",
        ),
        (
            entry("mpnn", sizes=["3K"]),
            "unknown size of mpnn '3K'.*'3k'",
        ),
        (
            entry("mpnn", overrides={"layer": 2}),
            "unknown option of mpnn 'layer'.*'layers'",
        ),
        (entry("mpnn", overrides={"channels": -3}), "channels of mpnn is -3"),
        (entry("mpnn", overrides={"cutoff": "x"}), "cutoff of mpnn is 'x'"),
        (entry("nequip", overrides={"l_max": -1}), "l_max of nequip is -1"),
        (
            entry("nequip", parametrization="maximal_update"),
            "nequip has no maximal-update .*: escaip, mpnn, transformer",
        ),
        (
            entry("linear_vectors", parametrization="maximal_update", learning_rate=None),
            "linear_vectors is a baseline, which is fitted and not trained; remove parametrization",
        ),
        (entry("mpnn", overrides={"channels": 20}), "label of its own and the key 'architecture: mpnn'"),
        (
            entry("nequip", architecture="mpnn", overrides={"channels": 20}),
            "must not call it 'nequip'; give it a label of its own",
        ),
        (
            entry("nequip", architecture="mpnn", parametrization="maximal_update"),
            "must not call it 'nequip'; give it a label of its own",
        ),
        (
            entry("mpnn", treatment="frames") | {"optimization": {"steps": 20, "compiled": True}},
            "the symmetry treatment 'frames' is not compiled; leave compiled out",
        ),
        ({"loggers": ["os.system"]}, "names 'os.system', but only"),
        ({"loggers": [{"class_path": "WandbLogger", "init_args": {"nme": "x"}}]}, "'nme' is not accepted"),
    ],
)
def test_what_could_not_run_is_refused(small_store, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        make_plan(real_study(small_store, **changes))


def test_a_labelled_variant_can_be_planned(small_store):
    named = entry("wide", architecture="mpnn", overrides={"channels": 20})
    assert {spec.variant for _, spec in make_plan(real_study(small_store, **named)).specs()} == {"wide"}


def test_both_parametrizations_can_be_planned(small_store, capsys):
    entries = {"mpnn": {}, "wide": {"architecture": "mpnn", "parametrization": "maximal_update"}}
    entries = {label: {"sizes": ["3k"], "learning_rate": 0.01} | entry for label, entry in entries.items()}
    grid = make_plan(real_study(small_store, architectures=entries))
    found = {(spec.variant, spec.optimization.parametrization) for _, spec in grid.specs()}
    assert found == {(None, "standard"), ("wide", "maximal_update")}
    print_table(plan_table(grid))
    assert [line.split()[3] for line in capsys.readouterr().out.splitlines()[1:]] == ["standard", "maximal_update"]


def store_of(path, domain="atoms", splits=("train", "val", "test"), **labels):
    """A store of 8 water molecules, of which every split holds all."""
    sample = AtomsSample(numbers=np.array([8, 1, 1]), positions=np.eye(3), **labels)
    with StoreWriter(path, domain) as writer:
        for _ in range(8):
            writer.append(sample, "water")
        for name in splits:
            writer.split(name, np.arange(8), "none")
        writer.reference("energy", np.where(np.isin(np.arange(119), [1, 8]), -1.0, np.nan))
    return path


LABELS = {"energy": -3.0, "forces": np.eye(3)}


def test_a_data_set_without_what_training_needs_is_refused(tmp_path):
    amounts = {"data": [8]}
    assert make_plan(real_study(store_of(tmp_path / "sound.h5", **LABELS), **amounts))
    bare = store_of(tmp_path / "bare.h5", splits=("train", "test"), **LABELS)
    with pytest.raises(UserError, match="unknown split 'val'"):
        make_plan(real_study(bare, **amounts))
    with pytest.raises(UserError, match="has no energy and no forces, which training needs"):
        make_plan(real_study(store_of(tmp_path / "unlabelled.h5"), **amounts))
