"""The README's results, written from `results/` and from nothing else.

Our rows of Table 1 first, of nodules and of LUNA-16's candidates, then what the sweeps found, then
runs that were trained longer, then speed. What is not in `results/` has no line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labkit import paths
from labkit._readme_luna import cpm_of, images, luna_table
from labkit._readme_words import difference, how, interval, judged
from labkit.evaluation import crossval
from labkit.experiments import committed, judging
from labkit.files import read_json

BEGIN = "<!-- results: begin (python -m labkit.results readme) -->"
END = "<!-- results: end -->"
_ROWS = ("", ", axial", ", three orthogonal")
_SAID = {"": "nine views", ", axial": "axial view alone", ", three orthogonal": "three views"}
_SWEEPS = {"fig7": "alpha", "fig6": "depth", "fig5": "regularisation"}
_METRICS = ("auc", "sensitivity", "specificity")


def readme_block() -> str:
    """Everything between the README's markers, as Markdown."""
    parts = {
        "": _table1(),
        "Differences of these rows": _comparisons(),
        "False positives among LUNA-16's candidates": luna_table(),
        "Sweeps": _sweeps(),
        "Trained longer, and on other images than tested": [*_longer(), *_transfer()],
        "Speed, and what is simulated": _speed(),
    }
    lines = [BEGIN]
    for title, part in parts.items():
        if part:
            lines += ["", f"**{title}**", "", *part] if title else part
    return "\n".join([*lines, END])


def _figures(name: str, cohorts: tuple[str, ...] = committed.NODULES) -> dict[str, dict[str, Any]]:
    """Kind of images -> a figure's committed values: real, simulated, LUNA-16's."""
    kinds = {c for n, c in committed.there(cohorts) if n == name}
    ordered = sorted(kinds, key=lambda kind: (kind == committed.LUNA, kind))
    return {kind: committed.read(name, kind) for kind in ordered}


