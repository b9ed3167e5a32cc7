"""The commands that make data: nodules, cohorts, simulated scans.

Heavy modules are imported inside, as in `labkit.cli`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from labkit.errors import InputError

# Of `labkit build`: rules that choose nodules, where LUNA-16's tables have chosen.
_OF_OTHER_KINDS = ("min_readers", "max_thickness", "nodules", "labelled_only")


def nodules(options: argparse.Namespace) -> None:
    """List nodules under a rule, with the AUC of size alone."""
    from labkit.data import lidc
    from labkit.files import write_csv

    table = lidc.nodules(
        min_readers=options.min_readers,
        max_slice_thickness_mm=_max_thickness(options),
        aggregate=options.aggregate,
        series="luna16" if options.luna16 else None,
    )
    labels = table["label"]
    counts = {"benign": (labels == 0).sum(), "uncertain": labels.isna().sum(),
              "malignant": (labels == 1).sum()}  # fmt: skip
    print(f"{len(table)} nodules of {table['patient_id'].nunique()} patients: "
          + ", ".join(f"{n} {name}" for name, n in counts.items()))  # fmt: skip
    known = table[labels.notna()]
    if known["label"].nunique() == 2:
        from labkit.evaluation.intervals import bootstrap_auc

        auc = bootstrap_auc(
            known["label"].astype(int), known["diameter_mm"], groups=known["patient_id"]
        )
        print(f"AUC of the diameter alone: {auc}, 95 % interval over patients")
    if options.out is not None:
        write_csv(options.out, table)
        print(f"wrote {options.out}")
    else:
        shown = ["nodule_id", "readers", "diameter_mm", "malignancy_median", "label"]
        print(table[shown].head(10).to_string(index=False))


def build(options: argparse.Namespace) -> None:
    """Make a cohort."""
    chosen: dict[str, Any] = {
        "patients": _patients(options.patients),
        "exclude_patients": _patients(options.exclude_patients),
    }
    rules: dict[str, Any] = {}
    if options.min_readers is not None:
        rules["min_readers"] = options.min_readers
    if options.max_thickness is not None:
        rules["max_slice_thickness_mm"] = _max_thickness(options)
    if options.simulated is not None and options.kind != "luna16":
        raise InputError("--simulated goes with build luna16; a simulated cohort of nodules is "
                         "made by labkit build simulated")  # fmt: skip
    if options.lungs and options.kind not in ("lidc", "luna16"):
        raise InputError(f"--lungs needs whole scans, which build {options.kind} does not see; "
                         "leave it out, or build lidc or luna16")  # fmt: skip
    if options.kind == "luna16":
        _build_luna16(options)
        return
    if options.kind == "simulated":
        if options.source is not None:
            raise InputError("build simulated takes no source; give the folder by --out")
        from labkit.data.simulate import build_simulated

        build_simulated(
            options.out, seed=options.seed or 0, n_nodules=options.nodules, jobs=options.jobs,
            labelled_only=options.labelled_only, **rules, **chosen,
        )  # fmt: skip
    else:
        if options.source is None:
            needed = "a folder of DICOM" if options.kind == "lidc" else "an .npz file"
            raise InputError(f"build {options.kind} needs a source: {needed}")
        from labkit.data.build import build_cubes, build_lidc

        if options.kind == "lidc":
            print(build_lidc(
                options.source, options.out, lungs=options.lungs, **rules, **chosen))  # fmt: skip
        else:
            build_cubes(options.source, options.out, **chosen)
    from labkit.data.cohort import Cohort

    cohort = Cohort.open(options.out)
    print(f"{options.out}: {len(cohort)} nodules, {len(cohort.labelled)} of them labelled")


def _build_luna16(options: argparse.Namespace) -> None:
    values = {f"--{name.replace('_', '-')}": getattr(options, name) for name in _OF_OTHER_KINDS}
    not_its = [name for name, value in values.items() if value is not None and value is not False]
    if not_its:
        raise InputError("build luna16 takes all candidates of its scans, and no nodules by a "
                         f"rule; leave out {' and '.join(not_its)}")  # fmt: skip
    given = {"a source: the folder above subset0": options.source,
             "--candidates FILE": options.candidates,
             "--annotations FILE": options.annotations}  # fmt: skip
    if options.simulated is not None:
        _simulate_luna16(options, [what for what, value in given.items() if value is not None])
        return
    missing = [what for what, value in given.items() if value is None]
    if missing:
        raise InputError(f"build luna16 needs {' and '.join(missing)}; see labkit build --help")
    if options.patients is not None or options.exclude_patients is not None:
        raise InputError("build luna16 chooses scans by its tables: --patients and "
                         "--exclude-patients do not go with it, a shorter --subsets "
                         "does")  # fmt: skip
    if options.seed is not None:
        raise InputError("build luna16 draws nothing by lot, but with --simulated; leave out "
                         "--seed")  # fmt: skip
    from labkit.data.luna16.build import build_luna16

    print(build_luna16(
        options.source, options.candidates, options.out, annotations=options.annotations,
        excluded=options.excluded, subsets=options.subsets, lungs=options.lungs, jobs=options.jobs,
    ))  # fmt: skip


def _simulate_luna16(options: argparse.Namespace, given: list[str]) -> None:
    given += [f"--{name.replace('_', '-')}" for name in ("excluded", "subsets", "lungs", "patients",
              "exclude_patients") if getattr(options, name)]  # fmt: skip
    if given:
        raise InputError(f"build luna16 --simulated makes its own scans and tables; leave out "
                         f"{' and '.join(given)}")  # fmt: skip
    from labkit.data.luna16.simulated import simulated_luna16

    cohort = simulated_luna16(
        options.simulated, options.out, seed=options.seed or 0, jobs=options.jobs
    )  # fmt: skip
    table = cohort.nodules
    print(f"{options.out}: simulated CT, {len(table)} candidates in "
          f"{table['series_uid'].nunique()} scans, {int(table['label'].sum())} of them on "
          "nodules")  # fmt: skip


def simulate(options: argparse.Namespace) -> None:
    """Write a whole simulated scan."""
    import time

    from labkit.data.simulate.dicom import write_scan
    from labkit.data.simulate.named import series_named
    from labkit.data.simulate.scene import scene_for_series

    if options.seed < 0:
        raise InputError(f"--seed {options.seed}: give 0 or a positive whole number")
    started = time.perf_counter()
    scene = scene_for_series(series_named(options.patient, options.series), options.seed)
    scan = scene.scan
    print(f"{scan.patient_id}: {scan.slices} slices of 512 x 512 pixels, {scan.slices * 0.526:.0f} "
          f"MB; {scan.slices * 0.05:.0f} to {scan.slices * 0.2:.0f} s")  # fmt: skip
    write_scan(scene, options.out, truth=options.truth, jobs=options.jobs)
    print(f"{options.out}: simulated CT of {scan.slices} slices, {len(scan.findings)} nodule(s) "
          f"that at least one reader outlined, {time.perf_counter() - started:.0f} s")  # fmt: skip


def _patients(file: Path | None) -> list[str] | None:
    if file is None:
        return None
    if not file.is_file():
        raise InputError(f"{file}: no such file; give a text file with one patient id a line")
    ids = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    if not ids:
        raise InputError(f"{file}: names no patient; give one patient id a line")
    return ids


def _max_thickness(options: argparse.Namespace) -> float | None:
    return None if options.max_thickness == float("inf") else options.max_thickness
