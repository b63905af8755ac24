"""Limits of JSON that is streamed: found outside of texts alone, wherever one piece ends and the next begins."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from pipelines.near.node import bounded_json
from pipelines.near.node.bounded_json import JSON_DEPTH_MAX, NUMBER_LENGTH_MAX, BoundedJson
from pipelines.near.node.genesis_head import read_genesis_fields
from schemas.errors import SourceError

DIGITS = b"9" * NUMBER_LENGTH_MAX

SOUND = {
    "as deep as may be": b"[" * JSON_DEPTH_MAX + b"]" * JSON_DEPTH_MAX,
    "much that is not deep": b"[" + b"[1],{}," * 100 + b"[]]",
    "brackets in a text": b'["' + b"[" * 100 + b'"]',
    "brackets behind a quote in a text": b'["\\"' + b"[" * 100 + b'\\\\",[]]',
    "a number as long as may be": b"[" + DIGITS + b"]",
    "digits in a text": b'["' + b"9" * 200 + b'", 1]',
    "numbers with texts between them": b"[" + DIGITS + b',"x",' + DIGITS + b"]",
    "an exponent of three digits": b"[1E999]",
    "exponents in a text": b'["1E9999"]',
    "nothing": b"",
}

OVER = {
    "one level too deep": b"[" * (JSON_DEPTH_MAX + 1),
    "deep behind a text": b'{"\\\\":' + b'{"a":' * JSON_DEPTH_MAX,
    "a number too long": b"[" + DIGITS + b"9]",
    "an exponent of four digits": b"[1e+1000]",
    "no JSON at all": b"9" * 1000,
}


def read_in_pieces(data: bytes, size: int) -> bytes:
    """Return what comes through, read in pieces of a size."""
    file = BoundedJson(io.BytesIO(data), "test")
    return b"".join(iter(lambda: file.read(size), b""))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
@pytest.mark.parametrize("data", SOUND.values(), ids=SOUND.keys())
def test_what_is_within_the_limits_comes_through_unchanged(data: bytes, size: int) -> None:
    """However it is cut into pieces."""
    assert read_in_pieces(data, size) == data


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
@pytest.mark.parametrize("data", OVER.values(), ids=OVER.keys())
def test_what_is_over_a_limit_is_refused(data: bytes, size: int) -> None:
    """However it is cut into pieces."""
    with pytest.raises(SourceError, match="test"):
        read_in_pieces(data, size)


def test_a_text_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted over all pieces, and anew for each text."""
    monkeypatch.setattr(bounded_json, "TEXT_BYTES_MAX", 100)
    several = b'["' + b"a" * 90 + b'","' + b"b" * 90 + b'"]'
    assert read_in_pieces(several, 10) == several
    with pytest.raises(SourceError, match="text"):
        read_in_pieces(b'["' + b"a" * 200, 10)


def test_deep_nesting_is_refused_before_it_costs_time(tmp_path: Path) -> None:
    """The parser takes the square of the depth: these 200 kB would keep it busy for half a minute."""
    file = tmp_path / "genesis.json"
    file.write_bytes(b'{"records":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    with pytest.raises(SourceError, match="nested"):
        read_genesis_fields(file, ("chain_id",))
