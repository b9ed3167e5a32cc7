"""Exercise notebooks, made from the solution notebooks: one source, so that they cannot drift.

A solution notebook is written by hand and runs as it stands. What the student shall write is
marked as nbgrader marks it:

    def area(radius):
        ### BEGIN SOLUTION
        return math.pi * radius**2
        ### END SOLUTION

and becomes, in the exercise,

    def area(radius):
        # YOUR CODE HERE
        raise NotImplementedError()

`python -m labkit.exercises` writes `notebooks/exercises/` from `notebooks/solutions/`; with
`--check` it writes nothing and exits with 1 when they differ.

Reference: nbgrader's ClearSolutions preprocessor, whose convention for Python this follows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.errors import InputError

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
CODE_STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")
TEXT_STUB = ("YOUR ANSWER HERE",)
NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def without_solutions(source: str, stub: Sequence[str] = CODE_STUB) -> str:
    r"""A cell's text with every marked solution replaced by the stub, at its indentation.

    Raises:
        InputError: a mark without its partner, or one inside another's.

    >>> without_solutions("x = 1\n### BEGIN SOLUTION\nx += 1\n### END SOLUTION\nprint(x)", ["..."])
    'x = 1\n...\nprint(x)'
    """
    kept: list[str] = []
    inside = False
    for line in source.split("\n"):
        mark = line.strip()
        if mark == BEGIN:
            if inside:
                raise InputError(f"a second '{BEGIN}' before '{END}'; close the first one")
            inside = True
            indent = line[: len(line) - len(line.lstrip())]
            kept += [indent + words for words in stub]
        elif mark == END:
            if not inside:
                raise InputError(f"'{END}' without '{BEGIN}' before it; add or remove one")
            inside = False
        elif not inside:
            kept.append(line)
    if inside:
        raise InputError(f"'{BEGIN}' without '{END}' after it; add the missing line")
    return "\n".join(kept)


def exercise(solution: Path) -> str:
    """The text of the exercise notebook (.ipynb) that belongs to a solution notebook.

    Outputs and execution counts are dropped; cell ids stay, so that versions can be compared.

    Raises:
        InputError: not a notebook, marks that do not pair up, or no solution marked at all.
    """
    try:
        notebook = json.loads(solution.read_text(encoding="utf-8"))
        cells = notebook["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{solution}: not a notebook ({error!r}); write it with Jupyter") from None
    marked = 0
    for number, cell in enumerate(cells, start=1):
        text = "".join(cell["source"])
        marked += BEGIN in text
        try:
            text = without_solutions(text, CODE_STUB if _is_code(cell) else TEXT_STUB)
        except InputError as error:
            raise InputError(f"{solution}: cell {number}: {error}") from None
        cell["source"] = text.splitlines(keepends=True)
        if _is_code(cell):
            cell["outputs"], cell["execution_count"] = [], None
            cell["metadata"].pop("execution", None)
    if not marked:
        raise InputError(
            f"{solution}: no cell has a '{BEGIN}' line; mark what students shall write"
        )
    # The layout in which Jupyter itself saves notebooks.
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def differences(solutions: Path, exercises: Path) -> dict[str, str]:
    """What is wrong with a folder of exercises: file name -> "missing", "drifted" or "orphan".

    Raises:
        InputError: no solution notebooks in the folder, or a broken one.
    """
    made = {path.name: exercise(path) for path in _notebooks(solutions)}
    there = {path.name: path for path in exercises.glob("*.ipynb")}
    wrong = dict.fromkeys(there.keys() - made.keys(), "orphan")
    for name, text in made.items():
        if name not in there:
            wrong[name] = "missing"
        elif there[name].read_text(encoding="utf-8") != text:
            wrong[name] = "drifted"
    return dict(sorted(wrong.items()))


def generate(solutions: Path, exercises: Path) -> list[Path]:
    """Write the exercise of every solution notebook, and return the files that changed.

    Exercises without a solution are left alone; `differences` names them.

    Raises:
        InputError: no solution notebooks in the folder, or a broken one.
    """
    made = {path.name: exercise(path) for path in _notebooks(solutions)}
    exercises.mkdir(parents=True, exist_ok=True)
    changed = []
    for name, text in made.items():
        path = exercises / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8", newline="\n")
            changed.append(path)
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `python -m labkit.exercises`; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m labkit.exercises", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", nargs="?", type=Path, default=NOTEBOOKS)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when they differ")
    options = parser.parse_args(arguments)
    solutions, exercises = options.folder / "solutions", options.folder / "exercises"
    try:
        if not options.check:
            for path in generate(solutions, exercises):
                print(f"wrote {path}")
        wrong = differences(solutions, exercises)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for name, what in wrong.items():
        print(f"{exercises / name}: {what}; {_cure(what)}", file=sys.stderr)
    return 1 if wrong else 0


def _cure(what: str) -> str:
    if what == "orphan":
        return "remove it, or write its solution notebook"
    return "run `python -m labkit.exercises`"


def _notebooks(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.ipynb"))
    if not found:
        raise InputError(f"{folder}: no solution notebooks in it; run from a clone of the course")
    return found


def _is_code(cell: dict[str, Any]) -> bool:
    return cell["cell_type"] == "code"


if __name__ == "__main__":
    sys.exit(main())
