/* A closed loop of MCP tool calls over keep-alive connections; checks every answer.
 *
 *   load --port N [--path /mcp] [--connections 1] [--seconds 1 | --calls N] [--warmup 0.5]
 *        [--padding BYTES] [--shared] [--modern] [--wait]
 *
 * Each connection opens an MCP session of its own (--shared: all use the first one's) and calls the
 * tool `echo` with a text that no other call uses; an answer counts as an error unless its status is
 * 200 and it bears the id and the text of its call. Answers may be JSON or event streams.
 *
 * With --modern there are no sessions: each request says for itself that it is of revision 2026-07-28,
 * and names the chat of its connection (--shared: the same one) in Holdfast's `_meta` key.
 *
 * Prints "ready" once the warm-up is over, then one line of JSON, then deletes the sessions. With
 * --wait each step after a printed line waits for a line on standard input, so that whoever started
 * this can look at other processes in between. Exits 1 where no session can be opened.
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
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STALL_SECONDS 15 /* without any answer */
#define MAX_PADDING 1000000

typedef enum { INITIALIZE, INITIALIZED, CALL, DELETE } Step;

typedef struct {
    char *bytes;
    size_t length, capacity;
} Buffer;

typedef struct {
    int fd, number, is_alive, is_busy;
    Step step;
    Buffer in, out, body;
    size_t sent;
    char session[256];
    unsigned long next_id;
    double sent_at;
} Connection;

static struct {
    int port, connections, is_shared, is_modern, is_waiting;
    size_t padding;
    unsigned long calls;
    double seconds, warmup;
    const char *path;
} options = {.connections = 1, .seconds = 1, .warmup = 0.5, .path = "/mcp"};

static struct {
    double until;         /* start no call from then on */
    unsigned long budget; /* calls that may still start; 0: any number */
    unsigned long calls, errors;
    float *latencies; /* seconds */
    size_t capacity;
} run;

static Connection *connections;
static int poll_fd;
static int busy;
static char *padding;

static void fail(const char *what) {
    fprintf(stderr, "load: %s\n", what);
    exit(1);
}

static void *must(void *memory) {
    if (!memory)
        fail("out of memory");
    return memory;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
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

/* ---- requests ---- */

static void lose(Connection *c) {
    if (c->is_alive)
        close(c->fd);
    c->is_alive = 0;
    run.errors += (unsigned long)c->is_busy;
    busy -= c->is_busy;
    c->is_busy = 0;
}

static void flush(Connection *c) {
    while (c->sent < c->out.length) {
        ssize_t n = send(c->fd, c->out.bytes + c->sent, c->out.length - c->sent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK)
                lose(c);
            return;
        }
        c->sent += (size_t)n;
    }
}

static void request(Connection *c, const char *method, const char *body, size_t body_length, const char *tail) {
    char head[1024];
    size_t tail_length = strlen(tail), text_length = body_length + (*tail ? options.padding : 0) + tail_length;
    int size = snprintf(head, sizeof head,
                        "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: application/json, text/event-stream\r\n"
                        "Content-Type: application/json\r\n%s%s%s%sContent-Length: %zu\r\n\r\n",
                        method, options.path, options.port, c->session[0] ? "Mcp-Session-Id: " : "", c->session,
                        c->session[0] ? "\r\n" : "",
                        options.is_modern ? "MCP-Protocol-Version: 2026-07-28\r\n"
                                            "Mcp-Method: tools/call\r\nMcp-Name: echo\r\n"
                        : c->session[0]   ? "MCP-Protocol-Version: 2025-11-25\r\n"
                                          : "",
                        text_length);
    c->out.length = c->sent = c->in.length = 0;
    append(&c->out, head, (size_t)size);
    append(&c->out, body, body_length);
    if (*tail) {
        append(&c->out, padding, options.padding);
        append(&c->out, tail, tail_length);
    }
    c->is_busy = 1;
    busy++;
    c->sent_at = now();
    flush(c);
}

