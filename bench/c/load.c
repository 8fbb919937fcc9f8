/* A closed loop of MCP tool calls over keep-alive connections; checks every answer.
 *
 *   load --port N [--path /mcp] [--connections 1] [--seconds 1 | --calls N] [--warmup 0.5]
 *        [--tool echo] [--padding BYTES | --size BYTES] [--events N [--pause MS]] [--tools N]
 *        [--shared] [--modern] [--wait]
 *
 * Each connection opens an MCP session of its own (--shared: all use the first one's) and calls the
 * tool `echo` with a text that no other call uses; an answer counts as an error unless its status is
 * 200 and it bears the id and the text of its call. Answers may be JSON or event streams.
 *
 * --padding asks with so many bytes more; --size has the answer say so many more; with --events an
 * answer must first report progress so often, in order and with the token of its call, for which the
 * server waits --pause milliseconds each. With --tools it lists tools instead, and must be told of all.
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
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

#define STALL_SECONDS 15 /* without any answer */

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

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

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

static void send_step(Connection *c, Step step) {
    c->step = step;
    write_request(c);
    c->in.length = c->sent = 0;
    c->is_busy = 1;
    busy++;
    c->sent_at = now();
    flush(c);
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

int main(int argc, char **argv) {
    unsigned long warmup_errors;
    double seconds;
    parse(argc, argv);
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
