"""A source in an object store or a folder: gs, s3, az, file, or what fsspec reads. Objects are read by ranges, so that a slow one can be left at any moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Final

from pipelines.fetching.source import BUFFER_BYTES_MAX, Buffer, Cancellation, SourceTraits, WantedObject
from pipelines.fetching.throttle import Throttle
from pipelines.stores.store import Store
from schemas.errors import InvalidInputError, ObjectNotFoundError
from schemas.published.object_layout import EpochLayout, ObjectKind, chain_folder, parse_object_name

RANGE_BYTES_FIRST: Final = 1 << 20
"""What the first request of a transfer asks for."""

RANGE_BYTES_MIN: Final = 256 << 10
RANGE_BYTES_MAX: Final = 16 << 20
"""Bounds of what one request asks for; with `FetchLimits.connections` also of the memory that transfers take."""

RANGE_TIME_S: Final = 1.0
"""About how long one request is meant to take: longer ones could not be left, shorter ones cost requests."""

LISTED_OBJECTS_MAX: Final = 5_000_000
"""Most objects that are looked through for an epoch."""


class ObjectStoreSource:
    """Objects of a store that does not retry by itself."""

    def __init__(self, store: Store, requests: Throttle) -> None:
        self._store = store
        self._requests = requests

    @property
    def source_id(self) -> str:
        """The store's URL."""
        return self._store.url

    @property
    def traits(self) -> SourceTraits:
        """All."""
        return SourceTraits(is_local=self._store.local_root() is not None, has_client_start=self._store.local_root() is None)

    def stream(self, wanted: WantedObject, start: int, cancelled: Cancellation) -> Iterator[Buffer]:
        """See `Source.stream`: ends where the store gives less than was asked for."""
        position, range_bytes = start, RANGE_BYTES_FIRST
        while not cancelled.is_cancelled:
            self._requests.wait_for(1, cancelled)
            # One byte past the end that is expected shows an object that is too long, without another request.
            stop = min(position + range_bytes, wanted.bytes_max + 1)
            began_s = time.monotonic()
            data = self._get(wanted.name, position, stop)
            seconds = time.monotonic() - began_s
            for begin in range(0, len(data), BUFFER_BYTES_MAX):
                yield memoryview(data)[begin : begin + BUFFER_BYTES_MAX]
            if len(data) < stop - position:
                return
            position = stop
            if position > wanted.bytes_max:
                return
            factor = 2.0 if seconds < RANGE_TIME_S / 2 else 0.5 if seconds > RANGE_TIME_S * 2 else 1.0
            range_bytes = int(min(max(range_bytes * factor, RANGE_BYTES_MIN), RANGE_BYTES_MAX))

    def list_epochs(self, chain_id: str, epoch_height: int | None) -> list[EpochLayout]:
        """See `EpochLister.list_epochs`: reads the whole listing of the chain, or of the height."""
        folder = chain_folder(chain_id) if epoch_height is None else f"{chain_folder(chain_id)}/epoch_height={epoch_height}"
        found = []
        for info in islice(self._store.list(folder), LISTED_OBJECTS_MAX):
            parsed = parse_object_name(info.name)
            if parsed is not None and parsed.kind is ObjectKind.MANIFEST and parsed.epoch is not None:
                found.append(parsed.epoch)
        return found

    def list_chains(self) -> set[str]:
        """See `EpochLister.list_chains`: reads the whole listing."""
        listed = islice(self._store.list(), LISTED_OBJECTS_MAX)
        return {parsed.chain_id for info in listed if (parsed := parse_object_name(info.name)) is not None}

    def close(self) -> None:
        """Do nothing: the client closes with the process."""

    def _get(self, name: str, start: int, stop: int) -> bytes:
        try:
            return self._store.get(name, start, stop)
        except InvalidInputError as error:
            raise ObjectNotFoundError(problem=error.problem, where=f"{self.source_id}/{name}") from None
