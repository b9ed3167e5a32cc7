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


_RIVALS = "labkit.models.rivals."
NETWORKS = {
    "mt": Network("MT-CNN", "labkit.models.mtcnn:MTCNN", reconstructs=True),
    "st": Network("ST-CNN", "labkit.models.mtcnn:STCNN"),
    "size": Network("size only, fitted", "labkit.models.rivals.size:Size"),
    "size+calcification": Network(
        "size + calcification", "labkit.models.rivals.size:SizeCalcified"
    ),
    "han2015": Network(
        "texture", _RIVALS + "han2015:Han2015",
        reference="Han et al. 2015",
        published="AUC 92.70, Haralick's features, LIDC-IDRI", seconds=10,
    ),
    "kumar2015": Network(
        "autoencoder and tree", _RIVALS + "kumar2015:Kumar2015",
        reference="Kumar et al. 2015",
        published="accuracy 75.01 %, sensitivity 83.35 %, LIDC-IDRI", seconds=25,
    ),
    "ciompi2015": Network(
        "ImageNet's features of three views", _RIVALS + "ciompi2015:Ciompi2015",
        reference="Ciompi et al. 2015",
        published="AUC 86.8, of nodules at fissures", seconds=35,
    ),
    "shewaye2016": Network(
        "geometry and histogram", _RIVALS + "shewaye2016:Shewaye2016",
        reference="Shewaye and Mekonnen 2016",
        published="sensitivity 82 %, specificity 93 %, LIDC-IDRI", seconds=8,
    ),
    "descriptors": Network(
        "HOG, LBP and SIFT", _RIVALS + "descriptors:Descriptors",
        reference="named by Zhai et al. 2020", seconds=15,
    ),
    "radiomics": Network(
        "radiomics and trees", _RIVALS + "radiomics:Radiomics",
        reference="after Aerts et al. 2014", seconds=12,
    ),
    "yan2016-slice": Network(
        "slices, mean", _RIVALS + "yan2016:YanSlice",
        reference="Yan et al. 2016",
        published="accuracy 86.7 %, LIDC-IDRI", seconds=60,
    ),
    "yan2016-2d": Network(
        "slices as channels", _RIVALS + "yan2016:Yan2D",
        reference="Yan et al. 2016",
        published="accuracy 87.3 %, LIDC-IDRI", seconds=10,
    ),
    "yan2016-3d": Network(
        "small 3-D CNN", _RIVALS + "yan2016:Yan3D",
        reference="Yan et al. 2016",
        published="accuracy 87.4 %, LIDC-IDRI", seconds=60,
    ),
    "dou2017": Network(
        "multilevel 3-D CNN", _RIVALS + "dou2017:Dou2017",
        reference="Dou et al. 2017",
        published="CPM 0.827, LUNA-16's false positive reduction", seconds=200,
    ),
    "zhao2018": Network(
        "agile CNN", _RIVALS + "zhao2018:Zhao2018",
        reference="Zhao et al. 2018",
        published="AUC 87.7, accuracy 82.2 %, 743 nodules of LIDC-IDRI", seconds=15,
    ),
    "dey2018": Network(
        "MoDenseNet", _RIVALS + "dey2018:Dey2018",
        reference="Dey et al. 2018",
        published="accuracy 90.40 %, LIDC-IDRI", seconds=100,
    ),
    "deeplung2018": Network(
        "DeepLung, no diameter", _RIVALS + "deeplung2018:DeepLung",
        reference="Zhu et al. 2018", seconds=250,
    ),
    "deeplung2018+diameter": Network(
        "DeepLung", _RIVALS + "deeplung2018:DeepLungDiameter",
        reference="Zhu et al. 2018",
        published="accuracy 90.44 %, LIDC-IDRI", seconds=250,
    ),
    "mvkbc2019": Network(
        "MV-KBC", _RIVALS + "mvkbc2019:MVKBC",
        reference="Xie et al. 2019a",
        published="AUC 95.70, accuracy 91.60 %, LIDC-IDRI; Zhai et al. 2020 94.04", seconds=100,
    ),
    "mkssac2019": Network(
        "MK-SSAC", _RIVALS + "mkssac2019:MKSSAC",
        reference="Xie et al. 2019b",
        published="AUC 95.81, accuracy 92.53 %, LIDC-IDRI", seconds=200,
    ),
    "hscnn2019": Network(
        "HSCNN", _RIVALS + "hscnn2019:HSCNN",
        reference="Shen et al. 2019",
        published="AUC 85.6, LIDC-IDRI", seconds=150,
    ),
    "mt3d": Network(
        "MT-CNN in 3-D", _RIVALS + "mt3d:MT3D",
        reference="after Zhai et al. 2020", seconds=120,
    ),
    "shared": Network(
        "one encoder, nine views", _RIVALS + "shared:Shared",
        reference="beyond Zhai et al. 2020", seconds=70,
    ),
    "mt-ratings": Network(
        "shared encoder, ratings as tasks", _RIVALS + "mt_ratings:MTRatings",
        reference="beyond Zhai et al. 2020", seconds=120,
    ),
    "best": Network(
        "four opinions stacked", _RIVALS + "best:Best",
        reference="beyond Zhai et al. 2020", seconds=80,
    ),
}  # fmt: skip
"""To add a network of one view, write its class in a file of its own and its entry here. It is
built with `depth` and `dropout_on`, has `logits(images)` and `class_logits(images)` as `STCNN`,
`share` and `classify`, whose last layer is linear, and no batch normalisation if it shall be
trained beside others. To add a method that takes a nodule whole, write a `rivals.Rival`. Of every
one there is also `NAME+size`: what it says and the log-diameter, put together by logistic
regression on the validation nodules."""
