#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "failure.h"
#include "json.h"

const char *log_path;

void *needed(void *memory) {
    if (memory) return memory;
    static const char words[] = "gcompute-runc: out of memory\n";
    if (write(2, words, sizeof words - 1) < 0) {}
    _exit(1);
}

char *text_of(const char *format, ...) {
    char *text;
    va_list values;
    va_start(values, format);
    if (vasprintf(&text, format, values) < 0) text = NULL;
    va_end(values);
    return needed(text);
}

_Noreturn void fail(const char *problem, ...) {
    char *words;
    va_list values;
    va_start(values, problem);
    if (vasprintf(&words, problem, values) < 0) needed(NULL);
    va_end(values);
    fprintf(stderr, "gcompute-runc: %s\n", words);
    FILE *log = log_path ? fopen(log_path, "ae") : NULL;
    if (log) {
        char at[32];
        time_t now = time(NULL);
        strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
        fprintf(log, "{\"level\":\"error\",\"msg\":%s,\"time\":\"%s\"}\n", json_quoted(text_of("gcompute-runc: %s", words)), at);
        fclose(log);
    }
    exit(1);
}
