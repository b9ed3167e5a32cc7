"""Writing a cohort row by row; see `labkit.data.cohort`."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
from numpy.lib import format as npy
from numpy.typing import ArrayLike

from labkit.data._cohort_files import (
    FILES,
    ROW_SHAPES,
    as_int16,
    check_target,
    clear_after_kill,
    move_into_place,
    nodule_table,
    record_of,
    require_room,
    shorten,
    versions,
)
from labkit.errors import InputError
from labkit.files import write_json

FORMAT = 1


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
    >>> from labkit.data.cohort import Cohort
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
            "format": FORMAT,
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
        files = {name: record_of(self._partial / name) for name in FILES}
        write_json(
            self._partial / "cohort.json",
            {**self._meta, "n": n, "versions": versions(), "files": files},
        )
        check_target(self.folder)
        aside = self._partial.with_name(self._partial.name + "-replaced")
        move_into_place(self._partial, self.folder.resolve(), aside)
