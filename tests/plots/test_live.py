"""Live learning curves: redrawn in place, and one figure in the end, however it ends."""

import base64
import io
import threading

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from labkit.errors import InputError
from labkit.plots import live, style
from labkit.plots.live import Curve, Growing, Progress
from labkit.training import progress as journal


def curve(epochs: int, level: float = 0.0, model: str = "mt") -> Curve:
    return Curve.of(rows(epochs, level, model))


def rows(epochs: int, level: float = 0.0, model: str = "mt") -> list[dict]:
    return [
        {"epoch": e, "learning_rate": 1e-3, "train_cls": 0.7 + level - 0.05 * e, "val_cls": 0.69,
         "train_img": 0.5 if model == "mt" else None, "val_auc": 0.5 + level + 0.04 * e}
        for e in range(epochs)
    ]  # fmt: skip


def drawn(figure: Growing, progress: dict[str, Progress], last: bool = False) -> Image.Image:
    image = io.BytesIO()
    figure.draw(progress, image, last)
    return Image.open(image)


def test_it_tells_how_far_a_run_has_come():
    begun = Progress([curve(3)] * 2, [curve(1)], 18)
    assert begun.in_words() == "2 of 18 networks, 1 under way"
    assert begun.in_words(last=True) == "2 of 18 networks, stopped with 1 under way"
    assert Progress([curve(3)] * 18, [], 18).in_words(last=True) == "18 of 18 networks"
    assert Progress([], [curve(1)], 1).in_words() == "0 of 1 network, 1 under way"


def test_the_mean_is_of_finished_networks_as_far_as_all_reach():
    figure = Growing()
    drawn(figure, {"": Progress([curve(6), curve(4, 0.1)], [curve(9, 0.3)], 3)})
    ax = figure._figure.axes[2]
    assert ax.get_title(loc="left") == "AUC, validation"
    mean = max((line for line in ax.lines if len(line.get_xdata())), key=lambda x: x.get_lw())
    np.testing.assert_allclose(mean.get_xdata(), [0, 1, 2, 3])
    np.testing.assert_allclose(mean.get_ydata(), 0.55 + 0.04 * np.arange(4))
    thin, under_way = (c.get_segments() for c in ax.collections)
    assert [len(s) for s in thin] == [6, 4] and [len(s) for s in under_way] == [9]


def test_a_redraw_shows_what_is_new_at_the_same_size():
    figure = Growing(simulated=True)
    first = drawn(figure, {"": Progress([], [curve(2)], 2)})
    grown = drawn(figure, {"": Progress([], [curve(5)], 2)})
    again = drawn(figure, {"": Progress([], [curve(2)], 2)})
    assert first.size == grown.size
    assert np.any(np.asarray(first) != np.asarray(grown))
    np.testing.assert_array_equal(np.asarray(first), np.asarray(again))


def test_what_is_not_there_is_not_drawn():
    figure = Growing()
    drawn(figure, {"": Progress([curve(3, model="st")], [], 1)})
    assert [ax.get_visible() for ax in figure._figure.axes] == [True, True, True, False]
    drawn(figure, {"": Progress([curve(3, model="mt")], [], 1)})
    assert all(ax.get_visible() for ax in figure._figure.axes)


def test_of_single_networks_the_title_says_which_are_trained():
    figure = Growing()
    both = {"one": Progress([curve(3)], [], 1), "two": Progress([], [curve(2)], 1)}
    drawn(figure, both)
    assert figure._title.get_text() == "trained: one; under way: two"
    drawn(figure, both, last=True)
    assert figure._title.get_text() == "trained: one; stopped: two"
    drawn(figure, {"one": Progress([curve(3)], [], 2), "two": Progress([], [curve(2)], 2)})
    assert figure._title.get_text() == "one: 1 of 2 networks; two: 0 of 2 networks, 1 under way"


def test_the_legend_covers_no_curve():
    figure = Growing()
    runs = {f"setting {i}": Progress([curve(3, 0.1 * i)], [], 1) for i in range(4)}
    drawn(figure, runs)
    (legend,) = figure._figure.legends
    assert [t.get_text() for t in legend.get_texts()] == list(runs)
    box = legend.get_window_extent()
    assert not any(box.overlaps(ax.get_window_extent()) for ax in figure._figure.axes)
    assert not box.overlaps(figure._title.get_window_extent())


def test_methods_have_their_colours():
    figure = Growing()
    image = drawn(figure, {"ST-CNN": Progress([curve(4, model="st")], [], 1),
                           "MT-CNN": Progress([curve(4, 0.1)], [], 1)})  # fmt: skip
    for method in (style.ST, style.MT):
        assert (np.asarray(image) == list(bytes.fromhex(method[1:]))).all(axis=2).sum() > 100


def test_another_thread_may_draw_and_pyplot_knows_nothing_of_it():
    figure, sizes = Growing(), []
    before = dict(plt.rcParams)
    thread = threading.Thread(
        target=lambda: sizes.append(drawn(figure, {"": Progress([curve(3)], [], 1)}).size)
    )
    thread.start()
    thread.join()
    assert sizes == [(924, 627)]
    assert plt.get_fignums() == [] and dict(plt.rcParams) == before


