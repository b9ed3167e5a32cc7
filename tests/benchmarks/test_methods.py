"""What methods cost: counted by hand, and reckoned again from what is kept."""

import pytest

from benchmarks.methods import cost, methods
from labkit import paths
from labkit.io import read_json, write_json
from labkit.models import NETWORKS
from labkit.training import TrainingConfig
from tests.models.test_rivals import ball_cohort


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return ball_cohort(tmp_path_factory.mktemp("balls") / "cohort").folder


def test_weights_and_flop_are_those_counted_by_hand(cohort):
    """LeNet of 40x40 pixels: kernels of 7x7, 20 and 50 filters, 500 neurons."""
    found = cost(cohort, TrainingConfig.lab(model="zhao2018"))
    flat = 50 * 5**2
    weights = 20 * (7**2 + 1) + 50 * (20 * 7**2 + 1) + 500 * (flat + 1) + 500 + 1
    products = 20 * 34**2 * 7**2 + 50 * 11**2 * 20 * 7**2 + 500 * flat + 500
    assert (found["parameters"], found["flop_a_nodule"]) == (weights, 2 * products)
    assert found["frozen_parameters"] == found["features"] == 0
    assert min(found[f"{part}_seconds"] for part in ("start", "epoch", "predict")) > 0


def test_nine_views_cost_nine_times_one(cohort):
    one, nine = (cost(cohort, TrainingConfig.lab(model="st", views=tuple(range(n))))
                 for n in (1, 9))  # fmt: skip
    for counted in ("parameters", "flop_a_nodule"):
        assert nine[counted] == 9 * one[counted] > 0


def test_features_are_counted_where_there_is_no_network(cohort):
    found = cost(cohort, TrainingConfig.lab(model="size+calcification"))
    assert (found["features"], found["parameters"], found["flop_a_nodule"]) == (2, 0, None)
    assert found["epoch_seconds"] == 0 < found["start_seconds"]


def test_a_run_is_estimated_by_what_was_measured():
    found = read_json(paths.results() / "methods.json", "a result")
    for name, of in found["methods"].items():
        measured = of["fit_seconds"] * 500 / found["cohort"]["labelled"]
        if NETWORKS[name].whole:
            assert NETWORKS[name].seconds == pytest.approx(measured, rel=0.25, abs=2)


def test_what_is_known_is_reckoned_and_not_measured_again(cohort, tmp_path):
    known = {name: {"start_seconds": 2.0, "epoch_seconds": 0.0} for name in NETWORKS}
    write_json(tmp_path / "known.json", {"methods": known})
    *_, last = methods(cohort, known=tmp_path / "known.json")
    assert {of["fit_seconds"] for of in last["methods"].values()} == {2.0}
