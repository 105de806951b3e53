// Folders and files: a mess for the guest to clean up.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "actor.h"

static void enter(const char *folder) { must(!chdir(folder), folder); }

// deep FOLDER DEPTH
void deep(void) {
    enter(text(1));
    for (long i = number(2); i > 0; i--) {
        must(!mkdir("d", 0700) && !chdir("d"), "mkdir");
        if (i % 1000 == 0) must(open("file", O_CREAT | O_WRONLY, 0600) >= 0, "file");
    }
}

// many FOLDER COUNT
void many(void) {
    char name[32];
    enter(text(1));
    for (long i = number(2); i > 0; i--) {
        snprintf(name, sizeof name, "%ld", i);
        int fd = open(name, O_CREAT | O_WRONLY, 0);
        must(fd >= 0, name);
        close(fd);
    }
}

// closed FOLDER: folders that their owner may neither read nor enter nor write to.
void closed(void) {
    enter(text(1));
    must(!mkdir("a", 0700) && !mkdir("a/b", 0700) && !mkdir("a/b/c", 0700) && !mkdir("e", 0), "mkdir");
    must(close(open("a/b/c/file", O_CREAT | O_WRONLY, 0)) == 0, "file");
    must(!symlink("/", "a/b/root") && !symlink("nowhere", "link") && !mkfifo("fifo", 0), "symlink");
    must(!link("a/b/c/file", "a/hard"), "link");
    must(!chmod("a/b/c", 0) && !chmod("a/b", 0100) && !chmod("a", 0), "chmod");
}

// names FOLDER: files and folders of 255 arbitrary bytes, nested, and the names that the guest itself would choose.
void names(void) {
    char name[256];
    enter(text(1));
    for (int round = 0; round < 3; round++) {
        for (int first = 1; first < 256; first++) {
            if (first == '/') continue;
            memset(name, first, 255);
            name[255] = 0;
            for (int i = 1; i < 255; i++) name[i] = (char)(i * first % 255 + 1 == '/' ? 'x' : i * first % 255 + 1);
            must(first % 2 ? !mkdir(name, 0700) : !close(open(name, O_CREAT | O_WRONLY, 0600)), "name");
        }
        for (int i = 0; i < 64; i++) {
            snprintf(name, sizeof name, ".gc-%d", i);
            must(i % 2 ? !mkdir(name, 0700) : !close(open(name, O_CREAT | O_WRONLY, 0600)), name);
        }
        must(!mkdir("...", 0700) && !mkdir("..x", 0700) && !mkdir("-rf", 0700), "mkdir");
        must(!mkdir("nested", 0700) && !chdir("nested"), "nested");
    }
}

// spoil FOLDER: change the folder itself.
void spoil(void) {
    const struct timespec times[2] = {{123, 456}, {789, 12}};
    // A tmpfs keeps them from Linux 6.6 on.
    must(!setxattr(text(1), "user.left", "behind", 6, 0) || errno == EOPNOTSUPP, "setxattr");
    must(!utimensat(AT_FDCWD, text(1), times, 0), "utimensat");
    must(!chmod(text(1), 0), "chmod");
}

void look(void) {
    struct stat st;
    char list[256];
    must(!stat(text(1), &st), text(1));
    printf("%o %u:%u %zd %ld", st.st_mode, st.st_uid, st.st_gid, listxattr(text(1), list, sizeof list), (long)st.st_mtime);
    DIR *dir = opendir(text(1));
    must(dir != NULL, text(1));
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) printf(" %s", entry->d_name);
}

// outputs FOLDER: everything that an output file may turn out to be.
void outputs(void) {
    enter(text(1));
    int fd = open("regular", O_CREAT | O_WRONLY, 0600);
    write_all(fd, "content", 7);
    must(!symlink("regular", "link") && !mkfifo("fifo", 0600) && !mkdir("folder", 0700), "outputs");
    must(!symlink("folder", "linked") && !close(open("folder/inner", O_CREAT | O_WRONLY, 0600)), "outputs");
    must(!close(open("secret", O_CREAT | O_WRONLY, 0)), "outputs");
}

static volatile char *first_page(int flags, int protection) {
    int fd = open(text(1), flags | O_NOATIME);
    must(fd >= 0, text(1));
    volatile char *bytes = mmap(NULL, 1, protection, MAP_SHARED, fd, 0);
    must(bytes != MAP_FAILED, "mmap");
    return bytes;
}

// store FILE: change a byte of its first page in memory, whether or not the file is that long. A store into a page that was not
// there yet is a fault, which changes the file's times; one into a page that was read before is not.
void store(void) {
    volatile char *bytes = first_page(O_RDWR, PROT_READ | PROT_WRITE);
    char was = bytes[4000];
    bytes[4000] = was ^ 1;
}

// stored FILE: print the byte that `store` changes.
void stored(void) { printf("%d", first_page(O_RDONLY, PROT_READ)[4000]); }
