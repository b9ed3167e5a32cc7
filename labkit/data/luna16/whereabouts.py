"""What lies at a point of a simulated chest: vessel, branching, pleura, hilum, or nothing.

Only a simulation can say it. In real scans readers would have to look at every candidate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.data.simulate.scene import Scene
from labkit.data.simulate.strands import Strands

# In this order: of several things that lie at a point, the first is told.
KINDS = ("hilum", "branching", "vessel", "airway", "pleura", "fissure", "nothing")
HILUM_MM = 30.0
NEAR_MM = 1.0
PLEURA_MM = 4.0
# A branching of thinner vessels than this is no blob in a scan's pixels.
_LEAST_RADIUS_MM = 0.5

_Floats = NDArray[np.float64]


def lies_on(scene: Scene, points_xyz_mm: ArrayLike) -> list[str]:
    """What of the anatomy each point lies on, of `KINDS`; nodules are not among them.

    A point is at the hilum within 30 mm of a lung's root; on a branching or a vessel, an airway's
    wall or a fissure when its surface is at most 1 mm away (inside counts); on the pleura within
    4 mm of the lung's surface, at the wall, the mediastinum or the diaphragm.

    Args:
        scene: the simulated chest.
        points_xyz_mm: (n, 3) world positions.
    """
    points = np.asarray(points_xyz_mm, dtype=np.float64).reshape(-1, 3)
    thorax, drawn = scene.thorax, scene.drawn
    x, y, z = points.T
    root = np.stack([thorax.hilum_xyz_mm(np.full(len(points), left)) for left in (False, True)])
    balls = _branchings(drawn.vessels)
    tests = (
        np.linalg.norm(points - root, axis=-1).min(axis=0) < HILUM_MM,
        beyond_surface_mm(balls, points) < NEAR_MM,
        beyond_surface_mm(drawn.vessels, points) < NEAR_MM,
        np.abs(beyond_surface_mm(drawn.airways, points)) < NEAR_MM,
        thorax.lung(x, y, z) > -PLEURA_MM,
        np.abs(thorax.fissure(x, y, z)) < NEAR_MM,
        np.ones(len(points), bool),
    )
    return [KINDS[int(first)] for first in np.argmax(np.stack(tests), axis=0)]


def beyond_surface_mm(strands: Strands, points_xyz_mm: _Floats) -> _Floats:
    """Distance (n,) of points (n, 3) from the nearest strand's surface; negative within one."""
    start = strands.start_xyz_mm
    along = strands.end_xyz_mm - start
    squared = np.maximum((along**2).sum(axis=1), 1e-9)
    taper = strands.end_radius_mm - strands.start_radius_mm
    nearest = np.full(len(points_xyz_mm), np.inf)
    for number, point in enumerate(points_xyz_mm if len(strands) else ()):
        away = point - start
        share = np.clip((away * along).sum(axis=1) / squared, 0.0, 1.0)
        gap = np.linalg.norm(away - share[:, None] * along, axis=1)
        nearest[number] = (gap - strands.start_radius_mm - share * taper).min()
    return nearest


def _branchings(vessels: Strands) -> Strands:
    """Where vessels part, as balls: there two or more strands start at the same point."""
    start, first, count = np.unique(
        vessels.start_xyz_mm, axis=0, return_index=True, return_counts=True
    )
    radius = vessels.start_radius_mm[first]
    parts = (count > 1) & (radius >= _LEAST_RADIUS_MM)
    return Strands(start[parts], start[parts], radius[parts], radius[parts])
