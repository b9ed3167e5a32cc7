"""Nodules with their images, as folders on disk, and what makes them."""
