"""Reads what is published of deltas: which ones an epoch's manifest lists, and their statements."""

from __future__ import annotations

from pipelines.stores.store import Store
from schemas.errors import ManifestError, ObjectNotFoundError
from schemas.published.delta_statement import DeltaStatement
from schemas.published.dsse import ENVELOPE_BYTES_MAX, Envelope
from schemas.published.in_toto import parse_statement_envelope
from schemas.published.manifest import Manifest
from schemas.published.manifest_delta import ManifestDelta
from schemas.published.object_layout import EpochLayout


def listed_deltas(manifest: Manifest, shard_id: int) -> tuple[ManifestDelta, ...]:
    """Return the deltas to a shard, ascending by the height of the epoch that they lead from."""
    return tuple(found for found in manifest.deltas if found.shard_id == shard_id)


def read_delta_statement(store: Store, layout: EpochLayout, listed: ManifestDelta) -> tuple[DeltaStatement, Envelope]:
    """Read the statement of a delta that a manifest lists. Of signatures nothing is asked: the manifest names it by its digest.

    Args:
        layout: of the epoch that the delta leads to.
    Raises:
        ObjectNotFoundError: it is missing.
        ManifestError: it is another one, can't be parsed, or is of another epoch, shard or base.
    """
    name = layout.delta_statement(listed.base_epoch_id, listed.shard_id)
    where = f"{store.url}/{name}"
    try:
        data = store.get(name, 0, ENVELOPE_BYTES_MAX + 1)
    except ObjectNotFoundError as error:
        raise ObjectNotFoundError(problem="the statement of a delta is missing", where=where) from error
    return judged_delta_statement(data, layout, listed, where)


def judged_delta_statement(data: bytes, layout: EpochLayout, listed: ManifestDelta, where: str) -> tuple[DeltaStatement, Envelope]:
    """Parse an envelope that is to hold the statement of a listed delta.

    Raises:
        ManifestError: as `read_delta_statement`.
    """
    envelope = parse_statement_envelope(data, where)
    if envelope.payload_sha256 != listed.statement_sha256:
        raise ManifestError(problem="it is not the delta statement that the manifest names by its sha256", where=where)
    statement = DeltaStatement.from_payload(envelope.payload, where)
    of_target = (statement.chain_id, statement.target.epoch_height, statement.target.epoch_id, statement.shard_id)
    of_base = (statement.base.epoch_height, statement.base.epoch_id)
    if of_target != (layout.chain_id, layout.epoch_height, layout.epoch_id, listed.shard_id) or of_base != (
        listed.base_epoch_height,
        listed.base_epoch_id,
    ):
        raise ManifestError(problem="the delta statement is of another epoch, shard or base than the manifest says", where=where)
    if (len(statement.objects), statement.size) != (listed.objects, listed.size):
        raise ManifestError(problem="the delta statement has other objects than the manifest says", where=where)
    return statement, envelope


def deltas_in_words(count: int) -> str:
    """Return how many deltas there are, for people."""
    return "one delta" if count == 1 else f"{count:,} deltas"
