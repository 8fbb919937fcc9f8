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
 * progress it reports it `events` times, as a stream: an event every `pause` milliseconds, or in
 * each turn of the loop.
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
#include <unistd.h>

#include "http.h"

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

/* The next event of every stream that is due; that a client is gone is noticed where its end is read. */
static void stream_on(void) {
    double at = now();
    Connection **link = &streaming;
    while (*link) {
        Connection *c = *link;
        if (c->due <= at) {
            say_chunk(c);
            flush(c);
        }
        if (c->chunk == c->chunk_count)
            *link = c->next;
        else
            link = &c->next;
    }
}

/* Milliseconds until an event is due; -1 where none is. */
static int patience(void) {
    double first = 1e300, left;
    if (!streaming)
        return -1;
    for (Connection *c = streaming; c; c = c->next)
        if (c->due < first)
            first = c->due;
    left = first - now();
    return left > 0 ? (int)(left * 1e3) + 1 : 0;
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
    free(c->body.bytes);
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
        int ready = epoll_wait(poll, events, 256, patience());
        if (streaming)
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
