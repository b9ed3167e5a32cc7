"""Cube and nine views of one nodule against resampling the whole scan to 1 mm by B-spline.

Both give the same numbers (compared here on the cube). The whole-scan way is what the paper's text
describes, and what one would write first with SimpleITK. Both run on one thread, one after the
other. The ratio is of medians; on a busy machine look at the best times and at the CPU's.

    python benchmarks/views.py [--dicom FOLDER] [--repeats 15] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from threadpoolctl import threadpool_limits

from labkit.imaging.dicom import read_dicom
from labkit.imaging.views import cube, cube_and_views
from labkit.imaging.volume import Volume


def synthetic(seed: int = 0) -> Volume:
    """A scan of usual size, 512 x 512 x 133: smooth noise, since only the cost matters here."""
    noise = np.random.default_rng(seed).normal(-600, 200, (133, 512, 512))
    return Volume(noise.astype(np.int16), (0.703, 0.703, 2.5), (-180.0, -180.0, -340.0))


def timed(function, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds by the clock and of the CPU, of each repeat."""
    clock, cpu = [], []
    for _ in range(repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        function()
        clock.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return clock, cpu


def in_ms(seconds: float) -> float:
    return round(1000 * seconds, 2)


def resample_whole(image: sitk.Image) -> sitk.Image:
    """The whole scan at 1 mm, cubic B-spline."""
    extent = np.array(image.GetSize()) * np.array(image.GetSpacing())
    size = [int(n) for n in np.floor(extent)]
    return sitk.Resample(
        image, size, sitk.Transform(), sitk.sitkBSpline, image.GetOrigin(), (1.0, 1.0, 1.0),
        image.GetDirection(), -1000.0, sitk.sitkFloat32,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dicom", type=Path, help="folder of a real CT; else a synthetic volume")
    parser.add_argument("--repeats", type=int, default=15, help="timings of ours, median taken")
    parser.add_argument("--whole-repeats", type=int, default=2, help="timings of SimpleITK's")
    parser.add_argument("--out", type=Path, help="write the measurement as JSON")
    args = parser.parse_args()

    volume = read_dicom(args.dicom) if args.dicom else synthetic()
    image = sitk.GetImageFromArray(volume.voxels)
    image.SetSpacing(volume.spacing_xyz_mm)
    image.SetOrigin(volume.origin_xyz_mm)
    image.SetDirection(volume.direction.ravel().tolist())
    # On a sample of the resampled scan, so that cropping it gives this very cube.
    middle = np.array(volume.shape[::-1]) * volume.spacing_xyz_mm / 2
    center = volume.origin_xyz_mm + volume.direction @ (np.floor(middle) + 0.5)

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    with threadpool_limits(1):
        cube_and_views(volume, center)  # once to warm up
        ours, ours_cpu = timed(lambda: cube_and_views(volume, center), args.repeats)
        resampled = []
        whole, whole_cpu = timed(
            lambda: resampled.append(resample_whole(image)), args.whole_repeats
        )

    x, y, z = (int(n) for n in np.floor(middle) - 31)
    theirs = sitk.GetArrayFromImage(resampled[0])[z : z + 64, y : y + 64, x : x + 64]
    result = {
        "volume": volume.series_uid or "synthetic",
        "shape_zyx": volume.shape,
        "spacing_xyz_mm": [round(s, 4) for s in volume.spacing_xyz_mm],
        "threads": 1,
        "cube_and_views_ms": in_ms(statistics.median(ours)),
        "cube_and_views_ms_best": in_ms(min(ours)),
        "cube_and_views_ms_cpu": in_ms(statistics.median(ours_cpu)),
        "whole_volume_ms": in_ms(statistics.median(whole)),
        "whole_volume_ms_best": in_ms(min(whole)),
        "whole_volume_ms_cpu": in_ms(statistics.median(whole_cpu)),
        "ratio": round(statistics.median(whole) / statistics.median(ours)),
        "largest_difference_hu": round(float(np.abs(cube(volume, center) - theirs).max()), 5),
        "machine": f"{platform.machine()} {platform.processor()}".strip(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "simpleitk": sitk.Version.VersionString(),
        "date": time.strftime("%Y-%m-%d"),
    }
    for what, key in (("cube and nine views", "cube_and_views"), ("whole volume", "whole_volume")):
        print(
            f"{what}: {result[f'{key}_ms']:.1f} ms median, {result[f'{key}_ms_best']:.1f} best, "
            f"{result[f'{key}_ms_cpu']:.1f} of the CPU"
        )
    print(f"ratio {result['ratio']}, largest difference {result['largest_difference_hu']} HU")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
