"""What one entry of the table of decoders is."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutation import Mutation, dump_json, mixed, mutate_bytes, mutate_json


@dataclass(frozen=True, slots=True)
class Decoder:
    """One way in for bytes from outside."""

    name: str
    decode: Callable[[bytes], object]
    """Returns anything, or raises an error of `schemas.errors`; whatever else it raises is a fault of the project."""
    corpus: Callable[[], Sequence[bytes]]
    """Genuine documents: ``decode`` takes each."""
    covers: tuple[Callable[..., object], ...]
    """The project's functions that read the bytes; ``decode`` of the corpus calls every one."""
    mutate: Mutation = mutate_bytes
    smoke_inputs: int = 100
    """How many `test_decoders.py` tries; `make fuzz` takes as many as there is time for."""


@lru_cache(maxsize=256)
def corpus_of(decoder: Decoder) -> tuple[bytes, ...]:
    """Return the genuine documents."""
    return tuple(decoder.corpus())


def input_of(decoder: Decoder, seed: int, number: int) -> bytes:
    """Return the input of this number: the same for the same seed, whatever came before it."""
    random = Random(f"{decoder.name} {seed} {number}")
    corpus = corpus_of(decoder)
    return decoder.mutate(random, random.choice(corpus), corpus)


def json_with(reseal: Callable[[Any], object]) -> Mutation:
    """Return a mutation of JSON that half of the time makes the digests right again, so that what is behind them is reached."""

    def mutate(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
        changed = mutate_json(random, data, corpus)
        if random.random() < 0.5:
            try:
                return dump_json(reseal(json.loads(changed)))
            except Exception:
                # What can't be sealed is refused before its digest is looked at.
                return changed
        return changed

    return mixed(mutate)


def bytes_with(reseal: Callable[[bytearray], object]) -> Mutation:
    """Return a mutation of bytes that half of the time makes the digests right again."""

    def mutate(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
        changed = bytearray(mutate_bytes(random, data, corpus))
        if random.random() < 0.5:
            try:
                reseal(changed)
            except Exception:
                # What can't be sealed is refused before its digest is looked at.
                return bytes(changed)
        return bytes(changed)

    return mutate


_numbers = count()


@lru_cache
def _folder(pid: int) -> tempfile.TemporaryDirectory[str]:
    """A folder of one process: forked ones work side by side."""
    return tempfile.TemporaryDirectory(prefix=f"fuzz-{pid}-")


def file_of(data: bytes, suffix: str = "") -> Path:
    """Write an input into a file for those that read files; the file of the input before is gone by then."""
    folder = Path(_folder(os.getpid()).name)
    for earlier in folder.iterdir():
        if earlier.is_file():
            earlier.unlink()
    path = folder / f"{next(_numbers)}{suffix}"
    path.write_bytes(data)
    return path
