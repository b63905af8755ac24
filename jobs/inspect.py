"""``statecast inspect``: what a manifest, a part, an epoch, a dataset or a node database holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from jobs.inspect_objects import object_document, print_facts, tables_catalogue_document
from jobs.inspect_peer import peer_document, print_peer
from jobs.options import Json
from jobs.terminal import coloured, format_bytes, open_console, open_table, print_json
from pipelines.bucket.locate_epoch import locate_epoch
from pipelines.bucket.published_epoch import read_manifest
from pipelines.dataset.arrow_dataset import list_shards
from pipelines.near.epoch.given_context import read_context_file
from pipelines.near.epoch.node_context import OpenedNode, open_node
from pipelines.near.epoch.node_epochs import NodeEpoch
from pipelines.near.node.node_home import read_node_home
from pipelines.near.node.node_store import NodeSource
from pipelines.near.trie.trie_walk_source import has_state_root
from pipelines.nearpeer.peer_url import SCHEME
from pipelines.nearpeer.survey import NEIGHBOURS_MAX
from pipelines.restoring.restore_epoch import RESULT_NAME, restored_shards
from pipelines.restoring.restore_work import WORK_SUMMARY_BYTES_MAX
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import read_object
from pipelines.stores.regular_file import read_regular
from schemas.dataset.tables_summary import CATALOGUE_NAME, TablesCatalogue
from schemas.errors import EpochNotReadyError, InvalidInputError, MalformedPartError, ManifestError, StatecastError
from schemas.json_document import decode_json
from schemas.json_limits import JsonLimits
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.state_part import Encoding, decode_partial_state, decode_state_part
from schemas.nearcore.trie_node import decode_trie_node
from schemas.published.dsse import ENVELOPE_BYTES_MAX, parse_envelope
from schemas.published.manifest import Manifest
from schemas.published.manifest_shard import STORED_BYTES_MAX
from schemas.published.object_layout import parse_object_name, split_chain_url
from schemas.published.shard_statement import ShardStatement

_NOTE_LIMITS: Final = JsonLimits(WORK_SUMMARY_BYTES_MAX)
_ENVELOPE_LIMITS: Final = JsonLimits(ENVELOPE_BYTES_MAX)

EPOCHS_EXAMINED_MAX: Final = 16
"""Newest epochs of a node that are looked at: it may know thousands, and each costs reads of its blocks."""


def inspect(
    what: Annotated[
        str,
        typer.Argument(
            help="A node's home; near://ed25519:KEY@host:port of a running node; an epoch's or bucket's URL; dataset://…; or any file that statecast writes, by path or URL."
        ),
    ],
    neighbours: Annotated[
        int, typer.Option("--neighbours", min=0, max=NEIGHBOURS_MAX, help="Of near://…: look at so many of the peers that it names too.")
    ] = 0,
    sync_hash: Annotated[
        str | None, typer.Option("--sync-hash", help="Of near://…: ask for the headers and one part of each announced shard of this epoch.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what is in something: for people, or with --json for programs. Nothing is verified; `statecast check` does that.

    Examples: `statecast inspect ~/.near`, `statecast inspect gs://bucket/prefix`, `statecast inspect ./state_part_000000_of_000004`
    """
    document = peer_document(what, neighbours, sync_hash) if what.startswith(SCHEME) else _document(what)
    if as_json:
        print_json({"message_type": "summary", **document})
    else:
        _PRINTERS.get(document["kind"], print_facts)(open_console(), document)


def _document(what: str) -> dict[str, Any]:
    if what.startswith("dataset://"):
        return _dataset(what.removeprefix("dataset://"))
    local = None if "://" in what else Path(what).expanduser()
    if local is not None and local.is_dir() and ((local / "config.json").is_file() or (local / "data" / "CURRENT").is_file()):
        return _restored(local) or _node(local)
    if local is not None and not local.exists():
        raise InvalidInputError(problem="there is no such file or folder", where=what)
    if local is not None and not local.is_dir():
        return _object(local.name, str(local.resolve()), _read(local))
    root, name = split_chain_url(what)
    if parse_object_name(name) is not None:
        return _object(name.rpartition("/")[2], name, read_object(open_store(root), name, STORED_BYTES_MAX))
    if local is not None and next(local.rglob("manifest.json"), None) is None:
        if next(local.rglob("shard.json"), None) is not None:
            return _dataset(what)
        if (local / CATALOGUE_NAME).is_file():
            return _tables(what, local / CATALOGUE_NAME)
        if "chain_id=" not in what and next(local.glob("chain_id=*"), None) is None:
            raise _unknown(what)
    return _epoch(what)


