"""The main job: ST-CNN and MT-CNN against size alone on the simulated cohort, and a report."""

from __future__ import annotations

import base64
import html
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from labkit import __version__
from labkit.cohorts.cohort import Cohort
from labkit.cohorts.simulated import simulated_cohort
from labkit.evaluation import crossval, statistics
from labkit.io import read_json, write_atomically
from labkit.models import NETWORKS
from labkit.plots import roc, style, views
from labkit.profiles import Profile
from labkit.training.machines import Device, default_jobs, describe_hardware, duration, now
from labkit.training.nine_views import load

_LABELLED = 751
_NAMES = {model: NETWORKS[model].name for model in ("st", "mt")}
_TITLE = "Nine views, two tasks: the simulated cohort"
_SIMULATED = (
    "Every image here is simulated: CT made around the outlines, ratings, positions and spacings "
    "that LIDC-IDRI's readers and scanners left. It teaches and tests the method, and says nothing "
    "about patients."
)
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
<p class="note">{note}</p>
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
    start, file = time.monotonic(), out / "report.html"
    plan = crossval.Plan(profile.folds, profile.repeats)
    configs = {model: profile.training(model=model) for model in _NAMES}
    count = min(profile.nodules or _LABELLED, _LABELLED)
    few = simulated_cohort(nodules=4, progress=False)
    first_picture = _figure(
        views.nine_views_figure(few, _typical_rows(few, set(few.nodules["nodule_id"]))[1]),
        "A malignant nodule in the nine planes through it that the networks see, one network each.",
    )
    _save(file, [first_picture], "Under way.", '<meta http-equiv="refresh" content="10">')
    print(f"A first picture, and soon the whole report: {file}", flush=True)

    jobs = default_jobs(Device.choose(device))
    seconds = {
        model: crossval.estimate_seconds(np.zeros(count), config, plan, device) / jobs
        for model, config in configs.items()
    }
    left = sum(seconds.values())
    print(f"\nStep 1 of 4: the simulated cohort: {count} labelled nodules around the readers' real "
          f"outlines; after it, at most {duration(left)} of training", flush=True)  # fmt: skip
    cohort = simulated_cohort(profile.nodules, profile.uncertain)
    runs: dict[str, pd.DataFrame] = {}
    for step, (model, config) in enumerate(configs.items(), start=2):
        print(f"\nStep {step} of 4: {_NAMES[model]}, {plan.folds} folds by patient; at most "
              f"{duration(left)} left in all", flush=True)  # fmt: skip
        runs[_NAMES[model]] = crossval.run(
            cohort, config, out / model, folds=plan.folds, repeats=plan.repeats, device=device,
            keep_first_model=True,
        )  # fmt: skip
        left -= seconds[model]
    print("\nStep 4 of 4: comparison and report; a few seconds left", flush=True)
    table, mt = statistics.table(runs, ("fused", "size_only")), runs["MT-CNN"]
    alone = statistics.compare(mt, mt, crossval.FUSED, crossval.SIZE_ONLY)
    sentences = [
        _sentence("MT-CNN less ST-CNN", statistics.compare(mt, runs["ST-CNN"])),
        _sentence("MT-CNN less size only", alone),
    ]
    body = [
        first_picture,
        "<h2>How well benign and malignant nodules are told apart</h2>",
        _text(
            f"{len(cohort.labelled)} nodules, {plan.repeats} x {plan.folds} folds by patient, at "
            f"most {configs['mt'].epochs} epochs, alpha {configs['mt'].alpha}: too few of each for "
            "the networks' best, and enough to see how all of it goes together. Values with 95 % "
            "intervals by bootstrap over patients; rates at a threshold of 0.5, chosen beforehand."
        ),
        table.to_html(index=False, border=0),
        *(_text(f"{sentence}.") for sentence in sentences),
        *_figures(cohort, runs, out),
    ]
    hardware, minutes = describe_hardware(), (time.monotonic() - start) / 60
    trained = sum(read_json(out / m / "metrics.json", "a run")["training_seconds"] for m in _NAMES)
    _save(
        file, body,
        f"Measured on {now()[:10]}: {hardware['gpu'] or hardware['processor']}, torch "
        f"{hardware['torch']}; {minutes:.1f} min in all, {trained / 60:.1f} min of network "
        "training summed over processes.",
    )  # fmt: skip
    print(table.to_string(index=False), *sentences, sep="\n")
    print(f"\n{minutes:.1f} min. Report: {file}")


def _figures(cohort: Cohort, runs: dict[str, pd.DataFrame], out: Path) -> Iterator[str]:
    model = load(out / "mt" / "model")
    yield _figure(
        roc.roc_figure(runs, simulated=True),
        "ROC curves of the fused predictions with bands that hold point by point. Read them "
        "beside the diameter alone: on LIDC, size is most of what the label says.",
    )
    yield "<h2>Learning curves</h2>"
    curves = {name: pd.read_csv(out / m / "history.csv") for m, name in _NAMES.items()}
    yield _figure(
        views.learning_curves(curves, simulated=True),
        "One thin line a network. The validation curves come from patients held out inside "
        "the training folds; they stop training and weigh the views. The test fold does not.",
    )
    yield "<h2>Nine views, and what the second task reconstructs</h2>"
    first = runs["MT-CNN"].query("fold == 0 and repeat == 0")
    rows = _typical_rows(cohort, set(first["nodule_id"]))
    for row in rows:
        said = model.predict(cohort, [row])
        fused = float(model.fuse(said)[0])
        yield _figure(
            views.nine_views_figure(cohort, row, probabilities=said[0], fused=fused),
            "A nodule that the networks of the first fold have not seen, in its nine views, "
            "with each view's malignant probability.",
        )
    yield _figure(
        views.reconstruction_figure(model, cohort, rows),
        "Input and reconstruction. What is missing below is what 4,096 features and the loss "
        "let go: noise first, then fine vessels and spicules.",
    )


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


def _text(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _figure(figure: Figure, caption: str) -> str:
    """A figure inside the page with its alternative text, and a caption that says what to see."""
    image = io.BytesIO()
    with style.house_style():
        figure.savefig(image, format="png", dpi=110)
    data = base64.b64encode(image.getvalue()).decode()
    alt = html.escape(style.alt_text(figure), quote=True)
    return (
        f'<figure><img alt="{alt}" src="data:image/png;base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _save(file: Path, body: list[str], footer: str, refresh: str = "") -> None:
    """Write the page; its footer says on what and when it was measured."""
    page = _PAGE.format(
        title=_TITLE, note=html.escape(_SIMULATED), body="\n".join(body), version=__version__,
        footer=html.escape(footer), refresh=refresh,
    )  # fmt: skip
    write_atomically(file, lambda p: p.write_text(page, encoding="utf-8"))
