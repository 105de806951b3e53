/* imgproc: one operation on a picture, from standard input to standard output, by ImageMagick's library.
 *
 * A caller's arguments reach ImageMagick only as numbers that were checked here, as a name from a list, or as escaped
 * text. Every operation turns the picture upright, brings it to sRGB and drops its metadata, decodes once and encodes
 * once. The library is ready before the picture is read, for a process that is started ahead of its task.
 */
#include "../picture.h"
#include "colour.h"

const char program[] = "imgproc";

static const char usage[] =
    "usage: imgproc OPERATION < picture > picture\n"
    "  thumbnail 200x200   shrink to fit into width x height, proportions kept; never enlarged\n"
    "  convert FORMAT      jpeg (or jpg), png, webp, gif, tiff\n"
    "  rotate DEGREES      clockwise, -360 to 360\n"
    "  watermark TEXT      across the lower right corner, up to 200 bytes of UTF-8\n"
    "The picture is a JPEG, PNG, GIF, TIFF or WebP of up to 64 MiB and 16384 pixels a side; of several frames or\n"
    "pages the first is taken. It comes out upright, in sRGB, without metadata and profile, in its own format unless\n"
    "converted. HEIC, AVIF, JPEG XL, JPEG 2000, BigTIFF, BMP, SVG, PDF and camera raw are not read: convert them\n"
    "first.\n";

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

/* Complaints of the library while it worked. */
static struct {
    int cut_short;
    char failure[400], profile[200];
} heard;

static void note_warning(const ExceptionType severity, const char *reason, const char *description)
{
    (void)severity, (void)description;
    if (!reason)
        return;
    /* Most warnings are about trifles. These mean that a part of the picture is missing. */
    static const char *const missing[] = {"Premature end", "premature end", "not enough data", "Not enough data",
                                          "Read error"};
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++)
        if (strstr(reason, missing[i]))
            heard.cut_short = 1;
    if (strstr(reason, "iCCP") || strstr(reason, "ICC "))
        snprintf(heard.profile, sizeof heard.profile, "%s", reason);
}

static void note_error(const ExceptionType severity, const char *reason, const char *description)
{
    (void)severity, (void)description;
    if (!*heard.failure && reason)
        snprintf(heard.failure, sizeof heard.failure, "%.*s", (int)strcspn(reason, "`\r\n"), reason);
}

static void note(ExceptionInfo *exception)
{
    if (exception->severity != UndefinedException)
        CatchException(exception);
    ClearMagickException(exception);
}

__attribute__((noreturn)) static void unusable_picture(void)
{
    if (strstr(heard.failure, "cache resources exhausted") || strstr(heard.failure, "emory"))
        die(EX_DATAERR, "the picture can't be used: it is too large for the memory of this task; ask for more");
    if (heard.cut_short)
        die(EX_DATAERR, "the picture is cut short");
    if (!*heard.failure)
        die(EX_DATAERR, "the picture can't be used: nothing in it could be decoded; it is damaged, cut short, or too "
                        "large for the memory of this task");
    die(EX_DATAERR, "the picture can't be used: %s", heard.failure);
}

/* Puts one step's result in the place of its input. Ends the program where there is no result. */
static Image *next(Image *image, Image *result, ExceptionInfo *exception)
{
    note(exception);
    note(&image->exception);
    if (!result || *heard.failure)
        unusable_picture();
    if (result != image)
        DestroyImage(image);
    return result;
}

static Image *decoded(const struct picture *picture, struct size size, ExceptionInfo *exception)
{
    char hint[64];
    ImageInfo *info = CloneImageInfo(NULL);
    snprintf(info->filename, sizeof info->filename, "%s:", picture->format);
    snprintf(info->magick, sizeof info->magick, "%s", picture->format);
    info->number_scenes = 1; /* the first frame only */
    if (size.width) {
        /* A JPEG can be decoded at a fraction of its size; twice the target keeps it sharp. The larger side counts for
         * both, as a picture may lie on its side until it is turned upright. */
        long side = 2 * (size.width > size.height ? size.width : size.height);
        snprintf(hint, sizeof hint, "%ldx%ld", side, side);
        SetImageOption(info, "jpeg:size", hint);
    }
    Image *image = BlobToImage(info, picture->bytes, picture->length, exception);
    note(exception);
    if (image)
        note(&image->exception);
    if (!image || *heard.failure || heard.cut_short)
        unusable_picture();
    DestroyImageInfo(info);
    int orientation = orientation_of(picture);
    if (orientation)
        image->orientation = (OrientationType)orientation; /* EXIF's numbers */
    name_profile(image); /* while what it may be known by is still there */
    return image;
}

