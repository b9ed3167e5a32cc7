"""Other people's predictions on real CT, asked what the course asks of its own.

Two public sets say what large networks made of real images: a row a nodule, or a mark, no image.

- ImageNet networks on axial slices of LIDC-IDRI, trained three times on each of several kinds of
  folds (github.com/nykemariotto/nodule-partition-leakage, MIT). Its files of slices are reduced to
  one table: the mean probability of a nodule's slices that were tested in one fold. A slice is cut
  to the readers' box around the nodule and 8 mm more, and drawn on 256 x 256 pixels.
- DeepLung's marks on LUNA-16, and the tables that judge them (github.com/wentaozhu/DeepLung,
  Apache-2.0; Zhu et al., WACV 2018).

Neither is part of the course (data/README.md says where they are). Both are pinned by checksum.
"""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from labkit import io, paths
from labkit.annotations import luna16
from labkit.errors import InputError
from labkit.evaluation import froc, statistics
from labkit.evaluation.predictions import FUSED, SIZE_ONLY
from labkit.evaluation.statistics import RESAMPLES, plain

NETWORKS = {"densenet121": "DenseNet-121", "efficientnet_b0": "EfficientNet-B0",
            "vit_small": "ViT-S/16"}  # fmt: skip
SPLITS = {"patient": "by patient", "nodule": "by nodule", "random": "by slice"}
"""What folds keep together."""
VOTES = "by slice, all slices"
WITH_SIZE = "with_size"
PUBLISHED = {"sensitivity": [0.692, 0.769, 0.824, 0.865, 0.893, 0.917, 0.933], "cpm": 0.842}
"""What DeepLung's authors print of these marks, at `froc.RATES` (README of their repository)."""

DEEPLUNG = "https://raw.githubusercontent.com/wentaozhu/DeepLung/{}/evaluationScript/annotations/"
COMMIT = "3d7c50e541d4421b8107ba998dc3110bab82dede"
SLICES = "lidc_slice_networks.csv"
SHA256 = {
    SLICES: "dfc7faa697cedbd8c4c83f59fdd1146fc761ab2ffc9cf42c898bf363b0026814",
    "dpn26bs32.csv": "7977a8340b1e372a5485eb8d5c7574b77b56b60324d61679f5c9cc2aa7265244",
    "newannotations.csv": "64dc21c00f9e8344e614c8b2da1bc83ee62dadfc5bed04f317aa8239739939c7",
    "newannotations_excluded.csv": "959f1a35be6200bca66b82f12971242218e39dcb94135141aa005d348d5a9179",  # noqa: E501
    "newseriesuids.csv": "145d6833b0dee6b01aa9d17ebb41b43efcaace5c32457390bf0ac7bb57303c78",
}


def original(name: str) -> Path:
    """Return where a file of `SHA256` lies: in the cache, unpacked or fetched into it if need be.

    Unpacked from `LABKIT_REAL_DATA`/audit. Raises InputError where it is nowhere, or another file.
    """
    kept = paths.cache() / "audit" / name
    packed = f"{name}.xz" if name == SLICES else f"deeplung_{name}.xz"
    if not kept.is_file() and (real := paths.real_data()) and (real / "audit" / packed).is_file():
        try:
            content = lzma.decompress((real / "audit" / packed).read_bytes())
        except lzma.LZMAError as error:
            raise InputError(f"{real / 'audit' / packed}: damaged ({error}); copy it again"
                             ) from None  # fmt: skip
        io.write_atomically(kept, lambda p: p.write_bytes(content))
    if name == SLICES and not (kept.is_file() and io.sha256(kept) == SHA256[name]):
        raise InputError(f"{kept}: missing, or another table than is meant; remove it, and put "
                         f"{packed} into the folder audit of LABKIT_REAL_DATA (data/README.md)"
                         )  # fmt: skip
    return io.fetch(DEEPLUNG.format(COMMIT) + name, SHA256[name], kept)


# The networks on slices.


def slice_networks() -> pd.DataFrame:
    """Read the table of the networks on slices, with `label` and `view` as predictions have them.

    `cohort`, `split`, `network`, `repeat`, `fold`, `patient_id`, `nodule_id`, `readers`,
    `malignancy_median`, `diameter_mm`, `slices` and `probability`. Where slices are scattered
    (split "random") a nodule may have rows in several folds.
    """
    table = pd.read_csv(original(SLICES))
    return table.assign(label=(table["malignancy_median"] > 3).astype(int), view=FUSED)


def scattered(table: pd.DataFrame, column: str) -> float:
    """Compute the share of nodules or patients, a column, that stand in several folds."""
    return float((table.groupby(["repeat", column])["fold"].nunique() > 1).mean())


def one_fold_each(table: pd.DataFrame) -> pd.DataFrame:
    """Select one row a nodule and repeat, of the fold with most of its slices: one network's."""
    most = table.sort_values(["slices", "fold"], ascending=[False, True], kind="stable")
    return most.drop_duplicates(["repeat", "nodule_id"])


def all_slices(table: pd.DataFrame) -> pd.DataFrame:
    """Average a nodule's slices, whichever fold's network saw each; the fold becomes 0."""
    each = [table["repeat"], table["nodule_id"]]
    total = (table["probability"] * table["slices"]).groupby(each).transform("sum")
    mean = total / table["slices"].groupby(each).transform("sum")
    return table.assign(probability=mean, fold=0).drop_duplicates(["repeat", "nodule_id"])


