"""The kernel in pure Python: the executable specification, and the oracle of the native one.

``reading`` takes records out of Arrow, ``closing`` finishes a node, ``building`` does a key range, ``merging`` joins edges,
``walking`` follows nearcore through a part, ``kernel`` is the Protocol over them. Clear before fast: some ten thousand records a
second, and everything in memory.
"""

from pipelines.kernel.reference.kernel import ReferenceKernel

__all__ = ["ReferenceKernel"]
