"""The native kernel: the Protocol over the Rust module ``statecast_kernel``.

Converts arguments and errors and nothing else; the arithmetic is in ``native/``. The module is imported when a method is first
called, so that this file can be imported where the wheel is not installed.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import pyarrow as pa

from pipelines.kernel.trie_kernel import AppliedPart, Build, CountedPart, Sealed, Structure
from schemas import errors
from schemas.ids import CryptoHash, PartId
from schemas.published.torrent import PartPieces

MODULE = "statecast_kernel"

_REMEDIES: dict[type[errors.StatecastError], str] = {
    errors.RecordOrderError: "Sort the records by key bytes and keep each key once.",
    errors.ValueMismatchError: "Export the source again; it does not agree with itself.",
    errors.MissingTrieValueError: "Fetch or build the part again.",
    errors.UnexpectedTrieValueError: "Fetch or build the part again.",
    errors.MalformedPartError: "Fetch or build the part again.",
    errors.SourceError: "Take a node that has tracked the shard since before the epoch's sync block.",
}


def is_available() -> bool:
    """Return whether the wheel is installed, without importing it."""
    return importlib.util.find_spec(MODULE) is not None


def load_module() -> ModuleType:
    """Import the wheel's module.

    Raises:
        InvalidInputError: it is not installed, or can't be loaded.
    """
    try:
        return importlib.import_module(MODULE)
    except ImportError as error:
        raise errors.InvalidInputError(
            problem=f"the native kernel can't be loaded: {error}",
            where=MODULE,
            remedy="Install the statecast-kernel wheel (native/binding), or choose the reference kernel.",
        ) from error


@contextmanager
def native_errors() -> Iterator[None]:
    """Load the wheel's module, so that the block can import it, and raise its refusals as the project's errors.

    Raises:
        InvalidInputError: it is not installed, or can't be loaded.
    """
    load_module()
    import statecast_kernel

    try:
        yield
    except statecast_kernel.KernelError as error:
        class_name, problem, where = error.args
        if class_name == "AssertionError":
            raise AssertionError(f"{problem} [{where}]" if where else problem) from None
        error_class: type[errors.StatecastError] = getattr(errors, class_name)
        raise error_class(problem=problem, where=where, remedy=_REMEDIES.get(error_class, "")) from None
    except OverflowError as error:
        raise errors.InvalidInputError(problem="a number does not fit in 64 bits", where=str(error)) from None


def _checked(batches: Sequence[pa.RecordBatch], columns: Sequence[str]) -> list[pa.RecordBatch]:
    """Take the named columns, and have Arrow check that their offsets stay inside their buffers, which the module relies on.

    Raises:
        InvalidInputError: a column is missing.
        DatasetError: a column's buffers are not sound.
    """
    taken = []
    for batch in batches:
        missing = [name for name in columns if name not in batch.schema.names]
        if missing:
            raise errors.InvalidInputError(problem="a record batch lacks columns", where=", ".join(missing))
        narrow = batch.select(list(columns))
        try:
            narrow.validate(full=True)
        except pa.ArrowInvalid as error:
            raise errors.DatasetError(problem=f"a record batch is damaged: {error}", remedy="Export the source again.") from error
        taken.append(narrow)
    return taken


class NativeKernel:
    """Kernel in Rust; see `pipelines.kernel.trie_kernel.Kernel` for what the methods do. Holds no state and can be pickled."""

    name = "native"

    def structure(self, records: Sequence[pa.RecordBatch], left_key: bytes | None, right_key: bytes | None) -> Structure:
        """See `Kernel.structure`."""
        with native_errors():
            import statecast_kernel

            edge, charges = statecast_kernel.structure(_checked(records, ("key", "value_length")), left_key, right_key)
        return Structure(edge=edge, charges=charges)

    def build(
        self,
        records: Sequence[pa.RecordBatch],
        values: Sequence[pa.RecordBatch],
        left_key: bytes | None,
        right_key: bytes | None,
        *,
        keep_interior: bool = True,
        boundary_nodes: Sequence[bytes] = (),
    ) -> Build:
        """See `Kernel.build`."""
        rows = _checked(records, ("key", "value", "value_length", "value_hash"))
        referenced = _checked(values, ("value_hash", "value"))
        with native_errors():
            import statecast_kernel

            built = statecast_kernel.build(rows, referenced, left_key, right_key, keep_interior, list(boundary_nodes))
        edge, interior, node_count, hashed_bytes = built
        buffer = None if interior is None else pa.py_buffer(interior)
        return Build(edge=edge, interior=buffer, node_count=node_count, hashed_bytes=hashed_bytes)

    def merge(self, left: bytes, right: bytes) -> bytes:
        """See `Kernel.merge`."""
        with native_errors():
            import statecast_kernel

            return statecast_kernel.merge(left, right)

    def seal(self, edges: Sequence[bytes]) -> Sealed:
        """See `Kernel.seal`."""
        with native_errors():
            import statecast_kernel

            state_root, memory_usage, root_node, boundary_nodes, charges = statecast_kernel.seal(list(edges))
        return Sealed(
            state_root=CryptoHash(state_root),
            memory_usage=memory_usage,
            root_node=root_node,
            boundary_nodes=boundary_nodes,
            charges=charges,
        )

    def assemble(self, interior: pa.Buffer | None, nodes: Sequence[bytes]) -> pa.Buffer:
        """See `Kernel.assemble`."""
        with native_errors():
            import statecast_kernel

            part = statecast_kernel.assemble(interior, list(nodes))
        return pa.py_buffer(part)

    def validate(self, partial_state: pa.Buffer, state_root: CryptoHash, part_id: PartId) -> None:
        """See `Kernel.validate`."""
        with native_errors():
            import statecast_kernel

            statecast_kernel.validate(partial_state, state_root, part_id.idx, part_id.total)

    def validate_sorted(self, partial_state: pa.Buffer, state_root: CryptoHash, part_id: PartId) -> bytes:
        """See `Kernel.validate_sorted`."""
        with native_errors():
            import statecast_kernel

            return statecast_kernel.validate_sorted(partial_state, state_root, part_id.idx, part_id.total)

    def digest_object(self, data: bytes, piece_length: int) -> tuple[bytes, PartPieces]:
        """See `Kernel.digest_object`."""
        with native_errors():
            import statecast_kernel

            sha256, *pieces = statecast_kernel.digest_object(data, piece_length)
        return sha256, PartPieces(len(data), piece_length, *pieces)

    def apply(self, partial_state: pa.Buffer, state_root: CryptoHash, part_id: PartId) -> AppliedPart:
        """See `Kernel.apply`."""
        with native_errors():
            import statecast_kernel

            records, values = statecast_kernel.apply(partial_state, state_root, part_id.idx, part_id.total)
        return AppliedPart(records=tuple(records), values=tuple(values))

    def apply_counted(self, partial_state: pa.Buffer, state_root: CryptoHash, part_id: PartId, bucket_count: int) -> CountedPart:
        """See `Kernel.apply_counted`."""
        with native_errors():
            import statecast_kernel

            records, references = statecast_kernel.apply_counted(partial_state, state_root, part_id.idx, part_id.total, bucket_count)
        return CountedPart(records=tuple(records), references=tuple(references))