/* What every request of revision 2026-07-28 says of itself. */
static const char *meta(const Connection *c) {
    static char text[512];
    text[0] = 0;
    if (options.is_modern)
        snprintf(text, sizeof text,
                 "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","
                 "\"io.modelcontextprotocol/clientInfo\":{\"name\":\"bench\",\"version\":\"1\"},"
                 "\"io.modelcontextprotocol/clientCapabilities\":{},\"dev.holdfast/chat\":\"c%d\"},",
                 options.is_shared ? 0 : c->number);
    return text;
}

static void send_step(Connection *c, Step step) {
    char body[1024];
    int size = 0;
    c->step = step;
    if (step == INITIALIZE)
        size = snprintf(body, sizeof body,
                        "{\"jsonrpc\":\"2.0\",\"id\":%lu,\"method\":\"initialize\",\"params\":{\"protocolVersion\":"
                        "\"2025-11-25\",\"capabilities\":{},\"clientInfo\":{\"name\":\"bench\",\"version\":\"1\"}}}",
                        ++c->next_id);
    else if (step == INITIALIZED)
        size = snprintf(body, sizeof body, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
    else if (step == CALL)
        size = snprintf(body, sizeof body,
                        "{\"jsonrpc\":\"2.0\",\"id\":%lu,\"method\":\"tools/call\",\"params\":{%s\"name\":\"echo\","
                        "\"arguments\":{\"text\":\"c%d-%lu-",
                        c->next_id + 1, meta(c), c->number, c->next_id + 1);
    c->next_id += step == CALL;
    request(c, step == DELETE ? "DELETE" : "POST", body, (size_t)size, step == CALL ? "\"}}}" : "");
}

/* ---- answers ---- */

static const char *header(const char *head, const char *end, const char *name) {
    size_t length = strlen(name);
    const char *line = head;
    while ((line = memmem(line, (size_t)(end - line), "\r\n", 2)) && (line += 2) < end)
        if ((size_t)(end - line) > length && !strncasecmp(line, name, length) && line[length] == ':')
            return line + length + 1 + strspn(line + length + 1, " ");
    return NULL;
}

/* Collects the body of a chunked answer: 1 where it is whole, 0 where more must come, -1 where it is wrong. */
static int unchunk(Connection *c, const char *p, const char *end) {
    c->body.length = 0;
    for (;;) {
        const char *line_end = memmem(p, (size_t)(end - p), "\r\n", 2);
        char *digits_end;
        size_t size;
        if (!line_end)
            return 0;
        size = strtoul(p, &digits_end, 16);
        if (digits_end == p)
            return -1;
        p = line_end + 2;
        if ((size_t)(end - p) < size + 2)
            return 0;
        if (size == 0)
            return 1;
        append(&c->body, p, size);
        p += size + 2;
    }
}

/* Reads the status and the body once they are whole; 0 until then, -1 where it is no HTTP. */
static int take_answer(Connection *c) {
    const char *head = c->in.bytes, *end = head + c->in.length, *value, *body;
    const char *head_end = memmem(head, c->in.length, "\r\n\r\n", 4);
    int status;
    if (!head_end)
        return 0;
    body = head_end + 4;
    if (c->in.length < 16 || strncmp(head, "HTTP/1.1 ", 9))
        return -1;
    status = atoi(head + 9);
    if ((value = header(head, head_end, "transfer-encoding")) && !strncasecmp(value, "chunked", 7)) {
        int whole = unchunk(c, body, end);
        if (whole <= 0)
            return whole;
    } else {
        size_t length = (value = header(head, head_end, "content-length")) ? strtoul(value, NULL, 10) : 0;
        if ((size_t)(end - body) < length)
            return 0;
        c->body.length = 0;
        append(&c->body, body, length);
    }
    if (c->step == INITIALIZE && (value = header(head, head_end, "mcp-session-id"))) {
        size_t length = strcspn(value, " \r\n");
        if (length >= sizeof c->session)
            return -1;
        memcpy(c->session, value, length);
        c->session[length] = 0;
    }
    return status;
}

/* Whether `name`, a colon and `value` stand in the body, and no digit or letter after them. */
static int has_member(const Connection *c, const char *name, const char *value, size_t length) {
    const char *p = c->body.bytes, *end = p + c->body.length;
    size_t name_length = strlen(name);
    while (p && p < end && (p = memmem(p, (size_t)(end - p), name, name_length))) {
        p += name_length;
        while (p < end && (*p == ' ' || *p == ':'))
            p++;
        if ((size_t)(end - p) > length && !memcmp(p, value, length) && !strchr("0123456789.eE", p[length]))
            return 1;
    }
    return 0;
}

static int is_right(Connection *c, int status) {
    char id[32], said[64];
    int id_length, said_length;
    if (status != 200)
        return 0;
    id_length = snprintf(id, sizeof id, "%lu", c->next_id);
    if (!has_member(c, "\"id\"", id, (size_t)id_length))
        return 0;
    said_length = snprintf(said, sizeof said, "\"c%d-%lu-", c->number, c->next_id);
    if (!options.padding) {
        said[said_length++] = '"';
        return has_member(c, "\"text\"", said, (size_t)said_length);
    }
    const char *at = memmem(c->body.bytes, c->body.length, said, (size_t)said_length);
    size_t left = at ? c->body.length - (size_t)(at + said_length - c->body.bytes) : 0;
    return left > options.padding && !memcmp(at + said_length, padding, options.padding) &&
           at[said_length + (int)options.padding] == '"';
}

static int may_call(void) {
    if (now() >= run.until)
        return 0;
    if (options.calls && run.budget == 0)
        return 0;
    run.budget -= options.calls != 0;
    return 1;
}

static void finish_call(Connection *c, int status) {
    if (run.calls == run.capacity) {
        run.capacity = run.capacity ? run.capacity * 2 : 65536;
        run.latencies = must(realloc(run.latencies, run.capacity * sizeof *run.latencies));
    }
    run.latencies[run.calls++] = (float)(now() - c->sent_at);
    run.errors += !is_right(c, status);
    if (may_call())
        send_step(c, CALL);
}

static void receive(Connection *c) {
    int status;
    size_t room;
    ssize_t n;
    do { /* edge-triggered: read until there is no more */
        reserve(&c->in, 16384);
        room = c->in.capacity - c->in.length;
        n = recv(c->fd, c->in.bytes + c->in.length, room, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)) {
            lose(c);
            return;
        }
        if (n > 0)
            c->in.length += (size_t)n;
    } while (n > 0 && (size_t)n == room);
    if (!c->is_busy || (status = take_answer(c)) == 0)
        return;
    if (status < 0) {
        lose(c);
        return;
    }
    c->is_busy = 0;
    busy--;
    if (c->step == INITIALIZE) {
        if (status != 200 || !memmem(c->body.bytes, c->body.length, "protocolVersion", 15))
            fail("initialize was refused");
        send_step(c, INITIALIZED);
    } else if (c->step == INITIALIZED) {
        if (status != 202 && status != 200 && status != 204)
            fail("notifications/initialized was refused");
    } else if (c->step == CALL) {
        finish_call(c, status);
    }
}

