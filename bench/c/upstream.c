/* A minimal, stateful MCP server, handshake era, for measurements.
 *
 * One process, one thread, epoll, keep-alive. It answers so cheaply that whatever stands before it
 * is what gets measured. Listens on loopback only and prints its port.
 *
 *   upstream [--port N] [--tools N]     over Streamable HTTP
 *   upstream --stdio [--tools N]        over standard input and output
 *
 * POST, GET and DELETE /mcp are MCP; GET /stats says what arrived, as JSON.
 * The tool `echo` answers with its argument `text`, and `size` bytes more. Where it is asked for
 * progress it reports it `events` times, as a stream: one event in each turn of the loop, so that
 * what relays them gets one at a time, as from a tool that works.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "json.h"
#include "mcp.h"

#define MAX_REQUEST (4u << 20)
#define ID_LENGTH 32

typedef struct Connection {
    int fd;
    Buffer in, out;
    size_t sent;
    Buffer stream; /* chunks that are still to be sent, one in each turn */
    size_t chunks[MAX_EVENTS + 1], said;
    int chunk, chunk_count;
    struct Connection *next; /* that streams */
} Connection;

typedef struct {
    char id[ID_LENGTH + 1];
    int is_open;
} Session;

static Session *sessions;
static size_t session_count, session_capacity;
static Connection *streaming; /* those with chunks to send */

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

static void say_chunk(Connection *c) {
    size_t end = c->chunks[c->chunk++];
    append(&c->out, c->stream.bytes + c->said, end - c->said);
    c->said = end;
}

/* The head now, with the first event; the others in the turns to come. */
static void answer_stream(Connection *c, const Answer *whole) {
    size_t at = 0;
    append_text(&c->out, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    c->stream.length = c->said = 0;
    c->chunk = 0;
    c->chunk_count = whole->count;
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

/* Sends what is there to be sent: -1 where the client is gone. */
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

/* The next event of every stream; one of a client that is gone is noticed where its end is read. */
static void stream_on(void) {
    Connection **link = &streaming;
    while (*link) {
        Connection *c = *link;
        say_chunk(c);
        flush(c);
        if (c->chunk == c->chunk_count)
            *link = c->next;
        else
            link = &c->next;
    }
}

static void forget(Connection *c) {
    for (Connection **link = &streaming; *link; link = &(*link)->next)
        if (*link == c) {
            *link = c->next;
            break;
        }
    close(c->fd);
    free(c->in.bytes);
    free(c->out.bytes);
    free(c->stream.bytes);
    free(c);
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

static void serve_http(int port) {
    struct epoll_event events[256], listening = {.events = EPOLLIN, .data.ptr = NULL};
    int listener = listen_on(port, &port), poll = epoll_create1(0);
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &listening);
    printf("%d\n", port);
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(poll, events, 256, streaming ? 0 : -1);
        stream_on();
        for (int i = 0; i < ready; i++) {
            Connection *c = events[i].data.ptr;
            if (!c)
                accept_all(listener, poll);
            else if (serve(c, events[i].events))
                forget(c);
        }
    }
}

static int write_all(const char *bytes, size_t length) {
    while (length) {
        ssize_t n = write(STDOUT_FILENO, bytes, length);
        if (n <= 0)
            return -1;
        bytes += n;
        length -= (size_t)n;
    }
    return 0;
}

/* Answers each line of standard input, until it ends. */
static void serve_stdio(void) {
    Answer said = {0};
    Buffer in = {0}, out = {0};
    for (;;) {
        const char *line, *line_end;
        ssize_t n;
        reserve(&in, 65536);
        if ((n = read(STDIN_FILENO, in.bytes + in.length, in.capacity - in.length)) <= 0)
            return;
        in.length += (size_t)n;
        out.length = 0;
        for (line = in.bytes; (line_end = memchr(line, '\n', in.length - (size_t)(line - in.bytes))); line = line_end + 1) {
            size_t at = 0;
            answer_message((Slice){line, (size_t)(line_end - line)}, &said);
            for (int i = 0; i < said.count; at = said.ends[i++]) {
                append(&out, said.text.bytes + at, said.ends[i] - at);
                append_text(&out, "\n");
            }
        }
        in.length -= (size_t)(line - in.bytes);
        memmove(in.bytes, line, in.length);
        if (write_all(out.bytes, out.length))
            return;
    }
}

int main(int argc, char **argv) {
    int port = 0, tool_count = 10, is_stdio = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--stdio"))
            is_stdio = 1;
        else if (i + 1 < argc && !strcmp(argv[i], "--port"))
            port = atoi(argv[++i]);
        else if (i + 1 < argc && !strcmp(argv[i], "--tools"))
            tool_count = atoi(argv[++i]);
        else {
            fprintf(stderr, "usage: upstream [--port N | --stdio] [--tools N]\n");
            return 2;
        }
    }
    list_tools(tool_count);
    if (is_stdio)
        serve_stdio();
    else
        serve_http(port);
    return 0;
}
