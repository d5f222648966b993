"""Study files: what is read, and the sentence that each mistake gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from scisci.contracts.errors import UserError
from scisci.sweep.study import load_study

from .grid import study

LINEAR = {"sizes": ["2", "4"], "learning_rate": 0.1}

ON_VAL = {"evaluation": {"splits": ["val"]}}


def linear(**changes: Any) -> dict[str, Any]:
    """A study of one entry, with `changes` to it."""
    return study(architectures={"linear": LINEAR | changes})


def written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def test_learning_rates_and_recipe_are_per_size(tmp_path):
    rates = {"2": "1e-2", "4": 3.0e-3}
    content = study(
        architectures={"linear": LINEAR | {"learning_rate": rates, "learning_rate_choice": "a scan"}},
        optimization={"steps": 7, "force_weight": 2.5},
    )
    recipe = load_study(written(tmp_path, content)).recipe("linear", "4", 16)
    assert (recipe.learning_rate, recipe.learning_rate_choice) == (0.003, "a scan")
    assert (recipe.steps, recipe.force_weight, recipe.batch_size) == (7, 2.5, 16)
    assert load_study(written(tmp_path, content)).recipe("linear", "2", 16).learning_rate == 0.01


def test_a_size_may_have_a_rate_per_amount_of_data(tmp_path):
    rates = {"2": 0.1, "4": {16: 0.2, 32: 0.05}}
    read = load_study(
        written(tmp_path, study(data=[16, 32], architectures={"linear": LINEAR | {"learning_rate": rates}}))
    )
    found = [read.recipe("linear", size, data).learning_rate for size in ("2", "4") for data in (16, 32)]
    assert found == [0.1, 0.1, 0.2, 0.05]
    with pytest.raises(UserError, match=r"learning_rate of linear, 4 lacks the data amounts 64"):
        load_study(written(tmp_path, study(data=[16, 64], architectures={"linear": LINEAR | {"learning_rate": rates}})))


def test_how_a_rate_was_chosen_may_be_said_per_size(tmp_path):
    choices = {"2": "a scan", "4": "a guess"}
    read = load_study(written(tmp_path, linear(learning_rate_choice=choices)))
    assert {size: read.recipe("linear", size, 16).learning_rate_choice for size in choices} == choices


def test_an_entry_may_have_steps_of_its_own(tmp_path):
    entries = {"linear": LINEAR, "framed": LINEAR | {"architecture": "linear", "treatment": "frames", "steps": 5}}
    read = load_study(written(tmp_path, study(architectures=entries)))
    size = LINEAR["sizes"][0]
    assert [read.recipe(label, size, 16).steps for label in entries] == [20, 5]
    assert read.recipe("framed", size, 16).batch_size == read.recipe("linear", size, 16).batch_size
    with pytest.raises(UserError, match=r"architectures.linear.steps"):
        load_study(written(tmp_path, study(architectures={"linear": LINEAR | {"steps": 0}})))


def test_an_entry_with_overrides_is_named_by_its_label(tmp_path):
    entries = {
        "linear": LINEAR,
        "linear-augmented": LINEAR | {"architecture": "linear", "treatment": "augmentation"},
        "linear-deep": LINEAR | {"architecture": "linear", "overrides": {"depth": 3}},
    }
    read = load_study(written(tmp_path, study(architectures=entries)))
    assert [read.architecture(label) for label in entries] == ["linear"] * 3
    assert [read.variant(label) for label in entries] == [None, None, "linear-deep"]


def test_an_entry_of_another_parametrization_is_named_by_its_label(tmp_path):
    wide = LINEAR | {"parametrization": "maximal_update"}
    read = load_study(
        written(tmp_path, study(architectures={"linear": LINEAR, "w": wide | {"architecture": "linear"}}))
    )
    assert [read.variant(label) for label in ("linear", "w")] == [None, "w"]
    assert [read.recipe(label, "2", 16).parametrization for label in ("linear", "w")] == ["standard", "maximal_update"]
    assert load_study(written(tmp_path, study(architectures={"linear": wide}))).variant("linear") is None
    with pytest.raises(UserError, match=r"architectures.linear.parametrization: Input should be 'standard'"):
        load_study(written(tmp_path, linear(parametrization="mup")))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            linear(size=[]),
            r"unknown key in architectures.linear 'size'.*'sizes'",
        ),
        (study(seed=[1]), r"unknown key 'seed'; did you mean .*'seeds'"),
        (study(optimization={"step": 3}), r"unknown key in optimization 'step'; did you mean 'steps'"),
        (
            study(optimization={"steps": 3, "learning_rate": 1}),
            r"unknown key in optimization 'learning_rate'",
        ),
        (study(evaluation={"split": ["test"]}), r"evaluation.*split"),
        (study(optimization={"steps": 0}), r"optimization.steps: .*greater than 0"),
        (study(architectures={}), r"architectures: .*at least 1"),
        (study(data=[16, 0]), r"data.1: .*greater than 0"),
        (study(data=[16, 16]), r"data lists 16 twice"),
        (study(seeds=[3, 3]), r"seeds lists 3 twice"),
        (study(evaluation={"splits": ["test", "test"]}), r"evaluation.splits lists 'test' twice"),
        (linear(sizes=["2", "2"]), r"sizes lists '2' twice"),
        (
            linear(learning_rate={"2": 0.1}),
            r"learning_rate lacks the sizes 4",
        ),
        (
            linear(learning_rate={"2": 0.1, "4": 0.1, "44": 1.0}),
            r"unknown size in learning_rate '44'; did you mean '4'",
        ),
        (linear(learning_rate_choice={"2": "a scan"}), r"learning_rate_choice lacks the sizes 4"),
        (linear(learning_rate_choice={"2": "", "4": "", "5": ""}), r"unknown size in learning_rate_choice '5'"),
        (study(learning_rates=[0.1, 0.2]), r"learning_rates, which 'val' is to choose among"),
        (
            study(learning_rates=[0.1, 0.2], **ON_VAL),
            r"the study has learning_rates and 'linear' a learning_rate; remove one",
        ),
        (study(learning_rates=[0.1, 0.1]), r"learning_rates lists 0\.1 twice"),
        (study(learning_rates=[0]), r"learning_rates.0: .*greater than 0"),
        (linear(learning_rate=-1), r"learning_rate.*greater than 0"),
        (linear(learning_rate=float("nan")), r"learning_rate.*finite"),
        (
            study(architectures={"linear": LINEAR, "again": LINEAR | {"architecture": "linear"}}),
            r"'linear' and 'again' would have one name in the results table",
        ),
        (study(seeds=[-1]), r"seeds.0: .*greater than or equal to 0"),
        (study(seeds=[2**32]), r"seeds.0: .*less than"),
        (study(study=".."), r"study: .*pattern"),
        (study(optimization={"steps": 2, "precision": "16-true"}), r"optimization.precision: .*'bf16-mixed'"),
        (
            study(optimization={"steps": 2, "precision": "bf16-mixed", "compiled": True}),
            r"optimization: compiled training is in full precision, not bf16-mixed; leave one of them out",
        ),
        (
            study(energy=True, resources={"gpus": 4}, optimization={"steps": 2, "batch_size": 16}),
            r"have 4 GPUs, and energy is measured of trainings on one; leave energy out",
        ),
        (study(loggers="WandbLogger"), r"loggers: .*tuple"),
        (study(study="-x"), r"study: .*pattern"),
        (study(task="foo"), r"task: .*dictionary"),
        (study(evaluation={"splits": []}), r"evaluation.splits: .*at least 1"),
        ("study: [", r"is not YAML"),
        ("- 1\n", r"is not a study"),
    ],
)
def test_mistakes_get_one_sentence(tmp_path, content, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        load_study(written(tmp_path, content))
    assert "\n" not in str(error.value)
    assert "study.yaml" in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the study .*absent\.yaml: No such file"):
        load_study(tmp_path / "absent.yaml")