def test_outside_a_notebook_the_block_runs_and_nothing_else(tmp_path, capsys):
    threads = threading.active_count()
    with live.curves(tmp_path / "run") as folder:
        assert threading.active_count() == threads
        journal.writer(folder, "view0")(rows(1)[0])
    assert not folder.exists() and not (tmp_path / "run").exists()
    assert capsys.readouterr() == ("", "")
    with pytest.raises(KeyboardInterrupt), live.curves():
        raise KeyboardInterrupt


def test_what_a_killed_run_left_is_not_under_way(tmp_path):
    for name in ("left", "again"):
        journal.writer(tmp_path, name)(rows(1)[0])
    source = live._Source(tmp_path)
    assert source.look().curves == []
    note = journal.writer(tmp_path, "again")
    note(rows(1)[0])
    assert [len(c.epoch) for c in source.look().under_way] == [1]
    journal.finish(tmp_path, "again", rows(4))
    state = source.look()
    assert [len(c.epoch) for c in state.finished] == [4] and not state.under_way
    assert state.finished[0] is source.look().finished[0], "read once"


def test_networks_that_are_cut_off_stay_in_the_last_figure(tmp_path):
    source = live._Source(tmp_path)
    journal.writer(tmp_path, "view0")(rows(1)[0])
    assert len(source.look().under_way) == 1
    journal.clear(tmp_path)
    assert len(source.look(last=True).under_way) == 1
    assert source.look().under_way == []


def test_a_folder_that_holds_no_run_is_told(tmp_path):
    (tmp_path / "run.json").write_text('{"plan": {}}')
    with pytest.raises(InputError, match=r"run\.json: not the record of a run"):
        live._Source(tmp_path).look()


SETUP = """
import time, warnings
from labkit.plots import live
from labkit.training import journal

def train(folder, name, epochs=3, finish=True):
    note = journal.writer(folder, name)
    for e in range(epochs):
        note({"epoch": e, "learning_rate": 1e-3, "train_cls": 0.7 - e / 10, "val_cls": 0.69,
              "train_img": None, "val_auc": 0.5 + e / 10})
        time.sleep(0.15)
    if finish:
        journal.finish(folder, name, [{"epoch": e, "val_auc": 0.5, "train_cls": 0.6,
                                       "val_cls": 0.6, "train_img": None} for e in range(9)])
"""
SCENES = {
    "finished": """
with live.curves(simulated=True, every_s=0.1) as folder:
    train(folder, "view0")
    train(folder, "view1")
""",
    "named": """
with live.curves(every_s=0.1) as folder:
    train(folder / "ST-CNN", "view0")
    train(folder / "MT-CNN", "view0")
""",
    "interrupted": """
with live.curves(every_s=0.1) as folder:
    train(folder, "view0")
    train(folder, "view1", finish=False)
    time.sleep(1.5)
    journal.clear(folder)
    raise KeyboardInterrupt
""",
    "failed": """
with live.curves(every_s=0.1) as folder:
    train(folder, "view0")
    journal.begin(folder, ["view1"])
    raise ValueError("no")
""",
    "nothing": """
with live.curves():
    pass
""",
    "unreadable": """
with warnings.catch_warnings(record=True) as said, live.curves(every_s=0.1) as folder:
    train(folder, "view0")
    (folder / "units" / "view1.json").write_text("{")
print(len(said), "are not the last" in str(said[0].message))
""",
}


@pytest.fixture(scope="module")
def executed():
    """Outputs of each scene, run in one kernel."""
    cells = [nbformat.v4.new_code_cell(code) for code in (SETUP, *SCENES.values())]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=True).execute()
    assert not notebook.cells[0].outputs
    return dict(zip(SCENES, (cell.outputs for cell in notebook.cells[1:]), strict=True))


@pytest.mark.parametrize(
    ("scene", "kinds", "words"),
    [
        ("finished", ["display_data"], "2 of 2 networks."),
        ("named", ["display_data"], "ST-CNN: 1 of 1 network; MT-CNN: 1 of 1 network."),
        ("interrupted", ["display_data", "error"], "1 of 2 networks, stopped with 1 under way."),
        ("failed", ["display_data", "error"], "1 of 2 networks, stopped."),
        ("nothing", [], None),
        ("unreadable", ["display_data", "stream"], None),
    ],
)
def test_a_notebook_keeps_one_figure(executed, scene, kinds, words):
    outputs = executed[scene]
    assert sorted(o.output_type for o in outputs) == kinds
    figures = [o for o in outputs if o.output_type == "display_data"]
    for figure in figures:
        assert list(figure.data) == ["image/png", "text/plain"]
        image = Image.open(io.BytesIO(base64.b64decode(figure.data["image/png"])))
        assert image.size == (924, 627)
        assert figure.metadata["image/png"]["alt"] == figure.data["text/plain"]
    if words is not None:
        assert words in figures[0].data["text/plain"]


def test_a_notebook_still_sees_what_went_wrong(executed):
    errors = {s: [o.ename for o in outputs if o.output_type == "error"]
              for s, outputs in executed.items()}  # fmt: skip
    assert errors["interrupted"] == ["KeyboardInterrupt"] and errors["failed"] == ["ValueError"]
    assert [o.text for o in executed["unreadable"] if o.output_type == "stream"] == ["1 True\n"]
