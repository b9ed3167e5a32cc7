"""The project's own promises: light imports, agreeing files, one-way layers."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PACKAGE = REPO / "labkit"
# The house along the way of the data: each folder imports only from those before it. Lines that a
# folder has at most, docstrings and blank lines included: what is reached now, and only to be
# lowered, towards 17,000 in all of labkit, 3,600 in benchmarks and 10,000 in tests.
HOUSE = {
    "annotations": 920, "imaging": 2190, "simulate": 2550, "cohorts": 1940, "models": 510,
    "training": 2320, "evaluation": 3290, "paper": 2505, "plots": 3880,
}  # fmt: skip
LAYERS = tuple(HOUSE)
RIVALS = 2081  # of models/rivals, the methods that Table 1 compares with
BESIDE_THE_FOLDERS = 1960
MOST_LINES = {"labkit": 24_061, "benchmarks": 5_151, "tests": 13_949}
MOST_FILES = 90


def _toml() -> dict:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    return tomllib.loads((REPO / "pyproject.toml").read_text())


def _imports(file: Path) -> set[str]:
    """What a file imports when it is run: not for its types alone."""
    names = set()
    tree = ast.parse(file.read_text())
    tree.body = [n for n in tree.body if ast.unparse(getattr(n, "test", n)) != "TYPE_CHECKING"]
    for node in ast.walk(tree):
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
def test_no_folder_imports_from_one_after_it(layer):
    """Nor from what stands beside the folders, but for the few files that all may use."""
    allowed = {
        *LAYERS[: LAYERS.index(layer) + 1],
        "__version__",
        "errors",
        "io",
        "paths",
        "profiles",
    }
    for file in (PACKAGE / layer).rglob("*.py"):
        used = {name.split(".")[1] for name in _imports(file) if name.startswith("labkit.")}
        assert used <= allowed, f"{file.relative_to(REPO)} imports {used - allowed}"


def _lines(files) -> int:
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def test_the_house_stays_small():
    for folder, budget in HOUSE.items():
        assert _lines((PACKAGE / folder).glob("*.py")) <= budget, folder
    assert _lines((PACKAGE / "models" / "rivals").glob("*.py")) <= RIVALS
    assert _lines(PACKAGE.glob("*.py")) <= BESIDE_THE_FOLDERS
    for folder, most in MOST_LINES.items():
        assert _lines((REPO / folder).rglob("*.py")) <= most, folder
    assert sum(file.parent.name != "rivals" for file in PACKAGE.rglob("*.py")) <= MOST_FILES


def test_every_private_module_has_two_users():
    files = list(PACKAGE.rglob("*.py"))
    for private in PACKAGE.rglob("_[!_]*.py"):
        name = ".".join(private.relative_to(REPO).with_suffix("").parts)
        assert sum(name in _imports(file) for file in files) >= 2, name


@pytest.mark.parametrize(
    ("command", "most"),
    [
        (["crossval", "--epochs", "1", "--views", "0", "--folds", "2", "--jobs", "1"], 30),
        (["reproduce", "fig7", "--profile", "smoke", "--jobs", "1"], 50),
    ],
    ids=["crossval", "reproduce fig7"],
)
def test_a_command_imports_few_files(discs, tmp_path, command, most):
    """What a reader may have to open to follow it."""
    of_cohort = ["--cohort"] if command[0] == "reproduce" else []
    script = (
        "import sys; from labkit.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "ours = [m for name, m in sys.modules.items() if name.split('.')[0] == 'labkit']\n"
        "print('files', *(m.__file__ for m in ours))"
    )
    arguments = [*command, *of_cohort, str(discs.folder), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments, "--device", "cpu"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = done.stdout.splitlines()[-1].split()[1:]
    with_code = [f for f in files if len(ast.parse(Path(f).read_text()).body) > 1]
    assert 5 < len(with_code) <= most


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
        "from labkit.training import nine_views\n"
        "from labkit.evaluation import crossval, statistics\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("statement", ["import labkit", "import labkit.cli as c; c.parser()"])
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
