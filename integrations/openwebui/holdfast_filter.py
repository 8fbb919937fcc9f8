"""
title: Holdfast
description: Opens the sessions of a chat before the model is asked, and shows in the chat how that goes.
version: 1.0.0
license: Apache-2.0
required_open_webui_version: 0.12.0
"""

# A filter function for Open WebUI: paste it into Admin Panel, Functions, and make it global (docs/openwebui.md).
# It asks Holdfast's `POST /api/warm` with the headers that Open WebUI itself will send for the same message.

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import aiohttp
from open_webui.env import AIOHTTP_CLIENT_SESSION_TOOL_SERVER_SSL
from open_webui.models.config import Config
from open_webui.utils.access_control import has_connection_access
from open_webui.utils.tools import build_tool_server_headers
from pydantic import BaseModel, Field

log = logging.getLogger("holdfast")

ENDPOINT = re.compile(r"(?P<base>https?://[^?#]*?)(?P<path>/mcp(?:/(?P<server>[^/?#]+))?)?/?")
"""Holdfast's own URL, or that of a connection to it, which ends in `/mcp` or `/mcp/NAME`."""
TOOL_SERVER = "server:mcp:"
"""Before a connection's id, in the ids of a chat's tools."""
LAST = {"ready", "restored", "failed"}
"""Statuses after which nothing more is said of a server."""

Emit = Callable[[dict[str, Any]], Awaitable[None]]


