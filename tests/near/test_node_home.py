"""A node's config.json: comments are allowed, and nothing in it takes memory or time out of proportion."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipelines.near.node.node_home import read_node_config
from schemas.errors import SourceError


def test_comments_are_left_out(tmp_path: Path) -> None:
    """Not where they stand in a text."""
    (tmp_path / "config.json").write_text('/* a */ {"a": "/* // \\" */", // b\n "b": 1} // c')
    assert read_node_config(tmp_path / "config.json") == {"a": '/* // " */', "b": 1}


@pytest.mark.parametrize("text", ["/*" * 200_000, '"' + '\\"' * 100_000, '{"a": [' + "[]," * 20_000 + "[]]}"])
def test_what_has_no_end_or_unfolds_is_refused_at_once(text: str, tmp_path: Path) -> None:
    """Comments and texts that nothing closes are looked for once; objects and lists are counted before they are made."""
    (tmp_path / "config.json").write_text(text)
    began_s = time.process_time()
    with pytest.raises(SourceError):
        read_node_config(tmp_path / "config.json")
    assert time.process_time() - began_s < 2
