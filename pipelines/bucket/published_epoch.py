"""Reads what is published of an epoch: manifest, statements, and whether the objects they list are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from pipelines.stores.store import Store
from schemas.errors import ManifestError, ObjectNotFoundError
from schemas.published.dsse import ENVELOPE_BYTES_MAX, Envelope
from schemas.published.in_toto import parse_statement_envelope
from schemas.published.manifest import Manifest
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
    where = f"{store.url}/{name}"
    try:
        envelope = parse_statement_envelope(store.get(name, 0, ENVELOPE_BYTES_MAX + 1), where)
    except ObjectNotFoundError:
        return None
    if judge is not None:
        judge(envelope)
    manifest = Manifest.from_payload(envelope.payload, where)
    if manifest.layout != layout:
        raise ManifestError(
            problem=f"the manifest is of epoch {manifest.epoch_height} ({manifest.epoch_id}) of {manifest.chain_id}", where=where
        )
    return StoredManifest(manifest, envelope)


def read_statement(store: Store, layout: EpochLayout, shard_id: int, judge: Judge | None = None) -> tuple[ShardStatement, Envelope] | None:
    """Return a shard's statement with its envelope; None where none was written.

    Raises:
        ManifestError: it is judged so, is of another type, or can't be parsed.
    """
    name = layout.shard_statement(shard_id)
    where = f"{store.url}/{name}"
    try:
        envelope = parse_statement_envelope(store.get(name, 0, ENVELOPE_BYTES_MAX + 1), where)
    except ObjectNotFoundError:
        return None
    if judge is not None:
        judge(envelope)
    return ShardStatement.from_payload(envelope.payload, where), envelope


def read_tables_statement(store: Store, layout: EpochLayout, judge: Judge | None = None) -> tuple[TablesStatement, Envelope] | None:
    """Return the statement of an epoch's decoded tables with its envelope; None where none was written.

    Raises:
        ManifestError: it is judged so, or can't be parsed.
    """
    where = f"{store.url}/{layout.tables_statement}"
    try:
        envelope = parse_statement_envelope(store.get(layout.tables_statement, 0, ENVELOPE_BYTES_MAX + 1), where)
    except ObjectNotFoundError:
        return None
    if judge is not None:
        judge(envelope)
    return TablesStatement.from_payload(envelope.payload, where), envelope


def readable_statement(store: Store, layout: EpochLayout, shard_id: int) -> tuple[ShardStatement, Envelope] | None:
    """Return the statement in place; None where there is none, or one that is damaged and says nothing: it is made again."""
    try:
        return read_statement(store, layout, shard_id)
    except ManifestError:
        return None
