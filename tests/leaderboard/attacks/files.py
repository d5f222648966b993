"""What is no HDF5 file, or none of one's own."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .registry import FILE, canary, refused


class Payload:
    """A pickle that leaves a mark beside the submission when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.mark}",))


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
