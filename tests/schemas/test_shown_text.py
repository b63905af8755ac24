"""What may be shown of a text: no control characters, nothing unseen, no secrets of URLs."""

from __future__ import annotations

import time

import pytest

from schemas.errors import FetchError, InvalidInputError, StoreError
from schemas.shown_text import URL_CHARACTERS_MAX, shown_text, shown_url, shown_values
from schemas.url import split_url

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("epoch 7 of testnet: größer, 日本語, e\u0301 …", "epoch 7 of testnet: größer, 日本語, e\u0301 …"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m\x7f\x00", "\\x9b31m\\x7f\\x00"),
        ("a\r\nb\tc\u2028d\x85e", "a b c d e"),
        ("\u202e\u2066\u200f\u061c", "\\u202e\\u2066\\u200f\\u061c"),
        ("a\u200bb\u2060c\ufeffd\u00ade", "a\\u200bb\\u2060c\\ufeffd\\xade"),
        ("\u034f\u115f\u3164\uffa0\ufe0f\u2800", "\\u034f\\u115f\\u3164\\uffa0\\ufe0f\\u2800"),
        ("\U000e0041\U000e0100\ue000\uffff", "\\U000e0041\\U000e0100\\ue000\\uffff"),
        ("\ud800 \udcff", "\\ud800 \\udcff"),
        ("\u00a0\u2003", "\\xa0\\u2003"),
        ("[/x][bold]", "[/x][bold]"),
    ],
)
def test_text_is_shown_without_what_a_terminal_obeys(text: str, shown: str) -> None:
    """What is left is printable, and is not changed again."""
    assert shown_text(text) == shown == shown_text(shown)
    assert shown.isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://user:{SECRET}@host/a", "https://...@host/a"),
        (f"HTTPS://{SECRET}@host", "HTTPS://...@host"),
        (f"https://user:{SECRET}@{SECRET}@host:80/a", "https://...@host:80/a"),
        (f"https://user:{SECRET}/{SECRET}@host/a", "https://...@host/a"),
        (f"'https://host/a?X-Amz-Signature={SECRET}&x=1'.", "'https://host/a?...'."),
        (f"(see https://host/a?sv=1&sig={SECRET}%3D). Again", "(see https://host/a?...). Again"),
        (f"dataset://https://u:{SECRET}@host/a", "dataset://https://...@host/a"),
        (f"zip://a?{SECRET}::https://u:{SECRET}@host/a?{SECRET}", "zip://a?...::https://...@host/a?..."),
        (f"near://ed25519:{'8' * 88}@host:1", "near://...@host:1"),
        (f"sftp://u:{SECRET}@[::1]:22/a", "sftp://...@[::1]:22/a"),
        (f"wss://host/?key={SECRET}", "wss://host/?..."),
        (f"pool: with url: /v1?apikey={SECRET} (caused by x)", "pool: with url: /v1?... (caused by x)"),
        (f"AccountName=a;AccountKey={SECRET}==;x=y", "AccountName=a;AccountKey=...;x=y"),
        (f"Authorization: Bearer {SECRET}", "Authorization: ..."),
        (f"{{'signature': '{SECRET}', 'token': \"{SECRET}\"}}", "{'signature': '...', 'token': \"...\"}"),
        (f"host/a?sig={SECRET}&password={SECRET}", "host/a?sig=...&password=..."),
        (f"[https:/user:{SECRET}@host:9/a]", "[https:/user:...@host:9/a]"),
        (f"https:user:{SECRET}@host/a, //user:{SECRET}@host", "https:user:...@host/a, //user:...@host"),
        (f"file:///work/user:{SECRET}@host:9/a", "file:///work/user:...@host:9/a"),
        (f"http:\\\\user:{SECRET}@host\\a", "http:\\\\user:...@host\\a"),
        (f"near:/ed25519:{'8' * 88}@host:1", "near:/ed25519:...@host:1"),
        (f"https://host/a#{SECRET}", "https://host/a#..."),
        (f"https://host/a#{SECRET}?x={SECRET}", "https://host/a#..."),
        (f"[magnet:?xt=urn:btih:00&tr=http://t/{SECRET}&dn=x]", "[magnet:?xt=urn:btih:00&tr=..."),
        (f"magnet:?tr.1=http%3A%2F%2Fu:{SECRET}", "magnet:?tr.1=..."),
    ],
)
def test_secrets_of_urls_are_left_out(text: str, shown: str) -> None:
    """Users, passwords, queries, and what is named as a signature, token or key."""
    assert shown_text(text) == shown == shown_text(shown)


@pytest.mark.parametrize(
    "text",
    [
        "gs://bucket/me@home/x", "https://host:80/me@home", "https://[::1]:80/a@b", "genesis:///a.json?records=/b.json", "what is this?",
        "signature: 3 of 4 are enough", "Set RAY_AUTH_MODE=token, and go on", "udp://tracker.example:6969/announce", "a: b?c",
        "AAAA/sig==", "AAA/token=", "+authorization==", "near://ed25519:8kiK9kgtoEx8BScnqq9NZ6h4Ao2HFdDHhsaS958pAEXB@host:24567",
    ],
)  # fmt: skip
def test_what_holds_no_secret_stays(text: str) -> None:
    """Names with an @, files behind a question mark, words."""
    assert shown_text(text) == text


@pytest.mark.parametrize(
    "part", ["http://", "://a:b", "sig=", "url: ", "token'   ", "authorization = ", "aA1+", "?", "@", ":a@", "magnet:?a&tr", "x://?'"]
)
def test_long_text_takes_no_long_time(part: str) -> None:
    """The time grows with the length, not with its square."""
    began_s = time.process_time()
    shown_text(part * (400_000 // len(part)) + "!://@?")
    assert time.process_time() - began_s < 5


def test_a_url_that_somebody_gave_is_cut_after_its_secrets_are_out() -> None:
    """A cut in a password would leave its beginning; spaces belong to it."""
    assert shown_url(f"https://user:{'x' * 300}@host/a?b") == "https://...@host/a?..."
    assert shown_url(f"https://user:two words{SECRET}@host/a") == "https://...@host/a"
    assert len(shown_url("https://host/" + "a" * 1000)) == URL_CHARACTERS_MAX


@pytest.mark.parametrize("url", [f"https://{SECRET}\u2100@host/", f"https://u:{SECRET}@[::1/", f"https://u:{SECRET}@host:port/"])
def test_a_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    """The library's own error repeats it."""
    with pytest.raises(InvalidInputError) as caught:
        split_url(url)
    assert SECRET not in str(caught.value) and SECRET not in str(caught.value.to_json())


def test_errors_are_shown_text() -> None:
    """As text for people, and without secrets in JSON."""
    url = f"https://u:{SECRET}@host/a?sig={SECRET}"
    for error in (
        StoreError(problem=f"no answer from {url}\x1b", where=url, remedy=f"Try\n{url}"),
        FetchError(problem="no source", attempts={url: [f"{url} \x07"]}),
    ):
        assert str(error).isprintable() and SECRET not in str(error) + str(error.to_json())


def test_values_of_json_keep_their_kinds() -> None:
    """Only text changes."""
    url = f"https://u:{SECRET}@host"
    assert shown_values({"a": [url, 1, None, True, 1.5], "b": {"c": (url,)}}) == {
        "a": ["https://...@host", 1, None, True, 1.5],
        "b": {"c": ["https://...@host"]},
    }
