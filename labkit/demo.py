"""The main job: ST-CNN and MT-CNN against size alone on the simulated cohort, and a report."""

from __future__ import annotations

import base64
import datetime
import html
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from labkit import __version__
from labkit.cohorts.cohort import Cohort
from labkit.cohorts.simulated import simulated_cohort
from labkit.evaluation import crossval, statistics
from labkit.evaluation.crossval import Plan, estimate_seconds
from labkit.io import read_json, write_atomically
from labkit.models import NETWORKS
from labkit.plots import roc, style, views
from labkit.profiles import Profile
from labkit.training.machines import Device, default_jobs, describe_hardware, duration
from labkit.training.nine_views import load

_LABELLED = 751
_NAMES = {model: NETWORKS[model].name for model in ("st", "mt")}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>{refresh}
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.55 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 62rem;
        padding: 0 1rem; }}
h1 {{ line-height: 1.2; }} h2 {{ margin-top: 2.2rem; }}
img {{ max-width: 100%; height: auto; }} figure {{ margin: 1rem 0; }}
figcaption {{ color: #555; font-size: .92rem; max-width: 46rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .8rem; text-align: left; border-bottom: 1px solid #ddd; }}
.note {{ background: #f4f1e6; border-left: 4px solid #b58900; padding: .6rem 1rem; }}
footer {{ margin-top: 3rem; color: #666; font-size: .88rem; }}
</style></head><body>
<h1>{title}</h1>
{body}
<footer>Made by labkit {version}. {footer} Not for clinical use.</footer>
</body></html>
"""


def run(profile: Profile, out: Path, device: str = "auto") -> None:
    """Make the cohort, cross-validate both networks, compare, write `out`/report.html.

    The report is there from the first minute, with a picture, and grows: a browser that shows it
    loads it again by itself.

    Args:
        profile: how much of everything.
        out: folder of runs and report; what is there already is used.
        device: "auto", "cpu" or "cuda".
    """
    start = time.monotonic()
    plan = Plan(profile.folds, profile.repeats)
    configs = {model: profile.training(model=model) for model in _NAMES}
    count = min(profile.nodules or _LABELLED, _LABELLED)
    page = _Report("Nine views, two tasks: the simulated cohort", out / "report.html")
    page.text(
        "Every image here is simulated: CT made around the outlines, ratings, positions and "
        "spacings that LIDC-IDRI's readers and scanners left. It teaches and tests the method, and "
        "says nothing about patients.", of=' class="note"',
    )  # fmt: skip
    few = simulated_cohort(nodules=4, progress=False)
    page.figure(
        views.nine_views_figure(few, _typical_rows(few, set(few.nodules["nodule_id"]))[1]),
        "A malignant nodule in the nine planes through it that the networks see, one network each.",
    )
    page.save("Under way.", finished=False)
    print(f"A first picture, and soon the whole report: {page.file}", flush=True)

    jobs = default_jobs(Device.choose(device))
    seconds = {
        model: estimate_seconds(np.zeros(count), config, plan, device) / jobs
        for model, config in configs.items()
    }
    left = sum(seconds.values())
    _say(1, f"the simulated cohort: {count} labelled nodules around the readers' real outlines; "
            f"after it, at most {duration(left)} of training")  # fmt: skip
    cohort = simulated_cohort(profile.nodules, profile.uncertain)
    runs: dict[str, pd.DataFrame] = {}
    for step, (model, config) in enumerate(configs.items(), start=2):
        _say(step, f"{_NAMES[model]}, {plan.folds} folds by patient; "
                   f"at most {duration(left)} left in all")  # fmt: skip
        runs[_NAMES[model]] = crossval.run(
            cohort, config, out / model, folds=plan.folds, repeats=plan.repeats, device=device,
            keep_first_model=True,
        )  # fmt: skip
        left -= seconds[model]
    _say(4, "comparison and report; a few seconds left")
    table = statistics.table(runs, ("fused", "size_only"))
    mt = runs["MT-CNN"]
    sentences = [
        _sentence("MT-CNN less ST-CNN", statistics.compare(mt, runs["ST-CNN"])),
        _sentence(
            "MT-CNN less size only",
            statistics.compare(mt, mt, crossval.FUSED, crossval.SIZE_ONLY),
        ),
    ]
    page.text("How well benign and malignant nodules are told apart", "h2")
    page.text(
        f"{len(cohort.labelled)} nodules, {plan.repeats} x {plan.folds} folds by patient, at most "
        f"{configs['mt'].epochs} epochs, alpha {configs['mt'].alpha}: too few of each for the "
        "networks' best, and enough to see how all of it goes together. Values with 95 % intervals "
        "by bootstrap over patients; rates at a threshold of 0.5, chosen beforehand."
    )
    page.table(table)
    for sentence in sentences:
        page.text(sentence + ".")
    _add_figures(page, cohort, runs, out)
    hardware, minutes = describe_hardware(), (time.monotonic() - start) / 60
    trained = sum(read_json(out / m / "metrics.json", "a run")["training_seconds"] for m in _NAMES)
    page.save(
        f"Measured on {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}: "
        f"{hardware['gpu'] or hardware['processor']}, torch {hardware['torch']}; {minutes:.1f} min "
        f"in all, {trained / 60:.1f} min of network training summed over processes."
    )
    print(table.to_string(index=False), *sentences, sep="\n")
    print(f"\n{minutes:.1f} min. Report: {page.file}")


def _add_figures(page: _Report, cohort: Cohort, runs: dict[str, pd.DataFrame], out: Path) -> None:
    model = load(out / "mt" / "model")
    page.figure(
        roc.roc_figure(runs, simulated=True),
        "ROC curves of the fused predictions with bands that hold point by point. Read them "
        "beside the diameter alone: on LIDC, size is most of what the label says.",
    )
    page.text("Learning curves", "h2")
    curves = {name: pd.read_csv(out / m / "history.csv") for m, name in _NAMES.items()}
    page.figure(
        views.learning_curves(curves, simulated=True),
        "One thin line a network. The validation curves come from patients held out inside "
        "the training folds; they stop training and weigh the views. The test fold does not.",
    )
    page.text("Nine views, and what the second task reconstructs", "h2")
    first = runs["MT-CNN"].query("fold == 0 and repeat == 0")
    rows = _typical_rows(cohort, set(first["nodule_id"]))
    for row in rows:
        probabilities = model.predict(cohort, [row])
        fused = float(model.fuse(probabilities)[0])
        page.figure(
            views.nine_views_figure(cohort, row, probabilities=probabilities[0], fused=fused),
            "A nodule that the networks of the first fold have not seen, in its nine views, "
            "with each view's malignant probability.",
        )
    page.figure(
        views.reconstruction_figure(model, cohort, rows),
        "Input and reconstruction. What is missing below is what 4,096 features and the loss "
        "let go: noise first, then fine vessels and spicules.",
    )


def _say(step: int, text: str) -> None:
    print(f"\nStep {step} of 4: {text}", flush=True)


def _sentence(what: str, pair: dict[str, Any]) -> str:
    d, p = pair["within_folds_difference"], pair["p_value"]
    shown = p < 0.05 and not d["low"] <= 0 <= d["high"]
    verdict = "a difference" if shown else "no difference that both tests show"
    return (
        f"AUC within folds of {what}: {d['value']:+.3f} (95 % interval {d['low']:+.3f} to "
        f"{d['high']:+.3f}, DeLong p = {p:.2g}): {verdict}"
    )


def _typical_rows(cohort: Cohort, tested: set[str]) -> list[int]:
    """A benign and a malignant nodule among those tested, each of median size in its class."""
    table = cohort.nodules[cohort.nodules["nodule_id"].isin(tested)]
    of_class = [table[table["label"] == label].sort_values("diameter_mm") for label in (0, 1)]
    return [int(nodules.index[len(nodules) // 2]) for nodules in of_class]


class _Report:
    """One HTML file, `file`, that grows from top to bottom with its figures inside."""

    def __init__(self, title: str, file: Path) -> None:
        self.title, self.file = title, file
        self._parts: list[str] = []

    def text(self, text: str, tag: str = "p", of: str = "") -> None:
        """Add a paragraph, or another element with the attributes `of`."""
        self._parts.append(f"<{tag}{of}>{html.escape(text)}</{tag}>")

    def table(self, table: pd.DataFrame) -> None:
        """Add a table as it is."""
        self._parts.append(table.to_html(index=False, border=0))

    def figure(self, figure: Figure, caption: str) -> None:
        """Add a figure with its alternative text, and a caption that says what to see."""
        image = io.BytesIO()
        with style.house_style():
            figure.savefig(image, format="png", dpi=110)
        data = base64.b64encode(image.getvalue()).decode()
        self._parts.append(
            f'<figure><img alt="{html.escape(style.alt_text(figure), quote=True)}" '
            f'src="data:image/png;base64,{data}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def save(self, footer: str, finished: bool = True) -> None:
        """Write the page, atomically; `footer` says on what and when it was measured."""
        text = _PAGE.format(
            title=html.escape(self.title), body="\n".join(self._parts), version=__version__,
            footer=html.escape(footer),
            refresh="" if finished else '<meta http-equiv="refresh" content="10">',
        )  # fmt: skip
        write_atomically(self.file, lambda p: p.write_text(text, encoding="utf-8"))
