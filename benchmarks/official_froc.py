"""Whether `labkit froc` gives the numbers of the challenge's own script, on made-up submissions.

    python -m benchmarks.official_froc FOLDER --out results/official_froc.json

FOLDER holds noduleCADEvaluationLUNA16.py, from evaluationScript.zip of LUNA-16's download. It was
written for Python 2: translate it once (its `print` and `iteritems`), and nothing else. Its
plots are left out, since they ask for what matplotlib no longer has.

Each challenge is drawn with what decides ties: probabilities of one decimal, marks on a whole
grid and so on rims, nodules that overlap, excluded findings without a size, scans without marks or
nodules, more marks than the limit. The script draws its bootstrap's scans from numpy's global
numbers; both judge the same ones here.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import sys
import tempfile
import types
import warnings
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pandas as pd
import sklearn
from numpy.typing import ArrayLike
from tqdm import tqdm

from benchmarks.common import command, timed
from labkit.annotations import luna16
from labkit.errors import InputError
from labkit.evaluation import froc

SCRIPT = "noduleCADEvaluationLUNA16.py"
_WITHOUT, _TIMES = "samples_without_a_number", ("script_cpu_s", "labkit_cpu_s")


class Size(NamedTuple):
    """How large a made-up challenge is."""

    scans: int
    nodules: int
    marks: int
    excluded: int
    bootstraps: int


SMALL = Size(scans=6, nodules=8, marks=60, excluded=6, bootstraps=50)
BEYOND = Size(scans=5, nodules=20, marks=900, excluded=15, bootstraps=50)  # 100 a scan and more
LARGE = Size(scans=200, nodules=270, marks=20_000, excluded=2_000, bootstraps=200)


def the_script(folder: Path) -> types.ModuleType:
    """Load the challenge's script as a module, without its plots; an InputError if it cannot be."""
    path = folder / SCRIPT
    if not path.is_file():
        raise InputError(f"{path} is not there; give the folder of LUNA-16's evaluationScript.zip")
    sys.path.insert(0, str(folder))  # it finds its helpers, the folder `tools`, beside itself
    try:
        module = importlib.import_module(path.stem)
    except SyntaxError as error:
        raise InputError(
            f"{path}, line {error.lineno}, is not Python 3; translate its print and iteritems"
        ) from error
    module.plt = mock.MagicMock()  # type: ignore[attr-defined]
    return module


