"""Descriptions that do more than describe, and names of folders."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from ..tiny import edit
from .registry import canary, first_run, refused, rename


@refused("submission.yaml: family: ")
def strange_family(folder: Path) -> None:
    edit(folder, lambda content: content.update(family="best"))


@refused("submission.yaml: licens: unknown key 'licens'; did you mean 'licence'")
def unknown_key(folder: Path) -> None:
    edit(folder, lambda content: content.update(licens="MIT"))


@refused("runs[0] (small-0).sede: unknown key 'sede'; did you mean 'seed' or 'shared'")
def unknown_key_of_a_run(folder: Path) -> None:
    first_run(folder, sede=1)


@refused("hardware.device_hours: is missing; give it")
def no_cost(folder: Path) -> None:
    edit(folder, lambda content: content["hardware"].pop("device_hours"))


@refused("has the tag 'tag:yaml.org,2002:python/object/apply:os.system'; write plain values")
def python_object(folder: Path) -> None:
    with open(folder / "submission.yaml", "a") as file:
        file.write(f"summary2: !!python/object/apply:os.system ['touch {canary(folder).with_name('mark')}']\n")


@refused("line 2 has an anchor or alias; write the value out")
def alias_bomb(folder: Path) -> None:
    laughs = [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 12)]
    (folder / "submission.yaml").write_text("\n".join(["name: x", "a0: &a0 [lol]", *laughs]))


@refused("nests more than 16 levels deep")
def deep_nesting(folder: Path) -> None:
    (folder / "submission.yaml").write_text("[" * 2_000_000)


@refused("has 8.0 MiB, more than 4 MiB")
def huge_description(folder: Path) -> None:
    (folder / "submission.yaml").write_text("name: x #" + "x" * 2**23)


@refused("has more values than any submission")
def countless_runs(folder: Path) -> None:
    (folder / "submission.yaml").write_text("runs: [" + "{}," * 200_000 + "]")


@refused("has the key 'licence' a second time; keep one")
def duplicate_key(folder: Path) -> None:
    with open(folder / "submission.yaml", "a") as file:
        file.write("licence: none\n")


@refused("has a key that is not a plain name")
def merged_keys(folder: Path) -> None:
    with open(folder / "submission.yaml", "a") as file:
        file.write("<<: {licence: none}\n")


@refused("has a date or number that cannot be")
def impossible_date(folder: Path) -> None:
    with open(folder / "submission.yaml", "a") as file:
        file.write("when: 2026-13-45\n")


@refused("is not valid YAML in line 2")
def no_yaml(folder: Path) -> None:
    (folder / "submission.yaml").write_text("{")


@refused("is not UTF-8; save the file as UTF-8")
def other_encoding(folder: Path) -> None:
    (folder / "submission.yaml").write_bytes(b"name: \xff\xfe")


@refused("is not a list of 'key: value'")
def list_of_runs(folder: Path) -> None:
    (folder / "submission.yaml").write_text("- run: a\n")


@refused("schema_version is 2, of a newer scisci; update with")
def newer_description(folder: Path) -> None:
    edit(folder, lambda content: content.update(schema_version=2))


@refused("name: it has the invisible character U+202E; leave that out")
def name_from_right_to_left(folder: Path) -> None:
    edit(folder, lambda content: content.update(name="Tiny\u202egnp.exe"))


@refused("links.code: ")
def script_as_link(folder: Path) -> None:
    edit(folder, lambda content: content.update(links={"code": "javascript:alert(1)"}))


@refused("submission.yaml: runs[0] (../../evil).run: string should match pattern")
def run_that_leaves_the_folder(folder: Path) -> None:
    first_run(folder, run="../../evil")


@refused("splits.../../../outside/canary: string should match pattern")
def split_that_leaves_the_folder(folder: Path) -> None:
    first_run(folder, splits={"../../../outside/canary": 4})


@refused("'CON' is no name for a file on every system")
def run_with_a_name_of_windows(folder: Path) -> None:
    first_run(folder, run="CON")


@refused("the run 'Small-0' is listed twice")
def run_listed_twice(folder: Path) -> None:
    edit(folder, lambda content: content["runs"].append(deepcopy(content["runs"][0]) | {"run": "Small-0"}))


@refused("unknown data set 'tiny-molecule'; did you mean 'tiny-molecules'")
def unknown_data_set(folder: Path) -> None:
    first_run(folder, dataset="tiny-molecule")


@refused("unknown split 'ood_1200K'; did you mean 'ood_600K'?")
def unknown_split(folder: Path) -> None:
    first_run(folder, splits={"ood_1200K": 4})


@refused("33 samples are listed, but 'test' has 32")
def more_samples_than_there_are(folder: Path) -> None:
    first_run(folder, splits={"test": 33, "ood_600K": 10})


@refused("reports on 'test': unknown metric 'forces_mae'; did you mean 'force_mae'")
def unknown_metric(folder: Path) -> None:
    first_run(folder, reported={"test": {"forces_mae": 1.0}})


@refused("runs[0] (small-0).params: input should be less than 9223372036854775808")
def number_too_large(folder: Path) -> None:
    first_run(folder, params=10**30)


@refused("reported.test.force_mae: input should be a finite number")
def reported_nan(folder: Path) -> None:
    first_run(folder, reported={"test": {"force_mae": float("nan")}})


@refused("has '\\u0435' (CYRILLIC SMALL LETTER IE); name the folder with a-z")
def slug_with_a_homoglyph(folder: Path) -> Path:
    return rename(folder, "tiny-mod\u0435l")


@refused("has '\\u202e' (RIGHT-TO-LEFT OVERRIDE)")
def slug_from_right_to_left(folder: Path) -> Path:
    return rename(folder, "tiny\u202eledom")


@refused("the slug 'Tiny Model' is not as slugs are")
def slug_with_a_space(folder: Path) -> Path:
    return rename(folder, "Tiny Model")


@refused("the slug 'con' is not as slugs are")
def slug_of_windows(folder: Path) -> Path:
    return rename(folder, "con")


@refused("has 200 characters, more than 64")
def long_slug(folder: Path) -> Path:
    return rename(folder, "x" * 200)
