"""Open WebUI as it is installed into .hosts: started, set up and talked to as its own page does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx2

from hosts.fake_model import MODEL
from processes import ROOT, Process, free_port, start

HOME: Final = ROOT / ".hosts" / "open-webui"
TAB: Final = Path(__file__).with_name("browser_tab.py")
FILTER: Final = ROOT / "integrations" / "openwebui" / "holdfast_filter.py"
PATIENCE: Final = 120.0
"""Seconds within which anything that it does on one machine has happened."""
Entered = TypeVar("Entered")
PASSWORD: Final = "correct horse battery staple"

_ALONE: Final = {
    "OFFLINE_MODE": "true",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "RAG_EMBEDDING_ENGINE": "openai",
    "BYPASS_EMBEDDING_AND_RETRIEVAL": "true",
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "true",
    "SCARF_NO_ANALYTICS": "true",
    "ENABLE_OLLAMA_API": "false",
    "ENABLE_EVALUATION_ARENA_MODELS": "false",
    "ENABLE_TITLE_GENERATION": "false",
    "ENABLE_TAGS_GENERATION": "false",
    "ENABLE_FOLLOW_UP_GENERATION": "false",
    "BYPASS_MODEL_ACCESS_CONTROL": "true",
}
"""Nothing is fetched from elsewhere, and whoever comes may have an account and the model."""


@dataclass(frozen=True)
class Answer:
    """What became of one message."""

    chat: str
    message: str
    text: str
    statuses: list[str]
    """The lines above it, in order."""


class Person:
    """An account, with one page open."""

    def __init__(self, http: httpx2.AsyncClient, name: str) -> None:
        self._http = http
        self.name = name
        self.id = ""
        self.token = ""
        self.socket = ""
        """The id of the page's connection."""
        self.events: list[dict[str, Any]] = []
        """What the page was told, in order."""
        self._news = asyncio.Event()

    async def sign_in(self, admin: Person | None) -> None:
        """Make the account, unless it is there: the first is the admin's, who makes all others."""
        form = {"email": f"{self.name.lower()}@example.org", "password": PASSWORD}
        answer = await self._http.post("/api/v1/auths/signin", json=form)
        if answer.status_code != 200:
            account = {**form, "name": self.name}
            if admin is None:
                answer = await self._http.post("/api/v1/auths/signup", json=account)
            else:
                await admin.ask("POST", "/api/v1/auths/add", {**account, "role": "user"})
                answer = await self._http.post("/api/v1/auths/signin", json=form)
            answer.raise_for_status()
        self.id, self.token = answer.json()["id"], answer.json()["token"]

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What its API answers to a request of this person."""
        answer = await self._http.request(method, path, json=body, headers={"Authorization": f"Bearer {self.token}"})
        assert answer.status_code == 200, (method, path, answer.status_code, answer.text[:2000])
        return answer.json()

    @asynccontextmanager
    async def page(self, url: str, answer: Any) -> AsyncGenerator[None]:
        """Keep a page open within the block; `answer` is given to every question of a server."""
        child = await asyncio.create_subprocess_exec(
            HOME / "bin" / "python",
            TAB,
            url,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps({"token": self.token, "answer": answer}).encode() + b"\n")
        try:
            async with asyncio.TaskGroup() as tasks:
                async with asyncio.timeout(PATIENCE):
                    self.socket = json.loads(await child.stdout.readline())["sid"]
                reader = tasks.create_task(self._read(child.stdout))
                yield
                reader.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()

    async def _read(self, stdout: asyncio.StreamReader) -> None:
        while line := await stdout.readline():
            self.events.append(json.loads(line))
            self._news.set()

    async def heard(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event that is wanted; waits for it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for event in self.events:
                    if wanted(event):
                        return event
                self._news.clear()
                await self._news.wait()

    async def begin(
        self,
        text: str,
        chat: str | None = None,
        tools: Sequence[str] = ("server:mcp:hf",),
        models: Sequence[str] = (MODEL,),
    ) -> tuple[str, list[str]]:
        """Send a message, in a new chat where none is named; the ids of the chat and of the answers to come."""
        parent: str | None = None
        if chat is not None:
            history = (await self.ask("GET", f"/api/v1/chats/{chat}"))["chat"]["history"]
            parent = history["currentId"]
        question = {
            "id": str(uuid.uuid4()),
            "parentId": parent,
            "childrenIds": [],
            "role": "user",
            "content": text,
            "timestamp": 0,
            "models": list(models),
        }
        answers = [str(uuid.uuid4()) for _ in models]
        body: dict[str, Any] = {
            "stream": True,
            "model": models[0],
            "messages": [{"role": "user", "content": text}],
            "message_ids": [{"model_id": m, "message_id": a} for m, a in zip(models, answers, strict=True)],
            "parent_id": parent,
            "user_message": question,
            "session_id": self.socket,
            "tool_ids": list(tools),
            "background_tasks": {},
            **({} if chat is None else {"chat_id": chat}),
        }
        begun = await self.ask("POST", "/api/chat/completions", body)
        return begun["chat_id"], answers

    async def say(self, text: str, chat: str | None = None, **how: Any) -> Answer:
        """Send a message, and wait for the answer."""
        chat, (message, *_) = await self.begin(text, chat, **how)
        return await self.answer(chat, message)

    async def answer(self, chat: str, message: str) -> Answer:
        """What the page shows once all is said."""
        await self.heard(lambda event: event.get("message_id") == message and is_last(event["data"]))
        kept = (await self.ask("GET", f"/api/v1/chats/{chat}"))["chat"]["history"]["messages"][message]
        lines = [each["description"] for each in kept.get("statusHistory", [])]
        return Answer(chat, message, kept["content"], lines)

    def statuses(self, message: str) -> list[str]:
        """The lines above an answer, as the page was told them."""
        told = [each["data"] for each in self.events if each.get("message_id") == message]
        return [each["data"]["description"] for each in told if each["type"] == "status"]


def is_last(data: Mapping[str, Any]) -> bool:
    """Whether no more comes for the message of an event."""
    return data["type"] == "chat:active" and not data["data"]["active"]


@asynccontextmanager
async def person_at(url: str, name: str, *, admin: Person | None = None, answer: Any = None) -> AsyncGenerator[Person]:
    """Somebody with an account and an open page, within the block; `answer` is what each question gets."""
    async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as http:
        person = Person(http, name)
        await person.sign_in(admin)
        async with person.page(url, answer):
            yield person


@contextmanager
def open_webui(folder: Path, model_url: str, **environment: str) -> Generator[tuple[str, Process]]:
    """An instance with an empty database in `folder`, once it answers."""
    assert (HOME / ".ready").exists(), "Open WebUI is not installed: run `make test-hosts`"
    port = free_port()
    settings = {
        **_ALONE,
        "DATA_DIR": str(folder),
        "WEBUI_SECRET_KEY": "secret",
        "OPENAI_API_BASE_URL": model_url,
        "OPENAI_API_KEY": "any",
        **environment,
    }
    with start(
        HOME / "bin" / "open-webui", "serve", "--host", "127.0.0.1", "--port", str(port), environment=settings
    ) as process:
        process.wait_for_line(r"Scheduler worker started|Uvicorn running")
        process.wait_for_port(port)
        yield f"http://127.0.0.1:{port}", process


def connection(url: str, key: str = "", **more: Any) -> dict[str, Any]:
    """A tool server as the admin's dialog saves it, with the id `hf`, for everybody."""
    everybody = [{"principal_type": "user", "principal_id": "*", "permission": "read"}]
    return {
        "url": url,
        "path": "",
        "type": "mcp",
        "auth_type": "bearer" if key else "none",
        "key": key,
        "headers": None,
        "config": {"enable": True, "function_name_filter_list": "", "access_grants": everybody},
        "info": {"id": "hf", "name": "Holdfast", "description": ""},
        **more,
    }


@asynccontextmanager
async def beside(manager: AbstractContextManager[Entered]) -> AsyncGenerator[Entered]:
    """Enter and leave what waits for other programs, while the loop serves them."""
    entered = await asyncio.to_thread(manager.__enter__)
    try:
        yield entered
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)