static void wait_until_idle(void) {
    struct epoll_event events[256];
    while (busy) {
        int ready = epoll_wait(poll_fd, events, 256, STALL_SECONDS * 1000);
        if (ready == 0) {
            fprintf(stderr, "load: %d requests unanswered after %d s\n", busy, STALL_SECONDS);
            for (int i = 0; i < options.connections; i++)
                lose(&connections[i]);
        }
        for (int i = 0; i < ready; i++) {
            Connection *c = events[i].data.ptr;
            if (c->is_alive && (events[i].events & EPOLLOUT))
                flush(c);
            if (c->is_alive && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
                receive(c);
        }
    }
}

static void connect_to_server(Connection *c, int number) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    int one = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->number = number;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address))
        fail("cannot connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &event))
        fail("cannot watch a connection");
    c->is_alive = 1;
}

static void open_sessions(void) {
    connections = must(calloc((size_t)options.connections, sizeof *connections));
    for (int i = 0; i < options.connections; i++)
        connect_to_server(&connections[i], i);
    for (int i = 0; !options.is_modern && i < (options.is_shared ? 1 : options.connections); i++)
        send_step(&connections[i], INITIALIZE);
    wait_until_idle();
    for (int i = 1; options.is_shared && i < options.connections; i++)
        memcpy(connections[i].session, connections[0].session, sizeof connections[0].session);
    for (int i = 0; i < options.connections; i++)
        if (!connections[i].is_alive)
            fail("a connection was lost while sessions were opened");
}

