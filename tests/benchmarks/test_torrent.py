"""The benchmark of transfers measures every way, over parts whose digests it has compared."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("libtorrent", reason="the extra p2p is not installed")


@pytest.mark.slow
def test_every_way_is_measured(tmp_path: Path) -> None:
    """A floor and three ways; none is faster than copying the files."""
    from benchmarks.torrent import measure

    figures = measure(30, tmp_path)
    assert [figure.way for figure in figures[1:]] == ["BitTorrent alone", "web seed alone", "both"]
    assert all(figure.mb_per_s > 0 and figure.seconds > 0 for figure in figures)
    assert not list((tmp_path / "scratch").iterdir())
