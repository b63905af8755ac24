"""The errors that statecast raises, grouped by what their handler does.

::

    StatecastError                    [1]   unexpected
    +-- InvalidInputError             [2]   usage or configuration (also a ValueError)
    |   +-- StoreNotListedError
    +-- PartialResultError            [3]   some work is left: rerun to continue
    +-- SourceError                   [10]  node, dataset, snapshot or records file
    |   +-- SnapshotNotFoundError
    |   +-- SnapshotMismatchError
    |   +-- ColumnMissingError
    |   +-- FlatStorageNotReadyError
    |   +-- SourceChangedError
    |   +-- DatasetError
    +-- EpochNotReadyError            [11]  the epoch is not there, or not yet
    +-- ClaimedError                  [12]  another producer holds the epoch
    +-- IntegrityError                [20]  never retried
    |   +-- StateRootMismatchError
    |   +-- RecordOrderError
    |   +-- ValueMismatchError
    |   +-- MissingTrieValueError
    |   +-- UnexpectedTrieValueError
    |   +-- MalformedNodeError
    |   +-- MalformedPartError
    |   +-- MalformedValueError
    |   +-- PartLimitError
    |   +-- ObjectMismatchError
    |   +-- ContextMismatchError
    +-- ManifestError                 [21]  manifest, signature or trust
    |   +-- SignatureError
    |   +-- ManifestExpiredError
    |   +-- RollbackError
    |   +-- EquivocationError
    +-- StoreError                    [30]
    |   +-- ObjectNotFoundError
    |   +-- ObjectExistsError
    |   +-- StoreDeniedError
    |   +-- StoreFullError
    |   +-- RangeRefusedError
    |   +-- TransientStoreError             the only one that a retry wrapper retries
    +-- FetchError                    [31]  every source failed
    +-- NodeError                     [32]  a node that parts are for: it runs, or its neard failed

Every class says what is wrong (``problem``), at what place (``where``) and what to do about it (``remedy``). The numbers are
the process exit codes. A broken invariant of our own is an ``AssertionError`` and is caught nowhere.

This module raises nothing and prints nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "unexpected failure",
    2: "usage or configuration",
    3: "partial: rerun to continue",
    10: "source: node, dataset, snapshot",
    11: "epoch not ready or not there",
    12: "claimed by another producer",
    20: "integrity: root, part, header",
    21: "manifest, signature or trust",
    30: "store",
    31: "fetch: every source failed",
    32: "node: it runs, or its neard failed",
    130: "interrupted",
}
"""Every exit code of the command with its meaning. A code that is not listed means failure."""


def _rebuild(error_class: type[StatecastError], values: dict[str, Any]) -> StatecastError:
    return error_class(**values)


@dataclass(eq=False, kw_only=True)
class StatecastError(Exception):
    """Base of all errors that are expected in operation.

    Raised as itself for nothing; catch it to handle every expected failure.
    """

    kind: ClassVar[str] = "unexpected"
    exit_code: ClassVar[int] = 1

    problem: str
    """What is wrong, as a sentence without a full stop."""
    where: str = ""
    """The file, object, column, key or option that it was found in."""
    remedy: str = ""
    """What the reader can do about it."""

    def __str__(self) -> str:
        text = f"{self.problem} [{self.where}]" if self.where else self.problem
        return f"{text}. {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), {field.name: getattr(self, field.name) for field in fields(self)})

    def at(self, where: str, remedy: str | None = None) -> Self:
        """Return the same error with a more exact place.

        Args:
            remedy: what to do about it there; None for what was known before.
        """
        return replace(self, where=where, remedy=self.remedy if remedy is None else remedy)

    def to_json(self) -> dict[str, Any]:
        """Return the error as plain JSON values, for ``--json``."""
        facts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"kind": self.kind, "exit_code": self.exit_code, **{k: _plain(v) for k, v in facts.items() if v not in ("", None, {})}}


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, list, dict)) else str(value)


@dataclass(eq=False, kw_only=True)
class InvalidInputError(StatecastError, ValueError):
    """An option, a configuration value or a small input file can't be used."""

    kind = "invalid_input"
    exit_code = 2


