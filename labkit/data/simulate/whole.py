"""A whole scan of a simulated chest, and what is true in it: which voxels are lung and nodule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from labkit.data.simulate.chest import surface_distance
from labkit.data.simulate.scan import PIXELS
from labkit.data.simulate.scanner import scan_box
from labkit.data.simulate.scene import Scene
from labkit.errors import InputError
from labkit.imaging.volume import Volume

# Slices worked on at once by a thread: enough to keep the arithmetic in large steps, few enough
# for memory (about 0.3 GB a thread).
_AT_ONCE = 6
_MOST_THREADS = 4


@dataclass(frozen=True)
class Truth:
    """What is true of every voxel of a whole scan.

    Args:
        lung: (Z, Y, X) bool: within the lungs' surface; vessels, airways and nodules included.
        nodules: (Z, Y, X) uint8: 0, or 1 + the place in `Scene.nodules` of the nodule that at
            least half of its readers' outlines enclose here.
    """

    lung: NDArray[np.bool_]
    nodules: NDArray[np.uint8]


def whole_scan(
    scene: Scene, noisy: bool = True, progress: bool = False, jobs: int | None = None
) -> Volume:
    """The whole scan, 512 x 512 pixels and all the real slices; its crops are `scan_box`'s.

    The same voxels whatever the number of threads: every slice is a function of its place.

    Args:
        scene: what is scanned.
        noisy: whether with the scanner's noise.
        progress: show a bar.
        jobs: threads; by default one a core, four at most. Each takes about 0.3 GB.

    Returns:
        Volume of int16 HU in the simulated world.

    Raises:
        InputError: less than one job.
    """
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs is {jobs}; give 1 or more, or None for all cores")
    scan = scene.scan
    voxels = np.empty((scan.slices, PIXELS, PIXELS), np.int16)

    def fill(first: int) -> int:
        stop = min(first + _AT_ONCE, scan.slices)
        whole = (0, PIXELS)
        voxels[first:stop] = scan_box(scene, whole, whole, (first, stop), noisy).voxels
        return stop - first

    # NumPy and SciPy let other threads work meanwhile: no process to start, nothing to copy.
    threads = jobs if jobs is not None else min(cpu_count(), _MOST_THREADS)
    with (
        threadpool_limits(limits=1),
        tqdm(total=scan.slices, unit="slice", desc="scanning", disable=not progress) as bar,
    ):
        firsts = list(range(0, scan.slices, _AT_ONCE))
        # What a scene keeps (its vessels) is made by the middle slices, before threads ask for it.
        bar.update(fill(firsts.pop(len(firsts) // 2)))
        made = Parallel(n_jobs=threads, prefer="threads", return_as="generator")(
            delayed(fill)(first) for first in firsts
        )
        for slices in made:
            bar.update(slices)
    pixel = scan.pixel_spacing_mm
    corner = float(scan.x_mm(0, 1)[0])
    return Volume(
        voxels,
        (pixel, pixel, scan.slice_spacing_mm),
        (corner, corner, scan.first_z_mm),
        series_uid=scan.series_uid,
    )


def truth(scene: Scene) -> Truth:
    """Lung and nodules at the voxels of `whole_scan`, from the scene and not from its image."""
    scan = scene.scan
    x = y = scan.x_mm(0, PIXELS)
    z = scan.z_mm(0, scan.slices)
    lung = np.empty((scan.slices, PIXELS, PIXELS), bool)
    for first in range(0, scan.slices, _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        lung[part] = surface_distance(scene.thorax, x, y, z[part]) < 0
    nodules = np.zeros(lung.shape, np.uint8)
    for number, nodule in enumerate(scene.nodules, start=1):
        window = nodule.shape.window(x, y, z)
        at_z, at_y, at_x = window
        share = nodule.shape.agreement_at(x[at_x], y[at_y], z[at_z])
        nodules[window][share >= 0.5] = number
    return Truth(lung, nodules)
