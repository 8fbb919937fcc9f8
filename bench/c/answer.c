/* Answers: where they end, and whether they are right. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "load.h"

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

int take_answer(Connection *c) {
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

/* The value of the first member `name` in what is left of the body; NULL where there is none. */
static const char *value_of(Slice left, const char *name) {
    size_t length = strlen(name);
    const char *end = left.at + left.length, *p = memmem(left.at, left.length, name, length);
    if (!p)
        return NULL;
    for (p += length; p < end && (*p == ' ' || *p == ':'); p++)
        ;
    return p < end ? p : NULL;
}

static Slice from(Slice whole, const char *at) { return (Slice){at, (size_t)(whole.at + whole.length - at)}; }

/* Whether some member `name` is `value`, with no digit or letter after it. */
static int has_member(Slice whole, const char *name, const char *value) {
    size_t length = strlen(value);
    const char *p;
    while ((p = value_of(whole, name))) {
        whole = from(whole, p);
        if (whole.length > length && !memcmp(p, value, length) && !strchr("0123456789.eE", p[length]))
            return 1;
    }
    return 0;
}

static int starts_with(Slice *left, const char *bytes, size_t length) {
    if (left->length < length || memcmp(left->at, bytes, length))
        return 0;
    *left = from(*left, left->at + length);
    return 1;
}

/* Whether some member `text` is what was said, what was asked for in addition, and nothing else. */
static int has_text(const Connection *c, Slice whole) {
    Slice more = options.size ? filler(options.size) : (Slice){padding, options.padding};
    char said[64];
    int length = snprintf(said, sizeof said, "\"c%d-%lu-", c->number, c->next_id);
    const char *p;
    while ((p = value_of(whole, "\"text\""))) {
        Slice left = whole = from(whole, p);
        if (starts_with(&left, said, (size_t)length) && starts_with(&left, more.at, more.length) &&
            starts_with(&left, "\"", 1))
            return 1;
    }
    return 0;
}

/* Whether every tool is there, in its order; gateways may put something before a name. */
static int has_tools(Slice whole) {
    for (int i = 0; i < options.tools; i++) {
        char name[32] = "echo\"";
        const char *found;
        if (i)
            snprintf(name, sizeof name, "tool_%d\"", i);
        if (!(found = memmem(whole.at, whole.length, name, strlen(name))))
            return 0;
        whole = from(whole, found);
    }
    return 1;
}

/* What comes after all reports of progress, in order and with this call's token; `at` is NULL where they are not. */
static Slice after_progress(const Connection *c, Slice whole) {
    char token[64];
    int length = snprintf(token, sizeof token, "\"p%d-%lu\"", c->number, c->next_id);
    for (int i = 1; i <= options.events; i++) {
        const char *event = memmem(whole.at, whole.length, "notifications/progress", 22), *end, *said;
        Slice left;
        if (!event || !(end = memchr(event, '\n', (size_t)(whole.at + whole.length - event))))
            return (Slice){NULL, 0};
        left = (Slice){event, (size_t)(end - event)};
        if (!(said = value_of(left, "\"progress\"")) || strtod(said, NULL) != i)
            return (Slice){NULL, 0};
        if (!(said = value_of(left, "\"progressToken\"")))
            return (Slice){NULL, 0};
        left = from(left, said);
        if (!starts_with(&left, token, (size_t)length))
            return (Slice){NULL, 0};
        whole = from(whole, end);
    }
    return whole;
}

int is_right(Connection *c, int status) {
    Slice answer = {c->body.bytes, c->body.length};
    char id[32];
    if (status != 200)
        return 0;
    if (options.events && !(answer = after_progress(c, answer)).at)
        return 0;
    snprintf(id, sizeof id, "%lu", c->next_id);
    if (!has_member(answer, "\"id\"", id) || memmem(answer.at, answer.length, "notifications/progress", 22))
        return 0;
    return options.tools ? has_tools(answer) : has_text(c, answer);
}
