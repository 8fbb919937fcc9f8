/* Requests: what each step of a connection asks. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "load.h"

__attribute__((format(printf, 2, 3))) static void say(Buffer *buffer, const char *format, ...) {
    va_list arguments;
    reserve(buffer, 2048);
    va_start(arguments, format);
    buffer->length += (size_t)vsnprintf(buffer->bytes + buffer->length, 2048, format, arguments);
    va_end(arguments);
}

static const char *method_of_call(void) { return options.tools ? "tools/list" : "tools/call"; }

/* What a request says of itself, and what it wants to hear while it is under way. */
static void say_meta(Buffer *body, const Connection *c) {
    if (!options.is_modern && !options.events)
        return;
    append_text(body, "\"_meta\":{");
    if (options.is_modern)
        say(body,
            "\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","
            "\"io.modelcontextprotocol/clientInfo\":{\"name\":\"bench\",\"version\":\"1\"},"
            "\"io.modelcontextprotocol/clientCapabilities\":{},\"dev.holdfast/chat\":\"c%d\"",
            options.is_shared ? 0 : c->number);
    if (options.events)
        say(body, "%s\"progressToken\":\"p%d-%lu\"", options.is_modern ? "," : "", c->number, c->next_id);
    append_text(body, options.tools ? "}" : "},");
}

static void say_call(Buffer *body, const Connection *c) {
    say(body, "{\"jsonrpc\":\"2.0\",\"id\":%lu,\"method\":\"%s\",\"params\":{", c->next_id, method_of_call());
    say_meta(body, c);
    if (!options.tools) {
        say(body, "\"name\":\"%s\",\"arguments\":{", options.tool);
        if (options.size)
            say(body, "\"size\":%zu,", options.size);
        if (options.events)
            say(body, "\"events\":%d,\"pause\":%d,", options.events, options.pause);
        say(body, "\"text\":\"c%d-%lu-", c->number, c->next_id);
        append(body, padding, options.padding);
        append_text(body, "\"}");
    }
    append_text(body, "}}");
}

static void say_body(Buffer *body, Connection *c) {
    if (c->step == INITIALIZE)
        say(body,
            "{\"jsonrpc\":\"2.0\",\"id\":%lu,\"method\":\"initialize\",\"params\":{\"protocolVersion\":"
            "\"2025-11-25\",\"capabilities\":{},\"clientInfo\":{\"name\":\"bench\",\"version\":\"1\"}}}",
            ++c->next_id);
    else if (c->step == INITIALIZED)
        append_text(body, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
    else if (c->step == CALL) {
        c->next_id++;
        say_call(body, c);
    }
}

void write_request(Connection *c) {
    Buffer *out = &c->out;
    c->body.length = out->length = 0;
    say_body(&c->body, c);
    say(out,
        "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: application/json, text/event-stream\r\n"
        "Content-Type: application/json\r\nContent-Length: %zu\r\n",
        c->step == DELETE ? "DELETE" : "POST", options.path, options.port, c->body.length);
    if (c->session[0])
        say(out, "Mcp-Session-Id: %s\r\n", c->session);
    if (options.is_modern) {
        say(out, "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: %s\r\n", method_of_call());
        if (!options.tools)
            say(out, "Mcp-Name: %s\r\n", options.tool);
    } else if (c->session[0]) {
        append_text(out, "MCP-Protocol-Version: 2025-11-25\r\n");
    }
    append_text(out, "\r\n");
    append(out, c->body.bytes, c->body.length);
}
