"""Shard layouts: which shards there are, and which account is in which.

A shard's *index* is its place in the lists of a block; its *id* is its name. They differ from layout V2 on.

A layout names the parents of shards that were split: V1 and V2 those of the resharding that made the layout, V3 those of every one
since shard ids stopped being used again.

Source: nearcore core/primitives/src/shard_layout/{mod,v0,v1,v2,v3}.rs. JSON as in genesis files and epoch
configurations; borsh as in EpochInfo V5.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from schemas.errors import IntegrityError, InvalidInputError
from schemas.ids import ShardUId
from schemas.nearcore.borsh import BorshReader

SHARDS_MAX: Final = 4096
"""Most shards of an epoch."""

SPLITS_MAX: Final = 1 << 16
"""Most entries of a layout's shards_split_map: V3 keeps all of the chain's history."""

_KINDS: Final = ("V0", "V1", "V2", "V3")
_ACCOUNT_ID_BYTES_MAX: Final = 64
_V3_VERSION: Final = 3
"""Layouts of kind V3 don't carry their version; it is the one at which V2 stopped counting."""


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """A shard layout of any kind."""

    kind: str
    """V0 … V3. V0 assigns accounts by their hash, all others by ranges of account ids."""
    version: int
    shard_ids: tuple[int, ...]
    """By shard index."""
    boundary_accounts: tuple[str, ...] = ()
    """The first account id of each shard but the first, by shard index; empty in V0."""
    parent_shard_ids: tuple[int | None, ...] = ()
    """By shard index, the id of the shard that it was split from, None where the layout does not say; empty where it says nothing."""

    @property
    def shard_uids(self) -> tuple[ShardUId, ...]:
        """All shards, by shard index."""
        return tuple(ShardUId(version=self.version, shard_id=shard_id) for shard_id in self.shard_ids)

    @property
    def assignment(self) -> ShardLayout:
        """The layout without parents: which account is in which shard, and nothing of how the shards came about."""
        return replace(self, parent_shard_ids=())

    def to_json(self) -> dict[str, Any]:
        """Return the assignment in the form that `shard_layout_from_json` reads; equal assignments give equal values."""
        if self.kind == "V0":
            return {"V0": {"num_shards": len(self.shard_ids), "version": self.version}}
        body: dict[str, Any] = {"boundary_accounts": list(self.boundary_accounts)}
        if self.kind != "V1":
            body["shard_ids"] = list(self.shard_ids)
        if self.kind != "V3":
            body["version"] = self.version
        return {self.kind: body}

    def parent_of(self, shard_id: int, before: ShardLayout | None = None) -> ShardUId | None:
        """Return the shard uid of a shard's parent; None when the layout names none, or the shard was not born by a resharding.

        The parent's version is that of the layout before where that is given and has the parent. Else it is one less in V1, which
        counts reshardings, and the same in V2 and V3, which don't.

        Args:
            before: the layout of the epoch before, where it is known.
        Source: nearcore core/primitives/src/shard_layout/{v1,v2,v3}.rs, try_get_parent_shard_id and ancestor_uids.
        """
        if shard_id not in self.shard_ids or not self.parent_shard_ids:
            return None
        parent_id = self.parent_shard_ids[self.shard_ids.index(shard_id)]
        if parent_id is None:
            return None
        version = self.version - 1 if self.kind == "V1" else self.version
        if before is not None and parent_id in before.shard_ids:
            version = before.version
        parent = ShardUId(version=max(version, 0), shard_id=parent_id)
        return None if parent == ShardUId(version=self.version, shard_id=shard_id) else parent

    def shard_index_of(self, account_id: str) -> int:
        """Return the index of the shard that an account is in.

        Source: nearcore core/primitives/src/shard_layout/{v0,v1,v2}.rs, account_id_to_shard_id.
        """
        if self.kind == "V0":
            return int.from_bytes(hashlib.sha256(account_id.encode()).digest()[:8], "little") % len(self.shard_ids)
        # Account ids are ASCII, so text sorts as bytes do.
        return bisect.bisect_right(self.boundary_accounts, account_id)


SINGLE_SHARD: Final = ShardLayout(kind="V0", version=0, shard_ids=(0,))
"""The layout of a chain that names none."""


