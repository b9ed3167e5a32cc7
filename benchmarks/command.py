"""What commands that write one JSON file have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.errors import InputError
from labkit.io import write_json


def write_computed(
    program: str,
    out: Path,
    compute: Callable[[], Any],
    in_words: Callable[[Any], str] | None = None,
) -> int:
    """Write what is computed and say so; or say in one line why it could not be.

    Args:
        program: as the command is called, "python -m benchmarks.belief".
        out: JSON file.
        compute: gives its values.
        in_words: what to say of them beside where they were written.

    Returns:
        The exit status: 0, or 2 for bad input.
    """
    try:
        values = compute()
        write_json(out, values)
    except InputError as error:
        print(f"{program.removeprefix('python -m ')}: {error}", file=sys.stderr)
        return 2
    print(f"wrote {out}" + (f": {in_words(values)}" if in_words is not None else ""))
    return 0
