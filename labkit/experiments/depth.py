"""What the paper says of depth (Fig. 6, IV-D) beside what was measured, and what a depth costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from labkit.evaluation.equivalence import MARGIN_AUC
from labkit.evaluation.intervals import Interval
from labkit.experiments.declared import DEPTHS, depth_label
from labkit.experiments.judging import (
    CANNOT,
    CONTRADICTED,
    NOT_FINISHED,
    NOT_SHOWN,
    SHOWN,
    better_pair,
    inside,
    pooled,
    side,
    signed,
    within,
)

CHOSEN = 3
"""The paper's depth."""
PUBLISHED_DEPTHS = (1, 2, 3, 4)
"""Those of Fig. 6; five is ours."""
MUCH_MORE = 1.25
"""What "takes much more time and memory" has to mean at least: a quarter."""
Values = Mapping[str, Any]
_Row = tuple[str, str]


def to_three(values: Values, model: str, depth: int) -> Mapping[str, Any] | None:
    """The comparison of a depth with three layers; None where it is not finished.

    Args:
        values: of fig6's JSON.
        model: "st" or "mt".
        depth: other than three.
    """
    found: Mapping[str, Any] | None = values["comparisons"].get(
        f"{depth_label(model, depth)} less {depth_label(model, CHOSEN)}"
    )
    return found


def between_tasks(values: Values, depth: int) -> Mapping[str, Any] | None:
    """The comparison of MT-CNN with ST-CNN at a depth; None where it is not finished."""
    found: Mapping[str, Any] | None = values["comparisons"].get(
        f"{depth_label('mt', depth)} less {depth_label('st', depth)}"
    )
    return found


def at_chance(values: Values) -> pd.DataFrame:
    """How many networks of each depth never learnt, of those trained.

    Args:
        values: of fig6's JSON, finished or not.

    Returns:
        One row a (layers, model): `networks`, and `at chance`, missing where it was not counted.
    """
    rows = {}
    for layers in DEPTHS:
        for model in ("st", "mt"):
            of = values["variants"].get(depth_label(model, layers))
            if of is not None:
                trained = of["trained"]
                rows[layers, f"{model.upper()}-CNN"] = {
                    "networks": trained["networks"], "at chance": trained.get("at_chance"),
                }  # fmt: skip
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["networks", "at chance"])
    table.index = pd.MultiIndex.from_tuples(rows, names=["layers", "model"])
    return table.astype("Int64")


def depth_verdicts(values: Values) -> pd.DataFrame:
    """The paper's claims about depth (IV-D) against a measured sweep.

    Args:
        values: of fig6's JSON, finished or not.

    Returns:
        Columns claim, measured, verdict; the verdicts are those of `verdicts`.
    """
    rows = [
        ("MT-CNN: the more layers, the better", *_rising(values)),
        ("MT-CNN: three layers are much better than one or two", *_much_better(values)),
        ("MT-CNN: four layers and three do not differ", *_same(values)),
        ("ST-CNN: falls with four layers", *_falling(values)),
        ("MT-CNN is no worse than ST-CNN of the same depth", *_no_worse(values)),
        ("MT-CNN's advantage grows with depth", *_growing(values)),
        ("four layers take much more time than three", *_dearer(values, "seconds_a_step")),
        ("four layers take much more memory than three", *_dearer(values, "memory_mb")),
        ("three layers are one of the best choices", *_among_the_best(values)),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "verdict"])


def _rising(values: Values) -> _Row:
    """Each depth below three found worse than three, none above it found worse."""
    pairs = {d: to_three(values, "mt", d) for d in PUBLISHED_DEPTHS if d != CHOSEN}
    if (said := _words(pairs)) is None:
        return "", NOT_FINISHED
    found = {d: side(pair) for d, pair in pairs.items() if pair is not None}
    if found[1] > 0 or found[2] > 0 or found[4] < 0:
        return said, CONTRADICTED
    return said, SHOWN if found[1] < 0 and found[2] < 0 else NOT_SHOWN


def _much_better(values: Values) -> _Row:
    pairs = {d: to_three(values, "mt", d) for d in (1, 2)}
    if (said := _words(pairs)) is None:
        return "", NOT_FINISHED
    each = [better_pair(p, MARGIN_AUC, -1) for p in pairs.values() if p is not None]
    return said, _all_of(each)


