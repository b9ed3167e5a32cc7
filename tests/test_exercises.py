"""Exercises are their solutions less what is marked, and the committed ones have not drifted."""

import ast
import json
from pathlib import Path

import pytest

from labkit import exercises
from labkit.errors import InputError

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
COMMITTED = sorted((NOTEBOOKS / "solutions").glob("*.ipynb"))
SOLVED = """def area(radius):
    \"\"\"Of a circle.\"\"\"
    ### BEGIN SOLUTION
    square = radius**2
    return 3.14159 * square
    ### END SOLUTION

print(area(2))"""


def write_notebook(path: Path, *cells: tuple[str, str]) -> Path:
    """A small executed notebook of (kind, text) cells."""
    body = []
    for number, (kind, text) in enumerate(cells):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        cell["source"] = text.splitlines(keepends=True)
        if kind == "code":
            cell["execution_count"] = number + 1
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["12.56\n"]}]
        body.append(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": body, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def test_the_stub_stands_where_each_solution_stood_and_raises_until_it_is_replaced(tmp_path):
    made = exercises.exercise(write_notebook(tmp_path / "a.ipynb", ("code", f"{SOLVED}\n{SOLVED}")))
    text = "".join(json.loads(made)["cells"][0]["source"])
    stub = SOLVED.split("    ### BEGIN")[0] + (
        "    # YOUR CODE HERE\n    raise NotImplementedError()\n\nprint(area(2))"
    )
    assert text == f"{stub}\n{stub}"
    scope: dict = {}
    exec(stub.split("\nprint")[0], scope)
    with pytest.raises(NotImplementedError):
        scope["area"](2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("### BEGIN SOLUTION\nx = 1", r"01_x\.ipynb: cell 2: .*pair up"),
        ("x = 1\n### END SOLUTION", "pair up"),
        ("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", "pair up"),
        ("x = 1", "no cell has a"),
        (None, r"01_x\.ipynb: not a notebook"),
    ],
)
def test_what_is_no_solution_is_refused_with_file_and_cell(tmp_path, text, words):
    path = write_notebook(tmp_path / "01_x.ipynb", ("markdown", "# Title"), ("code", text or ""))
    if text is None:
        path.write_text("not json")
    with pytest.raises(InputError, match=words):
        exercises.exercise(path)


def test_an_exercise_shows_no_answers_in_outputs_and_keeps_its_cell_ids(tmp_path):
    answer = "### BEGIN SOLUTION\nBecause 5 means suspicious.\n### END SOLUTION"
    path = write_notebook(tmp_path / "a.ipynb", ("markdown", f"Why?\n{answer}"), ("code", SOLVED))
    made = json.loads(exercises.exercise(path))
    text, code = made["cells"]
    assert "".join(text["source"]) == "Why?\nYOUR ANSWER HERE"
    assert code["outputs"] == []
    assert code["execution_count"] is None
    assert [cell["id"] for cell in made["cells"]] == ["cell-0", "cell-1"]


def test_the_command_writes_then_agrees_then_notices_every_kind_of_drift(tmp_path, capsys):
    for name in ("01_a", "02_b"):
        write_notebook(tmp_path / "solutions" / f"{name}.ipynb", ("code", SOLVED))
    assert exercises.main([str(tmp_path), "--check"]) == 1
    assert capsys.readouterr().err.count("missing") == 2
    assert exercises.main([str(tmp_path)]) == 0
    assert exercises.main([str(tmp_path), "--check"]) == 0
    assert capsys.readouterr().out.count("wrote") == 2

    write_notebook(tmp_path / "solutions" / "01_a.ipynb", ("code", SOLVED + "\n# new"))
    (tmp_path / "solutions" / "02_b.ipynb").unlink()
    assert exercises.differences(tmp_path / "solutions", tmp_path / "exercises") == {
        "01_a.ipynb": "drifted",
        "02_b.ipynb": "orphan",
    }
    assert exercises.main([str(tmp_path / "nowhere")]) == 2


@pytest.mark.skipif(not COMMITTED, reason="the package is installed away from its course")
def test_the_committed_exercises_are_what_their_solutions_give():
    drift = exercises.differences(NOTEBOOKS / "solutions", NOTEBOOKS / "exercises")
    assert not drift, f"run `python -m labkit.exercises`: {drift}"


@pytest.mark.parametrize("solution", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_solution_has_a_lesson_and_exercises_each_followed_by_a_check(solution):
    lesson = (NOTEBOOKS / solution.name).read_text(encoding="utf-8")
    assert f"exercises/{solution.name}" in lesson
    cells = json.loads(solution.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    asked = [number for number, text in enumerate(code) if exercises.BEGIN in text]
    assert 2 <= len(asked) <= 4
    for number in asked:
        check = ast.walk(ast.parse(code[number + 1]))
        said = [node.msg is not None for node in check if isinstance(node, ast.Assert)]
        assert said and all(said), f"exercise cell {number}: the next checks nothing, or is mute"
