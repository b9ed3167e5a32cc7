"""How well lungs are segmented: against the truth of simulated scans, and on a real scan if given.

    python -m benchmarks.lungs --scans 12 --out results/lungs.json [--dicom FOLDER]

Scans are drawn at random from LIDC-IDRI's, each simulated whole. Dice is against the scene's own
lungs; `kept` is the least share of any consensus nodule (3 readers or more, half of them agreeing)
that the dilated mask holds. Of a real scan, volumes and the nodules' outlined pixels are measured.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.common import command, peak_gb, timed
from labkit.annotations import lidc
from labkit.imaging import lungs
from labkit.imaging.dicom import read_series
from labkit.simulate.scanner import truth, whole_scan
from labkit.simulate.scene import SCENE_VERSION, scene_for_series


def simulated(series_uid: str, seed: int) -> dict[str, Any]:
    """Measure Dice, kept share and seconds of one simulated scan."""
    scene = scene_for_series(series_uid, seed)
    volume, true = whole_scan(scene), truth(scene)
    _, seconds, mask = timed(lambda: lungs.segment(volume))
    kept = lungs.dilate(mask, volume)
    rated = set(lidc.nodules(max_slice_thickness_mm=None)["nodule_id"])
    numbers = [n for n, x in enumerate(scene.nodules, 1) if x.nodule_id in rated]
    shares = [float(kept[true.nodules == n].mean()) for n in numbers if (true.nodules == n).any()]
    return {
        "patient_id": scene.scan.patient_id,
        "slices": scene.scan.slices,
        "litres": round(float(mask.sum() * np.prod(volume.spacing_xyz_mm) / 1e6), 2),
        "dice": round(2.0 * (mask & true.lung).sum() / (mask.sum() + true.lung.sum()), 4),
        "nodules": len(shares),
        "kept": round(min(shares), 4) if shares else None,
        "cpu_s": round(seconds, 1),
    }


def real(folder: Path) -> dict[str, Any]:
    """Measure volumes of a real scan's lungs, and the share of its outlined pixels kept."""
    volume = read_series(folder)
    litre = np.prod(volume.spacing_xyz_mm) / 1e6
    _, seconds, found = timed(lambda: lungs.steps(volume))
    kept = lungs.dilate(found.closed, volume)
    shares = []
    table = lidc.annotations()
    for annotation in table.loc[table["series_uid"] == volume.series_uid, "annotation_id"]:
        for contour in lidc.contours(int(annotation)):
            where = int(np.rint(volume.index_from_world((0.0, 0.0, contour.z_mm))[0]))
            row, col = contour.vertices_row_col_px.T
            shares.append(float(kept[where, row, col].mean()))
    return {
        "series_uid": volume.series_uid,
        "litres": {
            "air of the right lung": round(float(found.right.sum() * litre), 2),
            "air of the left lung": round(float(found.left.sum() * litre), 2),
            "both, closed": round(float(found.closed.sum() * litre), 2),
            "airways": round(float(found.airways.sum() * litre), 3),
        },
        "outlines": len(shares),
        "least_share_of_an_outline_kept": round(min(shares), 4) if shares else None,
        "cpu_s": round(seconds, 1),
    }


def measure(*, scans: int = 12, seed: int = 0, dicom: Path | None = None) -> dict[str, Any]:
    """Measure simulated scans, and a real one where its folder is given."""
    measured = real(dicom) if dicom else None
    chosen = lidc.scans().sample(scans, random_state=seed)["series_uid"]
    rows = [simulated(str(uid), seed) for uid in tqdm(chosen, unit="scan")]
    return {
        "scene_version": SCENE_VERSION,
        "seed": seed,
        "least_dice": min(row["dice"] for row in rows),
        "least_kept": min((row["kept"] for row in rows if row["nodules"]), default=None),
        "nodules": sum(row["nodules"] for row in rows),
        "peak_memory_gb": peak_gb(),
        "simulated": rows,
        "real": measured,
    }


if __name__ == "__main__":
    sys.exit(command(measure, __doc__))
