#define _GNU_SOURCE
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "failure.h"
#include "json.h"

enum { DEPTH = 64 };

struct reader { const char *at, *end; };

static bool take(struct reader *r, char sign) { return r->at < r->end && *r->at == sign ? r->at++, true : false; }

static void skip_space(struct reader *r) {
    while (r->at < r->end && *r->at && strchr(" \t\r\n", *r->at)) r->at++;
}

static bool skip_word(struct reader *r, const char *word) {
    size_t len = strlen(word);
    if ((size_t)(r->end - r->at) < len || memcmp(r->at, word, len)) return false;
    r->at += len;
    return true;
}

static bool skip_digits(struct reader *r) {
    const char *first = r->at;
    while (r->at < r->end && isdigit((unsigned char)*r->at)) r->at++;
    return r->at > first;
}

static bool skip_number(struct reader *r) {
    take(r, '-');
    if (!take(r, '0') && !skip_digits(r)) return false;
    if (take(r, '.') && !skip_digits(r)) return false;
    if (take(r, 'e') || take(r, 'E')) {
        if (!take(r, '-')) take(r, '+');
        return skip_digits(r);
    }
    return true;
}

static bool skip_string(struct reader *r) {
    if (!take(r, '"')) return false;
    while (r->at < r->end && (unsigned char)*r->at >= ' ') {
        char sign = *r->at++;
        if (sign == '"') return true;
        if (sign != '\\') continue;
        if (r->at == r->end) return false;
        char escape = *r->at++;
        if (!escape || !strchr("\"\\/bfnrtu", escape)) return false;
        for (int i = 0; escape == 'u' && i < 4; i++)
            if (r->at == r->end || !isxdigit((unsigned char)*r->at++)) return false;
    }
    return false;
}

static bool skip_value(struct reader *r, int depth) {
    if (!depth || r->at == r->end) return false;
    char first = *r->at;
    if (first == '"') return skip_string(r);
    if (first == 't') return skip_word(r, "true");
    if (first == 'f') return skip_word(r, "false");
    if (first == 'n') return skip_word(r, "null");
    if (first != '{' && first != '[') return skip_number(r);
    char last = first == '{' ? '}' : ']';
    r->at++;
    skip_space(r);
    if (take(r, last)) return true;
    do {
        skip_space(r);
        if (first == '{') {
            if (!skip_string(r)) return false;
            skip_space(r);
            if (!take(r, ':')) return false;
            skip_space(r);
        }
        if (!skip_value(r, depth - 1)) return false;
        skip_space(r);
    } while (take(r, ','));
    return take(r, last);
}

struct json json_whole(const char *text, size_t len) {
    struct reader r = {text, text + len};
    skip_space(&r);
    struct json whole = {r.at, 0};
    if (!skip_value(&r, DEPTH)) return (struct json){0};
    whole.len = (size_t)(r.at - whole.at);
    skip_space(&r);
    return r.at == r.end ? whole : (struct json){0};
}

// From here on the text is known to be valid.

static struct json next_value(struct reader *r) {
    skip_space(r);
    struct json value = {r->at, 0};
    skip_value(r, DEPTH);
    value.len = (size_t)(r->at - value.at);
    skip_space(r);
    return value;
}

static int count_members(struct json object, const char *name, struct json *found) {
    int count = 0;
    if (!object.at || *object.at != '{') return 0;
    struct reader r = {object.at + 1, object.at + object.len - 1};
    skip_space(&r);
    while (r.at < r.end) {
        struct json key = next_value(&r);
        take(&r, ':');
        struct json value = next_value(&r);
        take(&r, ',');
        char *text = json_text(key);
        if (text && !strcasecmp(text, name)) {
            count++;
            *found = strcmp(text, name) ? (struct json){0} : value;
        }
        free(text);
    }
    return count;
}

struct json json_member(struct json object, const char *name) {
    struct json found = {0};
    return count_members(object, name, &found) == 1 ? found : (struct json){0};
}

bool json_has(struct json object, const char *name) {
    struct json found;
    return count_members(object, name, &found) > 0;
}

bool json_each(struct json array, struct json *each) {
    if (!array.at || *array.at != '[') return false;
    struct reader r = {each->at ? each->at + each->len : array.at + 1, array.at + array.len - 1};
    skip_space(&r);
    if (each->at) take(&r, ',');
    skip_space(&r);
    if (r.at == r.end) return false;
    *each = next_value(&r);
    return true;
}

bool json_is_true(struct json value) { return value.at && value.len == 4 && !memcmp(value.at, "true", 4); }

bool json_id(struct json value, uint32_t *id) {
    if (!value.at || value.len > 10) return false;
    uint64_t sum = 0;
    for (size_t i = 0; i < value.len; i++) {
        if (!isdigit((unsigned char)value.at[i])) return false;
        sum = sum * 10 + (uint64_t)(value.at[i] - '0');
    }
    *id = (uint32_t)sum;
    return sum <= UINT32_MAX;
}

static unsigned hex4(const char *at) {
    char digits[5] = {at[0], at[1], at[2], at[3], 0};
    return (unsigned)strtoul(digits, NULL, 16);
}

static char *put_utf8(char *to, unsigned code) {
    if (code < 0x80) return *to++ = (char)code, to;
    int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    *to++ = (char)(0xff00 >> (more + 1) | (code >> 6 * more));
    while (more--) *to++ = (char)(0x80 | (code >> 6 * more & 0x3f));
    return to;
}

char *json_text(struct json value) {
    if (!value.at || *value.at != '"') return NULL;
    // No escape is shorter than what it stands for.
    char *text = needed(malloc(value.len)), *to = text;
    const char *at = value.at + 1, *end = value.at + value.len - 1;
    static const char signs[] = "bfnrt", bytes[] = "\b\f\n\r\t";
    while (at < end) {
        unsigned code = (unsigned char)*at++;
        if (code != '\\') {
            *to++ = (char)code;
            continue;
        }
        const char *sign = strchr(signs, *at);
        if (*at != 'u') {
            *to++ = sign ? bytes[sign - signs] : *at;
            at++;
            continue;
        }
        code = hex4(at + 1);
        at += 5;
        if (code >> 10 == 0xd800 >> 10 && end - at >= 6 && at[0] == '\\' && at[1] == 'u' && hex4(at + 2) >> 10 == 0xdc00 >> 10) {
            code = 0x10000 + ((code & 0x3ff) << 10) + (hex4(at + 2) & 0x3ff);
            at += 6;
        }
        to = put_utf8(to, code);
    }
    *to = 0;
    if (strlen(text) == (size_t)(to - text)) return text;
    free(text);
    return NULL;
}

char *json_quoted(const char *text) {
    char *quoted = needed(malloc(6 * strlen(text) + 3)), *to = quoted;
    *to++ = '"';
    for (; *text; text++) {
        unsigned char sign = (unsigned char)*text;
        if (sign < ' ') {
            static const char digits[] = "0123456789abcdef";
            to = (char *)memcpy(to, "\\u00", 4) + 4;
            *to++ = digits[sign >> 4];
            *to++ = digits[sign & 15];
            continue;
        }
        if (sign == '"' || sign == '\\') *to++ = '\\';
        *to++ = (char)sign;
    }
    *to++ = '"';
    *to = 0;
    return quoted;
}