def with_size(predictions: pd.DataFrame) -> pd.DataFrame:
    """Add two views: the diameter alone, and the network's log-odds with the log-diameter.

    Logistic regressions, fitted for each fold on the others of its repeat. (The networks that
    judged those were trained on this fold's labels: more than two coefficients can pass on.)
    """
    parts, how = [predictions], {"method": "predict_proba"}
    for _, repeat in predictions.groupby("repeat"):
        mm = np.log(repeat["diameter_mm"].to_numpy(dtype=float))
        odds = logit(repeat["probability"].clip(1e-5, 1 - 1e-5).to_numpy(dtype=float))
        for view, x in ((SIZE_ONLY, [mm]), (WITH_SIZE, [mm, odds])):
            given = np.column_stack(x), repeat["label"].to_numpy()
            folds = PredefinedSplit(repeat["fold"])
            fitted = cross_val_predict(LogisticRegression(), *given, cv=folds, **how)[:, 1]
            parts.append(repeat.assign(view=view, probability=fitted))
    return pd.concat(parts, ignore_index=True)


def judge_networks(table: pd.DataFrame, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Ask of networks who stands in several folds, what that brings, and what a ruler leaves.

    Args:
        table: columns of `slice_networks`.

    Returns:
        As JSON has it: `cohorts`, name -> counts, and share `scattered` by split; `auc`, cohort ->
        network -> method -> AUC within folds with interval, and pooled by repeat (of all slices
        both pooled); and two families of `statistics.compare`, each corrected by Holm: `size`, a
        network, and with the diameter, less the diameter alone; `splits`, folds of another kind
        less folds by patient.
    """
    cohorts, auc, size, splits = (dict[str, Any]() for _ in range(4))
    how: dict[str, Any] = {"resamples": resamples}
    for key, own in table.groupby(["cohort", "network"], sort=False):
        cohort, network = (NETWORKS.get(name, name) for name in map(str, key))
        of = {SPLITS[str(split)]: rows for split, rows in own.groupby("split", sort=False)}
        one = {split: one_fold_each(rows) for split, rows in of.items()}
        patient = with_size(one.pop("by patient"))
        for view, what in ((FUSED, network), (WITH_SIZE, f"{network} with diameter")):
            pair = statistics.compare(patient, patient, view, SIZE_ONLY, **how)
            size[f"{cohort}: {what} less diameter alone"] = pair
        for split, rows in one.items():
            pair = statistics.compare(rows, patient, **how)
            splits[f"{cohort}: {network}, {split} less by patient"] = pair
        methods = {"by patient": (patient, FUSED), "diameter alone": (patient, SIZE_ONLY),
                   "with diameter": (patient, WITH_SIZE)}  # fmt: skip
        methods |= {split: (rows, FUSED) for split, rows in one.items()}
        if "by slice" in of:
            methods[VOTES] = all_slices(of["by slice"]), FUSED
        of_methods = {method: _auc(*which, resamples) for method, which in methods.items()}
        auc.setdefault(cohort, {})[network] = of_methods
        nodules = own.drop_duplicates("nodule_id")
        cohorts[cohort] = {
            "nodules": len(nodules), "malignant": int(nodules["label"].sum()),
            "patients": nodules["patient_id"].nunique(),
            "scattered": {s: {unit: round(scattered(rows, f"{unit}_id"), 6)
                              for unit in ("nodule", "patient")} for s, rows in of.items()},
        }  # fmt: skip
    return {"cohorts": cohorts, "auc": auc} | {
        name: {"family": statistics.correct(pairs), "comparisons": pairs}
        for name, pairs in (("size", size), ("splits", splits))
    }


def _auc(predictions: pd.DataFrame, view: str, resamples: int) -> dict[str, Any]:
    """AUC within folds with its interval, and pooled of each repeat."""
    chosen = predictions[predictions["view"] == view]
    pooled = [statistics.roc_auc(r["label"], r["probability"]) for _, r in chosen.groupby("repeat")]
    inside = statistics.within_folds_auc(chosen, view, resamples=resamples)
    return {"within_folds": plain(inside), "by_repeat": [round(of, 6) for of in pooled]}


# The submission.


def deeplung() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, list[str]]:
    """Read DeepLung's marks, and nodules, excluded findings and scans, as `froc.evaluate` takes.

    Scan 00001 of the other tables is called 1 in that of the marks.
    """
    marks = luna16.read_submission(original("dpn26bs32.csv"))
    marks[luna16.SERIES] = marks[luna16.SERIES].astype(str).str.zfill(5)
    nodules = luna16.read_annotations(original("newannotations.csv"))
    excluded = luna16.read_excluded(original("newannotations_excluded.csv"))
    return marks, nodules, excluded, luna16.read_series(original("newseriesuids.csv"))


def judge_submission(resamples: int = RESAMPLES) -> dict[str, Any]:
    """Judge DeepLung's marks by the challenge's rules (`froc.as_values`), beside `PUBLISHED`."""
    found = froc.evaluate(*deeplung(), bootstraps=resamples)
    return froc.as_values(found) | {"counts": vars(found.counts), "published": PUBLISHED}


def results(resamples: int = RESAMPLES) -> tuple[dict[str, Any], dict[str, str]]:
    """Return `networks` and `submission`, computed here if their tables are to be had.

    Else as they stand in `results/audit.json`; the second says of which parts, and why.
    """
    found, missing = io.read_json(paths.results() / "audit.json", "a result"), {}
    parts = {"networks": lambda: judge_networks(slice_networks(), resamples),
             "submission": lambda: judge_submission(resamples)}  # fmt: skip
    for name, compute in parts.items():
        try:
            found[name] = compute()
        except InputError as error:
            missing[name] = str(error)
    return found, missing
