"""LUNA-16: nodule or not, for half a million candidates in 888 scans of LIDC-IDRI."""
