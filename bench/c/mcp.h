/* What the server says: answers to JSON-RPC messages, whatever carries them. */
#ifndef BENCH_MCP_H
#define BENCH_MCP_H

#include "common.h"

#define MAX_EVENTS 64

typedef struct {
    unsigned long connections, requests, posts, gets, deletes;
    unsigned long initializes, notifications, lists, calls, pings, unknown_sessions;
    size_t open_sessions;
} Stats;

extern Stats stats;

/* The messages with which one is answered: as many as `count`, each up to its place in `ends`. */
typedef struct {
    Buffer text;
    size_t ends[MAX_EVENTS + 1];
    int count, pause_ms; /* how long to wait between two */
} Answer;

/* How many tools `tools/list` names. */
void list_tools(int count);

int is_initialize(Slice message);

/* Says in `answer` what is said to `message`; nothing to what is no request. */
void answer_message(Slice message, Answer *answer);

/* The counters as JSON. */
Slice stats_text(void);

#endif
