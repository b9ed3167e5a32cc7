"""Shared fixtures: where the real data is, if it is anywhere."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.discs import disc_cohort

# A busy machine makes a test slow, and not wrong.
settings.register_profile("labkit", deadline=None)
settings.load_profile("labkit")

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real CT data, or a skip that says how to provide it."""
    named = os.environ.get("LABKIT_REAL_DATA")
    folder = Path(named) if named else REPO.parent / "shared" / "real"
    if not folder.is_dir():
        pytest.skip("no real CT data here; set LABKIT_REAL_DATA to a folder that has it")
    return folder


@pytest.fixture(scope="session")
def real_dicom(real_data: Path) -> Path:
    """One real LIDC-IDRI scan as a folder of DICOM files."""
    return _there(real_data / "dicom")


@pytest.fixture(scope="session")
def real_cubes(real_data: Path) -> Path:
    """The .npz file of real nodule cubes."""
    return _there(real_data / "lidc_cubes.npz")


def _there(path: Path) -> Path:
    return path if path.exists() else pytest.skip(f"{path} is missing: no real CT to test on")


@pytest.fixture(scope="session")
def discs(tmp_path_factory):
    """A small cohort of bright and dark discs: easy to tell apart, quick to train on."""
    return disc_cohort(tmp_path_factory.mktemp("cohorts") / "discs")


@pytest.fixture
def results_folder(tmp_path, monkeypatch):
    """An empty folder in the place of the committed results."""
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setenv("LABKIT_RESULTS", str(folder))
    return folder
