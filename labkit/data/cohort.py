"""A cohort: a folder with one row, one cube and nine views a nodule, all that training needs.

    nodules.csv   the nodule table, one row a nodule
    views.npy     (N, 9, 76, 76) int16 HU: 64 pixels and room to shift by 6
    cubes.npy     (N, 64, 64, 64) int16 HU, axes (z, y, x)
    cohort.json   source, settings, versions, checksums, and whether the images are simulated

Row i of the table is row i of both arrays. The arrays are memory-mapped, never loaded whole.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
import scipy
from numpy.lib import format as npy
from numpy.typing import ArrayLike, NDArray

import labkit
from labkit.data._cohort_files import (
    COLUMNS,
    CUBE_SIZE,
    FILES,
    ROW_SHAPES,
    VIEW_SIZE,
    as_int16,
    check_size,
    check_sum,
    check_target,
    clear_after_kill,
    nodule_table,
    open_array,
    read_table,
    require_room,
    sha256,
    shorten,
)
from labkit.errors import InputError
from labkit.files import read_json, write_json

__all__ = ["COLUMNS", "CUBE_SIZE", "VIEW_SIZE", "Cohort", "CohortWriter"]

_FORMAT = 1
_KEYS = {"format", "name", "source", "simulated", "settings", "n", "versions", "files"}


@dataclass(frozen=True)
class Cohort:
    """Nodules with their images. Get one by `Cohort.open(folder)`.

    Args:
        folder: where it lies.
        nodules: the table of N nodules, with at least `COLUMNS`; index 0..N-1.
        views: (N, 9, 76, 76) int16 HU in the order of `imaging.views.PLANES`.
        cubes: (N, 64, 64, 64) int16 HU, axes (z, y, x).
        meta: what cohort.json says.

    Raises:
        InputError: table and arrays do not have the same number of rows.
    """

    folder: Path
    nodules: pd.DataFrame
    views: NDArray[np.int16]
    cubes: NDArray[np.int16]
    meta: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not len(self.nodules) == len(self.views) == len(self.cubes):
            raise InputError(
                f"{self.folder}: {len(self.nodules)} nodules, {len(self.views)} sets of views and "
                f"{len(self.cubes)} cubes do not belong together; build the cohort again"
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
        if not isinstance(meta, dict) or meta.get("format") != _FORMAT or not set(meta) >= _KEYS:
            raise InputError(
                f"{folder / 'cohort.json'}: not a cohort of format {_FORMAT}; build it again "
                "with this version of labkit"
            )
        for name in FILES:
            check_size(folder / name, meta)
        check_sum(folder / "nodules.csv", meta)
        return cls(
            folder,
            read_table(folder / "nodules.csv"),
            open_array(folder / "views.npy", meta["n"]),
            open_array(folder / "cubes.npy", meta["n"]),
            meta,
        )

    def __len__(self) -> int:
        return len(self.nodules)

    @property
    def name(self) -> str:
        """Short name for tables and figures."""
        return str(self.meta["name"])

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
        """Row numbers of the nodules that are malignant or benign, not uncertain."""
        return np.flatnonzero(self.nodules["label"].notna().to_numpy()).astype(np.int64)

    def verify(self) -> None:
        """Compare every file with the checksum taken when the cohort was made.

        Raises:
            InputError: a file that is not what was written.
        """
        for name in FILES:
            check_sum(self.folder / name, self.meta)


class CohortWriter:
    """Writes a cohort row by row; it appears in its place whole, or not at all.

    The rows go to a hidden folder beside the target, which is renamed when the `with` block ends
    well. An error or a kill leaves whatever stood at the target as it was. A cohort that stands
    there is replaced; anything else is not.

    Args:
        folder: where the cohort shall be.
        n: the most rows that will come. Fewer are fine, none is an error.
        source: where the images come from, in words for the reader.
        simulated: whether the images are simulated.
        settings: plain values (JSON) that say how it was made.
        name: short name for tables and figures; the folder's by default.

    Raises:
        InputError: the target is in use for something else, or nothing was written.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "tiny"
    >>> with CohortWriter(folder, 1, source="doctest", simulated=True) as writer:
    ...     writer.add({"nodule_id": "n1", "patient_id": "p1", "label": 1},
    ...                cube=np.zeros((64, 64, 64)), views=np.full((9, 76, 76), -999.6))
    >>> cohort = Cohort.open(folder)
    >>> len(cohort), cohort.labelled.tolist(), int(cohort.views.max())
    (1, [0], -1000)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        n: int,
        *,
        source: str,
        simulated: bool,
        settings: Mapping[str, Any] | None = None,
        name: str = "",
    ) -> None:
        self.folder = Path(folder)
        if n < 1:
            raise InputError(f"{self.folder}: a cohort needs at least one nodule, not {n}")
        check_target(self.folder)
        self._n = n
        self._meta = {
            "format": _FORMAT,
            "name": name or self.folder.resolve().name,
            "source": source,
            "simulated": bool(simulated),
            "settings": dict(settings or {}),
        }
        json.dumps(self._meta, allow_nan=False)  # fail now, not after hours of building
        self._rows: list[dict[str, Any]] = []
        self._seen: set[str] = set()
        self._arrays: dict[str, np.memmap] = {}
        self._partial = Path()

    def __enter__(self) -> CohortWriter:
        target = self.folder.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        require_room(target.parent, self._n)
        prefix = f".{target.name}.partial-{platform.node()}-"
        clear_after_kill(target, prefix)
        self._partial = target.parent / f"{prefix}{os.getpid()}"
        try:
            self._partial.mkdir()
        except FileExistsError:
            raise InputError(f"{self.folder}: this process is already writing it") from None
        for name, shape in ROW_SHAPES.items():
            self._arrays[name] = npy.open_memmap(
                self._partial / name, mode="w+", dtype=np.int16, shape=(self._n, *shape)
            )
        return self

    def add(self, nodule: Mapping[Any, Any], cube: ArrayLike, views: ArrayLike) -> None:
        """Append one nodule: a mapping with `nodule_id`, `patient_id` and more, and its images.

        Args:
            nodule: the row; a pandas Series will do.
            cube: (64, 64, 64) HU, axes (z, y, x).
            views: (9, 76, 76) HU. HU are rounded, and saturate at the limits of int16.

        Raises:
            InputError: more rows than promised, an id that is missing or was there before, a
                label that is not 0, 1 or missing, or images of a wrong shape or not finite.
        """
        row = {str(key): value for key, value in nodule.items()}
        who = f"{self.folder}: nodule {row.get('nodule_id', '(no nodule_id)')}"
        for key in ("nodule_id", "patient_id"):
            if pd.isna(row.get(key)) or not str(row[key]):
                raise InputError(f"{who}: has no {key}; every row needs one")
        if str(row["nodule_id"]) in self._seen:
            raise InputError(f"{who}: comes twice; nodule_id must be unique")
        label = row.get("label")
        if not pd.isna(label) and label not in (0, 1):
            raise InputError(f"{who}: label {label!r} must be 1, 0 or missing")
        if len(self._rows) == self._n:
            raise InputError(f"{who}: only {self._n} nodules were announced")
        stored = {
            name: as_int16(images, ROW_SHAPES[name], f"{who}: {name.removesuffix('.npy')}")
            for name, images in (("views.npy", views), ("cubes.npy", cube))
        }
        for name, images in stored.items():
            self._arrays[name][len(self._rows)] = images
        self._rows.append(row)
        self._seen.add(str(row["nodule_id"]))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            for array in self._arrays.values():
                array.flush()
            self._arrays.clear()  # Windows renames no folder while a file in it is mapped
            if error is None:
                self._finish()
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def _finish(self) -> None:
        n = len(self._rows)
        if n == 0:
            raise InputError(f"{self.folder}: no nodule was added; nothing was written")
        for name, shape in ROW_SHAPES.items():
            shorten(self._partial / name, n, shape)
        nodule_table(self._rows).to_csv(self._partial / "nodules.csv", index=False)
        files = {
            name: {
                "bytes": (self._partial / name).stat().st_size,
                "sha256": sha256(self._partial / name),
            }
            for name in FILES
        }
        versions = {
            "labkit": labkit.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "pandas": pd.__version__,
        }
        write_json(
            self._partial / "cohort.json",
            {**self._meta, "n": n, "versions": versions, "files": files},
        )
        check_target(self.folder)
        target = self.folder.resolve()
        replaced = self._partial.with_name(self._partial.name + "-replaced")
        if target.exists():
            target.rename(replaced)
        self._partial.rename(target)
        shutil.rmtree(replaced, ignore_errors=True)
