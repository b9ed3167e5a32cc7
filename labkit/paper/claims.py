"""Judge what the paper claims by what was measured: one table of claims, and the rules in it.

No verdict is written by hand. A difference is of AUC within folds (pooled AUCs stand beside it), of
the data that the claim is made on; it is *found* when it survives Holm's correction over its
figure's family and its interval lies on one side of 0. A claim is "seen" when the numbers bear it
out, "not seen under this protocol" when they exclude it, and else one "cannot tell". No network is
judged before it has learnt, and nothing is corrected over the table of claims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from labkit import paths
from labkit.evaluation.statistics import Interval
from labkit.imaging.planes import PLANES
from labkit.io import read_json
from labkit.paper import results
from labkit.paper.declared import (
    ALPHAS,
    L2_SHOWN,
    MARGIN,
    OF_PAPERS,
    alpha_label,
    depth_label,
    l2_label,
)
from labkit.paper.values import is_luna, not_converged

SEEN, NOT_SEEN, CANNOT = "seen", "not seen under this protocol", "cannot tell"
NOT_HERE, NOT_CONVERGED, NOT_FINISHED = "not judged here", "not converged", "not finished"
VERDICTS = (SEEN, NOT_SEEN, CANNOT, NOT_HERE, NOT_CONVERGED, NOT_FINISHED)
NODULES, LUNA = "LIDC-IDRI", "LUNA-16"
"""The two tasks: malignant or benign nodules, and nodules among candidates."""
MUCH_MORE = 1.25
"""What "takes much more time and memory" has to mean at least: a quarter."""
Values = Mapping[str, Any]  # of a figure's or table's JSON, finished or not
Pair = Mapping[str, Any]  # a comparison, as `values.compare` and `values.correct` leave it


def better(difference: Interval, at_least: float = 0.0, found: bool | None = None) -> str:
    """Judge whether a difference bears out "better", by as much as the words promise.

    Args:
        difference: of the one said to be better less the other, with its 95 % interval.
        at_least: 0 for "better", `MARGIN` for "much better", less than 0 for "no worse".
        found: whether it survives the correction; None where it is alone in its family.

    >>> better(Interval(0.003, 0.001, 0.006), found=True), better(Interval(0.003, 0.001, 0.006),
    ...     at_least=0.01), better(Interval(-0.003, -0.006, 0.001), at_least=-0.01)
    ('seen', 'not seen under this protocol', 'seen')
    """
    d, counts = difference, found is None or found
    if (counts and d.high < 0) or (at_least > 0 and d.high < at_least):
        return NOT_SEEN
    if at_least < 0:
        return SEEN if d.low > at_least else CANNOT
    return SEEN if counts and d.low > 0 and d.value >= at_least else CANNOT


def better_pair(pair: Pair) -> str:
    """Judge a comparison by `better`, within folds."""
    return better(within(pair), found=pair["found"])


def side(pair: Pair) -> int:
    """Return 1 or -1 for a difference that is found, by its sign; else 0."""
    d = within(pair)
    return int(pair["found"]) * (int(d.low > 0) - int(d.high < 0))


def pooled(pair: Pair) -> Interval:
    """Return the difference of pooled AUCs."""
    return Interval(**pair["auc_difference"])


def within(pair: Pair) -> Interval:
    """Return the difference of AUCs within folds, the primary estimate."""
    return Interval(**pair["within_folds_difference"])


def signed(d: Interval) -> str:
    """Write a difference in words, with its sign.

    >>> signed(Interval(0.01, -0.002, 0.022))
    '+0.010 (-0.002 to +0.022)'
    """
    return f"{d.value:+.3f} ({d.low:+.3f} to {d.high:+.3f})"


def compare_tests(comparisons: Mapping[str, Pair]) -> pd.DataFrame:
    """Tabulate what each test says of each comparison, a row each: they ask different questions."""
    rows = {
        name: {
            "within folds": signed(within(pair)),
            "Holm's p": f"{pair['p_holm']:.2g}",
            "pooled over folds": signed(pooled(pair)),
            "DeLong's p": f"{pair['delong']['p_value']:.2g}",
            "t-test over folds, p": f"{pair['corrected_t_test'].get('p_value', np.nan):.2g}",
            "excludes more than": f"{pair['equivalence']['smallest_margin']:.3f}",
        }
        for name, pair in comparisons.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


# That one effect is found and another is not shows nothing about their difference (Gelman and
# Stern, The American Statistician 60:328, 2006), and not every two variants were compared.


def difference_of_effects(first: Interval, second: Interval) -> Interval:
    """Subtract one effect from another, with an interval that holds whatever they share.

    How two effects on the same nodules go together is not known. A standard deviation of a
    difference is at most the sum of the two: adding the widths can only be too careful.

    >>> print(difference_of_effects(Interval(-0.02, -0.03, -0.01), Interval(0.0, -0.005, 0.005)))
    -0.020 (-0.035 to -0.005)
    """
    value, low, high = first.value - second.value, first.low - second.high, first.high - second.low
    return Interval(value, low, high, first.level)


def difference(
    values: Values, first: str, second: str, *less: str, of: Callable[[Pair], Interval] = within
) -> Interval:
    """Return first less second, or (first less second) less (third less fourth).

    Two that were not compared are so along the shortest chain of comparisons between them, whose
    widths add up. Raises KeyError where there is none, since a variant is not finished.
    """
    if less:
        effects = (difference(values, *pair, of=of) for pair in ((first, second), less))
        return difference_of_effects(*effects)
    zero = Interval(0.0, 0.0, 0.0)
    steps: dict[str, dict[str, Interval]] = {}
    for name, pair in values["comparisons"].items():
        one, two = name.split(" less ")
        steps.setdefault(one, {})[two] = of(pair)
        steps.setdefault(two, {})[one] = difference_of_effects(zero, of(pair))
    to, names = {first: zero}, [first]
    for here in names:  # which grow
        for there in sorted(steps.get(here, {}).keys() - to.keys()):
            to[there] = difference_of_effects(to[here], steps[there][here])
            names.append(there)
    if second not in to:
        raise KeyError(f"{first} less {second}")
    return to[second]


# The rules: (values, what the table says) -> verdict, what was measured, and the same pooled. A key
# that is missing from the values is a variant that is not finished.

Judged = tuple[str, str, str]  # a verdict, the numbers in words, and the same of pooled AUCs


def _better(values: Values, at_least: float, *pairs: tuple[str, ...]) -> Judged:
    """The first of every pair is better than the second, by so much at least."""
    apart = {pair: difference(values, *pair) for pair in pairs}
    verdicts = {better(d, at_least, _found(values, *pair)) for pair, d in apart.items()}
    verdict = NOT_SEEN if NOT_SEEN in verdicts else SEEN if verdicts == {SEEN} else CANNOT
    return verdict, *_said(values, *min(apart, key=lambda pair: apart[pair].low))


def _highest(values: Values) -> Judged:
    """MT-CNN is better than every method of another paper; a family of its own."""
    pairs = {**values, "comparisons": values["rivals"]}
    return _better(pairs, 0.0, *((MT, name) for name in OF_PAPERS))


def _equal(values: Values, *pair: str) -> Judged:
    """The interval lies within `MARGIN`; not seen where it is found to lie beyond."""
    d = difference(values, *pair)
    beyond = _found(values, *pair) is not False and max(d.low, -d.high) > MARGIN
    same = max(-d.low, d.high) < MARGIN
    return SEEN if same else NOT_SEEN if beyond else CANNOT, *_said(values, *pair)


def _peak(values: Values, *labels: str) -> Judged:
    """One between the ends is better than both of these."""
    ends = (labels[0], labels[-1])
    judged = {x: _better(values, 0.0, *((x, end) for end in ends)) for x in labels[1:-1]}
    verdicts = {verdict for verdict, *_ in judged.values()}
    top = max(judged, key=lambda x: min(difference(values, x, end).value for end in ends))
    verdict = SEEN if SEEN in verdicts else NOT_SEEN if verdicts == {NOT_SEEN} else CANNOT
    return verdict, *judged[top][1:]


def _dearer(values: Values, what: str) -> Judged:
    """Memory is counted, and the same anywhere; time is that of a device, and the paper's a GPU."""
    device, of = values["costs"]["device"], values["costs"]["of"]
    times = [of[depth_label(m, 4)][what] / of[depth_label(m, 3)][what] for m in ("st", "mt")]
    words = "ST-CNN {:.2f} times, MT-CNN {:.2f} times".format(*times)
    much = {ratio >= MUCH_MORE for ratio in times}
    verdict = CANNOT if len(much) == 2 else SEEN if True in much else NOT_SEEN
    if what == "seconds_a_step":
        words += f" ({device})"
        verdict = NOT_HERE if device.startswith("CPU") else verdict
    return verdict, words, ""


