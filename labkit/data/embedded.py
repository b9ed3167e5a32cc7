"""The cohort that is there without a download: simulated CT, made once and kept."""

from __future__ import annotations

from labkit import paths
from labkit.data.cohort import Cohort
from labkit.data.simulate import build_simulated
from labkit.errors import InputError


def simulated_cohort(
    nodules: int | None = None, uncertain: bool = False, seed: int = 0, progress: bool = True
) -> Cohort:
    """Open the simulated cohort of this size, making it first when it is not there.

    It is kept in `runs/cohorts/`, under a name that says how it was made.

    Args:
        nodules: how many, chosen by patient; None takes all.
        uncertain: whether nodules of uncertain malignancy are among them.
        seed: of the choice and of the simulation.
        progress: show a bar while making it.
    """
    name = f"simulated_{nodules or 'all'}{'' if uncertain else '_labelled'}_seed{seed}"
    folder = paths.runs() / "cohorts" / name
    if folder.is_dir():
        try:
            return Cohort.open(folder)
        except InputError as error:
            # Older formats and damaged files are made again: nothing but time is lost.
            print(f"{error}; making it again")
    build_simulated(
        folder, seed=seed, n_nodules=nodules, labelled_only=not uncertain, progress=progress
    )
    return Cohort.open(folder)
