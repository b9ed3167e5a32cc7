"""The slider draws what the figure draws, and says how to do without it."""

import sys

import pytest

from labkit.errors import InputError
from labkit.plots import lesson06
from tests.plots.test_roc import predictions


def test_moving_the_slider_draws_anew():
    pytest.importorskip("ipywidgets")
    slider, picture = lesson06.threshold_slider(predictions({"fused": 2.0})).children
    before = bytes(picture.value)
    slider.value = 0.8
    assert before.startswith(b"\x89PNG")
    after = bytes(picture.value)
    assert after.startswith(b"\x89PNG")
    assert after != before


def test_without_ipywidgets_it_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(InputError, match="pip install ipywidgets"):
        lesson06.threshold_slider(predictions({"fused": 2.0}))
