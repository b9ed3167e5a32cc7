"""Execute the lessons in place: `python -m labkit.lessons notebooks`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from labkit.errors import InputError
from labkit.io import write_atomically

_KEPT_METADATA = ("kernelspec", "language_info")


def execute(file: Path, timeout_s: int = 3600) -> None:
    """Run a notebook from top to bottom and write its outputs back, atomically.

    Metadata that changes from run to run (times, the interpreter's version) is left out, so that
    only changes of substance show in a diff.

    Raises:
        InputError: no such notebook.
        CellExecutionError: a cell failed; the file is left as it was.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such notebook")
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(
        notebook, timeout=timeout_s, kernel_name="python3",
        resources={"metadata": {"path": str(file.parent)}}, record_timing=False,
    ).execute()  # fmt: skip
    for key in set(notebook.metadata) - set(_KEPT_METADATA):
        del notebook.metadata[key]
    notebook.metadata.language_info = {"name": "python"}
    write_atomically(file, lambda p: nbformat.write(notebook, p))


def main() -> int:
    """Execute every lesson of a folder, in reading order."""
    parser = argparse.ArgumentParser(
        description="Execute lessons in place; LABKIT_PROFILE says how much of everything.",
        epilog="example: LABKIT_PROFILE=lab python -m labkit.lessons notebooks",
    )
    parser.add_argument("what", nargs="+", type=Path, help="notebooks, or folders of them")
    for place in parser.parse_args().what:
        for file in sorted(place.glob("[0-9]*.ipynb")) if place.is_dir() else [place]:
            start = time.monotonic()
            print(f"{file} ...", end=" ", flush=True)
            try:
                execute(file)
            except (CellExecutionError, InputError) as error:
                print(f"failed\n{error}", file=sys.stderr)
                return 2
            print(f"{time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