static long at_least(long least, double value)
{
    return value < (double)least ? least : (long)value;
}

/* The size of a picture that is shrunk to fit into a box; a picture that fits is left as it is. */
static struct size fitted(const Image *image, struct size box)
{
    double width = (double)image->columns, height = (double)image->rows;
    double across = (double)box.width / width, down = (double)box.height / height;
    double scale = across < down ? across : down;
    if (scale > 1)
        scale = 1;
    return (struct size){at_least(1, width * scale + 0.5), at_least(1, height * scale + 0.5)};
}

/* A label, sized by the picture: half as wide, a twelfth as high, and dark under white, to show on any ground. */
static void watermark(Image *image, const char *text, ExceptionInfo *exception)
{
    char box[64];
    ImageInfo *info = CloneImageInfo(NULL);
    snprintf(info->filename, sizeof info->filename, "label:%s", text);
    snprintf(box, sizeof box, "%ldx%ld", at_least(8, (double)image->columns / 2),
             at_least(8, (double)image->rows / 12));
    CloneString(&info->size, box);
    CloneString(&info->font, "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf");
    QueryColorDatabase("#00000080", &info->background_color, exception);
    SetImageOption(info, "fill", "white");
    SetImageOption(info, "gravity", "center");
    Image *label = ReadImage(info, exception);
    note(exception);
    if (!label)
        unusable_picture();
    CompositeImage(image, OverCompositeOp, label, (ssize_t)image->columns - (ssize_t)label->columns,
                   (ssize_t)image->rows - (ssize_t)label->rows);
    DestroyImage(label);
    DestroyImageInfo(info);
}

int main(int count, char **arguments)
{
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

    MagickCoreGenesis(NULL, MagickFalse);
    SetWarningHandler(note_warning);
    SetErrorHandler(note_error);
    ExceptionInfo *exception = AcquireExceptionInfo();

    struct picture picture = take_picture();
    SetMagickResourceLimit(MemoryResource, (MagickSizeType)limit_memory() << 20); /* policy.xml's is the most */
    if (!output)
        output = picture.format;
    int opaque = strcmp(output, "jpeg") == 0;

    Image *image = decoded(&picture, size, exception);
    free(picture.bytes);
    if (strcmp(picture.format, "gif") == 0) /* the first frame may be a part of the screen */
        image = next(image, CoalesceImages(image, exception), exception);
    image = next(image, AutoOrientImage(image, image->orientation, exception), exception);
    ParseAbsoluteGeometry("0x0+0+0", &image->page);
    if (size.width) {
        size = fitted(image, size);
        image = next(image, ThumbnailImage(image, (size_t)size.width, (size_t)size.height, exception), exception);
    }
    make_srgb(image, exception); /* now that a large picture has become small */
    QueryColorDatabase(opaque ? "white" : "none", &image->background_color, exception);
    if (degrees) /* the corners that an odd angle lays bare are clear, or white in a JPEG, which knows no clear */
        image = next(image, RotateImage(image, (double)degrees, exception), exception);
    if (text)
        watermark(image, text, exception);
    ParseAbsoluteGeometry("0x0+0+0", &image->page);
    if (opaque) {
        SetImageAlphaChannel(image, RemoveAlphaChannel);
        SetImageAlphaChannel(image, DeactivateAlphaChannel);
    }
    StripImage(image);
    note(&image->exception);
    if (*heard.failure)
        unusable_picture();

    size_t length = 0;
    ImageInfo *info = CloneImageInfo(NULL);
    snprintf(info->filename, sizeof info->filename, "%s:", output);
    snprintf(info->magick, sizeof info->magick, "%s", output);
    SetImageOption(info, "png:exclude-chunks", "date,time");
    snprintf(image->filename, sizeof image->filename, "%s:", output);
    void *encoded = ImageToBlob(info, image, &length, exception);
    next(image, image, exception);
    if (!encoded)
        unusable_picture();
    if (*heard.profile)
        say("the picture's colour profile is ignored: %s", heard.profile);
    pour_out(encoded, length);
    return 0;
}
