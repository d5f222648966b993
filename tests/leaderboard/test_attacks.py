"""Submissions made to do harm or to cheat: each is refused or flagged in its own words, and touches nothing."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from scisci.contracts.errors import UserError
from scisci.leaderboard.checking import check
from scisci.leaderboard.reading import read_submission

from .tiny import edit, write_submission

FILE = Path("predictions/small-0/test.h5")
Attack = Callable[[Path], Any]
REFUSED: dict[str, tuple[Attack, str]] = {}
FLAGGED: dict[str, tuple[Attack, str]] = {}


def refused(sentence: str) -> Callable[[Attack], Attack]:
    """Register an attack on a valid submission's folder, with words of the sentence that it must be refused with."""

    def register(attack: Attack) -> Attack:
        REFUSED[attack.__name__] = (attack, sentence)
        return attack

    return register


def flagged(sentence: str) -> Callable[[Attack], Attack]:
    """The same for what is not refused but pointed out."""

    def register(attack: Attack) -> Attack:
        FLAGGED[attack.__name__] = (attack, sentence)
        return attack

    return register


class Payload:
    """A pickle that leaves a mark beside the submission when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.mark}",))


def canary(folder: Path) -> Path:
    """A file outside of the submission that nothing may touch."""
    return folder.parent.parent / "outside" / "canary.h5"


def change(folder: Path, name: str, alter: Callable[[np.ndarray], np.ndarray], path: Path = FILE, **how: Any) -> None:
    """Replace an array of a predictions file by what `alter` makes of it."""
    with h5py.File(folder / path, "r+") as file:
        values = alter(file[name][...])
        del file[name]
        file.create_dataset(name, data=values, **how)


def attribute(folder: Path, name: str, value: Any) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        file.attrs[name] = value


def first_run(folder: Path, **values: Any) -> None:
    edit(folder, lambda content: content["runs"][0].update(values))


def rename(folder: Path, name: str) -> Path:
    return folder.rename(folder.with_name(name))


# What is no HDF5 file, or none of one's own.


@refused("small-0/test.h5: is not HDF5, but a pickle; write predictions with")
def pickle_in_place_of_hdf5(folder: Path) -> None:
    (folder / FILE).write_bytes(pickle.dumps(Payload(canary(folder).with_name("mark"))))


@refused("is not HDF5, but a zip archive")
def torch_archive(folder: Path) -> None:
    with zipfile.ZipFile(folder / FILE, "w") as archive:
        archive.writestr("../../evil.py", "import os")


@refused("is not HDF5, but a NumPy array")
def object_array_of_numpy(folder: Path) -> None:
    with open(folder / FILE, "wb") as file:
        np.save(file, np.array([Payload(canary(folder).with_name("mark"))]), allow_pickle=True)


@refused("is not HDF5; write predictions with")
def empty_file(folder: Path) -> None:
    (folder / FILE).write_bytes(b"")


@refused("is damaged, or no HDF5 file that can be read")
def truncated(folder: Path) -> None:
    os.truncate(folder / FILE, 2000)


@refused("small-0/test.h5: is missing; add the file, or take the split off")
def missing_file(folder: Path) -> None:
    (folder / FILE).unlink()


@refused("is reached by the symbolic link 'test.h5'")
def symlinked_file(folder: Path) -> None:
    (folder / FILE).unlink()
    (folder / FILE).symlink_to(canary(folder))


@refused("small-0/ood_600K.h5: is reached by the symbolic link 'small-0'")
def symlinked_folder(folder: Path) -> None:
    shutil.rmtree((folder / FILE).parent)
    (folder / FILE).parent.symlink_to(canary(folder).parent)


@refused("submission.yaml: the file is reached by the symbolic link 'submission.yaml'")
def symlinked_description(folder: Path) -> None:
    (folder / "submission.yaml").unlink()
    (folder / "submission.yaml").symlink_to(canary(folder))


@refused("predictions/more: is a symbolic link and does not belong to a submission")
def stray_symlink(folder: Path) -> None:
    (folder / "predictions" / "more").symlink_to("/")


@refused("small-0/test.h5: is not a regular file")
def fifo(folder: Path) -> None:
    (folder / FILE).unlink()
    os.mkfifo(folder / FILE)


@refused("small-0/test.h5: is not a regular file")
def folder_in_place_of_file(folder: Path) -> None:
    (folder / FILE).unlink()
    (folder / FILE).mkdir()


@refused("scores.parquet: does not belong to a submission (scores are always recomputed)")
def forged_scores(folder: Path) -> None:
    (folder / "scores.parquet").write_bytes(b"PAR1")


@refused("predictions/small-0/run.py: does not belong to a submission; remove it")
def code(folder: Path) -> None:
    (folder / FILE).with_name("run.py").write_text("raise SystemExit")


@refused("has 300.0 MiB, more than 256 MiB")
def huge_file(folder: Path) -> None:
    os.truncate(folder / FILE, 300 * 2**20)


@refused("MiB, of which its arrays use 0.")
def much_beside_its_arrays(folder: Path) -> None:
    with open(folder / FILE, "ab") as file:
        file.write(np.random.default_rng(0).bytes(2**22))


# What HDF5 can hold and a predictions file may not.


@refused("holds 'forces', an external link to another file")
def external_link(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["forces"]
        file["forces"] = h5py.ExternalLink(str(canary(folder)), "forces")


@refused("holds 'forces', a soft link")
def soft_link(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["forces"]
        file["forces"] = h5py.SoftLink("/energy")


@refused("has more than one name for the array 'ids'")
def hard_link_to_the_same_array(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["offsets"]
        file["offsets"] = file["ids"]


@refused("keeps the array 'energy' in another file (external storage)")
def external_storage(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["energy"]
        file.create_dataset("energy", (12,), "f8", external=[(str(canary(folder)), 0, 96)])


@refused("has the virtual array 'energy', which other files would fill")
def virtual_array(folder: Path) -> None:
    layout = h5py.VirtualLayout((12,), "f8")
    layout[:] = h5py.VirtualSource(str(canary(folder)), "energy", (12,))
    with h5py.File(folder / FILE, "r+") as file:
        del file["energy"]
        file.create_virtual_dataset("energy", layout)


@refused("keeps the array 'energy' in its header")
def compact_array(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["energy"]
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_layout(h5py.h5d.COMPACT)
        h5py.h5d.create(file.id, b"energy", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((12,)), how)


@refused("holds 'forces', which is not an array")
def group_in_place_of_array(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["forces"]
        file.create_group("forces")


@refused("holds 'force': unknown array 'force'; did you mean 'forces'?")
def unknown_array(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        file["force"] = np.zeros(3)


@refused("holds more than 26 objects")
def thousands_of_arrays(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        for k in range(3000):
            file.create_group(f"array {k}")


@refused("has 'omega_m', which nothing is scored by beside 'energy'; leave it out")
def array_of_another_domain(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        file["omega_m"] = np.zeros(12)


@refused("has no 'forces', which predictions on atoms data need")
def no_forces(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["forces"]


@refused("has no array 'ids'")
def no_ids(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["ids"]


def of_type(kind: Any, words: str) -> None:
    """An attack by an array of a type that may hold more than numbers."""

    def attack(folder: Path) -> None:
        with h5py.File(folder / FILE, "r+") as file:
            del file["energy"]
            file.create_dataset("energy", (12,), kind)

    attack.__name__ = f"energy_of_{words.split()[0]}"
    refused(f"has the array 'energy' of type {words}; write float32 or float64")(attack)


of_type(h5py.vlen_dtype(np.dtype("f8")), "variable length (object)")
of_type(h5py.string_dtype(), "string")
of_type(h5py.ref_dtype, "reference")
of_type(np.dtype("V8"), "opaque")
of_type(np.dtype("c16"), "compound (such as complex)")
of_type(h5py.enum_dtype({"a": 1}), "enumeration")
of_type(np.dtype("i8"), "integer")
of_type(np.dtype(">f8"), "float of another kind")


@refused("has attributes on the array 'energy'")
def attribute_on_an_array(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        file["energy"].attrs["note"] = "x" * 60_000


@refused("has the attribute 'pickle': unknown attribute")
def unknown_attribute(folder: Path) -> None:
    attribute(folder, "pickle", "gASV")


@refused("has a text of more than 4096 characters in the attribute 'calculator'")
def long_attribute(folder: Path) -> None:
    attribute(folder, "calculator", "x" * 10_000)


@refused("of which its arrays use 0.")
def huge_attribute(folder: Path) -> None:
    attribute(folder, "calculator", "x" * 40 * 2**20)


@refused("has several values in the attribute 'split'")
def attribute_of_many_values(folder: Path) -> None:
    attribute(folder, "split", ["test", "test"])


@refused("has the attribute 'split' of type string; write a string of variable length")
def attribute_of_fixed_length(folder: Path) -> None:
    attribute(folder, "split", np.bytes_("test"))


@refused("gives '0' as its heaviest; write a number")
def no_heaviest_points(folder: Path) -> None:
    attribute(folder, "heaviest", "0")


@refused("behind the filter 32000")
def unknown_filter(folder: Path) -> None:
    change(folder, "energy", lambda values: values, compression="lzf", chunks=(12,))


@refused("behind deflate and deflate; use shuffle and deflate (gzip) once each")
def deflated_twice(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["energy"]
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_chunk((12,))
        for _ in range(2):
            how.set_filter(h5py.h5z.FILTER_DEFLATE, h5py.h5z.FLAG_MANDATORY, (9,))
        node = h5py.h5d.create(file.id, b"energy", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((12,)), how)
        h5py.Dataset(node)[...] = 0.0


# What grows when it is read.


@refused("says that 'forces' has 32,768 chunks but holds 0 (the rest would be made up on reading)")
def huge_shape_of_fill_values(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["forces"]
        file.create_dataset("forces", (2**31, 3), "f4", chunks=(2**16, 3), fillvalue=1.0)


@refused("in 715,827,883 chunks of 0.0 MiB; write up to 65,536 of up to 16 MiB")
def countless_chunks(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["forces"]
        file.create_dataset("forces", (2**31, 3), "f4", chunks=(3, 3))


@refused("in 1 chunks of 3,072.0 MiB")
def huge_chunk(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["forces"]
        file.create_dataset("forces", (240, 3), "f4", chunks=(2**28, 3), maxshape=(None, 3), compression=9)


@refused("says that 'forces' has 12,000,000,000,000 bytes, which it does not hold")
def huge_contiguous_array(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["forces"]
        file.create_dataset("forces", (10**12, 3), "f4")


@refused("has a chunk of 'energy' that inflates to more than its 96 bytes (a decompression bomb)")
def chunk_that_inflates(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["energy"]
        node = file.create_dataset("energy", (12,), "f8", chunks=(12,), compression=9)
        node.id.write_direct_chunk((0,), deflated_zeros(64))


def deflated_zeros(mebibytes: int) -> bytes:
    deflating = zlib.compressobj(9)
    return b"".join([deflating.compress(bytes(2**20)) for _ in range(mebibytes)]) + deflating.flush()


@refused("MiB when read; write it uncompressed or predict less")
def highly_compressible(folder: Path) -> None:
    change(folder, "forces", lambda _: np.zeros((2**22, 3), "f4"), chunks=(2**16, 3), compression=9)


@refused("has 12,000,000 ids; predict up to 8,388,608 samples")
def countless_ids(folder: Path) -> None:
    change(folder, "ids", lambda ids: np.tile(ids, 10**6), chunks=(2**18,), compression=9)


@refused("has a chunk of 'energy' that is not as the array says")
def chunk_that_skips_its_filter(folder: Path) -> None:
    with h5py.File(folder / FILE, "r+") as file:
        del file["energy"]
        node = file.create_dataset("energy", (12,), "f8", chunks=(12,), compression=9)
        node.id.write_direct_chunk((0,), b"short", filter_mask=1)


@refused("keeps different values in the same bytes")
def chunks_that_share_their_bytes(folder: Path) -> None:
    change(folder, "forces", lambda values: values, chunks=(64, 3))
    found: list[int] = []
    with h5py.File(folder / FILE) as file:
        file["forces"].id.chunk_iter(lambda chunk: found.append(chunk.byte_offset))
    content = (folder / FILE).read_bytes()
    first, second = (place.to_bytes(8, "little") for place in found[:2])
    assert content.count(second) == 1
    (folder / FILE).write_bytes(content.replace(second, first))


# Predictions that are not of what they say.


@refused("is for data with the fingerprint '000000")
def fingerprint_of_other_data_in_the_file(folder: Path) -> None:
    attribute(folder, "fingerprint", "0" * 64)


@refused("run small-0: its fingerprint is not that of 'tiny-molecules'")
def fingerprint_of_other_data(folder: Path) -> None:
    first_run(folder, fingerprint="0" * 64)


@refused("says it is for the split 'train'")
def predictions_for_another_split(folder: Path) -> None:
    attribute(folder, "split", "train")


@refused("is of schema_version 2, of a newer scisci; update with")
def file_of_a_newer_version(folder: Path) -> None:
    attribute(folder, "schema_version", 2)


@refused("has the format 'scisci-store'")
def another_format(folder: Path) -> None:
    attribute(folder, "format", "scisci-store")


@refused("has nan in row 7 of 'forces'; every value must be finite")
def not_a_number(folder: Path) -> None:
    change(folder, "forces", lambda values: np.where(np.arange(len(values))[:, None] == 7, np.nan, values))


@refused("has -inf in row 3 of 'energy'")
def infinite(folder: Path) -> None:
    change(folder, "energy", lambda values: np.where(np.arange(12) == 3, -np.inf, values))


@refused("has 1e+300 in row 0 of 'energy'")
def overflowing(folder: Path) -> None:
    change(folder, "energy", lambda values: np.full(12, 1e300))


@refused("lacks 1 samples (such as")
def missing_id(folder: Path) -> None:
    change(folder, "ids", lambda ids: ids[:-1])


@refused("that are not among the first 12 of 'test'; leave these out")
def extra_id(folder: Path) -> None:
    change(folder, "ids", lambda ids: np.append(ids, 0))


@refused("more than once; predict each once")
def duplicate_id(folder: Path) -> None:
    change(folder, "ids", lambda ids: np.append(ids[:-1], ids[0]))


@refused("has the samples of 'test' in another order")
def shuffled_ids(folder: Path) -> None:
    change(folder, "ids", lambda ids: ids[::-1])


@refused("has 120 rows for 12 samples of 'test'")
def ids_tenfold(folder: Path) -> None:
    change(folder, "ids", lambda ids: np.tile(ids, 10))


@refused("offsets that are not those of its samples' points, from row 0 on")
def shifted_offsets(folder: Path) -> None:
    change(folder, "offsets", lambda offsets: offsets + np.where((offsets > 0) & (offsets < offsets[-1]), 1, 0))


@refused("offsets for 12 rows; there is one more than rows")
def few_offsets(folder: Path) -> None:
    change(folder, "offsets", lambda offsets: offsets[:-1])


@refused("has 11 rows of 'energy', not 12")
def few_energies(folder: Path) -> None:
    change(folder, "energy", lambda values: values[:-1])


@refused("write rows of shape [3]")
def forces_in_a_plane(folder: Path) -> None:
    change(folder, "forces", lambda values: values[:, :2])


@refused("has the array 'forces' of another rank than 2")
def flat_forces(folder: Path) -> None:
    change(folder, "forces", lambda values: values.ravel())


# Descriptions that do more than describe.


@refused("submission.yaml: family: ")
def strange_family(folder: Path) -> None:
    edit(folder, lambda content: content.update(family="best"))


@refused("submission.yaml: licens: unknown key 'licens'; did you mean 'licence'")
def unknown_key(folder: Path) -> None:
    edit(folder, lambda content: content.update(licens="MIT"))


@refused("runs[0] (small-0).sede: unknown key 'sede'; did you mean 'seconds' or 'seed'")
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


# Names of the folder itself.


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


# What is not wrong, but not right either.


@flagged("'energy' fits its labels better when multiplied by 27.21; it looks like Hartree instead of eV")
def energy_in_hartree(folder: Path) -> None:
    change(folder, "energy", lambda values: np.round(values / 27.2114, 6))


@flagged("it looks like a thousandth of the unit, such as meV or m/s")
def forces_thousandfold(folder: Path) -> None:
    change(folder, "forces", lambda values: values * 1000)


@flagged("it looks like kcal/mol instead of eV")
def forces_in_kcal(folder: Path) -> None:
    change(folder, "forces", lambda values: values * 23.0605)


@flagged("it looks like Hartree/bohr instead of eV/Å")
def forces_in_atomic_units(folder: Path) -> None:
    change(folder, "forces", lambda values: values / 51.4221, Path("predictions/large-0/test.h5"))


@flagged("it looks like eV/bohr instead of eV/Å")
def forces_per_bohr(folder: Path) -> None:
    change(folder, "forces", lambda values: values * 0.529177, Path("predictions/large-0/test.h5"))


@flagged("it looks like the other sign, as of a gradient")
def gradients(folder: Path) -> None:
    change(folder, "forces", lambda values: -values)


@flagged("it looks like units or a scale of its own")
def forces_of_a_scale_of_their_own(folder: Path) -> None:
    change(folder, "forces", lambda values: 7 * values)


def labels(folder: Path) -> np.ndarray:
    from scisci.data.library import open_dataset

    store = open_dataset("tiny-molecules")
    return store.take(store.split("test").indices(12)).items["forces"]


@flagged("100% of the values of 'forces' equal their labels to rounding; were these copied?")
def copied_labels(folder: Path) -> None:
    change(folder, "forces", lambda values: labels(folder))


@flagged("of the values of 'forces' equal their labels to rounding")
def some_copied_labels(folder: Path) -> None:
    change(folder, "forces", lambda values: np.concatenate([labels(folder)[:20], values[20:]]))


@flagged("'forces' differs from its labels by 3e-05 of their size; were these copied?")
def copied_labels_with_noise(folder: Path) -> None:
    true = labels(folder)
    noise = 3e-5 * np.sqrt(np.square(true).mean()) * np.random.default_rng(0).normal(size=true.shape)
    change(folder, "forces", lambda values: (true.astype("f8") + noise).astype("f8"))


@flagged("small-0/test: reports force_mae 1, but its predictions give 2")
def forged_reports(folder: Path) -> None:
    first_run(folder, reported={"test": {"force_mae": 1.0}})


@flagged("training_data: contamination of the test splits is known, as its authors say")
def contamination(folder: Path) -> None:
    edit(folder, lambda content: content["training_data"].update(contamination="known"))


def beside(folder: Path, alter: Callable[[np.ndarray], np.ndarray]) -> None:
    """Another submission, of which one run has the same forces but for what `alter` does."""
    other = write_submission(folder.with_name("another"), {"theirs-0": 0.2}, seed=9)
    for split in ("test", "ood_600K"):
        with h5py.File(folder / f"predictions/small-0/{split}.h5") as file:
            forces = file["forces"][...]
        change(other, "forces", lambda _, forces=forces: alter(forces), Path(f"predictions/theirs-0/{split}.h5"))


@flagged("those of another/theirs-0; is it one model?")
def predictions_of_another_submission(folder: Path) -> None:
    beside(folder, lambda forces: forces)


@flagged("those of another/theirs-0; is it one model?")
def predictions_of_another_submission_with_noise_and_scale(folder: Path) -> None:
    beside(folder, lambda forces: 1.01 * forces + 3e-3 * np.random.default_rng(1).normal(size=forces.shape))


@flagged("large-0/test: errors correlate at 1.00000 with those of small-0")
def one_run_twice(folder: Path) -> None:
    shutil.copy(folder / FILE, folder / "predictions" / "large-0" / "test.h5")


def snapshot(root: Path, but: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that lies in a folder apart from the submissions: times, kinds and content."""
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(root.rglob("*"))
        if but not in (path, *path.parents)
    }


