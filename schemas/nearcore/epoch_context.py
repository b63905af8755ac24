"""Which epoch, at which block, with which state roots: what a run must know before it reads a record.

The file format is a JSON object with ``chain_id``, ``epoch_height``, ``epoch_id``, ``sync_hash``, ``prev_block_hash``,
``protocol_version`` and ``shards`` (a list of ``shard_id``, ``shard_uid``, ``state_root``, and where it is known
``parent_shard_uid``), and where it is known ``shard_layout``. Nothing here checks a context against a chain.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from schemas.errors import InvalidInputError
from schemas.ids import CryptoHash, ShardUId
from schemas.json_document import FieldReader
from schemas.json_limits import JsonLimits
from schemas.nearcore.shard_layout import SHARDS_MAX, ShardLayout, shard_layout_from_json

CONTEXT_BYTES_MAX = 4 << 20
"""Largest context file that is read."""

# A shard is an object with six fields; a layout has lists of which shards were split, in V3 of all the chain's history.
_LIMITS = JsonLimits(CONTEXT_BYTES_MAX, containers_max=1 << 17, values_max=1 << 19)

CHAIN_ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""Chain ids become folder names of objects, so only these are taken."""

CHAIN_ID_LENGTH_MAX = 64


@dataclass(frozen=True, slots=True)
class GenesisBlock:
    """The block that a genesis' state is after, by the genesis file: no header of another block names that state."""

    height: int
    timestamp_us: int
    """Since 1970, in UTC; nearcore's nanoseconds cut off."""
    total_supply: int
    """YoctoNEAR."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"height": self.height, "timestamp_us": self.timestamp_us, "total_supply": str(self.total_supply)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> GenesisBlock:
        """Build from decoded JSON values; raises KeyError, TypeError or ValueError on another shape."""
        return cls(*(int(document[name]) for name in ("height", "timestamp_us", "total_supply")))


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
    flat_head_header: bytes = field(default=b"", repr=False, compare=False)
    """Borsh header of the block of ``flat_head_target``, which it hashes to; empty where the source does not have it. It says when and at
    which height the state was."""
    genesis_block: GenesisBlock | None = field(default=None, repr=False, compare=False)
    """Of a shard of a genesis file alone."""

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

    shard_layout: ShardLayout | None = None
    """The epoch's, without parents, which the shards name; it has all of the epoch's shards. None where it is not known."""

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
            **({} if self.shard_layout is None else {"shard_layout": self.shard_layout.to_json()}),
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
    ``state_root`` may be null, ``parent_shard_uid`` and ``shard_layout`` be null or missing.

    Args:
        where: the file's name, for errors.
    Raises:
        InvalidInputError: not JSON, a field missing or of the wrong form, a shard twice or one that the layout does not have.
    """
    data = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    too_much = _LIMITS.problem(data)
    if too_much is not None:
        raise InvalidInputError(problem=too_much, where=where)
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(problem=f"the epoch context is not JSON: {error}", where=where) from None
    return epoch_context_from_json(document, where)


def epoch_context_from_json(document: object, where: str) -> EpochContext:
    """Build a context from decoded JSON values.

    Raises:
        InvalidInputError: as `parse_epoch_context`.
    """
    reader = _ContextReader(document, where)
    chain_id = reader.text("chain_id", CHAIN_ID_LENGTH_MAX, CHAIN_ID_PATTERN)
    listed = reader.listed("shards", SHARDS_MAX)
    if not listed:
        reader.fail("field shards must not be empty")
    common = reader.optional_hash("prev_block_hash")
    shards = tuple(
        sorted(
            (_shard_from_json(entry, common, f"{where}: shards[{i}]") for i, entry in enumerate(listed)), key=lambda shard: shard.shard_id
        )
    )
    for left, right in itertools.pairwise(shards):
        if left.shard_id == right.shard_id:
            reader.fail(f"shard {left.shard_id} is listed twice")
    layout = shard_layout_from_json(reader.value("shard_layout"), where, with_parents=False) if reader.has("shard_layout") else None
    foreign = [] if layout is None else sorted({shard.shard_uid for shard in shards} - set(layout.shard_uids))
    if foreign:
        reader.fail(f"shard {foreign[0]} is not in the shard layout")
    return EpochContext(
        chain_id=chain_id,
        epoch_height=reader.number("epoch_height", 0, 2**64 - 1),
        epoch_id=reader.hash("epoch_id"),
        sync_hash=reader.hash("sync_hash"),
        protocol_version=reader.number("protocol_version", 0, 2**32 - 1),
        shards=shards,
        shard_layout=layout,
    )


def _shard_from_json(entry: object, common: CryptoHash | None, where: str) -> ShardContext:
    reader = _ContextReader(entry, where)
    shard_uid = reader.shard_uid("shard_uid")
    if "shard_id" in reader.names() and reader.number("shard_id", 0, 2**32 - 1) != shard_uid.shard_id:
        reader.fail(f"shard_id does not belong to shard_uid {shard_uid}")
    return ShardContext(
        shard_uid=shard_uid,
        state_root=reader.optional_hash("state_root"),
        flat_head_target=reader.optional_hash("prev_block_hash") or common,
        parent_shard_uid=reader.shard_uid("parent_shard_uid") if reader.has("parent_shard_uid") else None,
    )


class _ContextReader(FieldReader):
    """Fields of a file that a person gave: what is wrong with them is a matter of input."""

    def fail(self, problem: str) -> NoReturn:
        raise InvalidInputError(problem=problem, where=self.where)

    def optional_hash(self, name: str) -> CryptoHash | None:
        return self.hash(name) if self.has(name) else None