def _reaches(values: Values, published: float) -> Judged:
    """Our interval holds it, or lies on one side."""
    metrics = values["rows"][MT]["metrics"]
    primary = Interval(**metrics["auc_within_folds"])
    verdict = SEEN if primary.low <= published <= primary.high else NOT_SEEN
    return verdict, f"AUC {primary}", str(Interval(**metrics["auc"]))


def _found(values: Values, first: str, second: str, *less: str) -> bool | None:
    """Whether a difference survives the correction; None of one that was not compared itself."""
    pairs = values["comparisons"]
    pair = pairs.get(f"{first} less {second}") or pairs.get(f"{second} less {first}") or {}
    return None if less else pair.get("found")


def _said(values: Values, *pair: str) -> tuple[str, str]:
    words = "{} less {}" if len(pair) == 2 else "({} less {}) less ({} less {})"
    beside = difference(values, *pair, of=pooled)
    return f"{words.format(*pair)}: {signed(difference(values, *pair))}", signed(beside)


class Claim(NamedTuple):
    """A sentence of the paper, and the rule that judges it."""

    text: str
    where: str  # section
    data: tuple[str, ...]  # what it is said of; nothing where networks alone are meant
    result: str  # whose values the rule takes, such as "fig7"
    rule: Callable[..., Judged] | None
    arguments: tuple[Any, ...]  # of the rule, behind the values; why there is no rule

    def judge(self, values: Values | None, data: str) -> Judged:
        """Judge by the values of its result on some data; None where it is not there."""
        if self.rule is None:
            return NOT_HERE, *self.arguments, ""
        if values is None:
            return NOT_HERE, f"{self.result} is not measured on these images", ""
        here = not self.data or data in self.data
        try:
            verdict, measured, beside = self.rule(values, *self.arguments)
        except KeyError:
            return NOT_FINISHED if here else NOT_HERE, "", ""
        if self.data and not_converged(values):
            verdict = NOT_CONVERGED
        return verdict if here else NOT_HERE, measured, beside


