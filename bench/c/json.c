#include "json.h"

#include <stdlib.h>
#include <string.h>

static const char *skip_space(const char *p, const char *end) {
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

static const char *skip_string(const char *p, const char *end) {
    for (p++; p < end; p++) {
        if (*p == '\\')
            p++;
        else if (*p == '"')
            return p + 1;
    }
    return NULL;
}

static const char *skip_value(const char *p, const char *end) {
    int depth = 0;
    if (p < end && *p == '"')
        return skip_string(p, end);
    while (p < end) {
        if (*p == '"') {
            if (!(p = skip_string(p, end)))
                return NULL;
            continue;
        }
        if (*p == '{' || *p == '[') {
            depth++;
        } else if (*p == '}' || *p == ']') {
            if (depth == 0)
                return p;
            if (--depth == 0)
                return p + 1;
        } else if (depth == 0 && (*p == ',' || *p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) {
            return p;
        }
        p++;
    }
    return depth == 0 ? p : NULL;
}

Slice member(Slice object, const char *name) {
    const Slice none = {NULL, 0};
    const char *p = object.at, *end = p + object.length;
    size_t length = strlen(name);
    if (!p || !object.length || *p != '{')
        return none;
    p++;
    while ((p = skip_space(p, end)) < end && *p == '"') {
        const char *key = p + 1, *value;
        size_t key_length;
        if (!(p = skip_string(p, end)))
            return none;
        key_length = (size_t)(p - 1 - key);
        p = skip_space(p, end);
        if (p >= end || *p != ':')
            return none;
        value = skip_space(p + 1, end);
        if (!(p = skip_value(value, end)))
            return none;
        if (key_length == length && !memcmp(key, name, length))
            return (Slice){value, (size_t)(p - value)};
        p = skip_space(p, end);
        if (p < end && *p == ',')
            p++;
    }
    return none;
}

int is_text(Slice value, const char *text) {
    size_t length = strlen(text);
    return value.length == length + 2 && !memcmp(value.at + 1, text, length);
}

size_t number(Slice value, size_t most) {
    size_t found = value.at && value.length < 10 ? strtoul(value.at, NULL, 10) : 0;
    return found <= most ? found : 0;
}
