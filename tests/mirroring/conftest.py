"""What the tests of this folder share."""

from tests.support.no_sync import no_sync

__all__ = ["no_sync"]
