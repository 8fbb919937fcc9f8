/* A minimal, stateful MCP server over Streamable HTTP, handshake era, for measurements.
 *
 * One process, one thread, epoll, keep-alive. It answers so cheaply that whatever stands before it
 * is what gets measured. Listens on loopback only and prints its port.
 *
 *   upstream [--port N] [--tools N]
 *
 * POST, GET and DELETE /mcp are MCP; GET /stats says what arrived, as JSON.
 * The tool `echo` answers with its argument `text`.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_REQUEST (4u << 20)
#define ID_LENGTH 32

typedef struct {
    const char *at;
    size_t length;
} Slice;

typedef struct {
    char *bytes;
    size_t length, capacity;
} Buffer;

typedef struct {
    int fd;
    Buffer in, out;
    size_t sent;
} Connection;

typedef struct {
    char id[ID_LENGTH + 1];
    int is_open;
} Session;

static struct {
    unsigned long connections, requests, posts, gets, deletes;
    unsigned long initializes, notifications, lists, calls, pings, unknown_sessions;
} stats;

static Session *sessions;
static size_t session_count, session_capacity, open_sessions;
static Buffer tools; /* the result of tools/list */

static void *must(void *memory) {
    if (!memory) {
        perror("upstream");
        exit(1);
    }
    return memory;
}

static void reserve(Buffer *buffer, size_t more) {
    if (buffer->length + more <= buffer->capacity)
        return;
    buffer->capacity = (buffer->length + more) * 2;
    buffer->bytes = must(realloc(buffer->bytes, buffer->capacity));
}

static void append(Buffer *buffer, const char *bytes, size_t length) {
    reserve(buffer, length);
    memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
}

static void append_text(Buffer *buffer, const char *text) { append(buffer, text, strlen(text)); }

/* ---- JSON: just enough to find a member of an object; NULL where the text is no JSON ---- */