@dataclass(eq=False, kw_only=True)
class StoreNotListedError(InvalidInputError):
    """What was asked needs a listing of a place that has none, as a web server."""

    kind = "store_not_listed"


@dataclass(eq=False, kw_only=True)
class PartialResultError(StatecastError):
    """Some of the work is done and kept; a rerun does the rest."""

    kind = "partial"
    exit_code = 3


@dataclass(eq=False, kw_only=True)
class SourceError(StatecastError):
    """The place that records come from can't be read."""

    kind = "source"
    exit_code = 10


@dataclass(eq=False, kw_only=True)
class SnapshotNotFoundError(SourceError):
    """No state snapshot and no flat state for what was asked."""

    kind = "snapshot_not_found"


@dataclass(eq=False, kw_only=True)
class SnapshotMismatchError(SourceError):
    """The flat state stands at a block from which the wanted one can't be reached."""

    kind = "snapshot_mismatch"


@dataclass(eq=False, kw_only=True)
class ColumnMissingError(SourceError):
    """A column family that is needed is not in the database."""

    kind = "column_missing"


@dataclass(eq=False, kw_only=True)
class FlatStorageNotReadyError(SourceError):
    """FlatStorageStatus of a shard is not Ready."""

    kind = "flat_storage_not_ready"


@dataclass(eq=False, kw_only=True)
class SourceChangedError(SourceError):
    """Files of the source vanished or changed while they were read."""

    kind = "source_changed"


@dataclass(eq=False, kw_only=True)
class DatasetError(SourceError):
    """An Arrow dataset is missing, truncated or not what its summary says."""

    kind = "dataset"


@dataclass(eq=False, kw_only=True)
class EpochNotReadyError(StatecastError):
    """The epoch is unknown to the source, or not far enough yet."""

    kind = "epoch_not_ready"
    exit_code = 11


@dataclass(eq=False, kw_only=True)
class ClaimedError(StatecastError):
    """Another producer holds the epoch."""

    kind = "claimed"
    exit_code = 12


@dataclass(eq=False, kw_only=True)
class IntegrityError(StatecastError):
    """Data is not what its hash says. Never retried: the same bytes give the same answer."""

    kind = "integrity"
    exit_code = 20


@dataclass(eq=False, kw_only=True)
class StateRootMismatchError(IntegrityError):
    """The recomputed state root is not the trusted one."""

    kind = "state_root_mismatch"

    expected: str = ""
    actual: str = ""
    part_id: int | None = None
    """The one part whose records contradict the root; None where that is not known."""


@dataclass(eq=False, kw_only=True)
class RecordOrderError(IntegrityError):
    """Trie keys are not strictly ascending, or lie outside their key range."""

    kind = "record_order"


@dataclass(eq=False, kw_only=True)
class ValueMismatchError(IntegrityError):
    """A referenced value is missing, or does not have the hash or length of its reference."""

    kind = "value_mismatch"


@dataclass(eq=False, kw_only=True)
class MissingTrieValueError(IntegrityError):
    """A part lacks a node or value that its proof needs."""

    kind = "missing_trie_value"


@dataclass(eq=False, kw_only=True)
class UnexpectedTrieValueError(IntegrityError):
    """A part holds an entry that its proof never visits, or one twice."""

    kind = "unexpected_trie_value"


@dataclass(eq=False, kw_only=True)
class MalformedNodeError(IntegrityError):
    """Bytes that should be a trie node can't be decoded as one."""

    kind = "malformed_node"


@dataclass(eq=False, kw_only=True)
class MalformedPartError(IntegrityError):
    """Bytes that should be a state part can't be decoded as one."""

    kind = "malformed_part"


