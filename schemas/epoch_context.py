"""Which epoch, at which block, with which state roots: what a run must know before it reads a record.

The file format is a JSON object with ``chain_id``, ``epoch_height``, ``epoch_id``, ``sync_hash``, ``prev_block_hash``,
``protocol_version`` and ``shards`` (a list of ``shard_id``, ``shard_uid``, ``state_root``, and where it is known
``parent_shard_uid``). Nothing here checks a context against a chain.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, replace
from typing import Any

from schemas.errors import InvalidInputError
from schemas.ids import CryptoHash, ShardUId

CONTEXT_BYTES_MAX = 4 << 20
"""Largest context file that is read."""

CHAIN_ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""Chain ids become folder names of objects, so only these are taken."""

SHARDS_MAX = 4096
"""Most shards a context may list."""


@dataclass(frozen=True, slots=True)
class ShardContext:
    """One shard of the epoch."""

    shard_uid: ShardUId
    state_root: CryptoHash | None
    """State root that the shard's parts are of; None when the source can't tell and it is to be computed."""
    flat_head_target: CryptoHash | None = None
    """The block whose post-state the state root is, so the block that the flat state must stand at; None where unknown."""
    parent_shard_uid: ShardUId | None = None
    """The shard that a resharding made this one out of; None where there is none or it is not known."""

    @property
    def shard_id(self) -> int:
        """The shard's id in nearcore's object names."""
        return self.shard_uid.shard_id


@dataclass(frozen=True, slots=True)
class EpochContext:
    """One epoch of one chain."""

    chain_id: str
    epoch_height: int
    epoch_id: CryptoHash
    sync_hash: CryptoHash
    protocol_version: int
    shards: tuple[ShardContext, ...]
    """Ascending by shard id."""

    block_headers: tuple[bytes, ...] = ()
    """Borsh block headers of the sync block and of its parent, where the source has them; else empty."""

    def shard(self, shard_id: int) -> ShardContext:
        """Return one shard.

        Raises:
            InvalidInputError: no such shard in this epoch.
        """
        for shard in self.shards:
            if shard.shard_id == shard_id:
                return shard
        known = ", ".join(str(shard.shard_id) for shard in self.shards)
        raise InvalidInputError(
            problem=f"shard {shard_id} is not in this epoch", where=f"epoch {self.epoch_id}", remedy=f"Its shards are {known}."
        )

    def only(self, shard_ids: tuple[int, ...]) -> EpochContext:
        """Return the context with these shards alone; all of them when ``shard_ids`` is empty."""
        if not shard_ids:
            return self
        return replace(self, shards=tuple(self.shard(shard_id) for shard_id in sorted(set(shard_ids))))

    def to_json(self) -> dict[str, Any]:
        """Return the context as the file format's JSON values."""
        targets = {shard.flat_head_target for shard in self.shards}
        common = next(iter(targets)) if len(targets) == 1 else None
        return {
            "chain_id": self.chain_id,
            "epoch_height": self.epoch_height,
            "epoch_id": str(self.epoch_id),
            "sync_hash": str(self.sync_hash),
            **({"prev_block_hash": str(common)} if common else {}),
            "protocol_version": self.protocol_version,
            "shards": [
                {
                    "shard_id": shard.shard_id,
                    "shard_uid": str(shard.shard_uid),
                    "state_root": None if shard.state_root is None else str(shard.state_root),
                    **({"prev_block_hash": str(shard.flat_head_target)} if shard.flat_head_target and not common else {}),
                    **({"parent_shard_uid": str(shard.parent_shard_uid)} if shard.parent_shard_uid else {}),
                }
                for shard in self.shards
            ],
        }


