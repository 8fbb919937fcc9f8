"""`FaultProxy`: bytes pass until a test says how they fail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from holdfast.testing.clock import ManualClock, settle
from holdfast.testing.proxy import Direction, FaultProxy

TO_SERVER, TO_CLIENT = Direction.TO_SERVER, Direction.TO_CLIENT


class Echo:
    """A server that returns each byte it gets, and notes how its connections ended."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ends: asyncio.Queue[str] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65536):
                self.received += chunk
                writer.write(chunk)
                await writer.drain()
            await self.ends.put("eof")
        except ConnectionResetError:
            await self.ends.put("reset")
        finally:
            writer.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def proxy(echo: Echo, clock: ManualClock) -> AsyncIterator[FaultProxy]:
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with asyncio.timeout(60), FaultProxy("127.0.0.1", server.sockets[0].getsockname()[1], clock) as proxy:
        yield proxy
    server.close()


class Client:
    """A connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.read = reader.readexactly
        self.read_some = reader.read
        self.write = writer.write
        self.close = writer.close


async def connect(proxy: FaultProxy, stack: AsyncExitStack) -> Client:
    client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
    stack.callback(client.close)
    return client


async def test_bytes_pass_both_ways_and_are_counted(proxy: FaultProxy) -> None:
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        client = await connect(proxy, stack)
        client.write(b"hello")
        assert await client.read(5) == b"hello"
        await proxy.until(lambda: proxy.passed(TO_CLIENT) == 5)
        assert (proxy.accepted, len(proxy.connections), proxy.passed(TO_SERVER)) == (1, 1, 5)


async def test_the_end_of_the_client_reaches_the_server(proxy: FaultProxy, echo: Echo) -> None:
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        client = await connect(proxy, stack)
        client.write(b"x")
        await client.read(1)
        client.close()
        assert await echo.ends.get() == "eof"
        await proxy.disconnected()


async def test_a_large_transfer_arrives_whole_in_slices(proxy: FaultProxy) -> None:
    sent = bytes(range(256)) * 40
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        proxy.slice(7)
        client = await connect(proxy, stack)
        client.write(sent)
        assert await client.read(len(sent)) == sent


async def test_a_stalled_direction_holds_bytes_until_it_flows(proxy: FaultProxy, echo: Echo) -> None:
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        client = await connect(proxy, stack)
        client.write(b"a")
        await client.read(1)
        proxy.stall(TO_CLIENT)
        client.write(b"b")
        await proxy.until(lambda: proxy.passed(TO_SERVER) == 2)
        await settle()
        assert proxy.passed(TO_CLIENT) == 1
        proxy.flow()
        assert await client.read(1) == b"b"
        proxy.stall()
        client.write(b"c")
        await settle()
        assert proxy.passed(TO_SERVER) == 2
        assert echo.received == b"ab"


@pytest.mark.parametrize("reset", [True, False])
async def test_an_answer_can_be_cut_after_so_many_bytes(proxy: FaultProxy, reset: bool) -> None:
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        client = await connect(proxy, stack)
        proxy.cut_after(TO_CLIENT, 3, reset=reset)
        client.write(b"hello")
        assert await client.read(3) == b"hel"
        if reset:
            with pytest.raises(ConnectionResetError):
                await client.read_some(1)
        else:
            assert await client.read_some(1) == b""


async def test_a_request_can_be_cut_before_its_first_byte_and_only_once(proxy: FaultProxy, echo: Echo) -> None:
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        proxy.cut_after(TO_SERVER, 0)
        client = await connect(proxy, stack)
        client.write(b"lost")
        with pytest.raises(ConnectionResetError):
            await client.read_some(1)
        assert await echo.ends.get() == "reset"
        second = await connect(proxy, stack)
        second.write(b"kept")
        assert await second.read(4) == b"kept"
        assert echo.received == b"kept"


async def test_refusing_keeps_open_connections_and_accepting_takes_the_same_port(proxy: FaultProxy) -> None:
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        first = await connect(proxy, stack)
        await proxy.connected()
        port = proxy.port
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await connect(proxy, stack)
        first.write(b"x")
        assert await first.read(1) == b"x"
        await proxy.accept()
        assert proxy.port == port
        again = await connect(proxy, stack)
        again.write(b"y")
        assert await again.read(1) == b"y"


async def test_dropping_all_resets_both_ends(proxy: FaultProxy, echo: Echo) -> None:
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        client = await connect(proxy, stack)
        client.write(b"x")
        await client.read(1)
        proxy.drop_all()
        with pytest.raises(ConnectionResetError):
            await client.read_some(1)
        assert await echo.ends.get() == "reset"
        await proxy.disconnected()


async def test_a_stalled_connection_can_be_dropped(proxy: FaultProxy) -> None:
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        client = await connect(proxy, stack)
        client.write(b"x")
        await client.read(1)
        proxy.stall()
        client.write(b"y")
        proxy.drop_all()
        with pytest.raises(ConnectionResetError):
            await client.read_some(1)
        await proxy.disconnected()


async def test_a_delay_counts_on_the_injected_clock(proxy: FaultProxy, clock: ManualClock) -> None:
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        proxy.delay(30, TO_SERVER)
        client = await connect(proxy, stack)
        client.write(b"x")
        await clock.waited_on()
        assert proxy.passed(TO_SERVER) == 0
        clock.advance(30)
        assert await client.read(1) == b"x"


async def test_an_upstream_that_refuses_shows_as_a_dropped_connection(clock: ManualClock) -> None:
    unused = await asyncio.start_server(Echo().serve, "127.0.0.1", 0)
    port = unused.sockets[0].getsockname()[1]
    unused.close()
    async with asyncio.timeout(60), FaultProxy("127.0.0.1", port, clock) as proxy, AsyncExitStack() as stack:
        client = await connect(proxy, stack)
        with pytest.raises(ConnectionResetError):
            await client.read_some(1)
