"""The bytes of an edge, and what an edge can't be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.kernel.edge import Charge, Child, Edge, OpenNode, decode_edge, encode_edge
from schemas.errors import MalformedNodeError
from schemas.nearcore.trie_node import ValueRef

CHILD = Child(hash=b"\7" * 32, memory_usage=258, node=b"node")
EDGE = Edge(
    hashed=True,
    left_key=b"\x10",
    first_key=b"\x12",
    last_key=b"\x20",
    right_key=b"\x20\x01",
    open_nodes=(
        OpenNode(prefix=b"", first_key=None, value=None, children={}),
        OpenNode(prefix=b"\1", first_key=None, value=None, children={2: CHILD}),
        OpenNode(prefix=b"\2\0", first_key=b"\x20", value=ValueRef(5, b"\5" * 32), children={}),
    ),
    first_path=(b"node",),
    top=None,
    charges=(),
)
WHOLE = Edge(True, None, b"a", b"b", None, (), (b"node",), CHILD, ())
STRUCTURE = Edge(False, None, b"a", b"b", None, (), (), Child(bytes(32), 9, b""), (Charge(b"a", 1), Charge(b"b", 258)))


def test_the_layout() -> None:
    """An edge has the layout that the kernel's Protocol draws."""
    child_hex = "07" * 32 + "0201000000000000" + "04000000" + b"node".hex()
    expected = (
        "01 01"
        "01 01000000 10"
        "01000000 12"
        "01000000 20"
        "01 02000000 2001"
        "03000000"
        "00000000 00 00 0000"
        f"01000000 01 00 00 0400 {child_hex}"
        f"02000000 0200 01 01000000 20 01 05000000 {'05' * 32} 0000"
        f"01000000 04000000 {b'node'.hex()}"
        "00"
        "00000000"
    )
    assert bytes.fromhex(expected) == encode_edge(EDGE)


def test_the_layout_of_charges() -> None:
    """Charges are a key and a u64 each, behind the root node."""
    expected = f"01 00 00 01000000 61 01000000 62 00 00000000 00000000 01 {'00' * 32} 0900000000000000 00000000"
    charges = "02000000 01000000 61 0100000000000000 01000000 62 0201000000000000"
    assert bytes.fromhex(expected + charges) == encode_edge(STRUCTURE)


@pytest.mark.parametrize("edge", [EDGE, WHOLE, STRUCTURE], ids=["open", "whole", "structure"])
def test_edges_come_back(edge: Edge) -> None:
    """Decoding undoes encoding, and no byte can be missing or too many."""
    encoded = encode_edge(edge)
    assert edge == decode_edge(encoded)
    for damaged in [encoded + b"\0", *(encoded[:length] for length in range(len(encoded)))]:
        with pytest.raises(MalformedNodeError):
            decode_edge(damaged)


@pytest.mark.parametrize(
    "edge",
    [
        replace(EDGE, left_key=b"\x12"),
        replace(EDGE, right_key=b"\x20"),
        replace(EDGE, first_key=b"\x21"),
        replace(EDGE, open_nodes=EDGE.open_nodes[::-1]),
        replace(EDGE, open_nodes=()),
        replace(EDGE, open_nodes=(*EDGE.open_nodes, EDGE.open_nodes[-1])),
        replace(EDGE, open_nodes=(OpenNode(b"\3", None, None, {}),)),
        replace(EDGE, open_nodes=(OpenNode(b"", b"\x12", None, {}),)),
        replace(EDGE, open_nodes=(OpenNode(b"\2\0", None, None, {}),)),
        replace(EDGE, open_nodes=(OpenNode(b"\x10", None, None, {}),)),
        replace(EDGE, top=CHILD),
        replace(EDGE, charges=(Charge(b"\x12", 1),)),
        replace(WHOLE, top=None),
        replace(STRUCTURE, charges=STRUCTURE.charges[::-1]),
        replace(STRUCTURE, first_path=(b"node",)),
        replace(EDGE, first_key=b"\x12" * 3000, last_key=b"\x13" * 3000),
    ],
)
def test_rules_of_an_edge(edge: Edge) -> None:
    """Keys out of order, nodes that are not open, and parts that exclude each other are malformed."""
    with pytest.raises(MalformedNodeError):
        decode_edge(encode_edge(edge))


@pytest.mark.parametrize(("at", "byte"), [(0, 2), (0, 0), (1, 2), (2, 2)], ids=["version 2", "version 0", "hashed", "option"])
def test_tags_of_an_edge(at: int, byte: int) -> None:
    """Unknown versions and tags are malformed."""
    encoded = bytearray(encode_edge(EDGE))
    encoded[at] = byte
    with pytest.raises(MalformedNodeError):
        decode_edge(bytes(encoded))
