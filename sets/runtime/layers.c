#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "failure.h"
#include "layers.h"

#define TOP "/run/gcompute-runc"
// Room for the mount points that runc makes: folders and empty files.
#define ROOM "mode=755,size=1m,nr_inodes=16384"
enum { OPTIONS_BYTES = 4096 };

static int namespace = -1;
static int layer_count, bind_count;
static char options[OPTIONS_BYTES];

static void write_map(pid_t owner, const char *name, const struct id_map *map) {
    char *path = text_of("/proc/%d/%s", owner, name), *lines = map_lines(map);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, lines, strlen(lines)) < 0) fail("can't map ids in %s: %s", path, strerror(errno));
    close(fd);
    free(path), free(lines);
}

// A user namespace that says how mounts are to be mapped. The container's own is runc's to make.
static int make_namespace(const struct ids *ids) {
    pid_t owner = (pid_t)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (owner < 0) fail("can't make a user namespace: %s", strerror(errno));
    if (!owner) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) pause();
    }
    write_map(owner, "uid_map", &ids->uids);
    write_map(owner, "gid_map", &ids->gids);
    char *path = text_of("/proc/%d/ns/user", owner);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail("can't open %s: %s", path, strerror(errno));
    free(path);
    kill(owner, SIGKILL);
    waitpid(owner, NULL, 0);
    return fd;
}

void begin_mounts(const struct ids *ids) {
    namespace = make_namespace(ids);
    // Slave: later mounts and unmounts of the engine still reach us.
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL)) fail("can't leave the engine's mount namespace: %s", strerror(errno));
    if (mount("gcompute-runc", TOP, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, ROOM)) fail("can't mount " TOP ": %s", strerror(errno));
    if (chdir(TOP) || mkdir("root", 0700) || mkdir("upper", 0700) || mkdir("work", 0700)) fail(TOP ": %s", strerror(errno));
}

// A copy of the mount at `source`, idmapped and mounted nowhere; with AT_RECURSIVE also of what is mounted below. -1 with errno.
static int mapped_copy(const char *source, unsigned recursive) {
    int copy = open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursive);
    if (copy < 0) return -1;
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (unsigned)namespace};
    if (!mount_setattr(copy, "", AT_EMPTY_PATH | recursive, &attributes, sizeof attributes)) return copy;
    int why = errno;
    close(copy);
    errno = why;
    return -1;
}

static void attach(int copy, const char *name) {
    if (move_mount(copy, "", AT_FDCWD, name, MOVE_MOUNT_F_EMPTY_PATH)) fail("can't mount " TOP "/%s: %s", name, strerror(errno));
    close(copy);
}

static void add_option(const char *option) {
    size_t len = strlen(options);
    if ((size_t)snprintf(options + len, sizeof options - len, "%s", option) >= sizeof options - len) fail("the image has too many layers");
}

static void add_layer(const char *layer) {
    int copy = mapped_copy(layer, 0);
    if (copy < 0) fail("layer %s can't be idmapped: %s; that needs Linux 5.19 and a file system such as ext4, XFS or Btrfs", layer, strerror(errno));
    char name[16];
    snprintf(name, sizeof name, "%d", layer_count);
    if (mkdir(name, 0700)) fail(TOP "/%s: %s", name, strerror(errno));
    attach(copy, name);
    add_option(layer_count++ ? ":" : "lowerdir=");
    add_option(name);
}

static bool is_empty(const char *folder) {
    DIR *entries = opendir(folder);
    if (!entries) fail("can't read the layer %s: %s", folder, strerror(errno));
    int count = 0;
    while (readdir(entries)) count++;
    closedir(entries);
    return count <= 2;
}

// mountinfo writes space, tab, newline and backslash as octal, and overlayfs a comma or colon with a backslash before it.
static void unescape_octal(char *text) {
    char *to = text;
    for (; *text; text++)
        if (*text == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] && text[3]) {
            *to++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
            text += 3;
        } else *to++ = *text;
    *to = 0;
}

