// Reads JSON where it lies, and leaves it as it is: what we do not change keeps every byte, its 64-bit numbers among them.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A value within the text, without the space around it. `at` is NULL if there is no such value.
struct json { const char *at; size_t len; };

// The only value of a whole text; none if the text breaks a rule of RFC 8259 or nests deeper than 64.
struct json json_whole(const char *text, size_t len);

// The member of an object. None if the value is no object, lacks the member, or has two whose names differ in case at
// most: readers in Go would not tell those apart.
struct json json_member(struct json object, const char *name);
bool json_has(struct json object, const char *name);

// Step through an array: `for (struct json each = {0}; json_each(array, &each);)`.
bool json_each(struct json array, struct json *each);

bool json_is_true(struct json value);
// A whole number below 2^32; false if the value is something else.
bool json_id(struct json value, uint32_t *id);
// The string decoded, to be freed; NULL if the value is no string or holds a NUL.
char *json_text(struct json value);
// The text as a JSON string, to be freed.
char *json_quoted(const char *text);
