// What places begin with: the image's files in them, written again after a task that changed them.
#pragma once
#include <stdbool.h>

#include "places.h"

// Learn it: from the file beside the executor's socket, if there is one. Its entries stand behind their folders.
void take_content(void);
// Whether the place's content has an entry of that name right below it.
bool is_item(const struct place *p, const char *name);
// Whether the content is what we made of it.
bool is_intact(const struct place *p);
// Write the content of a place that is empty. False with errno.
bool fill(const struct place *p);
// A file of the content that the executor is to read: it gets this one for itself, and the place another. A program that waits for
// the next task runs while it reads.
void give_away(int fd);
// Wait until the clock has ticked since we last changed any.
void let_a_tick_pass(void);
