"""A folder in a zip file."""

from __future__ import annotations

import zipfile
from pathlib import Path


def zipped(folder: Path, path: Path) -> Path:
    """Write a folder's files into a zip file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for found in sorted(folder.rglob("*")):
            if found.is_file() and ".statecast-tmp" not in found.parts:
                file.write(found, found.relative_to(folder))
    return path
