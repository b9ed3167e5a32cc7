"""The one error that means: your input is wrong, and here is what to do."""


class InputError(ValueError):
    """Bad input from outside. The message is one line: what is wrong, where, and the cure."""


def require_jobs_and_seed(jobs: int | None, seed: int = 0) -> None:
    """Refuse less than one process, and a seed below 0; None means as many as there are cores."""
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs is {jobs}; give 1 or more, or None for all cores")
    if seed < 0:
        raise InputError(f"seed is {seed}; give 0 or a positive whole number")
