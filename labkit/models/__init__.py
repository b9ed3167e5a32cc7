"""The methods, by the short name that a configuration gives them. They know nothing of folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any


@dataclass(frozen=True)
class Network:
    """A network, or another method, that a configuration can ask for."""

    name: str  # in figures and tables
    place: str  # its class as "module:class", imported when it is first built
    reconstructs: bool = False  # whether it has a second task, to draw its image again
    reference: str = ""
    seconds: float = 1.0  # about, of a fit to 500 nodules on one core (`results/methods.json`)
    # By metric, on LIDC-IDRI: as its abstract, or a paper that cites it, has it.
    published: Mapping[str, float] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether it takes a nodule whole (`rivals.Rival`) rather than one view."""
        return self.place.startswith("labkit.models.rivals")

    def build(self, **options: Any) -> Any:
        """Return a new network, with weights from torch's current seed."""
        return resolve_name(self.place)(**options)


def _rival(
    name: str, place: str, seconds: float, reference: str = "", **published: float
) -> Network:
    place = f"labkit.models.rivals.{place}"
    return Network(name, place, False, reference, seconds, published)


NETWORKS = {
    "mt": Network("MT-CNN", "labkit.models.mtcnn:MTCNN", reconstructs=True),
    "st": Network("ST-CNN", "labkit.models.mtcnn:STCNN"),
    "size": _rival("size only, fitted", "size:Size", 1),
    "size+calcification": _rival("size + calcification", "size:SizeCalcified", 2),
    "han2015": _rival("texture", "han2015:Han2015", 8, "Han et al. 2015", auc=0.9270),
    "kumar2015": _rival("autoencoder and tree", "kumar2015:Kumar2015", 16,
        "Kumar et al. 2015", accuracy=0.7501, sensitivity=0.8335),
    "ciompi2015": _rival("ImageNet's features of three views", "ciompi2015:Ciompi2015", 16,
        "Ciompi et al. 2015, AUC 0.868 on nodules at fissures"),
    "shewaye2016": _rival("geometry and histogram", "shewaye2016:Shewaye2016", 6,
        "Shewaye and Mekonnen 2016", sensitivity=0.82, specificity=0.93),
    "descriptors": _rival("HOG, LBP and SIFT", "descriptors:Descriptors", 12,
        "named by Zhai et al. 2020"),
    "radiomics": _rival("radiomics and trees", "radiomics:Radiomics", 12,
        "after Aerts et al. 2014"),
    "yan2016-slice": _rival("slices, mean", "yan2016:YanSlice", 93,
        "Yan et al. 2016", accuracy=0.867),
    "yan2016-2d": _rival("slices as channels", "yan2016:Yan2D", 13,
        "Yan et al. 2016", accuracy=0.873, sensitivity=0.885, specificity=0.860),
    "yan2016-3d": _rival("small 3-D CNN", "yan2016:Yan3D", 165,
        "Yan et al. 2016", accuracy=0.874, sensitivity=0.894, specificity=0.852),
    "dou2017": _rival("multilevel 3-D CNN", "dou2017:Dou2017", 260,
        "Dou et al. 2017, best CPM on LUNA-16's candidates"),
    "zhao2018": _rival("agile CNN", "zhao2018:Zhao2018", 22,
        "Zhao et al. 2018", auc=0.877, accuracy=0.822),
    "dey2018": _rival("MoDenseNet", "dey2018:Dey2018", 175, "Dey et al. 2018", accuracy=0.9040),
    "deeplung2018": _rival("DeepLung, no diameter", "deeplung2018:DeepLung", 215,
        "Zhu et al. 2018"),
    "deeplung2018+diameter": _rival("DeepLung", "deeplung2018:DeepLungDiameter", 215,
        "Zhu et al. 2018", accuracy=0.9044),
    "mvkbc2019": _rival("MV-KBC", "mvkbc2019:MVKBC", 95,
        "Xie et al. 2019a", auc=0.9570, accuracy=0.9160),
    "mkssac2019": _rival("MK-SSAC", "mkssac2019:MKSSAC", 370,
        "Xie et al. 2019b", auc=0.9581, accuracy=0.9253),
    "hscnn2019": _rival("HSCNN", "hscnn2019:HSCNN", 220, "Shen et al. 2019", auc=0.856),
    "mt3d": _rival("MT-CNN in 3-D", "mt3d:MT3D", 100, "after Zhai et al. 2020"),
    "shared": _rival("one encoder, nine views", "shared:Shared", 75, "beyond Zhai et al. 2020"),
    "mt-ratings": _rival("shared encoder, ratings as tasks", "mt_ratings:MTRatings", 90,
        "beyond Zhai et al. 2020"),
    "best": _rival("radiomics and ImageNet stacked", "best:Best", 25, "beyond Zhai et al. 2020"),
}  # fmt: skip
"""To add a network of one view, write its class in a file of its own and its entry here. It is
built with `depth` and `dropout_on`, has `logits(images)` and `class_logits(images)` as `STCNN`,
`share` and `classify`, whose last layer is linear, `reconstruct` if it has a second task, and, if
it shall be trained beside others, no batch normalisation and dropout behind linear layers alone.
Its row in Table 1 is a `Variant` in `paper.declared`. To add a method that takes a nodule whole,
write a `rivals.Rival`. Of every one there is also `NAME+size`: what it says and the log-diameter,
put together by logistic regression on nodules that the method has not learnt from."""
RIVALS = tuple(name for name, of in NETWORKS.items() if of.whole and not name.startswith("size"))
"""The other methods of Table 1, but for those that have its rows anyway."""
