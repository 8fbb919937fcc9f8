"""Users whom a host names in a token that it signed (Open WebUI: `X-OpenWebUI-User-Jwt`)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Final

from holdfast.clock import Clock
from holdfast.events import Denial

ISSUER: Final = "open-webui"
OVERTIME: Final = 3600.0
"""Seconds beyond its expiry for which a token in use is good at most."""
_LEEWAY: Final = 30.0
"""By which the clocks of two machines may differ."""
_ALGORITHM: Final = "HS256"
_KINDS: Final[Mapping[str, Denial]] = {
    "InvalidAudienceError": Denial.WRONG_AUDIENCE,
    "InvalidIssuerError": Denial.WRONG_ISSUER,
}
"""By the names of PyJWT's errors, which is loaded only where there is a secret."""


class UnprovenUser(Exception):
    """A request names its user in a way that proves nothing; the message says what to do."""

    def __init__(self, kind: Denial, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class TokensInUse:
    """Which tokens requests bear now, or bore a moment ago.

    A host makes a token when it connects and bears it until it disconnects, however long that takes
    (Open WebUI 0.12.4: 300 s of life, for a chat message that may take an hour). So a token that was
    good when it was first seen stays good for as long as a client's session would: until no request
    has borne it for `idle_timeout` seconds.
    """

    def __init__(self, clock: Clock, idle_timeout: float, wall: Callable[[], float] = time.time) -> None:
        self.idle_timeout = idle_timeout
        self.wall = wall
        """Seconds since 1970, in which tokens tell their expiry."""
        self._clock = clock
        self._requests: dict[bytes, int] = {}
        """How many are being answered, by the digest of their token."""
        self._left: dict[bytes, float] = {}
        """When the last request of each other token was answered, the longest ago first."""

    def __len__(self) -> int:
        return len(self._requests) + len(self._left)

    def __contains__(self, digest: bytes) -> bool:
        if digest in self._requests:
            return True
        left = self._left.get(digest)
        return left is not None and self._clock.now() - left < self.idle_timeout

    def enter(self, digest: bytes) -> None:
        """A request that bears the token begins."""
        self._left.pop(digest, None)
        self._requests[digest] = self._requests.get(digest, 0) + 1
        self._forget_old()

    def leave(self, digest: bytes) -> None:
        """A request that bore the token is answered, or its client left."""
        requests = self._requests.pop(digest) - 1
        if requests:
            self._requests[digest] = requests
        else:
            self._left[digest] = self._clock.now()

    def _forget_old(self) -> None:
        end = self._clock.now() - self.idle_timeout
        while self._left:
            oldest = next(iter(self._left))
            if self._left[oldest] > end:
                return
            del self._left[oldest]


class SignedUsers:
    """Believes a token that was signed with `secret`; `header` names it in what is said of others."""

    def __init__(self, secret: str, header: str, in_use: TokensInUse) -> None:
        import jwt  # noqa: PLC0415 (70 ms with cryptography beside it, for those alone who have a secret)

        self._jwt = jwt
        # When a token expires is compared below, since PyJWT knows no other clock than the machine's.
        self._tokens = jwt.PyJWT({"verify_exp": False, "verify_iat": False, "require": ["sub", "iss", "exp"]})
        self._secret = secret
        self._header = header
        self._in_use = in_use

    def user(self, token: str) -> tuple[str, bytes]:
        """Whom the token names, and its digest for `TokensInUse`. Raises `UnprovenUser`."""
        jwt = self._jwt
        try:
            claims = self._tokens.decode(token, self._secret, algorithms=[_ALGORITHM], issuer=ISSUER, leeway=_LEEWAY)
        except jwt.InvalidSignatureError:
            what = "is not signed with this gateway's secret (jwt_secret, --jwt-secret): give both sides the same one"
            raise UnprovenUser(Denial.BAD_SIGNATURE, f"{self._header} {what}.") from None
        except jwt.PyJWTError as error:
            kind = _KINDS.get(type(error).__name__, Denial.BAD_TOKEN)
            terms = (
                f"signed by {_ALGORITHM}, of the issuer {ISSUER}, with a user (sub), an expiry and no audience (aud)"
            )
            what = f"holds no user's token ({kind.replace('_', ' ')}): one is {terms}"
            raise UnprovenUser(kind, f"{self._header} {what}.") from None
        user: object = claims["sub"]
        if not isinstance(user, str) or not user:
            raise UnprovenUser(Denial.BAD_TOKEN, f"{self._header} holds a token that names no user.")
        digest = hashlib.sha256(token.encode()).digest()
        if self._has_expired(claims["exp"], digest):
            words = "has expired: connect again, or set the clocks of both machines"
            raise UnprovenUser(Denial.EXPIRED_TOKEN, f"{self._header} {words}.")
        return user, digest

    def _has_expired(self, expires: object, digest: bytes) -> bool:
        if not isinstance(expires, int | float):
            return True
        over = self._in_use.wall() - expires
        return not over < (OVERTIME if digest in self._in_use else _LEEWAY)
