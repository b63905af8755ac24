"""A part out of a host's answer, whichever of nearcore's encodings it came in."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from schemas.errors import IntegrityError
from schemas.nearcore.peer.state_response import RESPONSE_V4, StateResponse
from schemas.nearcore.state_part import PARTIAL_STATE_BYTES_MAX, Encoding, decode_state_part

_ENCODINGS: Final = {0: Encoding.V0_TAGGED, 1: Encoding.V1}
"""By the tag of a V4 answer's part."""


def decode_answered_part(response: StateResponse, where: str, decoded_bytes_max: int = PARTIAL_STATE_BYTES_MAX) -> pa.Buffer:
    """Return the PartialState bytes of a part, which are not looked into.

    Raises:
        IntegrityError: no part came, or one that can't be decoded.
    """
    data = response.part
    if data is None or not data:
        raise IntegrityError(problem="no part came", where=where)
    encoding = _ENCODINGS[data[0]] if response.version == RESPONSE_V4 else Encoding.V0
    return decode_state_part(data, encoding, decoded_bytes_max=decoded_bytes_max)
