// Output files: what a task asks to be handed over.
#pragma once

// Open a file for reading, if it is a regular one and no part of its path is a link; else a negative errno. No other process runs
// meanwhile, so nothing can change between the check and the open.
int open_file(char *path);
