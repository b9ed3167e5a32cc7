"""Cube and nine views of one nodule against resampling the whole scan to 1 mm by B-spline.

    python -m benchmarks.speed.views [--dicom FOLDER] [--repeats 15] [--out FILE.json]

Both give the same numbers (compared here on the cube). The whole-scan way is what the paper's text
describes, and what one would write first with SimpleITK. Both run on one thread, one after the
other. The ratio is of medians; on a busy machine look at the best times and at the CPU's.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import SimpleITK as sitk
from threadpoolctl import threadpool_limits

from benchmarks.common import command, in_turn
from benchmarks.speed.extraction import image_of
from labkit.imaging.dicom import read_series
from labkit.imaging.views import cube, cube_and_views
from labkit.imaging.volume import Volume


def measure(
    *, dicom: Path | None = None, repeats: int = 15, whole_repeats: int = 2
) -> dict[str, Any]:
    """Time both on a real scan, or on noise of usual size, since only the cost matters."""
    if dicom:
        volume = read_series(dicom)
    else:
        noise = np.random.default_rng(0).normal(-600, 200, (133, 512, 512)).astype(np.int16)
        volume = Volume(noise, (0.703, 0.703, 2.5), (-180.0, -180.0, -340.0))
    image, extent = image_of(volume), np.array(volume.shape[::-1]) * volume.spacing_xyz_mm
    size, middle = [int(n) for n in np.floor(extent)], np.floor(extent / 2)
    # On a sample of the resampled scan, so that cropping it gives this very cube.
    center = volume.origin_xyz_mm + volume.direction @ (middle + 0.5)

    def whole() -> sitk.Image:
        return sitk.Resample(
            image, size, sitk.Transform(), sitk.sitkBSpline, image.GetOrigin(), (1.0, 1.0, 1.0),
            image.GetDirection(), -1000.0, sitk.sitkFloat32,
        )  # fmt: skip

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    with threadpool_limits(1):
        taken = in_turn({"cube_and_views": lambda: cube_and_views(volume, center)}, repeats)
        taken |= in_turn({"whole_volume": whole}, whole_repeats, warm_up=False)
    x, y, z = (int(n) for n in middle - 31)
    resampled = sitk.GetArrayFromImage(taken["whole_volume"][0].result)
    apart = np.abs(cube(volume, center) - resampled[z : z + 64, y : y + 64, x : x + 64]).max()
    ms = {name: median(t.clock_s for t in each) for name, each in taken.items()}
    return {
        "volume": volume.series_uid or "synthetic",
        "shape_zyx": volume.shape,
        "spacing_xyz_mm": [round(s, 4) for s in volume.spacing_xyz_mm],
        "threads": 1,
        **{
            f"{name}_ms{kind}": round(1000 * of, 2)
            for name, each in taken.items()
            for kind, of in (("", ms[name]), ("_best", min(t.clock_s for t in each)),
                             ("_cpu", median(t.cpu_s for t in each)))
        },
        "ratio": round(ms["whole_volume"] / ms["cube_and_views"]),
        "largest_difference_hu": round(float(apart), 5),
        "simpleitk": sitk.Version.VersionString(),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(command(measure, __doc__))
