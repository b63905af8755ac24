"""Which epochs a node's database has rows of.

A row that can't be decoded, as those of a later release of nearcore may be, costs only the epoch that it is of: it is listed with what is
wrong, and is an error for a command that asks for that epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

from pipelines.near.epoch.chain_rows import ChainRows
from pipelines.near.node.node_columns import EPOCH_INFO, STATE_SYNC_HASHES
from schemas.errors import IntegrityError
from schemas.ids import HASH_BYTES, CryptoHash
from schemas.nearcore.epoch_info import decode_epoch_info, peek_epoch_height


@dataclass(frozen=True, slots=True)
class NodeEpoch:
    """An epoch that a node knows."""

    epoch_height: int
    epoch_id: CryptoHash
    protocol_version: int
    sync_hash: CryptoHash | None
    """None when the epoch has not reached its sync block, or is too old for the node to keep it ready."""


@dataclass(frozen=True, slots=True)
class UnreadableEpoch:
    """An epoch whose EpochInfo can't be decoded."""

    epoch_id: CryptoHash
    epoch_height: int | None
    """Where every known version has it; None when the row is too short."""
    sync_hash: CryptoHash | None
    failure: IntegrityError = field(compare=False)
    """What to raise when the epoch is asked for."""


KnownEpoch = NodeEpoch | UnreadableEpoch


@dataclass(frozen=True)
class EpochListing:
    """The epochs of a database."""

    epochs: tuple[NodeEpoch, ...]
    """Ascending by height; of one height those with a recorded sync hash last."""
    unreadable: tuple[UnreadableEpoch, ...] = ()
    """Ascending by height; those without one last."""

    def of_height(self, epoch_height: int) -> list[KnownEpoch]:
        """Return the epochs of a height: of several, as there are before the chain's second, what is likeliest meant comes last."""
        return self._by_height.get(epoch_height, [])

    def of_id(self, epoch_id: CryptoHash) -> KnownEpoch | None:
        """Return an epoch by its id."""
        return self._by_id.get(epoch_id)

    @cached_property
    def newest_recorded(self) -> tuple[KnownEpoch, ...]:
        """Those with a recorded sync hash, the newest first; one without a height may be the newest, and counts as that."""
        return tuple(sorted((epoch for epoch in self._by_id.values() if epoch.sync_hash is not None), key=_rank, reverse=True))

    @cached_property
    def _by_id(self) -> dict[CryptoHash, KnownEpoch]:
        return {epoch.epoch_id: epoch for epoch in chain[KnownEpoch](self.unreadable, self.epochs)}

    @cached_property
    def _by_height(self) -> dict[int, list[KnownEpoch]]:
        found: dict[int, list[KnownEpoch]] = {}
        for epoch in self._by_id.values():
            if epoch.epoch_height is not None:
                found.setdefault(epoch.epoch_height, []).append(epoch)
        return found


def list_all_epochs(reader: ChainRows) -> EpochListing:
    """List all rows of EpochInfo, also those of the next epochs, that have not begun; StateSyncHashes may be missing.

    Raises:
        SourceError: the database can't be read.
    """
    recorded = reader.scan(STATE_SYNC_HASHES, b"", None) if STATE_SYNC_HASHES in reader.columns else ()
    sync_hashes = {key: CryptoHash(row) for rows in recorded for key, row in rows}
    return _listing(reader, ((key, row, sync_hashes.get(key)) for rows in reader.scan(EPOCH_INFO, b"", None) for key, row in rows))


def list_recorded_epochs(reader: ChainRows) -> EpochListing:
    """List the epochs that StateSyncHashes names, a row or two, each followed by one EpochInfo.

    Raises:
        SourceError: the database can't be read.
    """
    return _listing(
        reader,
        (
            (key, info, CryptoHash(row))
            for rows in reader.scan(STATE_SYNC_HASHES, b"", None)
            for key, row in rows
            if len(row) == HASH_BYTES and (info := reader.get(EPOCH_INFO, key)) is not None
        ),
    )


def _listing(reader: ChainRows, found: Iterable[tuple[bytes, bytes, CryptoHash | None]]) -> EpochListing:
    """Decode rows of EpochInfo: the key, the row, and the recorded sync hash."""
    epochs: list[NodeEpoch] = []
    unreadable: list[UnreadableEpoch] = []
    for key, row, sync_hash in found:
        # The column also holds an aggregator under a text key.
        if len(key) != HASH_BYTES:
            continue
        epoch_id = CryptoHash(key)
        try:
            info = decode_epoch_info(row, f"EpochInfo of epoch {epoch_id}, {reader.folder}")
        except IntegrityError as error:
            unreadable.append(UnreadableEpoch(epoch_id, peek_epoch_height(row), sync_hash, error.with_traceback(None)))
        else:
            epochs.append(NodeEpoch(info.epoch_height, epoch_id, info.protocol_version, sync_hash))
    return EpochListing(
        tuple(sorted(epochs, key=lambda epoch: (epoch.epoch_height, epoch.sync_hash is not None, epoch.epoch_id))),
        tuple(sorted(unreadable, key=_rank)),
    )


def _rank(epoch: KnownEpoch) -> tuple[bool, int, CryptoHash]:
    return epoch.epoch_height is None, epoch.epoch_height or 0, epoch.epoch_id
