"""Figures of speed say what was measured, and refuse what was not."""

import copy
import json

import numpy as np
import pytest

from labkit.errors import InputError
from labkit.plots import lesson05, style

HARDWARE = {"processor": "a processor", "gpu": None, "threads": 1}


def stage(name: str, flop: float, size: float, seconds: float) -> dict:
    return {
        "stage": name, "kind": "product", "flop": 2 * flop, "flop_executed": flop, "bytes": size,
        "seconds": seconds,
    }  # fmt: skip


@pytest.fixture
def measured() -> dict:
    """A machine of 100 GFLOP/s and 10 GB/s: its ridge lies at 10 FLOP a byte."""
    stages = [
        stage("conv 1", 4e9, 1e8, 0.05),  # 40 FLOP a byte, 80 GFLOP/s; at least 40 ms
        stage("max pooling", 1e7, 1e8, 0.02),  # 0.1 FLOP a byte; at least 10 ms
        stage("FC 2", 1e6, 2e5, 0.001),
    ]
    step = {"seconds": 0.08, "flop": 4.011e9, "operations": 150, "stages": stages}
    return {
        "hardware": HARDWARE, "device": "cpu", "date": "2026-01-02T03:04:05", "batch_size": 64,
        "networks": 9, "launch_seconds": 3e-6, "steps": {"fp32": step},
        "roof": {"flop_per_s": {"fp32": 1e11}, "bytes_per_s": {"copy": 1e10, "triad": 8e9}},
    }  # fmt: skip


@pytest.fixture
def layouts() -> dict:
    ways = {
        "one after another": {"ms_per_round": 1000.0, "tflops": 0.1},
        "vmap": {"ms_per_round": 2000.0, "tflops": 0.05},
    }
    return {
        "hardware": HARDWARE, "device": "cpu", "networks": 9, "batch_size": 64,
        "precision": "fp32", "ways": ways,
    }  # fmt: skip


TRAINING = {"hardware": HARDWARE, "ratio": {"textbook, fp32": 1.0, "labkit, fp32": 3.0}}


def test_the_table_tells_arithmetic_from_memory(measured):
    rows = lesson05.table(measured).set_index("stage")
    assert rows["limit"].to_dict() == {
        "conv 1": "arithmetic", "max pooling": "memory", "FC 2": "memory",
    }  # fmt: skip
    assert rows["FLOP/byte"]["conv 1"] == pytest.approx(40)
    assert rows["GFLOP/s"]["conv 1"] == pytest.approx(80)
    assert rows["least ms"].tolist() == pytest.approx([40, 10, 0.02])
    assert rows["share"].sum() == pytest.approx(1)


def test_a_gpus_stage_counts_its_kernels_alone(measured):
    measured["steps"]["fp32"]["stages"][0]["kernel_seconds"] = 0.025
    assert lesson05.table(measured)["ms"][0] == pytest.approx(25)


def test_the_roofline_shows_every_stage_where_it_was_measured(measured):
    figure = lesson05.roofline_figure(measured)
    ax = figure.axes[0]
    places = np.concatenate([c.get_offsets() for c in ax.collections])
    wanted = lesson05.table(measured)[["FLOP/byte", "GFLOP/s"]].to_numpy()
    np.testing.assert_allclose(np.sort(places, axis=0), np.sort(wanted, axis=0))
    written = {t.get_text() for t in ax.texts}
    assert {"conv 1", "max pooling", "FC 2"} <= written
    assert "2026-01-02" in ax.get_title("left") and "a processor" in ax.get_title("left")
    # The roof bends at the ridge.
    assert any(np.isclose(line.get_xdata(), 10).any() for line in ax.lines)
    assert "100 GFLOP/s" in style.alt_text(figure)


