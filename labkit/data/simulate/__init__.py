"""CT simulated around the real readers' outlines: the course's embedded default.

Outlines, sizes, positions, spacings and ratings are LIDC-IDRI's; every HU is invented. It teaches
and tests the method, and claims nothing about patients.
"""

from labkit.data.simulate.build import build_simulated, scan_crop, scene_for
from labkit.data.simulate.scene import Scene

__all__ = ["Scene", "build_simulated", "scan_crop", "scene_for"]
