"""Makes what a proof claims, and the nodes for it, out of any reader of trie nodes and values."""

from __future__ import annotations

from typing import Final

from pipelines.proving.node_readers import ReadNode
from pipelines.proving.walk_proof import read_value, walk_prefix, walk_to_key
from pipelines.proving.wanted_record import WantedRecord
from schemas.errors import InvalidInputError, PartLimitError
from schemas.published.proof import KeyClaim, PrefixClaim

VALUE_BYTES_OF_PREFIX_MAX: Final = 64 << 20
"""Most bytes of values in a proof of a prefix."""


def make_claim(read: ReadNode, state_root: bytes, wanted: WantedRecord) -> tuple[KeyClaim | PrefixClaim, tuple[bytes, ...]]:
    """Return a record, or the records of a prefix, and the nodes that prove them.

    Raises:
        IntegrityError: a node or value is missing or wrong.
        InvalidInputError: more keys or values have the prefix than a proof holds.
    """
    if not wanted.is_prefix:
        path = walk_to_key(read, state_root, wanted.trie_key)
        value = None if path.value is None else read_value(read, wanted.trie_key, path.value)
        return KeyClaim(wanted.trie_key, value), path.nodes
    try:
        found = walk_prefix(read, state_root, wanted.trie_key)
    except PartLimitError as error:
        raise InvalidInputError(problem=error.problem, where=error.where, remedy=error.remedy) from None
    if sum(value.length for _, value in found.items) > VALUE_BYTES_OF_PREFIX_MAX:
        raise InvalidInputError(
            problem=f"the {len(found.items)} values with this prefix have more than {VALUE_BYTES_OF_PREFIX_MAX} bytes",
            where=f"trie key prefix {wanted.trie_key.hex()}",
            remedy="Take a longer prefix.",
        )
    values = tuple((key, read_value(read, key, value)) for key, value in found.items)
    return PrefixClaim(wanted.trie_key, values), found.nodes


def has_key(read: ReadNode, state_root: bytes, key: bytes) -> bool:
    """Return whether a key is there.

    Raises:
        IntegrityError: a node is missing or wrong.
    """
    return walk_to_key(read, state_root, key).value is not None
