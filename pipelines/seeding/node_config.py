"""Adds peers to a node's config.json, and takes exactly those out again: no other byte of the file changes.

nearcore reads the file at its start (`chain/network/src/config_json.rs`): ``network.boot_nodes`` is a text of names with commas between,
``network.experimental.tier3_public_addr`` the address that the node names when it asks for state (since 2.11; older releases pass it over).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

from pipelines.near.node.node_home import CONFIG_BYTES_MAX
from pipelines.stores.durable_file import disk_errors, sync_folder, write_all
from pipelines.stores.regular_file import read_regular
from schemas.errors import InvalidInputError
from schemas.nearcore.peer.identity import PeerId

BACKUP_SUFFIX: Final = ".statecast-backup"
_BOOT_NODES: Final = ("network", "boot_nodes")
_EXPERIMENTAL: Final = ("network", "experimental")
_PUBLIC_ADDRESS: Final = "tier3_public_addr"
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_DECODER: Final = json.JSONDecoder()

Span = tuple[int, int, int]
"""Of a member of an object: where its name begins, where its value begins and ends."""


def with_peers(text: str, boot_nodes: Sequence[str], public_address: str) -> str:
    """Return a config.json with boot nodes added, and the public address where none is set and there is a place for it.

    Raises:
        InvalidInputError: the text is not as nearcore writes it.
    """
    before = _boot_nodes(text)
    _, start, end = _member(text, _BOOT_NODES)
    added = [*(name for name in before.split(",") if name), *(name for name in boot_nodes if name not in before.split(","))]
    changed = text[:start] + json.dumps(",".join(added)) + text[end:]
    wanted = _parsed(text)
    wanted["network"]["boot_nodes"] = ",".join(added)
    experimental = wanted["network"].get("experimental")
    if isinstance(experimental, dict) and experimental.get(_PUBLIC_ADDRESS) is None:
        changed = _with_public_address(changed, public_address)
        experimental[_PUBLIC_ADDRESS] = public_address
    return _checked(changed, wanted)


def without_peers(text: str, peer_ids: Collection[PeerId], public_address: str | None) -> str:
    """Return a config.json without boot nodes of some keys.

    Args:
        public_address: taken out where it is this one; None where it was there before.
    Raises:
        InvalidInputError: the text is not as nearcore writes it.
    """
    before = _boot_nodes(text)
    _, start, end = _member(text, _BOOT_NODES)
    names = [name for name in before.split(",") if name.rpartition("@")[0] not in {str(peer_id) for peer_id in peer_ids}]
    changed = text[:start] + json.dumps(",".join(names)) + text[end:]
    wanted = _parsed(text)
    wanted["network"]["boot_nodes"] = ",".join(names)
    experimental = wanted["network"].get("experimental")
    if public_address is not None and isinstance(experimental, dict) and experimental.get(_PUBLIC_ADDRESS) == public_address:
        changed = _without_member(changed, (*_EXPERIMENTAL, _PUBLIC_ADDRESS))
        del experimental[_PUBLIC_ADDRESS]
    return _checked(changed, wanted)


def check_config(config_file: Path) -> None:
    """Look whether peers can be added to a config.json.

    Raises:
        InvalidInputError: the file is not as nearcore writes it.
        StoreError: it can't be read.
    """
    with_peers(_read(config_file.resolve()), (), "")


def add_peers(config_file: Path, boot_nodes: Sequence[str], public_address: str) -> bool:
    """Add to a config.json, and keep what it was beside it; False where nothing was to be added.

    A backup that is there already stays: it is of before the first change.

    Raises:
        InvalidInputError: the file is not as nearcore writes it; nothing is changed.
        StoreError: it can't be read or written.
    """
    path = config_file.resolve()
    text = _read(path)
    changed = with_peers(text, boot_nodes, public_address)
    if changed == text:
        return False
    backup = backup_of(config_file)
    if not backup.exists():
        _write(backup, text, like=path)
    _write(path, changed, like=path)
    return True


def restore_config(config_file: Path, peer_ids: Collection[PeerId], public_address: str) -> bool:
    """Take out of a config.json what was added, and remove the backup; False where there is no backup, so that nothing was added.

    Where nothing else has changed since, the file is byte for byte what it was.

    Raises:
        InvalidInputError: the file is not as nearcore writes it; nothing is changed.
        StoreError: it can't be read or written.
    """
    path, backup = config_file.resolve(), backup_of(config_file)
    if not backup.exists():
        return False
    before, text = _read(backup), _read(path)
    was_there = _experimental(_parsed(before)).get(_PUBLIC_ADDRESS) is not None
    changed = without_peers(text, peer_ids, None if was_there else public_address)
    old, new = _parsed(before), _parsed(changed)
    if _experimental(old).get(_PUBLIC_ADDRESS) is None:
        for document in (old, new):
            _experimental(document).pop(_PUBLIC_ADDRESS, None)
    _write(path, before if old == new else changed, like=path)
    with disk_errors(backup):
        backup.unlink()
    return True


def backup_of(config_file: Path) -> Path:
    """Return where a config.json's backup lies."""
    return config_file.with_name(config_file.name + BACKUP_SUFFIX)