ST, MT = "ST-CNN", "MT-CNN"
ST_L2, MT_L2 = l2_label("st", L2_SHOWN, "share"), l2_label("mt", L2_SHOWN, "both")
_SPECIFICITY, _VIEW = "specificity of {}", "{}, view {}"
_ALPHAS = tuple(map(alpha_label, (0, *ALPHAS)))
_DEPTH = {m: tuple(depth_label(m, d) for d in (1, 2, 3, 4)) for m in ("st", "mt")}  # the paper's
_RIVALS = "the other methods are not trained here"
_LOOK = "a matter of looking; lesson 7 measures it"
_EACH, _BOTH, _NODULES, _LUNA = (), (NODULES, LUNA), (NODULES,), (LUNA,)


def _over(label: str, among: tuple[str, ...], turn: int = 1) -> Iterator[tuple[str, ...]]:
    """That label and each other one; with turn -1 the other way round."""
    return ((label, other)[::turn] for other in among if other != label)


def _claims(result: str, where: str, data: tuple[str, ...], *rows: Any) -> Iterator[Claim]:
    return (Claim(text, where, data, result, rule, tuple(of)) for text, rule, *of in rows)


CLAIMS = (
    *_claims(
        "table1", "IV-A", _BOTH,
        ("MT-CNN has an obvious advantage over ST-CNN", _better, MARGIN, (MT, ST)),
        ("the AUC of MT-CNN is higher than ST-CNN's", _better, 0.0, (MT, ST)),
    ),
    *_claims("table1", "abstract", _NODULES, ("MT-CNN has an AUC of 0.9559", _reaches, 0.9559)),
    *_claims("table1", "abstract", _LUNA, ("MT-CNN has an AUC of 0.9730", _reaches, 0.9730)),
    *_claims("belief", "IV-A", _NODULES, (
        "the specificity of MT-CNN is lower than ST-CNN's", _better, 0.0,
        (_SPECIFICITY.format(ST), _SPECIFICITY.format(MT)),
    )),
    *_claims("belief", "V", _BOTH, (
        "fusing the nine views is better than any one of them", _better, 0.0,
        *((MT, _VIEW.format(MT, v)) for v in range(len(PLANES))),
    )),
    *_claims("table1", "Table 1", _BOTH, ("MT-CNN has the highest AUC of all methods", _highest)),
    *_claims("table1", "abstract", _LUNA,
             ("MT-CNN has the lowest false positive rate, 3.2 %", None, _RIVALS)),
    *_claims("fig4", "IV-B", _NODULES,
             ("all reconstructed images are very similar to the original images", None, _LOOK)),
    *_claims(
        "fig7", "IV-D, IV-E", _LUNA,
        ("alpha = 0.3 is best", _better, 0.0, *_over("alpha 0.3", _ALPHAS)),
        ("0.2 and 0.4 give the same", _equal, "alpha 0.2", "alpha 0.4"),
        ("the AUC rises with alpha, then falls", _peak, *_ALPHAS),
        ("alpha = 1 is the worst of all", _better, 0.0, *_over("alpha 1", _ALPHAS, -1)),
        ("alpha = 1 is much worse than ST-CNN", _better, MARGIN, ("alpha 0", "alpha 1")),
        ("alpha = 0.3 is far better than ST-CNN", _better, MARGIN, ("alpha 0.3", "alpha 0")),
    ),
    *_claims(
        "fig6", "IV-D", _LUNA,
        ("MT-CNN: the more layers, the better", _better, 0.0, *_over(_DEPTH["mt"][2],
         _DEPTH["mt"][:2])),
        ("MT-CNN: three layers are much better than one or two", _better, MARGIN,
         *_over(_DEPTH["mt"][2], _DEPTH["mt"][:2])),
        ("MT-CNN: four layers and three do not differ", _equal, *_DEPTH["mt"][:1:-1]),
        ("ST-CNN: falls with four layers", _better, 0.0, _DEPTH["st"][2:]),
        ("MT-CNN is no worse than ST-CNN of the same depth", _better, -MARGIN,
         *zip(_DEPTH["mt"], _DEPTH["st"], strict=True)),
        ("MT-CNN's advantage grows with depth", _better, 0.0,
         (_DEPTH["mt"][3], _DEPTH["st"][3], _DEPTH["mt"][0], _DEPTH["st"][0])),
        ("three layers are one of the best choices", _better, -MARGIN,
         *_over(_DEPTH["st"][2], _DEPTH["st"]), *_over(_DEPTH["mt"][2], _DEPTH["mt"])),
    ),
    *_claims(
        "fig6", "IV-D", _EACH,
        ("four layers take much more time than three", _dearer, "seconds_a_step"),
        ("four layers take much more memory than three", _dearer, "memory_mb"),
    ),
    *_claims(
        "fig5", "IV-C", _LUNA,
        ("of the four, MT-CNN without l2 is the highest", _better, 0.0,
         *_over(MT, (ST, ST_L2, MT_L2))),
        ("of the four, MT-CNN with l2 is the lowest", _better, 0.0,
         *_over(MT_L2, (MT, ST, ST_L2), -1)),
        ("without l2 MT-CNN is greatly better than with it", _better, MARGIN, (MT, MT_L2)),
        ("l2 makes little difference to ST-CNN", _equal, ST_L2, ST),
        ("l2 harms MT-CNN more than ST-CNN", _better, 0.0, (ST_L2, ST, MT_L2, MT)),
    ),
)  # fmt: skip
"""What the paper says: of Table 1, of each sweep (whose networks have one to four layers)."""