static const char *skip_space(const char *p, const char *end) {
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

static const char *skip_string(const char *p, const char *end) {
    for (p++; p < end; p++) {
        if (*p == '\\')
            p++;
        else if (*p == '"')
            return p + 1;
    }
    return NULL;
}

static const char *skip_value(const char *p, const char *end) {
    int depth = 0;
    if (p < end && *p == '"')
        return skip_string(p, end);
    while (p < end) {
        if (*p == '"') {
            if (!(p = skip_string(p, end)))
                return NULL;
            continue;
        }
        if (*p == '{' || *p == '[') {
            depth++;
        } else if (*p == '}' || *p == ']') {
            if (depth == 0)
                return p;
            if (--depth == 0)
                return p + 1;
        } else if (depth == 0 && (*p == ',' || *p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) {
            return p;
        }
        p++;
    }
    return depth == 0 ? p : NULL;
}

static Slice member(Slice object, const char *name) {
    const Slice none = {NULL, 0};
    const char *p = object.at, *end = p + object.length;
    size_t length = strlen(name);
    if (!p || !object.length || *p != '{')
        return none;
    p++;
    while ((p = skip_space(p, end)) < end && *p == '"') {
        const char *key = p + 1, *value;
        size_t key_length;
        if (!(p = skip_string(p, end)))
            return none;
        key_length = (size_t)(p - 1 - key);
        p = skip_space(p, end);
        if (p >= end || *p != ':')
            return none;
        value = skip_space(p + 1, end);
        if (!(p = skip_value(value, end)))
            return none;
        if (key_length == length && !memcmp(key, name, length))
            return (Slice){value, (size_t)(p - value)};
        p = skip_space(p, end);
        if (p < end && *p == ',')
            p++;
    }
    return none;
}

static int is_text(Slice value, const char *text) {
    size_t length = strlen(text);
    return value.length == length + 2 && !memcmp(value.at + 1, text, length);
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
    open_sessions++;
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

static void answer(Connection *c, const char *status, const char *session, const Slice *parts, int count) {
    char head[256];
    size_t length = 0;
    int size;
    for (int i = 0; i < count; i++)
        length += parts[i].length;
    size = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s%s%s%s\r\n", status, length,
                    length ? "Content-Type: application/json\r\n" : "", session ? "Mcp-Session-Id: " : "",
                    session ? session : "", session ? "\r\n" : "");
    append(&c->out, head, (size_t)size);
    for (int i = 0; i < count; i++)
        append(&c->out, parts[i].at, parts[i].length);
}

static void refuse(Connection *c, const char *status) { answer(c, status, NULL, NULL, 0); }

static Slice text(const char *bytes) { return (Slice){bytes, strlen(bytes)}; }

static void answer_result(Connection *c, Slice id, const char *session, const char *before, Slice middle, const char *after) {
    Slice parts[] = {text("{\"jsonrpc\":\"2.0\",\"id\":"), id, text(","), text(before), middle, text(after)};
    answer(c, "200 OK", session, parts, 6);
}

static void answer_stats(Connection *c) {
    char body[512];
    int size = snprintf(body, sizeof body,
                        "{\"connections\":%lu,\"requests\":%lu,\"posts\":%lu,\"gets\":%lu,\"deletes\":%lu,"
                        "\"initializes\":%lu,\"notifications\":%lu,\"lists\":%lu,\"calls\":%lu,\"pings\":%lu,"
                        "\"unknown_sessions\":%lu,\"open_sessions\":%zu}",
                        stats.connections, stats.requests, stats.posts, stats.gets, stats.deletes, stats.initializes,
                        stats.notifications, stats.lists, stats.calls, stats.pings, stats.unknown_sessions,
                        open_sessions);
    Slice part = {body, (size_t)size};
    answer(c, "200 OK", NULL, &part, 1);
}

static void answer_post(Connection *c, Slice body, Slice session_id) {
    const Slice nothing = {"", 0};
    Slice method = member(body, "method"), id = member(body, "id"), params = member(body, "params");
    stats.posts++;
    if (!body.length || *body.at != '{' || (!method.at && !id.at)) {
        refuse(c, "400 Bad Request");
        return;
    }
    if (method.at && is_text(method, "initialize")) {
        Slice version = member(params, "protocolVersion");
        stats.initializes++;
        answer_result(c, id, open_session()->id, "\"result\":{\"protocolVersion\":",
                      version.at ? version : text("\"2025-11-25\""),
                      ",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"bench-upstream\",\"version\":\"1\"}}}");
        return;
    }
    if (!find_session(session_id)) {
        stats.unknown_sessions += session_id.at != NULL;
        refuse(c, session_id.at ? "404 Not Found" : "400 Bad Request");
        return;
    }
    if (!method.at || !id.at) {
        stats.notifications++;
        refuse(c, "202 Accepted");
    } else if (is_text(method, "tools/call")) {
        Slice said = member(member(params, "arguments"), "text");
        stats.calls++;
        if (!is_text(member(params, "name"), "echo") || !said.at || *said.at != '"')
            answer_result(c, id, NULL, "\"error\":{\"code\":-32602,\"message\":\"", nothing, "echo wants a text\"}}");
        else
            answer_result(c, id, NULL, "\"result\":{\"content\":[{\"type\":\"text\",\"text\":", said,
                          "}],\"isError\":false}}");
    } else if (is_text(method, "tools/list")) {
        stats.lists++;
        answer_result(c, id, NULL, "\"result\":", (Slice){tools.bytes, tools.length}, "}");
    } else if (is_text(method, "ping")) {
        stats.pings++;
        answer_result(c, id, NULL, "\"result\":{}", nothing, "}");
    } else {
        answer_result(c, id, NULL, "\"error\":{\"code\":-32601,\"message\":\"", nothing, "no such method\"}}");
    }
}

static void answer_request(Connection *c, Slice method, Slice path, Slice session_id, Slice body) {
    Session *session;
    if (path.length == 6 && !memcmp(path.at, "/stats", 6)) {
        answer_stats(c);
        return;
    }
    stats.requests++;
    if (path.length != 4 || memcmp(path.at, "/mcp", 4)) {
        refuse(c, "404 Not Found");
    } else if (method.length == 4 && !memcmp(method.at, "POST", 4)) {
        answer_post(c, body, session_id);
    } else if (method.length == 6 && !memcmp(method.at, "DELETE", 6)) {
        stats.deletes++;
        if ((session = find_session(session_id))) {
            session->is_open = 0;
            open_sessions--;
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

/* Answers one request at the start of the input: its length, 0 where it is incomplete, -1 where it is none. */
static long take_request(Connection *c, const char *at, size_t length) {
    const char *head_end = memmem(at, length, "\r\n\r\n", 4), *line, *end;
    Slice method, path, session_id = {NULL, 0};
    size_t body_length = 0, head_length;
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
            return -1;
    }
    if (body_length > MAX_REQUEST)
        return -1;
    if (length < head_length + body_length)
        return 0;
    answer_request(c, method, path, session_id, (Slice){at + head_length, body_length});
    return (long)(head_length + body_length);
}

static int flush(Connection *c) {
    while (c->sent < c->out.length) {
        ssize_t n = send(c->fd, c->out.bytes + c->sent, c->out.length - c->sent, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
        c->sent += (size_t)n;
    }
    c->sent = c->out.length = 0;
    return 0;
}

static int serve(Connection *c, uint32_t events) {
    size_t taken = 0;
    if (events & EPOLLIN) {
        size_t room;
        ssize_t n;
        do { /* edge-triggered: read until there is no more */
            reserve(&c->in, 16384);
            room = c->in.capacity - c->in.length;
            n = recv(c->fd, c->in.bytes + c->in.length, room, 0);
            if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK))
                return -1;
            if (n > 0)
                c->in.length += (size_t)n;
        } while (n > 0 && (size_t)n == room);
    } else if (events & (EPOLLHUP | EPOLLERR)) {
        return -1;
    }
    while (taken < c->in.length) {
        long n = take_request(c, c->in.bytes + taken, c->in.length - taken);
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        taken += (size_t)n;
    }
    memmove(c->in.bytes, c->in.bytes + taken, c->in.length - taken);
    c->in.length -= taken;
    return flush(c);
}

static int listen_on(int port, int *actual) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t size = sizeof address;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096) ||
        getsockname(fd, (struct sockaddr *)&address, &size)) {
        perror("upstream");
        exit(1);
    }
    *actual = ntohs(address.sin_port);
    return fd;
}