def made(size: Size, seed: int) -> dict[str, pd.DataFrame]:
    """Draw a challenge: `annotations`, `excluded` and `marks`, with ties and rims."""
    rng = np.random.default_rng(seed)
    uids = np.array([f"1.2.{i:04d}" for i in range(size.scans)])

    def table(rows: int, scans: Any) -> pd.DataFrame:
        # A grid of 3 mm in a cube of 30 mm: marks meet nodules, and rims, often.
        where = pd.DataFrame(3.0 * rng.integers(0, 11, (rows, 3)), columns=list(luna16.POSITION))
        where.insert(0, luna16.SERIES, rng.choice(scans, rows))
        return where

    # labkit refuses a nodule that is annotated twice; the script counts it twice.
    nodules = table(size.nodules, uids[: max(1, size.scans * 2 // 3)])
    nodules = nodules.drop_duplicates(ignore_index=True)
    nodules["diameter_mm"] = rng.choice([5.0, 6.0, 6.0, 12.0, 18.0, 25.3], len(nodules))
    excluded = table(size.excluded, uids).drop_duplicates(ignore_index=True)
    excluded["diameter_mm"] = rng.choice([-1.0, 6.0, 9.7], len(excluded))
    marks, digits = table(size.marks, uids[1:]), int(rng.choice([1, 2, 9]))
    marks["probability"] = rng.uniform(0, 1, size.marks).round(digits)
    return {"annotations": nodules, "excluded": excluded, "marks": marks}


def compared(script: types.ModuleType, size: Size, seed: int) -> dict[str, float]:
    """Compute the largest differences between both, over one challenge.

    A sample of scans in which no nodule is hit, or every mark hits one, has no number in the
    script, which divides by zero; such samples are counted, and bands are compared without any.
    """
    uids = [f"1.2.{i:04d}" for i in range(size.scans)]
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        for name, table in made(size, seed).items():
            luna16.write(folder / f"{name}.csv", table)
        (folder / "series.csv").write_text("".join(f"{uid}\n" for uid in uids))
        given = [folder / f"{name}.csv" for name in ("annotations", "excluded", "series")]
        np.random.seed(seed)  # noqa: NPY002 - the script draws from these numbers

        def theirs() -> Any:
            nodules, series = script.collect(*map(str, given))
            return script.evaluateCAD(
                series, str(folder / "marks.csv"), str(folder), nodules, "marks",
                maxNumberOfCADMarks=froc.MAX_MARKS, performBootstrapping=True,
                numberOfBootstrapSamples=size.bootstraps, confidence=froc.LEVEL,
            )  # fmt: skip

        curves, compute = [], script.computeFROC  # of all scans, then of each sample

        def kept_curve(*of: Any) -> Any:
            curves.append(compute(*of))
            return curves[-1]

        # It prints a line a scan, and scikit-learn says that classes are missing.
        quiet = contextlib.redirect_stdout(io.StringIO())
        with mock.patch.object(script, "computeFROC", kept_curve), quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, script_s, (*_, rates, mean, low, high) = timed(theirs)
        read = (luna16.read_submission(folder / "marks.csv"), luna16.read_annotations(given[0]),
                luna16.read_excluded(given[1]))  # fmt: skip
    _, labkit_s, ours = timed(lambda: froc.evaluate(*read, uids, bootstraps=size.bootstraps))
    (fps, sensitivity, thresholds), *samples = curves
    numbers = np.random.RandomState(seed)  # the same numbers once more
    samples_of_scans = numbers.randint(size.scans, size=(size.bootstraps, size.scans))
    drawn = np.array([np.bincount(scans, minlength=size.scans) for scans in samples_of_scans])
    band = froc.resampled(froc.judge(*read, uids, froc.MAX_MARKS), drawn, rates)
    heights = np.array([np.interp(rates, x, y) for x, y, _ in samples])
    sound = np.isfinite(heights).all(axis=1)
    seven = np.interp(froc.RATES, fps, sensitivity)
    found = {
        "curve": max(largest(fps, ours.false_positives_per_scan),
                     largest(sensitivity, ours.curve_sensitivity),
                     largest(thresholds[1:], ours.thresholds[1:])),
        "sensitivity_at_seven": largest(seven, ours.sensitivity),
        "cpm": abs(float(seven.mean()) - ours.cpm),
        "samples": largest(heights[sound], band[sound]),
        "samples_without_a_number": int((~sound).sum()),
        "script_cpu_s": script_s, "labkit_cpu_s": labkit_s,
    }  # fmt: skip
    if sound.all():
        # The script keeps its samples in single precision before it sorts and averages them.
        our_low, our_high = froc.bounds(band.astype(np.float32))
        found["band"] = max(largest(low, our_low), largest(high, our_high))
        found["band_mean"] = largest(mean, band.mean(axis=0))
    return found


def largest(theirs: ArrayLike, ours: ArrayLike) -> float:
    """Compute the largest difference; infinite when there are not as many numbers."""
    a, b = np.asarray(theirs, float), np.asarray(ours, float)
    return float(np.abs(a - b).max(initial=0.0)) if len(a) == len(b) else float("inf")


def measured(folder: Path, *, trials: int = 200, seed: int = 0, source: str = "") -> dict[str, Any]:
    """Return the largest differences of each size, and of which script."""
    script, rows = the_script(folder), []
    for name, size, challenges in (
        ("small", SMALL, trials), ("beyond the limit", BEYOND, trials), ("large", LARGE, 2),
    ):  # fmt: skip
        numbers = tqdm(range(challenges), desc=name, unit="challenge")
        found = pd.DataFrame([compared(script, size, seed + i) for i in numbers])
        without, script_s, labkit_s = found[[_WITHOUT, *_TIMES]].sum()
        rows.append({
            "size": name, **size._asdict(), "challenges": challenges,
            "largest_difference": found.drop(columns=[_WITHOUT, *_TIMES]).max().to_dict(),
            _WITHOUT: int(without),
            "bands_compared": int(found["band"].count()) if "band" in found else 0,
            "script_cpu_s_over_labkit": round(float(script_s / labkit_s), 1),
        })  # fmt: skip
    sha256 = hashlib.sha256((folder / SCRIPT).read_bytes()).hexdigest()
    return {"script": source, "script_sha256": sha256, "scikit_learn": sklearn.__version__,
            "seed": seed, "rows": rows}  # fmt: skip


if __name__ == "__main__":
    sys.exit(command(measured, __doc__))
