#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle.h"
#include "failure.h"
#include "ids.h"
#include "json.h"
#include "layers.h"

enum { CONFIG_BYTES = 16 << 20, CHANGES = 1024 };

// Text that takes the place of `len` bytes at `at`; changes are in the order of their places.
static struct change { const char *at; size_t len; char *text; } changes[CHANGES];
static int change_count;

static void change(const char *at, size_t len, char *text) {
    if (change_count == CHANGES) fail("config.json has more than %d mounts", CHANGES);
    int place = change_count++;
    for (; place && changes[place - 1].at > at; place--) changes[place] = changes[place - 1];
    changes[place] = (struct change){at, len, text};
}

static char *read_config(const char *path, size_t *len, mode_t *mode) {
    struct stat st;
    FILE *file = fopen(path, "re");
    if (!file || fstat(fileno(file), &st)) fail("can't read %s: %s", path, strerror(errno));
    if (st.st_size > CONFIG_BYTES) fail("%s has more than 16 MiB", path);
    char *text = needed(malloc((size_t)st.st_size + 1));
    *len = fread(text, 1, (size_t)st.st_size, file);
    if (*len != (size_t)st.st_size) fail("can't read %s completely", path);
    text[*len] = 0;
    *mode = st.st_mode & 0777;
    fclose(file);
    return text;
}

// Beside the file, then renamed: it is whole at all times.
static void write_config(const char *path, const char *text, size_t len, mode_t mode) {
    char *unfinished = text_of("%s.%d", path, getpid());
    int fd = open(unfinished, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    if (!file) fail("can't write %s: %s", unfinished, strerror(errno));
    const char *at = text;
    for (const struct change *each = changes; each < changes + change_count; each++) {
        fwrite(at, 1, (size_t)(each->at - at), file);
        fputs(each->text, file);
        at = each->at + each->len;
    }
    fwrite(at, 1, (size_t)(text + len - at), file);
    int failed = ferror(file);
    if (fclose(file) || failed || rename(unfinished, path)) fail("can't write %s: %s", path, strerror(errno));
    free(unfinished);
}

static void map_user(struct json user, struct ids *ids) {
    uint32_t id;
    if (json_id(json_member(user, "uid"), &id)) map_more(&ids->uids, id);
    if (json_id(json_member(user, "gid"), &id)) map_more(&ids->gids, id);
    struct json groups = json_member(user, "additionalGids");
    for (struct json each = {0}; json_each(groups, &each);)
        if (json_id(each, &id)) map_more(&ids->gids, id);
}

static bool has_text(struct json array, const char *wanted) {
    bool found = false;
    for (struct json each = {0}; !found && json_each(array, &each);) {
        char *text = json_text(each);
        found = text && !strcmp(text, wanted);
        free(text);
    }
    return found;
}

// Read-only binds, such as the content of VOLUMEs. What a container may write to stays the host's, so that it can't.
static void map_binds(struct json mounts) {
    for (struct json each = {0}; json_each(mounts, &each);) {
        struct json given = json_member(each, "options"), source = json_member(each, "source");
        char *path = json_text(source);
        if (path && *path == '/' && has_text(given, "ro") && (has_text(given, "bind") || has_text(given, "rbind"))) {
            char *mapped = mount_bind(path);
            if (mapped) change(source.at, source.len, json_quoted(mapped));
            free(mapped);
        }
        free(path);
    }
}

static void add_namespace(struct json linux_part, const struct ids *ids) {
    struct json namespaces = json_member(linux_part, "namespaces");
    if (!namespaces.at || *namespaces.at != '[') fail("config.json: linux.namespaces is missing");
    bool is_first = true;
    for (struct json each = {0}; json_each(namespaces, &each); is_first = false) {
        char *type = json_text(json_member(each, "type"));
        if (type && !strcmp(type, "user")) fail("the container has a user namespace already: use this runtime on an engine without userns-remap");
        free(type);
    }
    if (json_has(linux_part, "uidMappings") || json_has(linux_part, "gidMappings")) fail("config.json: linux.uidMappings or gidMappings is set already");
    char *uids = map_json(&ids->uids), *gids = map_json(&ids->gids);
    change(linux_part.at + 1, 0, text_of("\"uidMappings\":%s,\"gidMappings\":%s,", uids, gids));
    change(namespaces.at + namespaces.len - 1, 0, text_of("%s{\"type\":\"user\"}", is_first ? "" : ","));
    free(uids), free(gids);
    // The kernel takes only groups that the namespace has.
    struct json pingers = json_member(json_member(linux_part, "sysctl"), "net.ipv4.ping_group_range");
    if (pingers.at) change(pingers.at, pingers.len, text_of("\"0 %d\"", MAPPED_IDS - 1));
}

void separate(const char *bundle, const char *state) {
    size_t len;
    mode_t mode;
    char *path = text_of("%s/config.json", bundle), *text = read_config(path, &len, &mode);
    struct json config = json_whole(text, len), root = json_member(config, "root"), root_path = json_member(root, "path");
    if (!config.at) fail("%s is no valid JSON", path);
    char *root_text = json_text(root_path);
    if (!root_text) fail("%s: root.path is missing", path);
    if (*root_text != '/') {
        char *relative = root_text;
        root_text = text_of("%s/%s", bundle, relative);
        free(relative);
    }
    char *whole = realpath(root_text, NULL);
    if (!whole) fail("%s: root.path: %s: %s", path, root_text, strerror(errno));
    // Our overlay would lose its writes, and no quota of the engine's would bound them.
    if (!json_is_true(json_member(root, "readonly"))) fail("the container's root can be written to: create it with a read-only root (ReadonlyRootfs, --read-only)");
    struct json linux_part = json_member(config, "linux");
    struct ids ids = claim_ids(state);
    map_user(json_member(json_member(config, "process"), "user"), &ids);
    add_namespace(linux_part, &ids);
    begin_mounts(&ids);
    change(root_path.at, root_path.len, json_quoted(mount_root(whole)));
    map_binds(json_member(config, "mounts"));
    write_config(path, text, len, mode);
    free(whole), free(root_text), free(text), free(path);
}
