"""Puts a statement about something that is published, signed by us, beside the signatures that are there."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.bucket.published_epoch import readable_envelope
from pipelines.producing.publish.signing import Signer, add_signatures, sign_payload
from pipelines.stores.compare_and_swap import swapped
from pipelines.stores.store import ObjectInfo, Store


def put_statement(store: Store, name: str, payload: bytes, signers: Sequence[Signer]) -> None:
    """Store a statement; signatures of others over the same payload stay, one that says something else or nothing is replaced.

    Raises:
        ObjectExistsError: other producers replaced it each time.
        SignatureError: a key can't be used now.
    """

    def signed(info: ObjectInfo | None) -> tuple[bytes, None]:
        there = None if info is None else readable_envelope(store, name)
        if there is not None and there.payload == payload:
            return add_signatures(there, signers, name).to_bytes(), None
        return sign_payload(payload, signers).to_bytes(), None

    swapped(store, name, signed, read_back=True)
