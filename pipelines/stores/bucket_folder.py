"""A folder inside a bucket: the way between object names and keys. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipelines.stores.object_names import check_object_name, check_prefix
from schemas.errors import InvalidInputError
from schemas.shown_text import shown_url
from schemas.url import split_url

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,221}")


@dataclass(frozen=True, slots=True)
class BucketFolder:
    """A bucket and a folder in it; the folder is empty for the whole bucket."""

    scheme: str
    bucket: str
    folder: str

    @classmethod
    def parse(cls, url: str) -> BucketFolder:
        """Take ``scheme://bucket/folder`` apart.

        Raises:
            InvalidInputError: no bucket, credentials or a query in the URL, or a folder that is no object name.
        """
        parts = split_url(url)
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise InvalidInputError(
                problem="a store URL holds a bucket and a folder, nothing else",
                where=f"{parts.scheme}://...",
                remedy="Give credentials the way the store's own tools take them.",
            )
        if _BUCKET.fullmatch(parts.netloc) is None:
            raise InvalidInputError(problem=f"{parts.netloc[:80]!r} is not a bucket name", where=shown_url(url))
        return cls(parts.scheme, parts.netloc, check_prefix(parts.path.strip("/")))

    @property
    def url(self) -> str:
        """The URL, without a trailing slash."""
        return f"{self.scheme}://{self.bucket}/{self.folder}".rstrip("/")

    def key(self, name: str) -> str:
        """Return an object's key in the bucket."""
        return f"{self.folder}/{check_object_name(name)}" if self.folder else check_object_name(name)

    def path(self, name: str) -> str:
        """Return bucket and key, as fsspec wants them."""
        return f"{self.bucket}/{self.key(name)}"

    def listing_path(self, prefix: str) -> str:
        """Return bucket and key of a folder with a slash behind, as fsspec wants them."""
        inside = "/".join(part for part in (self.folder, check_prefix(prefix)) if part)
        return f"{self.bucket}/{inside}/" if inside else f"{self.bucket}/"

    def name(self, path: str) -> str:
        """Return the name of what fsspec listed as ``path``."""
        start = self.listing_path("")
        assert path.startswith(start), (path, start)
        return path[len(start) :]
