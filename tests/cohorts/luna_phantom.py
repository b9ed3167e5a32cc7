"""Small LUNA-16: .mhd volumes of balls in lung, written by hand, and the tables that go with them.

Written without SimpleITK, so that what is read is not what one library agrees with itself on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from labkit.imaging.volume import Volume

LUNG, TISSUE = -850, 40
STRAIGHT = np.eye(3)
FLIPPED = np.diag([-1.0, -1.0, 1.0])
SAGITTAL = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def oblique(degrees=20):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


@dataclass
class Phantom:
    """A scan of lung with balls of tissue, given in the world.

    Args:
        uid: SeriesInstanceUID.
        balls: (x, y, z, diameter), mm from the scan's middle.
        shape: (z, y, x) voxels.
        spacing: x, y, z, mm.
        direction: columns are the directions of x, y, z.
    """

    uid: str
    balls: list = field(default_factory=lambda: [(-10, 0, 0, 12), (20, 15, 5, 8)])
    shape: tuple = (40, 96, 90)
    spacing: tuple = (0.8, 0.7, 2.0)
    direction: np.ndarray = field(default_factory=lambda: STRAIGHT)
    origin: tuple = (-31.5, 12.0, -140.0)
    noise: int = 0

    @property
    def middle(self):
        return self.world((np.array(self.shape) - 1) / 2)

    def world(self, index_zyx):
        index_xyz = np.asarray(index_zyx, float)[..., ::-1]
        return (index_xyz * self.spacing) @ self.direction.T + self.origin

    @property
    def centers(self):
        return np.array([ball[:3] for ball in self.balls]).reshape(-1, 3) + self.middle

    def voxels(self):
        at = self.world(np.stack(np.indices(self.shape), axis=-1))
        hu = np.full(self.shape, LUNG, float)
        for center, (*_, diameter) in zip(self.centers, self.balls, strict=True):
            hu[np.linalg.norm(at - center, axis=-1) <= diameter / 2] = TISSUE
        noise = np.random.default_rng(self.noise).normal(0, 30, self.shape)
        return np.rint(hu + noise).astype("<i2")

    def volume(self):
        return Volume(self.voxels(), self.spacing, self.origin, self.direction)

    def write(self, folder, **replaced):
        """Write .mhd and .raw; a header line can be given anew, or left out by None."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.uid}.raw").write_bytes(self.voxels().tobytes())
        lines = {
            "ObjectType": "Image",
            "NDims": "3",
            "BinaryData": "True",
            "BinaryDataByteOrderMSB": "False",
            "CompressedData": "False",
            # MetaImage lists the directions of the axes one after the other.
            "TransformMatrix": " ".join(map(str, self.direction.T.ravel())),
            "Offset": " ".join(map(str, self.origin)),
            "CenterOfRotation": "0 0 0",
            "ElementSpacing": " ".join(map(str, self.spacing)),
            "DimSize": " ".join(map(str, self.shape[::-1])),
            "ElementType": "MET_SHORT",
            "ElementDataFile": f"{self.uid}.raw",
        } | replaced
        lines["ElementDataFile"] = lines.pop("ElementDataFile")  # the last line, whatever came
        text = "".join(f"{k} = {v}\n" for k, v in lines.items() if v is not None)
        path = folder / f"{self.uid}.mhd"
        path.write_text(text)
        return path


def annotations(phantoms):
    rows = [
        (p.uid, *center, ball[3])
        for p in phantoms
        for center, ball in zip(p.centers, p.balls, strict=True)
    ]
    return pd.DataFrame(rows, columns=["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"])


def candidates(phantoms, n=6, seed=0):
    """A mark near each nodule, and n elsewhere; with the class that the hit rule gives."""
    rng = np.random.default_rng(seed)
    rows = []
    for p in phantoms:
        rows += [(p.uid, *(center + 0.5), 1) for center in p.centers]
        low, high = 6.0, np.array(p.shape) - 7.0
        for _ in range(n):
            point = p.world(rng.uniform(low, high))
            away = np.linalg.norm(p.centers - point, axis=1)
            inside = bool((away < np.array([b[3] for b in p.balls]) / 2).any())
            rows.append((p.uid, *point, int(inside)))
    return pd.DataFrame(rows, columns=["seriesuid", "coordX", "coordY", "coordZ", "class"])
