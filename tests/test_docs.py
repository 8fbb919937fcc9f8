"""The documentation says what the code does: its links, commands, tables and the diagram."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from exempt import EXEMPT, HANDSHAKE, MODERN, PEERS, SCENARIOS, kept
from holdfast.call import Call
from holdfast.cli.main import app
from holdfast.cli.settings import parse_headers, parse_trust, split_target
from holdfast.errors import Code, Delivery
from holdfast.session.lifecycle import NEXT
from holdfast.session.retry import Attempt, Safety, Verdict, failure, judge, judge_lost
from holdfast.testing.demo import Observation, table
from holdfast.testing.demo_host import STEPS, ScriptRun, chats
from holdfast.testing.server_tools import TOOLS
from holdfast.upstream.transport import Fault, FaultKind

ROOT: Final = Path(__file__).resolve().parent.parent
DOCS: Final = ROOT / "docs"
PACKAGE: Final = ROOT / "src" / "holdfast"
PAGES: Final = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)
_SPAN: Final = re.compile(r"`([^`\n]+)`")


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", path.read_text())


def blocks(path: Path, language: str) -> list[str]:
    return [body for name, body in _FENCE.findall(path.read_text()) if name == language]


def anchors(path: Path) -> set[str]:
    """The fragments by which a page's headings can be linked to."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(path: Path, columns: int) -> Iterator[list[str]]:
    """The cells of every row of the page's tables with that many columns, heads included."""
    for line in prose(path).splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if len(cells) == columns and not set("".join(cells)) <= {"-"}:
                yield cells


