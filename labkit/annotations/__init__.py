"""What readers marked: LIDC-IDRI's nodules and ratings, and LUNA-16's tables."""
