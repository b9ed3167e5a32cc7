"""The nine planes through a nodule: how many there are, their numbers, names and directions.

To add a tenth view, add its plane as the last one (the first three are axial, coronal and sagittal
wherever three are taken); figures have as many panels as there are planes. Cohorts and runs that
are there have nine views, and have to be made again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Plane:
    """One plane through the nodule's centre, seen as an image.

    Args:
        name: stable name, for figures and tables.
        row_xyz: world direction (unit vector, LPS) in which the row number grows: down the image.
        col_xyz: world direction in which the column number grows: to the right of the image.
    """

    name: str
    row_xyz: tuple[float, float, float]
    col_xyz: tuple[float, float, float]

    @property
    def normal_xyz(self) -> tuple[float, float, float]:
        """Unit normal, col x row, so that the viewer looks along it, into the image."""
        (a, b, c), (d, e, f) = self.col_xyz, self.row_xyz
        return float(b * f - c * e), float(c * d - a * f), float(a * e - b * d)

    def points_xyz_mm(
        self, center_xyz_mm: ArrayLike, size: int = 64, spacing_mm: float = 1.0
    ) -> NDArray[np.float64]:
        """Compute the world positions (size, size, 3) of the image's pixels around a point, mm.

        >>> PLANES[0].points_xyz_mm((0, 0, 5), size=2)[0].tolist()
        [[-0.5, -0.5, 5.0], [0.5, -0.5, 5.0]]
        """
        import numpy as np

        steps = offsets_mm(size, spacing_mm)[:, None]
        rows, columns = steps * np.asarray(self.row_xyz), steps * np.asarray(self.col_xyz)
        return np.asarray(center_xyz_mm, dtype=float) + rows[:, None] + columns[None]


def offsets_mm(size: int, spacing_mm: float) -> NDArray[np.float64]:
    """Compute the distances (size,) of samples from the centre, symmetric about 0."""
    import numpy as np  # here, since who only counts the planes shall not wait for it

    return np.arange(size, dtype=np.float64) * spacing_mm - (size - 1) / 2 * spacing_mm


_D = math.sqrt(0.5)
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
