/* What the server and the load generator share: buffers, and the text that fills large results. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <stddef.h>

typedef struct {
    char *bytes;
    size_t length, capacity;
} Buffer;

typedef struct {
    const char *at;
    size_t length;
} Slice;

/* `memory`, or the end of the program where it is NULL. */
void *must(void *memory);

void reserve(Buffer *buffer, size_t more);
void append(Buffer *buffer, const char *bytes, size_t length);
void append_text(Buffer *buffer, const char *text);

/* At least `size` bytes of what tools say, lines and quotation marks, as they stand within a JSON string. */
Slice filler(size_t size);

#endif
