"""An epoch in JSON-RPC: its height and first block's height, and the protocol configuration at a block.

No hash covers any of it: it is the endpoint's word.

Source: nearcore core/primitives/src/views.rs, EpochValidatorInfo; core/chain-configs/src/genesis_config.rs, ProtocolConfigView.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from schemas.errors import InvalidInputError
from schemas.nearcore.epoch_context import CHAIN_ID_PATTERN
from schemas.nearcore.rpc_reader import RpcReader
from schemas.nearcore.shard_layout import ShardLayout, shard_layout_from_json


@dataclass(frozen=True, slots=True)
class RpcEpoch:
    """An epoch as ``validators`` describes it."""

    epoch_height: int
    epoch_start_height: int
    """Height of its first block."""


@dataclass(frozen=True, slots=True)
class RpcProtocolConfig:
    """What is used of ``EXPERIMENTAL_protocol_config``."""

    chain_id: str
    protocol_version: int
    shard_layout: ShardLayout
    layout_json: str
    """The shard layout as nearcore writes it, with all that is not used here."""


def read_rpc_epoch(answer: object, where: str) -> RpcEpoch:
    """Read the answer to ``validators``.

    Raises:
        SourceError: the answer has another form.
    """
    reader = RpcReader(answer, where)
    return RpcEpoch(reader.u64("epoch_height"), reader.u64("epoch_start_height"))


def read_rpc_protocol_config(answer: object, where: str) -> RpcProtocolConfig:
    """Read the answer to ``EXPERIMENTAL_protocol_config``.

    Raises:
        SourceError: the answer has another form.
    """
    reader = RpcReader(answer, where)
    try:
        layout = shard_layout_from_json(reader.value("shard_layout"), where)
    except InvalidInputError as error:
        reader.fail(error.problem)
    return RpcProtocolConfig(
        chain_id=reader.text("chain_id", 64, CHAIN_ID_PATTERN),
        protocol_version=reader.number("protocol_version", 0, 2**32 - 1),
        shard_layout=layout,
        layout_json=json.dumps(reader.value("shard_layout")),
    )