def _read(file: Path) -> bytes:
    try:
        return read_regular(file, STORED_BYTES_MAX)
    except OSError as error:
        raise InvalidInputError(problem=f"the file can't be read: {error.strerror}", where=str(file)) from None


def _node(home: Path) -> dict[str, Any]:
    with open_node(home) as node:
        listing = node.listing
        first = len(listing.epochs) - EPOCHS_EXAMINED_MAX
        epochs = [_node_epoch(node, home, epoch, index >= first) for index, epoch in enumerate(listing.epochs)]
    return {
        "kind": "node",
        "node_home": str(home),
        "epochs": epochs,
        "unreadable_epochs": [
            {"epoch_height": epoch.epoch_height, "epoch_id": str(epoch.epoch_id), "problem": epoch.failure.problem}
            for epoch in listing.unreadable
        ],
    }


def _node_epoch(node: OpenedNode, home: Path, epoch: NodeEpoch, is_examined: bool) -> dict[str, Any]:
    context: EpochContext | None = None
    problem: str | None = None if is_examined else "it is long past; `statecast backfill --plan` looks at such epochs"
    flat: list[str] = []
    walked: list[str] = []
    try:
        context = node.epoch_context(str(epoch.epoch_id)) if is_examined else None
    except StatecastError as error:
        problem = error.problem
    for shard in context.shards if context else ():
        try:
            assert context is not None, "its shards are looked at"
            NodeSource(str(home), context).fingerprint(shard)
            flat.append(str(shard.shard_uid))
        except StatecastError as error:
            problem = problem or error.problem
            if has_state_root(read_node_home(home), shard):
                walked.append(str(shard.shard_uid))
    return {
        "epoch_height": epoch.epoch_height,
        "epoch_id": str(epoch.epoch_id),
        "protocol_version": epoch.protocol_version,
        "sync_hash": None if context is None else str(context.sync_hash),
        "can_produce": bool(flat),
        "can_walk": walked,
        "problem": problem,
        "shards": [
            {
                "shard_uid": str(shard.shard_uid),
                "parent_shard_uid": None if shard.parent_shard_uid is None else str(shard.parent_shard_uid),
                "state_root": str(shard.state_root),
            }
            for shard in (context.shards if context else ())
        ],
    }


def _dataset(url: str) -> dict[str, Any]:
    shards = [
        {
            "epoch_height": shard.summary.context.epoch_height,
            "epoch_id": str(shard.summary.context.epoch_id),
            "shard_uid": str(shard.summary.shard.shard_uid),
            "records": shard.summary.records,
            "value_bytes": shard.summary.value_bytes,
            "files": len(shard.summary.all_files),
            "state_root": None if shard.summary.verified_state_root is None else str(shard.summary.verified_state_root),
            "root_verified": shard.summary.verified_state_root is not None and shard.summary.shard.state_root is not None,
            "memory_usage": shard.summary.memory_usage,
        }
        for shard in list_shards(url)
    ]
    return {"kind": "dataset", "url": url, "shards": shards}


def _tables(what: str, catalogue: Path) -> dict[str, Any]:
    return {"kind": "tables", "url": what, **tables_catalogue_document(TablesCatalogue.from_bytes(_read(catalogue), str(catalogue)))}


def _restored(home: Path) -> dict[str, Any] | None:
    """Describe a database that `statecast restore` wrote; None for another. It has no blocks, so that it knows no epoch by itself."""
    note, context = home / RESULT_NAME, home / "context.json"
    if not note.is_file() or not context.is_file():
        return None
    try:
        restored = decode_json(_read(note), _NOTE_LIMITS, str(note))
        restored_shards(restored)
    except ManifestError:
        raise InvalidInputError(problem="the note of the restoration can't be read", where=str(note)) from None
    epoch = read_context_file(context).context
    return {
        "kind": "restored_database",
        "folder": str(home),
        "chain_id": epoch.chain_id,
        "epoch_height": epoch.epoch_height,
        "epoch_id": str(epoch.epoch_id),
        "shards": restored["shards"],
    }


def _epoch(url: str) -> dict[str, Any]:
    root, layout = locate_epoch(url)
    store = open_store(root)
    stored = read_manifest(store, layout)
    if stored is None:
        raise EpochNotReadyError(
            problem="there is no manifest: the epoch is not published, or not yet", where=f"{store.url}/{layout.manifest}"
        )
    return _manifest(stored.manifest, [found.key_id for found in stored.envelope.signatures])


