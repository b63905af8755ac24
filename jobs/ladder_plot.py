"""The plots of what a ladder saves: for the report of a production, and for the documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pipelines.producing.deltas.ladder_savings import LadderSavings

WHOLE_COLOUR = "#e07a5f"
LADDER_COLOUR = "#2a6f97"

_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def draw_kept(axes: Axes, savings: LadderSavings) -> None:
    """Draw the bytes that a bucket keeps against the epochs that it keeps."""
    whole, ladder = savings.kept_whole(), savings.kept_by_ladder()
    _draw(axes, whole, ladder, f"deltas of all, parts of every {savings.every}th and the newest")
    axes.set_title("kept in the bucket", loc="left", fontsize="medium")
    axes.set_xlabel("epochs kept")


def draw_moved(axes: Axes, savings: LadderSavings) -> None:
    """Draw the bytes that a reader moves against the epochs that it follows."""
    _draw(axes, savings.moved_whole(), savings.moved_by_deltas(), "the first whole, then deltas")
    axes.set_title("moved by a reader that follows", loc="left", fontsize="medium")
    axes.set_xlabel("epochs followed")


def _draw(axes: Axes, whole: Sequence[int], less: Sequence[int], name: str) -> None:
    # Imported here, like the plots' library elsewhere: only drawing needs it.
    from matplotlib.ticker import MaxNLocator

    divisor, unit = next(((size, name) for size, name in _UNITS if whole and whole[-1] >= size), (1.0, "bytes"))
    counts = range(1, len(whole) + 1)
    marker = "o" if len(whole) == 1 else ""
    axes.plot(counts, [size / divisor for size in whole], color=WHOLE_COLOUR, marker=marker, label="whole parts of all")
    axes.plot(counts, [size / divisor for size in less], color=LADDER_COLOUR, marker=marker, label=name)
    for sizes, colour in ((whole, WHOLE_COLOUR), (less, LADDER_COLOUR)):
        if sizes:
            axes.annotate(
                f"{sizes[-1] / divisor:.3g} {unit}",
                (len(sizes), sizes[-1] / divisor),
                (4, 0),
                textcoords="offset points",
                va="center",
                color=colour,
                fontsize="small",
            )
    axes.set_ylabel(unit)
    # Room for the legend above the lines' ends.
    axes.set_ylim(0, max(1, *whole) / divisor * 1.3)
    axes.set_xlim(0, len(whole) * 1.16 + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize="small", loc="upper left")
