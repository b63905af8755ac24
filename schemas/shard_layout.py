"""Shard layouts: which shards there are, and which account is in which.

A shard's *index* is its place in the lists of a block; its *id* is its name. They differ from layout V2 on.

Source: nearcore core/primitives/src/shard_layout/{mod,v0,v1,v2,v3}.rs. JSON as in genesis files and epoch configurations.
"""

from __future__ import annotations

import bisect
import hashlib
from dataclasses import dataclass
from typing import Any, Final

from schemas.epoch_context import SHARDS_MAX
from schemas.errors import InvalidInputError
from schemas.ids import ShardUId

_KINDS: Final = ("V0", "V1", "V2", "V3")
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

    @property
    def shard_uids(self) -> tuple[ShardUId, ...]:
        """All shards, by shard index."""
        return tuple(ShardUId(version=self.version, shard_id=shard_id) for shard_id in self.shard_ids)

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


def shard_layout_from_json(document: object, where: str) -> ShardLayout:
    """Read ``{"V2": {...}}``, as genesis files have it.

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
        shard_ids = tuple(range(_number(body.get("num_shards"), where)))
    elif kind == "V1":
        shard_ids = tuple(range(len(boundary_accounts) + 1))
    else:
        shard_ids = tuple(_number(shard_id, where) for shard_id in _list_of(body.get("shard_ids"), int, where))
    if not shard_ids or len(set(shard_ids)) != len(shard_ids) or len(shard_ids) > SHARDS_MAX:
        raise InvalidInputError(problem=f"a shard layout has 1 to {SHARDS_MAX} different shard ids", where=where)
    if kind != "V0" and (len(boundary_accounts) != len(shard_ids) - 1 or list(boundary_accounts) != sorted(set(boundary_accounts))):
        raise InvalidInputError(problem="boundary_accounts must be ascending, and one fewer than shards", where=where)
    version = _V3_VERSION if kind == "V3" else _number(body.get("version"), where)
    return ShardLayout(kind=kind, version=version, shard_ids=shard_ids, boundary_accounts=boundary_accounts)


def _list_of(value: object, item_type: type, where: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > SHARDS_MAX or not all(isinstance(item, item_type) for item in value):
        raise InvalidInputError(problem=f"a shard layout has a list of at most {SHARDS_MAX} {item_type.__name__}", where=where)
    return value


def _number(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise InvalidInputError(problem=f"{value!r:.40} should be a whole number of 32 bits", where=f"{where}: shard layout")
    return value
