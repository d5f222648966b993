"""Extended studies: all that was planned stays planned, and what is recorded is not done again."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scisci.contracts.errors import UserError
from scisci.contracts.results import read_results
from scisci.sweep.cli import main, parser
from scisci.sweep.collect import collect
from scisci.sweep.design_cli import _sizes
from scisci.sweep.extend import extended, extended_plan
from scisci.sweep.plan import Plan
from scisci.sweep.records import Records
from scisci.sweep.standing import standing
from scisci.sweep.study import Study

from .grid import carry_out, plan, results, study

SIZES, NUMBERS = ["2", "4", "8", "16", "32"], st.integers(1, 10**6)


def names(grid: Plan) -> set[str]:
    return {spec.run for _, spec in grid.specs()}


def split(values: st.SearchStrategy, least: int = 1) -> st.SearchStrategy:
    """Distinct values in two lists: what a study has, and what is added to it."""
    lists = st.lists(values, min_size=least, max_size=5, unique=True)
    return lists.flatmap(lambda all_: st.integers(least, len(all_)).map(lambda at: (all_[:at], all_[at:])))


@given(
    split(st.sampled_from(SIZES)),
    split(NUMBERS),
    split(st.integers(0, 99)),
    split(st.floats(1e6, 1e12), least=0),
    st.sampled_from([0.1, "by size"]),
)
def test_an_extended_plan_has_all_earlier_runs(sizes, data, seeds, compute, rate):
    rates = dict.fromkeys(sizes[0], 0.1) if rate == "by size" else rate
    choices = {"learning_rate": rates, "learning_rate_choice": "a scan"}
    recipe = {"optimization": {} if compute[0] else {"steps": 5}}
    before = plan(
        architectures={"linear": {"sizes": sizes[0], **choices}, "other": {"sizes": ["1"], "learning_rate": 1}},
        data=data[0],
        seeds=seeds[0],
        compute=compute[0],
        **recipe,
    )
    more = {"data": tuple(data[1]), "seeds": tuple(seeds[1])}
    more |= {"compute": tuple(compute[1])} if compute[0] else {}
    own = {("linear", size): 0.2 for size in sizes[1]} if rate == "by size" else {}
    made = extended(before.study, sizes={"linear": tuple(sizes[1])}, rates=own, **more)
    content = made.model_dump(mode="json", exclude_unset=True)
    after = plan(**content)
    assert names(before) <= names(after)
    assert len(names(after)) == len(after)
    count = len(sizes[0] + sizes[1]) + 1
    amounts, budgets = len(data[0] + data[1]), len(compute[0] + compute[1]) if compute[0] else 1
    assert len(after) <= count * amounts * budgets * len(seeds[0] + seeds[1])
    for _, spec in after.specs():
        new = rate == "by size" and spec.size in sizes[1] and spec.architecture == "linear"
        chosen = (spec.optimization.learning_rate, spec.optimization.learning_rate_choice)
        if spec.architecture == "linear":
            assert chosen == ((0.2, "given") if new else (0.1, "a scan"))


def test_data_that_is_seen_stays_so():
    before = plan(compute=[1e6], data="seen", optimization={"batch_size": 8})
    made = extended(before.study, compute=(1e7,), seeds=(7,))
    assert (made.data, made.compute, made.seeds) == ("seen", (1e6, 1e7), (0, 1, 7))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"sizes": {"linaer": ("8",)}}, "unknown entry 'linaer'; did you mean 'linear'"),
        ({"sizes": {"linear": ("4",)}}, "sizes lists '4' twice"),
        ({"sizes": {"linear": ("8",)}}, "learning_rate lacks the sizes 8"),
        ({"rates": {("linear", "4"): 0.1}}, "for linear 4, which is not among the new sizes"),
        ({"data": (16,)}, "data lists 16 twice"),
        ({"seeds": (-1,)}, "seeds.2: .*greater than"),
        ({"compute": (1e9,)}, "this study does not go by compute"),
    ],
)
def test_what_cannot_be_added_is_said(more, sentence):
    by_size = {"linear": {"sizes": ["2", "4"], "learning_rate": {"2": 0.1, "4": 0.1}}}
    with pytest.raises(UserError, match=sentence):
        extended(Study.model_validate(study(architectures=by_size)), **more)
    seen = Study.model_validate(study(compute=[1e9], data="seen", optimization={}))
    with pytest.raises(UserError, match="as much data as they see"):
        extended(seen, data=(8,))


def test_recordings_of_earlier_code_count_where_the_plan_says_so(tmp_path, journal):
    before = plan(seeds=[0])
    carry_out(before, tmp_path)
    after = plan(seeds=[0, 1]).model_copy(update={"code_version": "2", "earlier": ("1",), "extended": True})
    log = carry_out(after, tmp_path)
    assert {o.job.spec.seed for o in log.outcomes} == {1}
    assert {o.job.spec.code_version for o in log.outcomes} == {"2"}
    assert carry_out(after, tmp_path).outcomes == []
    assert set(journal("start").values()) == {1}
    collected = collect(tmp_path)
    assert (collected.runs, collected.missing, collected.unplanned, collected.earlier) == (8, 0, 0, 4)
    assert set(read_results(collected.path)["run"].to_pylist()) == set(Records(tmp_path).recorded())
    assert standing(tmp_path).totals == {"ok": 8}
    with pytest.raises(UserError, match=r"was extended beyond its study file; go on with 'scisci sweep run"):
        before.write(tmp_path)


def test_what_earlier_code_failed_at_is_done_again_by_this_code(tmp_path):
    wild = {"linear": {"sizes": ["2"], "learning_rate": 1e30}}
    before = plan(architectures=wild)
    carry_out(before, tmp_path)
    after = before.model_copy(update={"code_version": "2", "earlier": ("1",), "extended": True})
    assert carry_out(after, tmp_path).outcomes == []
    assert len(carry_out(after, tmp_path, retry=["diverged"]).outcomes) == len(after)
    assert {result.status for result in results(after, tmp_path).values()} == {"diverged"}
    assert collect(tmp_path).earlier == 0


@pytest.fixture
def study_file(small_store, tmp_path):
    content = study(
        study="small",
        dataset=str(small_store),
        architectures={"mpnn": {"sizes": ["3k"], "learning_rate": 0.01}},
        data=[32],
        seeds=[0],
        optimization={"steps": 4, "batch_size": 8, "validations": 1},
        evaluation={"splits": ["test"], "max_samples": 8, "symmetry_samples": 0},
    )
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_finished_study_is_extended_without_doing_it_again(study_file, tmp_path, capsys):
    out = tmp_path / "out"
    main(["run", str(study_file), "--out", str(out), "--engine", "inline"])
    before = {run: Records(out).stamp(run) for run in Records(out).recorded()}
    capsys.readouterr()
    main(["extend", str(out), "--sizes", "mpnn=10k", "--learning-rate", "mpnn=10k:0.005", "--seeds", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "4 runs of small, 3 of them new; 1 are recorded",
        f"3 are to be done: scisci sweep run {out}",
    ]
    with pytest.raises(UserError, match="was extended beyond its study file"):
        main(["run", str(study_file), "--out", str(out), "--engine", "inline"])
    main(["run", str(out), "--engine", "inline"])
    printed = capsys.readouterr().out
    assert "4 runs of small: 4 ok" in printed
    assert "3/3" not in printed
    assert before.items() <= {run: Records(out).stamp(run) for run in Records(out).recorded()}.items()
    table = read_results(out / "results.parquet").to_pandas().drop_duplicates("run")
    assert sorted(zip(table["size"], table.seed, table.lr, strict=True)) == [
        ("10k", 0, 0.005),
        ("10k", 1, 0.005),
        ("3k", 0, 0.01),
        ("3k", 1, 0.01),
    ]


def test_changed_code_and_data_are_refused_or_named(study_file, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    main(["run", str(study_file), "--out", str(out), "--engine", "inline"])
    planned = (out / "plan.json").read_text()
    first = Plan.read(out)
    with pytest.raises(UserError, match="there is nothing to add"):
        main(["extend", str(out)])
    monkeypatch.setattr("scisci.tasks.version.code_version", lambda: "another")
    with pytest.raises(UserError, match=r"the code that decides outcomes has changed since .* --keep-versions"):
        main(["extend", str(out), "--seeds", "1"])
    with pytest.raises(UserError, match="the code that decides outcomes has changed since"):
        main(["run", str(out)])
    assert (out / "plan.json").read_text() == planned
    capsys.readouterr()
    main(["extend", str(out), "--seeds", "1", "--keep-versions"])
    printed = capsys.readouterr().out
    assert "2 runs of small, 1 of them new; 1 are recorded" in printed
    assert f"what {first.code_version} recorded counts, beside what another will" in printed
    after = Plan.read(out)
    assert (after.code_version, after.earlier, after.flops) == ("another", (first.code_version,), first.flops)
    main(["collect", str(out)])
    printed = capsys.readouterr().out
    assert "1 of them were recorded by earlier versions of the code" in printed
    assert "1 planned runs are not done" in printed
    monkeypatch.undo()
    back = extended_plan(out, after, extended(after.study, seeds=(2,)), keep_versions=True)
    assert (back.code_version, back.earlier) == (first.code_version, ("another",))
    with pytest.raises(UserError, match=r"the content of .* has changed since .* was planned; choose another folder"):
        other = back.model_copy(update={"fingerprint": "0" * 64})
        extended_plan(out, other, extended(other.study, seeds=(3,)))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--sizes", "mpnn"], "--sizes mpnn is not understood; write it as ENTRY=SIZE,SIZE"),
        (["--sizes", "mpnn=10k,"], "is not understood"),
        (["--learning-rate", "mpnn=10k"], "is not understood; write it as ENTRY=SIZE:RATE"),
        (["--learning-rate", "mpnn=10k:0.1", "mpnn=10k:0.2"], "gives mpnn 10k two rates; leave one out"),
        (["--learning-rate", "mpnn=10k:fast"], "fast is not a positive number"),
    ],
)
def test_options_that_are_not_understood(tmp_path, options, sentence):
    plan().write(tmp_path)
    with pytest.raises(UserError, match=sentence):
        main(["extend", str(tmp_path), *options])


def test_a_sweep_needs_a_study_file_and_a_folder_or_a_folder_alone(study_file, tmp_path):
    for words in ([str(study_file)], [str(tmp_path), "--out", str(tmp_path / "out")]):
        with pytest.raises(UserError, match="give the folder of a sweep alone, or a study file and --out DIR"):
            main(["run", *words])


def test_options_that_are_given_twice_add_up():
    words = ["--sizes", "mpnn=10k", "--seeds", "1", "--sizes", "mpnn=30k,100k", "nequip=3k", "--seeds", "2"]
    arguments = parser().parse_args(["extend", "DIR", *words])
    assert _sizes(arguments.sizes) == {"mpnn": ("10k", "30k", "100k"), "nequip": ("3k",)}
    assert arguments.seeds == [1, 2]
