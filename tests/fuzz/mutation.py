"""Mutations of genuine documents: the same seed gives the same bytes, on every machine.

Bytes are flipped, set, cut, doubled, moved and spliced, and what reads as a length, a count or a tag is made to lie. JSON is changed as a
tree: types swapped, fields taken away, doubled or renamed, numbers and texts made extreme, values buried in each other.
"""

from __future__ import annotations

import copy
import gzip
import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

INPUT_BYTES_MAX: Final = 1 << 20
"""Longest input that a mutation makes: what is read in a second has to have an end."""

NESTINGS: Final = (10, 70, 300, 1100, 3000)
"""Depths of nested JSON: up to beyond every limit on recursion."""

Mutation = Callable[[Random, bytes, Sequence[bytes]], bytes]
"""Takes an input and the whole corpus; returns another input."""

_LENGTHS: Final = (0, 1, 2, 0x7F, 0xFF, 0x100, 0xFFFF, 0x1_0000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF)
_WIDE: Final = (0, 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**128 - 1, 10**38)
_BLOCK_MAX: Final = 64


def mutate_bytes(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Return ``data`` after one to eight changes."""
    changed = bytearray(data)
    for _ in range(1 + int(random.expovariate(0.8))):
        random.choice(_BYTE_CHANGES)(random, changed, corpus)
        if len(changed) > INPUT_BYTES_MAX:
            del changed[INPUT_BYTES_MAX:]
    return bytes(changed)


def _flip(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _set(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    if data:
        data[random.randrange(len(data))] = random.choice((0, 1, 2, 3, 4, 5, 0x7F, 0x80, 0xFF, random.randrange(256)))


def _truncate(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    del data[random.randrange(len(data) + 1) :]


def _cut(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    at = random.randrange(len(data) + 1)
    del data[at : at + random.randrange(1, _BLOCK_MAX)]


def _insert(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    at = random.randrange(len(data) + 1)
    data[at:at] = random.randbytes(random.randrange(1, 9)) if random.random() < 0.7 else bytes(random.randrange(1, 5000))


def _double(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    at = random.randrange(len(data) + 1)
    data[at:at] = data[at : at + random.randrange(1, _BLOCK_MAX)] * random.choice((1, 1, 1, 2, 50))


def _move(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    at, size = random.randrange(len(data) + 1), random.randrange(1, _BLOCK_MAX)
    block = data[at : at + size]
    del data[at : at + size]
    to = random.randrange(len(data) + 1)
    data[to:to] = block


def _splice(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    other = random.choice(corpus)
    at, begin = random.randrange(len(data) + 1), random.randrange(len(other) + 1)
    data[at : at + random.randrange(_BLOCK_MAX)] = other[begin : begin + random.randrange(4 * _BLOCK_MAX)]


def _lie(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    """Change what could be a length: four bytes, little-endian, whose number is not above the bytes that follow."""
    if len(data) < 4:
        return
    at = begin = random.randrange(len(data) - 3)
    for at in range(begin, min(begin + 200, len(data) - 3)):
        if int.from_bytes(data[at : at + 4], "little") <= len(data) - at - 4:
            break
    length = int.from_bytes(data[at : at + 4], "little")
    left = len(data) - at - 4
    lie = random.choice((length + 1, length - 1, left, left + 1, left - 1, length * 2, *_LENGTHS))
    data[at : at + 4] = (lie % 2**32).to_bytes(4, "little")


def _varint(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    """Put a number of seven bits a byte, as Protobuf and LEB128 have them, in the place of a byte."""
    at = random.randrange(len(data) + 1)
    value, encoded = random.choice((*_LENGTHS, *_WIDE)), bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    data[at : at + 1] = encoded


def _wide(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    size = random.choice((2, 4, 8, 16))
    at = random.randrange(len(data) + 1)
    data[at : at + size] = (random.choice(_WIDE) % 256**size).to_bytes(size, random.choice(("little", "big")))


_BYTE_CHANGES: Final = (_flip, _flip, _set, _set, _truncate, _cut, _insert, _double, _move, _splice, _lie, _lie, _varint, _wide)


_RAW: Final = "\ue000raw"
"""Begins a text that is written as it is, without its quotes: what no Python value stands for."""

_MARKED: Final = re.compile(rf'"{re.escape(json.dumps(_RAW)[1:-1])}(\d{{4}})"')

_TEXTS: Final = (
    "",
    " ",
    "\0",
    "\ud800",
    "\udfff\ud800",
    "é" * 70,
    "\u0661\u0662",
    "²",
    "\U0001f600",
    "\u202e",
    "\x1b[2J",
    "\n",
    "../../x",
    "/",
    "a" * 5000,
    "1" * 45,
    "1" * 5000,
    "-1",
    "1e9",
    "0x10",
    "NaN",
    "null",
    "s0.v0",
    "s4294967296.v0",
    "ed25519:",
    "ed25519:" + "1" * 32,
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00Z",
    "2026-02-30T00:00:00Z",
    "ab" * 32,
    "%s{}",
)
_NUMBERS: Final = (0, -1, 1, 2, 255, 256, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63, 2**64 - 1, 2**64, 2**128 - 1, 2**128, 10**19, -(2**63))
_RAWS: Final = (
    "1e400",
    "-1e400",
    "1e-400",
    "1E+999999999",
    "1.0",
    "1.5",
    "-0",
    "-0.0",
    "NaN",
    "Infinity",
    "-Infinity",
    "9" * 21,
    "9" * 5000,
    "1e5000",
    "0." + "3" * 5000,
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\u0000"',
    "",
    "01",
    "tru",
    "[",
    "}",
)


def mutate_json(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Return the document after one to eight changes of its tree; bytes are changed where it is no JSON."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(random, data, corpus)
    for _ in range(1 + int(random.expovariate(0.8))):
        document = _changed_tree(random, document, corpus)
    return dump_json(document)[:INPUT_BYTES_MAX]


def dump_json(document: object) -> bytes:
    """Return JSON in the canonical encoding, with the texts that stand for something else replaced."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return _MARKED.sub(lambda found: _raw_text(int(found[1])), text).encode()


def _raw_text(number: int) -> str:
    # The number may have been changed as a text.
    number %= len(_RAWS) + 2 * len(NESTINGS)
    if number < len(_RAWS):
        return _RAWS[number]
    depth = NESTINGS[(number - len(_RAWS)) // 2]
    opening, closing = ("[", "]") if (number - len(_RAWS)) % 2 else ('{"a":', "}")
    return opening * depth + "1" + closing * depth


def _raw(random: Random) -> str:
    return f"{_RAW}{random.randrange(len(_RAWS) + 2 * len(NESTINGS)):04d}"


def _changed_tree(random: Random, document: Any, corpus: Sequence[bytes]) -> Any:
    """Change one place of a tree."""
    place = _place(random, document)
    if place is None:
        return _other_value(random, document, corpus)
    container, key = place
    match random.randrange(10):
        case 0:
            del container[key]
        case 1 if isinstance(container, list):
            container[key:key] = [copy.deepcopy(container[key]) for _ in range(random.choice((1, 1, 2, 20)))]
        case 1:
            container[random.choice((key + "_", key[:-1], key.upper(), random.choice(_TEXTS)))] = container[key]
        case 2 if isinstance(container, list):
            random.shuffle(container)
        case 2:
            container[random.choice(list(container))] = container[key]
        case _:
            container[key] = _other_value(random, container[key], corpus)
    return document


def _place(random: Random, node: Any) -> tuple[Any, Any] | None:
    """Return a container and a key of it, chosen on a walk down from the root; None where the root is none."""
    place = None
    while isinstance(node, (dict, list)) and node and (place is None or random.random() < 0.75):
        key = random.choice(list(node)) if isinstance(node, dict) else random.randrange(len(node))
        place, node = (node, key), node[key]
    return place


def _other_value(random: Random, value: Any, corpus: Sequence[bytes]) -> Any:
    kind = random.randrange(12)
    if kind < 4 and isinstance(value, bool | None):
        return random.choice((True, False, None, 0, 1, ""))
    if kind < 5 and isinstance(value, int):
        return random.choice((value + 1, value - 1, -value, value * 2, *_NUMBERS))
    if kind < 5 and isinstance(value, str):
        return _changed_text(random, value)
    match kind:
        case 5:
            return random.choice(_NUMBERS)
        case 6:
            return random.choice(_TEXTS)
        case 7:
            return _raw(random)
        case 8:
            return random.choice((None, True, False, [], {}, [[]], [{}], {"": {}}, [None], 1.5))
        case 9:
            return random.choice(([value], {"a": value}, [value, value], [value] * 20, str(value)[:500]))
        case 10:
            try:
                other = json.loads(random.choice(corpus))
            except (ValueError, RecursionError):
                # One that is compressed, or was buried by an earlier change.
                other = []
            place = _place(random, other)
            return other if place is None else place[0][place[1]]
        case _:
            return _raw(random) if random.random() < 0.2 else random.choice((*_NUMBERS, *_TEXTS))


def _changed_text(random: Random, text: str) -> str:
    at = random.randrange(len(text) + 1)
    match random.randrange(6):
        case 0:
            return text[:at]
        case 1:
            return text[:at] + random.choice(_TEXTS) + text[at:]
        case 2:
            return text[:at] + chr(random.choice((0, 9, 10, 32, 48, 65, 97, 0x7F, 0x80, 0x661, 0xD800, 0x1F600))) + text[at + 1 :]
        case 3:
            return text * random.choice((2, 3, 100)) if len(text) < 1000 else text[at:]
        case 4:
            return text[::-1]
        case _:
            return text.swapcase()


def mutate_bencode(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Return a bencoded document after one to eight changes of its tree; a dictionary's keys may come twice and in any order."""
    try:
        document, _ = _bdecoded(data, 0)
    except (ValueError, IndexError):
        return mutate_bytes(random, data, corpus)
    for _ in range(1 + int(random.expovariate(0.8))):
        document = _changed_tree(random, document, [b"[1]"])
    return _bencoded(random, document)[:INPUT_BYTES_MAX]


def _bdecoded(data: bytes, at: int) -> tuple[Any, int]:
    """Return a value, byte strings as text of Latin-1, and where it ends."""
    kind, found = data[at : at + 1], list[Any]()
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind in (b"l", b"d"):
        at += 1
        while data[at] != ord("e"):
            value, at = _bdecoded(data, at)
            found.append(value)
        return (found if kind == b"l" else dict(zip(found[::2], found[1::2], strict=True))), at + 1
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    return data[colon + 1 : end].decode("latin-1"), end


def _bencoded(random: Random, value: Any) -> bytes:
    if isinstance(value, (bool, int, float)):
        return b"i%de" % value
    if isinstance(value, list):
        return b"l" + b"".join(_bencoded(random, item) for item in value) + b"e"
    if isinstance(value, dict):
        items = [_bencoded(random, str(key)) + _bencoded(random, value[key]) for key in sorted(value, key=str)]
        if items and random.random() < 0.02:
            items.insert(random.randrange(len(items)), _bencoded(random, str(random.choice(list(value)))) + b"le")
        return b"d" + b"".join(items) + b"e"
    text = str(value)
    encoded = text.encode("latin-1") if all(ord(character) < 256 for character in text) else text.encode("utf-8", "surrogatepass")
    return b"%d:%b" % (len(encoded), encoded)


def mutate_text(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Return a line or a file of a format in text after one to eight changes, sometimes to bytes that are no text."""
    if random.random() < 0.2:
        return mutate_bytes(random, data, corpus)
    text = data.decode("utf-8", "surrogateescape")
    for _ in range(1 + int(random.expovariate(0.8))):
        words = random.choice(corpus).decode("utf-8", "replace").split("&" if b"&" in data else None) or [""]
        at = random.randrange(len(text) + 1)
        piece = random.choice((random.choice(words), random.choice(_RAWS), random.choice(_TEXTS)))
        text = random.choice((_changed_text(random, text), text[:at] + piece + text[at:], text[:at] + piece + text[at + len(piece) :]))
    return text.encode("utf-8", "surrogatepass" if random.random() < 0.5 else "replace")[:INPUT_BYTES_MAX]


def mutate_json_lines(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Return a file of lines of JSON after changes of the trees of one or more of them, or of its text."""
    if random.random() < 0.2:
        return mutate_text(random, data, corpus)
    lines = data.split(b"\n")
    for _ in range(random.choice((1, 1, 2))):
        at = random.randrange(len(lines))
        lines[at] = mutate_json(random, lines[at], lines)
    return b"\n".join(lines)[:INPUT_BYTES_MAX]


def inside_gzip(plain: Mutation) -> Mutation:
    """Return a mutation that mostly changes what is compressed, and else, as where nothing is, the bytes as they are."""

    def mutate(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
        if data.startswith(b"\x1f\x8b") and random.random() < 0.8:
            return gzip.compress(plain(random, gzip.decompress(data), corpus), compresslevel=1, mtime=0)
        return plain(random, data, corpus)

    return mutate


def mixed(structured: Mutation) -> Mutation:
    """Return a mutation that is structured three times out of four, and else of bytes."""

    def mutate(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
        return structured(random, data, corpus) if random.random() < 0.75 else mutate_bytes(random, data, corpus)

    return mutate