@pytest.fixture
def attacked(submission: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A valid submission to be attacked; afterwards, nothing outside of it may have changed."""
    shutil.copytree(submission / "predictions" / "small-0", canary(submission).parent)
    (canary(submission).parent / "test.h5").rename(canary(submission))
    monkeypatch.chdir(canary(submission).parent)
    before = snapshot(tmp_path, submission.parent)
    yield submission
    assert snapshot(tmp_path, submission.parent) == before


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_submission_is_refused_in_its_own_words(name: str, attacked: Path) -> None:
    attack, sentence = REFUSED[name]
    folder = attack(attacked) or attacked
    found = check(folder)
    assert [line for line in map(str, found.refused) if sentence in line], "\n".join(found.lines())
    with pytest.raises(UserError, match="leaderboard check"):
        found.require()


@pytest.mark.parametrize("name", FLAGGED)
def test_a_suspicious_submission_is_flagged_in_its_own_words(name: str, attacked: Path) -> None:
    attack, sentence = FLAGGED[name]
    attack(attacked)
    found = check(attacked)
    assert found.refused == ()
    assert [line for line in map(str, found.flagged) if sentence in line], "\n".join(found.lines())
    assert all(line.isprintable() for line in found.lines())


def test_every_attack_has_words_of_its_own() -> None:
    assert len(REFUSED) + len(FLAGGED) >= 60
    shared = {"is not a regular file", "is it one model?"}
    sentences = [words for _, words in (*REFUSED.values(), *FLAGGED.values()) if not any(s in words for s in shared)]
    assert len(set(sentences)) == len(sentences)


def test_a_file_in_the_working_folder_is_no_data_set(attacked: Path) -> None:
    first_run(attacked, dataset="canary.h5")
    assert any("unknown data set 'canary.h5'" in str(finding) for finding in check(attacked).refused)


def test_all_problems_are_said_at_once(attacked: Path) -> None:
    attacks = ("symlinked_file", "unknown_key", "forged_scores", "run_with_a_name_of_windows")
    for name in attacks:
        REFUSED[name][0](attacked)
    change(attacked, "energy", lambda values: values * np.nan, Path("predictions/large-0/test.h5"))
    change(attacked, "ids", lambda ids: ids[::-1], Path("predictions/large-0/test.h5"))
    lines = "\n".join(check(attacked).lines())
    for name in (*attacks[1:], "shuffled_ids"):
        assert REFUSED[name][1] in lines
    assert "large-0/test.h5: has nan in row 0 of 'energy'" in lines


def test_a_description_is_read_or_refused_in_one_sentence(attacked: Path) -> None:
    assert [run.run for run in read_submission(attacked).runs] == ["small-0", "large-0"]
    unknown_key(attacked)
    no_cost(attacked)
    with pytest.raises(UserError, match=r"hardware.device_hours: is missing; give it \(and 1 more\)"):
        read_submission(attacked)


def test_a_description_that_is_dumped_is_the_same(attacked: Path) -> None:
    again = yaml.safe_dump(read_submission(attacked).model_dump(mode="json"))
    before = read_submission(attacked)
    (attacked / "submission.yaml").write_text(again)
    assert read_submission(attacked) == before
