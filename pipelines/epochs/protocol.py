"""What every source of epoch contexts offers: a node's database, a node's JSON-RPC, a file."""

from __future__ import annotations

from typing import Final, Protocol

from schemas.epoch_context import EpochContext

LATEST: Final = "latest"
"""Selector of the newest epoch that the source can tell the context of."""


class EpochContextSource(Protocol):
    """Tells contexts of epochs."""

    @property
    def source_id(self) -> str:
        """The source for people and errors, without anything secret."""
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

    def check(self, context: EpochContext, source_id: str) -> EpochContext | None:
        """Compare another source's context with what this one knows.

        Args:
            source_id: the other source.
        Returns:
            This source's context of the epoch; None when it does not know the epoch and nothing else speaks against the context.
        Raises:
            ContextMismatchError: they differ.
            InvalidInputError: they differ, and one of them is a file that the user gave.
            SourceError, IntegrityError: as `epoch_context`.
        """
        ...
