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
    |   +-- PeerProtocolError
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

Every class says what is wrong (``problem``), at what place (``where``) and what to do about it (``remedy``). The numbers are
the process exit codes. As text, an error is fit to be shown (`schemas.shown_text`). A broken invariant of our own is an ``AssertionError`` and is caught nowhere.

This module raises nothing and prints nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from schemas.shown_text import shown_text, shown_values

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
    129: "interrupted by SIGHUP",
    130: "interrupted",
    143: "interrupted by SIGTERM",
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

    def __init_subclass__(cls, *, kind: str = "", exit_code: int = 0) -> None:
        """Give a class of errors its kind and exit code; without one it has its parent's."""
        super().__init_subclass__()
        cls.kind, cls.exit_code = kind or cls.kind, exit_code or cls.exit_code

    def __str__(self) -> str:
        text = f"{self.problem} [{self.where}]" if self.where else self.problem
        return shown_text(f"{text}. {self.remedy}" if self.remedy else text)

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
        plain = {name: _plain(value) for name, value in facts.items() if value not in ("", None, {})}
        return {"kind": self.kind, "exit_code": self.exit_code, **plain}


def _plain(value: Any) -> Any:
    return shown_values(value) if isinstance(value, (int, float, str, list, dict)) else shown_text(str(value))


class InvalidInputError(StatecastError, ValueError, kind="invalid_input", exit_code=2):
    """An option, a configuration value or a small input file can't be used."""


class StoreNotListedError(InvalidInputError, kind="store_not_listed"):
    """What was asked needs a listing of a place that has none, as a web server."""


class PartialResultError(StatecastError, kind="partial", exit_code=3):
    """Some of the work is done and kept; a rerun does the rest."""


class SourceError(StatecastError, kind="source", exit_code=10):
    """The place that records come from can't be read."""


class SnapshotNotFoundError(SourceError, kind="snapshot_not_found"):
    """No state snapshot and no flat state for what was asked."""


class SnapshotMismatchError(SourceError, kind="snapshot_mismatch"):
    """The flat state stands at a block from which the wanted one can't be reached."""


class ColumnMissingError(SourceError, kind="column_missing"):
    """A column family that is needed is not in the database."""


class FlatStorageNotReadyError(SourceError, kind="flat_storage_not_ready"):
    """FlatStorageStatus of a shard is not Ready."""


class SourceChangedError(SourceError, kind="source_changed"):
    """Files of the source vanished or changed while they were read."""


class DatasetError(SourceError, kind="dataset"):
    """An Arrow dataset is missing, truncated or not what its summary says."""


class EpochNotReadyError(StatecastError, kind="epoch_not_ready", exit_code=11):
    """The epoch is unknown to the source, or not far enough yet."""


class ClaimedError(StatecastError, kind="claimed", exit_code=12):
    """Another producer holds the epoch."""


class IntegrityError(StatecastError, kind="integrity", exit_code=20):
    """Data is not what its hash says. Never retried: the same bytes give the same answer."""


@dataclass(eq=False, kw_only=True)
class StateRootMismatchError(IntegrityError, kind="state_root_mismatch"):
    """The recomputed state root is not the trusted one."""

    expected: str = ""
    actual: str = ""
    part_id: int | None = None
    """The one part whose records contradict the root; None where that is not known."""


class RecordOrderError(IntegrityError, kind="record_order"):
    """Trie keys are not strictly ascending, or lie outside their key range."""


class ValueMismatchError(IntegrityError, kind="value_mismatch"):
    """A referenced value is missing, or does not have the hash or length of its reference."""


class MissingTrieValueError(IntegrityError, kind="missing_trie_value"):
    """A part lacks a node or value that its proof needs."""


class UnexpectedTrieValueError(IntegrityError, kind="unexpected_trie_value"):
    """A part holds an entry that its proof never visits, or one twice."""


class MalformedNodeError(IntegrityError, kind="malformed_node"):
    """Bytes that should be a trie node can't be decoded as one."""


class MalformedPartError(IntegrityError, kind="malformed_part"):
    """Bytes that should be a state part can't be decoded as one."""


class MalformedValueError(IntegrityError, kind="malformed_value"):
    """A record's value can't be decoded as one of its kind; a scan over many records counts it and goes on."""


class PeerProtocolError(IntegrityError, kind="peer_protocol"):
    """A peer of nearcore's network sent what its protocol does not have."""


class PartLimitError(IntegrityError, kind="part_limit"):
    """A size, count or depth is over its named limit."""


class ObjectMismatchError(IntegrityError, kind="object_mismatch"):
    """A stored object does not have the bytes that were published."""


@dataclass(eq=False, kw_only=True)
class ContextMismatchError(IntegrityError, kind="context_mismatch"):
    """Two sources of the epoch context contradict each other: one of them is wrong, or of another chain."""

    field_name: str = ""
    values: dict[str, str] = field(default_factory=dict)
    """What each of the two sources says, by source."""


class ManifestError(StatecastError, kind="manifest", exit_code=21):
    """A manifest, shard statement, signature or trust rule does not hold."""


class SignatureError(ManifestError, kind="signature"):
    """A signature is missing or does not verify, or a key can't be used."""


class ManifestExpiredError(ManifestError, kind="manifest_expired"):
    """The manifest's time is over; a newer revision may be elsewhere, or still to come."""


class RollbackError(ManifestError, kind="rollback"):
    """An older epoch or revision is offered than was accepted before."""


class EquivocationError(ManifestError, kind="equivocation"):
    """Trusted keys have signed two documents that can't both be true."""


class StoreError(StatecastError, kind="store", exit_code=30):
    """An object store refused or failed."""


class ObjectNotFoundError(StoreError, kind="object_not_found"):
    """The object is not in the store."""


class ObjectExistsError(StoreError, kind="object_exists"):
    """A create-only put found the name taken by other bytes, or a swap lost its race."""


class StoreDeniedError(StoreError, kind="store_denied"):
    """The store does not let this identity do that."""


class StoreFullError(StoreError, kind="store_full"):
    """No space, or a quota is used up."""


class RangeRefusedError(StoreError, kind="range_refused"):
    """The place does not serve an object from the middle, but may serve it whole."""


@dataclass(eq=False, kw_only=True)
class TransientStoreError(StoreError, kind="store_transient"):
    """A transient fault; the retry wrapper tries again."""

    retry_after_s: float = 0.0
    """How long the server asked to be left alone; 0 where it did not say."""


@dataclass(eq=False, kw_only=True)
class FetchError(StatecastError, kind="fetch", exit_code=31):
    """Every source failed; the attempts are listed by source."""

    attempts: dict[str, list[str]] = field(default_factory=dict)
    """By source: what went wrong there, in the order of the attempts."""

    def __str__(self) -> str:
        tried = "; ".join(f"{source}: {', then '.join(problems)}" for source, problems in self.attempts.items())
        return f"{super().__str__()} Tried {shown_text(tried)}." if tried else super().__str__()
