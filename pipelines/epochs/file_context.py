"""The epoch context out of a JSON file. It is the user's word: whatever else knows the epoch is asked too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.epochs.context_agreement import compare_contexts
from pipelines.epochs.protocol import LATEST
from schemas.epoch_context import CONTEXT_BYTES_MAX, EpochContext, parse_epoch_context
from schemas.errors import EpochNotReadyError, InvalidInputError


@dataclass(frozen=True, slots=True)
class FileContextSource:
    """An `EpochContextSource`: a file of one epoch."""

    file: Path

    @property
    def source_id(self) -> str:
        """The file's name."""
        return str(self.file)

    def epoch_context(self, selector: str = LATEST) -> EpochContext:
        """See `EpochContextSource.epoch_context`; ``latest`` is the file's epoch.

        Raises:
            InvalidInputError: also when the file can't be read.
        """
        context = self._read()
        if selector not in (LATEST, str(context.epoch_height), str(context.epoch_id)):
            raise EpochNotReadyError(
                problem=f"epoch {selector} was asked for, the context is of epoch {context.epoch_height} ({context.epoch_id})",
                where=self.source_id,
            )
        return context

    def check(self, context: EpochContext, source_id: str) -> EpochContext | None:
        """See `EpochContextSource.check`: whoever gives a file means its epoch, so one of another epoch differs."""
        own = self._read()
        compare_contexts(context, source_id, own, self.source_id, of_file=True, partial=True)
        return own

    def _read(self) -> EpochContext:
        try:
            with self.file.open("rb") as file:
                text = file.read(CONTEXT_BYTES_MAX + 1)
        except OSError as error:
            raise InvalidInputError(problem=f"the epoch context can't be read: {error.strerror}", where=self.source_id) from error
        return parse_epoch_context(text, self.source_id)