def parse_epoch_context(text: str | bytes, where: str) -> EpochContext:
    """Parse the context file format.

    ``prev_block_hash`` is the block that the flat state must stand at, for all shards, or in one shard's entry for that shard;
    ``state_root`` may be null, ``parent_shard_uid`` be null or missing.

    Args:
        where: the file's name, for errors.
    Raises:
        InvalidInputError: not JSON, a field missing or of the wrong form, a shard twice.
    """
    if len(text) > CONTEXT_BYTES_MAX:
        raise InvalidInputError(problem=f"an epoch context has at most {CONTEXT_BYTES_MAX} bytes", where=where)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(problem=f"the epoch context is not JSON: {error}", where=where) from None
    if not isinstance(document, dict):
        raise InvalidInputError(problem="an epoch context is a JSON object", where=where)
    return epoch_context_from_json(document, where)


def epoch_context_from_json(document: dict[str, Any], where: str) -> EpochContext:
    """Build a context from decoded JSON values.

    Raises:
        InvalidInputError: as `parse_epoch_context`.
    """
    reader = _FieldReader(document, where)
    chain_id = reader.text("chain_id")
    if re.fullmatch(CHAIN_ID_PATTERN, chain_id) is None:
        raise InvalidInputError(problem=f"chain_id must match {CHAIN_ID_PATTERN}", where=f"{where}: {chain_id[:80]!r}")
    listed = document.get("shards")
    if not isinstance(listed, list) or not listed or len(listed) > SHARDS_MAX:
        raise InvalidInputError(problem=f"shards must be a list of 1 to {SHARDS_MAX} shards", where=where)
    common = reader.optional_hash("prev_block_hash")
    shards = tuple(
        sorted(
            (_shard_from_json(entry, common, f"{where}: shards[{i}]") for i, entry in enumerate(listed)), key=lambda shard: shard.shard_id
        )
    )
    for left, right in itertools.pairwise(shards):
        if left.shard_id == right.shard_id:
            raise InvalidInputError(problem=f"shard {left.shard_id} is listed twice", where=where)
    return EpochContext(
        chain_id=chain_id,
        epoch_height=reader.number("epoch_height", 2**64),
        epoch_id=reader.hash("epoch_id"),
        sync_hash=reader.hash("sync_hash"),
        protocol_version=reader.number("protocol_version", 2**32),
        shards=shards,
    )


def _shard_from_json(entry: object, common: CryptoHash | None, where: str) -> ShardContext:
    if not isinstance(entry, dict):
        raise InvalidInputError(problem="a shard of an epoch context is a JSON object", where=where)
    reader = _FieldReader(entry, where)
    shard_uid = ShardUId.parse(reader.text("shard_uid"))
    if "shard_id" in entry and reader.number("shard_id", 2**32) != shard_uid.shard_id:
        raise InvalidInputError(problem=f"shard_id {entry['shard_id']} does not belong to shard_uid {shard_uid}", where=where)
    return ShardContext(
        shard_uid=shard_uid,
        state_root=reader.optional_hash("state_root"),
        flat_head_target=reader.optional_hash("prev_block_hash") or common,
        parent_shard_uid=None if entry.get("parent_shard_uid") is None else ShardUId.parse(reader.text("parent_shard_uid")),
    )


class _FieldReader:
    """Takes typed fields out of a JSON object, naming the field in every complaint."""

    def __init__(self, document: dict[str, Any], where: str) -> None:
        self._document = document
        self._where = where

    def _value(self, name: str) -> Any:
        if name not in self._document:
            raise InvalidInputError(problem=f"field {name} is missing", where=self._where)
        return self._document[name]

    def text(self, name: str) -> str:
        value = self._value(name)
        if not isinstance(value, str):
            raise InvalidInputError(problem=f"field {name} must be text", where=self._where)
        return value

    def number(self, name: str, below: int) -> int:
        value = self._value(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < below:
            raise InvalidInputError(problem=f"field {name} must be a whole number from 0 and below {below}", where=self._where)
        return value

    def hash(self, name: str) -> CryptoHash:
        return CryptoHash.from_base58(self.text(name))

    def optional_hash(self, name: str) -> CryptoHash | None:
        return None if self._document.get(name) is None else self.hash(name)
