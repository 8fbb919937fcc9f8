/* What the load generator is told to do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

#define MAX_PADDING 1000000

Options options = {.connections = 1, .seconds = 1, .warmup = 0.5, .path = "/mcp", .tool = "echo"};
char *padding;

void fail(const char *what) {
    fprintf(stderr, "load: %s\n", what);
    exit(1);
}

void parse(int argc, char **argv) {
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
        else if (!strcmp(name, "--tool"))
            options.tool = value;
        else if (!strcmp(name, "--tools"))
            options.tools = atoi(value);
        else if (!strcmp(name, "--events"))
            options.events = atoi(value);
        else if (!strcmp(name, "--pause"))
            options.pause = atoi(value);
        else if (!strcmp(name, "--size"))
            options.size = strtoul(value, NULL, 10);
        else if (!strcmp(name, "--padding"))
            options.padding = strtoul(value, NULL, 10);
        else
            fail("an option is unknown");
    }
    if (options.port < 1 || options.connections < 1 || options.padding > MAX_PADDING || strlen(options.path) > 200 ||
        strlen(options.tool) > 100 || (options.size && options.padding))
        fail("usage: load --port N [--path /mcp] [--connections 1] [--seconds 1 | --calls N] [--warmup 0.5] "
             "[--tool echo] [--padding BYTES | --size BYTES] [--events N [--pause MS]] [--tools N] [--shared] [--modern] [--wait]");
    if (options.calls)
        options.seconds = 1e9;
    padding = must(malloc(options.padding + 1));
    memset(padding, 'x', options.padding);
}
