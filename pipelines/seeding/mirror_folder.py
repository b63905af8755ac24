"""What a mirror shows of a folder: objects of nearcore's layout, and of those only whole files that lie inside the folder.

A name is served if it is spelled exactly as `schemas.published.object_layout` spells it, so there is no way to temporary files, dotfiles, other
files or out of the folder. Digests are the manifest's word for it; readers verify.
"""

from __future__ import annotations

import base64
import os
import stat
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

from pipelines.stores.regular_file import read_regular
from schemas.errors import ManifestError
from schemas.published.dsse import ENVELOPE_BYTES_MAX, parse_envelope
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout, ObjectKind, parse_object_name

MANIFESTS_REMEMBERED_MAX: Final = 4
"""Epochs whose digests are kept in memory."""

_IMMUTABLE = (
    ObjectKind.STATE_PART,
    ObjectKind.STATE_HEADER,
    ObjectKind.MANIFEST_REVISION,
    ObjectKind.EVIDENCE,
    ObjectKind.TORRENT,
    ObjectKind.DELTA,
)


@dataclass(frozen=True, slots=True)
class MirrorObject:
    """An open file of the layout. The caller closes its descriptor."""

    descriptor: int
    size: int
    modified_ns: int
    etag: str
    """Without quotes: the published SHA-256 where it is known, else made of size and modification time."""
    sha256: str | None
    """In hexadecimal, as published; None where the manifest does not list it with this size."""
    is_json: bool
    is_immutable: bool
    """Its bytes never change under this name."""

    @property
    def repr_digest(self) -> str | None:
        """The field of RFC 9530."""
        return None if self.sha256 is None else f"sha-256=:{base64.b64encode(bytes.fromhex(self.sha256)).decode()}:"


class MirrorFolder:
    """A folder in nearcore's layout. Thread-safe."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._lock = Lock()
        self._digests: OrderedDict[str, tuple[tuple[int, int], Mapping[str, tuple[str, int]]]] = OrderedDict()
        """By epoch folder: the manifest file's modification time and size, and SHA-256 and size of each object by name."""

    def open(self, name: str) -> MirrorObject | None:
        """Open an object; None when there is none of that name."""
        parsed = parse_object_name(name)
        if parsed is None:
            return None
        path = self._root / name
        try:
            # A link may not lead out of the folder.
            if not path.resolve(strict=True).is_relative_to(self._root):
                return None
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, RuntimeError):
            return None
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            return None
        sha256 = None
        if parsed.epoch is not None and parsed.kind in (ObjectKind.STATE_PART, ObjectKind.STATE_HEADER):
            published, size = self._published(parsed.epoch).get(name, (None, -1))
            sha256 = published if size == found.st_size else None
        return MirrorObject(
            descriptor=descriptor,
            size=found.st_size,
            modified_ns=found.st_mtime_ns,
            etag=sha256 or f"{found.st_mtime_ns:x}-{found.st_size:x}",
            sha256=sha256,
            is_json=name.endswith(".json"),
            is_immutable=parsed.kind in _IMMUTABLE,
        )

    def _published(self, layout: EpochLayout) -> Mapping[str, tuple[str, int]]:
        """Return SHA-256 and size of an epoch's objects by name; nothing where its manifest is missing or damaged."""
        path = self._root / layout.manifest
        try:
            found = path.stat()
        except OSError:
            return {}
        version = (found.st_mtime_ns, found.st_size)
        with self._lock:
            known = self._digests.get(layout.folder)
            if known is None or known[0] != version:
                known = (version, _read_digests(path, layout) if found.st_size <= ENVELOPE_BYTES_MAX else {})
                self._digests[layout.folder] = known
            self._digests.move_to_end(layout.folder)
            while len(self._digests) > MANIFESTS_REMEMBERED_MAX:
                self._digests.popitem(last=False)
            return known[1]


def _read_digests(path: Path, layout: EpochLayout) -> Mapping[str, tuple[str, int]]:
    try:
        manifest = Manifest.from_payload(parse_envelope(read_regular(path, ENVELOPE_BYTES_MAX), str(path)).payload, str(path))
    except (OSError, ManifestError):
        return {}
    sizes: dict[str, int] = {}
    for shard in manifest.shards:
        # Subjects are the parts in their order, and then the header.
        listed = [part.size for part in shard.parts] + ([shard.header.size] if shard.header is not None else [])
        sizes.update(zip(shard.subjects(), listed, strict=True))
    return {f"{layout.folder}/{name}": (sha256, sizes[name]) for name, sha256 in manifest.subjects().items()}
