"""Proof documents: a shard's record at one trie key, or its records at all keys with a prefix, with all that a reader needs to check them.

A document is canonical JSON (`schemas.json_document`) with a line feed at its end and ``sha256`` over the rest of it, so that there
is one spelling of a proof and no byte of it can be changed unnoticed. The digest protects from damage, not from a forger: a writer who knows
the state root, or a block hash, checks the nodes and headers against that (`pipelines.proving.verify_trie_proof`).

``chain_id``, ``epoch_height``, the version in ``shard_uid`` and ``shard_chosen_by`` are what the maker says; nothing proves them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from schemas.errors import IntegrityError, InvalidInputError, ManifestError
from schemas.ids import CryptoHash, ShardUId
from schemas.json_document import FieldReader, decode_base64, decode_json, encode_base64, encode_json
from schemas.json_limits import JsonLimits
from schemas.nearcore.epoch_context import CHAIN_ID_PATTERN
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX, VALUE_BYTES_MAX
from schemas.published.proof_chain import ChainEvidence

PROOF_TYPE: Final = "urn:statecast:trie-proof:v1"
"""A change that readers must know of gets a new one."""

PROOF_BYTES_MAX: Final = 128 << 20
"""Longest document that is written or read."""

PROOF_NODES_MAX: Final = 100_000
"""Most trie nodes of a proof."""

PROOF_KEYS_MAX: Final = PROOF_NODES_MAX
"""Most keys of a proof of a prefix: a node has one value at most."""

NODE_BYTES_MAX: Final = 8192
"""Longest trie node: a leaf holds one key."""

# A key of a prefix is an object with two fields, a node a text. There is besides the chain's path.
_LIMITS: Final = JsonLimits(PROOF_BYTES_MAX, PROOF_KEYS_MAX + 1024, PROOF_NODES_MAX + 2 * PROOF_KEYS_MAX + 4096)


class ShardChoice(StrEnum):
    """How the maker of a proof knew the shard: absence from another shard says nothing."""

    OPTION = "option"
    """The user named it."""
    SHARD_LAYOUT = "shard_layout"
    """A shard layout assigns the account to it."""
    ACCOUNT_RECORD = "account_record"
    """It is the one shard that has the account's own record."""
    ONLY_SHARD = "only_shard"
    """There is no other."""


@dataclass(frozen=True, slots=True)
class KeyClaim:
    """A claim about one key."""

    trie_key: bytes
    value: bytes | None
    """None: the key is absent."""


@dataclass(frozen=True, slots=True)
class PrefixClaim:
    """A claim about all keys with a prefix: these are there, and no others."""

    trie_key_prefix: bytes
    values: tuple[tuple[bytes, bytes], ...]
    """Trie keys, ascending, and values."""


@dataclass(frozen=True, slots=True)
class TrieProof:
    """A proof; nothing of it is checked but its form."""

    chain_id: str
    epoch_height: int | None
    """None where a block was named and no epoch."""
    epoch_id: CryptoHash | None
    shard_uid: ShardUId
    shard_chosen_by: ShardChoice
    state_root: CryptoHash
    block_hash: CryptoHash | None
    """The block after which the state stands; None where it is not known."""
    claim: KeyClaim | PrefixClaim
    nodes: tuple[bytes, ...]
    """Trie nodes in the order of the walk."""
    chain: ChainEvidence | None
    """None where nothing but its own word ties the state root to the chain."""

    def to_bytes(self) -> bytes:
        """Return the document.

        Raises:
            InvalidInputError: it would be longer than ``PROOF_BYTES_MAX``.
        """
        body = self._body()
        data = encode_json({**body, "sha256": hashlib.sha256(encode_json(body)).hexdigest()}) + b"\n"
        if len(data) > PROOF_BYTES_MAX:
            raise InvalidInputError(
                problem=f"the proof would have {len(data)} bytes, the limit is {PROOF_BYTES_MAX}", remedy="Take a longer prefix."
            )
        return data

    @classmethod
    def parse(cls, data: bytes, where: str) -> TrieProof:
        """Parse a document.

        Raises:
            IntegrityError: not a proof, or not in its one spelling.
        """
        try:
            reader = FieldReader(decode_json(data, _LIMITS, where), where)
            reader.literal("type", PROOF_TYPE)
            proof = cls._read(reader)
        except ManifestError as error:
            raise IntegrityError(problem=f"this is no proof: {error.problem}", where=error.where or where) from None
        if proof.to_bytes() != data:
            raise IntegrityError(
                problem="the proof is not in its canonical encoding: a field too many, or its sha256 is not that of the rest", where=where
            )
        return proof

    @classmethod
    def _read(cls, reader: FieldReader) -> TrieProof:
        return cls(
            chain_id=reader.text("chain_id", 64, CHAIN_ID_PATTERN),
            epoch_height=None if reader.is_null("epoch_height") else reader.number("epoch_height", 0, 2**64 - 1),
            epoch_id=None if reader.is_null("epoch_id") else reader.hash("epoch_id"),
            shard_uid=reader.shard_uid("shard_uid"),
            shard_chosen_by=ShardChoice(reader.text("shard_chosen_by", 20, "|".join(ShardChoice))),
            state_root=reader.hash("state_root"),
            block_hash=None if reader.is_null("block_hash") else reader.hash("block_hash"),
            claim=_read_claim(reader),
            nodes=tuple(
                decode_base64(node, NODE_BYTES_MAX, f"{reader.where}: nodes[{index}]")
                for index, node in enumerate(reader.listed("nodes", PROOF_NODES_MAX))
            ),
            chain=None if reader.is_null("chain") else ChainEvidence.from_json(reader.inner("chain")),
        )

    def _body(self) -> dict[str, Any]:
        return {
            "type": PROOF_TYPE,
            "chain_id": self.chain_id,
            "epoch_height": self.epoch_height,
            "epoch_id": None if self.epoch_id is None else str(self.epoch_id),
            "shard_uid": str(self.shard_uid),
            "shard_chosen_by": str(self.shard_chosen_by),
            "state_root": str(self.state_root),
            "block_hash": None if self.block_hash is None else str(self.block_hash),
            **_claim_fields(self.claim),
            "nodes": [encode_base64(node) for node in self.nodes],
            "chain": None if self.chain is None else self.chain.to_json(),
        }


def _claim_fields(claim: KeyClaim | PrefixClaim) -> dict[str, Any]:
    if isinstance(claim, KeyClaim):
        return {"kind": "key", "trie_key": claim.trie_key.hex(), "value": None if claim.value is None else encode_base64(claim.value)}
    values = [{"trie_key": key.hex(), "value": encode_base64(value)} for key, value in claim.values]
    return {"kind": "prefix", "trie_key_prefix": claim.trie_key_prefix.hex(), "values": values}


def _read_claim(reader: FieldReader) -> KeyClaim | PrefixClaim:
    if reader.text("kind", 6, "key|prefix") == "key":
        value = None if reader.is_null("value") else _read_value(reader)
        return KeyClaim(reader.hex_bytes("trie_key", KEY_BYTES_MAX), value)
    values = tuple((entry.hex_bytes("trie_key", KEY_BYTES_MAX), _read_value(entry)) for entry in reader.inners("values", PROOF_KEYS_MAX))
    return PrefixClaim(reader.hex_bytes("trie_key_prefix", KEY_BYTES_MAX), values)


def _read_value(reader: FieldReader) -> bytes:
    return decode_base64(reader.value("value"), VALUE_BYTES_MAX, f"{reader.where}: value")
