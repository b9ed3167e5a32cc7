"""A cohort: a folder with one row and nine views a nodule or candidate, all that training needs.

    nodules.csv   the table, one row a nodule
    views.npy     (N, 9, 76, 76) int16 HU: 64 pixels and room to shift by 6
    cubes.npy     (N, 64, 64, 64) int16 HU, axes (z, y, x)
    cohort.json   source, settings, versions, checksums, and whether the images are simulated

Row i of the table is row i of both arrays. The arrays are memory-mapped, never loaded whole.

A cohort of LUNA-16's candidates (`labkit build luna16`) has half a million rows. Its views are
uint8 v for HU = -1000 + 1400 v / 255, it has no cubes, and beside the table lie LUNA-16's own
(candidates.csv, annotations.csv, annotations_excluded.csv, seriesuids.csv).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from labkit.data._cohort_files import (
    COLUMNS,
    CUBE_SIZE,
    FORMATS,
    VIEW_SIZE,
    check_size,
    check_sum,
    check_target,
    names_of,
    open_array,
    read_table,
)
from labkit.data._cohort_writer import CohortWriter
from labkit.errors import InputError
from labkit.files import read_json

__all__ = ["COLUMNS", "CUBE_SIZE", "VIEW_SIZE", "Cohort", "CohortWriter", "check_target"]

_KEYS = {"format", "name", "source", "simulated", "settings", "n", "versions", "files"}
Task = Literal["malignancy", "luna16"]


@dataclass(frozen=True)
class Cohort:
    """Nodules with their images. Get one by `Cohort.open(folder)`.

    Args:
        folder: where it lies.
        nodules: the table of N nodules or candidates, with at least `COLUMNS`; index 0..N-1.
        views: (N, 9, 76, 76) in the order of `imaging.views.PLANES`: int16 HU, or uint8 v for
            HU = -1000 + 1400 v / 255.
        cubes: (N, 64, 64, 64) int16 HU, axes (z, y, x); None where none were kept.
        meta: what cohort.json says.

    Raises:
        InputError: table and arrays do not have the same number of rows.
    """

    folder: Path
    nodules: pd.DataFrame
    views: NDArray[Any]
    cubes: NDArray[np.int16] | None
    meta: Mapping[str, Any]

    def __post_init__(self) -> None:
        cubes = len(self.nodules) if self.cubes is None else len(self.cubes)
        if not len(self.nodules) == len(self.views) == cubes:
            raise InputError(
                f"{self.folder}: {len(self.nodules)} nodules, {len(self.views)} sets of views and "
                f"{cubes} cubes do not belong together; build the cohort again"
            )

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Cohort:
        """Open a cohort: read the table, memory-map the arrays.

        File sizes are checked, and the table's checksum, since rows that were sorted or edited
        would no longer stand beside their images. `verify` checks every byte.

        Raises:
            InputError: no cohort there, or a part that is missing, truncated or changed.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; make a cohort with `labkit build`")
        meta = read_json(folder / "cohort.json", "a cohort")
        known = isinstance(meta, dict) and meta.get("format") in FORMATS and set(meta) >= _KEYS
        if not known:
            formats = " or ".join(map(str, FORMATS))
            raise InputError(
                f"{folder / 'cohort.json'}: not a cohort of format {formats}; build it again "
                "with this version of labkit"
            )
        names = names_of(meta)
        for name in names:
            check_size(folder / name, meta)
        check_sum(folder / "nodules.csv", meta)
        has_cubes = "cubes.npy" in names
        return cls(
            folder,
            read_table(folder / "nodules.csv"),
            open_array(folder / "views.npy", meta["n"], meta.get("views", "int16")),
            open_array(folder / "cubes.npy", meta["n"]) if has_cubes else None,
            meta,
        )

    def __len__(self) -> int:
        return len(self.nodules)

    @property
    def name(self) -> str:
        """Short name for tables and figures."""
        return str(self.meta["name"])

    @property
    def task(self) -> Task:
        """What a label of 1 means: "malignancy", or "luna16": a nodule and not something else."""
        return "luna16" if self.meta.get("task") == "luna16" else "malignancy"

    @property
    def simulated(self) -> bool:
        """Whether the images are simulated; what is shown from them has to say so."""
        return bool(self.meta["simulated"])

    @property
    def identity(self) -> dict[str, Any]:
        """What it is, for the record of a run or a result: name, kind, counts, checksums."""
        return {
            "name": self.name,
            "simulated": self.simulated,
            "nodules": len(self),
            "labelled": len(self.labelled),
            "sha256": {name: f["sha256"] for name, f in self.meta["files"].items()},
        }

    @property
    def labelled(self) -> NDArray[np.int64]:
        """Row numbers of the nodules that have a label; those of uncertain malignancy have none."""
        return np.flatnonzero(self.nodules["label"].notna().to_numpy()).astype(np.int64)

    def require_cubes(self) -> NDArray[np.int16]:
        """The cubes, for what cannot do without.

        Raises:
            InputError: the cohort has none.
        """
        if self.cubes is None:
            raise InputError(
                f"{self.folder}: a cohort of views alone, without cubes, which this needs; take "
                "one that `labkit build` made of lidc, cubes or simulated"
            )
        return self.cubes

    def verify(self, progress: bool = True) -> None:
        """Compare every file with the checksum taken when the cohort was made.

        Args:
            progress: show a bar; every byte is read, which takes a minute for 28 GB.

        Raises:
            InputError: a file that is not what was written.
        """
        names = names_of(self.meta)
        total = sum((self.folder / name).stat().st_size for name in names)
        with tqdm(
            total=total, desc="verifying", unit="B", unit_scale=True, leave=False,
            disable=not progress,
        ) as bar:  # fmt: skip
            for name in names:
                check_sum(self.folder / name, self.meta, bar.update)
