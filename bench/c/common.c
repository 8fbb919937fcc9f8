#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *must(void *memory) {
    if (!memory) {
        perror("bench");
        exit(1);
    }
    return memory;
}

void reserve(Buffer *buffer, size_t more) {
    if (buffer->length + more <= buffer->capacity)
        return;
    buffer->capacity = (buffer->length + more) * 2;
    buffer->bytes = must(realloc(buffer->bytes, buffer->capacity));
}

void append(Buffer *buffer, const char *bytes, size_t length) {
    reserve(buffer, length);
    memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
}

void append_text(Buffer *buffer, const char *text) { append(buffer, text, strlen(text)); }

Slice filler(size_t size) {
    static Buffer lines;
    static size_t wanted = (size_t)-1;
    if (wanted != size) {
        wanted = size;
        lines.length = 0;
        for (unsigned number = 0; lines.length < size; number++) {
            char line[128];
            int length = snprintf(line, sizeof line, "{\\\"line\\\": %u, \\\"says\\\": \\\"what a tool found out\\\"}\\n", number);
            append(&lines, line, (size_t)length);
        }
    }
    return (Slice){lines.bytes, lines.length};
}
