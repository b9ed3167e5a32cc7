"""A slice of the interruptions, and that they would see a loss."""

import shutil
import sys

import numpy as np
import pytest

from benchmarks import interrupt
from labkit.training.machines import one_thread

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and process groups")


@pytest.mark.parametrize("name", ["build simulated", "crossval"])
def test_a_killed_command_goes_on_to_the_unbroken_result(name, tmp_path):
    with one_thread():
        place = interrupt.Place(name, tmp_path / "x")
        cases = interrupt.killed(place, 2, np.random.default_rng(0))
        assert [place.judge(other, ended) for other, ended in cases] == ["", ""]


def test_a_loss_is_seen(tmp_path):
    with one_thread():
        place = interrupt.Place("train", tmp_path / "x")
        killed = [(interrupt._KILLED, "")]
        assert place.judge(False, killed) == ""
        (place.here / ".left").touch()
        assert place.judge(False, killed) == "leaves .left"
        place.clear(True)
        assert place.judge(False, killed) == "what is not whole is read"
        shutil.rmtree(place.out)
        assert place.judge(True, killed) == "what was there is lost"
        assert place.judge(False, [(2, "Traceback\nlabkit: no")]).startswith("ended with 2")
        assert place.judge(False, [(0, "")]) == "says that it is done, and is not"
