"""Has pyarrow work without pandas in a process that has no use for it.

Whatever pyarrow makes of Python values (`pyarrow.array`, `scalar`, an argument of a compute function) or gives to numpy, it first looks whether
pandas knows the type, and imports pandas for that wherever it is installed: 60 MiB and a second or two of each process. It looks once in a
process (pyarrow/pandas-shim.pxi, _PandasAPIShim._check_import); `to_pandas` looks anew, and has pandas then.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.abc import MetaPathFinder
from threading import Lock, get_ident
from typing import Any

_PANDAS = "pandas"
_lock = Lock()


def without_pandas() -> None:
    """Let pyarrow look for pandas now and find none. Nothing is done before pyarrow is imported, or where pandas is."""
    if "pyarrow" in sys.modules and _PANDAS not in sys.modules:
        with _lock:
            _look_in_vain()


class _Hidden(MetaPathFinder):
    """Finds no pandas for the thread that made it; others import what they like."""

    def __init__(self) -> None:
        self._thread = get_ident()

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name == _PANDAS and get_ident() == self._thread:
            raise ModuleNotFoundError("pandas is hidden from pyarrow", name=name)


@cache
def _look_in_vain() -> None:
    import pyarrow as pa

    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(hidden)
