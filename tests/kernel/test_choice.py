"""Which kernel runs."""

from __future__ import annotations

import sys

import pytest

from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.trie_kernel import Kernel
from schemas.errors import InvalidInputError


def test_the_reference_is_always_there() -> None:
    """The reference kernel needs nothing that could be missing."""
    assert choose_kernel("reference").name == "reference"


def test_auto_prefers_the_native_one(native_kernel: Kernel) -> None:
    """Where the native kernel is installed, auto chooses it."""
    assert (choose_kernel("auto").name, choose_kernel().name, native_kernel.name) == ("native",) * 3


def test_without_the_native_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed, auto falls back, and asking for it by name says what to do."""
    monkeypatch.setitem(sys.modules, "pipelines.kernel.native", None)
    assert choose_kernel("auto").name == "reference"
    with pytest.raises(InvalidInputError, match="not installed"):
        choose_kernel("native")


def test_an_unknown_name() -> None:
    """A kernel that does not exist is a usage error that lists those that do."""
    with pytest.raises(InvalidInputError, match="auto, native, reference"):
        choose_kernel("gpu")
