"""The folder of a cross-validation run: what is in it, and whose it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import union_categoricals

from labkit.data.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation.metrics import DEFAULT_THRESHOLD
from labkit.files import read_json, write_json
from labkit.training.config import TrainingConfig
from labkit.training.hardware import now

_NAMES = ("nodule_id", "patient_id", "view")
_ROWS_AT_ONCE = 100_000


@dataclass(frozen=True)
class Plan:
    """What a run repeats.

    Args:
        folds: of the cross-validation (III-E: 10).
        repeats: of the whole of it, with other folds (III-E: 10).
        split: "patient" or "nodule" (see `folds.make_folds`).
        first_folds: run only this many of the folds; None runs all.
    """

    folds: int = 10
    repeats: int = 1
    split: str = "patient"
    first_folds: int | None = None

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.folds < 2:
            raise InputError("there must be 1 or more repeats of 2 or more folds")
        if self.first_folds is not None and not 1 <= self.first_folds <= self.folds:
            raise InputError(f"first_folds must be 1 to {self.folds}, not {self.first_folds}")

    def places(self) -> Iterator[tuple[int, int]]:
        """(repeat, fold) of every part, in the order they are run."""
        for repeat in range(self.repeats):
            for fold in range(self.first_folds or self.folds):
                yield repeat, fold


def read_predictions(out: str | Path, view: str | None = None) -> pd.DataFrame:
    """The predictions of a finished run.

    Args:
        out: its folder.
        view: of this one alone, so that no more of LUNA-16's millions is ever held than that and a
            part of the file; None reads all.

    Raises:
        InputError: there is no finished run in the folder.
    """
    file = Path(out) / "predictions.csv"
    if not file.is_file():
        raise InputError(f"{file}: missing; the run is not finished, start it again to go on")
    with pd.read_csv(
        file,
        dtype=dict.fromkeys(_NAMES, "category"),
        keep_default_na=False,  # a patient called "NA" stays a patient
        na_values={"probability": [""]},
        chunksize=_ROWS_AT_ONCE,
    ) as parts:
        kept = [part if view is None else part[part["view"] == view] for part in parts]
    kept = [part for part in kept if len(part)] or kept[:1]
    names = {}
    for name in _NAMES:
        # Each name is kept once, though LUNA-16's predictions repeat it eleven times or more.
        values = union_categoricals([part[name] for part in kept])
        names[name] = values.categories.to_numpy(dtype=object)[values.codes]
    columns = list(kept[0].columns)
    numbers = pd.concat([part.drop(columns=list(_NAMES)) for part in kept], ignore_index=True)
    return numbers.assign(**names)[columns]


def read_threshold(out: str | Path) -> float:
    """Where a finished run's probabilities are cut: 0.5, or LUNA-16's share of nodules.

    Raises:
        InputError: there is no finished run in the folder.
    """
    values = read_json(Path(out) / "metrics.json", "a finished run")
    return float(values.get("threshold", DEFAULT_THRESHOLD))


def claim(
    out: Path, cohort: Cohort, config: TrainingConfig, plan: Plan, hardware: dict[str, Any]
) -> None:
    """Write what is run, and on what, to `run.json`; or make sure that the one there is the same.

    Raises:
        InputError: the folder holds another run, or other things.
    """
    identity = {
        "cohort": cohort.identity,
        "config": config.as_dict(),
        "plan": asdict(plan),
    }
    file = out / "run.json"
    if file.exists():
        there = read_json(file, "a run")
        if isinstance(there.get("config"), dict):
            # A run from before a setting existed was made with the setting's default.
            there["config"] = TrainingConfig.from_dict(there["config"]).as_dict()
        for part, values in identity.items():
            if there.get(part) != values:
                old, new = there.get(part) or {}, values
                changed = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
                raise InputError(
                    f"{out} holds another run: its {part} differs in {', '.join(changed)}; "
                    "choose another --out or delete it"
                )
        return
    # Another process may be claiming it now: lessons that share a run are tested side by side.
    if out.exists() and any(not p.name.startswith(f".{file.name}.") for p in out.iterdir()):
        raise InputError(f"{out}: not empty and not a run; choose another --out")
    write_json(file, {**identity, "hardware": hardware, "started": now()})


def unit_file(out: Path, repeat: int, fold: int, view: int) -> Path:
    """Where one trained network's results lie."""
    return out / "units" / f"repeat{repeat}_fold{fold}_view{view}.json"


def kept_folder(out: Path, view: int) -> Path:
    """Where the first fold's network of a view is kept."""
    return out / "units" / f"model_view{view}"


def is_done(out: Path, repeat: int, fold: int, view: int, keep_first_model: bool) -> bool:
    """Whether a network need not be trained again."""
    if not unit_file(out, repeat, fold, view).is_file():
        return False
    kept = kept_folder(out, view).is_dir() or (out / "model" / "model.json").is_file()
    return kept or not (keep_first_model and (repeat, fold) == (0, 0))
