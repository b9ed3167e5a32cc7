"""The paper's figures and tables: trained once, resumed, judged on the same nodules."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from labkit import profiles
from labkit.annotations import lidc
from labkit.errors import InputError
from labkit.evaluation import crossval, statistics
from labkit.evaluation.crossval import steps_an_epoch
from labkit.evaluation.statistics import roc_auc
from labkit.paper import fig1, fig6, reproduce, sweeps, table1
from labkit.paper import values as measured
from labkit.paper.claims import COLUMNS, asked
from labkit.paper.declared import ALPHAS, EXPERIMENTS, alpha_label, amounts, variant
from labkit.paper.finished import at_places
from labkit.training.config import TrainingConfig
from labkit.training.machines import Device
from tests.discs import disc_cohort
from tests.evaluation.tables import predictions

TINY = dataclasses.replace(profiles.get("smoke"), epochs=1, resamples=100)
HERE = {"device": "cpu", "jobs": 1, "progress": False}


def read(file):
    return json.loads(file.read_text())


def when_trained(out):
    return {f: f.stat().st_mtime_ns for f in out.glob("runs/*/*/units/repeat*.json")}


@pytest.fixture(scope="module")
def made(discs, tmp_path_factory):
    out = tmp_path_factory.mktemp("reproduced")
    return out, reproduce.reproduce(["fig7"], discs.folder, TINY, out, **HERE)


def test_a_figure_comes_with_its_table_and_everything_that_it_rests_on(discs, made):
    out, files = made
    assert files == {"fig7": out / "fig7.json"}
    for ending in ("json", "png", "svg", "csv"):
        assert (out / f"fig7.{ending}").stat().st_size > 1000
    values = read(files["fig7"])
    assert values["complete"] and values["missing"] == []
    assert values["cohort"]["sha256"]["views.npy"] == discs.meta["files"]["views.npy"]["sha256"]
    assert {"torch", "processor", "python"} <= set(values["hardware"])
    assert values["published"] == [p.as_dict() for p in EXPERIMENTS["fig7"].published]
    assert set(values["variants"]) == {alpha_label(a) for a in (0, *ALPHAS)}
    for of in values["variants"].values():
        assert of["trained"]["device"].startswith("CPU") and of["trained"]["networks"] == 8
        auc = of["metrics"]["auc"]
        assert auc["low"] <= auc["value"] <= auc["high"]
    assert len(pd.read_csv(out / "fig7.csv")) == 7


def test_values_are_those_of_the_runs(discs, made):
    out, files = made
    values = read(files["fig7"])
    for label, of in values["variants"].items():
        run = crossval.read_predictions(out / "runs" / discs.name / of["folder"])
        fused = run[run["view"] == "fused"]
        expected = roc_auc(fused["label"], fused["probability"])
        assert of["metrics"]["auc"]["value"] == pytest.approx(expected, abs=1e-6), label
    assert values["variants"]["alpha 0"]["folder"] == "st"
    assert values["variants"]["alpha 0.3"]["folder"] == "mt"
    best = max(ALPHAS, key=lambda a: values["variants"][alpha_label(a)]["metrics"]["auc"]["value"])
    found = values["search"]
    assert found["printed"] == pytest.approx(
        values["variants"][alpha_label(best)]["metrics"]["auc"], abs=1e-6
    )
    assert found["optimism"]["value"] == pytest.approx(
        found["printed"]["value"] - found["nested"]["value"], abs=2e-6
    )
    assert found["optimism"]["value"] >= 0


def test_every_comparison_of_a_figure_is_in_its_family(made):
    values = read(made[1]["fig7"])
    assert values["family"]["size"] == len(values["comparisons"]) == len(ALPHAS)
    folds = values["plan"]["baselines"]["folds"]
    for pair in values["comparisons"].values():
        assert pair["corrected_t_test"]["test_over_train"] == pytest.approx(1 / (folds - 1))
        assert pair["p_holm"] >= pair["delong"]["p_value"]
        assert {"auc_difference", "corrected_t_test", "equivalence"} <= set(pair)


def test_what_experiments_share_is_trained_once(discs, made):
    out, _ = made
    before = when_trained(out)
    assert len(before) == 7 * 2 * 4
    files = reproduce.reproduce(["table1", "fig7"], discs.folder, TINY, out, **HERE)
    assert when_trained(out) == before
    values = read(files["table1"])
    fig7 = read(files["fig7"])
    assert (
        values["rows"]["MT-CNN"]["metrics"]["auc"]
        == (fig7["variants"]["alpha 0.3"]["metrics"]["auc"])
    )
    table = pd.read_csv(out / "table1.csv").set_index("method")
    assert table.loc["MT-CNN", "auc_as_published"] == 0.9559
    assert table.loc["MT-CNN", "sensitivity_as_published"] == 0.8774
    assert table.loc["Xie et al. 2019, re-run", "auc_as_published"] == 0.9404
    assert np.isnan(table.loc["ST-CNN", "auc_as_published"])
    assert {"size only", "MT-CNN, axial", "ST-CNN, three orthogonal"} <= set(table.index)
    assert set(values["fusion"]["MT-CNN"]["ways"]) == {
        "AUC weights (Eq. 4)", "equal weights", "best view by validation", "logistic stacking",
    }  # fmt: skip
    assert values["family"]["size"] == 3
    assert "sweep" not in values["protocol"] and "sweep" in fig7["protocol"]
    assert (out / "table1_fusion.png").is_file()
    assert set(values["alt_text"]) == {"table1", "table1_fusion"}


def test_it_goes_on_where_it_stopped(discs, made, tmp_path):
    out, files = made
    again = tmp_path / "again"
    shutil.copytree(out, again)
    gone = again / "runs" / discs.name / "mt_alpha0.6" / "units" / "repeat0_fold1_view2.json"
    gone.unlink()
    before = when_trained(again)
    reproduce.reproduce("fig7", discs.folder, TINY, again, **HERE)
    after = when_trained(again)
    assert {f: after[f] for f in before} == before
    assert set(after) - set(before) == {gone}
    ours, theirs = (read(f) for f in (again / "fig7.json", files["fig7"]))
    assert ours["complete"]
    for part in ("comparisons", "search", "family", "size_only", "config", "plan"):
        assert ours[part] == theirs[part]
    for label, of in ours["variants"].items():
        assert of["metrics"] == theirs["variants"][label]["metrics"]


def test_a_half_finished_figure_is_drawn_and_says_so(discs, made, tmp_path, monkeypatch):
    """Networks that are lost cost their variant, and the rest goes on."""
    out, _ = made
    again = tmp_path / "again"
    shutil.copytree(out, again)
    for lost in ("mt_alpha0.6", "mt_alpha0.8"):
        shutil.rmtree(again / "runs" / discs.name / lost)
    whole = crossval.run

    def fails_at_0_6(cohort, config, *arguments, **changes):
        if config.alpha == 0.6:
            raise FloatingPointError("1 of 8 networks were lost")
        return whole(cohort, config, *arguments, **changes)

    monkeypatch.setattr(crossval, "run", fails_at_0_6)
    with pytest.raises(FloatingPointError, match=r"mt_alpha0\.6: 1 of 8"):
        reproduce.reproduce("fig7", discs.folder, TINY, again, **HERE)
    values = read(again / "fig7.json")
    assert values["missing"] == ["alpha 0.6"] and not values["complete"]
    assert "alpha 0.8" in values["variants"]
    assert values["search"]["among"] == [0.2, 0.3, 0.4, 0.8, 1.0]
    # The family is what was declared, so that finishing it lets no finding go.
    assert len(values["comparisons"]) == 5 and values["family"]["size"] == len(ALPHAS) == 6
    lowest = min(values["comparisons"].values(), key=lambda pair: pair["delong"]["p_value"])
    assert lowest["p_holm"] == pytest.approx(min(1, 6 * lowest["delong"]["p_value"]))


def test_another_cohort_or_profile_is_not_mixed_in(discs, made, tmp_path):
    out, _ = made
    other = disc_cohort(tmp_path / "others", n=40, seed=5)
    with pytest.raises(InputError, match="another cohort"):
        reproduce.reproduce("fig7", other, TINY, out, **HERE)
    longer = dataclasses.replace(TINY, epochs=3)
    with pytest.raises(InputError, match="another profile"):
        reproduce.reproduce("fig7", discs, longer, out, **HERE)
    with pytest.raises(InputError, match="another profile"):
        reproduce.reproduce("fig7", discs, TINY, out, folds=TINY.folds + 1, **HERE)


@pytest.mark.parametrize("asked", [["fig9"], "table2", [], ["fig7", "nonsense"]])
def test_unknown_names_are_refused(asked, tmp_path):
    with pytest.raises(InputError, match="there are fig1, table1, fig7, fig4, fig6, fig5, all"):
        reproduce.reproduce(asked, None, "smoke", tmp_path)


def test_fig1_needs_no_cohort_and_no_training(tmp_path):
    files = reproduce.reproduce("fig1", out=tmp_path, progress=False)
    values = read(files["fig1"])
    found = values["rules"][fig1.DEFAULT]
    assert (found["benign"], found["uncertain"], found["malignant"]) == (388, 441, 363)
    assert values["rules"]["LUNA-16's 888 scans"]["nodules"] == 1186
    for of in values["rules"].values():
        assert sum(n for _, n in of["by_score"]) == of["nodules"]
    published = {p["what"]: p["value"] for p in values["published"]}
    assert published["benign"] + published["uncertain"] + published["malignant"] == 1109


@pytest.mark.parametrize("profile", profiles.PROFILES.values(), ids=profiles.PROFILES)
def test_a_run_folder_says_what_is_trained_in_it(profile):
    by_folder = {}
    for experiment in EXPERIMENTS.values():
        labels = [v.label for v in experiment.variants]
        assert len(set(labels)) == len(labels)
        for first, second in experiment.comparisons:
            assert {first, second} <= {*labels, table1.SIZE}
        for v in experiment.variants:
            folder, config = v.folder(profile), v.config(profile)
            assert by_folder.setdefault(folder, config) == config
    assert len(set(by_folder.values())) == len(by_folder)
    assert {"mt", "st", "mt_alpha1", "st_depth5", "mt_l2-1e-4-img"} <= set(by_folder)
    baseline = profile.training().dropout_on.replace("+", "-")
    assert f"mt_dropout-{baseline}" not in by_folder
    assert len(by_folder) == 2 + 5 + 8 + 16 + 4


def test_the_baselines_are_trained_first_and_no_variant_twice():
    order = [
        v.folder(profiles.get("lab")) for v in reproduce.variants_of("all", profiles.get("lab"))
    ]
    assert order[:2] == ["mt", "st"]
    assert len(set(order)) == len(order) == 35
    l2 = [name for name in order if "l2" in name]
    assert set(l2[:2]) == {"st_l2-1e-4-share", "mt_l2-1e-4-both"}  # the paper's own four curves


def test_the_paper_profile_repeats_the_baselines_only():
    spent = amounts(profiles.get("paper"))
    assert spent.networks(variant("MT-CNN")) == 10 * 10 * 9
    assert spent.networks(variant("alpha 1", alpha=1.0)) == 10 * 9
    lab = amounts(profiles.get("lab"))
    shared = set(lab.sweep.places()) & set(lab.full.places())
    assert shared == set(lab.sweep.places()) and len(shared) == 3


def test_rows_of_some_places_are_those_rows():
    table = predictions(repeats=2, folds=4)
    some = at_places(table, [(0, 1), (1, 3)])
    assert set(map(tuple, some[["repeat", "fold"]].to_numpy())) == {(0, 1), (1, 3)}
    assert (
        len(some)
        == ((table["repeat"] == 0) & (table["fold"] == 1)).sum()
        + ((table["repeat"] == 1) & (table["fold"] == 3)).sum()
    )


def noise(settings, patients=24):
    """Settings that are all worth nothing, on the same folds."""
    return {
        s: predictions(patients=patients, signal=0.0, scores_seed=10 + i)
        for i, s in enumerate(settings)
    }


def val_auc_of(values):
    return {s: {(0, f): v for f, v in enumerate(row)} for s, row in values.items()}


def test_searching_among_worthless_settings_looks_better_than_it_is():
    """All are worth 0.5. What the printed search reports is more, what it gives is not."""
    settings = tuple(range(12))
    rng = np.random.default_rng(3)
    val = val_auc_of({s: rng.random(4) for s in settings})
    found = sweeps.search(noise(settings), val, resamples=300)
    assert found.printed.value > 0.55
    assert found.nested.low < 0.5 < found.nested.high
    assert abs(found.corrected.value - 0.5) < 0.08
    assert found.optimism.value > 0 and found.search_optimism > 0.03
    assert sum(found.how_often.values()) == pytest.approx(1)


def test_a_setting_that_is_best_everywhere_is_found_by_both_searches():
    runs = noise((0.2, 0.4)) | {0.3: predictions(patients=24, signal=5.0)}
    val = val_auc_of({0.2: [0.5] * 4, 0.3: [0.9] * 4, 0.4: [0.6] * 4})
    found = sweeps.search(runs, val, resamples=100)
    assert found.best == 0.3 and set(found.chosen.values()) == {0.3}
    assert (found.optimism.value, found.optimism.low, found.optimism.high) == (0, 0, 0)
    assert found.how_often[0.3] == 1


def test_the_nested_search_takes_each_folds_own_choice():
    runs = noise((0.2, 0.3))
    val = val_auc_of({0.2: [0.9, 0.9, 0.1, 0.5], 0.3: [0.1, 0.1, 0.9, 0.5]})
    found = sweeps.search(runs, val, resamples=50)
    assert found.chosen == {(0, 0): 0.2, (0, 1): 0.2, (0, 2): 0.3, (0, 3): 0.2}
    mixed = pd.concat([runs[s][runs[s]["fold"] == f] for (_, f), s in found.chosen.items()])
    assert found.nested.value == pytest.approx(roc_auc(mixed["label"], mixed["probability"]))


def test_a_search_over_other_folds_or_one_setting_is_refused():
    runs = {0.2: predictions(seed=0), 0.3: predictions(seed=1)}
    with pytest.raises(InputError, match="different folds"):
        sweeps.search(runs, val_auc_of({0.2: [0.5] * 4, 0.3: [0.5] * 4}))
    with pytest.raises(InputError, match="two settings"):
        sweeps.search({0.2: runs[0.2]}, val_auc_of({0.2: [0.5] * 4}))


@pytest.fixture(scope="module")
def folds():
    """Three views: a good one, a bad one, and one that says the opposite of the truth."""
    rng = np.random.default_rng(0)
    made = []
    for fold in range(2):
        label = np.tile([0, 1], 40)
        z = (2 * label - 1)[:, None] * np.array([2.0, 0.2, -2.0]) + rng.normal(size=(80, 3))
        test, val = np.arange(80) < 40, np.arange(80) >= 40
        made.append(
            table1.FoldViews(
                (0, 1, 2),
                pd.DataFrame(
                    {
                        "nodule_id": [f"f{fold}n{i}" for i in range(40)],
                        "patient_id": [f"f{fold}p{i}" for i in range(40)],
                        "repeat": 0,
                        "fold": fold,
                        "label": label[test],
                    }
                ),
                expit(z[test]),
                np.array([roc_auc(label[val], column) for column in z[val].T]),
                label[val],
                expit(z[val]),
            )
        )
    return made


def auc_of(folds, method):
    labels, runs, _ = statistics.scores(table1.fused(folds, method), "fused")
    return roc_auc(labels, runs[0])


def test_stacking_turns_a_view_round_that_weights_can_only_ignore(folds):
    ways = table1.methods(folds)
    aucs = {name: auc_of(folds, way) for name, way in ways.items()}
    assert aucs["logistic stacking"] > aucs["AUC weights (Eq. 4)"] > aucs["equal weights"]
    assert aucs["best view by validation"] == auc_of(folds, table1.by_auc([0]))


def test_fusing_one_view_or_all_is_what_it_says(folds):
    for fold in folds:
        np.testing.assert_array_equal(table1.by_auc([1])(fold), fold.test_probability[:, 1])
        np.testing.assert_allclose(table1.equally()(fold), fold.test_probability.mean(axis=1))
        weights = fold.val_auc / fold.val_auc.sum()
        np.testing.assert_allclose(table1.by_auc()(fold), fold.test_probability @ weights)


def test_auc_by_number_of_views_ends_at_all_of_them(folds):
    rows = table1.by_count(folds)
    assert [r["subsets"] for r in rows] == [3, 3, 1]
    assert rows[-1]["worst"] == rows[-1]["best"]
    assert rows[-1]["best"] == pytest.approx(auc_of(folds, table1.equally()), abs=1e-6)
    singles = [auc_of(folds, table1.equally([v])) for v in range(3)]
    assert rows[0]["best"] == pytest.approx(max(singles), abs=1e-6)


def test_without_validation_probabilities_there_is_no_stacking(folds):
    old = [dataclasses.replace(f, val_probability=None, val_label=None) for f in folds]
    assert "logistic stacking" not in table1.methods(old)


def test_size_and_calcification_knows_what_the_readers_saw(discs):
    """Benign nodules of a size are told from malignant ones by their calcium alone."""
    nodules = discs.nodules.copy()
    nodules["diameter_mm"] = 10.0
    nodules["calcification"] = np.where(nodules["label"].fillna(0) == 1, 6.0, 4.0)
    cohort = dataclasses.replace(discs, nodules=nodules)
    labelled = nodules.iloc[cohort.labelled]
    run = pd.DataFrame(
        {
            "nodule_id": labelled["nodule_id"], "patient_id": labelled["patient_id"],
            "repeat": 0, "fold": np.arange(len(labelled)) // 2 % 3, "view": "size_only",
            "probability": 0.5, "label": labelled["label"].astype(int),
        }
    )  # fmt: skip
    rated = table1.size_and_calcification(run, cohort)
    assert roc_auc(rated["label"], rated["probability"]) == 1
    assert set(rated["nodule_id"]) == set(run["nodule_id"])
    assert table1.size_and_calcification(run, discs) is None  # its readers rated nothing


def test_calcification_of_cubes_is_what_lidc_says_of_the_same_nodules(discs):
    """Named as in a file of cubes, with no calcification, they are found; else there is no row."""
    rated = (
        lidc.annotations().groupby("nodule_id")["malignancy"].agg(lambda r: "|".join(map(str, r)))
    )
    some = lidc.nodules().dropna(subset=["label"]).groupby("label").head(20)
    number = some["nodule_id"].str.extract(r"-n(\d+)$", expand=False)
    named = some.assign(
        nodule_id=some["patient_id"] + "/nodule-" + number, ratings=some["nodule_id"].map(rated)
    ).reset_index(drop=True)
    run = pd.DataFrame(
        {
            "nodule_id": named["nodule_id"], "patient_id": named["patient_id"], "repeat": 0,
            "fold": np.arange(len(named)) % 3, "view": "size_only", "probability": 0.5,
            "label": named["label"].astype(int),
        }
    )  # fmt: skip
    known = dataclasses.replace(discs, nodules=named)
    cubes = dataclasses.replace(discs, nodules=named.assign(calcification=np.nan))
    expected = table1.size_and_calcification(run, known)["probability"].tolist()
    found = table1.size_and_calcification(run, cubes)["probability"].tolist()
    assert found == pytest.approx(expected) and np.ptp(found) > 0.3
    one_wrong = cubes.nodules.assign(ratings=["9", *named["ratings"].iloc[1:]])
    assert table1.size_and_calcification(run, dataclasses.replace(cubes, nodules=one_wrong)) is None


def test_parameters_are_those_of_figure_3():
    share = 24 * 25 + 24 + 32 * 24 * 9 + 32 + 64 * 32 * 9 + 64
    classify = 4096 * 256 + 256 + 256 * 16 + 16 + 16 * 2 + 2
    decoder = 64 * 32 * 9 + 32 + 32 * 24 * 9 + 24 + 24 * 25 + 1
    assert fig6.parameters(TrainingConfig(model="st")) == share + classify
    assert fig6.parameters(TrainingConfig(model="mt")) == share + classify + decoder


def test_memory_grows_with_the_batch_and_with_the_second_task():

    def mb(**changes):
        return fig6.memory_mb(TrainingConfig.brief(**changes))

    one, two, four = (mb(model="st", batch_size=b) for b in (8, 16, 32))
    assert four - two == pytest.approx(2 * (two - one), rel=0.01)
    weights = 4 * 4 * fig6.parameters(TrainingConfig(model="st")) / 1e6
    assert 2 * one - two == pytest.approx(weights, rel=0.02)
    assert mb(model="mt", batch_size=16) > two


def test_a_layer_more_keeps_more_of_the_images_but_needs_fewer_weights():
    """FC1 sees a quarter as many pixels: the paper's argument for three looks at half of it."""
    three, four = (TrainingConfig.brief(depth=d, batch_size=8) for d in (3, 4))
    assert fig6.kept_mb(four) > fig6.kept_mb(three)
    assert fig6.parameters(four) < fig6.parameters(three)