// Cut off and return what comes before the first unescaped `separator`; remove the backslashes within.
static char *cut(char **text, char separator) {
    char *first = *text, *to = first, *at = first;
    for (; *at && *at != separator; at++) {
        if (*at == '\\' && at[1]) {
            // The inner list is cut later, and needs its own.
            if (separator == ',' && at[1] != ',') *to++ = *at;
            at++;
        }
        *to++ = *at;
    }
    *text = *at ? at + 1 : NULL;
    *to = 0;
    return first;
}

// The options of the overlay that is mounted last at `root`, to be freed.
static char *overlay_options(const char *root) {
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    char *line = NULL, *found = NULL;
    size_t room = 0;
    while (mounts && getline(&line, &room, mounts) > 0) {
        line[strcspn(line, "\n")] = 0;
        char *rest = line, *fields[5];
        for (int i = 0; i < 5; i++) fields[i] = rest ? strsep(&rest, " ") : NULL;
        char *kind = rest ? strstr(rest, " - ") : NULL;
        if (!kind || !fields[4]) continue;
        unescape_octal(fields[4]);
        if (strcmp(fields[4], root)) continue;
        free(found);
        found = NULL;
        rest = kind + 3;
        kind = strsep(&rest, " ");
        strsep(&rest, " ");
        if (rest && !strcmp(kind, "overlay")) found = needed(strdup(rest));
    }
    free(line);
    if (mounts) fclose(mounts);
    if (!found) fail("the root %s is no overlay: the engine must use overlay2, or the overlayfs snapshotter", root);
    unescape_octal(found);
    return found;
}

// Docker names layers relative to its own folder if their paths are long together: `root` is FOLDER/ID/merged.
static char *layer_path(const char *root, const char *layer) {
    return *layer == '/' ? needed(strdup(layer)) : text_of("%s/../../%s", root, layer);
}

const char *mount_root(const char *root) {
    char *all = overlay_options(root), *lower = NULL;
    // The engine's own layer comes first. Usually it is empty, and then it would only cost time.
    for (char *rest = all; rest;) {
        char *option = cut(&rest, ',');
        if (strncmp(option, "upperdir=", 9)) continue;
        char *path = layer_path(root, cut(&(char *){option + 9}, ':'));
        if (!is_empty(path)) add_layer(path);
        free(path);
    }
    free(all);
    all = overlay_options(root);
    for (char *rest = all; rest;) {
        char *option = cut(&rest, ',');
        // Newer kernels show `lowerdir+=` for each.
        if (strncmp(option, "lowerdir=", 9) && strncmp(option, "lowerdir+=", 10)) continue;
        lower = strchr(option, '=') + 1;
        while (lower) {
            char *path = layer_path(root, cut(&lower, ':'));
            add_layer(path);
            free(path);
        }
    }
    free(all);
    struct stat st;
    if (!layer_count || stat("0", &st)) fail("the overlay %s has no layers", root);
    if (chown("upper", st.st_uid, st.st_gid) || chmod("upper", st.st_mode & 07777)) fail(TOP "/upper: %s", strerror(errno));
    add_option(",upperdir=upper,workdir=work,index=off");
    if (mount("gcompute-runc", "root", "overlay", 0, options)) fail("can't mount an overlay of idmapped layers: %s; that needs Linux 5.19", strerror(errno));
    return TOP "/root";
}

char *mount_bind(const char *source) {
    struct stat st;
    int copy = mapped_copy(source, AT_RECURSIVE);
    if (copy < 0) {
        // EINVAL: the file system can't, or the mount is idmapped already.
        if (errno != EINVAL) fail("can't idmap %s: %s", source, strerror(errno));
        return NULL;
    }
    if (fstat(copy, &st)) fail("%s: %s", source, strerror(errno));
    char *name = text_of("b%d", bind_count++);
    if (S_ISDIR(st.st_mode) ? mkdir(name, 0755) : mknod(name, S_IFREG | 0644, 0)) fail(TOP "/%s: %s", name, strerror(errno));
    attach(copy, name);
    char *path = text_of(TOP "/%s", name);
    free(name);
    return path;
}