# Links.


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    broken: list[str] = []
    for link in (first or second for first, second in _LINK.findall(prose(page))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, fragment = unquote(link).partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.is_file() or (fragment and fragment not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = [first or second for first, second in _LINK.findall(prose(page))]
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links if ":" not in link]
    unreached = {page_id(page) for page in PAGES if page.parent.name != "decisions"} - {page_id(p) for p in reached}
    assert unreached == set()


# Commands.


def run_command() -> TyperCommand:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    command = group.commands["run"]
    assert isinstance(command, TyperCommand)
    return command


def run_options() -> set[str]:
    return {name for parameter in run_command().params for name in parameter.opts if name.startswith("--")}


def commands() -> Iterator[tuple[str, str]]:
    """Every `holdfast run` that a page shows in a block of shell commands or names in its text."""
    for page in PAGES:
        lines = [line for body in blocks(page, "sh") for line in body.splitlines()]
        spans: list[str] = _SPAN.findall(prose(page))
        for text in (*lines, *spans):
            if re.match(r"(\S+/)?holdfast run\s", text) and "[OPTIONS]" not in text:
                yield page_id(page), text


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_every_command_that_is_shown_is_understood(page: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in re.findall(r"\$\{(\w+)\}", command):
        monkeypatch.setenv(name, "secret")
    arguments = shlex.split(command, comments=True)[2:]
    with run_command().make_context("run", arguments) as context:
        given = context.params
    split_target(given["target"])
    parse_headers(given["header"] or [])
    parse_trust(given["trust"])


def test_a_command_with_an_option_that_does_not_exist_would_be_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        run_command().make_context("run", ["--no-such-option", "http://127.0.0.1/mcp"])


def test_the_readme_shows_commands() -> None:
    assert sum(page == "README.md" for page, _ in commands()) > 4


def test_every_option_of_run_is_documented_and_no_other() -> None:
    text = (DOCS / "configuration.md").read_text()
    documented = set(re.findall(r"^\| `(--[\w-]+)", text, re.MULTILINE))
    assert documented == run_options() | {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_that_is_shown_imports_what_exists(page: Path) -> None:
    for body in blocks(page, "python"):
        tree = compile(body, page.name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


# Errors.


def test_every_code_and_delivery_is_documented() -> None:
    page = DOCS / "errors.md"
    named = {(cells[0], cells[1]) for cells in rows(page, 4)}
    assert {(str(code.value), f"`{code.name}`") for code in Code} <= named
    codes_with_delivery = {cells[0] for cells in rows(page, 3) if cells[0].startswith("-31")}
    assert codes_with_delivery == {str(code.value) for code in Code}
    values = {cells[1].strip("`") for cells in rows(page, 3)}
    assert {delivery.value for delivery in Delivery} <= values


@pytest.mark.parametrize("kind", FaultKind)
def test_the_delivery_of_each_fault_is_documented(kind: FaultKind) -> None:
    told = failure(Fault(kind, ""), Call("tools/call"), "server")
    cells = next(cells for cells in rows(DOCS / "errors.md", 3) if cells[0] == str(told.code.value))
    assert f"`{told.delivery.value}`" in cells[1]
    assert cells[2] == f"`{str(told.retryable).lower()}`"


def test_every_status_of_a_refusal_is_documented() -> None:
    documented = {cells[0] for cells in rows(DOCS / "errors.md", 2)}
    statuses = {
        str(node.args[0].value)
        for path in (PACKAGE / "downstream").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "Refusal"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    assert "421" in statuses
    assert statuses - documented == set()


# Sessions.


def test_the_diagram_of_the_lifecycle_is_its_table() -> None:
    (diagram,) = blocks(DOCS / "sessions.md", "mermaid")
    drawn = set(re.findall(r"^ *(\w+) --> (\w+): (\w+)$", diagram, re.MULTILINE))
    assert drawn == {(state.value, after.value, event.value) for (state, event), after in NEXT.items()}


def documented_verdict(kind: FaultKind, safety: Safety) -> str:
    """What the table of repetitions must say of a fault that befell a call for the first time."""
    fault = Fault(kind, "")
    clean, dirty = (
        Attempt(safety, was_sent_before=False, has_relayed=False, is_dirty=is_dirty) for is_dirty in (False, True)
    )
    match judge(fault, clean), judge(fault, dirty):
        case Verdict.RESEND, Verdict.RESEND:
            return "again"
        case Verdict.SUSPECT, Verdict.SUSPECT:
            return "`ping` decides"
        case Verdict.RESTART, Verdict.TELL_LOST:
            return f"again if clean, else {Code.SESSION_LOST.value}"
        case Verdict.FAIL, Verdict.FAIL:
            return str(failure(fault, Call("tools/call"), "server").code.value)
        case other:
            raise AssertionError(f"the table has no words for {other}")


@pytest.mark.parametrize("kind", FaultKind)
def test_the_table_of_repetitions_is_what_is_decided(kind: FaultKind) -> None:
    name = kind.name.lower().replace("_", " ")
    cells = next(cells for cells in rows(DOCS / "sessions.md", 5) if cells[0] == name)
    assert cells[2:] == [
        documented_verdict(kind, Safety.READ),
        documented_verdict(kind, Safety.IDEMPOTENT_TOOL),
        documented_verdict(kind, Safety.UNSAFE),
    ]
    assert documented_verdict(kind, Safety.IDEMPOTENT_TOOL) == documented_verdict(kind, Safety.READ_ONLY_TOOL)


def test_a_refused_call_of_a_lost_session_is_treated_as_documented() -> None:
    clean, dirty, resuming = (
        Attempt(Safety.UNSAFE, was_sent_before=False, has_relayed=False, is_dirty=is_dirty, resumes=resumes)
        for is_dirty, resumes in ((False, False), (True, False), (True, True))
    )
    assert [judge_lost(clean), judge_lost(dirty), judge_lost(resuming)] == [
        Verdict.RESTART,
        Verdict.TELL_LOST,
        Verdict.RESTART,
    ]


# Eras.


def test_what_the_official_suite_loses_on_the_way_is_documented_and_nothing_else() -> None:
    documented = [cells for cells in rows(DOCS / "eras.md", 4) if cells[0] in {HANDSHAKE, MODERN}]
    assert documented == [[each.suite, each.peer, f"`{each.name}`", each.reason] for each in EXEMPT]


def test_how_much_of_the_official_suite_is_kept_is_documented() -> None:
    documented = {(cells[0], cells[1]): cells[2] for cells in rows(DOCS / "eras.md", 3) if cells[0] in SCENARIOS}
    assert documented == {(suite, peer): kept(suite, peer) for suite, peer in PEERS}


# The house, the test server, the demonstration.


def test_the_plan_of_the_house_names_every_room() -> None:
    text = (DOCS / "architecture.md").read_text()
    packages = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    modules = {path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}
    session = {path.name for path in (PACKAGE / "session").glob("*.py") if path.name != "__init__.py"}
    assert {name for name in packages | modules | session if f"`{name}`" not in text} == set()


def test_the_plan_of_the_house_names_no_file_that_is_not_there() -> None:
    named = set(re.findall(r"`(?:\w+/)*(\w+\.py)`", (DOCS / "architecture.md").read_text()))
    there = {path.name for folder in (PACKAGE, ROOT / "tests") for path in folder.rglob("*.py")}
    assert named - there == set()


def test_every_option_and_tool_of_the_test_server_is_documented() -> None:
    text = (DOCS / "testing.md").read_text()
    options = set(re.findall(r'add\("(--[\w-]+)"', (PACKAGE / "testing" / "server.py").read_text()))
    assert len(options) > 10
    assert {option for option in options if f"`{option}" not in text} == set()
    assert {tool for tool in TOOLS if f"`{tool}`" not in text} == set()


def test_the_readme_shows_the_table_of_the_demonstration() -> None:
    conversations = chats()
    for chat in conversations:
        chat.seconds = [0.1] * len(chat.messages)
    seen = Observation(conversations, 3, 1.0, ScriptRun(200, has_result=True, progress=STEPS))
    (shown,) = (body for body in blocks(ROOT / "README.md", "") if "with Holdfast" in body)
    labels = [str(cell) for cell in table(seen, seen).columns[0].cells if cell]
    lines = shown.splitlines()
    assert [label for label in labels if not any(line.startswith(label) for line in lines)] == []
