"""A context that the user gave: a JSON file, or what an earlier export kept. Whatever else knows the epoch is asked too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.near.epoch.context_agreement import compare_contexts
from pipelines.near.epoch.epoch_context_source import LATEST
from pipelines.stores.regular_file import open_regular
from schemas.errors import EpochNotReadyError, InvalidInputError
from schemas.nearcore.epoch_context import CONTEXT_BYTES_MAX, EpochContext, parse_epoch_context


@dataclass(frozen=True, slots=True)
class GivenContextSource:
    """An `EpochContextSource` of one epoch."""

    context: EpochContext
    source_id: str
    """The file or dataset."""

    @property
    def is_given(self) -> bool:
        """See `EpochContextSource.is_given`."""
        return True

    def epoch_context(self, selector: str = LATEST) -> EpochContext:
        """See `EpochContextSource.epoch_context`; ``latest`` is the one epoch."""
        context = self.context
        if selector not in (LATEST, str(context.epoch_height), str(context.epoch_id)):
            raise EpochNotReadyError(
                problem=f"epoch {selector} was asked for, the context is of epoch {context.epoch_height} ({context.epoch_id})",
                where=self.source_id,
            )
        return context

    def check(self, context: EpochContext, source_id: str, *, of_given: bool = False) -> EpochContext | None:
        """See `EpochContextSource.check`: a given context names its epoch, so another epoch is a difference."""
        compare_contexts(context, source_id, self.context, self.source_id, of_given=True)
        return self.context


def read_context_file(file: Path) -> GivenContextSource:
    """Read the context file format.

    Raises:
        InvalidInputError: the file can't be read, or has another form.
    """
    try:
        with open_regular(file) as opened:
            text = opened.read(CONTEXT_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInputError(problem=f"the epoch context can't be read: {error.strerror}", where=str(file)) from error
    return GivenContextSource(parse_epoch_context(text, str(file)), str(file))