class Filter:
    """Before the model is asked: the chat's sessions, as far as they are behind Holdfast."""

    class Valves(BaseModel):
        """What an admin can set."""

        url: str = Field("", description="Holdfast's URL. Empty: that of the connections whose tools the chat uses.")
        key: str = Field(
            "",
            description="The key that Holdfast wants, where a URL is set. Without a URL, each connection has its own.",
            json_schema_extra={"input": {"type": "password"}},
        )
        servers: str = Field(
            "", description="Names of servers, with commas between them. Empty: all that the key or the chat reaches."
        )
        wait: float = Field(
            5.0, ge=0, description="Seconds that a message waits for its sessions at most; they go on opening after it."
        )
        connect_timeout: float = Field(
            1.0, gt=0, description="Seconds without an answer after which Holdfast counts as not there."
        )
        pause: float = Field(
            30.0,
            ge=0,
            description="Seconds for which what was not there is left alone; what is no Holdfast, 20 times as long.",
        )
        priority: int = Field(0, description="Filters with lower numbers run first.")

    def __init__(self) -> None:
        self.valves = self.Valves()
        self._paused: dict[str, float] = {}
        """Until when a URL is left alone."""
        self._tasks: set[asyncio.Task[None]] = set()
        """What was begun and is waited for no more; a task that nobody holds may be collected."""

    async def inlet(
        self,
        body: dict[str, Any],
        __user__: dict[str, Any] | None = None,
        __metadata__: dict[str, Any] | None = None,
        __request__: Any = None,
        __event_emitter__: Emit | None = None,
    ) -> dict[str, Any]:
        """Let the message on as it is, once its sessions are open, have failed, or were waited for long enough."""
        metadata = __metadata__ or {}
        if not __user__ or not metadata.get("chat_id") or __event_emitter__ is None:
            return body
        try:
            user = SimpleNamespace(**__user__)
            tool_ids = body.get("tool_ids") or metadata.get("tool_ids") or []
            warmed = await self._targets(__request__, user, metadata, tool_ids)
            if warmed:
                await self._warm(warmed, __event_emitter__)
        except Exception:  # whatever is wrong here, the message is worth more
            log.exception("the sessions of a chat could not be opened ahead")
        return body

    async def _targets(
        self, request: Any, user: Any, metadata: dict[str, Any], tool_ids: list[str]
    ) -> dict[tuple[str, str | None], dict[str, str]]:
        """The headers to send, for each URL and server (None for all) that is to be warmed."""
        targets: dict[tuple[str, str | None], dict[str, str]] = {}
        wanted = [name.strip() for name in self.valves.servers.split(",") if name.strip()]
        for server_id, connection in await self._connections(user, tool_ids):
            endpoint = ENDPOINT.fullmatch(connection.get("url", "").strip())
            if endpoint is None or (server_id and not endpoint["path"]):
                continue
            if self._paused.get(endpoint["base"], 0) > time.monotonic():
                continue
            headers, _ = await build_tool_server_headers(
                connection, request, user, server_id=server_id, metadata=metadata
            )
            one = unquote(endpoint["server"]) if endpoint["server"] else None
            for server in wanted or [one]:
                if one in (None, server):
                    targets.setdefault((endpoint["base"], server), headers)
        return targets

    async def _connections(self, user: Any, tool_ids: list[str]) -> list[tuple[str, dict[str, Any]]]:
        """The id and settings of the connections in question."""
        if self.valves.url:
            auth = {"auth_type": "bearer" if self.valves.key else "none", "key": self.valves.key}
            return [("", {"url": self.valves.url, **auth})]
        ids = {tool_id.removeprefix(TOOL_SERVER) for tool_id in tool_ids if tool_id.startswith(TOOL_SERVER)}
        found: list[tuple[str, dict[str, Any]]] = []
        for connection in (await Config.get("tool_server.connections", []) or []) if ids else []:
            server_id = (connection.get("info") or {}).get("id")
            is_on = connection.get("type") == "mcp" and (connection.get("config") or {}).get("enable")
            if server_id in ids and is_on and await has_connection_access(user, connection):
                found.append((server_id, connection))
        return found

    async def _warm(self, targets: dict[tuple[str, str | None], dict[str, str]], emit: Emit) -> None:
        tasks = {
            asyncio.create_task(self._warm_one(base, server, headers, emit))
            for (base, server), headers in targets.items()
        }
        self._tasks |= tasks
        for task in tasks:
            task.add_done_callback(self._tasks.discard)
        await asyncio.wait(tasks, timeout=self.valves.wait)

    async def _warm_one(self, base: str, server: str | None, headers: dict[str, str], emit: Emit) -> None:
        """Open what one URL has, and show each status of it; nothing where all was open."""
        timeout = aiohttp.ClientTimeout(total=300)
        own = {name: value for name, value in headers.items() if name.lower() not in {"accept", "content-type"}}
        shown: set[str] = set()
        try:
            async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session:
                async with asyncio.timeout(self.valves.connect_timeout):  # Holdfast answers at once, whatever it opens
                    response = await session.post(
                        f"{base}/api/warm",
                        json={} if server is None else {"server": server},
                        headers={**own, "Accept": "text/event-stream"},
                        ssl=AIOHTTP_CLIENT_SESSION_TOOL_SERVER_SSL,
                        allow_redirects=False,
                    )
                if response.content_type != "text/event-stream":
                    said = (await response.text())[:300]
                    self._pause(base, f"answered {response.status}: {said}", is_other=response.status in {404, 405})
                    return
                async for line in response.content:
                    if line.startswith(b"data:"):
                        await self._show(json.loads(line[5:]), shown, emit)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, LookupError, TypeError) as error:
            self._pause(base, f"cannot be asked: {error or type(error).__name__}")
            for name in sorted(shown):
                await emit(status(f"{name}: Holdfast went away.", is_done=True, is_error=True))

    async def _show(self, said: dict[str, str], shown: set[str], emit: Emit) -> None:
        name, word, sentence = said["server"], said["status"], said["message"].rstrip(".")
        if word == "failed":
            await emit(status(f"{name} failed: {sentence}", is_done=True, is_error=True))
        elif word == "restored":
            await emit(status(f"{name} was restarted and has lost its state: {sentence}", is_done=True))
        elif word not in LAST:
            shown.add(name)
            await emit(status(f"{sentence}…"))
            return
        elif name in shown:  # that all is well is news only to whom something else was shown
            await emit(status(f"{name} ready: {sentence}", is_done=True))
        shown.discard(name)

    def _pause(self, base: str, why: str, *, is_other: bool = False) -> None:
        """Leave a URL alone; where it is probably no Holdfast at all, for longer and without a warning."""
        pause = self.valves.pause * (20 if is_other else 1)
        self._paused[base] = time.monotonic() + pause
        log.log(logging.INFO if is_other else logging.WARNING, "%s %s; it is left alone for %g s", base, why, pause)


def status(description: str, *, is_done: bool = False, is_error: bool = False) -> dict[str, Any]:
    """An event that Open WebUI shows above the answer."""
    fields: dict[str, Any] = {"action": "holdfast", "description": description, "done": is_done}
    return {"type": "status", "data": {**fields, **({"error": True} if is_error else {})}}
