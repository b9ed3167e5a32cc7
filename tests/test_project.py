"""The project's own promises: light imports, agreeing files, one-way layers."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PACKAGE = REPO / "labkit"
LAYERS = (
    "annotations", "imaging", "simulate", "cohorts", "models", "training", "evaluation", "paper",
    "plots",
)  # fmt: skip


def _toml() -> dict:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    return tomllib.loads((REPO / "pyproject.toml").read_text())


def _imports(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_environment_yml_agrees_with_pyproject():
    text = (REPO / "environment.yml").read_text()
    project = _toml()["project"]
    assert f"python{project['requires-python']}" in text.replace(" ", "")
    extras = re.search(r"- -e \.\[([a-z,]+)\]", text)
    assert extras, "environment.yml has to install this package with its extras"
    assert set(extras.group(1).split(",")) <= set(project["optional-dependencies"])
    listed = re.findall(r"^ {2}- ([\w-]+)", text, re.M)
    assert listed == ["conda-forge", "python", "pip", "pip"], "versions live in pyproject.toml"


def test_constraints_meet_the_ranges_of_pyproject():
    from packaging.requirements import Requirement

    pins = dict(
        line.strip().lower().split("==")
        for line in (REPO / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    project = _toml()["project"]
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    for requirement in map(Requirement, wanted):
        pinned = pins.get(requirement.name.lower())
        assert pinned, f"{requirement.name} has no exact version in constraints.txt"
        assert requirement.specifier.contains(pinned), requirement


def test_version_is_stated_once():
    import labkit

    assert _toml()["project"]["version"] == labkit.__version__


@pytest.mark.parametrize("layer", LAYERS)
def test_no_folder_imports_from_one_below_it(layer):
    below = LAYERS[LAYERS.index(layer) + 1 :]
    for file in (PACKAGE / layer).rglob("*.py"):
        for name in _imports(file):
            parts = name.split(".")
            if parts[0] == "labkit" and len(parts) > 1:
                assert parts[1] not in below, f"{file.relative_to(REPO)} imports {name}"


def test_what_comes_before_the_networks_knows_no_torch():
    for layer in ("annotations", "imaging", "simulate", "cohorts"):
        for file in (PACKAGE / layer).rglob("*.py"):
            used = {name.split(".")[0] for name in _imports(file)}
            assert "torch" not in used, file


def test_training_and_evaluation_run_without_simpleitk_and_pylidc():
    """A GPU machine may have torch and nothing else that reads images."""
    script = (
        "import sys\n"
        "for name in ('SimpleITK', 'pylidc', 'pydicom'):\n"
        "    sys.modules[name] = None\n"
        "import labkit.training.model, labkit.evaluation.crossval, labkit.evaluation.statistics\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("statement", ["import labkit", "import labkit.cli as c; c._parser()"])
def test_importing_is_light(statement):
    script = f"import sys; {statement}; print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    loaded = set(ast.literal_eval(done.stdout))
    assert not loaded & {"torch", "numpy", "pandas", "SimpleITK", "matplotlib", "sklearn"}


def test_only_paths_and_profiles_read_the_environment():
    for file in PACKAGE.rglob("*.py"):
        if file.name in ("paths.py", "profiles.py"):
            continue
        assert "os.environ" not in file.read_text(), file
