"""Judge what the paper claims by what was measured: when a difference counts, and the rule table.

No verdict is written by hand: a rule that was written down with the claim computes it. It is about
the images and training at hand. A difference is *found* when it survives Holm's correction over its
figure's family (of DeLong's pooled test) and its interval within folds lies on the same side of 0:
pooling compares scores of different networks, and can make a difference as well as hide one.
Nothing is corrected over the table of claims, so that a long table has a wrong line or two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from labkit import paths
from labkit.evaluation.statistics import MARGIN_AUC, Interval
from labkit.imaging.views import PLANES
from labkit.io import read_json
from labkit.models import NETWORKS
from labkit.paper import results
from labkit.paper.declared import ALPHAS, L2, L2_SHOWN, alpha_label, depth_label, l2_label
from labkit.paper.fig7 import own_error

SHOWN, NOT_SHOWN, CONTRADICTED = "shown", "not shown", "contradicted"
CANNOT, NOT_FINISHED = "cannot be judged", "not finished"
VERDICTS = (SHOWN, NOT_SHOWN, CONTRADICTED, CANNOT)
NOT_COUNTED = "pooled only"
"""What a finding is worth that is gone within folds: a verdict of "not shown" says so."""
MUCH_MORE = 1.25
"""What "takes much more time and memory" has to mean at least: a quarter."""
Values = Mapping[str, Any]
"""Of a figure's or table's JSON, finished or not."""
Pair = Mapping[str, Any]
"""A comparison, as `values.compare` and `values.correct` leave it."""


def better(
    difference: Interval,
    at_least: float = 0.0,
    *,
    found: bool | None = None,
    within: Interval | None = None,
) -> str:
    """Judge whether a difference bears out "better", by as much as the words promise.

    Args:
        difference: of the one said to be better less the other, with its 95 % interval.
        at_least: 0 for "better", `MARGIN_AUC` for "much better".
        found: whether it survives the correction; None where it is alone in its family.
        within: the same within folds; None for what is not pooled over folds.

    Returns:
        "shown": found, above 0 within folds as well, and as large as promised. "contradicted":
        found below 0 in the same way, or shown to be smaller than promised. Else "not shown".

    >>> better(Interval(-0.001, -0.004, 0.003), at_least=0.02)
    'contradicted'
    >>> better(Interval(0.003, 0.001, 0.006), found=True, within=Interval(0.001, -0.003, 0.005))
    'not shown'
    """
    both = [difference] if within is None else [difference, within]
    counts = found is None or found
    too_small = at_least > 0 and all(d.high < at_least for d in both)
    return _verdict(
        counts and all(d.low > 0 for d in both) and difference.value >= at_least,
        too_small or (counts and all(d.high < 0 for d in both)),
    )


def better_pair(pair: Pair, at_least: float = 0.0, sign: int = 1) -> str:
    """Judge a comparison by `better`; with sign -1 the second over the first."""
    return better(pooled(pair, sign), at_least, found=pair["found"], within=within(pair, sign))


def side(pair: Pair) -> int:
    """Return 1 or -1 for a difference that is found, by its sign; else 0."""
    return {SHOWN: 1, CONTRADICTED: -1}.get(better_pair(pair), 0)


def inside(pair: Pair, margin: float = MARGIN_AUC) -> bool:
    """Tell whether a difference is shown to be below its test's margin, pooled and within folds."""
    d = within(pair)
    return bool(pair["equivalence"]["shown"]) and -margin < d.low and d.high < margin


def pooled(pair: Pair, sign: int = 1) -> Interval:
    """Return the difference of pooled AUCs, or with sign -1 its opposite."""
    return _turned(pair["auc_difference"], sign)


def within(pair: Pair, sign: int = 1) -> Interval:
    """Return the difference of AUCs within folds, or with sign -1 its opposite."""
    return _turned(pair["within_folds_difference"], sign)


