/* A picture on standard input, for a small program that hands it to a big library (MagickCore, Leptonica).
 *
 * The libraries guess a format from the bytes, and some of what they guess at runs scripts, reads files or fetches
 * URLs. So the format is decided here, from the first bytes and a short list, and named to them explicitly.
 *
 * Exit codes are those of sysexits.h: 64 wrong arguments, 65 the input is no usable picture, 70 our own trouble.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>

#define INPUT_LIMIT (64UL << 20) /* bytes; a slot has 512 MiB by default, and the decoded picture must fit as well */
#define FORMATS_READ "JPEG, PNG, GIF, TIFF or WebP"

extern const char program[]; /* the name that messages begin with */

static int complaints = STDERR_FILENO; /* where messages go */

struct picture {
    const char *format; /* in lower case: jpeg, png, gif, tiff, webp */
    unsigned char *bytes;
    size_t length;
};

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char line[512];
    vsnprintf(line, sizeof line, format, arguments);
    dprintf(complaints, "%s: %s\n", program, line);
    va_end(arguments);
}

#define die(code, ...) (say(__VA_ARGS__), exit(code))

struct signature {
    const char *name, *bytes;
    size_t at, length;
};

static const char *name_in(const struct signature *known, size_t count, const struct picture *picture)
{
    for (size_t i = 0; i < count; i++)
        if (picture->length >= known[i].at + known[i].length &&
            memcmp(picture->bytes + known[i].at, known[i].bytes, known[i].length) == 0)
            return known[i].name;
    return NULL;
}

/* The format of a picture by its first bytes; NULL for everything that is not read here. */
static const char *format_of(const struct picture *picture)
{
    static const struct signature known[] = {
        {"jpeg", "\xff\xd8\xff", 0, 3}, {"png", "\x89PNG\r\n\x1a\n", 0, 8}, {"gif", "GIF87a", 0, 6},
        {"gif", "GIF89a", 0, 6},        {"tiff", "II*\0", 0, 4},            {"tiff", "MM\0*", 0, 4},
        {"webp", "WEBP", 8, 4},
    };
    return name_in(known, sizeof known / sizeof *known, picture);
}

/* The name of a format that people try and that is not read; NULL where the bytes are none of them. */
static const char *refused_format_of(const struct picture *picture)
{
    static const struct signature known[] = {
        {"AVIF", "ftypavif", 4, 8},
        {"AVIF", "ftypavis", 4, 8},
        {"HEIC", "ftyphei", 4, 7},
        {"HEIC", "ftyphev", 4, 7},
        {"HEIF", "ftypmif1", 4, 8},
        {"HEIF", "ftypmsf1", 4, 8},
        {"JPEG XL", "\xff\x0a", 0, 2},
        {"JPEG XL", "\0\0\0\x0cJXL ", 0, 8},
        {"JPEG 2000", "\0\0\0\x0cjP  ", 0, 8},
        {"JPEG 2000", "\xff\x4f\xff\x51", 0, 4},
        {"PDF", "%PDF-", 0, 5},
        {"PostScript", "%!PS", 0, 4},
        {"SVG", "<svg", 0, 4},
        {"SVG or other XML", "<?xml", 0, 5},
        {"BMP", "BM", 0, 2},
        {"ICO", "\0\0\1\0", 0, 4},
        {"Photoshop", "8BPS", 0, 4},
        {"BigTIFF", "II+\0", 0, 4},
        {"BigTIFF", "MM\0+", 0, 4},
    };
    return name_in(known, sizeof known / sizeof *known, picture);
}

/* The memory, in MiB, that this container may use for a decoded picture: its limit less what programs and the picture
 * as it came need. */