def claimed(result: str) -> list[str]:
    """List what the paper says of a figure or table."""
    return [claim.text for claim in CLAIMS if claim.result == result]


def figure_verdicts(values: Values) -> pd.DataFrame:
    """Judge the paper's claims about a figure or table by what was measured, finished or not.

    Returns columns claim, measured (within folds), pooled, verdict: one of `VERDICTS`.
    """
    data, about = LUNA if is_luna(values) else NODULES, values["name"]
    rows = [(claim.text, *claim.judge(values, data)) for claim in CLAIMS if claim.result == about]
    table = pd.DataFrame(rows, columns=["claim", "verdict", "measured", "pooled"])
    return table[["claim", "measured", "pooled", "verdict"]]


def verdicts() -> pd.DataFrame:
    """Judge every one of `CLAIMS` on every kind of images, from `results/`.

    A row a claim and kind of images: claim, where, said of (the data), images, verdict, measured,
    pooled.
    """
    rows = []
    for kind in results.COHORTS:
        found: dict[str, Values] = {
            name: results.read(name, kind) for name, _ in results.there((kind,))
        }
        if (file := paths.results() / f"{kind}_belief.json").is_file():
            found["belief"] = _comparable(read_json(file, "a result"))
        data = LUNA if kind == results.LUNA else NODULES
        rows += [
            (claim.text, claim.where, " and ".join(claim.data) or "the networks", kind,
             *claim.judge(found.get(claim.result), data))
            for claim in CLAIMS
        ]  # fmt: skip
    columns = ["claim", "where", "said of", "images", "verdict", "measured", "pooled"]
    by_claim = [rows[i] for k in range(len(CLAIMS)) for i in range(k, len(rows), len(CLAIMS))]
    return pd.DataFrame(by_claim, columns=columns)


def _comparable(belief: Values) -> Values:
    """Put the comparisons with single views, and of specificities, beside those of networks."""
    pairs = dict(belief["comparisons"])
    for model, by_view in belief["fusion"].items():
        pairs |= {f"{model} less {_VIEW.format(model, v)}": pair for v, pair in by_view.items()}
    for name, d in belief["specificity"].items():
        both = " less ".join(_SPECIFICITY.format(model) for model in name.split(" less "))
        pairs[both] = {"auc_difference": d, "within_folds_difference": d, "found": None}
    return {**belief, "comparisons": pairs}
