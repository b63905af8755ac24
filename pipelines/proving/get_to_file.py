"""Answers of many epochs into one file. Each epoch's are kept beside it as soon as they are there, so that a rerun asks for the others alone;
the file gets its name when it is whole.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.proving.answer_table import AnswerKind, answer_format, answer_table, write_answers
from pipelines.proving.get_records import EpochAnswer, GetRequest, get_records
from pipelines.stores.durable_file import disk_errors, give_name
from schemas.errors import InvalidInputError
from schemas.published.object_layout import EpochLayout

_FINGERPRINT: Final = b"statecast.get"


@dataclass(frozen=True, slots=True)
class GetSummary:
    """What a run wrote and read."""

    rows: int
    epochs: int
    epochs_kept: int
    """Answered by an earlier run."""
    parts_read: int
    bytes_read: int
    signers: tuple[str, ...]
    """Pinned keys behind every manifest that was read."""


@dataclass(frozen=True, slots=True)
class KeptAnswers:
    """The answers of earlier runs to the same question."""

    folder: Path
    fingerprint: bytes

    @classmethod
    def beside(cls, to: Path, request: GetRequest, kind: AnswerKind) -> KeptAnswers:
        """Return those beside a file. Another list, place or trust is another question."""
        facts = hashlib.sha256(repr((1, request.store.url, kind, request.policy, request.shard_layout)).encode())
        for record in request.wanted:
            facts.update(len(record.trie_key).to_bytes(4, "little") + record.trie_key)
        return cls(to.with_name(f".{to.name}.answers"), facts.hexdigest().encode())

    @contextmanager
    def made(self) -> Iterator[None]:
        """Make the folder, so that a place that can't be written is known before anything is read; what is empty in the end goes."""
        self.folder.mkdir(exist_ok=True)
        try:
            yield
        finally:
            with suppress(OSError):
                self.folder.rmdir()

    def path(self, layout: EpochLayout) -> Path:
        """Return an epoch's file."""
        return self.folder / f"{layout.epoch_height:020d}-{layout.epoch_id}.parquet"

    def has(self, layout: EpochLayout) -> bool:
        """Tell whether an epoch was answered."""
        try:
            metadata = pq.read_metadata(self.path(layout)).metadata or {}
        except (OSError, pa.ArrowInvalid):
            return False
        return bool(metadata.get(_FINGERPRINT) == self.fingerprint)

    def put(self, layout: EpochLayout, table: pa.Table) -> None:
        """Keep an epoch's answers."""
        unfinished = self.path(layout).with_suffix(".unfinished")
        pq.write_table(table.replace_schema_metadata({_FINGERPRINT: self.fingerprint}), unfinished, compression="zstd")
        give_name(unfinished, self.path(layout))

    def get(self, layout: EpochLayout) -> pa.Table:
        """Return an epoch's answers."""
        return pq.read_table(self.path(layout)).replace_schema_metadata(None)


def get_to_file(
    request: GetRequest, layouts: Sequence[EpochLayout], kind: AnswerKind, to: Path, on_answer: Callable[[EpochAnswer], None]
) -> GetSummary:
    """Look the wanted records up in some epochs and write all answers, ascending by epoch.

    Args:
        to: the file; what has its name is replaced.
        on_answer: called with each epoch's answer that is new.
    Raises:
        InvalidInputError: the file's name does not say what to write, or is a folder's, or its folder is not there.
        StoreError: the file can't be written, or as `get_records`.
        EpochNotReadyError, ManifestError, IntegrityError: as `get_records`.
    """
    answer_format(to)
    if to.is_dir() or not to.parent.is_dir():
        problem = "a folder has this name" if to.is_dir() else "the folder that it should lie in is not there"
        raise InvalidInputError(problem=f"the answers can't be written: {problem}", where=str(to))
    kept = KeptAnswers.beside(to, request, kind)
    missing = [layout for layout in layouts if not kept.has(layout)]
    parts_read = bytes_read = 0
    signers: set[str] | None = None
    with disk_errors(to), kept.made():
        for answer in get_records(request, missing):
            kept.put(answer.layout, answer_table(answer, request.wanted, kind))
            parts_read, bytes_read = parts_read + answer.parts_read, bytes_read + answer.bytes_read
            signers = {*answer.signers} if signers is None else signers & {*answer.signers}
            on_answer(answer)
        unfinished = to.with_name(f"{to.name}.unfinished")
        try:
            rows = write_answers(unfinished, (kept.get(layout) for layout in layouts), kind)
            give_name(unfinished, to)
        except BaseException:
            with suppress(OSError):
                unfinished.unlink()
            raise
        shutil.rmtree(kept.folder, ignore_errors=True)
    return GetSummary(rows, len(layouts), len(layouts) - len(missing), parts_read, bytes_read, tuple(sorted(signers or ())))
