"""What each stage of a run costs, as measured; the constants are those of the runs that docs/benchmarks.md shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.errors import InvalidInputError

GIB = 1 << 30

FLAT_STATE_RATIO = 0.245
"""Bytes of flat state's table files a byte of memory usage, as measured on the synthetic state."""


@dataclass(frozen=True, slots=True)
class StageCosts:
    """Core seconds a GiB of memory usage, all reading, writing and Ray's own work on a local disk included."""

    export_s: float = 5.39
    values_s: float = 0.70
    structure_s: float = 0.20
    boundaries_s: float = 0.09
    build_s: float = 3.70
    seal_s: float = 0.02
    publish_s: float = 6.88

    boundary_nodes_s: float = 0.02
    """Core seconds a boundary: its path and left siblings read from the State column."""

    scan_s: float = 2.3
    """Core seconds a GiB of memory usage to read keys and lengths from the node and compute their structure, where no dataset is written."""
    read_s: float = 2.6
    """Core seconds a GiB to read the parts' records and values from the node."""
    hash_s: float = 1.4
    """Core seconds a GiB to hash the parts for their edges alone."""

    dataset_ratio: float = 0.69
    """Bytes of the exported dataset a byte of memory usage."""
    key_ratio: float = 0.15
    """Bytes of the dataset that planning reads, keys and lengths alone, a byte of memory usage."""
    decoded_ratio: float = 0.90
    """Bytes of decoded parts a byte of memory usage; in larger states more, since several parts hold the same contract code."""
    edges_ratio: float = 0.005
    """Bytes of charges, indexes, edges and boundary nodes a byte of memory usage, where no dataset is written."""
    changes_ratio: float = 0.02
    """Bytes of what changes in an epoch a byte of memory usage: a percent or two of a chain's state (docs/operations/deltas.md)."""
    stored_ratio: float = 0.49
    """Bytes of stored parts, encoding v1, a byte of memory usage."""
    tables_ratio: float = 0.4
    """Bytes of decoded tables with all columns a byte of memory usage: their values compress as those of parts do, and they have no trie nodes."""

    @property
    def core_s(self) -> float:
        """Core seconds of all stages a GiB of memory usage."""
        return self.export_s + self.values_s + self.structure_s + self.boundaries_s + self.build_s + self.seal_s + self.publish_s


def stage_costs_from_benchmark(document: object, where: str) -> StageCosts:
    """Take the costs out of what ``python -m benchmarks.produce --json`` prints: its run on one core.

    Raises:
        InvalidInputError: it is not that, or has no run on one core.
    """
    try:
        assert isinstance(document, dict)
        gib = _number(document["memory_usage"]) / GIB
        run = next(one for one in document["scaling"] if one["cores"] == 1)
        stages: Mapping[str, Any] = run["stages"]
        seconds = {
            f"{name}_s": _number(stages[name]) / gib for name in ("export", "values", "structure", "boundaries", "build", "seal", "publish")
        }
    except (AssertionError, KeyError, TypeError, ValueError, StopIteration, ZeroDivisionError):
        raise InvalidInputError(
            problem="these are no measured costs with a run on one core",
            where=where,
            remedy="Write them with `python -m benchmarks.produce --cores 1 --json`.",
        ) from None
    return StageCosts(**seconds)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e18:
        raise ValueError(value)
    return float(value)
