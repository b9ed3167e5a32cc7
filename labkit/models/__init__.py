"""The methods, by the short name that a configuration gives them. They know nothing of folds."""

from __future__ import annotations

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any


@dataclass(frozen=True)
class Network:
    """A network, or another method, that a configuration can ask for."""

    name: str  # in figures and tables
    place: str  # its class as "module:class", imported when it is first built
    reconstructs: bool = False  # whether it has a second task, to draw its image again
    reference: str = ""
    published: str = ""  # its result on LIDC-IDRI as published, and of what
    seconds: float = 1.0  # about, of a fit to 500 nodules on one core, for the estimate before it

    @property
    def whole(self) -> bool:
        """Whether it takes a nodule whole (`rivals.Rival`) rather than one view."""
        return self.place.startswith("labkit.models.rivals")

    def build(self, **options: Any) -> Any:
        """Return a new network, with weights from torch's current seed."""
        return resolve_name(self.place)(**options)


def _rival(name: str, place: str, seconds: float, reference: str, published: str = "") -> Network:
    place = f"labkit.models.rivals.{place}"
    return Network(name, place, False, reference, published, seconds)


NETWORKS = {
    "mt": Network("MT-CNN", "labkit.models.mtcnn:MTCNN", reconstructs=True),
    "st": Network("ST-CNN", "labkit.models.mtcnn:STCNN"),
    # Of a fit to 500 nodules on one core, about so many seconds.
    "size": _rival("size only, fitted", "size:Size", 1, ""),
    "size+calcification": _rival("size + calcification", "size:SizeCalcified", 1, ""),
    "han2015": _rival("texture", "han2015:Han2015", 10,
        "Han et al. 2015", "AUC 92.70, Haralick's features, LIDC-IDRI"),
    "kumar2015": _rival("autoencoder and tree", "kumar2015:Kumar2015", 25,
        "Kumar et al. 2015", "accuracy 75.01 %, sensitivity 83.35 %, LIDC-IDRI"),
    "ciompi2015": _rival("ImageNet's features of three views", "ciompi2015:Ciompi2015", 35,
        "Ciompi et al. 2015", "AUC 86.8, of nodules at fissures"),
    "shewaye2016": _rival("geometry and histogram", "shewaye2016:Shewaye2016", 8,
        "Shewaye and Mekonnen 2016", "sensitivity 82 %, specificity 93 %, LIDC-IDRI"),
    "descriptors": _rival("HOG, LBP and SIFT", "descriptors:Descriptors", 15,
        "named by Zhai et al. 2020"),
    "radiomics": _rival("radiomics and trees", "radiomics:Radiomics", 12,
        "after Aerts et al. 2014"),
    "yan2016-slice": _rival("slices, mean", "yan2016:YanSlice", 60,
        "Yan et al. 2016", "accuracy 86.7 %, LIDC-IDRI"),
    "yan2016-2d": _rival("slices as channels", "yan2016:Yan2D", 10,
        "Yan et al. 2016", "accuracy 87.3 %, LIDC-IDRI"),
    "yan2016-3d": _rival("small 3-D CNN", "yan2016:Yan3D", 60,
        "Yan et al. 2016", "accuracy 87.4 %, LIDC-IDRI"),
    "dou2017": _rival("multilevel 3-D CNN", "dou2017:Dou2017", 200,
        "Dou et al. 2017", "CPM 0.827, LUNA-16's false positive reduction"),
    "zhao2018": _rival("agile CNN", "zhao2018:Zhao2018", 15,
        "Zhao et al. 2018", "AUC 87.7, accuracy 82.2 %, 743 nodules of LIDC-IDRI"),
    "dey2018": _rival("MoDenseNet", "dey2018:Dey2018", 100,
        "Dey et al. 2018", "accuracy 90.40 %, LIDC-IDRI"),
    "deeplung2018": _rival("DeepLung, no diameter", "deeplung2018:DeepLung", 250,
        "Zhu et al. 2018"),
    "deeplung2018+diameter": _rival("DeepLung", "deeplung2018:DeepLungDiameter", 250,
        "Zhu et al. 2018", "accuracy 90.44 %, LIDC-IDRI"),
    "mvkbc2019": _rival("MV-KBC", "mvkbc2019:MVKBC", 100,
        "Xie et al. 2019a", "AUC 95.70, accuracy 91.60 %, LIDC-IDRI; Zhai et al. 2020 94.04"),
    "mkssac2019": _rival("MK-SSAC", "mkssac2019:MKSSAC", 200,
        "Xie et al. 2019b", "AUC 95.81, accuracy 92.53 %, LIDC-IDRI"),
    "hscnn2019": _rival("HSCNN", "hscnn2019:HSCNN", 150, "Shen et al. 2019", "AUC 85.6, LIDC-IDRI"),
    "mt3d": _rival("MT-CNN in 3-D", "mt3d:MT3D", 120, "after Zhai et al. 2020"),
    "shared": _rival("one encoder, nine views", "shared:Shared", 70, "beyond Zhai et al. 2020"),
    "mt-ratings": _rival("shared encoder, ratings as tasks", "mt_ratings:MTRatings", 120,
        "beyond Zhai et al. 2020"),
    "best": _rival("four opinions stacked", "best:Best", 80, "beyond Zhai et al. 2020"),
}  # fmt: skip
"""To add a network of one view, write its class in a file of its own and its entry here. It is
built with `depth` and `dropout_on`, has `logits(images)` and `class_logits(images)` as `STCNN`,
`share` and `classify`, whose last layer is linear, and no batch normalisation if it shall be
trained beside others. To add a method that takes a nodule whole, write a `rivals.Rival`. Of every
one there is also `NAME+size`: what it says and the log-diameter, put together by logistic
regression on the validation nodules."""
RIVALS = tuple(name for name, of in NETWORKS.items() if of.whole and not name.startswith("size"))
"""The other methods of Table 1, but for those that have its rows anyway."""
