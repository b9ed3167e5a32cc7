"""Prediction tables with known properties, for tests of what is computed from them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from labkit.errors import InputError


def refused(words: str, function, *arguments, **options) -> None:
    """Assert that a call is refused with these words."""
    with pytest.raises(InputError, match=words):
        function(*arguments, **options)


def predictions(
    patients: int = 40, repeats: int = 1, folds: int = 4, signal: float = 1.5, shared: float = 0.5,
    drift: float = 0.0, seed: int = 0, scores_seed: int = 1,
) -> pd.DataFrame:  # fmt: skip
    """Two nodules a patient (one benign, one malignant), scores of one view, folds by patient.

    `signal` is the distance of the classes' mean logits, `shared` the share of their variance that
    siblings have in common, `drift` the standard deviation of what each fold adds to all its
    logits; `seed` is of the folds, `scores_seed` of the scores.
    """
    rng = np.random.default_rng(scores_seed)
    patient = np.repeat(np.arange(patients), 2)
    label = np.tile([0, 1], patients)
    common = np.sqrt(shared) * rng.normal(size=patients)[patient]
    parts = []
    for repeat in range(repeats):
        order = np.random.default_rng([seed, repeat]).permutation(patients)
        fold = (order % folds)[patient]
        z = signal * (label - 0.5) + common + np.sqrt(1 - shared) * rng.normal(size=len(label))
        z = z + drift * rng.normal(size=folds)[fold]
        parts.append(pd.DataFrame({
            "nodule_id": [f"n{i:03d}" for i in range(len(label))],
            "patient_id": [f"p{i:03d}" for i in patient],
            "repeat": repeat, "fold": fold, "view": "fused", "probability": expit(z),
            "label": label,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)
