"""The formats that `scisci data import` reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from scisci.contracts.errors import UserError, unknown_name
from scisci.sources.frames import BadFrame, Frame


class Reader(Protocol):
    """Streams a file (or folder) of one format.

    `keys` maps labels, such as `energy`, to the names they have in the file. A file that cannot be read, or lacks a
    label, is a `UserError` that names file, frame and the keys found; a single frame that cannot be used is yielded as
    a `BadFrame`, so that whoever reads decides. Nothing is dropped, nothing is unpickled. A reader that knows the
    number of frames beforehand returns them as `Counted`.
    """

    def __call__(self, path: Path, keys: Mapping[str, str]) -> Iterable[Frame | BadFrame]: ...


@dataclass(frozen=True)
class Part:
    """Frames of one published split, or of none, and the file they come from."""

    split: str | None
    path: Path
    frames: Iterable[Frame | BadFrame]


@dataclass(frozen=True)
class Source:
    """One format: the domain of its samples, its reader as "module:function", and a line for `--help`."""

    domain: str
    target: str
    text: str
    folder: bool = False
    """Can be a folder instead of a file."""
    published: Mapping[str, int] = field(default_factory=dict)
    """Samples of each published split, which are files of their own: `<name>_train.<suffix>`, ..."""
    within: tuple[str, ...] = ()
    """Published splits that the reader finds in a file, or in folders of these names, by the label `split`."""

    def files(self, path: Path) -> list[tuple[str | None, Path]]:
        """The files at `path`, each with the published split that it is; a folder has one for each of them."""
        if not (self.published and path.is_dir()):
            return [(None, path)]
        found = {split: sorted(path.glob(f"*_{split}.*")) for split in self.published}
        for split, files in found.items():
            if len(files) != 1:
                listed = ", ".join(file.name for file in files) or "none"
                raise UserError(
                    f"{path} has to have one file called *_{split}.*, for the split {split!r}, and has {listed}; give a"
                    f" folder of {len(found)} files, *_{', *_'.join(found)}, or a file alone"
                )
        return [(split, files[0]) for split, files in found.items()]

    def parts(self, path: Path, keys: Mapping[str, str]) -> list[Part]:
        """What is to be read at `path`: each published split, or all of it."""
        read = self.reader()
        whole = path.is_file() if not self.folder else all((path / split).is_dir() for split in self.within)
        if self.within and whole and "split" not in keys:
            return [Part(split, path, read(path, {**keys, "split": split})) for split in self.within]
        return [Part(split, file, read(file, keys)) for split, file in self.files(path)]

    def reader(self) -> Reader:
        """The function that reads the format."""
        module, name = self.target.split(":")
        return cast(Reader, getattr(import_module(module), name))


SOURCES = {
    "extxyz": Source("atoms", "scisci.sources.extxyz:read_extxyz", "extended XYZ (MACE's REF_ keys, or plain ones)"),
    "ase-db": Source("atoms", "scisci.sources.ase_db:read_ase_db", "ASE database (.db or .json)"),
    "ase-traj": Source("atoms", "scisci.sources.trajectory:read_trajectory", "ASE trajectory (.traj)"),
    "rmd17": Source("atoms", "scisci.sources.rmd17:read_rmd17", "rMD17 or MD17 (.npz, kcal/mol)"),
    "spice": Source("atoms", "scisci.sources.spice:read_spice", "SPICE (.hdf5, bohr and Hartree)"),
    "ani1x": Source("atoms", "scisci.sources.ani1x:read_ani1x", "ANI-1x and ANI-1ccx (.h5, Hartree)"),
    "mptrj": Source("atoms", "scisci.sources.mptrj:read_mptrj", "MPtrj (.json, may be gzipped)"),
    "aselmdb": Source("atoms", "scisci.sources.aselmdb:read_aselmdb", "fairchem's .aselmdb, or a folder of them", True),
    "quijote": Source(
        "cloud",
        "scisci.sources.cosmobench:read_quijote",
        "CosmoBench's Quijote halos (.hdf5), or a folder with the three splits",
        published={"train": 19651, "val": 6551, "test": 6550},
    ),
    "camels-sam": Source(
        "cloud",
        "scisci.sources.cosmobench:read_camels_sam",
        "CosmoBench's CAMELS-SAM galaxies (.hdf5), or a folder with the three splits",
        published={"train": 600, "val": 204, "test": 196},
    ),
    "camels-tng": Source(
        "cloud",
        "scisci.sources.cosmobench:read_camels_tng",
        "CosmoBench's CAMELS-TNG galaxies (.hdf5), or a folder with the three splits",
        published={"train": 600, "val": 200, "test": 200},
    ),
    "cs-trees": Source(
        "tree",
        "scisci.sources.cs_trees:read_cs_trees",
        "CosmoBench's merger trees (.pt), or a folder with the three splits",
        published={"train": 14997, "val": 5099, "test": 4900},
    ),
    "cs-trees-infilling": Source(
        "tree",
        "scisci.sources.cs_trees:read_cs_trees",
        "CosmoBench's merger trees for in-filling (.pt), or a folder with the three splits",
        published={"train": 120, "val": 40, "test": 40},
    ),
    "merger-trees": Source(
        "tree", "scisci.sources.merger_trees:read_trees", "merger trees as CosmoBench made them (.hdf5)"
    ),
    "catalogue": Source(
        "cloud", "scisci.sources.catalogue:read_catalogue", "halos or galaxies (.csv, .parquet), or a folder", True
    ),
    "gluonts": Source(
        "series",
        "scisci.sources.gluonts:read_gluonts",
        "GluonTS (.json, .jsonl, .arrow, .parquet), or a folder, which may have train and test",
        folder=True,
        within=("train", "test"),
    ),
    "lotsa": Source("series", "scisci.sources.lotsa:read_lotsa", "a folder saved by Hugging Face's datasets", True),
    "monash": Source("series", "scisci.sources.monash:read_monash", "the Monash archive (.tsf)"),
    "ett": Source(
        "series",
        "scisci.sources.ett:read_ett",
        "ETT (.csv), with the three splits of its official borders",
        within=("train", "val", "test"),
    ),
    "series-long": Source(
        "series", "scisci.sources.series_tables:read_long", "series in a table (.csv, .parquet), a row per time of each"
    ),
    "series-wide": Source(
        "series", "scisci.sources.series_tables:read_wide", "series in a table (.csv, .parquet), a column each"
    ),
    "oc20": Source("atoms", "scisci.sources.aselmdb:read_aselmdb", "OC20 as .aselmdb; pickled LMDB is refused", True),
}


def source(name: str) -> Source:
    """The format called `name`; an unknown one is a `UserError` with the closest names."""
    if name not in SOURCES:
        raise unknown_name("format", name, SOURCES)
    return SOURCES[name]
