"""What is taken from `best` is taken from what `labkit crossval --model best` fits."""

import numpy as np

from benchmarks.ablation import ablation
from labkit import profiles
from labkit.evaluation import crossval
from labkit.evaluation.statistics import summarise
from labkit.models.rivals.best import MEMBERS
from tests.models.test_rivals import ball_cohort


def test_its_members_together_are_best_itself(tmp_path):
    balls = ball_cohort(tmp_path / "cohort", n=36)
    found = ablation(balls.folder, folds=2, resamples=50, progress=False)
    config = profiles.get("lab").training(model="best")
    said = crossval.run(balls, config, tmp_path / "run", folds=2, jobs=1, progress=False)
    whole = " + ".join(MEMBERS)
    others = set(found["choices"]) - {whole}
    assert len(others) == 14
    expected = summarise(said, 50)["fused"]["auc"]["value"]
    np.testing.assert_allclose(found["choices"][whole]["auc"]["value"], expected)
    assert set(found["comparisons"]) == {f"{name} less best" for name in others}