static void accept_all(int listener, int poll) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        Connection *c = must(calloc(1, sizeof *c));
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        c->fd = fd;
        stats.connections++;
        epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
    }
}

static void list_tools(int count) {
    char tool[512];
    append_text(&tools, "{\"tools\":[");
    for (int i = 0; i < count; i++) {
        char name[32] = "echo";
        if (i)
            snprintf(name, sizeof name, "tool_%d", i);
        snprintf(tool, sizeof tool,
                 "%s{\"name\":\"%s\",\"description\":\"Says what it is told, unchanged, so that the caller can check "
                 "that the answer belongs to the question.\",\"inputSchema\":{\"type\":\"object\",\"properties\":"
                 "{\"text\":{\"type\":\"string\",\"description\":\"What to say.\"}},\"required\":[\"text\"]}}",
                 i ? "," : "", name);
        append_text(&tools, tool);
    }
    append_text(&tools, "]}");
}

int main(int argc, char **argv) {
    struct epoll_event events[256], listening = {.events = EPOLLIN, .data.ptr = NULL};
    int port = 0, tool_count = 10, listener, poll;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 < argc && !strcmp(argv[i], "--port"))
            port = atoi(argv[i + 1]);
        else if (i + 1 < argc && !strcmp(argv[i], "--tools"))
            tool_count = atoi(argv[i + 1]);
        else {
            fprintf(stderr, "usage: upstream [--port N] [--tools N]\n");
            return 2;
        }
    }
    list_tools(tool_count);
    listener = listen_on(port, &port);
    poll = epoll_create1(0);
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &listening);
    printf("%d\n", port);
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(poll, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            Connection *c = events[i].data.ptr;
            if (!c) {
                accept_all(listener, poll);
            } else if (serve(c, events[i].events)) {
                close(c->fd);
                free(c->in.bytes);
                free(c->out.bytes);
                free(c);
            }
        }
    }
}
