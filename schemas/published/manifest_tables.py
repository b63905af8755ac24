"""How a manifest names the epoch's decoded tables: by their statement's digest, and where they are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from schemas.json_document import FieldReader

_URL_LENGTH_MAX: Final = 2048
# Printable ASCII without @, so that no URL carries credentials.
_URL_PATTERN: Final = r"(?:https?|gs|s3|az)://[!-?A-~]+"


@dataclass(frozen=True, slots=True)
class ManifestTables:
    """Decoded tables of the epoch's shards."""

    statement_sha256: str
    """Of the payload of ``statements/tables.json``, in hexadecimal."""
    url: str | None
    """Where the tables are; None where that is a folder of the publisher's machine."""

    @classmethod
    def at(cls, statement_sha256: str, url: str) -> ManifestTables:
        """Return how tables at a URL are named; one that is no public place is left out."""
        public = len(url) <= _URL_LENGTH_MAX and re.fullmatch(_URL_PATTERN, url) is not None
        return cls(statement_sha256, url if public else None)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"statement_sha256": self.statement_sha256, "url": self.url}

    @classmethod
    def from_json(cls, reader: FieldReader) -> ManifestTables:
        """Take the fields.

        Raises:
            ManifestError: one is missing or has another form.
        """
        url = None if reader.is_null("url") else reader.text("url", _URL_LENGTH_MAX, _URL_PATTERN)
        return cls(reader.sha256("statement_sha256"), url)
