"""Where nodules and images come from: the LIDC database, cohorts on disk, simulation."""
