"""Command lines of benchmarks: the options that several have mean the same in all."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.synthetic_records import RECORDS_MAX, RECORDS_MIN
from benchmarks.synthetic_state import SEED_DEFAULT
from pipelines.kernel.native import is_available


class BenchmarkParser(argparse.ArgumentParser):
    """Options of a benchmark that is run as ``python -m benchmarks.<name>``: a folder and JSON, and others by method."""

    def __init__(self, name: str, description: str) -> None:
        super().__init__(prog=f"python -m benchmarks.{name}", description=description)
        self.add_argument("--folder", type=Path, help="where states are kept for the next run; default a folder that is removed")
        self.add_argument("--json", action="store_true", help="print all figures as JSON")

    def add_state(self, records: int | list[int], records_max: int = RECORDS_MAX) -> None:
        """Add ``--records``, several separated by commas where the default is a list, and ``--seed``."""
        one = number_from(RECORDS_MIN, records_max)
        shown = ",".join(map(str, records)) if isinstance(records, list) else str(records)
        self.add_argument(
            "--records",
            type=listed(one) if isinstance(records, list) else one,
            default=records,
            help=f"{RECORDS_MIN} to {records_max}; default {shown}",
        )
        self.add_argument(
            "--seed", type=int, default=SEED_DEFAULT, help="another seed is another state of the same mix; default %(default)s"
        )

    def add_repeats(self) -> None:
        """Add ``--repeats``."""
        self.add_argument(
            "--repeats", type=number_from(1), default=3, help="how often each figure is taken; the median counts; default %(default)s"
        )


def number_from(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return what reads a whole number from ``least`` to ``most``."""

    def read(text: str) -> int:
        value = int(text)
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"goes from {least}" + ("" if most is None else f" to {most}"))
        return value

    return read


def listed(one: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Return what reads values that are separated by commas."""
    return lambda text: [one(part) for part in text.split(",")]


def require_native_kernel() -> None:
    """End the benchmark where the native kernel is not installed."""
    if not is_available():
        raise SystemExit("The benchmark needs the native kernel, which is not installed; `make setup` builds it where cargo is.")


def print_as_json(figures: Any) -> None:
    """Print figures as JSON."""
    print(json.dumps(figures, indent=1))
