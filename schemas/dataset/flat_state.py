"""Arrow schemas of flat state: the records of a shard, and the values that they refer to.

A record batch of records has one row a trie key, strictly ascending by key bytes::

    key           binary                   trie key, without the shard uid
    value         binary, null if a reference       the value itself (FlatStateValue::Inlined)
    value_length  uint32                   bytes of the value, inlined or referenced
    value_hash    fixed_size_binary(32), null if inlined   sha256 of a referenced value (FlatStateValue::Ref)

A record batch of values has each referenced value once, strictly ascending by hash::

    value_hash    fixed_size_binary(32)
    value         binary

One of own values has them beside the keys of the records that refer to them, strictly ascending by key::

    key           binary
    value_hash    fixed_size_binary(32)
    value         binary

Source: nearcore core/primitives/src/state.rs, FlatStateValue. Nothing here reads or writes a file.
"""

from __future__ import annotations

import pyarrow as pa

RECORD_SCHEMA = pa.schema(
    [
        pa.field("key", pa.binary(), nullable=False),
        pa.field("value", pa.binary()),
        pa.field("value_length", pa.uint32(), nullable=False),
        pa.field("value_hash", pa.binary(32)),
    ]
)
"""Schema of a record batch of records."""

VALUE_SCHEMA = pa.schema([pa.field("value_hash", pa.binary(32), nullable=False), pa.field("value", pa.binary(), nullable=False)])
"""Schema of a record batch of referenced values."""

OWN_VALUE_SCHEMA = pa.schema([pa.field("key", pa.binary(), nullable=False), *VALUE_SCHEMA])
"""Schema of a record batch of own values: values that one record alone refers to."""
