"""What a source promises: bytes under a name, and nothing about whether they are the right ones.

A source is asked for one object at a time, in as many threads at once as `SourceTraits.connections_max` allows, and hands its bytes
out in order. It does not verify, retry, limit rates or remember failures: the caller does. What it must do is come back: every wait
inside a source is bounded by `SOURCE_TIMEOUT_S`, and a cancelled transfer ends at the next buffer.

Errors are those of a store, since the caller acts on nothing else:

============================  ===========================================================================================
ObjectNotFoundError           it does not have the object: not asked for it again
StoreDeniedError              it refuses: not asked for this object again, and not at all after a few
TransientStoreError           a transient fault (connection lost, 429, 503, timeout): asked again after a pause, from where
                              the bytes ended; ``retry_after_s`` is the pause that it asked for
RangeRefusedError             it does not serve from ``start``: asked for the whole object
StoreError                    anything else: not asked for this object again
IntegrityError                it found by itself that its bytes are wrong: banned
============================  ===========================================================================================

No I/O here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from schemas.ids import PartId
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout

SOURCE_TIMEOUT_S = 30.0
"""Longest that a source may wait for one answer or one buffer before it raises TransientStoreError."""

BUFFER_BYTES_MAX = 1 << 20
"""Largest buffer that a source hands out where it has the choice: rates are limited and transfers cancelled between buffers."""

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes that stay valid until the next one is asked for."""


@dataclass(frozen=True, slots=True)
class WantedObject:
    """One object of an epoch, or a document beside the epochs, that a source is asked for."""

    name: str
    """Name in the layout (`schemas.published.object_layout`), relative to the source's root."""
    size: int | None
    """Stored bytes by the manifest; None where that is not known before (manifest, statements, torrent files, pointers)."""
    bytes_max: int
    """No source is read further than this; ``size`` where it is known."""
    shard_id: int | None = None
    """Of a state part."""
    part_id: PartId | None = None
    """Of a state part."""


@dataclass(frozen=True, slots=True)
class SourceTraits:
    """What one can ask of a source."""

    documents: bool = True
    """It also has what is not a state part: pointer, manifest, statements, headers, torrent files."""
    ranges: bool = True
    """It can begin at a byte after the first."""
    is_local: bool = False
    """It is a folder of this machine, or was found at an address that is not public: what it names need not be public either."""
    has_client_start: bool = False
    """Its first answer may take some seconds more than the others: a client is loaded and looks for credentials."""
    connections_max: int | None = None
    """Most transfers at once that it can make use of; None where the fetch's own limit is all there is."""


class Cancellation:
    """Cancels a transfer. Set once, from any thread."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """End the transfer at its next buffer."""
        self._event.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether it was set."""
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Sleep, but no longer than until the cancellation; return whether it was set."""
        return self._event.wait(timeout_s)


class Source(Protocol):
    """Somewhere that objects of an epoch can be had."""

    @property
    def source_id(self) -> str:
        """Its URL without credentials, or ``torrent``: its name in the order of preference, in progress and in the report."""
        ...

    @property
    def traits(self) -> SourceTraits:
        """What one can ask of it; constant, but that its address is known only once it was asked."""
        ...

    def stream(self, wanted: WantedObject, start: int, cancelled: Cancellation) -> Iterator[Buffer]:
        """Yield an object's bytes from ``start`` to its end, in order; closing the iterator frees the connection.

        An empty buffer says that the source is at work although no bytes in order are there yet. After a cancellation it may
        return early. It need not know where the object should end: the caller stops reading at ``bytes_max``.

        Args:
            start: 0 unless the source's traits have ``ranges``; below ``size`` where that is known.
        Raises:
            StoreError, IntegrityError: see the module. Whatever else comes out is taken as a StoreError: no source ends a fetch.
        """
        ...

    def close(self) -> None:
        """Give back connections and threads; transfers under way end with TransientStoreError."""
        ...


@dataclass(frozen=True, slots=True)
class EpochOnOffer:
    """The epoch, for a source that needs more than names, such as a torrent; made after the manifest was believed."""

    layout: EpochLayout
    manifest: Manifest
    shard_ids: tuple[int, ...]
    """Shards that are fetched."""
    scratch: Path
    """A folder on the disk of the fetch that the source may fill and must empty in `Source.close`."""
    read_torrent_file: Callable[[str, int], bytes]
    """Reads a torrent file by name, with a most number of bytes, from the other sources; raises FetchError."""
    web_seeds: tuple[str, ...] = ()
    trackers: tuple[str, ...] = ()
    """Those that the manifest names and that may be asked."""
