"""Sizes as people read them. No I/O."""

from __future__ import annotations


def shown_size(size: float) -> str:
    """Return a size in binary units with three digits or so."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} TiB"