def _same(values: Values) -> _Row:
    pair = to_three(values, "mt", 4)
    if (said := _words({4: pair})) is None or pair is None:
        return "", NOT_FINISHED
    if inside(pair):
        return said, SHOWN
    return said, CONTRADICTED if side(pair) else NOT_SHOWN


def _falling(values: Values) -> _Row:
    """With four layers, which the paper has; five are shown beside them, and not judged."""
    pair, beyond = to_three(values, "st", 4), to_three(values, "st", 5)
    if (said := _words({4: pair})) is None or pair is None:
        return "", NOT_FINISHED
    five = _words({5: beyond})
    words = f"{said}, within folds {signed(within(pair))}"
    return words if five is None else f"{words}; {five}", better_pair(pair, sign=-1)


def _no_worse(values: Values) -> _Row:
    """Non-inferiority: at every depth no loss of more than the margin is left, in either way."""
    pairs = {d: between_tasks(values, d) for d in PUBLISHED_DEPTHS}
    if (said := _words(pairs)) is None:
        return "", NOT_FINISHED
    there = [pair for pair in pairs.values() if pair is not None]
    if any(side(pair) < 0 for pair in there):
        return said, CONTRADICTED
    no_loss = all(d.low > -MARGIN_AUC for p in there for d in (pooled(p), within(p)))
    return said, SHOWN if no_loss else NOT_SHOWN


def _growing(values: Values) -> _Row:
    first, last = (between_tasks(values, d) for d in (PUBLISHED_DEPTHS[0], PUBLISHED_DEPTHS[-1]))
    if first is None or last is None:
        return "", NOT_FINISHED
    a, b = pooled(last), pooled(first)
    # What the two share is not known; the widths' sum can only be too careful.
    growth = Interval(a.value - b.value, a.low - b.high, a.high - b.low)
    said = f"with four layers less with one: {signed(growth)}"
    if growth.low > 0:
        return said, SHOWN
    return said, CONTRADICTED if growth.high < 0 else NOT_SHOWN


def _dearer(values: Values, what: str) -> _Row:
    """Memory is counted, and the same anywhere; time is that of a device, and the paper's a GPU."""
    device, of = values["costs"]["device"], values["costs"]["of"]
    names = [(m, depth_label(m, 4), depth_label(m, CHOSEN)) for m in ("st", "mt")]
    if not all(four in of and three in of for _, four, three in names):
        return "", NOT_FINISHED
    times = {m: of[four][what] / of[three][what] for m, four, three in names}
    said = ", ".join(f"{m.upper()}-CNN {times[m]:.2f} times" for m in times)
    if what == "seconds_a_step":
        said += f" ({device})"
        if device.startswith("CPU"):
            return said, CANNOT
    if all(ratio >= MUCH_MORE for ratio in times.values()):
        return said, SHOWN
    return said, CONTRADICTED if max(times.values()) < MUCH_MORE else NOT_SHOWN


def _among_the_best(values: Values) -> _Row:
    """No other depth is found better, and none can be better by more than the margin."""
    pairs = {(m, d): to_three(values, m, d) for m in ("st", "mt") for d in DEPTHS if d != CHOSEN}
    if any(pair is None for pair in pairs.values()):
        return "", NOT_FINISHED
    there = {place: pair for place, pair in pairs.items() if pair is not None}
    (model, depth), most = max(there.items(), key=lambda item: pooled(item[1]).high)
    d = pooled(most)
    said = f"most is left for {depth_label(model, depth)}: {signed(d)}"
    if any(side(pair) > 0 for pair in there.values()):
        return said, CONTRADICTED
    no_gain = all(x.high < MARGIN_AUC for p in there.values() for x in (pooled(p), within(p)))
    return said, SHOWN if no_gain else NOT_SHOWN


def _all_of(verdicts: list[str]) -> str:
    """Of a sentence that says several things at once."""
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return SHOWN if set(verdicts) == {SHOWN} else NOT_SHOWN


def _words(pairs: Mapping[int, Mapping[str, Any] | None]) -> str | None:
    """What was measured, depth by depth; None when any is missing."""
    if any(pair is None for pair in pairs.values()):
        return None
    return "; ".join(
        f"{depth}: {signed(pooled(pair))}" for depth, pair in pairs.items() if pair is not None
    )