def _manifest(manifest: Manifest, signature_key_ids: list[str]) -> dict[str, Any]:
    return {
        "kind": "manifest",
        "chain_id": manifest.chain_id,
        "epoch_height": manifest.epoch_height,
        "epoch_id": str(manifest.epoch_id),
        "sync_hash": str(manifest.sync_hash),
        "protocol_version": manifest.protocol_version,
        "revision": manifest.revision,
        "created": manifest.created.isoformat(),
        "producer_version": manifest.producer_version,
        "encoding": str(manifest.encoding),
        "zstd": None if manifest.zstd is None else {"version": manifest.zstd.version, "level": manifest.zstd.level},
        "signature_key_ids": signature_key_ids,
        "shards": [
            {
                "shard_id": shard.shard_id,
                "shard_uid": str(shard.shard_uid),
                "parent_shard_uid": None if shard.parent_shard_uid is None else str(shard.parent_shard_uid),
                "state_root": str(shard.state_root),
                "num_parts": shard.num_parts,
                "stored_size": sum(part.size for part in shard.parts),
                "state_header": shard.header is not None,
                "info_hash_v1": None if shard.torrent is None else shard.torrent.info_hash_v1,
                "info_hash_v2": None if shard.torrent is None else shard.torrent.info_hash_v2,
            }
            for shard in manifest.shards
        ],
        "shard_layout": None if manifest.shard_layout is None else manifest.shard_layout.to_json(),
        "not_published": [
            {"kind": str(found.kind), "shard_id": found.shard_id, "part_id": found.part_id, "reason": found.reason}
            for found in manifest.missing
        ],
    }


def _object(file_name: str, where: str, data: bytes) -> dict[str, Any]:
    """Describe one file by what it is; the name helps, the bytes decide."""
    parsed = parse_object_name(where[where.index("chain_id=") :]) if "chain_id=" in where else None
    if (found := object_document(data, where, None if parsed is None else parsed.kind)) is not None:
        return found
    if data[:1] == b"{":
        if parsed is None and not _is_envelope(data, where):
            raise _unknown(where)
        envelope = parse_envelope(data, where)
        try:
            return _manifest(Manifest.from_payload(envelope.payload, where), [found.key_id for found in envelope.signatures])
        except StatecastError:
            return _statement(ShardStatement.from_payload(envelope.payload, where))
    try:
        return _state_part(file_name, where, data)
    except MalformedPartError:
        if parsed is None:
            raise _unknown(where) from None
        raise


def _is_envelope(data: bytes, where: str) -> bool:
    too_much = _ENVELOPE_LIMITS.problem(data)
    if too_much is not None:
        raise InvalidInputError(problem=f"it is JSON that nothing of ours is: {too_much}", where=where)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "payload" in document


def _unknown(where: str) -> InvalidInputError:
    return InvalidInputError(
        problem="inspect does not know what this is",
        where=where,
        remedy="It knows what statecast writes: manifests, statements, parts, headers, torrents, proofs, catalogues, claims, contexts, "
        "datasets, tables and restored databases.",
    )


def _statement(statement: ShardStatement) -> dict[str, Any]:
    return {
        "kind": "statement",
        "chain_id": statement.chain_id,
        "epoch_height": statement.epoch_height,
        "epoch_id": str(statement.epoch_id),
        "shard_uid": str(statement.shard_uid),
        "state_root": str(statement.state_root),
        "memory_usage": statement.memory_usage,
        "num_parts": statement.num_parts,
        "header_sha256": statement.header_sha256,
        "parts": [
            {
                "part_id": part.part_id,
                "key_begin": part.key_begin.hex(),
                "key_end": None if part.key_end is None else part.key_end.hex(),
                "decoded_size": part.decoded_size,
                "sha256": part.sha256,
            }
            for part in statement.parts
        ],
    }


def _state_part(file_name: str, where: str, data: bytes) -> dict[str, Any]:
    for encoding in (Encoding.V1, Encoding.V0_TAGGED, Encoding.V0):
        try:
            decoded = decode_state_part(data, encoding)
            entries = decode_partial_state(decoded)
        except StatecastError:
            continue
        nodes = sum(_is_node(entry) for entry in entries)
        return {
            "kind": "state_part",
            "name": file_name,
            "encoding": str(encoding),
            "stored_size": len(data),
            "decoded_size": decoded.size,
            "decoded_sha256": hashlib.sha256(decoded).hexdigest(),
            "entries": len(entries),
            "nodes": nodes,
            "values": len(entries) - nodes,
            "sorted": all(left < right for left, right in pairwise(entries)),
        }
    raise MalformedPartError(problem="this is neither a state part nor a manifest nor a statement", where=where)


def _is_node(entry: bytes) -> bool:
    try:
        decode_trie_node(entry)
    except StatecastError:
        return False
    return True


