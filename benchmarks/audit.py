"""Other people's predictions on real CT: leakage, what a ruler leaves, a submission's CPM.

    LABKIT_REAL_DATA=FOLDER python -m benchmarks.audit --out results/audit.json

FOLDER/audit holds the tables of `labkit.evaluation.audit`; DeepLung's are fetched where they are
not there. Lesson 13 shows what this wrote, where it cannot compute it.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.common import command
from labkit.evaluation import audit
from labkit.evaluation.statistics import RESAMPLES
from labkit.training.machines import provenance

SOURCES = {
    "networks": "github.com/nykemariotto/nodule-partition-leakage (MIT), reduced to a row a "
    "tested nodule, repeat, fold and network",
    "submission": f"{audit.DEEPLUNG.format(audit.COMMIT)} (Apache-2.0)",
}
LIMITS = [
    "The diameter is of the outlines of the readers who gave the labels, and the networks' crops "
    "are cut to these outlines: size is not hidden from them.",
    "By slice, a nodule is judged by the fold with most of its slices, by fewer of them than by "
    "patient; with all slices up to five networks vote, which by patient are one.",
    "By slice, the inner validation set that stopped the training leaks, too: the difference is of "
    "the whole procedure.",
    "The regression with the diameter is fitted on probabilities of networks that were trained on "
    "the tested fold's labels.",
    "How a network or an epoch was chosen cannot be read off its predictions.",
]


def measure(*, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Ask all questions of both sets."""
    return {
        "what": "predictions of public repositories on real CT, judged by this course's functions",
        **provenance(), "sources": SOURCES, "sha256": audit.SHA256, "resamples": resamples,
        "limits": LIMITS,
        "networks": audit.judge_networks(audit.slice_networks(), resamples),
        "submission": audit.judge_submission(resamples),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(command(measure, __doc__, say=lambda of: f"CPM {of['submission']['cpm']:.4f}"))
