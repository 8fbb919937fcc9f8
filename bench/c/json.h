/* Just enough JSON to find a member of an object. */
#ifndef BENCH_JSON_H
#define BENCH_JSON_H

#include "common.h"

/* The value of the member `name` as it stands in `object`; `at` is NULL where there is none, or no JSON. */
Slice member(Slice object, const char *name);

/* Whether `value` is the string `text`. */
int is_text(Slice value, const char *text);

/* `value` where it is a whole number of at most `most`, else 0. */
size_t number(Slice value, size_t most);

#endif
