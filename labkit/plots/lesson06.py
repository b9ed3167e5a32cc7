"""Things to drag in JupyterLab. Lessons say the same without them."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd

from labkit.errors import InputError
from labkit.evaluation.statistics import DEFAULT_THRESHOLD
from labkit.plots import roc


def threshold_slider(
    predictions: pd.DataFrame, *, view: str = "fused", simulated: bool = False
) -> Any:
    """`roc.operating_point_figure` under a slider that moves the threshold.

    Args:
        predictions: of one run, as `crossval.run` returns them.
        view: "fused", "size_only", or "0" to "8".
        simulated: say that the images were simulated.

    Returns:
        An ipywidgets box, which JupyterLab shows.

    Raises:
        InputError: ipywidgets is not installed.
    """
    try:
        import ipywidgets
    except ImportError:
        raise InputError(
            "sliders need ipywidgets: pip install ipywidgets; without it, change the threshold "
            "of roc.operating_point_figure and run the cell again"
        ) from None
    slider = ipywidgets.FloatSlider(
        DEFAULT_THRESHOLD, min=0.0, max=1.0, step=0.01, description="threshold",
        continuous_update=False,
    )  # fmt: skip
    picture = ipywidgets.Image(format="png")

    def draw(change: dict[str, Any]) -> None:
        figure = roc.operating_point_figure(
            predictions, change["new"], view=view, simulated=simulated
        )
        image = io.BytesIO()
        figure.savefig(image, format="png")
        picture.value = image.getvalue()

    slider.observe(draw, names="value")
    draw({"new": slider.value})
    return ipywidgets.VBox([slider, picture])
