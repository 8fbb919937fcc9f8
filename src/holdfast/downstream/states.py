"""What a client carries from one request of a call to the next, sealed so that only we can have made it.

Two kinds, told apart by their first byte: a state that names a call that is parked here, and the state
of a server of 2026-07-28 in a wrapper of ours.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from enum import Enum
from typing import Final

_SEAL_BYTES: Final = 32


class Kind(Enum):
    """What a state is good for."""

    PARKED = b"p"
    WRAPPED = b"w"


class Seals:
    """Seals states with a key, and opens those that were sealed with the same one.

    Whoever shares the key can open them: by default it is this process's alone.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = secrets.token_bytes(32) if key is None else key

    def seal(self, kind: Kind, content: bytes, terms: bytes) -> str:
        """A state that opens under the same `terms` alone. `content` can be read by whoever holds it."""
        sealed = kind.value + content
        return base64.urlsafe_b64encode(sealed + self._seal(sealed, terms)).decode()

    def unseal(self, state: str, terms: bytes) -> tuple[Kind, bytes] | None:
        """What was sealed; None for anything but the very same state under the same terms."""
        try:
            opened = base64.b64decode(state.encode(), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError):
            return None
        sealed, seal = opened[:-_SEAL_BYTES], opened[-_SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._seal(sealed, terms)):
            return None
        if base64.urlsafe_b64encode(opened).decode() != state:  # what was given must come back byte for byte
            return None
        return Kind(sealed[:1]), sealed[1:]

    @staticmethod
    def content_of(state: str) -> bytes | None:
        """What a state says that it holds, whoever sealed it; only to be told to the operator."""
        try:
            return base64.urlsafe_b64decode(state.encode())[1:-_SEAL_BYTES]
        except (binascii.Error, UnicodeEncodeError):
            return None

    def _seal(self, sealed: bytes, terms: bytes) -> bytes:
        return hmac.digest(self._key, hashlib.sha256(terms).digest() + sealed, "sha256")
