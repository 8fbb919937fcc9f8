"""The way to a server: its addresses, one after the other, and what to say where none takes us."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
import ssl


async def connect(
    protocol: asyncio.Protocol, host: str, port: int, context: ssl.SSLContext | None, seconds: float
) -> None:
    """Connect `protocol` to the first address that takes us, none of them using up the others' time.

    `seconds` are for all of them together, without the lookup. Raises `OSError`.
    """
    loop = asyncio.get_running_loop()
    addresses = await _addresses(loop, host, port)
    for left in range(len(addresses), 0, -1):
        try:
            async with asyncio.timeout(seconds / len(addresses)):
                await loop.create_connection(
                    lambda: protocol,
                    addresses[-left],
                    port,
                    ssl=context,
                    server_hostname=host if context else None,
                )
        except OSError:  # TimeoutError is one
            if left == 1:
                raise
        else:
            return


@functools.cache
def default_context() -> ssl.SSLContext:
    """One for the process: building it takes about 20 ms."""
    return ssl.create_default_context()


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[str]:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as error:  # a label that is empty, or longer than 63
            raise socket.gaierror(socket.EAI_NONAME, "no name of a host") from error
        return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    return [host]


def connect_problem(peer: str, error: OSError) -> str:
    """A sentence about why there is no connection to `peer`."""
    match error:
        case ConnectionRefusedError():
            return f"connection to {peer} refused"
        case socket.gaierror():
            return f"the host name of {peer} was not found"
        case ssl.SSLCertVerificationError():
            return f"the TLS certificate of {peer} is not accepted: {error.verify_message}"
        case ssl.SSLError():
            return f"the TLS handshake with {peer} failed ({error.reason or 'cut off'})"
        case _:
            return f"connection to {peer} failed ({reason(error)})"


def reason(error: Exception) -> str:
    """What the system says of `error`, in a few words."""
    text = error.strerror if isinstance(error, OSError) else None
    return text or type(error).__name__
