"""Statements that are put where something lies already."""

from __future__ import annotations

from pathlib import Path

from pipelines.producing.publish.key_file import generate_key, load_signer
from pipelines.producing.publish.put_statement import put_statement
from pipelines.stores.open_store import open_store
from schemas.published.dsse import Envelope, parse_envelope
from schemas.published.in_toto import PAYLOAD_TYPE

NAME = "statement.json"
PAYLOAD = b'{"a": 1}'


def test_signatures_of_others_stay_and_an_envelope_of_another_type_is_replaced(tmp_path: Path) -> None:
    """Ours is never put on what no reader takes for a statement."""
    signers = []
    for name in ("a", "b"):
        generate_key(tmp_path / name)
        signers.append(load_signer(tmp_path / name))
    store = open_store(str(tmp_path / "store"))
    store.put(NAME, Envelope(PAYLOAD, "text/plain").to_bytes())
    for signer in signers:
        put_statement(store, NAME, PAYLOAD, [signer])
    there = parse_envelope(store.get(NAME, 0, 1 << 20), NAME)
    assert (there.payload, there.payload_type) == (PAYLOAD, PAYLOAD_TYPE)
    assert {found.key_id for found in there.signatures} == {signer.public_key.key_id for signer in signers}
    put_statement(store, NAME, b'{"a": 2}', signers[:1])
    there = parse_envelope(store.get(NAME, 0, 1 << 20), NAME)
    assert (there.payload, [found.key_id for found in there.signatures]) == (b'{"a": 2}', [signers[0].public_key.key_id])
