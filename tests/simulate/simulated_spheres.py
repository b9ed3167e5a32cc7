"""Readers who outlined a ball: a finding whose every property is known."""

import numpy as np

from labkit.annotations.lidc import Contour
from labkit.simulate.scan import SEEN_RATINGS, Finding, Scan

ORDINARY = {
    "subtlety": 5, "internal_structure": 1, "calcification": 6, "sphericity": 5, "margin": 5,
    "lobulation": 1, "spiculation": 1, "texture": 5,
}  # fmt: skip


def disc_outline(row, col, radius_px):
    """The first pixels outside a disc, in order around it, as LIDC's readers draw."""
    reach = int(np.ceil(radius_px)) + 2
    r, c = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    r, c = r + round(row), c + round(col)
    inside = np.hypot(r - row, c - col) < radius_px
    near = np.zeros_like(inside)
    for dr in (-1, 0, 1):
        for dc in (-1, 0, 1):
            near |= np.roll(inside, (dr, dc), axis=(0, 1))
    edge = near & ~inside
    rows, cols = r[edge], c[edge]
    around = np.argsort(np.arctan2(rows - row, cols - col), kind="stable")
    return np.stack([rows[around], cols[around]], axis=1)


def ball_reader(radius_mm, pixel_mm, slice_mm, row=255.5, col=255.5, z_mm=0.0, inclusion=True):
    """One reader's outlines of a ball, on slices at whole multiples of the spacing."""
    contours = []
    for k in range(-int(radius_mm / slice_mm) - 1, int(radius_mm / slice_mm) + 2):
        z = round(z_mm / slice_mm) * slice_mm + k * slice_mm
        squared = radius_mm**2 - (z - z_mm) ** 2
        if squared > (0.8 * pixel_mm) ** 2:
            vertices = disc_outline(row, col, np.sqrt(squared) / pixel_mm)
            contours.append(Contour(0, z, inclusion, vertices))
    return tuple(contours)


def ball_finding(readers, name="ball", **ratings):
    values = {**ORDINARY, **ratings}
    return Finding(
        name, tuple(readers), {key: (float(values[key]),) * len(readers) for key in SEEN_RATINGS}
    )


def ball_scan(finding=None, pixel_mm=0.7, slice_mm=1.25, series_uid="1.2.3", slices=241):
    """A scan of 300 mm around z = 0 with one finding, or none."""
    return Scan(
        "BALL", series_uid, pixel_mm, slice_mm, slice_mm, -slice_mm * (slices // 2), slices,
        () if finding is None else (finding,),
    )  # fmt: skip