def test_no_name_covers_another(measured):
    near = [stage(f"conv {k}", 4e9 * (1 + 0.05 * k), 1e8, 0.05) for k in range(6)]
    measured["steps"]["fp32"]["stages"] = near
    figure = lesson05.roofline_figure(measured)
    figure.draw_without_rendering()
    named = [t for t in figure.axes[0].texts if t.get_text().startswith("conv")]
    boxes = [t.get_window_extent() for t in named]
    assert len(boxes) == 6
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_bars_and_ticks_of_the_times(measured):
    measured["steps"]["bf16"] = copy.deepcopy(measured["steps"]["fp32"])
    measured["roof"]["flop_per_s"]["bf16"] = 2e11
    figure = lesson05.time_figure(measured)
    assert len(figure.axes) == 2
    for ax in figure.axes:
        assert [p.get_width() for p in ax.patches] == pytest.approx([50, 20, 1])
    ticks = [[line.get_xdata()[0] for line in ax.lines] for ax in figure.axes]
    assert ticks[0] == pytest.approx([40, 10, 0.02])
    assert ticks[1] == pytest.approx([20, 10, 0.02])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m.pop("roof"),
        lambda m: m["roof"]["bytes_per_s"].clear(),
        lambda m: m["steps"].clear(),
        lambda m: m["steps"]["fp32"]["stages"].clear(),
        lambda m: m["steps"]["fp32"]["stages"][0].pop("bytes"),
        lambda m: m["steps"]["fp32"]["stages"][0].update(seconds=0),
        lambda m: m["steps"]["fp32"]["stages"][0].update(seconds=None),
        lambda m: m["roof"]["flop_per_s"].update(fp32="fast"),
    ],
)
def test_half_a_measurement_is_refused(measured, tmp_path, spoil):
    spoil(measured)
    file = tmp_path / "roofline.json"
    file.write_text(json.dumps(measured))
    with pytest.raises(InputError, match=r"roofline\.json.*python -m benchmarks\.roofline"):
        lesson05.read(file)
    with pytest.raises(InputError):
        lesson05.roofline_figure(measured)


def test_a_measurement_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"missing; make it by python -m benchmarks\.roofline"):
        lesson05.read(tmp_path / "roofline.json")


def test_a_precision_that_was_not_measured(measured):
    with pytest.raises(InputError, match="bf16 was not measured; there is fp32"):
        lesson05.roofline_figure(measured, "bf16")


def test_the_committed_roofline_can_be_drawn():
    found = lesson05.read()
    stages = lesson05.table(found, "fp32").set_index("stage")
    assert stages["limit"]["conv 2"] == "arithmetic"
    assert stages["limit"]["optimiser"] == "memory"
    assert found["steps"]["fp32"]["flop"] == pytest.approx(11.08e9, rel=0.01)


def test_a_panel_for_training_and_one_for_every_machine(layouts):
    gpu = copy.deepcopy(layouts)
    gpu.update(device="cuda", hardware={"processor": "a processor", "gpu": "a GPU"})
    figure = lesson05.speed_figure(TRAINING, [layouts, gpu])
    titles = [ax.get_title("left") for ax in figure.axes]
    assert len(titles) == 3 and "a GPU" in titles[2] and "a processor" in titles[1]
    assert [p.get_width() for p in figure.axes[0].patches] == pytest.approx([1, 3])
    assert [p.get_width() for p in figure.axes[1].patches] == pytest.approx([1000, 2000])
    ends = [t.get_text() for t in figure.axes[1].texts]
    assert ends[1] == "2,000 ms, 0.5 × as fast, 50 GFLOP/s"


def test_files_of_other_machines_are_found(tmp_path, layouts):
    for name in ("benchmark_layouts_a_gpu.json", "benchmark_layouts.json"):
        (tmp_path / name).write_text(json.dumps({**layouts, "name": name}))
    training, found = lesson05.committed(tmp_path)
    assert training is None
    assert [f["name"] for f in found] == ["benchmark_layouts.json", "benchmark_layouts_a_gpu.json"]


def test_benchmarks_that_are_none_are_refused(tmp_path, layouts):
    with pytest.raises(InputError, match="no benchmark to draw"):
        lesson05.speed_figure()
    with pytest.raises(InputError, match="no benchmark of training there"):
        lesson05.committed(tmp_path)
    for spoilt in ({}, [], {**layouts, "ways": {}}, {**layouts, "ways": {"vmap": {}}}):
        (tmp_path / "benchmark_layouts.json").write_text(json.dumps(spoilt))
        with pytest.raises(InputError, match=r"benchmark_layouts\.json.*benchmarks\.layouts"):
            lesson05.committed(tmp_path)
    with pytest.raises(InputError, match=r"benchmarks\.training"):
        lesson05.speed_figure({"hardware": HARDWARE, "ratio": {}})
