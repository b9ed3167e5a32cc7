"""Exercise notebooks, made from the solution notebooks: one source, so that they cannot drift.

A solution notebook is written by hand and runs as it stands. What the student shall write stands
between `### BEGIN SOLUTION` and `### END SOLUTION`, as nbgrader marks it, and becomes
`raise NotImplementedError()` in the exercise.

`python -m labkit.exercises` writes `notebooks/exercises/` from `notebooks/solutions/`; with
`--check` it writes nothing and exits with 1 when they differ.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbgrader.preprocessors import ClearSolutions
from traitlets.config import Config

from labkit.errors import InputError

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def exercise(solution: Path) -> str:
    """Return the text of the exercise notebook (.ipynb) of a solution notebook.

    Outputs and execution counts are dropped; cell ids stay, so that versions can be compared.

    Raises:
        InputError: not a notebook, marks that do not pair up, or no solution marked at all.
    """
    try:
        notebook = nbformat.read(solution, as_version=4)
    except Exception as error:
        raise InputError(f"{solution}: not a notebook ({error!r}); write it with Jupyter") from None
    clear = ClearSolutions(config=Config(ClearSolutions={"enforce_metadata": False}))
    for number, cell in enumerate(notebook.cells, start=1):
        marks = [line.strip() for line in cell.source.split("\n") if line.strip() in (BEGIN, END)]
        if marks != [BEGIN, END] * (len(marks) // 2):
            raise InputError(f"{solution}: cell {number}: '{BEGIN}' and '{END}' do not pair up")
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata.pop("execution", None)
    if not any(BEGIN in cell.source for cell in notebook.cells):
        raise InputError(f"{solution}: no cell has a '{BEGIN}' line; mark what students write")
    return nbformat.writes(clear.preprocess(notebook, {})[0]) + "\n"


def differences(solutions: Path, exercises: Path) -> dict[str, str]:
    """Compare a folder of exercises: file name -> "missing", "drifted" or "orphan".

    Raises:
        InputError: no solution notebooks in the folder, or a broken one.
    """
    made = {path.name: exercise(path) for path in sorted(solutions.glob("*.ipynb"))}
    if not made:
        raise InputError(f"{solutions}: no solution notebooks; run from a clone of the course")
    there = {path.name: path.read_text(encoding="utf-8") for path in exercises.glob("*.ipynb")}
    wrong = {n: "drifted" if n in there else "missing" for n in made if there.get(n) != made[n]}
    return dict(sorted({**wrong, **dict.fromkeys(there.keys() - made.keys(), "orphan")}.items()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `python -m labkit.exercises`; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m labkit.exercises", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", nargs="?", type=Path, default=NOTEBOOKS)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when they differ")
    options = parser.parse_args(arguments)
    solutions, exercises = options.folder / "solutions", options.folder / "exercises"
    try:
        wrong = differences(solutions, exercises)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    status = 0
    for name, what in wrong.items():
        if what != "orphan" and not options.check:
            exercises.mkdir(exist_ok=True)
            (exercises / name).write_text(exercise(solutions / name), "utf-8", newline="\n")
            print(f"wrote {exercises / name}")
            continue
        cure = "remove it" if what == "orphan" else "run `python -m labkit.exercises`"
        print(f"{exercises / name}: {what}; {cure}", file=sys.stderr)
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
