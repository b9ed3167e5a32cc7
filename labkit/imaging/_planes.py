"""The nine planes through a nodule: their names, their order and how each image lies in space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.imaging._sampling import offsets

_Vector = tuple[float, float, float]
_D = float(np.sqrt(0.5))


@dataclass(frozen=True)
class Plane:
    """One plane through the nodule's centre, seen as an image.

    Args:
        name: stable name, for figures and tables.
        row_xyz: world direction (unit vector, LPS) in which the row number grows: down the image.
        col_xyz: world direction in which the column number grows: to the right of the image.
    """

    name: str
    row_xyz: _Vector
    col_xyz: _Vector

    @property
    def normal_xyz(self) -> _Vector:
        """Unit normal, col x row, so that the viewer looks along it, into the image."""
        x, y, z = np.cross(self.col_xyz, self.row_xyz)
        return float(x), float(y), float(z)

    def points_xyz_mm(
        self, center_xyz_mm: ArrayLike, size: int = 64, spacing_mm: float = 1.0
    ) -> NDArray[np.float64]:
        """World positions (size, size, 3) of the image's pixels, mm, centred on the point.

        >>> PLANES[0].points_xyz_mm((0, 0, 5), size=2)[0].tolist()
        [[-0.5, -0.5, 5.0], [0.5, -0.5, 5.0]]
        """
        steps = offsets(size, spacing_mm)[:, None]
        rows = steps * np.asarray(self.row_xyz)
        columns = steps * np.asarray(self.col_xyz)
        return np.asarray(center_xyz_mm, dtype=float) + rows[:, None] + columns[None]


PLANES: tuple[Plane, ...] = (
    # Parallel to the faces of the cube, as radiologists look at them: the patient's left on the
    # right of the image (axial, coronal), the back on the right (sagittal), the head up.
    Plane("axial", (0, 1, 0), (1, 0, 0)),
    Plane("coronal", (0, 0, -1), (1, 0, 0)),
    Plane("sagittal", (0, 0, -1), (0, 1, 0)),
    # Through two opposite edges: along the named axis and one diagonal of the other two axes,
    # which grow together ("plus") or one as the other falls ("minus"). Head up in all six.
    Plane("diagonal_x_plus", (0, -_D, -_D), (1, 0, 0)),
    Plane("diagonal_x_minus", (0, _D, -_D), (1, 0, 0)),
    Plane("diagonal_y_plus", (-_D, 0, -_D), (0, 1, 0)),
    Plane("diagonal_y_minus", (_D, 0, -_D), (0, 1, 0)),
    Plane("diagonal_z_plus", (0, 0, -1), (_D, _D, 0)),
    Plane("diagonal_z_minus", (0, 0, -1), (_D, -_D, 0)),
)
