"""One HTML file that holds a comparison of runs: table, ROC, learning curves, views."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from labkit import __version__
from labkit.files import write_atomically
from labkit.plots import style

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.55 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 62rem;
        padding: 0 1rem; }}
h1 {{ line-height: 1.2; }} h2 {{ margin-top: 2.2rem; }}
img {{ max-width: 100%; height: auto; }} figure {{ margin: 1rem 0; }}
figcaption {{ color: #555; font-size: .92rem; max-width: 46rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .8rem; text-align: left; border-bottom: 1px solid #ddd; }}
.note {{ background: #f4f1e6; border-left: 4px solid #b58900; padding: .6rem 1rem; }}
footer {{ margin-top: 3rem; color: #666; font-size: .88rem; }}
</style></head><body>
<h1>{title}</h1>
{body}
<footer>Made by labkit {version}. {footer} Not for clinical use.</footer>
</body></html>
"""


class Report:
    """A page that grows from top to bottom and is then saved, with its figures inside.

    Args:
        title: of the page.

    >>> page = Report("A title")
    >>> page.text("One paragraph, <escaped>.")
    >>> "&lt;escaped&gt;" in page.html("")
    True
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[str] = []

    def heading(self, text: str) -> None:
        """A section's heading."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def note(self, text: str) -> None:
        """A paragraph that stands out."""
        self._parts.append(f'<p class="note">{html.escape(text)}</p>')

    def table(self, table: pd.DataFrame) -> None:
        """A table as it is."""
        self._parts.append(table.to_html(index=False, border=0))

    def figure(self, figure: Figure, caption: str) -> None:
        """A figure with its alternative text, and a caption that says what to see."""
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=110)
        data = base64.b64encode(image.getvalue()).decode()
        self._parts.append(
            f'<figure><img alt="{html.escape(style.alt_text(figure), quote=True)}" '
            f'src="data:image/png;base64,{data}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def html(self, footer: str) -> str:
        """The whole page; `footer` says on what and when it was measured."""
        return _PAGE.format(
            title=html.escape(self._title),
            body="\n".join(self._parts),
            version=__version__,
            footer=html.escape(footer),
        )

    def save(self, file: Path, footer: str) -> None:
        """Write the page, atomically."""
        write_atomically(file, lambda p: p.write_text(self.html(footer), encoding="utf-8"))
