"""Tables statements: one encoding, no contradiction inside, nothing besides."""

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
from schemas.published.manifest import Manifest
from schemas.published.manifest_tables import ManifestTables
from schemas.published.tables_statement import TablesStatement
from tests.support.published_values import digest, make_manifest, make_tables_statement

MANIFEST_SCHEMA = json.loads((Path(schemas.__file__).parent / "published" / "manifest.schema.json").read_text())
STATEMENTS = [make_tables_statement(), make_tables_statement(raw=False)]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_comes_back(statement: TablesStatement) -> None:
    """Payload and value are two forms of one thing."""
    payload = statement.to_payload()
    assert TablesStatement.from_payload(payload, "test") == statement


def test_a_statement_says_whether_the_state_root_follows() -> None:
    """Not where the raw columns are left out."""
    assert [[shard.gives_state_root for shard in statement.shards] for statement in STATEMENTS] == [[True, True], [False, False]]
    assert json.loads(STATEMENTS[1].to_payload())["predicate"]["selection"]["raw"] is False


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "another predicate type": lambda d: d.update(predicateType="urn:statecast:shard-statement:v1"),
    "an unknown field": lambda d: d["predicate"].update(note="x"),
    "a field missing": lambda d: d["predicate"].pop("sync_hash"),
    "no shard": lambda d: (d["predicate"].update(shards=[]), d.update(subject=[])),
    "a shard twice": lambda d: d["predicate"]["shards"].append(d["predicate"]["shards"][0]),
    "shards swapped": lambda d: d["predicate"]["shards"].reverse(),
    "a file without its digest": lambda d: d["subject"].pop(1),
    "a summary without its digest": lambda d: d["subject"].pop(0),
    "a digest too many": lambda d: d["subject"].append({"name": "other", "digest": {"sha256": "00" * 32}}),
    "a file twice": lambda d: d["predicate"]["shards"][0]["files"].append(d["predicate"]["shards"][0]["files"][0]),
    "a file of another epoch": lambda d: d["predicate"]["shards"][0]["files"][0].update(
        name="kind=account/chain_id=testnet/epoch_height=8/shard_id=0/range-000000-0000.parquet"
    ),
    "a selection of no kind": lambda d: d["predicate"]["selection"].update(kinds=["accounts"]),
    "a selection that is none": lambda d: d["predicate"].update(selection=5),
    "a root out of some of the records": lambda d: d["predicate"]["selection"].update(raw=False),
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE.keys())
def test_what_contradicts_itself_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    """By a typed error."""
    document = json.loads(make_tables_statement().to_payload())
    change(document)
    with pytest.raises(ManifestError):
        TablesStatement.from_payload(encode_json(document), "test")


@pytest.mark.parametrize("url", ["gs://bucket/tables", None])
def test_a_manifest_names_the_tables(url: str | None) -> None:
    """In a field that older readers pass over, and that is not there where there are none."""
    manifest = replace(make_manifest(), tables=ManifestTables(digest("statement"), url))
    payload = manifest.to_payload()
    assert Manifest.from_payload(payload, "test") == manifest
    jsonschema.validate(json.loads(payload), MANIFEST_SCHEMA)
    assert b"tables" not in make_manifest().to_payload()


def test_a_place_that_is_not_public_is_not_named() -> None:
    """A folder of the publisher's machine, or a URL with credentials."""
    assert ManifestTables.at(digest("x"), "file:///data/tables").url is None
    assert ManifestTables.at(digest("x"), "https://user:secret@host/tables").url is None
    assert ManifestTables.at(digest("x"), "az://container/tables").url == "az://container/tables"
