"""URLs that people write."""

from __future__ import annotations

import pytest

from schemas.errors import InvalidInputError
from schemas.url import split_url, split_web_url


@pytest.mark.parametrize(
    "host",
    [
        "ex ample",
        "a\nb",
        "a\tb",
        "\u00b2",
        "a" * 64,
        ".".join(["a" * 60] * 5),
        "a..b",
        ".a",
        "%41",
        "a%20b",
        "a|b",
        "xn--" + "a" * 60,
        "\u2488com",
    ],
)
def test_a_host_that_can_be_none_is_a_fault_of_who_wrote_it(host: str) -> None:
    """Where a client would look for another one, or for none."""
    with pytest.raises(InvalidInputError, match="this is no URL"):
        split_web_url(f"http://{host}/x")


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "[::1]", "a.b.", "h_x", "m\u00fcnchen.de", "user:p%40ss@h", "xn--mnchen-3ya.de", "a" * 63]
)
def test_hosts_that_are_some_stay(host: str) -> None:
    """With user, password and port too."""
    assert split_web_url(f"http://{host}:80/x y").port == 80


def test_a_path_with_spaces_is_one_and_control_characters_are_refused() -> None:
    """The library would leave them out, and mean another file."""
    assert split_url("genesis:///a b.json").path == "/a b.json" and split_url("records://a b.jsonl").netloc == "a b.jsonl"
    with pytest.raises(InvalidInputError, match="control characters"):
        split_url("genesis:///a\nb.json")
