"""From options to a folder of state parts: shared by the commands that take parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from jobs.options import ContextFile, Epoch, epoch_selector
from pipelines.near.epoch.given_context import read_context_file
from pipelines.restoring.part_folder import EpochParts, find_epoch, open_epoch_parts
from schemas.errors import InvalidInputError
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.state_part import Encoding
from schemas.published.object_layout import EpochLayout

_FOLDER = "What the folder does not say itself (a manifest does)"


@dataclass(frozen=True, slots=True)
class PartsOptions:
    """A folder of parts, and what of them is taken."""

    parts: Annotated[
        str, typer.Argument(metavar="DIR", help="Folder of fetched or published parts: it holds chain_id=…, or is an epoch's own folder.")
    ]
    epoch: Epoch = None
    shard_id: Annotated[
        list[int] | None, typer.Option("--shard-id", help="A shard to take; may be repeated. Default: all that are in the folder.")
    ] = None
    context: ContextFile = None
    state_root: Annotated[
        str | None,
        typer.Option("--state-root", help="State root of the one shard, without a manifest or context.", rich_help_panel=_FOLDER),
    ] = None
    shard_uid: Annotated[
        str | None, typer.Option("--shard-uid", help="The shard and its layout version, as s6.v3.", rich_help_panel=_FOLDER)
    ] = None
    sync_hash: Annotated[str | None, typer.Option("--sync-hash", help="The epoch's sync hash.", rich_help_panel=_FOLDER)] = None
    protocol_version: Annotated[
        int | None, typer.Option("--protocol-version", help="The epoch's protocol version.", rich_help_panel=_FOLDER)
    ] = None
    encoding: Annotated[
        Encoding | None,
        typer.Option("--encoding", help="v0, v0-tagged or v1. Default: what the protocol version writes.", rich_help_panel=_FOLDER),
    ] = None


def open_parts(options: PartsOptions) -> EpochParts:
    """Resolve the options.

    Raises:
        InvalidInputError, EpochNotReadyError, ObjectNotFoundError, ManifestError, IntegrityError: as `find_epoch`, `open_epoch_parts`.
    """
    url = str(Path(options.parts).expanduser()) if options.parts.startswith("~") else options.parts
    store_url, layout = find_epoch(url, epoch_selector(options.epoch, None))
    return open_epoch_parts(store_url, layout, _given_context(options, layout), options.encoding, tuple(options.shard_id or ()))


def _given_context(options: PartsOptions, layout: EpochLayout) -> EpochContext | None:
    single = (options.state_root, options.shard_uid, options.sync_hash, options.protocol_version)
    if options.context is not None:
        if any(value is not None for value in single):
            raise InvalidInputError(problem="--context says root, shard uid, sync hash and protocol version: don't give them twice")
        return read_context_file(options.context.expanduser()).context
    if all(value is None for value in single):
        return None
    if options.state_root is None or options.shard_uid is None or options.sync_hash is None or options.protocol_version is None:
        raise InvalidInputError(problem="--state-root, --shard-uid, --sync-hash and --protocol-version go together")
    shard = ShardContext(ShardUId.parse(options.shard_uid), CryptoHash.from_base58(options.state_root))
    sync_hash = CryptoHash.from_base58(options.sync_hash)
    return EpochContext(layout.chain_id, layout.epoch_height, layout.epoch_id, sync_hash, options.protocol_version, (shard,))
