/* The server's side of HTTP: requests are read from bytes, answers are written to a buffer. */
#ifndef BENCH_HTTP_H
#define BENCH_HTTP_H

#include "common.h"
#include "mcp.h"

typedef struct Connection {
    int fd;
    Buffer in, out, body;
    size_t sent;
    Buffer stream; /* chunks that are still to be sent, one at a time */
    size_t chunks[MAX_EVENTS + 1], said;
    int chunk, chunk_count;
    double pause, due; /* seconds between two, and when the next is to be sent */
    struct Connection *next;
} Connection;

/* Those with chunks to send. */
extern Connection *streaming;

double now(void);

/* Answers one request at the start of the input: its length, 0 where it is incomplete, -1 where it is none. */
long take_request(Connection *c, const char *at, size_t length);

void say_chunk(Connection *c);

#endif