def _table1() -> list[str]:
    """Our rows of Table 1, with published values in columns of their own."""
    tables = _figures("table1")
    if not tables:
        return []
    lines = [
        "| Images | Method | AUC (95 % interval) | Sensitivity | Specificity | AUC as published | "
        "Sensitivity as published |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, values in tables.items():
        published = {
            (p["what"].removesuffix(", LIDC-IDRI"), p["metric"]): f"{p['value']:.3f}"
            for p in values["published"]
            if p["what"].endswith(", LIDC-IDRI")
        }
        rows = values["rows"]
        named = [(n, n) for n in ("size only", "size + calcification") if n in rows]
        for model in ("ST-CNN", "MT-CNN"):
            named += [
                (f"{model}{row}", f"{model}, {_SAID[row]}") for row in _ROWS if model + row in rows
            ]
        for row, said in named:
            mark = " (*)" if rows[row]["note"] else ""
            cells = [interval(rows[row]["metrics"][m]) for m in _METRICS]
            there = [published.get((row, m), "") for m in ("auc", "sensitivity")]
            lines.append("| " + " | ".join([kind, said + mark, *cells, *there]) + " |")
    lines += ["", "(*) reads the readers' own ratings, which no image method is given.", ""]
    for kind, values in tables.items():
        counts = next(iter(values["rows"].values()))["metrics"]
        lines.append(
            f"- {_images(kind, values)}, {counts['nodules']} labelled nodules of "
            f"{counts['patients']} patients: {how(values, 'patient')}."
        )
    return lines


def _images(kind: str, values: dict[str, Any]) -> str:
    if kind == "simulated":
        return "Simulated CT around the real readers' outlines"
    if values["cohort"]["name"] != "real_cubes":
        return f"Real CT ({values['cohort']['name']})"
    return (
        "Real LIDC-IDRI cubes (Armato et al. 2011, CC BY 3.0) in which only the slices that the "
        "nodule itself occupies are real and every other slice is air, so that eight of nine views "
        "are strips as wide as the nodule is long"
    )


def _comparisons() -> list[str]:
    """Differences of Table 1's rows, corrected for being several."""
    lines = []
    for kind, values in _figures("table1").items():
        for what, pair in values["comparisons"].items():
            lines.append(f"- {kind}, AUC of {what}: {judged(pair, values['family'])}.")
        for model, fusion in values["fusion"].items():
            for way in ("equal weights", "logistic stacking"):
                pair = fusion["comparisons"].get(f"{way} less AUC weights (Eq. 4)")
                if model == "MT-CNN" and pair is not None:
                    lines.append(
                        f"- {kind}, AUC of {way} less AUC weights (Eq. 4) in fusing {model}: "
                        f"{judged(pair, fusion['family'], 4)}."
                    )
    return lines


def _sweeps() -> list[str]:
    """What the sweeps over alpha, depth and regularisation found, a line each."""
    lines = []
    for name, what in _SWEEPS.items():
        for kind, values in _figures(name, committed.COHORTS).items():
            pairs, said = values["comparisons"], kind
            if kind == committed.LUNA:
                said = images(values)
            if not pairs:
                continue
            largest = max(pairs, key=lambda p: abs(pairs[p]["auc_difference"]["value"]))
            found = [p for p in pairs if pairs[p]["found"]]
            kept = [p for p in found if judging.side(pairs[p])]
            same = sum(judging.inside(pair) for pair in pairs.values())
            first = values["variants"].get(largest.split(" less ")[0], {}).get("trained", {})
            plan = values["plan"]["sweeps"]
            folds = plan["first_folds"] or plan["folds"]
            state = "" if values["complete"] else f" ({len(values['missing'])} variants to come)"
            margin = pairs[largest]["equivalence"]["margin"]
            lines.append(
                f"- {said}, {what} ({values['where'].split(',')[0]}), {folds} of {plan['folds']} "
                f"folds{state}: {len(found)} of {len(pairs)} pooled differences survive Holm's "
                f"correction, {len(kept)} of them within folds as well; {same} are shown to be "
                f"smaller than {margin:g} both ways; the largest is {largest}: "
                f"{difference(pairs[largest]['auc_difference'])}{cpm_of(pairs[largest])}"
                f"{_dead(first)}."
            )
    return lines


def _dead(trained: Mapping[str, Any]) -> str:
    """How many of a variant's networks never learnt, where some did not."""
    if not trained.get("at_chance"):
        return ""
    return f" ({trained['at_chance']} of the former's {trained['networks']} networks never learnt)"


def _longer() -> list[str]:
    """Runs that `labkit.results collect` took, where they were trained longer than Table 1's."""
    lines = []
    epochs = {
        values["cohort"]["name"]: values["config"]["epochs"]
        for values in _figures("table1").values()
    }
    for file in sorted(paths.results().glob("*.json")):
        values = read_json(file, "a result")
        runs = list(values.get("runs", {}).values())
        if not runs or runs[0]["config"]["epochs"] <= epochs.get(runs[0]["cohort"]["name"], 0):
            continue
        lines.append(f"- `{file.name}`: {values['about']}")
        for model, run in values["runs"].items():
            auc = interval(run["metrics"][crossval.FUSED]["auc"])
            plan, config = run["plan"], run["config"]
            lines.append(
                f"  - {model}: AUC {auc}, {plan['repeats']} x {plan['folds']} folds by "
                f"{plan['split']}, up to {config['epochs']} epochs, batches of "
                f"{config['batch_size']}, {run['started'][:10]}, {run['hardware']['device']}"
            )
        for what, pair in values["comparisons"].items():
            lines.append(
                f"  - AUC of {what}: {difference(pair['auc_difference'])}, "
                f"DeLong by patient p = {pair['delong']['p_value']:.2g}"
            )
    return lines


def _there(name: str) -> dict[str, Any] | None:
    """A measurement of `results/`, or None where it was not made."""
    file = paths.results() / f"{name}.json"
    return read_json(file, "a result") if file.is_file() else None


def _transfer() -> list[str]:
    """Lines on networks that saw only simulated images and are tested on real ones."""
    values = _there("transfer")
    if values is None:
        return []
    metrics = {arm: m["auc"] for arm, m in values["metrics"].items()}
    d = values["differences"]["simulated less real"]["auc_difference"]
    auc = {arm: interval(a) for arm, a in metrics.items()}
    plan = values["plan"]
    return [
        "- Trained on simulated CT alone, the axial MT-CNN has an AUC of "
        f"{auc['simulated']} on real nodules of other patients; trained on real ones "
        f"{auc['real']}; the diameter alone {auc['size_only']} ({plan['seeds']} repeats of "
        f"{plan['folds']} folds by patient).",
        f"  - AUC of trained on simulated less trained on real: {difference(d)}",
    ]


def _speed() -> list[str]:
    """Lines on speed from the benchmarks that are there, each a ratio within one run."""
    lines = []
    if b := _there("benchmark_views"):
        scan = "real" if b["volume"].startswith("1.") else "synthetic"
        lines.append(
            f"- The cube and nine views of a nodule in a {scan} scan: "
            f"{b['cube_and_views_ms']:.0f} ms on one core, {b['ratio']:.0f} times less than "
            "resampling the whole scan to 1 mm by SimpleITK's B-spline, from which they differ by "
            f"{b['largest_difference_hu']:.4f} HU at most ({b['date'][:10]})."
        )
    if b := _there("benchmark_labels"):
        lines.append(
            f"- All 2,651 nodules of LIDC-IDRI, grouped and measured: {b['labkit_seconds']:.1f} s, "
            f"{b['ratio']:.0f} times less than pylidc (extrapolated from a sample of its scans)."
        )
    if b := _there("benchmark_training"):
        ratios = ", ".join(
            f"{ratio:.1f} times as fast in {name.split(', ')[1]}"
            for name, ratio in b["ratio"].items()
            if name.startswith("labkit")
        )
        lines.append(
            f"- Nine MT-CNNs trained at batch {b['batch_size']} against the textbook loop, the "
            f"same updates on the same processor without a GPU: {ratios} ({b['date'][:10]})."
        )
    if b := _there("benchmark_simulate"):
        cohort, alone = b["cohort"], b["whole_scan"]["runs"][0]
        lines.append(
            f"- All {cohort['nodules']:,} nodules simulated: {cohort['wall_s']:.0f} s on "
            f"{cohort['cores']} cores; a whole scan of 512 x 512 x {alone['slices']} voxels: "
            f"{alone['scan_s']:.0f} s on one, {alone['scan_peak_gb']:.1f} GB ({b['date'][:10]})."
        )
    if b := _there("benchmark_luna16"):
        whole, each = b["in_full"], b["scans"]["simulated"]["growth"]["ms_a_candidate"]
        gained = sorted(s["two_processes_measured"]["times_as_fast_by_the_clock"]
                        for s in b["scans"].values())  # fmt: skip
        lines.append(
            f"- The nine views of LUNA-16's {whole['candidates']:,} candidates: "
            f"{whole['cpu_s'] / 60:.0f} minutes of one core, so that two need "
            f"{whole['minutes_on_2_cores_calculated']:.0f} and sixteen "
            f"{whole['minutes_on_16_cores_calculated']:.0f}, and {whole['gb_of_views']:.0f} GB; "
            f"calculated from a scan's, {each:.1f} ms a candidate. Measured, two processes are "
            f"{gained[0]:.1f} to {gained[-1]:.1f} times as fast as one ({b['date'][:10]})."
        )
    if b := _there("benchmark_judging"):
        lines.append(
            f"- Everything after training, for two models on as many candidates: "
            f"{b['after_training_cpu_s'] / 60:.0f} minutes of one core, "
            f"{b['sizes']['whole']['peak_gb']:.1f} GB at most ({b['date'][:10]})."
        )
    if b := _there("luna16_detector"):
        lines.append(
            f"- The detector of the simulated LUNA-16 hits {b['hit']:.0f} of {b['nodules']} "
            f"nodules in the {len(b['series'])} scans that it was tuned on, with "
            f"{b['candidates_a_scan']:.0f} candidates a scan ({b['date'][:10]})."
        )
    if b := _there("official_froc"):
        worst = max(row["largest_difference"]["curve"] for row in b["rows"])
        lines.append(
            f"- FROC curves of {sum(row['challenges'] for row in b['rows'])} made-up submissions "
            "with ties, rims and overlaps, against the challenge's own script in Python 3: "
            f"{f'{worst:.0e} apart at most' if worst else 'the same to the last bit'} "
            f"({b['date'][:10]})."
        )
    if b := _there("lungs"):
        lines.append(
            f"- Lungs segmented in {len(b['simulated'])} whole simulated scans: Dice "
            f"{b['least_dice']:.3f} or more against the scene's own lungs; of the least kept of "
            f"{b['nodules']} nodules, {b['least_kept']:.1%} lies within the dilated mask."
        )
    return lines