static long memory_mib(void)
{
    static const char *const files[] = {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    long long bytes = 0;
    for (size_t i = 0; i < 2 && bytes == 0; i++) {
        FILE *file = fopen(files[i], "r");
        if (!file)
            continue;
        if (fscanf(file, "%lld", &bytes) != 1)
            bytes = 0; /* "max" */
        fclose(file);
    }
    long mib = bytes > 0 && bytes < 1LL << 40 ? (long)(bytes >> 20) : 512;
    return mib > 128 ? mib - 64 : mib / 2;
}

/* Bounds what the decoders may take. Most know no limit of their own: with this one a huge picture is an error with a
 * message; else the kernel would kill the program without a word. Gives the bound in MiB. */
static long limit_memory(void)
{
    long mib = memory_mib();
    struct rlimit limit = {(rlim_t)mib << 20, (rlim_t)mib << 20};
    setrlimit(RLIMIT_DATA, &limit);
    return mib;
}

/* Reads all of standard input. Ends the program where it is no picture. */
static struct picture take_picture(void)
{
    struct picture picture = {0};
    for (size_t room = 0;;) {
        if (picture.length == room) {
            room = room ? 2 * room : 1 << 18;
            if (!(picture.bytes = realloc(picture.bytes, room)))
                die(EX_OSERR, "no memory for the picture");
        }
        ssize_t got = read(STDIN_FILENO, picture.bytes + picture.length, room - picture.length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            die(EX_NOINPUT, "standard input can't be read: %s", strerror(errno));
        if (got == 0)
            break;
        if ((picture.length += (size_t)got) > INPUT_LIMIT)
            die(EX_DATAERR, "the picture has more than %lu MiB", INPUT_LIMIT >> 20);
    }
    if (picture.length == 0)
        die(EX_DATAERR, "no input: send a picture on standard input");
    if (!(picture.format = format_of(&picture))) {
        const char *refused = refused_format_of(&picture);
        if (refused)
            die(EX_DATAERR, "a %s file is not read here: convert it to a " FORMATS_READ " picture first", refused);
        die(EX_DATAERR, "the input is no " FORMATS_READ " picture");
    }
    return picture;
}

/* Writes all bytes to standard output. */
static void pour_out(const void *bytes, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t put = write(STDOUT_FILENO, (const char *)bytes + done, length - done);
        if (put < 0 && errno != EINTR)
            die(EX_IOERR, "standard output can't be written: %s", strerror(errno));
        done += put > 0 ? (size_t)put : 0;
    }
}

static uint32_t big_endian(const unsigned char *at, int count)
{
    uint32_t value = 0;
    for (int i = 0; i < count; i++)
        value = value << 8 | at[i];
    return value;
}

static uint32_t little_endian(const unsigned char *at, int count)
{
    uint32_t value = 0;
    for (int i = count; i-- > 0;)
        value = value << 8 | at[i];
    return value;
}

/* The orientation in an EXIF block, 1 to 8; 0 where it names none. */
static int exif_orientation(const unsigned char *exif, size_t length)
{
    if (length >= 6 && memcmp(exif, "Exif\0", 5) == 0)
        exif += 6, length -= 6;
    if (length < 8 || (memcmp(exif, "II", 2) != 0 && memcmp(exif, "MM", 2) != 0))
        return 0;
    uint32_t (*number)(const unsigned char *, int) = *exif == 'I' ? little_endian : big_endian;
    size_t at = number(exif + 4, 4);
    if (at > length - 2)
        return 0;
    size_t entries = number(exif + at, 2);
    for (at += 2; entries > 0 && length - at >= 12; entries--, at += 12)
        if (number(exif + at, 2) == 0x0112 && number(exif + at + 2, 2) == 3) {
            uint32_t value = number(exif + at + 8, 2);
            return value >= 1 && value <= 8 ? (int)value : 0;
        }
    return 0;
}

/* The orientation that a JPEG, PNG or WebP carries in EXIF, 1 to 8; 0 where it carries none. The libraries read a
 * TIFF's own tag, but not all of them read these. */
static int orientation_of(const struct picture *picture)
{
    const unsigned char *bytes = picture->bytes;
    size_t at, length = picture->length, size;
    if (strcmp(picture->format, "jpeg") == 0)
        for (at = 2; at + 4 <= length && bytes[at] == 0xff; at += size) {
            if (bytes[at + 1] == 0xff) { /* a fill byte */
                size = 1;
                continue;
            }
            size = 2 + big_endian(bytes + at + 2, 2);
            if (bytes[at + 1] == 0xda || size > length - at)
                return 0;
            if (bytes[at + 1] == 0xe1 && size >= 10 && memcmp(bytes + at + 4, "Exif\0", 5) == 0)
                return exif_orientation(bytes + at + 4, size - 4);
        }
    if (strcmp(picture->format, "png") == 0)
        for (at = 8; at + 12 <= length; at += 12 + size) {
            size = big_endian(bytes + at, 4);
            if (size > length - at - 12)
                return 0;
            if (memcmp(bytes + at + 4, "eXIf", 4) == 0)
                return exif_orientation(bytes + at + 8, size);
        }
    if (strcmp(picture->format, "webp") == 0)
        for (at = 12; at + 8 <= length; at += 8 + size + (size & 1)) {
            size = little_endian(bytes + at + 4, 4);
            if (size > length - at - 8)
                return 0;
            if (memcmp(bytes + at, "EXIF", 4) == 0)
                return exif_orientation(bytes + at + 8, size);
        }
    return 0;
}
