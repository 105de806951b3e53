// Keeps the places clean: between tasks each one holds only its content. Nobody else runs while we look at them.
#pragma once
#include <stdbool.h>

// Empty the places for the first time, write their content, and remember what each is then.
void empty_all(void);
// True if every place, and our files in /proc, are as they were then.
bool all_clean(void);
// Make it so: 0, or the errno of what could not be removed.
int clean_all(void);
