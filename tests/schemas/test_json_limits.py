"""What is decoded of JSON is bounded before anything is built of it."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.producing.watch.watch_decisions import WatchLedger
from pipelines.trust.freshness import AcceptedManifests
from schemas.dataset.dataset_summary import DatasetSummary
from schemas.dataset.tables_summary import TablesCatalogue, TablesEpoch, TablesShard
from schemas.errors import ManifestError, StatecastError
from schemas.json_document import decode_json
from schemas.json_limits import DEPTH_MAX, JsonLimits
from schemas.nearcore.epoch_context import parse_epoch_context
from schemas.published.catalogue import Catalogue
from schemas.published.claim import Claim
from schemas.published.dsse import parse_envelope
from schemas.published.latest_pointer import LatestPointer
from schemas.published.lease import ReaderLease
from schemas.published.manifest import Manifest
from schemas.published.proof import TrieProof
from schemas.published.scrub_state import ScrubState
from schemas.published.shard_statement import ShardStatement
from schemas.published.tables_statement import TablesStatement

SMALL = JsonLimits(1 << 20)

TEXTS = st.text(st.sampled_from('"\\[]{},:ab\n\u20ac'), max_size=6)
DOCUMENTS = st.dictionaries(
    TEXTS,
    st.recursive(
        st.none() | st.booleans() | st.integers(0, 99) | TEXTS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
        max_leaves=12,
    ),
    max_size=4,
)


def _measured(value: Any) -> tuple[int, int]:
    """Containers, and commas between their values."""
    if not isinstance(value, dict | list):
        return 0, 0
    inner = [_measured(item) for item in (value.values() if isinstance(value, dict) else value)]
    return 1 + sum(found[0] for found in inner), max(len(value) - 1, 0) + sum(found[1] for found in inner)


@given(DOCUMENTS, st.sampled_from([None, 1]), st.booleans())
def test_the_scan_counts_what_a_parser_would_build(document: dict[str, Any], indent: int | None, ascii_only: bool) -> None:
    """Brackets, commas, quotes and backslashes inside of texts are none, however the document is spelled."""
    data = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode()
    containers, commas = _measured(document)
    assert JsonLimits(len(data), containers, commas).problem(data) is None
    assert JsonLimits(len(data), containers - 1, commas).problem(data) is not None
    if commas:
        assert JsonLimits(len(data), containers, commas - 1).problem(data) is not None


def test_nesting_has_an_end() -> None:
    """Side by side there may be more lists than one in the other."""
    deepest = b'{"a":' + b"[" * (DEPTH_MAX - 1) + b"]" * (DEPTH_MAX - 1) + b"}"
    assert decode_json(deepest, SMALL, "test")
    assert decode_json(b'{"a":[' + b"[]," * 1000 + b"0]}", SMALL, "test")
    with pytest.raises(ManifestError, match="nested deeper"):
        decode_json(deepest.replace(b"[]", b"[[]]"), SMALL, "test")


PARSERS: dict[str, Callable[[bytes, str], object]] = {
    "envelope": parse_envelope,
    "manifest": Manifest.from_payload,
    "shard statement": ShardStatement.from_payload,
    "tables statement": TablesStatement.from_payload,
    "catalogue": Catalogue.parse,
    "claim": Claim.parse,
    "lease": ReaderLease.parse,
    "latest pointer": LatestPointer.parse,
    "scrub state": ScrubState.parse,
    "proof": TrieProof.parse,
    "accepted manifests": lambda data, where: AcceptedManifests.parse(data, "c", where),
    "watch ledger": WatchLedger.parse,
    "dataset summary": DatasetSummary.from_bytes,
    "tables": TablesShard.from_bytes,
    "tables of an epoch": TablesEpoch.from_bytes,
    "catalogue of tables": TablesCatalogue.from_bytes,
    "epoch context": parse_epoch_context,
}


@pytest.mark.parametrize("parse", PARSERS.values(), ids=PARSERS.keys())
def test_every_document_is_bounded_before_it_is_decoded(parse: Callable[[bytes, str], object]) -> None:
    """Also by its nesting, which shows that it was looked at."""
    with pytest.raises(StatecastError, match="nested deeper"):
        parse(b'{"a":' + b"[" * DEPTH_MAX + b"]" * DEPTH_MAX + b"}", "test")


HOSTILE = {
    "empty lists": b"[],",
    "empty objects": b"{},",
    "objects of one field": b'{"":0},',
    "numbers": b"0,",
    "empty texts": b'"",',
    "short texts": b'"ab",',
    "texts of brackets": b'"[",',
    "lists in lists": b"[",
    "quotes": b'"',
    "backslashes": b'"\\\\',
    "escaped quotes": b'"\\"',
}


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_envelope_costs_no_more_than_its_bytes(unit: bytes) -> None:
    """Whatever stands in a field that no signature covers."""
    envelope = b'{"payload":"","payloadType":"t","signatures":[],"x":[' + unit * ((1 << 20) // len(unit)) + b"0]}"
    tracemalloc.start()
    try:
        with pytest.raises(ManifestError):
            parse_envelope(envelope, "test")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(envelope)


def test_an_envelope_may_have_fields_of_later_versions() -> None:
    """They are ignored, as long as they are few."""
    later = b'{"later":[{"a":[1,2,3]}],"payload":"","payloadType":"t","signatures":[]}'
    assert parse_envelope(later, "test").payload == b""
