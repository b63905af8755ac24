"""Shard statements: one encoding, no contradiction inside, nothing besides."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import schemas
from schemas.errors import ManifestError
from schemas.ids import ZERO_HASH
from schemas.json_document import encode_json
from schemas.published.shard_statement import ShardStatement, StatementPart
from tests.support.published_values import digest, make_empty_statement, make_statement

SCHEMA = json.loads((Path(schemas.__file__).parent / "published" / "shard_statement.schema.json").read_text())
EMPTY_IN_PARTS = replace(
    make_empty_statement(), num_parts=2, parts=tuple(StatementPart(idx, b"", None, 5, digest("empty")) for idx in range(2))
)
"""An empty trie asked for in two parts."""

STATEMENTS = [make_statement(), make_statement(header=False), make_statement(num_parts=1), make_empty_statement(), EMPTY_IN_PARTS]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_comes_back(statement: ShardStatement) -> None:
    """Payload and value are two forms of one thing."""
    payload = statement.to_payload()
    assert ShardStatement.from_payload(payload, "test") == statement
    assert payload == statement.to_payload()


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_fits_its_json_schema(statement: ShardStatement) -> None:
    """The published schema describes what is written."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(statement.to_payload()), SCHEMA)


def test_the_payload_is_written_down() -> None:
    """The encoding must never change by accident: signatures of different versions would not meet."""
    assert make_empty_statement().to_payload() == (
        b'{"_type":"https://in-toto.io/Statement/v1","predicate":{"chain_id":"testnet","epoch_height":7,'
        b'"epoch_id":"29d2S7vB453rNYFdR5Ycwt7y9haRT5fwVwL9zTmBhfV2","has_state_header":false,"memory_usage":0,"num_parts":0,"parts":[],"shard_id":1,'
        b'"shard_uid":"s1.v1","state_root":"11111111111111111111111111111111","sync_hash":"3JF3sEqM796hk5WFqA6EtmEwJQ9quALszsfJyvXNQKy3"},'
        b'"predicateType":"urn:statecast:shard-statement:v1","subject":[{"digest":{"sha256":"' + b"0" * 64 + b'"},"name":"shard_id=1"}]}'
    )


def _damage(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(make_statement().to_payload())
    change(document)
    return encode_json(document)


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "another type": lambda d: d.update(_type="https://in-toto.io/Statement/v0.1"),
    "another predicate type": lambda d: d.update(predicateType="urn:statecast:manifest:v1"),
    "an unknown field": lambda d: d["predicate"].update(note="x"),
    "an unknown field outside": lambda d: d.update(note="x"),
    "a field missing": lambda d: d["predicate"].pop("sync_hash"),
    "a part missing": lambda d: d["predicate"]["parts"].pop(),
    "a part twice": lambda d: d["predicate"]["parts"].append(d["predicate"]["parts"][-1]),
    "parts swapped": lambda d: d["predicate"]["parts"].reverse(),
    "a subject missing": lambda d: d["subject"].pop(1),
    "the root's subject missing": lambda d: d["subject"].pop(0),
    "the header's subject missing": lambda d: d["subject"].pop(),
    "a subject too many": lambda d: d["subject"].append({"name": "other", "digest": {"sha256": "00" * 32}}),
    "a subject twice": lambda d: d["subject"].append(d["subject"][0]),
    "subjects in another order": lambda d: d["subject"].reverse(),
    "another root in the subject": lambda d: d["subject"][0]["digest"].update(sha256="00" * 32),
    "a digest in capitals": lambda d: d["subject"][1]["digest"].update(sha256="AB" * 32),
    "a digest too short": lambda d: d["subject"][1]["digest"].update(sha256="ab"),
    "no root but memory": lambda d: (d["predicate"].update(state_root=str(ZERO_HASH)), d["subject"][0]["digest"].update(sha256="00" * 32)),
    "a root but no memory": lambda d: d["predicate"].update(memory_usage=0),
    "another shard": lambda d: d["predicate"].update(shard_id=9),
    "a gap between parts": lambda d: d["predicate"]["parts"][1].update(key_begin="0101"),
    "an end inside": lambda d: d["predicate"]["parts"][0].update(key_end=None),
    "no right edge": lambda d: d["predicate"]["parts"][2].update(key_end="ff"),
    "no left edge": lambda d: d["predicate"]["parts"][0].update(key_begin="00"),
    "an interval backwards": lambda d: (d["predicate"]["parts"][1].update(key_end="00"), d["predicate"]["parts"][2].update(key_begin="00")),
    "a key in capitals": lambda d: d["predicate"]["parts"][0].update(key_end="0A"),
    "a number as text": lambda d: d["predicate"].update(epoch_height="7"),
    "a number as truth": lambda d: d["predicate"].update(epoch_height=True),
    "a negative number": lambda d: d["predicate"].update(memory_usage=-1),
    "too many parts": lambda d: d["predicate"].update(num_parts=100_001),
    "a part too large": lambda d: d["predicate"]["parts"][0].update(decoded_size=(512 << 20) + 1),
    "a chain id that climbs": lambda d: d["predicate"].update(chain_id="../x"),
    "another spelling of a hash": lambda d: d["predicate"].update(epoch_id="1" + d["predicate"]["epoch_id"]),
    "another spelling of a uid": lambda d: d["predicate"].update(shard_uid="s00.v1"),
    "a list for an object": lambda d: d.update(predicate=[]),
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_statement_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    """Each damage alone is enough."""
    with pytest.raises(ManifestError, match="test"):
        ShardStatement.from_payload(_damage(change), "test")


@pytest.mark.parametrize(
    "spelling",
    [
        lambda payload: payload + b"\n",
        lambda payload: payload.replace(b'"num_parts":3', b'"num_parts": 3'),
        lambda payload: payload.replace(b'"num_parts":3', b'"num_parts":3.0'),
        lambda payload: payload.replace(b'"num_parts":3', b'"num_parts":3,"num_parts":3'),
        lambda payload: payload.replace(b"testnet", b"te\\u0073tnet"),
        lambda payload: payload[:-1],
        lambda payload: b"\xff" + payload,
        lambda payload: b"[" * 100_000,
        lambda payload: b"1" * 5000,
        lambda payload: b"NaN",
        lambda payload: b"",
    ],
)
def test_only_one_spelling_is_taken(spelling: Callable[[bytes], bytes]) -> None:
    """Equal meaning must mean equal bytes, or signatures could not be counted over them."""
    with pytest.raises(ManifestError):
        ShardStatement.from_payload(spelling(make_statement().to_payload()), "test")
