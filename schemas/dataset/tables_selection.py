"""What decoded tables hold of the records: which kinds, accounts and columns. One place of tables has one selection, so that each of its
tables has one schema; the columns of a file follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from schemas.dataset.decoded_record import DECODED_SCHEMA, KIND_COLUMNS
from schemas.errors import InvalidInputError
from schemas.nearcore.account import is_account_id
from schemas.nearcore.trie_key import TrieKeyKind

EPOCH_FIELDS: Final = (
    pa.field("epoch_id", pa.utf8(), nullable=False),
    pa.field("block_height", pa.int64()),
    pa.field("block_timestamp", pa.timestamp("us")),
    pa.field("shard_uid", pa.utf8(), nullable=False),
)
"""Columns that say where a row is from, before its own; the same in all rows of a file. Kind, chain, epoch height and shard id are in the path."""

RAW_COLUMNS: Final = ("key", "value", "value_length", "value_hash")
"""The record as it is in the trie: the state root can be recomputed from these of all records."""

_WORDS: Final = ("decode_error", "decode_note")

SORTED_BY_ACCOUNT: Final = frozenset(kind for kind, columns in KIND_COLUMNS.items() if columns[:1] == ("account_id",)) - {
    TrieKeyKind.GLOBAL_CONTRACT_CODE,
    TrieKeyKind.GLOBAL_CONTRACT_NONCE,
}
"""Kinds whose keys are an account id, then a character below all of an account id's: in key order, accounts ascend too."""

ACCOUNTS_MAX: Final = 10_000
"""Most accounts and contracts that are selected by name."""


@dataclass(frozen=True, slots=True)
class TablesSelection:
    """What is written; all of it by default."""

    kinds: tuple[TrieKeyKind, ...] = ()
    """None for all."""
    columns: tuple[str, ...] = ()
    """Of the kinds' own; none for all."""
    raw: bool = True
    """Whether the raw columns are written in any case."""
    accounts: tuple[str, ...] = ()
    """Account ids whose records are written, of whatever kind."""
    contracts: tuple[str, ...] = ()
    """Account ids whose contract's code and entries are written. Without accounts and contracts, the records of all are."""

    @classmethod
    def choose(
        cls,
        kinds: tuple[str, ...] = (),
        columns: tuple[str, ...] = (),
        raw: bool = True,
        accounts: tuple[str, ...] = (),
        contracts: tuple[str, ...] = (),
    ) -> TablesSelection:
        """Check what a user gave; the same choice in another order is the same selection.

        Raises:
            InvalidInputError: an unknown kind or column, a kind without any of the columns, what is no account id, too many of them.
        """
        unknown = sorted({*kinds} - {str(kind) for kind in TrieKeyKind})
        if unknown:
            raise InvalidInputError(
                problem=f"no kind of record is called {unknown[0]!r:.80}", where="--kind", remedy=f"There are {', '.join(TrieKeyKind)}."
            )
        known = [name for name in DECODED_SCHEMA.names if name not in ("kind", "shard_uid")]
        unknown = [name for name in columns if name not in known]
        if unknown:
            raise InvalidInputError(
                problem=f"no column is called {unknown[0]!r:.80}", where="--columns", remedy=f"There are {', '.join(known)}."
            )
        for option, names in (("--account", accounts), ("--contract", contracts)):
            wrong = [name for name in names if not is_account_id(name)]
            if wrong or len(names) > ACCOUNTS_MAX:
                problem = f"{wrong[0]!r:.80} is no account id" if wrong else f"at most {ACCOUNTS_MAX:,} are selected"
                raise InvalidInputError(problem=problem, where=option, remedy="Give an account id as alice.near.")
        chosen = cls(
            tuple(kind for kind in TrieKeyKind if kind in kinds),
            tuple(name for name in known if name in columns),
            raw,
            tuple(sorted({*accounts})),
            tuple(sorted({*contracts})),
        )
        bare = [kind for kind in chosen.kinds if kind not in chosen.written_kinds]
        if bare or not chosen.written_kinds:
            problem = f"records of kind {bare[0]} have none of the columns" if bare else "no kind has any of the columns"
            raise InvalidInputError(problem=problem, where="--columns", remedy="Leave the kind out, or name a column that it has.")
        return chosen

    @property
    def is_whole(self) -> bool:
        """Whether all records are there with their raw columns, so that the state root follows from the tables."""
        return not (self.kinds or self.accounts or self.contracts) and self._has_raw

    @property
    def written_kinds(self) -> tuple[TrieKeyKind, ...]:
        """Kinds that have a table."""
        return tuple(
            kind
            for kind in TrieKeyKind
            if (not self.kinds or kind in self.kinds) and (not self.columns or self._has_raw or set(self.columns) & set(_own(kind)))
        )

    def schema(self, kind: TrieKeyKind) -> pa.Schema:
        """Return the schema of a kind's files."""
        own = [name for name in _own(kind) if self._takes(name)]
        return pa.schema([*EPOCH_FIELDS, *(DECODED_SCHEMA.field(name) for name in own)])

    @property
    def _has_raw(self) -> bool:
        return self.raw or set(RAW_COLUMNS) <= set(self.columns)

    def _takes(self, name: str) -> bool:
        if name in _WORDS:
            return True
        if name in RAW_COLUMNS:
            return self.raw or name in self.columns
        return not self.columns or name in self.columns

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "kinds": [str(kind) for kind in self.kinds],
            "columns": list(self.columns),
            "raw": self.raw,
            "accounts": list(self.accounts),
            "contracts": list(self.contracts),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> TablesSelection:
        """Build from decoded JSON values; raises KeyError, TypeError, ValueError or InvalidInputError on another shape."""
        kinds, columns, accounts, contracts = (
            tuple(str(name) for name in document[field]) for field in ("kinds", "columns", "accounts", "contracts")
        )
        return cls.choose(kinds, columns, bool(document["raw"]), accounts, contracts)

    def describe(self) -> str:
        """Return the selection in the words of the command's options; empty where all is written."""
        parts = [f"--kind {kind}" for kind in self.kinds]
        parts += [f"--columns {','.join(self.columns)}"] if self.columns else []
        parts += [] if self.raw else ["--no-raw"]
        parts += [f"--account {name}" for name in self.accounts] + [f"--contract {name}" for name in self.contracts]
        return " ".join(parts)


def _own(kind: TrieKeyKind) -> tuple[str, ...]:
    """Return a kind's columns but those that say where a row is from, in the schema's order."""
    names = {*KIND_COLUMNS[kind], *RAW_COLUMNS, *_WORDS}
    return tuple(name for name in DECODED_SCHEMA.names if name in names)
