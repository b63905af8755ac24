"""``statecast header``: one shard's state header out of a node, byte for byte neard's, verified."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import ContextFile, Epoch, Json, RpcOptions, epoch_selector, node_home_folder
from jobs.output_file import write_output
from jobs.terminal import coloured, format_bytes, open_console, print_json
from pipelines.near.node.native_state_header import VerifiedStateHeader
from pipelines.near.node.node_state_header import NodeStateHeader, open_state_header
from schemas.errors import IntegrityError
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.state_header import HeaderOrigin


def header(
    *,
    node_home: Annotated[Path, typer.Option("--node-home", help="Home of a NEAR node (config.json, data/). Opened read-only.")],
    shard_id: Annotated[int, typer.Option("--shard-id", min=0, help="The shard.")],
    epoch: Epoch = None,
    context_file: ContextFile = None,
    rpc: RpcOptions,
    out: Annotated[Path | None, typer.Option("--out", help="Write the header's bytes to this file.")] = None,
    compute: Annotated[bool, typer.Option("--compute", help="Compute the header also where the node has it, and compare the two.")] = False,
    as_json: Json = False,
) -> None:
    """Give a shard's state header (ShardStateSyncResponseHeader), as neard dumps it beside the parts.

    Taken from the node's StateHeaders where it is there, else computed from its blocks, chunks and receipts. Either way it is verified
    from the hash of the sync block down, or it is not written. Needs the native wheel.

    Example: `statecast header --node-home ~/.near --shard-id 3 --out header`
    """
    home = node_home_folder(node_home)
    context = rpc.contexts(context_file).find_in_node(home, epoch_selector(epoch, None))
    shard = context.shard(shard_id)
    with open_state_header(home, context.chain_id, shard.shard_uid, context.sync_hash) as state_header:
        data, origin = _header(state_header, compute)
        verified = state_header.verify(data)
        is_cached = state_header.cached() is not None
    if out is not None:
        write_output(out, data)
    document = _document(context, shard_id, data, origin, is_cached, verified)
    if as_json:
        print_json({**document, "out": None if out is None else str(out), "base64": None if out else _text(data)})
        return
    console = open_console()
    console.print(f"state header of shard {shard.shard_uid}, epoch {context.epoch_height} of {context.chain_id}: {origin}, verified")
    equal = ", equal to the one that the node has" if is_cached and origin is HeaderOrigin.COMPUTED else ""
    console.print(f"{format_bytes(len(data))}, sha256 {document['sha256']}{equal}", highlight=False, soft_wrap=True)
    console.print(f"chunk {verified.chunk_hash}, new at height {verified.height_included}", highlight=False, soft_wrap=True)
    console.print(f"state root {verified.state_root}, memory usage {verified.memory_usage:,}", highlight=False, soft_wrap=True)
    console.print(f"{verified.receipts:,} incoming receipts of {verified.blocks:,} blocks")
    if out is None:
        console.print(coloured(("not written", "yellow"), ": name a file with --out"))


def _header(state_header: NodeStateHeader, compute: bool) -> tuple[bytes, HeaderOrigin]:
    """Return the node's header, or the computed one.

    Raises:
        IntegrityError: both are there, and differ.
        SourceError: the node's is wanted but does not verify for want of a row, or it has none and rows are missing.
    """
    cached = state_header.cached()
    if cached is not None and not compute:
        return cached, HeaderOrigin.COPIED
    computed = state_header.compute()
    if cached is not None and cached != computed:
        raise IntegrityError(
            problem="the state header that the node has and the one computed from its rows differ",
            where=f"StateHeaders, shard {state_header.shard_uid}, sync block {state_header.sync_hash}",
            remedy="One of them is damaged: without --compute the node's own is verified by itself.",
        )
    return computed, HeaderOrigin.COMPUTED


def _document(
    context: EpochContext, shard_id: int, data: bytes, origin: HeaderOrigin, is_cached: bool, verified: VerifiedStateHeader
) -> dict[str, Any]:
    return {
        "message_type": "summary",
        "chain_id": context.chain_id,
        "epoch_height": context.epoch_height,
        "epoch_id": str(context.epoch_id),
        "sync_hash": str(context.sync_hash),
        "shard_id": shard_id,
        "shard_uid": str(context.shard(shard_id).shard_uid),
        "origin": origin,
        "in_node": is_cached,
        "version": verified.version,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "chunk_hash": str(verified.chunk_hash),
        "height_included": verified.height_included,
        "state_root": str(verified.state_root),
        "memory_usage": verified.memory_usage,
        "blocks": verified.blocks,
        "receipts": verified.receipts,
    }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
