"""Delta statements: one encoding, no contradiction inside, nothing besides."""

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
from schemas.json_document import encode_json
from schemas.published.delta_statement import BaseRange, DeltaStatement
from tests.support.published_values import make_delta_statement

SCHEMA = json.loads((Path(schemas.__file__).parent / "published" / "delta_statement.schema.json").read_text())
CHILD = replace(make_delta_statement(), base_ranges=(BaseRange(b"", b"\0"), BaseRange(b"\0m", b"\1"), BaseRange(b"\1m", None)))
STATEMENTS = [make_delta_statement(), make_delta_statement(3, 0), CHILD]


@pytest.mark.parametrize("statement", STATEMENTS, ids=["usual", "nothing changed", "of a child"])
def test_a_statement_comes_back(statement: DeltaStatement) -> None:
    """Payload and value are two forms of one thing, and the published schema describes it."""
    payload = statement.to_payload()
    assert DeltaStatement.from_payload(payload, "test") == statement
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(payload), SCHEMA)


def test_the_payload_is_written_down() -> None:
    """The encoding must never change by accident: signatures of different versions would not meet."""
    assert make_delta_statement(1, 0).to_payload() == (
        b'{"_type":"https://in-toto.io/Statement/v1","predicate":{"base":{"epoch_height":6,"epoch_id":"7tj9biW3KRJ7EEWmVUGigHiouCTXhV2dzcyvw'
        b'ma7Cyu7","shard_uid":"s1.v1","state_root":"7xeSk1y3uibLNKmGvmbdyAVa9MfjNYiTZ2eb19chxKDp"},"base_ranges":[{"begin":"","end":null}],'
        b'"chain_id":"testnet","deleted":0,"objects":[],"records":0,"shard_id":1,"target":{"epoch_height":7,"epoch_id":"29d2S7vB453rNYFdR5Yc'
        b'wt7y9haRT5fwVwL9zTmBhfV2","shard_uid":"s1.v1","state_root":"4Ss5JMkXAD9Z7cktFEdrqeMuT6jGMF1pVozTyPHZ6zT4"}},"predicateType":"urn:s'
        b'tatecast:delta-statement:v1","subject":[{"digest":{"sha256":"3333333333333333333333333333333333333333333333333333333333333333"},"n'
        b'ame":"shard_id=1"}]}'
    )


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "another predicate type": lambda d: d.update(predicateType="urn:statecast:shard-statement:v1"),
    "an unknown field": lambda d: d["predicate"].update(note="x"),
    "a field missing": lambda d: d["predicate"].pop("base"),
    "an object missing": lambda d: d["predicate"]["objects"].pop(),
    "objects swapped": lambda d: d["predicate"]["objects"].reverse(),
    "a subject missing": lambda d: d["subject"].pop(1),
    "another root in the subject": lambda d: d["subject"][0]["digest"].update(sha256="00" * 32),
    "another index": lambda d: d["predicate"]["objects"][0].update(index=1),
    "objects that overlap": lambda d: d["predicate"]["objects"][0].update(last_key="02"),
    "an object backwards": lambda d: d["predicate"]["objects"][0].update(last_key="", first_key="01"),
    "more deleted than changed": lambda d: d["predicate"]["objects"][0].update(deleted=11),
    "another sum": lambda d: d["predicate"].update(records=1),
    "an object too large": lambda d: d["predicate"]["objects"][0].update(size=(64 << 20) + 1),
    "its own base": lambda d: d["predicate"]["base"].update(epoch_id=d["predicate"]["target"]["epoch_id"]),
    "ranges that touch": lambda d: d["predicate"].update(base_ranges=[{"begin": "", "end": "01"}, {"begin": "01", "end": None}]),
    "an empty range": lambda d: d["predicate"].update(base_ranges=[{"begin": "01", "end": "01"}]),
    "a range after the last": lambda d: d["predicate"].update(base_ranges=[{"begin": "", "end": None}, {"begin": "01", "end": None}]),
    "another shard": lambda d: d["predicate"].update(shard_id=9),
    "another spelling of a uid": lambda d: d["predicate"]["base"].update(shard_uid="s00.v1"),
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_statement_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    """Each damage alone is enough."""
    document = json.loads(make_delta_statement().to_payload())
    change(document)
    with pytest.raises(ManifestError, match="test"):
        DeltaStatement.from_payload(encode_json(document), "test")