def signed(d: Interval) -> str:
    """Write a difference in words, with its sign.

    >>> signed(Interval(0.01, -0.002, 0.022))
    '+0.010 (-0.002 to +0.022)'
    """
    return f"{d.value:+.3f} ({d.low:+.3f} to {d.high:+.3f})"


def compare_tests(comparisons: Mapping[str, Pair]) -> pd.DataFrame:
    """Tabulate what each test says of each comparison: they ask different questions.

    Returns:
        One row a comparison: the pooled difference with its interval over patients, DeLong's p
        after the family's correction, the difference within folds, p of the corrected t-test over
        folds, and the smallest margin that equivalence is shown for.
    """
    rows = {}
    for name, pair in comparisons.items():
        t = pair["corrected_t_test"].get("p_value")
        rows[name] = {
            "pooled over folds": signed(pooled(pair)),
            "Holm's p": f"{pair['p_holm']:.2g}",
            "within folds": signed(within(pair)),
            "t-test over folds, p": "none" if t is None else f"{t:.2g}",
            "excludes more than": f"{pair['equivalence']['smallest_margin']:.3f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


# Fig. 5 compares effects: l2 harms MT-CNN and leaves ST-CNN alone. That one effect is found and
# another is not shows nothing about it (Gelman and Stern, The American Statistician 60:328, 2006).


def effect(values: Values, label: str) -> Interval | None:
    """Return AUC of a variant of fig5 less that of the same network without the change.

    The label is such as "MT-CNN, l2 1e-04 on both"; None where it is not finished.
    """
    pair = values["comparisons"].get(f"{label} less {label[:2]}-CNN")
    return None if pair is None else pooled(pair)


def difference_of_effects(first: Interval, second: Interval) -> Interval:
    """Subtract one effect from another, with an interval that holds whatever they share.

    How two effects on the same nodules go together is not known. A standard deviation of a
    difference is at most the sum of the two: adding the widths can only be too careful.

    >>> print(difference_of_effects(Interval(-0.02, -0.03, -0.01), Interval(0.0, -0.005, 0.005)))
    -0.020 (-0.035 to -0.005)
    """
    value, low, high = first.value - second.value, first.low - second.high, first.high - second.low
    return Interval(value, low, high, first.level)


def interactions(values: Values) -> pd.DataFrame:
    """Tabulate by how much l2 moves MT-CNN more than ST-CNN, at every strength that is finished.

    Returns:
        Columns `l2`, `MT-CNN` (on encoder and decoder), `ST-CNN`, `difference`, as `Interval`, and
        `sure`: "more", "less" or "open".
    """
    rows = []
    for l2 in L2:
        one = effect(values, l2_label("mt", l2, "both"))
        two = effect(values, l2_label("st", l2, "share"))
        if one and two:
            d = difference_of_effects(one, two)
            rows.append((l2, one, two, d, {-1: "more", 0: "open", 1: "less"}[_sign(d)]))
    return pd.DataFrame(rows, columns=["l2", MT, ST, "difference", "sure"])


# The rules: (values, what the table says) -> verdict, what was measured, the same within folds.
# A key that is missing from the values is a variant that is not finished.


class Judged(NamedTuple):
    """A verdict, the numbers in words, and the same difference within folds where it was pooled."""

    verdict: str
    measured: str
    within_folds: str = ""


def _turned(d: Mapping[str, float], sign: int) -> Interval:
    low, high = sorted((sign * d["low"], sign * d["high"]))
    return Interval(sign * d["value"], low, high)


def _verdict(shown: bool, contradicted: bool) -> str:
    return SHOWN if shown else CONTRADICTED if contradicted else NOT_SHOWN


def _sign(d: Interval) -> int:
    return int(d.low > 0) - int(d.high < 0)


def _pair(values: Values, first: str, second: str) -> Pair:
    pair: Pair = values["comparisons"][f"{first} less {second}"]
    return pair


def _judged(verdict: str, pair: Pair, words: str) -> Judged:
    inner = signed(within(pair))
    said = words.format(signed(pooled(pair)), inner, turned=signed(pooled(pair, -1)))
    if verdict == NOT_SHOWN and pair["found"] and not side(pair):
        inner += f": {NOT_COUNTED}"
    return Judged(verdict, said, inner)


def _better(
    values: Values, first: str, second: str, at_least: float = 0.0, sign: int = 1,
    words: str = "", beside: tuple[str, str] | None = None,
) -> Judged:  # fmt: skip
    """By `better_pair`; another variant may stand beside the first, which is not judged."""
    pair = _pair(values, first, second)
    words = words or f"{first} less {second}: {{}}"
    if beside and (other := values["comparisons"].get(f"{beside[0]} less {second}")):
        words += beside[1] + signed(pooled(other))
    return _judged(better_pair(pair, at_least, sign), pair, words)


def _equal(values: Values, first: str, second: str, beyond: float = 0.0, words: str = "") -> Judged:
    """By equivalence within `MARGIN_AUC`; contradicted where it is found to be beyond a number."""
    pair = _pair(values, first, second)
    found = side(pair)
    apart = found != 0 and pooled(pair, found).low > beyond
    return _judged(_verdict(inside(pair), apart), pair, words or f"{first} less {second}: {{}}")


def _effects(
    values: Values, first: tuple[str, str], second: tuple[str, str], sign: int, words: str
) -> Judged:
    """Whether one difference is above (sign 1) or below (-1) another, whatever the two share."""
    one, two = (pooled(_pair(values, *of)) for of in (first, second))
    d = difference_of_effects(one, two)
    found = sign * _sign(d)
    return Judged(_verdict(found == 1, found == -1), words.format(one.value, two.value, signed(d)))


def _extreme(values: Values, label: str, sign: int) -> Judged:
    """Whether one of Fig. 5's four curves is surely the highest (sign 1) or the lowest (-1).

    Pairs that were compared ask whether it was found; of others the interval is bounded.
    """
    aucs = {name: _auc(values, name) for name in _CURVES}
    above_st = {}
    for name, steps in _CURVES.items():
        parts = [pooled(_pair(values, *step)) for step in steps]
        ends = [sum(getattr(p, end) for p in parts) for end in ("value", "low", "high")]
        above_st[name] = Interval(*ends)
    sides = []
    for other in set(_CURVES) - {label}:
        pairs = {1: f"{label} less {other}", -1: f"{other} less {label}"}
        found = [s * side(p) for s, n in pairs.items() if (p := values["comparisons"].get(n))]
        apart = _sign(difference_of_effects(above_st[label], above_st[other]))
        sides.append(sign * (*found, apart)[0])
    first = max(aucs, key=lambda name: sign * aucs[name])
    words = f"{'highest' if sign == 1 else 'lowest'} is {first} ({aucs[first]:.4f}); "
    verdict = _verdict(min(sides) == 1, min(sides) == -1)
    return Judged(verdict, f"{words}{label} has {aucs[label]:.4f}")


def _any_l2(values: Values, model: str, place: str, sign: int) -> Judged:
    """Whether l2 of any strength helps (sign 1) or harms (-1); to deny it takes all of them."""
    names = {l2: f"{l2_label(model, l2, place)} less {NETWORKS[model].name}" for l2 in L2}
    pairs = {l2: p for l2, name in names.items() if (p := values["comparisons"].get(name))}
    sides = {sign * side(pair) for pair in pairs.values()}
    words = ", ".join(f"{l2:.0e}: {pooled(p).value:+.3f}" for l2, p in pairs.items())
    if 1 not in sides and len(pairs) < len(L2):
        return Judged(NOT_FINISHED, words)
    return Judged(_verdict(1 in sides, sides == {-1}), words)


def _by_depth(values: Values, other: Callable[[int], str], *depths: int) -> tuple[list[Pair], str]:
    """MT-CNN of each depth less another network, and all of that in words."""
    pairs = [_pair(values, depth_label("mt", d), other(d)) for d in depths]
    said = (f"{d}: {signed(pooled(pair))}" for d, pair in zip(depths, pairs, strict=True))
    return pairs, "; ".join(said)


def _rising(values: Values) -> Judged:
    """Each depth below three found worse than three, none above it found worse."""
    pairs, words = _by_depth(values, lambda d: depth_label("mt", 3), 1, 2, 4)
    one, two, four = map(side, pairs)
    against = one > 0 or two > 0 or four < 0
    return Judged(_verdict(one < 0 and two < 0 and not against, against), words)


def _much_better_than_fewer(values: Values) -> Judged:
    pairs, words = _by_depth(values, lambda d: depth_label("mt", 3), 1, 2)
    each = {better_pair(pair, MARGIN_AUC, -1) for pair in pairs}
    return Judged(_verdict(each == {SHOWN}, CONTRADICTED in each), words)


def _nothing_left(pairs: Iterable[Pair], sign: int) -> str:
    """No difference of this sign is found, and none beyond the margin is left, in either way."""
    found = any(sign * side(pair) > 0 for pair in pairs)
    bounds = [d.high for p in pairs for d in (pooled(p, sign), within(p, sign))]
    return _verdict(max(bounds) < MARGIN_AUC and not found, found)


def _no_worse(values: Values) -> Judged:
    """Non-inferiority at every depth."""
    pairs, words = _by_depth(values, lambda d: depth_label("st", d), 1, 2, 3, 4)
    return Judged(_nothing_left(pairs, -1), words)


def _three_among_the_best(values: Values) -> Judged:
    labels = [(depth_label(m, d), depth_label(m, 3)) for m in ("st", "mt") for d in (1, 2, 4, 5)]
    pairs = {label: _pair(values, label, three) for label, three in labels}
    most = max(pairs, key=lambda label: pooled(pairs[label]).high)
    words = f"most is left for {most}: {signed(pooled(pairs[most]))}"
    return Judged(_nothing_left(pairs.values(), 1), words)


def _dearer(values: Values, what: str) -> Judged:
    """Memory is counted, and the same anywhere; time is that of a device, and the paper's a GPU."""
    device, of = values["costs"]["device"], values["costs"]["of"]
    times = [of[depth_label(m, 4)][what] / of[depth_label(m, 3)][what] for m in ("st", "mt")]
    words = "{}-CNN {:.2f} times, {}-CNN {:.2f} times".format("ST", times[0], "MT", times[1])
    if what == "seconds_a_step":
        words += f" ({device})"
        if device.startswith("CPU"):
            return Judged(CANNOT, words)
    return Judged(_verdict(min(times) >= MUCH_MORE, max(times) < MUCH_MORE), words)


def _auc(values: Values, label: str) -> float:
    return float(values["variants"][label]["metrics"]["auc"]["value"])


def _best_alpha(values: Values, named: str) -> Judged:
    """Best in 95 of 100 bootstraps."""
    for alpha in ALPHAS:
        _auc(values, alpha_label(alpha))
    share = values["search"]["best_in_share_of_bootstraps"]
    best = alpha_label(values["search"]["best"])
    words = f"{best} is highest here, and in {share[best]:.0%} of bootstraps"
    if best != named:
        words += f"; {named} in {share[named]:.0%}"
    sure = {name for name, s in share.items() if s >= 0.95}
    return Judged(_verdict(named in sure, bool(sure)), words)


def _luck(values: Values, own_errors: float) -> float:
    if not values["comparisons"]:
        raise KeyError(alpha_label(0))
    return float(own_errors) * own_error(values)


def _same_alphas(values: Values, first: str, second: str) -> Judged:
    one, two = _auc(values, first), _auc(values, second)
    apart, luck = abs(one - two), _luck(values, stats.norm.ppf(0.975) * np.sqrt(2))
    words = f"AUC {one:.4f} and {two:.4f}; equal ones stay within {luck:.4f} in 95 % of studies"
    return Judged(_verdict(apart + luck < MARGIN_AUC, apart > luck), words)


def _rises_and_falls(values: Values) -> Judged:
    """Only where the six AUCs differ by more than luck would make them differ."""
    six = [_auc(values, alpha_label(a)) for a in ALPHAS]
    reach, top = max(six) - min(six), int(np.argmax(six))
    luck = _luck(values, stats.studentized_range.ppf(0.95, len(six), np.inf))
    rises, falls = six[: top + 1] == sorted(six[: top + 1]), six[top:] == sorted(six[top:])[::-1]
    words = f"they span {reach:.4f}; six equal ones stay within {luck:.4f} in 95 % of studies"
    shown = reach > luck and 0 < top < len(six) - 1 and rises and falls
    return Judged(_verdict(shown, False), words)


def _worst_alpha(values: Values) -> Judged:
    """One of seven equal ones is always the lowest: it has to be found below alpha 0 as well."""
    aucs = {label: _auc(values, label) for label in map(alpha_label, (0, *ALPHAS))}
    upwards = sorted(aucs, key=lambda name: aucs[name])
    place = upwards.index("alpha 1") + 1
    words = f"lowest: {upwards[0]}; alpha 1 is number {place} of {len(upwards)} from below"
    below = side(_pair(values, "alpha 1", "alpha 0")) < 0
    return Judged(_verdict(place == 1 and below, False), words)


def _far_from_zero(values: Values, label: str, sign: int) -> Judged:
    """A difference to alpha 0: found with Holm's correction, excluded by the margin, or open."""
    pair = _pair(values, label, "alpha 0")
    d, margin = pair["auc_difference"], pair["equivalence"]["margin"]
    words = "{value:+.4f} ({low:+.4f} to {high:+.4f})".format(**d)
    words += f", Holm's p = {pair['p_holm']:.2g}"
    small, found = inside(pair, margin), sign * side(pair)
    if small and found == 1:
        return Judged(NOT_SHOWN, f"{words}; less than {margin:g} all the same")
    if small and found == 0:
        return Judged(CONTRADICTED, f"{words}; no difference larger than {margin:g}")
    return Judged(_verdict(found == 1, found == -1), words)


def _reaches(values: Values, published: float) -> Judged:
    """Our interval holds it or does not: other images and shorter training contradict nothing."""
    mt = values["methods"][MT]
    auc, inner = Interval(**mt["auc"]), Interval(**mt["auc_within_folds"])
    return Judged(_verdict(auc.low <= published <= auc.high, False), f"AUC {auc}", str(inner))


def _fusion(values: Values) -> Judged:
    """The fusion of MT-CNN against each of its views; all of them have to be found worse."""
    by_view = values["fusion"][MT]
    view = min(by_view, key=lambda view: pooled(by_view[view]).low)
    sides = {side(pair) for pair in by_view.values()}
    plane = PLANES[int(view)].name.replace("_", " ")
    verdict = _verdict(sides == {1}, -1 in sides)
    return _judged(verdict, by_view[view], f"fused less {plane}, the nearest: {{}}")


def _specificity(values: Values) -> Judged:
    d = values["specificity"][f"{MT} less {ST}"]
    return Judged(better(_turned(d, -1)), f"{MT} less {ST}: {signed(_turned(d, 1))}")


ST, MT = "ST-CNN", "MT-CNN"
ST_L2, MT_L2 = l2_label("st", L2_SHOWN, "share"), l2_label("mt", L2_SHOWN, "both")
_CURVES = {ST: [], ST_L2: [(ST_L2, ST)], MT: [(MT, ST)], MT_L2: [(MT_L2, MT), (MT, ST)]}
"""The four of Fig. 5, each with the comparisons that lead from it to ST-CNN."""
_WITHOUT = {model: f"{model}, dropout none" for model in (ST, MT)}


class Claim(NamedTuple):
    """A sentence of the paper and the rule that judges it by a result, such as "fig7", "belief".

    Args:
        where: section, or "not asked" for what its argument needs and it does not look at.
        result: whose values the rule takes, or why there is no rule.
        arguments: of the rule, behind the values.
    """

    text: str
    where: str
    result: str
    rule: Callable[..., Judged] | None = None
    arguments: tuple[Any, ...] = ()

    def judge(self, evidence: Mapping[str, Values], missing: Judged | None = None) -> Judged:
        """Apply the rule to the results of one kind of images, name -> values."""
        if self.rule is None:
            return Judged(CANNOT, self.result)
        try:
            return self.rule(evidence[self.result], *self.arguments)
        except KeyError:
            why = "not measured on" if self.result == "belief" else "{} is not committed for"
            return missing or Judged(CANNOT, f"{why.format(self.result)} these images")


def _about(figure: str, where: str, *rows: tuple[Any, ...]) -> tuple[Claim, ...]:
    return tuple(Claim(text, where, figure, rule, tuple(of)) for text, rule, *of in rows)


_TWO, _THREE, _FOUR, _FIVE = (f"{{}}-CNN, {n} layers".format for n in (2, 3, 4, 5))
_WIDEST = "{0:+.3f} less {1:+.3f}: {2} at the widest"
CLAIMS = (
    *_about(
        "table1", "IV-A",
        ("MT-CNN has an obvious advantage over ST-CNN", _better, MT, ST, MARGIN_AUC),
        ("the AUC of MT-CNN is higher than ST-CNN's", _better, MT, ST),
    ),
    Claim("the specificity of MT-CNN is lower than ST-CNN's on LIDC-IDRI", "IV-A", "belief",
          _specificity),
    Claim("MT-CNN has an AUC of 0.9559 on LIDC-IDRI", "abstract", "belief", _reaches, (0.9559,)),
    Claim("fusing the nine views is better than any one of them", "V", "belief", _fusion),
    Claim("a nine-view network is better than the diameter alone", "not asked", "table1",
          _better, (MT, "size only")),
    Claim("with alpha = 0.3 MT-CNN is better than ST-CNN", "IV-D", "fig7",
          _better, ("alpha 0.3", "alpha 0")),
    Claim("with alpha = 1 MT-CNN is much worse than ST-CNN", "IV-E", "fig7",
          _better, ("alpha 1", "alpha 0", MARGIN_AUC, -1)),
    *_about(
        "fig6", "IV-D",
        ("MT-CNN is much better with three layers than with two", _better, _TWO("MT"),
         _THREE("MT"), MARGIN_AUC, -1),
        ("ST-CNN falls with four layers", _better, _FOUR("ST"), _THREE("ST"), 0.0, -1, "",
         (_FIVE("ST"), f"; {_FIVE('ST')} less {_THREE('ST')}: ")),
    ),
    *_about(
        "fig5", "IV-C",
        ("l2 lowers the AUC of MT-CNN", _better, MT_L2, MT, 0.0, -1),
        ("l2 makes little difference to ST-CNN", _equal, ST_L2, ST, MARGIN_AUC),
    ),
    Claim("MT-CNN has the highest AUC of all methods on LIDC-IDRI", "Table 1",
          "the other methods are not trained here"),
    Claim("the lowest false positive rate on LUNA-16, 3.2 %", "abstract",
          "neither LUNA-16's own images nor the other methods are here"),
)  # fmt: skip
"""What the paper says in all."""
FIGURE_CLAIMS = (
    *_about(
        "fig7", "IV-D, IV-E",
        ("alpha = 0.3 is best", _best_alpha, "alpha 0.3"),
        ("0.2 and 0.4 give the same", _same_alphas, "alpha 0.2", "alpha 0.4"),
        ("the AUC rises with alpha, then falls", _rises_and_falls),
        ("alpha = 1 is the worst of all", _worst_alpha),
        ("alpha = 1 is much worse than ST-CNN", _far_from_zero, "alpha 1", -1),
        ("alpha = 0.3 is far better than ST-CNN", _far_from_zero, "alpha 0.3", 1),
    ),
    *_about(
        "fig6", "IV-D",
        ("MT-CNN: the more layers, the better", _rising),
        ("MT-CNN: three layers are much better than one or two", _much_better_than_fewer),
        ("MT-CNN: four layers and three do not differ", _equal, _FOUR("MT"), _THREE("MT"), 0.0,
         "4: {}"),
        ("ST-CNN: falls with four layers", _better, _FOUR("ST"), _THREE("ST"), 0.0, -1,
         "4: {}, within folds {}", (_FIVE("ST"), "; 5: ")),
        ("MT-CNN is no worse than ST-CNN of the same depth", _no_worse),
        ("MT-CNN's advantage grows with depth", _effects, (_FOUR("MT"), _FOUR("ST")),
         ("MT-CNN, 1 layer", "ST-CNN, 1 layer"), 1, "with four layers less with one: {2}"),
        ("four layers take much more time than three", _dearer, "seconds_a_step"),
        ("four layers take much more memory than three", _dearer, "memory_mb"),
        ("three layers are one of the best choices", _three_among_the_best),
    ),
    *_about(
        "fig5", "IV-C",
        ("of the four, MT-CNN without l2 is the highest", _extreme, MT, 1),
        ("of the four, MT-CNN with l2 is the lowest", _extreme, MT_L2, -1),
    ),
    *(claim for claim in CLAIMS if claim.result == "fig5"),
    *_about(
        "fig5", "IV-C",
        ("without l2 MT-CNN is greatly better than with it", _better, MT_L2, MT, MARGIN_AUC, -1,
         f"{{turned}}, against {MARGIN_AUC:g}"),
        ("l2 harms MT-CNN more than ST-CNN", _effects, (MT_L2, MT), (ST_L2, ST), -1, _WIDEST),
        ("some strength of l2 makes MT-CNN worse", _any_l2, "mt", "both", -1),
        ("some strength of l2 makes ST-CNN better", _any_l2, "st", "share", 1),
        ("dropout makes ST-CNN better", _better, _WITHOUT[ST], ST, 0.0, -1,
         "with less without: {turned}"),
        ("the second task regularises: MT-CNN needs dropout less than ST-CNN", _effects,
         (_WITHOUT[MT], MT), (_WITHOUT[ST], ST), 1, _WIDEST),
    ),
)  # fmt: skip
"""What the text says of each sweep; the paper's networks have one to four layers."""


def figure_verdicts(values: Values) -> pd.DataFrame:
    """Judge the paper's claims about Fig. 5, 6 or 7 by a measured sweep, finished or not.

    Returns:
        Columns claim, measured, verdict: one of `VERDICTS`, or "not finished" where variants are
        missing; "not shown" is what the data leave open.
    """
    name = values["name"]
    rows = []
    for claim in (claim for claim in FIGURE_CLAIMS if claim.result == name):
        judged = claim.judge({name: values}, Judged(NOT_FINISHED, ""))
        rows.append((claim.text, judged.measured, judged.verdict))
    return pd.DataFrame(rows, columns=["claim", "measured", "verdict"])


def verdicts() -> pd.DataFrame:
    """Judge every one of `CLAIMS` on simulated and on real images, from `results/`.

    Returns:
        Two rows a claim: `claim`, `where`, `images`, `verdict`, `measured`, `within folds`.
    """
    evidence: dict[str, dict[str, Any]] = {}
    for kind in results.NODULES:
        evidence[kind] = {name: results.read(name, kind) for name, _ in results.there((kind,))}
        if (file := paths.results() / f"{kind}_belief.json").is_file():
            evidence[kind]["belief"] = read_json(file, "a result")
    rows = [
        (claim.text, claim.where, kind, *claim.judge(of))
        for claim in CLAIMS
        for kind, of in evidence.items()
    ]
    columns = ["claim", "where", "images", "verdict", "measured", "within folds"]
    return pd.DataFrame(rows, columns=columns)
