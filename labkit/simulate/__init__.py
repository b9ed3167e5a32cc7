"""CT simulated around the real readers' outlines: the course's embedded default.

Outlines, sizes, positions, spacings and ratings are LIDC-IDRI's; every HU is invented. It teaches
and tests the method, and claims nothing about patients.
"""
