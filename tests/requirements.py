"""What Holdfast owes: each requirement with an id, one sentence and where it comes from.

A test names the requirement that it holds with `@requirement(id)`. tests/test_requirements.py
sees to it that no test names an unknown id and that no requirement goes without a test.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import pytest


class Requirement(NamedTuple):
    """One thing that must hold, and who says so."""

    sentence: str
    source: str


REQUIREMENTS: Final[dict[str, Requirement]] = {
    # wire
    "wire:client:what-goes-on-reads-the-same-everywhere": Requirement(
        "What is sent on of a client's request means the same to every JSON parser.",
        "threats-and-faults 24",
    ),
    "wire:client:depth-is-bounded": Requirement(
        "A client's message nested deeper than 128 levels is refused.",
        "threats-and-faults 24",
    ),
    "wire:client:integers-fit-64-bits": Requirement(
        "A client's integer beyond 64 bits is refused, since parsers round it differently.",
        "threats-and-faults 24",
    ),
    "wire:client:malformed-is-answered": Requirement(
        "Bytes that are no JSON-RPC are refused with -32700 or -32600, never with a crash.",
        "threats-and-faults 23",
    ),
    "wire:ids:types-are-kept": Requirement(
        'The request ids 1, "1" and 1.0 are three ids, and each is answered as it was sent.',
        "threats-and-faults 2",
    ),
    "wire:server:results-pass-untouched": Requirement(
        "A server's result goes on byte for byte, apart from line ends outside its strings.",
        "architecture 3, step 2",
    ),
    "wire:sse:whatwg-framing-only": Requirement(
        "Event streams are cut at CR, LF and CRLF and nowhere else, however the bytes arrive.",
        "threats-and-faults 27",
    ),
    "wire:sse:events-are-bounded": Requirement(
        "An event beyond the size limit ends the stream instead of filling the memory.",
        "threats-and-faults 26",
    ),
    "wire:sse:feeding-takes-linear-time": Requirement(
        "Reading a stream costs the same per byte, however small its chunks and however long its lines.",
        "threats-and-faults 26",
    ),
    "wire:headers:session-ids-are-visible-ascii": Requirement(
        "A session id is visible ASCII, 0x21 to 0x7E.",
        "MCP 2025-11-25, Transports, Session Management",
    ),
    "wire:headers:curl-gets-json": Requirement(
        "A client that names no type, or any type, is answered with plain JSON.",
        "architecture 3, step 5",
    ),
    "wire:revisions:unknown-gets-latest": Requirement(
        "An `initialize` for a revision that we do not speak is answered with our latest.",
        "MCP 2025-11-25, Lifecycle, Version Negotiation",
    ),
    # tasks
    "tasks:a-failure-ends-one-child": Requirement(
        "A background task that fails is logged and ends alone.",
        "architecture 6, concurrency",
    ),
    # settings
    "config:reachable-needs-a-key": Requirement(
        "A gateway that other machines can reach does not start without keys.",
        "architecture 5, principals",
    ),
    "config:secrets-stay-secret": Requirement(
        "No credential appears in the text form of settings or in what is said about wrong ones.",
        "threats-and-faults 21",
    ),
    "config:mistakes-are-named-with-their-line": Requirement(
        "A mistake in a settings file is told with file, line, key and what would be right, all mistakes at once.",
        "operator's gateway issue, holdfast check",
    ),
    "config:any-key-of-a-client-is-that-client": Requirement(
        "Every key of a client makes the same principal, and a key taken out of the list admits nobody.",
        "architecture 1, principal",
    ),
    "config:credentials-are-part-of-the-key": Requirement(
        "Two credentials towards a server have two fingerprints, and so never share a session.",
        "architecture 5, key",
    ),
    "config:names-are-told-apart": Requirement(
        "Settings under which two tools could be called the same at /mcp are refused.",
        "operator's gateway issue, prefixes and aliases",
    ),
    "config:headers-of-one-caller-reach-no-other": Requirement(
        "A client's credential never goes on to a server, and headers that do are refused where sessions mix callers.",
        "operator's gateway issue, pass_headers",
    ),
    # conformance
    "conformance:handshake:nothing-is-lost": Requirement(
        "Every conformance check that a server passes directly, it passes through the gateway.",
        "official MCP conformance suite, 2025-11-25",
    ),
    # interop: real programs
    "interop:everything:works-as-directly": Requirement(
        "Everything that the reference server offers works through the gateway, over stdio and HTTP.",
        "issue 1, proof by real programs",
    ),
    "interop:everything:tasks": Requirement(
        "A tool of server-everything that must be a task is called by a client that knows none, and asks it.",
        "issue 4, tasks across eras",
    ),
    "interop:sdk:every-handshake-feature": Requirement(
        "The official SDK's client finds every feature of a handshake server, in its default mode too.",
        "issue 1, proof by real programs",
    ),
    "interop:one-connection:callers-share-it": Requirement(
        "Clients of a server that takes one connection at a time are all served, over one connection.",
        "issue 1, proof by real programs",
    ),
    "interop:supergateway:progress-finds-its-call": Requirement(
        "Progress that a server sends on the wrong call's stream reaches the call it belongs to.",
        "issue 1, proof by real programs",
    ),
    "interop:browser:a-chat-keeps-its-page": Requirement(
        "A page opened in one message of a chat is there in the next, and in no other chat.",
        "issue 1, proof by real programs",
    ),
    "interop:inspector:lists-and-calls": Requirement(
        "The MCP Inspector lists and calls tools.",
        "issue 1, proof by real programs",
    ),
    "interop:curl:no-session-needed": Requirement(
        "`curl` lists and calls tools, with progress, with and without a session.",
        "issue 1, proof by real programs",
    ),
    "interop:searxng:initializes-are-spared": Requirement(
        "A host that connects anew for every message costs a server that counts initializes one for each chat.",
        "operator's gateway issue, real servers",
    ),
    "interop:notion:schemas-pass-untouched": Requirement(
        "Tools and their schemas are listed as the server wrote them, key for key.",
        "operator's gateway issue, real servers",
    ),
    "interop:memory:each-chat-its-own": Requirement(
        "What a server process remembers of one chat is there in its next message, and in no other chat.",
        "operator's gateway issue, real servers",
    ),
    "interop:several:one-file-serves-them": Requirement(
        "Real servers of several kinds work at once behind one settings file.",
        "operator's gateway issue, real servers",
    ),
    "interop:several:one-url-has-all-tools": Requirement(
        "At `/mcp` one client lists and calls the tools of several real servers at once, each under its prefix.",
        "operator's gateway issue, real servers",
    ),
    "soak:back-to-where-it-was": Requirement(
        "After hours under mixed load no descriptor, thread, child or upstream session is left, nor memory leaked.",
        "threats-and-faults 50",
    ),
    "command:start:says-where-and-when-ready": Requirement(
        "The command says where it listens, that it connects, and when the server is ready.",
        "issue 1, proof by real programs",
    ),
    "command:start:help-loads-only-the-parser": Requirement(
        "Help, version and mistakes in options are answered without loading what serves or reads settings.",
        "issue 5",
    ),
    "command:start:loads-what-it-needs": Requirement(
        "A gateway starts without YAML, the Prometheus client, the MCP SDK's types or its own sources.",
        "issue 5, start to first answered call",
    ),
    "bench:counts:what-was-answered": Requirement(
        "A measurement counts each answer once, and an answer that is an error as an error.",
        "issue 5, holdfast bench",
    ),
    "bench:shows:direct-and-through-holdfast": Requirement(
        "One sees what a server takes directly and through Holdfast, and what a host that reconnects gains.",
        "issue 5, holdfast bench",
    ),
    "bench:mistakes:one-line": Requirement(
        "What cannot be measured is told in one readable line, before anything is measured.",
        "issue 5, holdfast bench",
    ),
    "bench:end:leaves-no-process": Requirement(
        "A measurement that is stopped, or killed, leaves no gateway and no server process.",
        "issue 5, holdfast bench",
    ),
    "command:mistakes:one-line-and-exit-2": Requirement(
        "An operator's mistake is answered with one readable line and exit status 2.",
        "issue 1, proof by real programs",
    ),
    "command:server:down-is-no-end": Requirement(
        "While its server cannot be reached the gateway keeps running, says why once, and is ready once it can.",
        "issue 1, proof by real programs",
    ),
    "command:secrets:never-in-the-output": Requirement(
        "A credential towards the server reaches it and never the terminal or the log.",
        "issue 1, proof by real programs",
    ),
    "command:end:nothing-is-left-within-5-s": Requirement(
        "A signal ends the command within 5 s with calls running, and no child outlives it, killed or not.",
        "issue 1, proof by real programs",
    ),
    # exchange
    "exchange:matrix:every-client-over-every-transport": Requirement(
        "Clients with, without and with ever new sessions are served alike over every transport and revision.",
        "architecture 4",
    ),
    "exchange:matrix:three-curl-steps": Requirement(
        "Initialize with 2024-11-05, an array with the session and no Accept, and a list without it all work.",
        "hosts: LiteLLM",
    ),
    "exchange:sessions:ids-are-ours": Requirement(
        "A client that initializes gets a session id of ours, whatever form the answer takes.",
        "architecture 5, a client's own session",
    ),
    "exchange:sessions:priming-from-2025-11-25": Requirement(
        "Streams begin with an empty event for clients of 2025-11-25, and for no others.",
        "MCP 2025-11-25, Transports, SEP-1699",
    ),
    "exchange:sessions:resumption": Requirement(
        "A client that lost a stream gets what came after the last event it saw, each event once.",
        "threats-and-faults 40",
    ),
    "exchange:sessions:one-push-stream": Requirement(
        "A second GET is refused with 409, and only a valid Last-Event-ID takes the stream over.",
        "threats-and-faults 5",
    ),
    "exchange:sessions:event-ids-are-proofs": Requirement(
        "An event id of another session, or a made-up one, replays nothing.",
        "threats-and-faults 6",
    ),
    "exchange:sessions:not-found-is-not-found": Requirement(
        "A session id that is another's, has ended or never was gets the same 404.",
        "threats-and-faults 4",
    ),
    "exchange:sessions:survives-upstream-loss": Requirement(
        "A client session never ends because a server lost its own.",
        "architecture 5, a client's own session",
    ),
    "exchange:sessions:delete": Requirement(
        "DELETE is answered at once; what only that session named ends behind the answer.",
        "architecture 5, a client's own session",
    ),
    "exchange:sessions:idle": Requirement(
        "A client session ends some time after its last stream and request ended, and not before.",
        "architecture 5, a client's own session",
    ),
    "exchange:sessionless:private": Requirement(
        "A request that names no chat runs in a session of its own, which ends with it.",
        "architecture 5, the chat",
    ),
    "exchange:sessionless:lasting-wishes": Requirement(
        "A client without a session cannot change what others of a shared session hear.",
        "threats-and-faults 3",
    ),
    "exchange:arrays:accepted": Requirement(
        "Arrays are taken without a session and up to revision 2025-03-26, and answered whole.",
        "MCP 2025-03-26, Base Protocol, Batching",
    ),
    "exchange:arrays:refused": Requirement(
        "Arrays are refused with 400 and -32600 from 2025-06-18 on, and never initialize.",
        "MCP 2025-06-18, changelog",
    ),
    "exchange:leaving:without-a-session-cancels": Requirement(
        "A client without a session that leaves cancels its calls, for nobody can read the answers.",
        "threats-and-faults 40",
    ),
    "exchange:leaving:with-a-session-does-not": Requirement(
        "A client with a session that leaves cancels nothing.",
        "threats-and-faults 40",
    ),
    "exchange:answers:form": Requirement(
        "A result that comes first is plain JSON, anything else opens a stream, within what Accept allows.",
        "architecture 3, step 5",
    ),
    "exchange:answers:silence": Requirement(
        "Five silent seconds open a stream, which gets a comment every fifteen.",
        "architecture 3, step 5",
    ),
    "exchange:answers:order": Requirement(
        "What a server sent before a result reaches the client before it.",
        "architecture 4",
    ),
    "exchange:answers:nothing-lost-without-a-stream": Requirement(
        "A notification that a plain JSON answer cannot carry comes on the client's GET stream.",
        "architecture 4",
    ),
    "exchange:answers:large": Requirement(
        "A large result passes whole, as JSON and on a stream.",
        "architecture 8",
    ),
    "exchange:relay:ids-and-tokens": Requirement(
        "Request ids and progress tokens come back to whoever sent them, with their type.",
        "threats-and-faults 2",
    ),
    "exchange:relay:untouched": Requirement(
        "Methods, notifications, fields and errors that we do not know pass unharmed.",
        "architecture 7, errors",
    ),
    "exchange:relay:meta": Requirement(
        "A client's `_meta` reaches the server, without the key that names a chat to us.",
        "architecture 5, the chat",
    ),
    "exchange:relay:logs": Requirement(
        "A client hears the log levels it asked for; the server is asked for the lowest of all.",
        "threats-and-faults 3",
    ),
    "exchange:relay:cancel": Requirement(
        "Only the client session that sent a request can cancel it; the server is told, nothing is answered.",
        "threats-and-faults 9",
    ),
    "exchange:relay:features": Requirement(
        "Ping, completion, prompts, resources, templates and pages work with and without a session.",
        "MCP 2025-11-25, Server Features",
    ),
    "exchange:relay:subscriptions": Requirement(
        "A resource is subscribed once per session and until the last client lets go; only subscribers hear of it.",
        "architecture 4",
    ),
    "exchange:relay:list-changed": Requirement(
        "Every client hears that a list changed, and then gets the new one.",
        "architecture 5, lists",
    ),
    "exchange:asks:answered-by-the-caller": Requirement(
        "A server's question reaches the client whose call it is, on that call's stream, and its answer comes back.",
        "threats-and-faults 3",
    ),
    "exchange:asks:nobody": Requirement(
        "Where nobody can be asked, elicitation is cancelled, sampling refused and roots are none, at once.",
        "architecture 5, capabilities",
    ),
    "exchange:asks:roots": Requirement(
        "A server that was told of no roots hears of a change once a caller with roots appears.",
        "architecture 5, capabilities",
    ),
    "exchange:asks:withdrawn": Requirement(
        "A question that is over, for whatever reason, is taken back from the client and answered to the server.",
        "architecture 4",
    ),
    "exchange:asks:resumed": Requirement(
        "A client that lost its stream finds an open question on the resumed one.",
        "threats-and-faults 40",
    ),
    "exchange:asks:only-the-asked-answers": Requirement(
        "Only the client session that was asked can answer.",
        "threats-and-faults 4",
    ),
    "exchange:asks:complete": Requirement(
        "That an elicitation is complete is told to the client that was asked, and to nobody else.",
        "threats-and-faults 3",
    ),
    "exchange:asks:pages": Requirement(
        "Error -32042 goes to the caller as it is, and who got it hears that its pages are done.",
        "MCP 2025-11-25, Elicitation; bridging, row elicitation url",
    ),
    "exchange:asks:pushed": Requirement(
        "A question of no call goes to the one client with a GET stream, else is answered at once.",
        "architecture 5, capabilities",
    ),
    "exchange:chats:ladder": Requirement(
        "A chat is named by `_meta`, else a trusted header, else the path, else the client's session.",
        "architecture 5, the chat",
    ),
    "exchange:chats:users": Requirement(
        "Users and clients never share a chat, and who is missing shares nothing.",
        "threats-and-faults 1",
    ),
    "exchange:chats:unnamed-are-strangers": Requirement(
        "Users whom a trusted host leaves unnamed count as different people, in a shared session too.",
        "threats-and-faults 1",
    ),
    "exchange:chats:scopes": Requirement(
        "The scopes user and shared join what their names say, and nothing more.",
        "architecture 5, scope",
    ),
    "exchange:chats:reconnecting-hosts": Requirement(
        "A host that connects anew for every message finds the state of its chat, in one upstream session.",
        "hosts: Open WebUI",
    ),
    "exchange:chats:catalogue-needs-no-session": Requirement(
        "Initialize, lists and ping open no session once the catalogue knows the server.",
        "architecture 5, lists",
    ),
    "exchange:refusals:bodies": Requirement(
        "A body that cannot be taken is refused with 400, a code and a sentence, and nothing is sent on.",
        "threats-and-faults 23",
    ),
    "exchange:refusals:size": Requirement(
        "A body beyond 4 MiB is refused with 413, and a client that first sends all of it can read so.",
        "threats-and-faults 26",
    ),
    "exchange:refusals:rest": Requirement(
        "What a client still sends once it has been answered is bounded in bytes and time, and costs it no answer.",
        "threats-and-faults 29; RFC 9112, section 9.6",
    ),
    "exchange:refusals:headers": Requirement(
        "Types, versions and doubled headers that do not fit are refused with the status that HTTP has for it.",
        "MCP 2025-11-25, Transports",
    ),
    "exchange:refusals:rebinding": Requirement(
        "Foreign names get 421 and foreign origins 403.",
        "threats-and-faults 18",
    ),
    "exchange:refusals:keys": Requirement(
        "Without a good key there is 401 with WWW-Authenticate, whatever else is wrong.",
        "threats-and-faults 11",
    ),
    "exchange:refusals:paths": Requirement(
        "Unknown paths get 404 and unknown methods 405, and both say what is served.",
        "architecture 7, endpoints",
    ),
    "exchange:refusals:duplicates": Requirement(
        "A request id that is running is refused with 409, and the running call goes on.",
        "threats-and-faults 25",
    ),
    "exchange:refusals:connection": Requirement(
        "A refusal ends neither the connection nor anything else.",
        "architecture 7, errors",
    ),
    "exchange:sessions:bounded": Requirement(
        "Client sessions are bounded in all, per named user at its own cost only, and in what one remembers.",
        "threats-and-faults 22",
    ),
    "exchange:sessions:answered-whatever-fails": Requirement(
        "A request that fails within the gateway is answered, and nothing of it stays.",
        "threats-and-faults: every call is answered once",
    ),
    "exchange:sessions:heartbeat": Requirement(
        "An idle GET stream gets a comment every fifteen seconds.",
        "architecture 3, step 5",
    ),
    # end of exchange
    # pool
    "pool:opening:single-flight": Requirement(
        "Calls that need the same session wait for one opening.",
        "architecture 5, lifecycle",
    ),
    "pool:opening:survives-its-first-caller": Requirement(
        "An opening belongs to the session: the first caller's disconnect harms nobody else.",
        "architecture 5, lifecycle",
    ),
    "pool:idle:in-flight-is-not-idle": Requirement(
        "A session that runs a call is not idle, however long the call takes.",
        "architecture 5, lifecycle",
    ),
    "pool:spares:are-set-up-when-adopted": Requirement(
        "A spare gets the log level and subscriptions of its new key before the first call.",
        "architecture 5, spares and loss",
    ),
    "pool:room:evicts-the-longest-idle": Requirement(
        "Beyond `max_sessions` the longest-idle session makes room, and its key is told once.",
        "architecture 5, lifecycle",
    ),
    "pool:room:waits-then-tells": Requirement(
        "Where nothing is idle a call waits for `acquire_timeout`, then gets -31005.",
        "architecture 5, lifecycle",
    ),
    "pool:keys:never-shared": Requirement(
        "Two calls share a session only where every field of their keys is equal.",
        "threats-and-faults 1",
    ),
    "pool:suspicion:one-ping": Requirement(
        "One `ping` decides for every call that a session's server refused.",
        "architecture 5, loss",
    ),
    "pool:loss:clean-calls-are-resent-once": Requirement(
        "Calls refused in a clean session that is lost run once, in one new session.",
        "threats-and-faults 32",
    ),
    "pool:loss:dirty-is-told-once": Requirement(
        "A loss of what a session remembered is told once, to all calls that it refused.",
        "architecture 5, loss; decision 5",
    ),
    "pool:loss:ends-what-is-in-flight": Requirement(
        "No call outlasts the session that it was sent in.",
        "threats-and-faults 30",
    ),
    "pool:loss:cut-off-is-told": Requirement(
        "An unsafe call cut off by a loss gets -31002 and is never sent again.",
        "threats-and-faults F",
    ),
    "pool:loss:list-changed-where-lists-differ": Requirement(
        "After a reopening, watchers hear of the lists that differ.",
        "architecture 5, loss",
    ),
    "pool:call:nobody-waits-for-an-answer-that-failed": Requirement(
        "An answer that fails on its way to the caller becomes an error, or the end of its connection.",
        "architecture 4: exactly one answer",
    ),
    "http-upstream:an-opening-given-up-is-ended": Requirement(
        "A session that a server begins after nobody waits for it any more is ended there.", "architecture 5, End"
    ),
    "pool:time:silence-ends-a-call": Requirement(
        "A call without a message of the server for `call_timeout` ends and is cancelled upstream.",
        "architecture 5, time",
    ),
    "pool:time:stands-still-while-asked": Requirement(
        "The clocks of a call stand still while a question of it is open.",
        "architecture 5, time",
    ),
    "pool:asks:time-out": Requirement(
        "A question that nobody answers within `ask_timeout` is answered for them.",
        "architecture 5, time",
    ),
    "pool:asks:bounded": Requirement(
        "A server has a hundred questions open in one call, or in a session beside its calls, at most.",
        "threats-and-faults: bounded everything",
    ),
    "pool:asks:nobody-is-answered-for": Requirement(
        "Where nobody can be asked, the server is told so at once and always the same way.",
        "architecture 5, capabilities declared upstream",
    ),
    "pool:asks:belong-to-one": Requirement(
        "A question without a stream is put to the one call in flight, or the one watcher, or to nobody.",
        "architecture 5, capabilities declared upstream",
    ),
    "pool:slots:bounded": Requirement(
        "Of the calls of one server 64 are sent, 256 wait, and the next one gets -31005 at once.",
        "threats-and-faults 39",
    ),
    "pool:slots:parked-take-none": Requirement(
        "A call that waits for a person takes no slot.",
        "architecture 8",
    ),
    "pool:cancel:ends-once": Requirement(
        "A call that is cancelled ends exactly once, whatever it was waiting for.",
        "architecture 4",
    ),
    "pool:callers:a-failure-ends-one-call": Requirement(
        "An exception in a callback of a caller ends that call and no other.",
        "architecture 4",
    ),
    "pool:push:belongs-to-the-only-call": Requirement(
        "A log without a stream belongs to the one call in flight.",
        "threats-and-faults 3",
    ),
    "pool:loss:refused-ping-is-the-proof": Requirement(
        "Only a refused ping proves that a refused call was not executed.", "threats-and-faults F"
    ),
    "catalog:resources:nobodys-or-ones-own": Requirement(
        "Resources are listed from the caller's own session, or from one that nobody used.", "threats-and-faults 8"
    ),
    "pool:loss:crash-loops-are-slowed": Requirement(
        "Sessions of one key that die soon after they opened follow each other after 0.25 to 30 seconds.",
        "threats-and-faults 34",
    ),
    "pool:push:shared-never-leaks": Requirement(
        "What a session that two principals share says of nobody in particular reaches nobody.",
        "threats-and-faults 3",
    ),
    "pool:roots:owed": Requirement(
        "A server that was told of no roots hears when somebody with roots comes.",
        "architecture 5, capabilities declared upstream",
    ),
    "catalog:fresh-lists-need-no-session": Requirement(
        "A list never opens, uses or waits for a session when the catalogue can answer.",
        "architecture 5, lists",
    ),
    "catalog:stale-then-refreshed": Requirement(
        "A list that may be old is answered at once and refreshed behind the answer.",
        "architecture 5, lists",
    ),
    "catalog:pushes-keep-lists-fresh": Requirement(
        "While a server announces its changes, a list is believed until it does.",
        "architecture 5, lists",
    ),
    "catalog:changes-in-a-gap-are-found": Requirement(
        "A change while the way for announcements was closed is found.",
        "architecture 5, lists",
    ),
    "catalog:list-changed-invalidates": Requirement(
        "After `list_changed` the next list is the new one.",
        "architecture 5, lists",
    ),
    "catalog:undeclared-is-not-found": Requirement(
        "A list that the server does not offer is answered with -32601, without a session.",
        "architecture 5, lists",
    ),
    "catalog:lists-survive-a-loss": Requirement(
        "A list is asked for once more where its session turns out to be lost.",
        "threats-and-faults F",
    ),
    "catalog:a-failed-learning-answers-everyone": Requirement(
        "Where a server cannot be reached, everyone who waits for its introduction or lists is told.",
        "architecture 5, lists",
    ),
    "catalog:lists-per-session-are-not-shared": Requirement(
        "Lists that differ by session are never shared.",
        "threats-and-faults 8",
    ),
    "session:lifecycle:only-the-tables-edges": Requirement(
        "A session moves along the edges of one table and no other way.",
        "architecture 5, lifecycle",
    ),
    "session:key:compared-whole": Requirement(
        "Keys are compared whole: one field that differs makes another session.",
        "architecture 5, key",
    ),
    "retry:the-table": Requirement(
        "A call without an answer is judged by the evidence of its delivery and by what repeating it could do.",
        "threats-and-faults F",
    ),
    "retry:nothing-after-relaying": Requirement(
        "A call of which something was relayed is never sent again.",
        "threats-and-faults F",
    ),
    "retry:unsafe-at-most-once": Requirement(
        "What is not safe to repeat is sent again only where it provably was not executed.",
        "threats-and-faults F",
    ),
    "isolation:nobody-gets-anothers": Requirement(
        "No canary of one user reaches another, in results, progress, logs, questions, lists or pushes.",
        "threats-and-faults 1, 3 and 9",
    ),
    "isolation:colliding-ids": Requirement(
        "Equal ids of many clients are answered each to its own, whatever the order.",
        "threats-and-faults 2",
    ),
    "isolation:session-ids-are-pointers": Requirement(
        "Who uses a session id that is not its own is answered as for an unknown one, and the owner notices nothing.",
        "threats-and-faults 4",
    ),
    "isolation:the-suite-sees": Requirement(
        "Each of ten and more gateways that leak in one way is found out by the isolation suite.",
        "threats-and-faults 10",
    ),
    "pool:invariants": Requirement(
        "Whatever happens in whatever order, every call ends exactly once, limits hold, and nothing is left behind.",
        "architecture 4 and 5",
    ),
    "pool:loss:each-call-by-itself": Requirement(
        "Calls in flight when their session is found lost are each settled by the answer or refusal that they get.",
        "threats-and-faults 32",
    ),
    # end of pool
    # faults: whole gateway, broken servers, networks and clients
    "faults:death:never-twice": Requirement(
        "A call that its server's death cuts off is executed at most once and answered exactly once, with -31002.",
        "threats-and-faults 30, F",
    ),
    "faults:death:reads-go-on": Requirement(
        "A request that is safe to repeat is sent once more after its server died, and answered.",
        "threats-and-faults 30, F",
    ),
    "faults:loss:told-once": Requirement(
        "The next call after a session with memory was lost is told so, once, and the one after runs.",
        "architecture 5, Loss",
    ),
    "faults:death:last-words-are-the-operators": Requirement(
        "What a server wrote as it died reaches the log, and no caller.", "threats-and-faults 3"
    ),
    "faults:loss:one-answer-per-call": Requirement(
        "Every call over restarts of a server gets exactly one answer.", "threats-and-faults 32"
    ),
    "faults:loss:one-opening-per-key": Requirement(
        "However many calls a forgotten session refuses, its key opens one session.", "threats-and-faults 32, 37"
    ),
    "faults:loss:a-refusal-is-a-suspicion": Requirement(
        "A 400 or 404 of a server that still answers ping is relayed, and the session keeps its memory.",
        "architecture 5, Loss",
    ),
    "faults:down:told-in-time": Requirement(
        "A server that refuses connections is told of with -31001 at once, and used as soon as it is back.",
        "threats-and-faults 31",
    ),
    "faults:down:lists-stay": Requirement(
        "Lists that are known are served while their server is down.", "architecture 5, Lists"
    ),
    "faults:stall:ends-one-call": Requirement(
        "A call without an answer ends by its timeout, is cancelled at the server, and holds up no other.",
        "threats-and-faults 33",
    ),
    "faults:stall:found-by-tcp": Requirement(
        "A peer that vanished without a word is noticed by TCP, long before the call's timeout.",
        "threats-and-faults 33",
    ),
    "faults:time:monotonic": Requirement(
        "Nothing expires because somebody set the clock of the machine.", "threats-and-faults 47"
    ),
    "faults:overload:one-server": Requirement(
        "What a saturated server has no room for is refused unsent, at once, and no other server feels it.",
        "threats-and-faults 39",
    ),
    "faults:overload:descriptors": Requirement(
        "A gateway that runs out of file descriptors does not end, and serves as soon as there are some.",
        "threats-and-faults 48",
    ),
    "faults:cut:at-every-byte": Requirement(
        "Wherever an answer breaks off, its call is answered once and never executed twice.", "threats-and-faults 30, F"
    ),
    # hostile input
    "wire:client:parts-are-bounded": Requirement(
        "A client's message of more than 200,000 arrays, objects and strings is refused before it is decoded.",
        "threats-and-faults 26",
    ),
    "wire:server:results-can-be-read": Requirement(
        "What no client could read of a server's answer is no answer; half a surrogate pair becomes U+FFFD.",
        "threats-and-faults 24",
    ),
    "faults:hostile:requests": Requirement(
        "Every whole request is answered, however malformed, and none disturbs a session or ends the gateway.",
        "threats-and-faults 23",
    ),
    "faults:hostile:messages": Requirement(
        "Whatever a server sends, each call is answered once and hears nothing that belongs to another.",
        "threats-and-faults 23",
    ),
    "faults:hostile:parsers": Requirement(
        "What reaches the server of a client's request reads the same in four JSON parsers.",
        "threats-and-faults 24",
    ),
    "faults:hostile:memory": Requirement(
        "The largest bodies cost a gateway about ten times their size in memory, and no more.",
        "threats-and-faults 26",
    ),
    "faults:hostile:schemas": Requirement(
        "A tool's schema is passed on untouched, never followed and never worked out.",
        "threats-and-faults 28",
    ),
    "faults:hostile:addresses": Requirement(
        "A Host or Origin that is not this gateway's is refused, however it is spelt.",
        "threats-and-faults 18",
    ),
    "faults:answers:no-mcp-is-no-result": Requirement(
        "An answer that is no MCP ends its call with a code that says what is known of it, and nothing else.",
        "threats-and-faults F",
    ),
    "faults:answers:size-is-bounded": Requirement(
        "A result of up to 16 MiB passes; a larger one is -31004.", "threats-and-faults 26"
    ),
    "faults:cancel:nothing-is-left": Requirement(
        "At whatever moment a caller gives up, no lease, slot, task or entry stays, and the gateway goes on.",
        "threats-and-faults 41",
    ),
    "faults:slow:holds-up-nobody": Requirement(
        "Clients that stop reading hold up no other call of their session.", "threats-and-faults 38"
    ),
    "faults:slow:senders": Requirement(
        "Clients that send drop by drop are given up, heads after 10 s and bodies after 30 s, and slow down nobody.",
        "threats-and-faults 29",
    ),
    "faults:slow:given-up": Requirement(
        "A client that takes nothing for 30 seconds is given up, and its connection closed.", "threats-and-faults 38"
    ),
    "faults:end:within-5-seconds": Requirement(
        "SIGTERM and SIGINT end the gateway within 5 seconds, with streams open and no child left.",
        "architecture 5, End",
    ),
    "faults:end:no-orphans": Requirement(
        "A killed gateway leaves no process behind for longer than 2 seconds.", "threats-and-faults 36"
    ),
    "faults:resume:nothing-lost-nothing-doubled": Requirement(
        "A server's stream that can be resumed may break off anywhere: each message arrives once.",
        "MCP 2025-11-25, Transports, Resumability and Redelivery",
    ),
    # serve
    "interop:serve:several-servers-and-their-scopes": Requirement(
        "Each server of a settings file is at /mcp/NAME, with its own scope, behind the clients' keys.",
        "architecture 7",
    ),
    "interop:serve:mistakes-are-lines": Requirement(
        "A mistake in a settings file is one line with the file, the line and the key, and nothing starts.",
        "architecture 7",
    ),
    "interop:serve:schema": Requirement("Editors get a JSON Schema of the settings file.", "architecture 7"),
    # call and tools
    "interop:call:tools-of-every-kind-of-server": Requirement(
        "`holdfast tools` lists every page's tools of a URL, a command and a server of a settings file alike.",
        "architecture 7, Commands",
    ),
    "interop:call:arguments": Requirement(
        "Arguments are KEY=VALUE pairs, JSON objects and standard input; what comes later wins.",
        "architecture 7, Commands",
    ),
    "interop:call:json-is-the-servers-own": Requirement(
        "With --json, stdout has what the server sent and nothing else.", "architecture 7, Commands"
    ),
    "interop:call:progress-and-logs": Requirement(
        "Progress is a bar on a terminal and a line per message elsewhere; logs are shown from the wanted level on.",
        "architecture 7, Commands",
    ),
    "interop:call:chat-through-a-gateway": Requirement(
        "A call bears the key, the headers and the chat that were given, and meets the state of that chat.",
        "architecture 5, The chat",
    ),
    "interop:call:failures-are-one-line": Requirement(
        "What goes wrong is one line on stderr: status 1 for a failed call, 2 for a mistake, 3 for no server.",
        "architecture 7, Commands",
    ),
    "interop:call:giving-up-is-told-upstream": Requirement(
        "Ctrl-C and --timeout cancel the call at the server.", "MCP 2025-11-25, Cancellation"
    ),
    "interop:call:any-server": Requirement(
        "`tools` and `call` reach every server that a gateway can stand before: of either era, over every transport.",
        "issue: what new users stumble over",
    ),
    "interop:call:questions": Requirement(
        "A server's question is put to the person at a terminal, and cancelled where there is none.",
        "MCP 2025-11-25, Elicitation",
    ),
    # all servers at one URL
    "merged:names:prefixed": Requirement(
        "At /mcp every tool has its server's prefix, in the order of the settings, and leads to that server alone.",
        "architecture 7, Endpoints",
    ),
    "merged:names:one-server-is-untouched": Requirement(
        "At /mcp/NAME, and at /mcp where there is one server, names are the server's own.", "architecture 7, Endpoints"
    ),
    "merged:names:separator-and-aliases": Requirement(
        "The separator can be chosen, and an alias is a tool's only name at /mcp.", "decision 9"
    ),
    "merged:names:unknown": Requirement(
        "A name that leads to no server is refused with -32602, and no server is asked.", "MCP 2025-11-25, Tools"
    ),
    "merged:names:cut": Requirement(
        "No name is longer than 64 characters; one that was cut is the same each time, and can be called at once.",
        "decision 9",
    ),
    "merged:names:round-trip": Requirement(
        "Every public name leads back to the one tool that it stands for, whatever servers call theirs.", "decision 9"
    ),
    "merged:names:bounded": Requirement(
        "What is remembered of names and addresses is bounded, whatever clients and servers send.",
        "threats-and-faults 26",
    ),
    "merged:calls:reach-the-right-caller": Requirement(
        "Progress, logs and questions of any server reach the caller of that call, and the answers that server.",
        "threats-and-faults 3",
    ),
    "merged:calls:cancelled": Requirement(
        "A cancelled call is cancelled at its server, and a cancelled list waits for nobody.",
        "MCP 2025-11-25, Cancellation",
    ),
    "merged:calls:chats-stay-apart": Requirement(
        "A chat has a session of its own with each server under that server's scope, at /mcp and /mcp/NAME the same.",
        "architecture 5, Key",
    ),
    "merged:lists:prompts-and-completion": Requirement(
        "Prompts are prefixed as tools are, and arguments of prompts and templates completed by their server.",
        "architecture 7, Endpoints",
    ),
    "merged:lists:changes": Requirement(
        "A list change of any server is told, and the next list has it.", "MCP 2025-11-25, Tools, List changed"
    ),
    "merged:lists:unavailable": Requirement(
        "A server that is down or slow leaves the others listed with a note; who missed it is told when it comes.",
        "decision 9",
    ),
    "merged:lists:pages": Requirement(
        "Long lists come in pages, cursors stay valid while the list grows, and nonsense is -32602.",
        "MCP 2025-11-25, Pagination",
    ),
    "merged:lists:scopes": Requirement(
        "Servers of every scope, with lists of their own or common ones, are listed together.", "architecture 5, Lists"
    ),
    "merged:resources:marked": Requirement(
        "A URI that two servers have is marked for the second, remains a URI, and what is listed can be read.",
        "decision 9",
    ),
    "merged:resources:subscriptions": Requirement(
        "An update bears the URI by which the client subscribed.", "MCP 2025-11-25, Resources, Subscriptions"
    ),
    "merged:logs:level": Requirement(
        "A log level counts at every server, also in sessions that open later.", "MCP 2025-11-25, Logging"
    ),
    "merged:introduction:names-everybody": Requirement(
        "The introduction has every server's instructions under its name, and says which could not be reached.",
        "decision 9",
    ),
    "merged:reload:goes-on": Requirement(
        "New settings are heard of by who may see what changed, and subscriptions go on with the server that follows.",
        "decision 10",
    ),
    "merged:access:hidden-tools": Requirement(
        "What a client may not see it cannot call, by whatever name and path.", "threats-and-faults 14"
    ),
    "merged:access:hidden-servers": Requirement(
        "A server that a client may not see does not exist for it, in lists, words, pushes and refusals.",
        "threats-and-faults 14",
    ),
    "merged:access:passed-headers": Requirement(
        "Only the headers of `pass_headers` go on, and callers whose values differ never share a session.",
        "threats-and-faults 12",
    ),
    "keys:secrets-not-kept": Requirement(
        "What a caller passes on is kept with its session, and nowhere beyond it.",
        "threats-and-faults 12",
    ),
    "merged:rates:users": Requirement(
        "Who sends more than its rate gets 429 with Retry-After, each message of an array counted, and nobody else.",
        "architecture 8",
    ),
    "exchange:status:when-it-lasts": Requirement(
        "A call that waits for longer than a moment says what for, as log messages and as progress that only grows.",
        "architecture 8, Status words",
    ),
    # observe
    "observe:metrics:bounded-series": Requirement(
        "No client and no server can make series without end: labels have known values, else `other`.",
        "architecture 6, metrics",
    ),
    "observe:metrics:series-live-as-long-as-their-server": Requirement(
        "Every series of a server is there from its first moment, with 0, and goes with the server.",
        "architecture 6, metrics",
    ),
    "observe:log:json-is-an-object-a-line": Requirement(
        "The log for programs is one JSON object a line, with the fields of the event that it tells of.",
        "architecture 8, log",
    ),
    "observe:log:no-secret-and-no-foreign-id": Requirement(
        "Nothing that is shown holds a credential, an argument, or a session id that a client or server knows.",
        "threats-and-faults 21",
    ),
    "observe:log:who-is-not-let-in": Requirement(
        "Who is refused for a key, a token, a host or an origin is told to the operator, and never what was sent.",
        "threats-and-faults 11",
    ),
    "observe:feed:one-failure-harms-nobody": Requirement(
        "Whoever takes events and fails harms neither calls nor the others who take them.",
        "architecture 6, concurrency",
    ),
    # operator
    "operator:health:alive-and-ready-are-two-things": Requirement(
        "`/healthz` is ok while the gateway turns; `/readyz` once its servers were tried, and not while it ends.",
        "architecture 7, Endpoints",
    ),
    "operator:access:key-or-loopback": Requirement(
        "`/api` and `/metrics` answer who bears the operator's key; without one, this machine only. Probes are free.",
        "architecture 8",
    ),
    "operator:access:a-proxy-is-not-this-machine": Requirement(
        "Without an operator's key, a request that came through a proxy is refused: it may come from anywhere.",
        "architecture 8",
    ),
    "operator:access:a-new-key-shuts-out-the-old": Requirement(
        "Another operator's key ends the event streams that the one before let in.", "architecture 8"
    ),
    "operator:api:mistakes-say-what-there-is": Requirement(
        "An unknown path, method or parameter of the API is refused with those that there are.", "architecture 7"
    ),
    "operator:api:nothing-is-cached": Requirement(
        "No answer of the API is stored on its way, or taken for another type than it has.", "architecture 7"
    ),
    "operator:api:ten-thousand-sessions-fit-a-terminal": Requirement(
        "Of many sessions the API gives the busiest, as many as were asked for, and the count of all.",
        "architecture 7",
    ),
    "operator:api:a-session-can-be-ended": Requirement("The operator can end a session by its id.", "architecture 7"),
    "operator:events:resumed-where-they-broke-off": Requirement(
        "A reader of events who comes back with an id gets those after it, and how many are not kept any more.",
        "WHATWG HTML, Server-sent events, Last-Event-ID",
    ),
    "operator:events:a-slow-reader-is-told-what-it-missed": Requirement(
        "A slow reader of events holds nothing up; it is told how many it missed.", "threats-and-faults 38"
    ),
    "operator:top:mistakes-are-one-line": Requirement(
        "No gateway, a wrong key or another program at the address is one line on stderr, with status 2.",
        "architecture 7, Commands",
    ),
    "operator:top:fits-the-terminal": Requirement(
        "Whatever there is fits the terminal's width and height; what is in trouble or at work is shown first.",
        "architecture 7, Commands",
    ),
    "operator:top:survives-the-gateway": Requirement(
        "While the gateway is away, `top` says so, keeps its last picture and goes on trying.",
        "architecture 7, Commands",
    ),
    "operator:top:names-cannot-steer-the-terminal": Requirement(
        "No name that a server, a client or a user chose can move the cursor of the operator's terminal.",
        "architecture 7, Commands",
    ),
    "operator:top:once-for-programs": Requirement(
        "Where stdout is no terminal, or with --once or --json, `top` prints once and ends.",
        "architecture 7, Commands",
    ),
    "operator:top:live-until-q": Requirement(
        "On a terminal `top` is live until q or Ctrl-C, and leaves the terminal as it was.",
        "architecture 7, Commands",
    ),
    "operator:api:head-is-get-without-a-body": Requirement(
        "HEAD is answered with the headers of GET, for probes that ask so.", "RFC 9110, section 9.3.2"
    ),
    "operator:events:end-with-the-gateway": Requirement(
        "Event streams are bounded in number and end when the gateway does.", "architecture 5, End"
    ),
    # the pool of the operator's gateway
    "pool:events:every-call-ends-in-one": Requirement(
        "Every call that reached a pool ends in exactly one event that says how, after how long and for which request.",
        "architecture 2, events",
    ),
    "pool:quota:a-flood-evicts-only-its-own": Requirement(
        "A user who opens ten thousand chats evicts none of another's sessions.",
        "threats-and-faults 22",
    ),
    "pool:quota:counts-over-all-servers": Requirement(
        "A user over its limit loses its own longest idle session, with whatever server, and is told if it was dirty.",
        "threats-and-faults 22",
    ),
    "pool:quota:waits-then-tells": Requirement(
        "A user at its limit with nothing idle waits for the acquire timeout and is told of the limit.",
        "threats-and-faults 22",
    ),
    "pool:quota:bounds-the-gateway": Requirement(
        "Where the gateway is full, idle spares make way; whoever finds none waits and is told.",
        "threats-and-faults 22",
    ),
    "pool:circuit:opens-and-tells-at-once": Requirement(
        "A server that failed five times in a row is left alone, and callers are told at once that nothing was sent.",
        "threats-and-faults 34 and 37",
    ),
    "pool:circuit:one-probe": Requirement(
        "When a server's circuit may close, one opening or call shows it while the others wait.",
        "threats-and-faults 37",
    ),
    "pool:circuit:open-sessions-outlive-failed-openings": Requirement(
        "Openings that fail keep nobody from a session that is open.",
        "architecture 5",
    ),
    "pool:circuit:one-person-keeps-nobody-out": Requirement(
        "One person whose sessions with a stdio server die or hang keeps nobody else from the server.",
        "threats-and-faults 34",
    ),
    "pool:reload:limits-end-nothing": Requirement(
        "Other timeouts and limits hold at once and end no session but surplus idle ones.",
        "threats-and-faults 49",
    ),
    "pool:reload:memory-that-goes-is-told": Requirement(
        "Whoever comes back to a server whose sessions were replaced is told once that what they remembered is gone.",
        "architecture 5, Loss",
    ),
    "pool:drain:calls-end-nothing-begins": Requirement(
        "A server that is no longer served lets its calls end for 30 s, begins none, and is opened never again.",
        "threats-and-faults 49",
    ),
    "pool:operator:ends-a-session": Requirement(
        "A session that an operator ends takes its calls with it, and its next caller is told that its memory is gone.",
        "architecture 5, End",
    ),
    "pool:operator:ends-what-a-revoked-client-has": Requirement(
        "A client that may call no more loses its sessions, calls and markers, and nobody else loses any.",
        "threats-and-faults G6",
    ),
    # HTTP+SSE of 2024-11-05
    "downstream:legacy-sse:served": Requirement(
        "A client over HTTP+SSE gets at /sse what any other gets at /mcp: all of it on its one stream.",
        "MCP 2024-11-05, HTTP with SSE",
    ),
    "downstream:legacy-sse:ends-with-its-stream": Requirement(
        "The end of the stream ends the client's session and cancels what runs: nobody could read the answers.",
        "protocol 1, HTTP+SSE",
    ),
    "downstream:legacy-sse:ids-are-pointers": Requirement(
        "The session id in an endpoint opens nothing to anybody else, and nothing over the other transport.",
        "threats-and-faults 4",
    ),
    "downstream:legacy-sse:refusals": Requirement(
        "What is refused at /sse gets the status and the reason that it would get at /mcp.",
        "threats-and-faults 9",
    ),
    "downstream:legacy-sse:signs-of-life": Requirement(
        "A silent stream shows every 15 seconds that it lives, and its session stays.",
        "architecture 3, step 5",
    ),
    "downstream:legacy-sse:stalled-readers": Requirement(
        "Whoever does not read the stream gets no more calls through, and is given up after 30 seconds.",
        "threats-and-faults 38",
    ),
    "upstream:close:delivers": Requirement(
        "The end of a session over HTTP does not overtake what was sent before: a cancellation arrives.",
        "MCP 2025-11-25, Cancellation",
    ),
    "upstream:legacy-sse:same-origin": Requirement(
        "Messages go to the endpoint that the stream names, and to no other origin than the server's own.",
        "MCP 2024-11-05, HTTP with SSE",
    ),
    "upstream:legacy-sse:the-stream-is-the-session": Requirement(
        "When the stream ends the session is lost: it is opened again once, and its memory's end is told once.",
        "protocol 1, HTTP+SSE",
    ),
    "upstream:legacy-sse:bounded": Requirement(
        "An event over the limit ends the session instead of filling the memory, and an only call is told why.",
        "threats-and-faults 26",
    ),
    "upstream:legacy-sse:nothing-quoted-is-secret": Requirement(
        "What is said of a failure holds no header's value and nothing of the endpoint's query.",
        "threats-and-faults 42",
    ),
    "upstream:legacy-sse:found-out-once": Requirement(
        "Which of the two HTTP transports a server speaks is found out once, not for each session, and anew when"
        " it fails.",
        "protocol 5",
    ),
    "interop:old-sse:clients": Requirement(
        "The official SDK's SSE client and supergateway's work at /sse, also in front of a server of the same kind.",
        "MCP 2024-11-05, HTTP with SSE",
    ),
    "interop:old-sse:servers": Requirement(
        "Servers that speak only HTTP+SSE, in Node, behind supergateway and of the official SDK, work as they are.",
        "MCP 2024-11-05, HTTP with SSE",
    ),
    "upstream:legacy-sse:configured": Requirement(
        "A host's file with servers of the type sse is read as it is.",
        "issue: old SSE servers in desktop files",
    ),
    # clients over pipes
    "stdio:session:one-for-the-process": Requirement(
        "A client that starts the gateway has one session with a server until its process ends, and none after.",
        "protocol 2; hosts that start processes",
    ),
    "stdio:session:chats-can-be-named": Requirement(
        "Over pipes a request may name its chat as over HTTP.",
        "architecture 4",
    ),
    "stdio:session:scripts-need-no-initialize": Requirement(
        "Whoever pipes requests in without initializing gets the answers, and nothing that was not asked for.",
        "hosts, curl and scripts",
    ),
    "stdio:relay:every-feature": Requirement(
        "Questions, progress, logs, status, cancellation, subscriptions and changes pass over pipes as over HTTP.",
        "protocol 2 and 3",
    ),
    "stdio:modern:answered-in-its-era": Requirement(
        "A client of 2026-07-28 that starts the gateway is answered in its era, beside lines with a handshake.",
        "issue: 2026-07-28 over pipes",
    ),
    "stdio:modern:questions": Requirement(
        "Over pipes a question ends the request with input_required, and the next one brings the answer.",
        "issue: 2026-07-28 over pipes",
    ),
    "stdio:modern:cancelled": Requirement(
        "A request that is cancelled over a pipe, or whose client left, is cancelled at the server too.",
        "specification 2026-07-28, stdio",
    ),
    "stdio:modern:listens": Requirement(
        "Over pipes, who listens is told of each change, with the id of the subscription, however slowly they read.",
        "specification 2026-07-28, subscriptions",
    ),
    "stdio:wire:arrays-by-revision": Requirement(
        "An array of requests is answered with an array until 2025-03-26, and later each of them is refused.",
        "protocol 0",
    ),
    "stdio:wire:bad-lines-are-answered-and-skipped": Requirement(
        "A line that is no message is answered with -32700 or -32600, ends no call, and the next line is read.",
        "threats-and-faults 23",
    ),
    "stdio:wire:stdout-is-for-messages": Requirement(
        "Nothing but messages is written to stdout, mistakes on the command line included.",
        "protocol 2",
    ),
    "stdio:flow:slow-readers-lose-no-answer": Requirement(
        "Where stdout is not read, progress and logs are dropped, no more is read, and every answer comes.",
        "threats-and-faults 28",
    ),
    "stdio:end:what-was-asked-is-answered": Requirement(
        "When stdin ends, what was asked is answered before the process ends with status 0.",
        "hosts, curl and scripts",
    ),
    "stdio:end:in-order-and-soon": Requirement(
        "A signal, a reader that is gone and a client that is killed end the process within 5 s, and leave no child.",
        "protocol 2; threats-and-faults 34",
    ),
    "interop:stdio:sdk": Requirement(
        "The official SDK's stdio client uses every feature through the gateway, before servers of both transports.",
        "design task: desktop clients",
    ),
    # reload
    "reload:follow:on-change": Requirement(
        "A settings file that was saved is read again by itself, once it has settled.",
        "issue: reload on SIGHUP and on change",
    ),
    "reload:follow:on-sighup": Requirement(
        "SIGHUP has the settings read again at once, whether they have changed or not.",
        "issue: reload on SIGHUP and on change",
    ),
    "reload:follow:mistakes-change-nothing": Requirement(
        "Settings with mistakes change nothing; each mistake is told once for each edition of the file.",
        "issue: an invalid file keeps the old one and says so",
    ),
    "reload:follow:secrets": Requirement(
        "A secret in a file of its own is followed like the settings that name it.",
        "issue: rotation without losing sessions",
    ),
    "reload:unchanged:keeps-everything": Requirement(
        "Settings that do not differ are noticed by nobody: no session, stream or list changes.",
        "issue: unchanged servers keep their sessions",
    ),
    "reload:changed:keeps-sessions": Requirement(
        "Timeouts, limits, rules for tools and prefixes change under open sessions.",
        "issue: unchanged servers keep their sessions",
    ),
    "reload:changed:replaces-the-server": Requirement(
        "A server with another target or credential is replaced: calls end, clients stay, lost state is told once.",
        "issue: reload is atomic",
    ),
    "reload:servers:come-and-go": Requirement(
        "Servers are added and removed while others are called; calls under way still end.",
        "issue: a removed server is drained",
    ),
    "reload:servers:never-revived": Requirement(
        "A server that was removed is never opened again, and starts afresh if it comes back.",
        "threats-and-faults 49",
    ),
    "reload:clients:revocation": Requirement(
        "What a removed client or key was let in with ends: sessions, streams, calls, and what servers remember.",
        "threats-and-faults G6",
    ),
    "reload:clients:rotation": Requirement(
        "A client's keys are replaced without losing a session.",
        "issue: several keys per client, rotation without losing sessions",
    ),
    "reload:clients:narrowed": Requirement(
        "A client that may see less, or names others, loses what rests on what it was.",
        "threats-and-faults G6",
    ),
    "reload:clients:widened": Requirement(
        "A client that may see more keeps its sessions, and hears of it.",
        "issue: unchanged servers keep their sessions",
    ),
    "reload:under-load": Requirement(
        "Reloads fail no call to a server that stays.",
        "threats-and-faults 49",
    ),
    "reload:listen": Requirement(
        "Another address waits for the next start, and nothing is opened to the world meanwhile.",
        "threats-and-faults 13",
    ),
    "reload:limits": Requirement(
        "New limits hold for sessions that are there.",
        "issue: reload is atomic",
    ),
    "reload:overlap": Requirement(
        "Reloads may come while an earlier one drains, or while the gateway ends.",
        "issue: reload is atomic",
    ),
    "interop:reload:saved": Requirement(
        "Who saves the settings file sees what came of it, and chats go on.",
        "issue: reload on SIGHUP and on change",
    ),
    "interop:reload:mistakes": Requirement(
        "Mistakes in a saved file are said line by line, and the gateway goes on as it was.",
        "issue: an invalid file keeps the old one and says so",
    ),
    "interop:reload:sighup": Requirement(
        "SIGHUP reads settings and secrets again, and does no harm at any time.",
        "issue: reload on SIGHUP and on change",
    ),
    # modern clients
    "modern:discover:says-what-initialize-says": Requirement(
        "`server/discover` of 2026-07-28 is answered from what the server said when it was initialized.",
        "hosts: Open WebUI",
    ),
    "modern:discover:revisions": Requirement(
        "A discovery that names no chat offers the revisions with sessions alone where a server would remember, "
        "so that a client that may choose loses nothing that it had without us.",
        "decision 11",
    ),
    "modern:lists:from-the-catalogue": Requirement(
        "Lists and reads of 2026-07-28 are those of the handshake era, and say that nothing may be kept.",
        "bridging 1, caching hints",
    ),
    "modern:calls:envelope": Requirement(
        "The envelope of a 2026-07-28 request goes no further than to us, and every other `_meta` key goes on.",
        "bridging 1, the `_meta` envelope",
    ),
    "modern:calls:conversation": Requirement(
        "A 2026-07-28 request names its conversation by header, `_meta` or path, and without a name it is private.",
        "architecture 5, the chat",
    ),
    "modern:calls:as-before": Requirement(
        "A request that repeats the head and the envelope of the one before it is answered as if it were the first.",
        "decision 16",
    ),
    "modern:calls:as-before-and-more": Requirement(
        "A request like the one before it may report, ask, fail, be left or take long, as any other.",
        "decision 16",
    ),
    "modern:units:shaped": Requirement(
        "What every result of 2026-07-28 says is written into a server's own bytes as it would be into a new object.",
        "threats-and-faults 20",
    ),
    "modern:calls:progress-and-logs": Requirement(
        "Progress, and logs where the request asks for them, come on its own stream, and nothing else does.",
        "protocol 4, response",
    ),
    "modern:calls:closing-cancels": Requirement(
        "Closing the stream of a 2026-07-28 request cancels the call upstream.",
        "threats-and-faults 40",
    ),
    "modern:refusals:headers": Requirement(
        "Headers that do not say what the body says are refused with 400 and -32020.",
        "threats-and-faults 20",
    ),
    "modern:refusals:envelope": Requirement(
        "A request that lacks a part of its envelope is refused with 400 and -32602.",
        "protocol 4, status",
    ),
    "modern:refusals:version": Requirement(
        "A revision that is not served is refused with 400 and -32022, and told which are.",
        "protocol 4, status",
    ),
    "modern:refusals:methods": Requirement(
        "Methods that 2026-07-28 does not have get 404 and -32601, and reach no server.",
        "protocol 4, status",
    ),
    "modern:refusals:params": Requirement(
        "Nonsense in the params of a 2026-07-28 request is refused with 400 and -32602.",
        "protocol 4, status",
    ),
    "modern:refusals:forms": Requirement(
        "Arrays and answers are refused in 2026-07-28, and notifications taken.",
        "bridging 1, batch array",
    ),
    "modern:errors:said-in-its-words": Requirement(
        "Errors of handshake servers reach 2026-07-28 clients in codes that their revision has.",
        "protocol 4, status",
    ),
    "modern:merged:the-same": Requirement(
        "All servers at `/mcp` are served to 2026-07-28 clients as one is.",
        "issue: modern clients",
    ),
    "modern:parked:the-call-goes-on": Requirement(
        "A question ends the request of a 2026-07-28 client, and its answer goes on with the same call.",
        "bridging 3",
    ),
    "modern:parked:several-questions": Requirement(
        "Questions that come together are put together, and those without an answer are put again.",
        "bridging 3",
    ),
    "modern:private:declares": Requirement(
        "A session for one request of 2026-07-28 declares to the server what that request says can be asked, "
        "and none that has declared something else is lent to it.",
        "protocol 7, elicitation and sampling capabilities",
    ),
    "modern:levels:told-to-the-server": Requirement(
        "Before a call of 2026-07-28 that wants log messages, its session's server is set to a level as low, "
        "and never to a higher one than any other asked for.",
        "bridging 1, logging",
    ),
    "modern:parked:abilities": Requirement(
        "A 2026-07-28 client is asked only what its request says that it can answer.",
        "bridging 1, elicitation",
    ),
    "modern:parked:progress": Requirement(
        "Of the progress between two requests of one call the newest is told.",
        "bridging 1, progress",
    ),
    "modern:parked:sealed": Requirement(
        "A `requestState` is good once, for the very request, conversation and principal it was made for.",
        "threats-and-faults 4",
    ),
    "modern:parked:expires": Requirement(
        "A client that does not come back is answered for, and its call is cancelled.",
        "bridging 3",
    ),
    "modern:parked:cancelled": Requirement(
        "A request closed before its question is put cancels the call.",
        "threats-and-faults 40",
    ),
    "modern:parked:walked-away": Requirement(
        "A question that does not say whose it is goes to the one call of its chat that waits for no answer, if any.",
        "decision 17",
    ),
    "modern:parked:bounded": Requirement(
        "Calls that wait for their clients are bounded in all and per named user.",
        "architecture 8, concurrency",
    ),
    "modern:parked:kept": Requirement(
        "An answer that comes while its client is away waits for it, within bounds.",
        "threats-and-faults 38",
    ),
    "modern:parked:lost-session": Requirement(
        "A session that dies ends the calls that wait in it, and their clients are told when they come back.",
        "bridging 1, upstream session lost",
    ),
    "modern:parked:a-thousand": Requirement(
        "A thousand calls wait at once, and every answer reaches its own call.",
        "threats-and-faults 3",
    ),
    "modern:refusals:arguments-in-headers": Requirement(
        "Arguments that a tool wants in headers are refused with -32020 where the headers say something else.",
        "threats-and-faults 20",
    ),
    "modern:parked:revoked": Requirement(
        "A client whose key is taken away loses the calls that wait for it, and nobody else loses any.",
        "threats-and-faults 13",
    ),
    "conformance:modern:what-can-pass-passes": Requirement(
        "A handshake server behind us passes the suite of 2026-07-28, but for what only a modern one can say.",
        "issue: modern clients",
    ),
    "modern:listen:lists": Requirement(
        "`subscriptions/listen` tells of changes of the lists that its client asked for.",
        "bridging 1, list_changed",
    ),
    "modern:listen:resources": Requirement(
        "A resource is subscribed to once per session, for as long as somebody listens, and again after a loss.",
        "bridging 1, resources/subscribe",
    ),
    "modern:listen:ends-in-order": Requirement(
        "A stream of changes ends in order when the gateway drains or has new settings.",
        "protocol 4, subscriptions/listen",
    ),
    "modern:listen:slow-readers": Requirement(
        "A reader of changes that is behind is told each change once, when it has caught up.",
        "threats-and-faults 38",
    ),
    "modern:listen:refused": Requirement(
        "Who cannot be served with changes is told why, and listeners are bounded.",
        "threats-and-faults 22",
    ),
    "modern:listen:merged": Requirement(
        "Changes of all servers come on one stream, with the names that clients know.",
        "issue: modern clients",
    ),
    "modern:units:sealed": Requirement(
        "No change of a state, and none of what it was made for, finds a parked call.",
        "threats-and-faults 4",
    ),
    "modern:units:headers": Requirement(
        "A header that mirrors the body is read in its one form, and no other value is taken for it.",
        "threats-and-faults 20",
    ),
    "interop:sdk:auto-keeps-its-state": Requirement(
        "The official SDK's client in auto mode keeps before us the state that it keeps without us, and takes "
        "2026-07-28 where nothing is lost by it.",
        "decision 11",
    ),
    "interop:sdk:modern": Requirement(
        "The official SDK client talks 2026-07-28 to handshake servers, elicitation included.",
        "hosts: Open WebUI",
    ),
    # what is another's, in 2026-07-28
    "isolation:states-and-chats-of-others": Requirement(
        "Who has another's `requestState`, chat or subscription id has nothing; of a state, the operator hears.",
        "threats-and-faults 4",
    ),
    "modern:parked:made-up": Requirement(
        "Made-up states and answers are refused in one way, crash nothing, and use no state up.",
        "threats-and-faults 4 and 23",
    ),
    "modern:listen:made-up": Requirement(
        "No made-up subscription id ends, takes over or is told of the stream of another.",
        "threats-and-faults 4 and 23",
    ),
    "exchange:leaving:every-pair-of-eras": Requirement(
        "Who leaves a call cancels it at servers of either era; with a session it does not, and fetches the answer.",
        "threats-and-faults 40",
    ),
    "modern:listen:without-a-session": Requirement(
        "Who names no chat hears of changed lists for as long as it listens, whoever else has a session.",
        "bridging 1, list_changed",
    ),
    # the official suite in every direction
    "conformance:modern:nothing-is-lost": Requirement(
        "Every check of 2026-07-28 that a server passes directly, it passes through the gateway.",
        "issue: every client to every server, conformance",
    ),
    "conformance:client:nothing-is-lost": Requirement(
        "To the servers of the suite, the gateway is the client that they want, whoever calls through it.",
        "issue: every client to every server, conformance",
    ),
    # servers of 2026-07-28
    "modern-servers:calls": Requirement(
        "Clients of every era before use a server of 2026-07-28 as any other: calls, lists, pages, prompts, progress.",
        "bridging, columns L to M and 0 to any",
    ),
    "modern-servers:envelope": Requirement(
        "Every request to a modern server says who asks and what that caller can be asked, and bears no session.",
        "protocol 4",
    ),
    "modern-servers:headers": Requirement(
        "Method, name and annotated arguments stand in headers; after a mismatch the tools are listed once more.",
        "protocol 4",
    ),
    "modern-servers:rounds": Requirement(
        "Input that a modern server requires is asked of the caller, and its state goes back untouched.",
        "bridging, row sampling / elicitation form",
    ),
    "modern-servers:cancel": Requirement(
        "A cancelled call is cancelled at a modern server as well, and leaves nothing behind.",
        "bridging, row cancel",
    ),
    "modern-servers:log": Requirement(
        "The log level of a client goes with each of its requests to a modern server.",
        "bridging, row logging",
    ),
    "modern-servers:changes": Requirement(
        "What a modern server agrees to announce is promised and relayed, and after a gap announced as changed.",
        "bridging, row resources/subscribe",
    ),
    "modern-servers:heard-again": Requirement(
        "What a modern server agreed to announce is asked for until it is heard again, and nobody waits in vain.",
        "protocol 4, subscriptions/listen",
    ),
    "modern-servers:stateless": Requirement(
        "No client is told of lost memory by a modern server: it has none, whatever ends.",
        "bridging, row upstream session lost",
    ),
    "modern-servers:probe": Requirement(
        "A server's era is found out once, costs a handshake server one request, and harms none.",
        "protocol 5",
    ),
    "modern-servers:conformance": Requirement(
        "The official suite for 2025-11-25 passes through the gateway at a server that speaks 2026-07-28 alone.",
        "protocol 3 and 4",
    ),
    "modern-servers:sdk": Requirement(
        "A server of the official SDK that speaks 2026-07-28 alone is used over HTTP and over stdio.",
        "protocol 4",
    ),
    # clients of 2026-07-28 at servers of 2026-07-28
    "both-modern:questions": Requirement(
        "Questions pass between a client and a server of 2026-07-28 under the server's names; no call waits for them.",
        "bridging, column M to M",
    ),
    "both-modern:sealed": Requirement(
        "A server's own state comes back through us from the same principal, conversation and request alone.",
        "threats-and-faults 4; 2026-07-28, Multi Round-Trip Requests",
    ),
    "both-modern:a-thousand": Requirement(
        "Of a thousand interleaved questions every answer lands in its own call.",
        "threats-and-faults 3",
    ),
    "both-modern:envelope": Requirement(
        "A modern server is told what the asking modern client declares, and refuses it in its own words.",
        "bridging, row `_meta` envelope",
    ),
    "both-modern:results": Requirement(
        "Results of a modern server reach a modern client as they are.",
        "bridging, column M to M",
    ),
    "both-modern:hints": Requirement(
        "Cache hints of a modern server are kept as far as they are true through us.",
        "protocol 4, caching",
    ),
    "both-modern:merged": Requirement(
        "At `/mcp`, servers of both eras are asked and answered as each alone.",
        "bridging, column M to M",
    ),
    "both-modern:nameless": Requirement(
        "Requests that name no chat share a session with a server of 2026-07-28, which is one process over stdio.",
        "bridging 1, stdio upstream",
    ),
    # servers of both eras
    "both-eras:kept": Requirement(
        "A server of both eras remembers for clients of 2026-07-28 whose session can be found again.",
        "issue: every client to every server",
    ),
    "both-eras:mirrored": Requirement(
        "A server of both eras is spoken to by who names no chat in that client's own era, so that it gets no less.",
        "issue: every client to every server",
    ),
    "both-eras:lists": Requirement(
        "A server of both eras is introduced and listed to each client as in the era in which it is spoken to.",
        "issue: every client to every server",
    ),
    "both-eras:found-out": Requirement(
        "Whether a server speaks both eras is found out once, and again when that fails.",
        "protocol 5",
    ),
    "both-eras:sdk": Requirement(
        "Clients of the official SDK, of either era, are served in theirs by its servers, which speak both.",
        "protocol 5",
    ),
    "modern-servers:mirrored": Requirement(
        "Values that would not survive in a header are encoded, and tools with impossible headers are not offered.",
        "protocol 4",
    ),
    # warm
    "warm:opens": Requirement(
        "A client has the sessions of a chat opened ahead, for itself alone, and hears what each waits for.",
        "architecture 8, POST /api/warm",
    ),
    "warm:refused": Requirement(
        "What names no kept session, or a server that the caller may not see, is refused with what to do.",
        "architecture 8, POST /api/warm",
    ),
    # direct
    "http:direct:as-asgi": Requirement(
        "A request that is handed over by callbacks is answered as through ASGI, whatever it is and comes with.",
        "issue: near the limit; RFC 9112",
    ),
    "http:direct:familiar": Requirement(
        "A head that came before over the same connection is known without a parser, and means what it meant: what"
        " follows is framed and answered as if it had been parsed, and settings that change are obeyed.",
        "issue: near the limit; RFC 9112",
    ),
    "http:direct:brief": Requirement(
        "A usual request of a client session has a short way; what comes with a known head and is more than usual, and"
        " whatever happens to a usual one, fares as it does without.",
        "issue: near the limit",
    ),
    "http:direct:framing": Requirement(
        "Bytes that could be read as two requests, or as one and a half, are read alike on every way in.",
        "threats-and-faults 20; RFC 9112, section 11",
    ),
    "http:asgi:familiar": Requirement(
        "A head that came before through ASGI means what it meant, whatever server brings it; what differs in anything"
        " but the length of the body is read anew, and so is everything once settings have changed.",
        "issue: near the limit; threats-and-faults 13",
    ),
    "http:asgi:short-memory": Requirement(
        "Of the heads that come through ASGI a bounded number is held, each for seconds after it came last.",
        "threats-and-faults 21; issue: near the limit",
    ),
    "http:asgi:bodies": Requirement(
        "A body that comes through ASGI is bounded in bytes and in time, however it is cut, and who leaves amid it"
        " leaves nothing behind.",
        "threats-and-faults 29",
    ),
    "http:asgi:departures": Requirement(
        "Who leaves a request that came through ASGI is noticed once the answer takes more than a moment.",
        "threats-and-faults 40",
    ),
    "upstream:http:familiar": Requirement(
        "The head of a whole, plain answer is known again in its session, and nothing else is.",
        "issue: near the limit; RFC 9112",
    ),
    "http:direct:one-write": Requirement(
        "An answer, and what is said in one turn of the loop, goes to the kernel once.",
        "issue: near the limit",
    ),
    "http:direct:drops-are-counted": Requirement(
        "Progress and logs that nobody will see are counted, and an answer is never among them.",
        "threats-and-faults 38",
    ),
    "http:direct:slow-readers": Requirement(
        "Who reads slowly is waited for as long as something is read, and costs a bounded queue.",
        "threats-and-faults 38",
    ),
    # library
    "library:keeps": Requirement(
        "Inside an application a session is kept from lease to lease, for its principal and chat alone.",
        "architecture 7; issue: Open WebUI and LiteLLM lose sessions",
    ),
    "library:credentials": Requirement(
        "Leases whose credentials or headers differ share nothing, and no credential is shown anywhere.",
        "threats-and-faults 12 and 21",
    ),
    "library:settings": Requirement(
        "A pool takes a settings file, what such a file says, or settings; every mistake is one line.",
        "architecture 7",
    ),
    "library:callbacks": Requirement(
        "What a call yields is heard in the task that waits for it, in order; whoever gives up cancels at the server.",
        "architecture 7; style, cancellation",
    ),
    "library:asks": Requirement(
        "Questions of a server come typed to the caller's own code, which may leave them unanswered, and are answered.",
        "architecture 5, Capabilities",
    ),
    "library:results": Requirement(
        "Results are typed, lists are whole and parsed once, and a server's errors are told from ours.",
        "architecture 7",
    ),
    "library:state": Requirement(
        "A lease says how its session stands and what is waited for, and no loss goes unsaid.",
        "architecture 5, Loss; hosts.md, Open WebUI as a library",
    ),
    "library:changes": Requirement(
        "What a server says between calls reaches the leases that want it.",
        "architecture 5",
    ),
    "library:invalidate": Requirement(
        "A logout ends a principal's sessions and calls, and nobody else's.",
        "threats-and-faults 13",
    ),
    "library:stats": Requirement(
        "An application sees its servers, sessions and leases.",
        "architecture 7",
    ),
    "library:sdk": Requirement(
        "The official SDK's client runs on a kept session unchanged.",
        "architecture 7",
    ),
    "library:idle": Requirement(
        "A pool that nobody uses takes next to no CPU, however many sessions it keeps.",
        "issue: idle CPU of 1 % at most",
    ),
    "library:frameworks": Requirement(
        "Two chats of two users keep their state over several messages in each agent framework and in FastAPI.",
        "issue: in the hands of its users",
    ),
    "library:blocking:never-hangs": Requirement(
        "A blocking pool that cannot start says so, and one that ends waits for no callback.", "issue: the library"
    ),
    "library:blocking": Requirement(
        "Code that does not await has the same sessions, from any thread.",
        "architecture 7",
    ),
    "library:web-application": Requirement(
        "A web application that holds a pool keeps the session of each person and chat between its requests.",
        "architecture 7",
    ),
    "library:interleavings": Requirement(
        "Whatever acquires, calls, cancels, releases and invalidates in whatever order: no lease is left, nobody "
        "meets another's state, nobody else's call fails.",
        "threats-and-faults 1 and 41",
    ),
    # handles
    "handles:opened": Requirement(
        "A tool opens a session and returns its name; whoever of the same principal names it in a call runs in it.",
        "MCP 2026-07-28, Tools, Stateful Tools; SEP-2567",
    ),
    "handles:apart": Requirement(
        "Each handle is a session of its own, and a call that names none runs where it would without the setting.",
        "architecture 5; bridging 2",
    ),
    "handles:names-not-rights": Requirement(
        "A foreign, unknown, closed or expired handle is refused in the same words, and nothing is executed.",
        "threats-and-faults 4; SEP-2567, Guidance for servers",
    ),
    "handles:refused-for-models": Requirement(
        "A handle that is refused is a result with isError that says how to get another, so that a model can go on.",
        "MCP 2026-07-28, Tools, Stateful Tools, Expiry errors",
    ),
    "handles:schemas": Requirement(
        "An input schema takes the argument where what was valid stays valid, with it and without; else it stays.",
        "MCP 2026-07-28, Tools, Data Types; decision 12",
    ),
    "handles:lists": Requirement(
        "What the gateway adds to a list never has a name of the server's, and obeys rules, aliases and prefixes.",
        "MCP 2026-07-28, Tools, Tool Names; decision 12",
    ),
    "handles:the-server-sees-nothing": Requirement(
        "A server hears of no handle: the argument goes no further than to us.",
        "architecture 5; bridging 1",
    ),
    "handles:bounded": Requirement(
        "Handles count as sessions do, per user and in all, and end after idle_timeout without a call.",
        "threats-and-faults 22; decision 12",
    ),
    "handles:loss-is-told": Requirement(
        "What a session behind a handle remembered and lost is told once, as for every named session.",
        "architecture 5, Loss",
    ),
    "handles:every-face": Requirement(
        "Callers of both eras, with a session and without, over HTTP, HTTP+SSE and stdio, have handles alike.",
        "decision 12",
    ),
    "handles:reload": Requirement(
        "Handles can be switched on and off while the gateway runs, and clients hear that the tools have changed.",
        "decision 10",
    ),
    "interop:sdk:handles": Requirement(
        "The official SDK's client opens a session by a tool, and another one, of either era, goes on in it.",
        "MCP 2026-07-28, Tools, Stateful Tools",
    ),
    "interop:curl:handles": Requirement(
        "The lines of the README open a session with curl and keep its state from call to call.",
        "decision 12",
    ),
    "handles:off": Requirement(
        "Without the setting lists and calls pass as they are, an argument called session included.",
        "decision 12",
    ),
    # tasks
    "tasks:awaited:every-caller": Requirement(
        "A tool that a server of 2025-11-25 runs only as a task is a call like any for every client.",
        "issue 4, tasks across eras",
    ),
    "tasks:awaited:relayed": Requirement(
        "Progress, log and questions of a task that is waited for are those of the call, and say nothing of a task.",
        "issue 4, tasks across eras",
    ),
    "tasks:awaited:cancel": Requirement(
        "A call that is cancelled cancels the task that was waited for.",
        "MCP 2025-11-25, Tasks; SEP-2663",
    ),
    "tasks:awaited:time": Requirement(
        "A task that its server shows at work is waited for, however long nothing else is heard of it.",
        "architecture 5, time",
    ),
    "tasks:awaited:lost": Requirement(
        "A task that has begun is not begun again, and no failure looks as if it had not begun.",
        "threats-and-faults F",
    ),
    "tasks:lists": Requirement(
        "Who cannot begin a task is not told that a tool must be one.",
        "MCP 2025-11-25, Tasks, tool-level negotiation",
    ),
    "tasks:handshake:pass": Requirement(
        "Tasks of 2025-11-25 pass: their status, result, list, cancellation, progress and questions.",
        "issue 4, tasks; bridging, row tasks",
    ),
    "tasks:owners": Requirement(
        "A task is unknown to all but the conversation that began it, and what belongs to it reaches nobody else.",
        "threats-and-faults 3 and 4; MCP 2025-11-25, Tasks, security",
    ),
    "tasks:lost": Requirement(
        "Who comes back for a task whose session is lost is told.",
        "threats-and-faults 32",
    ),
    "tasks:modern:pass": Requirement(
        "Tasks of the extension for 2026-07-28 pass between its clients and servers: results, questions, cancellation.",
        "SEP-2663; issue 4, tasks",
    ),
    "tasks:modern:followed": Requirement(
        "Who listens hears of its own tasks that the server tells of, and of nobody else's.",
        "SEP-2663, task status notifications",
    ),
    "tasks:modern:declared": Requirement(
        "Only who declares the extension on a request is answered with a task, and may ask of one.",
        "SEP-2663, capability negotiation",
    ),
    "tasks:modern:awaited": Requirement(
        "A tool that a modern server runs only as a task is a call like any for who knows nothing of the extension.",
        "issue 4, tasks across eras",
    ),
    # apps
    "apps:pass": Requirement(
        "What a server says of its interfaces (MCP Apps) passes untouched, whatever revisions meet.",
        "issue 4, MCP Apps",
    ),
    "apps:declared": Requirement(
        "Servers are told that interfaces can be shown: modern ones by whom, others that they are relayed.",
        "architecture 5, capabilities declared upstream",
    ),
    # doctor
    "doctor:advice:from-findings": Requirement(
        "Each setting that differs from its default is advised for what was found out, with a reason; scope always.",
        "issue 6, holdfast doctor",
    ),
    "doctor:advice:can-be-pasted": Requirement(
        "The settings that are printed are accepted as a settings file, mean what was meant, and hold no secret.",
        "issue 6, holdfast doctor",
    ),
    "doctor:findings:as-the-server-is": Requirement(
        "Eras, ids, a second connection, memory, streams and DELETE are found as the server has them.",
        "issue 6, holdfast doctor",
    ),
    "doctor:findings:real-servers": Requirement(
        "What is found of the servers of the table of hosts is what the table says of them.",
        "hosts, stateful servers of others",
    ),
    "doctor:nothing-is-left": Requirement(
        "Every session that was opened is ended, and every process, whatever the server does and who cuts it short.",
        "issue 6, holdfast doctor",
    ),
    "doctor:calls-what-was-named": Requirement(
        "No tool is called but those that were named, and the pair of our own test server.",
        "issue 6, holdfast doctor",
    ),
    "doctor:bounded": Requirement(
        "A server that hangs, closes or talks nonsense ends in a sentence, within the time that was given.",
        "issue 6, holdfast doctor",
    ),
    "doctor:shown": Requirement(
        "Findings, advice and settings are readable in 80 columns and in a pipe, and as one JSON object.",
        "issue 6, holdfast doctor",
    ),
    # Open WebUI, the real one
    "hosts:openwebui:kept": Requirement(
        "State is kept for each chat of each person, and a follow-up message opens nothing, in either era.",
        "issue 6, Open WebUI 1",
    ),
    "hosts:openwebui:asks": Requirement("A server's question reaches the person whose chat it is.", "issue 6, tests"),
    "hosts:openwebui:stop": Requirement(
        "Stop cancels the call at the server, and the chat goes on with what it had.", "issue 6, tests"
    ),
    "hosts:openwebui:restart": Requirement(
        "After a restart of the server the loss is told once, and the chat goes on.", "issue 6, tests"
    ),
    "hosts:openwebui:filter": Requirement(
        "The filter function warms a chat before the model is asked, shows how it goes, and holds no message up.",
        "issue 6, Open WebUI 2",
    ),
    "hosts:openwebui:guide": Requirement(
        "Who follows docs/openwebui.md has what it promises.", "issue 6, how it is proved"
    ),
    "hosts:openwebui:signed": Requirement(
        "Open WebUI's signed users are believed, and no others beside them.", "issue 6, Open WebUI 3"
    ),
    "hosts:openwebui:swift": Requirement(
        "A warm message costs the gateway milliseconds, and a cold start says so at once.", "issue 6, how it is proved"
    ),
    # users whom a host signs
    "identity:signed:proven": Requirement(
        "A user whom a host signs is believed; without a token nobody is named.",
        "issue 6, Open WebUI; hosts, headers",
    ),
    "identity:signed:forged": Requirement(
        "Where users are signed, a name without a good signature is refused and opens nothing.",
        "threats-and-faults 11; issue 6, Open WebUI",
    ),
    "identity:signed:expiry": Requirement(
        "A token's expiry counts when it first comes, and again once it was left alone or an hour has passed.",
        "hosts, headers: fixed when it connects",
    ),
    "identity:signed:start": Requirement(
        "What checks tokens is loaded only where a secret is set.",
        "style 8",
    ),
    # every client to every server
    "eras:pairs:as-the-table-says": Requirement(
        "Every feature fares between every kind of client and every kind of server as the table of docs/eras.md says.",
        "bridging 1",
    ),
    "eras:pairs:printed": Requirement(
        "The table of docs/eras.md is the one whose cells are run.",
        "style 8",
    ),
    # import of another gateway's file
    "import:litellm:servers": Requirement(
        "Servers of LiteLLM's file are reached as LiteLLM reaches them, by URL or command.",
        "issue 6, holdfast import",
    ),
    "import:litellm:credentials": Requirement(
        "A static credential is sent in the header and the form in which LiteLLM sends it.",
        "issue 6, holdfast import",
    ),
    "import:litellm:references": Requirement(
        "A reference to a variable stays one; a secret is written only where it stood in clear, and never said.",
        "issue 6, holdfast import",
    ),
    "import:litellm:names": Requirement(
        "Tools keep the names at /mcp that they have at LiteLLM's, with one server too; where they cannot, it is said.",
        "issue 6, LiteLLM in whose place Holdfast is",
    ),
    "import:litellm:keys": Requirement(
        "Whoever bears LiteLLM's master key may call, and nobody else unless LiteLLM let everybody in.",
        "issue 6, holdfast import",
    ),
    "import:litellm:nothing-silently": Requirement(
        "What is not carried over is said with its line, on stderr and in a comment.",
        "issue 6, holdfast import",
    ),
    "import:litellm:mistakes": Requirement(
        "A mistake in the file is a readable line with its place, and nothing is written.",
        "style 5",
    ),
    # the real LiteLLM
    "hosts:litellm:start": Requirement(
        "LiteLLM's list at its start, which names nobody, is answered without the server.",
        "hosts.md, LiteLLM",
    ),
    "hosts:litellm:state": Requirement(
        "Through LiteLLM each chat of each user keeps its state over messages, with 0 initializes after the first.",
        "issue 6, LiteLLM",
    ),
    "hosts:litellm:loss": Requirement(
        "A session that the server lost is told once through LiteLLM, which never gets a 404 and goes on working.",
        "hosts.md, LiteLLM",
    ),
    "hosts:litellm:relay": Requirement(
        "Progress, elicitation and sampling pass through LiteLLM and Holdfast.",
        "issue 6, LiteLLM",
    ),
    "hosts:litellm:bursts": Requirement(
        "The bursts of initialize that LiteLLM sends reach the server once.",
        "hosts.md, LiteLLM",
    ),
    "hosts:litellm:sessionless": Requirement(
        "A call without a session through LiteLLM meets the state of the chat that it names.",
        "issue 6, LiteLLM",
    ),
    "hosts:litellm:in-its-place": Requirement(
        "With its imported file, a client of LiteLLM's /mcp finds the same tools, names and key at Holdfast's.",
        "issue 6, LiteLLM",
    ),
    "import:litellm:passes-check": Requirement(
        "Whatever is written passes `holdfast check`, once its variables are set.",
        "issue 6, holdfast import",
    ),
}


def requirement(requirement_id: str) -> pytest.MarkDecorator:
    """Mark a test as one that holds the requirement of this id."""
    if requirement_id not in REQUIREMENTS:
        raise KeyError(f"{requirement_id!r} is not in tests/requirements.py")
    return pytest.mark.requirement(requirement_id)
