#define _GNU_SOURCE
#include "http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

#include "json.h"

#define MAX_REQUEST (4u << 20)
#define ID_LENGTH 32

typedef struct {
    char id[ID_LENGTH + 1];
    int is_open;
} Session;

Connection *streaming;

static Session *sessions;
static size_t session_count, session_capacity;

double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- sessions: the first eight hex digits of an id are its place in the table ---- */

static Session *open_session(void) {
    unsigned char noise[(ID_LENGTH - 8) / 2];
    Session *session;
    if (session_count == session_capacity) {
        session_capacity = session_capacity ? session_capacity * 2 : 1024;
        sessions = must(realloc(sessions, session_capacity * sizeof *sessions));
    }
    session = &sessions[session_count];
    if (getrandom(noise, sizeof noise, 0) != (ssize_t)sizeof noise) {
        perror("upstream");
        exit(1);
    }
    snprintf(session->id, 9, "%08zx", session_count++);
    for (size_t i = 0; i < sizeof noise; i++)
        snprintf(session->id + 8 + 2 * i, 3, "%02x", noise[i]);
    session->is_open = 1;
    stats.open_sessions++;
    return session;
}

static Session *find_session(Slice id) {
    char place[9] = {0};
    size_t index;
    if (id.length != ID_LENGTH)
        return NULL;
    memcpy(place, id.at, 8);
    index = strtoul(place, NULL, 16);
    if (index >= session_count || !sessions[index].is_open || memcmp(sessions[index].id, id.at, ID_LENGTH))
        return NULL;
    return &sessions[index];
}

/* ---- answers ---- */

static void answer(Connection *c, const char *status, const char *session, Slice body) {
    char head[256];
    int size = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s%s%s%s\r\n", status, body.length,
                        body.length ? "Content-Type: application/json\r\n" : "", session ? "Mcp-Session-Id: " : "",
                        session ? session : "", session ? "\r\n" : "");
    append(&c->out, head, (size_t)size);
    append(&c->out, body.at, body.length);
}

static void refuse(Connection *c, const char *status) { answer(c, status, NULL, (Slice){"", 0}); }

void say_chunk(Connection *c) {
    size_t end = c->chunks[c->chunk++];
    append(&c->out, c->stream.bytes + c->said, end - c->said);
    c->said = end;
    c->due = c->pause > 0 ? now() + c->pause : 0;
}