def test_costs_have_a_row_for_every_configuration():
    small = {"precision": "fp32", "batch_size": 4}
    configs = {m: TrainingConfig.brief(model=m, **small) for m in ("st", "mt")}
    found = fig6.costs(configs, Device.choose("cpu", "fp32"))
    assert set(found) == {"st", "mt"}
    assert found["mt"]["gflop_a_step"] > found["st"]["gflop_a_step"] > 0
    assert all(of["seconds_a_step"] > 0 for of in found.values())


def test_a_comparison_that_folds_do_not_allow_says_why():
    table = predictions(folds=4)
    pair = measured.compare(
        (at_places(table, [(0, 0)]), "fused"), (at_places(table, [(0, 0)]), "fused"), 50
    )
    assert "one fold" in pair["corrected_t_test"]["not_computed"]
    assert pair["auc_difference"]["value"] == 0
    assert pair["equivalence"]["shown"]


def test_two_names_of_one_run_are_no_comparison():
    experiment, lab = EXPERIMENTS["fig5"], profiles.get("lab")
    assert len(experiment.comparisons) == 1 + 16 + 6
    pairs = sweeps._pairs(experiment, lab)
    assert len(pairs) == 1 + 16 + 4  # dropout behind FC1 is the short protocol itself
    assert ("MT-CNN, dropout FC1", "MT-CNN") not in pairs


def test_a_training_takes_its_steps_times_its_epochs():
    config = profiles.get("lab").training()
    assert steps_an_epoch(751, config, folds=5) == math.ceil(int(751 * 0.8 * 0.85) / 16)
    twice = dataclasses.replace(config, augmented_copies=2)
    assert steps_an_epoch(751, twice, folds=5) == math.ceil(2 * int(751 * 0.8 * 0.85) / 16)


def test_every_way_to_ask_stands_in_a_row():
    table, other = predictions(scores_seed=1), predictions(scores_seed=2)
    pairs = {"one less other": measured.compare((table, "fused"), (other, "fused"), 50)}
    pairs["at one place"] = measured.compare(
        *((at_places(t, [(0, 0)]), "fused") for t in (table, other)), 50
    )
    measured.correct(pairs)
    found = asked(pairs)
    assert list(found.index) == list(pairs) and list(found.columns) == list(COLUMNS)
    said = f"{pairs['one less other']['auc_difference']['value']:+.3f}"
    assert found.loc["one less other", "pooled over folds"].startswith(said)
    assert found["t-test over folds, p"].tolist()[1] == "none"


def test_every_experiment_has_a_maker():
    assert set(reproduce.MAKERS) == set(EXPERIMENTS)
