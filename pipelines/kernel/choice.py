"""Which kernel runs: the native one where its wheel is installed, else the reference. Says nothing itself; callers show the name."""

from __future__ import annotations

from pipelines.kernel.trie_kernel import Kernel
from schemas.errors import InvalidInputError

KERNEL_NAMES = ("auto", "native", "reference")


def choose_kernel(name: str = "auto") -> Kernel:
    """Return a kernel by name; ``auto`` is the native one where it can be imported, else the reference.

    Raises:
        InvalidInputError: ``native`` is asked for and not installed, or no kernel has that name.
    """
    if name not in KERNEL_NAMES:
        raise InvalidInputError(problem=f"no kernel is called {name!r}", remedy=f"Choose one of {', '.join(KERNEL_NAMES)}.")
    if name != "reference" and _native_is_available():
        from pipelines.kernel.native import NativeKernel

        return NativeKernel()
    if name == "native":
        raise InvalidInputError(
            problem="the native kernel is not installed",
            where="statecast_kernel",
            remedy="Install its wheel (`make` builds it where cargo is); --kernel reference works without it, slower.",
        )
    from pipelines.kernel.reference import ReferenceKernel

    return ReferenceKernel()


def _native_is_available() -> bool:
    try:
        from pipelines.kernel.native import is_available
    except ImportError:
        return False
    return is_available()
