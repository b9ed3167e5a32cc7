"""Live learning curves: redrawn in place, and one figure in the end, however it ends."""

import base64
import io
import json
import threading

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from labkit.errors import InputError
from labkit.plots import live, style
from labkit.training import progress


def rows(epochs: int, level: float = 0.0, model: str = "mt") -> list[dict]:
    return [
        {"epoch": e, "learning_rate": 1e-3, "train_cls": 0.7 + level - 0.05 * e, "val_cls": 0.69,
         "train_img": 0.5 if model == "mt" else None, "val_auc": 0.5 + level + 0.04 * e}
        for e in range(epochs)
    ]  # fmt: skip


def a_run(folder, finished=(), under_way=()) -> live.Run:
    """A run with networks of these histories."""
    run = live.Run(folder)
    for name, history in enumerate(finished):
        progress.finish(folder, f"view{name}", history)
    for name, history in enumerate(under_way, len(finished)):
        file = folder / "live" / f"view{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in history))
    return run.look()


def test_runs_have_their_names_and_colours_in_whichever_thread_they_are_drawn(tmp_path):
    runs = {"ST-CNN": a_run(tmp_path / "st", [rows(4, model="st")]),
            "MT-CNN": a_run(tmp_path / "mt", [], [rows(4, 0.1)])}  # fmt: skip
    drawn, before = [], dict(plt.rcParams)
    for last in (False, True):
        look = threading.Thread(target=lambda last=last: drawn.append(live.draw(runs, True, last)))
        look.start()
        look.join()
    assert plt.get_fignums() == [] and dict(plt.rcParams) == before
    said = "ST-CNN: 1 of 1 network; MT-CNN: 0 of 1 network"
    ends = (f"{said}, 1 under way. ", f"{said}, stopped with 1 under way. ")
    for (picture, alt), end in zip(drawn, ends, strict=True):
        assert f"{end}Last validation AUC of each network: 0.620 to 0.720." in alt
        image = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
        for method in (style.ST, style.MT):
            assert (image == list(bytes.fromhex(method[1:]))).all(axis=2).sum() > 100


def test_outside_a_notebook_the_block_runs_and_nothing_else(tmp_path, capsys):
    threads = threading.active_count()
    with live.curves(tmp_path / "run") as folder:
        assert threading.active_count() == threads
        progress.writer(folder, "view0")(rows(1)[0])
    assert not folder.exists() and not (tmp_path / "run").exists()
    assert capsys.readouterr() == ("", "")
    with pytest.raises(KeyboardInterrupt), live.curves():
        raise KeyboardInterrupt


def test_what_a_killed_run_left_is_not_under_way_and_what_is_cut_off_stays_at_last(tmp_path):
    for name in ("left", "again", "cut off"):
        progress.writer(tmp_path, name)(rows(1)[0])
    run = live.Run(tmp_path).look()
    assert not run.finished and not run.under_way
    for name in ("again", "cut off"):
        progress.writer(tmp_path, name)(rows(1)[0])
    assert len(run.look().under_way) == 2
    progress.finish(tmp_path, "again", rows(4))
    assert [len(c) for c in run.look().finished] == [4] and len(run.under_way) == 1
    progress.clear(tmp_path)
    assert len(run.look(last=True).under_way) == 1
    assert not run.look().under_way
    (tmp_path / "run.json").write_text('{"plan": {}}')
    with pytest.raises(InputError, match=r"run\.json: not the record of a run"):
        run.look()


SETUP = """
import time, warnings
from labkit.plots import live
from labkit.training import progress
from tests.plots.test_live import rows

def train(folder, name, finish=True):
    note = progress.writer(folder, name)
    for row in rows(3):
        note(row)
        time.sleep(0.15)
    if finish:
        progress.finish(folder, name, rows(9))
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
    train(folder, "view1", finish=False)
    train(folder, "view0")
    time.sleep(3)
    progress.clear(folder)
    raise KeyboardInterrupt
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
        ("unreadable", ["display_data", "stream"], ""),
    ],
)
def test_a_notebook_keeps_one_figure(executed, scene, kinds, words):
    outputs = executed[scene]
    assert sorted(o.output_type for o in outputs) == kinds
    (figure,) = (o for o in outputs if o.output_type == "display_data")
    assert list(figure.data) == ["image/png", "text/plain"]
    assert Image.open(io.BytesIO(base64.b64decode(figure.data["image/png"]))).size[0] > 600
    assert figure.metadata["image/png"]["alt"] == figure.data["text/plain"]
    assert words in figure.data["text/plain"]
    said = [o.get("ename") or o.text for o in outputs if o is not figure]
    ends = {"interrupted": ["KeyboardInterrupt"], "unreadable": ["1 True\n"]}
    assert said == ends.get(scene, [])
