"""The HTML report of a production: one file with its plots inside, readable without a network."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.ladder_plot import draw_kept, draw_moved
from jobs.terminal import format_bytes, format_seconds
from schemas.nearcore.record_kind import record_kind_name
from schemas.shown_text import shown_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pipelines.execution.stage_runner import StageTiming
    from pipelines.producing.deltas.ladder_savings import LadderSavings
    from pipelines.producing.produce_epoch import EpochResult

_KINDS_SHOWN_MAX = 12
"""Record kinds with a bar of their own; the smaller ones are summed up."""

LADDER_EPOCHS_MIN = 2
"""With fewer epochs in the bucket nothing is saved yet, and nothing drawn."""

_COLOURS = (
    "#2a6f97",
    "#e07a5f",
    "#81b29a",
    "#f2cc8f",
    "#6d597a",
    "#b56576",
    "#355070",
    "#84a59d",
    "#f28482",
    "#52796f",
    "#bc6c25",
    "#8d99ae",
)

_EPOCH_COLOUR = "#495057"
"""Of stages that are no shard's."""


def write_report(path: Path, result: EpochResult, timings: Sequence[StageTiming], savings: LadderSavings | None = None) -> None:
    """Write the report.

    Args:
        path: written whole, then renamed into place.
        savings: of the chain's epochs in the bucket; None where no deltas are made.
    """
    # Imported here, like the plots' library: only a finished production needs them.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jobs", "templates"), autoescape=True, undefined=jinja2.StrictUndefined, finalize=shown_in_html
    )
    environment.filters.update(size=format_bytes, seconds=format_seconds, number=lambda count: f"{count:,}")
    html = environment.get_template("report.html.j2").render(
        result=result,
        timings=timings,
        ladder=None if savings is None or len(savings.epochs) < LADDER_EPOCHS_MIN else _ladder(savings),
        savings=savings,
        part_sizes=_svg(lambda axes: _draw_part_sizes(axes, result), height=2.8),
        kinds=_svg(lambda axes: _draw_kinds(axes, result), height=3.2),
        stages=_svg(
            lambda axes: _draw_stages(axes, timings, _shard_colours(result)), height=max(1.6, 0.32 * len(_stage_names(timings)) + 0.9)
        ),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(html, encoding="utf-8")
    unfinished.replace(path)


def shown_in_html(value: Any) -> Any:
    """Return what the page says as text that may be shown; what is HTML already, as the plots, stays."""
    return value if hasattr(value, "__html__") else shown_text(str(value))


def _svg(draw: Callable[[Any], None], height: float) -> str:
    # The object interface needs no display and shares no state with other plots.
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    draw(axes)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _ladder(savings: LadderSavings) -> list[str]:
    return [_svg(lambda axes, draw=draw: draw(axes, savings), height=2.6) for draw in (draw_kept, draw_moved)]  # type: ignore[misc]


def _shard_colours(result: EpochResult) -> dict[str, str]:
    """Return each shard's colour, the same in all plots, by the name under which its stages are timed."""
    return {str(shard.listing.shard_uid): _COLOURS[number % len(_COLOURS)] for number, shard in enumerate(result.shards)}


def _draw_part_sizes(axes: Axes, result: EpochResult) -> None:
    position = 0
    colours = _shard_colours(result)
    for shard in result.shards:
        sizes = [part.digests.stored_size / 1e6 for part in shard.parts]
        if not sizes:
            continue
        axes.bar(
            range(position, position + len(sizes)),
            sizes,
            width=0.9,
            color=colours[str(shard.listing.shard_uid)],
            label=str(shard.listing.shard_uid),
        )
        position += len(sizes) + 1
    axes.set_ylabel("stored MB")
    axes.set_xlabel("state parts, shard by shard")
    axes.set_xticks([])
    if position:
        axes.legend(frameon=False, ncols=6, fontsize="small", loc="upper left", bbox_to_anchor=(0, 1.22))


def _draw_kinds(axes: Axes, result: EpochResult) -> None:
    sizes: dict[int, int] = {}
    for shard in result.shards:
        for kind, _, size in shard.kinds:
            sizes[kind] = sizes.get(kind, 0) + size
    ranked = sorted(sizes.items(), key=lambda entry: -entry[1])
    shown = [(record_kind_name(None if kind < 0 else kind), size) for kind, size in ranked[:_KINDS_SHOWN_MAX]]
    if rest := sum(size for _, size in ranked[_KINDS_SHOWN_MAX:]):
        shown.append(("all others", rest))
    total = sum(sizes.values()) or 1
    names = [f"{name} ({size / total:.1%})" for name, size in reversed(shown)]
    axes.barh(names, [size / 1e6 for _, size in reversed(shown)], color=_COLOURS[0])
    axes.set_xlabel("MB of keys and values")


def _stage_names(timings: Sequence[StageTiming]) -> list[str]:
    return list(dict.fromkeys(timing.stage for timing in timings))


def _draw_stages(axes: Axes, timings: Sequence[StageTiming], colours: dict[str, str]) -> None:
    names = _stage_names(timings)
    shards = list(dict.fromkeys(timing.shard for timing in timings))
    for number, shard in enumerate(shards):
        left = [0.0] * len(names)
        for timing in timings:
            row = names.index(timing.stage)
            if timing.shard in shards[:number]:
                left[row] += timing.seconds
        widths = [sum(timing.seconds for timing in timings if timing.stage == name and timing.shard == shard) for name in names]
        axes.barh(names, widths, left=left, color=colours.get(shard, _EPOCH_COLOUR), label=shard or "epoch")
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    if names:
        axes.legend(frameon=False, fontsize="small", loc="lower right")