def _boot_nodes(text: str) -> str:
    found = _parsed(text)["network"]["boot_nodes"]
    if not isinstance(found, str):
        raise _unexpected("network.boot_nodes is no text")
    return found


def _with_public_address(text: str, address: str) -> str:
    value = json.dumps(address)
    found = _find(text, (*_EXPERIMENTAL, _PUBLIC_ADDRESS))
    if found is not None:
        return text[: found[1]] + value + text[found[2] :]
    _, start, _ = _member(text, _EXPERIMENTAL)
    first = _skip(text, start + 1)
    space, comma = text[start + 1 : first], "" if text[first] == "}" else ","
    return text[: start + 1] + f'{space}"{_PUBLIC_ADDRESS}": {value}{comma}' + text[start + 1 :]


def _without_member(text: str, path: tuple[str, ...]) -> str:
    name, _, end = _member(text, path)
    after = _skip(text, end)
    if text[after] == ",":
        return text[:name] + text[_skip(text, after + 1) :]
    before = text[:name].rstrip(" \t\r\n")
    return (before[:-1] if before.endswith(",") else before) + text[end:]


def _member(text: str, path: tuple[str, ...]) -> Span:
    found = _find(text, path)
    if found is None:
        raise _unexpected(f"{'.'.join(path)} is not there")
    return found


def _find(text: str, path: tuple[str, ...]) -> Span | None:
    """Return where a member of a document, which is JSON, stands."""
    span: Span | None = (0, _skip(text, 0), len(text))
    for name in path:
        if span is None or text[span[1]] != "{":
            return None
        span = _member_of(text, span[1], name)
    return span


def _member_of(text: str, start: int, wanted: str) -> Span | None:
    at = _skip(text, start + 1)
    while text[at] == '"':
        name_start = at
        name, at = _DECODER.raw_decode(text, at)
        value_start = _skip(text, _skip(text, at) + 1)
        _, end = _DECODER.raw_decode(text, value_start)
        if name == wanted:
            return name_start, value_start, end
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return None


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _parsed(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text, object_pairs_hook=_without_repetition, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _unexpected(f"it is not plain JSON: {error}; comments are not taken here") from None
    if not isinstance(document, dict) or not isinstance(document.get("network"), dict) or "boot_nodes" not in document["network"]:
        raise _unexpected("network.boot_nodes is not there")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _without_repetition(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise ValueError("a name stands twice in one object")
    return found


def _experimental(document: dict[str, Any]) -> dict[str, Any]:
    found = document["network"].get("experimental")
    return found if isinstance(found, dict) else {}


def _checked(text: str, wanted: dict[str, Any]) -> str:
    if _parsed(text) != wanted:
        raise _unexpected("it can't be changed in one place alone")
    return text


def _unexpected(problem: str) -> InvalidInputError:
    return InvalidInputError(
        problem=f"the node's config.json is not as expected: {problem}",
        remedy="Add the boot node by hand; `statecast assist --plan` says which.",
    )


def _read(path: Path) -> str:
    with disk_errors(path):
        data = read_regular(path, CONFIG_BYTES_MAX)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _unexpected("it is not UTF-8") from None


def _write(path: Path, text: str, *, like: Path) -> None:
    """Write a file whole, with the owner and mode of another one, or not at all."""
    temporary = path.with_name(path.name + ".statecast-new")
    with disk_errors(path):
        found = os.stat(like)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, found.st_uid, found.st_gid)
            os.fchmod(descriptor, found.st_mode & 0o7777)
            write_all(descriptor, memoryview(text.encode()))
            os.fsync(descriptor)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        sync_folder(path.parent)