def shard_layout_from_json(document: object, where: str, *, with_parents: bool = True) -> ShardLayout:
    """Read ``{"V2": {...}}``, as genesis files have it.

    Args:
        with_parents: False to read the assignment alone and ignore the parents.
    Raises:
        InvalidInputError: another form, an unknown kind, or lists that don't fit each other.
    """
    if not isinstance(document, dict) or len(document) != 1:
        raise InvalidInputError(problem="a shard layout is a JSON object with one key, its kind", where=where)
    kind, body = next(iter(document.items()))
    if kind not in _KINDS or not isinstance(body, dict):
        raise InvalidInputError(
            problem=f"{kind!r:.40} is no known kind of shard layout", where=where, remedy=f"Known are {', '.join(_KINDS)}."
        )
    boundary_accounts = tuple(_list_of(body.get("boundary_accounts", []), str, where))
    if kind == "V0":
        shard_ids = tuple(range(min(_number(body.get("num_shards"), where), SHARDS_MAX + 1)))
    elif kind == "V1":
        shard_ids = tuple(range(len(boundary_accounts) + 1))
    else:
        shard_ids = tuple(_number(shard_id, where) for shard_id in _list_of(body.get("shard_ids"), int, where))
    if not shard_ids or len(set(shard_ids)) != len(shard_ids) or len(shard_ids) > SHARDS_MAX:
        raise InvalidInputError(problem=f"a shard layout has 1 to {SHARDS_MAX} different shard ids", where=where)
    if kind != "V0" and (len(boundary_accounts) != len(shard_ids) - 1 or list(boundary_accounts) != sorted(set(boundary_accounts))):
        raise InvalidInputError(problem="boundary_accounts must be ascending, and one fewer than shards", where=where)
    if not all(account.isascii() and len(account) <= _ACCOUNT_ID_BYTES_MAX for account in boundary_accounts):
        raise InvalidInputError(problem=f"a boundary account is ASCII of at most {_ACCOUNT_ID_BYTES_MAX} characters", where=where)
    version = _V3_VERSION if kind == "V3" else _number(body.get("version"), where)
    parents = _parents(shard_ids, _split_map(kind, body.get("shards_split_map"), where), where) if with_parents else ()
    return ShardLayout(kind=kind, version=version, shard_ids=shard_ids, boundary_accounts=boundary_accounts, parent_shard_ids=parents)


def read_shard_layout(reader: BorshReader, where: str) -> ShardLayout:
    """Take a layout in borsh, as EpochInfo V5 has it.

    Raises:
        IntegrityError: malformed, of an unknown kind, or lists that don't fit each other.
    """
    tag = reader.u8()
    if tag >= len(_KINDS):
        reader.fail(f"{tag} is no known kind of shard layout")
    kind = _KINDS[tag]
    body: dict[str, Any] = {}
    if kind == "V0":
        body["num_shards"] = reader.u64()
    else:
        body["boundary_accounts"] = reader.vec(lambda: reader.byte_vec(_ACCOUNT_ID_BYTES_MAX).decode("ascii", "replace"), 4, SHARDS_MAX)
    if kind == "V1":
        body["shards_split_map"] = reader.option(lambda: reader.vec(lambda: _ids(reader), 4, SHARDS_MAX))
        reader.option(lambda: _ids(reader))
    elif kind == "V2":
        body["shard_ids"] = _ids(reader)
        _skip_pairs(reader)
        _skip_pairs(reader)
        body["shards_split_map"] = reader.option(lambda: _id_lists(reader))
        reader.option(lambda: _skip_pairs(reader))
    elif kind == "V3":
        body["shard_ids"] = _ids(reader)
        _skip_pairs(reader)
        body["shards_split_map"] = _id_lists(reader)
        # last_split, shards_ancestor_map
        reader.u64()
        _id_lists(reader)
    if kind != "V3":
        body["version"] = reader.u32()
    try:
        return shard_layout_from_json({kind: body}, where)
    except InvalidInputError as error:
        raise IntegrityError(problem=error.problem, where=where) from None


def _ids(reader: BorshReader) -> list[int]:
    return reader.vec(reader.u64, 8, SHARDS_MAX)


def _id_lists(reader: BorshReader) -> dict[str, list[int]]:
    return dict(reader.vec(lambda: (str(reader.u64()), _ids(reader)), 12, SPLITS_MAX))


def _skip_pairs(reader: BorshReader) -> None:
    reader.fixed_view(16 * reader.count(16))


def _split_map(kind: str, value: object, where: str) -> dict[int, list[int]]:
    """Read which shards were split into which. V1 has a list by the parent's id, V2 and V3 an object whose keys are ids as text."""
    if value is None or kind == "V0":
        return {}
    if kind == "V1":
        entries: Iterable[tuple[object, object]] = enumerate(_list_of(value, list, where))
    elif isinstance(value, dict) and len(value) <= SPLITS_MAX:
        entries = value.items()
    else:
        raise InvalidInputError(problem=f"shards_split_map has at most {SPLITS_MAX} shards, each with those it was split into", where=where)
    found = {}
    for parent, children in entries:
        if isinstance(parent, str) and not (parent.isdecimal() and len(parent) <= 10):
            raise InvalidInputError(problem=f"{parent!r:.40} in shards_split_map is no shard id", where=where)
        found[_number(int(str(parent)), where)] = [_number(child, where) for child in _list_of(children, int, where)]
    return found


def _parents(shard_ids: tuple[int, ...], split_map: dict[int, list[int]], where: str) -> tuple[int | None, ...]:
    parents: dict[int, int] = {}
    for parent, children in split_map.items():
        for child in children:
            if parents.setdefault(child, parent) != parent:
                raise InvalidInputError(problem=f"shard {child} has two parents in shards_split_map", where=where)
    return tuple(parents.get(shard_id) for shard_id in shard_ids) if parents else ()


def _list_of(value: object, item_type: type, where: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > SHARDS_MAX or not all(isinstance(item, item_type) for item in value):
        raise InvalidInputError(problem=f"a shard layout has a list of at most {SHARDS_MAX} {item_type.__name__}", where=where)
    return value


def _number(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise InvalidInputError(problem=f"{value!r:.40} should be a whole number of 32 bits", where=f"{where}: shard layout")
    return value