@dataclass(eq=False, kw_only=True)
class MalformedValueError(IntegrityError):
    """A record's value can't be decoded as one of its kind; a scan over many records counts it and goes on."""

    kind = "malformed_value"


@dataclass(eq=False, kw_only=True)
class PeerProtocolError(IntegrityError):
    """A peer of nearcore's network sent what its protocol does not have."""

    kind = "peer_protocol"


@dataclass(eq=False, kw_only=True)
class PartLimitError(IntegrityError):
    """A size, count or depth is over its named limit."""

    kind = "part_limit"


@dataclass(eq=False, kw_only=True)
class ObjectMismatchError(IntegrityError):
    """A stored object does not have the bytes that were published."""

    kind = "object_mismatch"


@dataclass(eq=False, kw_only=True)
class ContextMismatchError(IntegrityError):
    """Two sources of the epoch context contradict each other: one of them is wrong, or of another chain."""

    kind = "context_mismatch"

    field_name: str = ""
    values: dict[str, str] = field(default_factory=dict)
    """What each of the two sources says, by source."""


@dataclass(eq=False, kw_only=True)
class ManifestError(StatecastError):
    """A manifest, shard statement, signature or trust rule does not hold."""

    kind = "manifest"
    exit_code = 21


@dataclass(eq=False, kw_only=True)
class SignatureError(ManifestError):
    """A signature is missing or does not verify, or a key can't be used."""

    kind = "signature"


@dataclass(eq=False, kw_only=True)
class ManifestExpiredError(ManifestError):
    """The manifest's time is over; a newer revision may be elsewhere, or still to come."""

    kind = "manifest_expired"


@dataclass(eq=False, kw_only=True)
class RollbackError(ManifestError):
    """An older epoch or revision is offered than was accepted before."""

    kind = "rollback"


@dataclass(eq=False, kw_only=True)
class EquivocationError(ManifestError):
    """Trusted keys have signed two documents that can't both be true."""

    kind = "equivocation"


@dataclass(eq=False, kw_only=True)
class StoreError(StatecastError):
    """An object store refused or failed."""

    kind = "store"
    exit_code = 30


@dataclass(eq=False, kw_only=True)
class ObjectNotFoundError(StoreError):
    """The object is not in the store."""

    kind = "object_not_found"


@dataclass(eq=False, kw_only=True)
class ObjectExistsError(StoreError):
    """A create-only put found the name taken by other bytes, or a swap lost its race."""

    kind = "object_exists"


@dataclass(eq=False, kw_only=True)
class StoreDeniedError(StoreError):
    """The store does not let this identity do that."""

    kind = "store_denied"


@dataclass(eq=False, kw_only=True)
class StoreFullError(StoreError):
    """No space, or a quota is used up."""

    kind = "store_full"


@dataclass(eq=False, kw_only=True)
class RangeRefusedError(StoreError):
    """The place does not serve an object from the middle, but may serve it whole."""

    kind = "range_refused"


@dataclass(eq=False, kw_only=True)
class TransientStoreError(StoreError):
    """A transient fault; the retry wrapper tries again."""

    kind = "store_transient"

    retry_after_s: float = 0.0
    """How long the server asked to be left alone; 0 where it did not say."""


@dataclass(eq=False, kw_only=True)
class FetchError(StatecastError):
    """Every source failed; the attempts are listed by source."""

    kind = "fetch"
    exit_code = 31

    attempts: dict[str, list[str]] = field(default_factory=dict)
    """By source: what went wrong there, in the order of the attempts."""

    def __str__(self) -> str:
        tried = "; ".join(f"{source}: {', then '.join(problems)}" for source, problems in self.attempts.items())
        return f"{super().__str__()} Tried {tried}." if tried else super().__str__()


@dataclass(eq=False, kw_only=True)
class NodeError(StatecastError):
    """A node that parts are meant for is running, or its neard can't do what is asked or failed at it."""

    kind = "node"
    exit_code = 32