def _print_node(console: Console, document: dict[str, Any]) -> None:
    table = open_table(("epoch", "epoch id", "protocol", "shards", "can produce"), left=None, title=f"node at {document['node_home']}")
    for epoch in document["epochs"]:
        shards = ", ".join(shard["shard_uid"] for shard in epoch["shards"])
        answer = _answer(epoch)
        table.add_row(str(epoch["epoch_height"]), epoch["epoch_id"], str(epoch["protocol_version"]), shards, answer)
    console.print(table)
    for epoch in document["unreadable_epochs"]:
        height = "?" if epoch["epoch_height"] is None else epoch["epoch_height"]
        line = f"not listed: epoch {height} ({epoch['epoch_id']}), whose EpochInfo can't be read: {epoch['problem']}"
        console.print(line, highlight=False, soft_wrap=True)


def _answer(epoch: dict[str, Any]) -> Text:
    """Return whether an epoch can be produced, and how; the State column serves for shards whose flat state is of another block."""
    yes = ("yes", "green")
    if epoch["problem"] is None:
        return coloured(yes)
    if epoch["can_walk"]:
        return coloured(yes, f", by a walk over the State column ({', '.join(epoch['can_walk'])})")
    if epoch["can_produce"]:
        return coloured(yes, f", without some shards: {epoch['problem']}")
    return coloured(f"no: {epoch['problem']}")


def _print_dataset(console: Console, document: dict[str, Any]) -> None:
    table = open_table(("epoch", "shard", "records", "values", "files", "state root"), left=None, title=f"dataset {document['url']}")
    for shard in document["shards"]:
        root = f"{'verified' if shard['root_verified'] else 'computed'} {shard['state_root']}" if shard["state_root"] else "not computed"
        table.add_row(
            str(shard["epoch_height"]),
            shard["shard_uid"],
            f"{shard['records']:,}",
            format_bytes(shard["value_bytes"]),
            str(shard["files"]),
            root,
        )
    console.print(table)


def _print_manifest(console: Console, document: dict[str, Any]) -> None:
    title = f"epoch {document['epoch_height']} of {document['chain_id']}, manifest revision {document['revision']}, {document['created']}"
    table = open_table(("shard", "parts", "stored", "header", "state root", "info hash v1"), left=None, title=title)
    for shard in document["shards"]:
        header = "yes" if shard["state_header"] else "none"
        table.add_row(
            shard["shard_uid"],
            f"{shard['num_parts']:,}",
            format_bytes(shard["stored_size"]),
            header,
            shard["state_root"],
            shard["info_hash_v1"] or "none",
        )
    console.print(table)
    for name in ("epoch_id", "sync_hash", "protocol_version", "encoding", "producer_version"):
        console.print(f"{name.replace('_', ' '):<17} {document[name]}", highlight=False)
    signed = ", ".join(document["signature_key_ids"]) or "none"
    console.print(f"{'signed by key id':<17} {signed}", highlight=False, soft_wrap=True)
    if document["signature_key_ids"]:
        words = "An envelope names its signers by key id alone; a publisher says which public key has it, and statecast keygen prints both."
        console.print(f"{'':<17} {words}", highlight=False, soft_wrap=True)
    for shard in document["shards"]:
        if shard["parent_shard_uid"] is not None:
            console.print(f"shard {shard['shard_uid']} was made out of {shard['parent_shard_uid']} by a resharding", highlight=False)
    for kind, layout in (document["shard_layout"] or {}).items():
        accounts = f", split at {', '.join(layout['boundary_accounts'])}" if layout.get("boundary_accounts") else ""
        console.print(f"{'shard layout':<17} {kind}{accounts}", highlight=False, soft_wrap=True)
    for found in document["not_published"]:
        console.print(f"not published: {found['kind']} shard {found['shard_id']}: {found['reason']}", highlight=False)


def _print_statement(console: Console, document: dict[str, Any]) -> None:
    table = open_table(
        ("part", "first key", "decoded", "sha256"),
        left=None,
        title=f"shard {document['shard_uid']}, epoch {document['epoch_height']} of {document['chain_id']}",
    )
    for part in document["parts"]:
        table.add_row(str(part["part_id"]), part["key_begin"] or "(left edge)", format_bytes(part["decoded_size"]), part["sha256"])
    console.print(table)
    console.print(f"state root {document['state_root']}, memory usage {document['memory_usage']:,}", highlight=False)


def _print_state_part(console: Console, document: dict[str, Any]) -> None:
    for name, value in document.items():
        if name != "kind":
            console.print(f"{name.replace('_', ' '):<15} {value}", highlight=False)


_PRINTERS: dict[str, Callable[[Console, dict[str, Any]], None]] = {
    "node": _print_node,
    "dataset": _print_dataset,
    "manifest": _print_manifest,
    "statement": _print_statement,
    "state_part": _print_state_part,
    "tables": print_facts,
    "restored_database": print_facts,
    "near_peer": print_peer,
}
