// Output files: what a task asks to be handed over.
#pragma once

// Open one: no link anywhere on its path, and nothing but a regular file. A negative errno otherwise. Nobody runs meanwhile, so
// a look before the open is as good as one after.
int open_file(char *path);
