// gcompute-runc: runc, with host ids of its own for each container. README.md beside this file is its description.
// An engine calls it in runc's place. At `create` it gives the container a user namespace; everything else is runc's.
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bundle.h"
#include "failure.h"

// Options that have their value in the next word.
static const char *const with_value[] = {"--log", "--log-format", "--root", "--criu", "--rootless",
                                         "--bundle", "-b", "--console-socket", "--pid-file", "--preserve-fds", NULL};

static bool takes_value(const char *option) {
    for (const char *const *each = with_value; *each; each++)
        if (!strcmp(option, *each)) return true;
    return false;
}

// The value of option `name` if `word` is it: after `=` or in the `next` word. The last one counts, as for runc.
static void note(const char *word, const char *next, const char *name, const char **value) {
    size_t len = strlen(name);
    if (!strcmp(word, name)) *value = next;
    else if (!strncmp(word, name, len) && word[len] == '=') *value = word + len + 1;
}

int main(int argc, char **words) {
    const char *root = "/run/runc", *bundle = ".", *command = NULL, *id = NULL;
    bool options_ended = false;
    for (int i = 1; i < argc; i++) {
        const char *word = words[i], *next = words[i + 1];
        if (*word != '-' || options_ended) {
            if (!command) command = word;
            else id = word;
            continue;
        }
        if (!strcmp(word, "--")) {
            options_ended = true;
            continue;
        }
        note(word, next, "--log", &log_path);
        note(word, next, "--root", &root);
        note(word, next, "--bundle", &bundle);
        note(word, next, "-b", &bundle);
        if (takes_value(word)) i++;
    }
    if (command && (!strcmp(command, "create") || !strcmp(command, "run"))) {
        if (!id || !bundle || !root) fail("%s: the container's id, or the value of --bundle or --root, is missing", command);
        char *folder = realpath(bundle, NULL);
        if (!folder) fail("--bundle %s: %s", bundle, strerror(errno));
        // The claim must name the same state wherever it is read.
        char here[4096];
        if (!getcwd(here, sizeof here)) fail("getcwd: %s", strerror(errno));
        char *state = *root == '/' ? text_of("%s/%s", root, id) : text_of("%s/%s/%s", here, root, id);
        separate(folder, state);
        if (chdir(here)) fail("chdir %s: %s", here, strerror(errno));
        free(state), free(folder);
    }
    // A restored container would share its host ids with all others.
    if (command && !strcmp(command, "restore")) fail("restore: containers of this runtime can't be restored");
    execvp("runc", words);
    fail("can't run runc: %s; install it, or name its folder in the engine's PATH", strerror(errno));
}
