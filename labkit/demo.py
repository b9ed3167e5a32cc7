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
from labkit.plots import roc, style, views
from labkit.profiles import Profile
from labkit.training.config import TrainingConfig
from labkit.training.machines import Device, default_jobs, describe_hardware, duration, one_thread
from labkit.training.model import load

# One HTML file that holds a comparison of runs: table, ROC, learning curves, views.


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
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


class Report:
    """A page that grows from top to bottom and is then saved, with its figures inside.

    Args:
        title: of the page.

    >>> page = Report("A title")
    >>> page.text("One paragraph, <escaped>.")
    >>> "&lt;escaped&gt;" in page.html("")
    True
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[str] = []

    def heading(self, text: str) -> None:
        """A section's heading."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def note(self, text: str) -> None:
        """A paragraph that stands out."""
        self._parts.append(f'<p class="note">{html.escape(text)}</p>')

    def table(self, table: pd.DataFrame) -> None:
        """A table as it is."""
        self._parts.append(table.to_html(index=False, border=0))

    def figure(self, figure: Figure, caption: str) -> None:
        """A figure with its alternative text, and a caption that says what to see."""
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=110)
        data = base64.b64encode(image.getvalue()).decode()
        self._parts.append(
            f'<figure><img alt="{html.escape(style.alt_text(figure), quote=True)}" '
            f'src="data:image/png;base64,{data}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def html(self, footer: str) -> str:
        """The whole page; `footer` says on what and when it was measured."""
        return _PAGE.format(
            title=html.escape(self._title),
            body="\n".join(self._parts),
            version=__version__,
            footer=html.escape(footer),
        )

    def save(self, file: Path, footer: str) -> None:
        """Write the page, atomically."""
        write_atomically(file, lambda p: p.write_text(self.html(footer), encoding="utf-8"))


_LABELLED = 751
_NAMES = {"st": "ST-CNN", "mt": "MT-CNN"}


def run(profile: Profile, out: Path, device: str = "auto") -> None:
    """Make the cohort, cross-validate both networks, compare, write `out`/report.html.

    Args:
        profile: how much of everything.
        out: folder of runs and report; what is there already is used.
        device: "auto", "cpu" or "cuda".
    """
    start = time.monotonic()
    plan = Plan(profile.folds, profile.repeats)
    configs = {model: profile.training(model=model) for model in _NAMES}
    chosen = Device.choose(device)
    count = min(profile.nodules or _LABELLED, _LABELLED)
    jobs = default_jobs(chosen)
    with one_thread():
        expected = {
            model: estimate_seconds(count, config, plan, chosen) / jobs
            for model, config in configs.items()
        }
    total = sum(expected.values())
    _say(1, f"the simulated cohort: {count} labelled nodules around the readers' real outlines; "
            f"after it, at most {duration(total)} of training")  # fmt: skip
    cohort = simulated_cohort(profile.nodules, profile.uncertain)
    runs: dict[str, pd.DataFrame] = {}
    left = total
    for step, (model, config) in enumerate(configs.items(), start=2):
        _say(step, f"{_NAMES[model]}, {plan.folds} folds by patient; "
                   f"at most {duration(left)} left in all")  # fmt: skip
        runs[_NAMES[model]] = crossval.run(
            cohort, config, out / model, folds=plan.folds, repeats=plan.repeats, device=device,
            keep_first_model=True,
        )  # fmt: skip
        left -= expected[model]
    _say(4, "comparison and report; a few seconds left")
    table = statistics.table(runs, ("fused", "size_only"))
    pair = statistics.compare(runs["MT-CNN"], runs["ST-CNN"])
    size = statistics.compare(runs["MT-CNN"], runs["MT-CNN"], crossval.FUSED, crossval.SIZE_ONLY)
    minutes = (time.monotonic() - start) / 60
    file = out / "report.html"
    _write_report(cohort, configs["mt"], plan, runs, table, pair, size, out, file, minutes)
    print(table.to_string(index=False))
    print(_sentence("MT-CNN less ST-CNN", pair))
    print(_sentence("MT-CNN less size only", size))
    print(f"\n{minutes:.1f} min. Report: {file}")


def _say(step: int, text: str) -> None:
    print(f"\nStep {step} of 4: {text}", flush=True)


def _sentence(what: str, pair: dict[str, Any]) -> str:
    d, p = pair["auc_difference"], pair["delong"]["p_value"]
    shown = p < 0.05 and not d["low"] <= 0 <= d["high"]
    verdict = "a difference" if shown else "no difference that both tests show"
    return (
        f"AUC of {what}: {d['value']:+.3f} (95 % interval {d['low']:+.3f} to {d['high']:+.3f}, "
        f"DeLong p = {p:.2g}): {verdict}"
    )


def _write_report(
    cohort: Cohort,
    config: TrainingConfig,
    plan: Plan,
    runs: dict[str, pd.DataFrame],
    table: pd.DataFrame,
    pair: dict[str, Any],
    size: dict[str, Any],
    out: Path,
    file: Path,
    minutes: float,
) -> None:
    page = Report("Nine views, two tasks: the simulated cohort")
    page.note(
        "Every image here is simulated: CT made around the outlines, ratings, positions and "
        "spacings that LIDC-IDRI's readers and scanners left. It teaches and tests the method, and "
        "says nothing about patients."
    )
    page.heading("How well benign and malignant nodules are told apart")
    page.text(
        f"{len(cohort.labelled)} nodules, {plan.repeats} x {plan.folds} folds by patient, at most "
        f"{config.epochs} epochs, alpha {config.alpha}. Values with 95 % intervals by bootstrap "
        "over patients; rates at a threshold of 0.5, chosen beforehand."
    )
    page.table(table)
    page.text(_sentence("MT-CNN less ST-CNN", pair) + ".")
    page.text(_sentence("MT-CNN less size only", size) + ".")
    model = load(out / "mt" / "model")
    with style.house_style():
        page.figure(
            roc.roc_figure(runs, simulated=True),
            "ROC curves of the fused predictions with bands that hold point by point. Read them "
            "beside the diameter alone: on LIDC, size is most of what the label says.",
        )
        curves = {name: pd.read_csv(out / m / "history.csv") for m, name in _NAMES.items()}
        page.heading("Learning curves")
        page.figure(
            views.learning_curves(curves, simulated=True),
            "One thin line a network. The validation curves come from patients held out inside "
            "the training folds; they stop training and weigh the views. The test fold does not.",
        )
        page.heading("Nine views, and what the second task reconstructs")
        predictions = runs["MT-CNN"]
        first = predictions[(predictions["fold"] == 0) & (predictions["repeat"] == 0)]
        tested = set(first["nodule_id"])
        rows = _typical_rows(cohort, tested)
        for row in rows:
            probabilities = model.predict(cohort, [row])
            page.figure(
                views.nine_views_figure(
                    cohort, row, probabilities=probabilities[0],
                    fused=float(model.fuse(probabilities)[0]),
                ),
                "A nodule that the networks of the first fold have not seen, in its nine views, "
                "with each view's malignant probability.",
            )  # fmt: skip
        page.figure(
            views.reconstruction_figure(model, cohort, rows),
            "Input and reconstruction. What is missing below is what 4,096 features and the loss "
            "let go: noise first, then fine vessels and spicules.",
        )
    hardware = describe_hardware()
    when = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    seconds = [read_json(out / m / "metrics.json", "a run")["training_seconds"] for m in _NAMES]
    page.save(
        file,
        f"Measured on {when}: {hardware['gpu'] or hardware['processor']}, torch "
        f"{hardware['torch']}; {minutes:.1f} min in all, {sum(seconds) / 60:.1f} min of network "
        "training summed over processes.",
    )


def _typical_rows(cohort: Cohort, tested: set[str]) -> list[int]:
    """A benign and a malignant nodule of the test fold, each of median size in its class."""
    table = cohort.nodules
    rows = []
    for label in (0, 1):
        among = table[table["nodule_id"].isin(tested) & (table["label"] == label)]
        order = among["diameter_mm"].sort_values(kind="stable")
        rows.append(int(order.index[len(order) // 2]))
    return [int(r) for r in np.asarray(rows)]
