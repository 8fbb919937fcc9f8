#define _GNU_SOURCE
#include "mcp.h"

#include <stdio.h>
#include <string.h>

#include "json.h"

#define MAX_SIZE (4u << 20)

Stats stats;

static Buffer tools; /* the result of tools/list */

void list_tools(int count) {
    char tool[1024];
    append_text(&tools, "{\"tools\":[");
    for (int i = 0; i < count; i++) {
        char name[32] = "echo";
        if (i)
            snprintf(name, sizeof name, "tool_%d", i);
        snprintf(tool, sizeof tool,
                 "%s{\"name\":\"%s\",\"description\":\"Says what it is told, unchanged, so that the caller can check "
                 "that the answer belongs to the question.\",\"inputSchema\":{\"type\":\"object\",\"properties\":"
                 "{\"text\":{\"type\":\"string\",\"description\":\"What to say.\"},\"size\":{\"type\":\"integer\","
                 "\"description\":\"How many bytes to add.\"},\"events\":{\"type\":\"integer\",\"description\":"
                 "\"How often to report progress.\"},\"pause\":{\"type\":\"integer\",\"description\":"
                 "\"Milliseconds between two reports.\"}},\"required\":[\"text\"]}}",
                 i ? "," : "", name);
        append_text(&tools, tool);
    }
    append_text(&tools, "]}");
}

int is_initialize(Slice message) {
    Slice method = member(message, "method");
    return method.at && is_text(method, "initialize");
}

static void end_message(Answer *answer) { answer->ends[answer->count++] = answer->text.length; }

static void append_slice(Buffer *buffer, Slice slice) { append(buffer, slice.at, slice.length); }

static void begin_answer(Answer *answer, Slice id) {
    append_text(&answer->text, "{\"jsonrpc\":\"2.0\",\"id\":");
    append_slice(&answer->text, id);
}

static void refuse(Answer *answer, Slice id, const char *error) {
    begin_answer(answer, id);
    append_text(&answer->text, ",\"error\":");
    append_text(&answer->text, error);
    append_text(&answer->text, "}");
    end_message(answer);
}

static void report_progress(Answer *answer, Slice token, size_t events) {
    for (size_t i = 1; i <= events; i++) {
        char text[64];
        append_text(&answer->text, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":");
        append_slice(&answer->text, token);
        snprintf(text, sizeof text, ",\"progress\":%zu,\"total\":%zu}}", i, events);
        append_text(&answer->text, text);
        end_message(answer);
    }
}

/* Says `text` and `size` more bytes, after `events` reports of progress where a token was given. */
static void call_echo(Answer *answer, Slice id, Slice params) {
    Slice arguments = member(params, "arguments"), said = member(arguments, "text");
    Slice token = member(member(params, "_meta"), "progressToken");
    size_t size = number(member(arguments, "size"), MAX_SIZE);
    if (!is_text(member(params, "name"), "echo") || said.length < 2 || *said.at != '"') {
        refuse(answer, id, "{\"code\":-32602,\"message\":\"echo wants a text\"}");
        return;
    }
    if (token.at)
        report_progress(answer, token, number(member(arguments, "events"), MAX_EVENTS));
    answer->pause_ms = (int)number(member(arguments, "pause"), 1000);
    begin_answer(answer, id);
    append_text(&answer->text, ",\"result\":{\"content\":[{\"type\":\"text\",\"text\":");
    append(&answer->text, said.at, said.length - 1);
    if (size)
        append_slice(&answer->text, filler(size));
    append_text(&answer->text, "\"}],\"isError\":false}}");
    end_message(answer);
}

static void initialize(Answer *answer, Slice id, Slice params) {
    Slice version = member(params, "protocolVersion");
    stats.initializes++;
    begin_answer(answer, id);
    append_text(&answer->text, ",\"result\":{\"protocolVersion\":");
    if (version.at)
        append_slice(&answer->text, version);
    else
        append_text(&answer->text, "\"2025-11-25\"");
    append_text(&answer->text, ",\"capabilities\":{\"tools\":{}},"
                               "\"serverInfo\":{\"name\":\"bench-upstream\",\"version\":\"1\"}}}");
    end_message(answer);
}

static void result(Answer *answer, Slice id, Slice value) {
    begin_answer(answer, id);
    append_text(&answer->text, ",\"result\":");
    append_slice(&answer->text, value);
    append_text(&answer->text, "}");
    end_message(answer);
}

void answer_message(Slice message, Answer *answer) {
    Slice method = member(message, "method"), id = member(message, "id"), params = member(message, "params");
    answer->text.length = 0;
    answer->count = 0;
    if (!method.at || !id.at) {
        stats.notifications++;
    } else if (is_text(method, "tools/call")) {
        stats.calls++;
        call_echo(answer, id, params);
    } else if (is_text(method, "tools/list")) {
        stats.lists++;
        result(answer, id, (Slice){tools.bytes, tools.length});
    } else if (is_text(method, "initialize")) {
        initialize(answer, id, params);
    } else if (is_text(method, "ping")) {
        stats.pings++;
        result(answer, id, (Slice){"{}", 2});
    } else {
        refuse(answer, id, "{\"code\":-32601,\"message\":\"no such method\"}");
    }
}

Slice stats_text(void) {
    static char body[512];
    int size = snprintf(body, sizeof body,
                        "{\"connections\":%lu,\"requests\":%lu,\"posts\":%lu,\"gets\":%lu,\"deletes\":%lu,"
                        "\"initializes\":%lu,\"notifications\":%lu,\"lists\":%lu,\"calls\":%lu,\"pings\":%lu,"
                        "\"unknown_sessions\":%lu,\"open_sessions\":%zu}",
                        stats.connections, stats.requests, stats.posts, stats.gets, stats.deletes, stats.initializes,
                        stats.notifications, stats.lists, stats.calls, stats.pings, stats.unknown_sessions,
                        stats.open_sessions);
    return (Slice){body, (size_t)size};
}
