// Output files: what a task asks to be kept. They are open from its end until the executor has read what it wants of them.
#pragma once
#include <stdint.h>

#include "executor.h"

// Open the file at `path`, if it is a regular one and no part of its path is a link, as file `number` of the task. Returns its size,
// else a negative errno. No other process runs meanwhile, so nothing can change between the check and the open.
int64_t keep_file(int number, char *path);
// Write bytes of them into pipes, as the executor asks, until it releases them. False when the executor is lost.
bool serve_files(uint32_t task);
void close_files(void);
