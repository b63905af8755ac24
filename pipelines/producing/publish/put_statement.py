"""Puts a statement about something that is published, signed by us, beside the signatures that are there."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.producing.publish.signing import Signer, add_signatures, sign_payload
from pipelines.stores.compare_and_swap import swapped
from pipelines.stores.store import ObjectInfo, Store
from schemas.errors import ManifestError, ObjectNotFoundError
from schemas.published.dsse import ENVELOPE_BYTES_MAX, Envelope
from schemas.published.in_toto import parse_statement_envelope


def put_statement(store: Store, name: str, payload: bytes, signers: Sequence[Signer]) -> None:
    """Store a statement; signatures of others over the same payload stay, one that says something else or nothing is replaced.

    Raises:
        ObjectExistsError: other producers replaced it each time.
        SignatureError: a key can't be used now.
    """

    def signed(info: ObjectInfo | None) -> tuple[bytes, None]:
        there = None if info is None else _readable_envelope(store, name)
        if there is not None and there.payload == payload:
            return add_signatures(there, signers, name).to_bytes(), None
        return sign_payload(payload, signers).to_bytes(), None

    swapped(store, name, signed, read_back=True)


def _readable_envelope(store: Store, name: str) -> Envelope | None:
    """Return the envelope of a statement in place; None where there is none, or one that is damaged and says nothing: it is made again."""
    try:
        return parse_statement_envelope(store.get(name, 0, ENVELOPE_BYTES_MAX + 1), f"{store.url}/{name}")
    except (ObjectNotFoundError, ManifestError):
        return None
