#pragma once

// Where the engine reads why a runtime failed; set from `--log`.
extern const char *log_path;

// Tell the engine why the container can't be created, and end. `problem` is formatted like printf.
_Noreturn void fail(const char *problem, ...) __attribute__((format(printf, 1, 2)));

// The result, unless memory ran out: then fail.
void *needed(void *memory);
char *text_of(const char *format, ...) __attribute__((format(printf, 1, 2)));
