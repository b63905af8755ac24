"""Text that is about to be seen, by people or in a file: nothing in it that a terminal would obey, and no secret of a URL. No I/O.

What buckets, mirrors, manifests, proofs, peers and other programs say goes through `shown_text` before it reaches a terminal, a log or an
error. URLs hold passwords, signatures and keys: they lose them here, whoever wrote the text around them.
"""

from __future__ import annotations

import re
from typing import Any, Final

URL_CHARACTERS_MAX: Final = 200
"""How much of a URL an error repeats."""

_LEFT_OUT: Final = "..."

_BLANK: Final = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
"""Characters that Python calls printable and nobody sees: default-ignorable ones (Unicode 15, DerivedCoreProperties) and the empty braille."""

_LINE_END = re.compile(r"[\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
_UNSEEN = re.compile(rf"[{_BLANK}]")
_TOKEN = re.compile(r"\S+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*\Z")
_SCHEME_CHARACTERS_MAX: Final = 40
_LOCAL_SCHEMES: Final = frozenset({"dataset", "file", "genesis", "memory", "records", "rocksdb"})
"""Their queries name files."""
_HTTP_SCHEMES: Final = frozenset({"http", "https"})
"""Behind a number sign is no name of an object of theirs."""
_PEER = re.compile(r"ed25519:[1-9A-HJ-NP-Za-km-z]{1,44}@[^@]*\Z")
"""A node's public key and address. A secret key, given by mistake, is longer."""
_PORT = re.compile(r"[^:]*:\d*|\[.*")
_PASSWORD = re.compile(r"(?<=:)(?:(?<!ed25519:)[^\s:/\\@]{1,500}|(?<=ed25519:)[^\s:/\\@]{45,500})@")
"""Between a colon and an at sign, in what is no URL because its slashes were forgotten, or made fewer on the way. Public keys of nodes stay."""
_TRACKERS = re.compile(r"(magnet:\?(?:[^\s&]{0,500}&){0,64}?tr(?:\.\d{1,3})?=)(?!\.\.\.)\S+")
"""A magnet link's trackers: the path of one may be a passkey."""
_CLOSING: Final = "'\"`)]}>,.;:"
_REQUEST = re.compile(r"(?<=\burl: )([^\s?]*)\?\S+")
"""As HTTP clients name what they asked a host for."""
_NAMED = re.compile(
    r"(?i)\b(upload_id|x-amz-signature|x-amz-security-token|x-amz-credential|x-goog-signature|x-goog-credential|awsaccesskeyid|access_token"
    r"|(?:aws_)?secret_access_key|accountkey|sharedaccesssignature|authorization)(['\"]?\s*[=:]\s*['\"]?)(?!=)(?:(?:bearer|basic)\s+)?[^&\s'\",;}]+"
)
_NAMED_OTHERWISE = re.compile(
    r"(?i)\b(sig|signature|token|sas|password|passwd|passkey|secret|api_?key|access_?key)(=['\"]?|['\"]\s*[=:]\s*['\"])(?!=)[^&\s'\",;}]+"
)
"""Words that also stand in sentences: secrets only where a value is set to them. The end of a base64 text, ``sig==``, sets none."""


def shown_text(text: str) -> str:
    """Return text as it may be shown: in one line, without what terminals obey or nobody sees, without secrets of URLs.

    Line ends and tabs become a space. Other control characters, marks of direction, characters without width or shape, lone surrogates
    and unassigned ones become escapes such as ``\\x1b`` and ``\\u202e``. A text that was shown before stays as it is.
    """
    text = without_secrets(text)
    if text.isascii() and text.isprintable():
        return text
    text = _UNSEEN.sub(_escaped, _LINE_END.sub(" ", text))
    return text if text.isprintable() else "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def shown_url(url: str) -> str:
    """Return a URL that somebody gave for an error: without user, password and query, cut to `URL_CHARACTERS_MAX`.

    Unlike in `shown_text` all of it is known to be one URL, so a password with spaces is found too.
    """
    return shown_text(_without_url_secrets(url))[:URL_CHARACTERS_MAX]


def shown_values(value: Any) -> Any:
    """Return plain JSON values with every text in them without secrets; what JSON itself escapes is left to it."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {shown_values(name): shown_values(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown_values(entry) for entry in value]
    return value


def without_secrets(text: str) -> str:
    """Return text without users, passwords and queries of URLs, and without values that are named as signatures, tokens or keys."""
    if "magnet:?" in text:
        text = _TRACKERS.sub(rf"\1{_LEFT_OUT}", text)
    if "://" in text:
        text = _TOKEN.sub(lambda found: _without_url_secrets(found[0]), text)
    if "@" in text:
        text = _PASSWORD.sub(f"{_LEFT_OUT}@", text)
    if "=" in text or ":" in text:
        text = _REQUEST.sub(rf"\1?{_LEFT_OUT}", text)
        text = _NAMED_OTHERWISE.sub(rf"\1\2{_LEFT_OUT}", _NAMED.sub(rf"\1\2{_LEFT_OUT}", text))
    return text


def _without_url_secrets(text: str) -> str:
    """Take the secrets out of a text that is a URL, or several in a row such as ``dataset://gs://…`` and ``zip://a::https://…``."""
    first, *rest = text.split("://")
    found = [first]
    for place in rest:
        scheme = _SCHEME.search(found[-1][-_SCHEME_CHARACTERS_MAX:])
        found.append(_without_place_secrets(place, "" if scheme is None else scheme[0].lower()))
    return "://".join(found)


def _without_place_secrets(place: str, scheme: str) -> str:
    authority, slash, path = place.partition("/")
    if scheme == "near" and _PEER.match(authority):
        return place
    if "@" in authority:
        place = f"{_LEFT_OUT}@{authority.rpartition('@')[2]}{slash}{path}"
    elif "@" in path and ":" in authority and _PORT.fullmatch(authority) is None:
        # A password with a slash in it: no URL, but a password all the same.
        place = f"{_LEFT_OUT}@{path.rpartition('@')[2]}"
    before, mark, query = place.partition("#" if scheme in _HTTP_SCHEMES and "#" in place.partition("?")[0] else "?")
    if not query.strip(_CLOSING) or scheme in _LOCAL_SCHEMES:
        return place
    # What follows in a chain of URLs is a place of its own.
    chained = query.rpartition("::")[2] if "::" in query else None
    closing = query[len(query.rstrip(_CLOSING)) :]
    return f"{before}{mark}{_LEFT_OUT}{closing if chained is None else '::' + chained}"


def _escaped(found: re.Match[str]) -> str:
    return _escape(found[0])


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
