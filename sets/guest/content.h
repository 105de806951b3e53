// The content of places: the image's files that each begins with. They are written again after a task that changed them.
#pragma once
#include <stdbool.h>

#include "places.h"

// Read it from the file beside the executor's socket, if there is one. A folder comes before its entries.
void take_content(void);
// True if the place's content has an entry of that name right below it.
bool is_item(const struct place *p, const char *name);
// True if the content is as we wrote it.
bool is_intact(const struct place *p);
// Write the content of a place that is empty. False with errno.
bool fill(const struct place *p);
// Wait until the clock has ticked since we last wrote content.
void let_a_tick_pass(void);
