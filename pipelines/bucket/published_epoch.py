"""Reads what is published of an epoch: manifest, statements, and whether the objects they list are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from pipelines.stores.ranges import find_document
from pipelines.stores.store import Store
from schemas.errors import ManifestError
from schemas.published.dsse import ENVELOPE_BYTES_MAX, Envelope
from schemas.published.in_toto import parse_statement_envelope
from schemas.published.manifest import Manifest
from schemas.published.manifest_shard import ManifestShard
from schemas.published.object_layout import EpochLayout
from schemas.published.shard_statement import ShardStatement
from schemas.published.tables_statement import TablesStatement

Judge: TypeAlias = Callable[[Envelope], object]
"""Raises ManifestError where an envelope is not what is wanted: asked before its payload is parsed."""


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it lies in a store."""

    manifest: Manifest
    envelope: Envelope


def read_envelope(store: Store, name: str, judge: Judge | None = None) -> Envelope | None:
    """Return the envelope of a statement; None where none was written.

    Raises:
        ManifestError: it is judged so, is of another type, or can't be parsed.
    """
    data = find_document(store, name, ENVELOPE_BYTES_MAX)
    if data is None:
        return None
    envelope = parse_statement_envelope(data, f"{store.url}/{name}")
    if judge is not None:
        judge(envelope)
    return envelope


def readable_envelope(store: Store, name: str) -> Envelope | None:
    """Return the envelope of a statement in place; None where there is none, or one that is damaged and says nothing: it is made again."""
    try:
        return read_envelope(store, name)
    except ManifestError:
        return None


def read_manifest(store: Store, layout: EpochLayout, judge: Judge | None = None) -> StoredManifest | None:
    """Return an epoch's newest manifest; None where none was written. Of signatures nothing is asked but by ``judge``.

    Raises:
        ManifestError: it is judged so, can't be parsed, is of another type, or is another epoch's.
    """
    return _parse_manifest(store, layout, layout.manifest, judge)


def read_manifest_revision(store: Store, layout: EpochLayout, revision: int, judge: Judge | None = None) -> StoredManifest | None:
    """Return one revision of an epoch's manifest; None where it was not written.

    Raises:
        ManifestError: it is judged so, can't be parsed, is of another type, or is another epoch's.
    """
    return _parse_manifest(store, layout, layout.manifest_revision(revision), judge)


def _parse_manifest(store: Store, layout: EpochLayout, name: str, judge: Judge | None) -> StoredManifest | None:
    envelope = read_envelope(store, name, judge)
    return None if envelope is None else StoredManifest(Manifest.of_epoch(layout, envelope.payload, f"{store.url}/{name}"), envelope)


def read_statement(store: Store, layout: EpochLayout, shard_id: int, judge: Judge | None = None) -> tuple[ShardStatement, Envelope] | None:
    """Return a shard's statement with its envelope; None where none was written.

    Raises:
        ManifestError: it is judged so, is of another type, or can't be parsed.
    """
    name = layout.shard_statement(shard_id)
    envelope = read_envelope(store, name, judge)
    return None if envelope is None else (ShardStatement.from_payload(envelope.payload, f"{store.url}/{name}"), envelope)


def read_tables_statement(store: Store, layout: EpochLayout, judge: Judge | None = None) -> tuple[TablesStatement, Envelope] | None:
    """Return the statement of an epoch's decoded tables with its envelope; None where none was written.

    Raises:
        ManifestError: it is judged so, or can't be parsed.
    """
    name = layout.tables_statement
    envelope = read_envelope(store, name, judge)
    return None if envelope is None else (TablesStatement.from_payload(envelope.payload, f"{store.url}/{name}"), envelope)


def listed_statement(store: Store, layout: EpochLayout, listed: ManifestShard) -> tuple[ShardStatement, Envelope] | None:
    """Return the statement that a manifest names by its sha256; None where there is none, a damaged one, or another."""
    found = readable_statement(store, layout, listed.shard_id)
    return found if found is not None and found[1].payload_sha256 == listed.statement_sha256 else None


def readable_statement(store: Store, layout: EpochLayout, shard_id: int) -> tuple[ShardStatement, Envelope] | None:
    """Return the statement in place; None where there is none, or one that is damaged and says nothing: it is made again."""
    try:
        return read_statement(store, layout, shard_id)
    except ManifestError:
        return None
