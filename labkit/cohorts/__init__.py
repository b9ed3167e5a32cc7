"""Nodules with their images, as folders on disk, and what makes them."""

from labkit.cohorts.cohort import Cohort

__all__ = ["Cohort"]
