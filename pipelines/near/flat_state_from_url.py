"""From a URL to a source of records and the context that it comes with.

``genesis:///path/genesis.json`` (``?records=/path/records.json`` where the records lie apart) and ``records:///path/records.jsonl``.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, unquote

from pipelines.near.files.genesis_records import GenesisSource, genesis_context
from pipelines.near.files.records_file import RecordsFileSource
from pipelines.near.node.flat_state_source import FlatStateSource
from pipelines.near.node.node_home import read_node_home
from schemas.errors import InvalidInputError, SourceError
from schemas.nearcore.epoch_context import EpochContext
from schemas.shown_text import shown_url
from schemas.url import split_url


def source_from_url(url: str) -> tuple[FlatStateSource, EpochContext | None]:
    """Open a source that is a file.

    A genesis file whose records lie in a file that the config.json beside it names gets them from there.

    Returns:
        The source, and the epoch context that the file itself has; None for a file that names no chain and holds one shard.

    Raises:
        InvalidInputError: another scheme or no path.
        SourceError: the file is not there or can't be used.
    """
    parts = split_url(url)
    # records://file and records:file are taken as relative paths.
    path = unquote(parts.netloc + parts.path)
    query = parse_qs(parts.query, keep_blank_values=True)
    if not path or parts.scheme not in ("genesis", "records") or parts.fragment or not query.keys() <= {"records"}:
        raise InvalidInputError(problem=f"{shown_url(url)!r} is no source of records", remedy="Use genesis:///path or records:///path.")
    if not Path(path).is_file():
        raise SourceError(problem="there is no such file", where=path)
    if parts.scheme == "records":
        if query:
            raise InvalidInputError(problem="a records file has no options", where=shown_url(url))
        return RecordsFileSource(path), None
    records = query["records"][-1] if "records" in query else _records_beside(Path(path))
    return GenesisSource(path, records), genesis_context(path)


def _records_beside(genesis: Path) -> str | None:
    """Return the genesis_records_file of the config.json beside a genesis file, when that config is about this file."""
    try:
        home = read_node_home(genesis.parent)
    except SourceError:
        return None
    if home.genesis_records_file is None or home.genesis_file is None or home.genesis_file.resolve() != genesis.resolve():
        return None
    return str(home.genesis_records_file)
