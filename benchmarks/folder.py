"""The folder that a benchmark works in: the one that its user named and keeps, or a temporary one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def benchmark_folder(named: Path | None) -> Iterator[Path]:
    """Give an absolute path: of the named folder, which stays, or of a new one, which is removed in the end."""
    if named is not None:
        yield named.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="statecast-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
