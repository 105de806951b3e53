/* imgproc: one operation on a picture, from standard input to standard output, by ImageMagick.
 *
 * ImageMagick's command line is a language of its own, in which arguments can name files and ask for properties. What
 * a caller gives reaches it only as numbers that were checked here, as a name from a list, or as escaped text.
 * Every operation turns the picture upright first, drops its metadata, decodes once and encodes once.
 */
#include "../picture.h"

const char program[] = "imgproc";

static const char usage[] =
    "usage: imgproc OPERATION < picture > picture\n"
    "  thumbnail 200x200   shrink to fit into width x height, proportions kept; never enlarged\n"
    "  convert FORMAT      jpeg (or jpg), png, webp, gif, tiff\n"
    "  rotate DEGREES      clockwise, -360 to 360\n"
    "  watermark TEXT      across the lower right corner, up to 200 bytes of UTF-8\n"
    "The picture is a JPEG, PNG, GIF, TIFF or WebP; of several frames the first is taken. The format stays\n"
    "unless converted; metadata is dropped.\n";

enum { LONGEST_TEXT = 200, LARGEST_SIDE = 16384 };

__attribute__((format(printf, 1, 2), noreturn)) static void misused(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", program);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n%s", usage);
    va_end(arguments);
    exit(EX_USAGE);
}

/* The command line for ImageMagick while it is put together. */
static char *command[64];
static size_t words;

static void add(const char *word)
{
    if (words + 1 >= sizeof command / sizeof *command || !(command[words++] = strdup(word)))
        die(EX_SOFTWARE, "the command line became too long");
}

#define ADD(...)                                                                                                       \
    do {                                                                                                               \
        const char *each[] = {__VA_ARGS__};                                                                            \
        for (size_t i = 0; i < sizeof each / sizeof *each; i++)                                                        \
            add(each[i]);                                                                                              \
    } while (0)

/* A decimal number of at most `digits` digits that ends at `*end`; -1 where there is none. */
static long number(const char *text, int digits, const char **end)
{
    long value = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9' && at - text < digits; at++)
        value = value * 10 + (*at - '0');
    *end = at;
    return at == text ? -1 : value;
}

struct size {
    long width, height;
};

static struct size parse_size(const char *text)
{
    const char *end = text;
    struct size size = {.width = number(text, 5, &end)};
    size.height = *end == 'x' ? number(end + 1, 5, &end) : -1;
    if (*end || size.width < 1 || size.height < 1 || size.width > LARGEST_SIDE || size.height > LARGEST_SIDE)
        misused("thumbnail wants a size such as 200x200, each side 1 to %d, not \"%.40s\"", LARGEST_SIDE, text);
    return size;
}

static const char *parse_format(const char *text)
{
    static const char *const formats[] = {"jpeg", "png", "webp", "gif", "tiff"};
    if (strcmp(text, "jpg") == 0)
        return "jpeg";
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(text, formats[i]) == 0)
            return formats[i];
    misused("convert knows no format \"%.40s\"", text);
}

static long parse_degrees(const char *text)
{
    const char *end = text;
    long degrees = number(text + (*text == '-'), 3, &end);
    if (*end || degrees < 0 || degrees > 360)
        misused("rotate wants whole degrees from -360 to 360, not \"%.40s\"", text);
    return *text == '-' ? -degrees : degrees;
}

/* The text with everything taken out of it that ImageMagick would interpret: % properties, \ escapes, @ files. */
static const char *parse_text(const char *text)
{
    static char escaped[2 * LONGEST_TEXT + 2];
    char *to = escaped;
    size_t length = strlen(text);
    if (length == 0 || length > LONGEST_TEXT)
        misused("watermark wants a text of 1 to %d bytes, not %zu", LONGEST_TEXT, length);
    if (*text == '@')
        *to++ = '\\'; /* only at the start does it name a file */
    for (; *text; text++) {
        if ((unsigned char)*text < ' ' || *text == 127)
            misused("watermark wants a text without control characters");
        if (*text == '%' || *text == '\\')
            *to++ = *text;
        *to++ = *text;
    }
    return escaped;
}

int main(int count, char **arguments)
{
    char small[64], hint[64], source[32], target[32];
    const char *operation = count > 1 ? arguments[1] : "", *value = count > 2 ? arguments[2] : "";
    const char *output = NULL, *text = NULL;
    struct size size = {0};
    long degrees = 0;

    /* Arguments first: who misspelt one should hear it before a picture is read. */
    if (count < 2)
        misused("no operation given");
    if (strcmp(operation, "--help") == 0 || strcmp(operation, "-h") == 0)
        return fputs(usage, stdout) < 0;
    if (count != 3)
        misused("an operation and one value, please");
    if (strcmp(operation, "thumbnail") == 0)
        size = parse_size(value);
    else if (strcmp(operation, "convert") == 0)
        output = parse_format(value);
    else if (strcmp(operation, "rotate") == 0)
        degrees = parse_degrees(value);
    else if (strcmp(operation, "watermark") == 0)
        text = parse_text(value);
    else
        misused("unknown operation \"%.40s\"", operation);

    const char *input = take_picture();
    snprintf(hint, sizeof hint, "%ldMiB", memory_mib());
    setenv("MAGICK_MEMORY_LIMIT", hint, 1); /* it lowers what policy.xml sets, and can't raise it */
    if (!output)
        output = input;

    add("/usr/bin/convert");
    if (size.width) {
        /* A JPEG can be decoded at a fraction of its size; twice the target keeps it sharp. The larger side counts for
         * both, as a picture may lie on its side until it is turned upright. */
        long side = 2 * (size.width > size.height ? size.width : size.height);
        snprintf(hint, sizeof hint, "jpeg:size=%ldx%ld", side, side);
        ADD("-define", hint);
    }
    snprintf(source, sizeof source, "%s:/proc/self/fd/0[0]", input);
    ADD(source, "-auto-orient", "+repage");
    if (size.width) {
        snprintf(small, sizeof small, "%ldx%ld>", size.width, size.height);
        ADD("-thumbnail", small);
    }
    if (degrees) {
        snprintf(small, sizeof small, "%ld", degrees);
        /* The corners that an odd angle lays bare are clear, or white in a JPEG, which knows no clear. */
        ADD("-background", strcmp(output, "jpeg") == 0 ? "white" : "none", "-rotate", small, "+repage");
    }
    if (text)
        /* A label, sized by the picture: half as wide, a twelfth as high, and dark under white, to show on any ground. */
        ADD("-set", "option:size", "%[fx:max(8,w*0.5)]x%[fx:max(8,h/12)]", "(", "-background", "#00000080", "-fill",
            "white", "-font", "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf", "-gravity", "center");
    if (text) {
        char label[2 * LONGEST_TEXT + 16];
        snprintf(label, sizeof label, "label:%s", text);
        ADD(label, ")", "-gravity", "southeast", "-composite");
    }
    if (strcmp(output, "jpeg") == 0)
        ADD("-background", "white", "-alpha", "remove", "-alpha", "off");
    /* Without its profile a picture is taken for sRGB, so it had better be. */
    ADD("-colorspace", "sRGB", "-strip", "-define", "png:exclude-chunks=date,time");
    snprintf(target, sizeof target, "%s:/proc/self/fd/1", output);
    add(target);
    return run(command);
}