/* The head now, with the first event; the others later, one at a time. */
static void answer_stream(Connection *c, const Answer *whole) {
    size_t at = 0;
    append_text(&c->out, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    c->stream.length = c->said = 0;
    c->chunk = 0;
    c->chunk_count = whole->count;
    c->pause = (double)whole->pause_ms * 1e-3;
    for (int i = 0; i < whole->count; at = whole->ends[i++]) {
        char size[16];
        snprintf(size, sizeof size, "%zx\r\n", whole->ends[i] - at + 23);
        append_text(&c->stream, size);
        append_text(&c->stream, "event: message\ndata: ");
        append(&c->stream, whole->text.bytes + at, whole->ends[i] - at);
        append_text(&c->stream, i + 1 < whole->count ? "\n\n\r\n" : "\n\n\r\n0\r\n\r\n");
        c->chunks[i] = c->stream.length;
    }
    say_chunk(c);
    c->next = streaming;
    streaming = c;
}

static void answer_post(Connection *c, Slice body, Slice session_id) {
    static Answer said;
    const char *session = NULL;
    if (!body.length || *body.at != '{' || (!member(body, "method").at && !member(body, "id").at)) {
        refuse(c, "400 Bad Request");
        return;
    }
    if (is_initialize(body)) {
        session = open_session()->id;
    } else if (!find_session(session_id)) {
        stats.unknown_sessions += session_id.at != NULL;
        refuse(c, session_id.at ? "404 Not Found" : "400 Bad Request");
        return;
    }
    answer_message(body, &said);
    if (said.count == 0)
        refuse(c, "202 Accepted");
    else if (said.count == 1)
        answer(c, "200 OK", session, (Slice){said.text.bytes, said.text.length});
    else
        answer_stream(c, &said);
}

static void answer_request(Connection *c, Slice method, Slice path, Slice session_id, Slice body) {
    Session *session;
    if (path.length == 6 && !memcmp(path.at, "/stats", 6)) {
        answer(c, "200 OK", NULL, stats_text());
        return;
    }
    stats.requests++;
    if (path.length != 4 || memcmp(path.at, "/mcp", 4)) {
        refuse(c, "404 Not Found");
    } else if (method.length == 4 && !memcmp(method.at, "POST", 4)) {
        stats.posts++;
        answer_post(c, body, session_id);
    } else if (method.length == 6 && !memcmp(method.at, "DELETE", 6)) {
        stats.deletes++;
        if ((session = find_session(session_id))) {
            session->is_open = 0;
            stats.open_sessions--;
        }
        refuse(c, session ? "200 OK" : "404 Not Found");
    } else {
        stats.gets++;
        refuse(c, "405 Method Not Allowed");
    }
}

/* ---- HTTP ---- */

static Slice header_value(const char *line, const char *end, const char *name) {
    size_t length = strlen(name);
    if ((size_t)(end - line) <= length || strncasecmp(line, name, length) || line[length] != ':')
        return (Slice){NULL, 0};
    line += length + 1;
    while (line < end && *line == ' ')
        line++;
    while (end > line && end[-1] == ' ')
        end--;
    return (Slice){line, (size_t)(end - line)};
}

/* Collects a chunked body: its length as it was sent, 0 where it is incomplete, -1 where it is none. */
static long take_chunks(Connection *c, const char *at, size_t length) {
    const char *p = at, *end = at + length, *line_end;
    c->body.length = 0;
    while ((line_end = memmem(p, (size_t)(end - p), "\r\n", 2))) {
        size_t size = strtoul(p, NULL, 16);
        p = line_end + 2;
        if (size > MAX_REQUEST)
            return -1;
        if ((size_t)(end - p) < size + 2)
            return 0;
        append(&c->body, p, size);
        p += size + 2;
        if (!size)
            return (long)(p - at);
    }
    return 0;
}

long take_request(Connection *c, const char *at, size_t length) {
    const char *head_end = memmem(at, length, "\r\n\r\n", 4), *line, *end;
    Slice method, path, session_id = {NULL, 0};
    size_t body_length = 0, head_length;
    int is_chunked = 0;
    if (!head_end)
        return length > 65536 ? -1 : 0;
    head_length = (size_t)(head_end - at) + 4;
    end = memchr(at, '\r', head_length);
    line = memchr(at, ' ', (size_t)(end - at));
    if (!line)
        return -1;
    method = (Slice){at, (size_t)(line - at)};
    path.at = ++line;
    while (line < end && *line != ' ')
        line++;
    path.length = (size_t)(line - path.at);
    for (line = end + 2; line < head_end; line = end + 2) {
        Slice value;
        end = memmem(line, (size_t)(head_end + 2 - line), "\r\n", 2);
        if ((value = header_value(line, end, "content-length")).at)
            body_length = strtoul(value.at, NULL, 10);
        else if ((value = header_value(line, end, "mcp-session-id")).at)
            session_id = value;
        else if (header_value(line, end, "transfer-encoding").at)
            is_chunked = 1;
    }
    if (is_chunked) {
        long whole = take_chunks(c, at + head_length, length - head_length);
        if (whole > 0)
            answer_request(c, method, path, session_id, (Slice){c->body.bytes, c->body.length});
        return whole > 0 ? (long)head_length + whole : whole;
    }
    if (body_length > MAX_REQUEST)
        return -1;
    if (length < head_length + body_length)
        return 0;
    answer_request(c, method, path, session_id, (Slice){at + head_length, body_length});
    return (long)(head_length + body_length);
}
