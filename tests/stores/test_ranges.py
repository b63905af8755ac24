"""Reading an object by ranges."""

from __future__ import annotations

import pytest

from pipelines.stores import ranges
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import holds_same_bytes, reads_back
from tests.support.productions import new_store_url


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 8, 9])
def test_an_object_that_reads_back_has_these_bytes_and_no_more(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared range by range: a byte that differs in any of them shows, and so does one too few or too many."""
    for name in ("READ_BACK_RANGE_BYTES", "READ_BACK_LOCAL_BYTES"):
        monkeypatch.setattr(ranges, name, 4)
    monkeypatch.setattr(ranges, "COMPARE_RANGE_BYTES", 4)
    store, data = open_store(new_store_url()), bytes(range(length))
    store.put("object", data)
    assert reads_back(store, "object", data) and holds_same_bytes(store, "object", data)
    others = [data[:at] + b"\xff" + data[at + 1 :] for at in range(length)]
    for other in [*others, data + b"\0", *([data[:-1]] if data else [])]:
        assert not reads_back(store, "object", other) and not holds_same_bytes(store, "object", other)
