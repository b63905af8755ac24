"""What every source of epoch contexts offers: a node's database, a node's JSON-RPC, a context that the user gave as a file."""

from __future__ import annotations

from typing import Final, Protocol

from schemas.nearcore.epoch_context import EpochContext

LATEST: Final = "latest"
"""Selector of the newest epoch that the source can tell the context of."""


class EpochContextSource(Protocol):
    """Tells contexts of epochs."""

    @property
    def source_id(self) -> str:
        """The source for people and errors, without anything secret."""
        ...

    @property
    def is_given(self) -> bool:
        """Whether the user gave the context itself: it may list some of the shards only, and its faults are the user's to mend."""
        ...

    def epoch_context(self, selector: str = LATEST) -> EpochContext:
        """Return the context of one epoch.

        Args:
            selector: ``latest``, an epoch height, or an epoch id in base58.
        Raises:
            EpochNotReadyError: the source does not know the epoch, or not its sync hash yet.
            InvalidInputError: no selector has this form.
            SourceError: the source can't be read or reached.
            IntegrityError: it says what can't be true.
        """
        ...

    def check(self, context: EpochContext, source_id: str, *, of_given: bool = False) -> EpochContext | None:
        """Compare another source's context with what this one knows.

        Args:
            source_id: the other source.
            of_given: the other source is a given one.
        Returns:
            This source's context of the epoch; None when it does not know the epoch and nothing else speaks against the context.
        Raises:
            ContextMismatchError: they differ.
            InvalidInputError: they differ, and one of them was given.
            SourceError, IntegrityError: as `epoch_context`.
        """
        ...