/* Calls in a closed loop until `seconds` are over or `calls` (unless 0) were made; says how long it took. */
static double call_for(double seconds, unsigned long calls) {
    double began = now();
    run.calls = run.errors = 0;
    run.until = began + seconds;
    run.budget = calls;
    for (int i = 0; i < options.connections; i++)
        if (connections[i].is_alive && may_call())
            send_step(&connections[i], CALL);
    wait_until_idle();
    return now() - began;
}

static void delete_sessions(void) {
    for (int i = 0; i < (options.is_shared ? 1 : options.connections); i++)
        if (connections[i].is_alive && connections[i].session[0])
            send_step(&connections[i], DELETE);
    wait_until_idle();
}

static int compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double percentile_us(double fraction) {
    size_t rank = (size_t)(fraction * (double)run.calls);
    if (!run.calls)
        return 0;
    return (double)run.latencies[rank < run.calls ? rank : run.calls - 1] * 1e6;
}

static void pause_here(void) {
    char line[16];
    fflush(stdout);
    if (options.is_waiting && !fgets(line, sizeof line, stdin))
        options.is_waiting = 0;
}

static void parse(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(name, "--shared"))
            options.is_shared = 1;
        else if (!strcmp(name, "--modern"))
            options.is_modern = 1;
        else if (!strcmp(name, "--wait"))
            options.is_waiting = 1;
        else if (!value)
            fail("an option lacks its value, or is unknown");
        else if (i++, !strcmp(name, "--port"))
            options.port = atoi(value);
        else if (!strcmp(name, "--path"))
            options.path = value;
        else if (!strcmp(name, "--connections"))
            options.connections = atoi(value);
        else if (!strcmp(name, "--seconds"))
            options.seconds = atof(value);
        else if (!strcmp(name, "--calls"))
            options.calls = strtoul(value, NULL, 10);
        else if (!strcmp(name, "--warmup"))
            options.warmup = atof(value);
        else if (!strcmp(name, "--padding"))
            options.padding = strtoul(value, NULL, 10);
        else
            fail("an option is unknown");
    }
    if (options.port < 1 || options.connections < 1 || options.padding > MAX_PADDING || strlen(options.path) > 200)
        fail("usage: load --port N [--path /mcp] [--connections 1] [--seconds 1 | --calls N] [--warmup 0.5] "
             "[--padding BYTES] [--shared] [--modern] [--wait]");
    if (options.calls)
        options.seconds = 1e9;
}

int main(int argc, char **argv) {
    unsigned long warmup_errors;
    double seconds;
    parse(argc, argv);
    padding = must(malloc(options.padding + 1));
    memset(padding, 'x', options.padding);
    poll_fd = epoll_create1(0);
    open_sessions();
    call_for(options.warmup, options.calls);
    warmup_errors = run.errors;
    printf("ready\n");
    pause_here();
    seconds = call_for(options.seconds, options.calls);
    qsort(run.latencies, run.calls, sizeof *run.latencies, compare);
    printf("{\"connections\":%d,\"calls\":%lu,\"errors\":%lu,\"warmup_errors\":%lu,\"seconds\":%.6f,"
           "\"calls_per_second\":%.1f,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n",
           options.connections, run.calls, run.errors, warmup_errors, seconds, (double)run.calls / seconds,
           percentile_us(0.50), percentile_us(0.90), percentile_us(0.99), percentile_us(1));
    pause_here();
    delete_sessions();
    return 0;
}
