/* The parts of the load generator: what it asks for, and whether what it gets is that. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include "common.h"

typedef enum { INITIALIZE, INITIALIZED, CALL, DELETE } Step;

typedef struct {
    int fd, number, is_alive, is_busy;
    Step step;
    Buffer in, out, body;
    size_t sent;
    char session[256];
    unsigned long next_id;
    double sent_at;
} Connection;

typedef struct {
    int port, connections, is_shared, is_modern, is_waiting;
    int tools;            /* list this many instead of calling */
    int events;           /* ask for as many reports of progress */
    int pause;            /* milliseconds between two of them */
    size_t size, padding; /* bytes more in results, and in requests and results */
    unsigned long calls;
    double seconds, warmup;
    const char *path, *tool;
} Options;

extern Options options;

/* What stands in requests to ask for more, and comes back: `options.padding` bytes. */
extern char *padding;

/* Ends the program. */
void fail(const char *what);

/* Sets `options` and `padding`. */
void parse(int argc, char **argv);

/* Puts the request of `c->step` into `c->out`. */
void write_request(Connection *c);

/* Reads the status and the body once they are whole; 0 until then, -1 where it is no HTTP. */
int take_answer(Connection *c);

/* Whether the body is the answer to the last call. */
int is_right(Connection *c, int status);

#endif
