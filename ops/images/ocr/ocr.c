/* ocr: the text of a scanned page, from a picture on standard input to UTF-8 on standard output, by Tesseract's
 * library.
 *
 * Tesseract's own command names files to write and settings to change; the arguments here are the few that make sense
 * of a page, each checked. Each page is turned upright and, where its letters are small, enlarged first; places of
 * words are given in pixels of the upright page. The models are ready before the picture is read, for a process that is
 * started ahead of its task.
 */
#define _GNU_SOURCE
#include "../picture.h"
#include <fcntl.h>
#include <leptonica/allheaders.h>
#include <signal.h>
#include <tesseract/capi.h>
#include <tiffio.h>

const char program[] = "ocr";

static const char usage[] =
    "usage: ocr [-l LANGUAGE] [--psm 0..13] [--dpi 70..2400] [txt|tsv|hocr] < picture > text\n"
    "  -l         language of the page, as installed: eng (the default), osd\n"
    "  --psm      how the page is laid out: 3 automatic (the default), 4 one column, 6 one block, 7 one line, ...\n"
    "  --dpi      resolution of the scan, where the picture doesn't tell\n"
    "  tsv, hocr  words with their places, in pixels of the upright page, as a table or as HTML\n"
    "The picture is a JPEG, PNG, GIF, TIFF or WebP of up to 64 MiB; its orientation tag is honoured. Of a TIFF all\n"
    "pages are read, of other formats the first frame. PDF, HEIC, AVIF, JPEG XL, JPEG 2000, BigTIFF and BMP are\n"
    "not read: convert them first.\n";

static const char table_head[] =
    "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext\n";

static const char html_head[] =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
    "<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\"\n"
    "    \"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n"
    "<html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n <head>\n  <title></title>\n"
    "  <meta http-equiv=\"Content-Type\" content=\"text/html;charset=utf-8\"/>\n"
    "  <meta name='ocr-system' content='tesseract %s' />\n"
    "  <meta name='ocr-capabilities' content='ocr_page ocr_carea ocr_par ocr_line ocrx_word ocrp_wconf'/>\n"
    " </head>\n <body>\n";

enum { LARGEST_SIDE = 32767 }; /* pixels; Tesseract's own */

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

static void need_number(const char *option, const char *value, long least, long most)
{
    char *end = NULL;
    long given = value && *value >= '0' && *value <= '9' ? strtol(value, &end, 10) : -1;
    if (!end || *end || given < least || given > most)
        misused("%s wants a number from %ld to %ld", option, least, most);
}

/* Languages are files of a folder, so the name must be nothing else: letters, digits, _ and +, which joins several. */
static void need_language(const char *value)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+";
    char *each, *rest, file[160], names[100];
    if (!value || !*value || strlen(value) >= sizeof names || value[strspn(value, letters)])
        misused("-l wants a language such as eng");
    strcpy(names, value);
    for (each = strtok_r(names, "+", &rest); each; each = strtok_r(NULL, "+", &rest)) {
        snprintf(file, sizeof file, "/usr/share/tesseract-ocr/5/tessdata/%s.traineddata", each);
        if (access(file, R_OK) != 0)
            misused("language \"%s\" is not in this image", each);
    }
}

/* Tesseract knows no limit of its own, and ends by abort() where memory is missing. */
static void out_of_memory(int number)
{
    (void)number;
    dprintf(complaints, "%s: the page is too large for the memory of this task; ask for more\n", program);
    _exit(EX_DATAERR);
}

/* True if libtiff met an error. Leptonica goes on with what could be read, which may be half a page. */
static int tiff_failed;

__attribute__((format(printf, 3, 0))) static void note_tiff_error(thandle_t file, const char *module,
                                                                  const char *format, va_list arguments)
{
    (void)file, (void)module, (void)format, (void)arguments;
    tiff_failed = 1;
}

/* Keeps the libraries' remarks from standard error: what fails is said here, in one line. */
static void silence_libraries(void)
{
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    complaints = dup(STDERR_FILENO);
    if (complaints < 0 || nowhere < 0 || dup2(nowhere, STDERR_FILENO) < 0)
        complaints = STDERR_FILENO;
    setMsgSeverity(L_SEVERITY_NONE);
    TIFFSetErrorHandlerExt(note_tiff_error);
    signal(SIGABRT, out_of_memory);
}

/* Ends the program for a page whose pixels don't fit, before they are decoded. */
static void need_memory(long width, long height, long limit_mib)
{
    if (width > LARGEST_SIDE || height > LARGEST_SIDE || width < 1 || height < 1)
        die(EX_DATAERR, "the picture can't be used: %ld x %ld pixels, where a side may have 1 to %d", width, height,
            LARGEST_SIDE);
    /* Four bytes a pixel as decoded, and about as many again in grey, in black and white and for what is found. */
    if (8 * width * height > limit_mib << 20)
        die(EX_DATAERR, "the picture can't be used: it is too large for the memory of this task; ask for more");
}

/* The next page of the picture. `*offset` says where it is in a TIFF: 0 for the first page and after the last. */
static PIX *decoded(const struct picture *picture, size_t *offset, long limit_mib)
{
    l_int32 format, width, height, bits, samples, palette, warnings = 0;
    PIX *page;
    if (strcmp(picture->format, "gif") == 0 && picture->length >= 10) /* Leptonica would decode it for its size */
        need_memory((long)little_endian(picture->bytes + 6, 2), (long)little_endian(picture->bytes + 8, 2), limit_mib);
    else if (pixReadHeaderMem(picture->bytes, picture->length, &format, &width, &height, &bits, &samples,
                              &palette) == 0)
        need_memory(width, height, limit_mib);
    if (strcmp(picture->format, "tiff") == 0)
        page = pixReadMemFromMultipageTiff(picture->bytes, picture->length, offset);
    else if (strcmp(picture->format, "jpeg") == 0)
        page = pixReadMemJpeg(picture->bytes, picture->length, 0, 1, &warnings, 0);
    else
        page = pixReadMem(picture->bytes, picture->length);
    if (!page || tiff_failed)
        die(EX_DATAERR, "the picture can't be used: nothing in it could be decoded; it is damaged, cut short, or too "
                        "large for the memory of this task");
    return page;
}

/* Puts one step's result in the place of its input. */
static PIX *next(PIX *page, PIX *result)
{
    if (!result)
        die(EX_DATAERR, "the picture can't be used: it is too large for the memory of this task; ask for more");
    pixDestroy(&page);
    return result;
}

/* A page in grey, upright, on white where it was clear. */
static PIX *upright(PIX *page, int orientation)
{
    static const struct {
        int quarters, mirrored;
    } turns[] = {{0, 0}, {0, 0}, {0, 1}, {2, 0}, {2, 1}, {1, 1}, {1, 0}, {3, 1}, {3, 0}};
    page = next(page, pixRemoveColormap(page, REMOVE_CMAP_BASED_ON_SRC));
    page = next(page, pixRemoveAlpha(page));
    page = next(page, pixConvertTo8(page, 0));
    if (turns[orientation].quarters)
        page = next(page, pixRotateOrth(page, turns[orientation].quarters));
    if (turns[orientation].mirrored)
        page = next(page, pixFlipLR(NULL, page));
    return page;
}

/* By how much a page is enlarged: Tesseract reads letters of 20 pixels and more well, smaller ones badly. The size of
 * the letters is the median height of what is connected in black, weighted by width, so that specks count little. */
static int enlargement(PIX *page, long limit_mib)
{
    enum { WINDOW = 12, TILE = 200, GOOD = 16, BEST = 24, MOST = 4, MOST_PIXELS = 40 << 20 };
    int width = pixGetWidth(page), height = pixGetHeight(page), median = 0;
    PIX *black = NULL;
    BOXA *boxes = NULL;
    long *weights = calloc((size_t)height + 1, sizeof *weights), total = 0, below = 0;
    if (weights && width > 4 * WINDOW && height > 4 * WINDOW &&
        pixSauvolaBinarizeTiled(page, WINDOW, 0.34f, width / TILE + 1, height / TILE + 1, NULL, &black) == 0)
        boxes = pixConnCompBB(black, 8);
    for (int i = 0; boxes && i < boxaGetCount(boxes); i++) {
        l_int32 across, high;
        boxaGetBoxGeometry(boxes, i, NULL, NULL, &across, &high);
        if (high < 4 || high > height / 2 || across > width / 2)
            continue;
        long weight = across < 3 * high ? across : 3 * high;
        weights[high] += weight;
        total += weight;
    }
    while (median < height && 2 * (below += weights ? weights[median] : 0) < total)
        median++;
    boxaDestroy(&boxes);
    pixDestroy(&black);
    free(weights);
    if (total == 0 || median == 0 || median >= GOOD)
        return 1;
    int times = (BEST + median - 1) / median;
    if (times > MOST)
        times = MOST;
    long most = limit_mib << 17 < MOST_PIXELS ? limit_mib << 17 : MOST_PIXELS;
    while (times > 1 && (long)width * height * times * times > most)
        times--;
    return times;
}

/* A page as Tesseract reads it best: upright, evenly lit, with letters of a good size. */
static PIX *prepared(PIX *page, int orientation, long limit_mib, int *times)
{
    page = upright(page, orientation);
    *times = enlargement(page, limit_mib);
    PIX *even = pixBackgroundNormSimple(page, NULL, NULL); /* fails where there is no background to see */
    if (even)
        page = next(page, even);
    if (*times > 1)
        page = next(page, pixScale(page, (l_float32)*times, (l_float32)*times));
    return page;
}

/* Writes a number that was measured on an enlarged page as it is on the page itself; gives the place after it. */
static char *put_number(FILE *to, char *from, int times)
{
    char *end;
    double value = strtod(from, &end);
    if (memchr(from, '.', (size_t)(end - from)))
        fprintf(to, "%.6g", value / times);
    else
        fprintf(to, "%ld", (long)(value / times + (value < 0 ? -0.5 : 0.5)));
    return end;
}

/* Writes a table, with columns 7 to 10 of each line (left, top, width, height) in pixels of the page itself. */
static void put_table(FILE *to, char *text, int times)
{
    for (int column = 1; *text;) {
        if (column >= 7 && column <= 10 && *text >= '0' && *text <= '9') {
            text = put_number(to, text, times);
            continue;
        }
        column = *text == '\n' ? 1 : column + (*text == '\t');
        fputc(*text++, to);
    }
}

/* Writes HTML, with the measures in the titles of its elements in pixels of the page itself. */
static void put_html(FILE *to, char *text, int times)
{
    static const struct {
        const char *name;
        int skipped, scaled; /* numbers: a baseline has a slope, then an offset */
    } measures[] = {{"bbox ", 0, 4}, {"baseline ", 1, 1}, {"x_size ", 0, 1}, {"x_descenders ", 0, 1},
                    {"x_ascenders ", 0, 1}, {"scan_res ", 0, 2}};
    int inside = 0; /* an element, where words of the page are not */
    while (*text) {
        size_t i = 0, count = sizeof measures / sizeof *measures;
        inside = *text == '<' || (inside && *text != '>');
        while (i < count && (!inside || strncmp(text, measures[i].name, strlen(measures[i].name)) != 0))
            i++;
        if (i == count) {
            fputc(*text++, to);
            continue;
        }
        fputs(measures[i].name, to);
        text += strlen(measures[i].name);
        for (int n = 0; n < measures[i].skipped + measures[i].scaled; n++) {
            if (n < measures[i].skipped)
                while (*text && *text != ' ')
                    fputc(*text++, to);
            else
                text = put_number(to, text, times);
            if (*text == ' ' && n + 1 < measures[i].skipped + measures[i].scaled)
                fputc(*text++, to);
        }
    }
}

/* Which way up the page is and in which script, as Tesseract's own command writes it. */
static void put_orientation(FILE *to, TessBaseAPI *tesseract, int number)
{
    int degrees;
    float sure, sure_of_script;
    const char *script;
    if (!TessBaseAPIDetectOrientationScript(tesseract, &degrees, &sure, &script, &sure_of_script))
        die(EX_DATAERR, "the picture can't be used: it has too little text to tell its orientation and script");
    fprintf(to,
            "Page number: %d\nOrientation in degrees: %d\nRotate: %d\nOrientation confidence: %.2f\nScript: %s\n"
            "Script confidence: %.2f\n",
            number, degrees, (360 - degrees) % 360, (double)sure, script, (double)sure_of_script);
}

/* Writes what is read on a page, which is enlarged so many times. */
static void put_page(FILE *to, TessBaseAPI *tesseract, const char *format, int number, int times)
{
    char *text = strcmp(format, "tsv") == 0    ? TessBaseAPIGetTsvText(tesseract, number)
                 : strcmp(format, "hocr") == 0 ? TessBaseAPIGetHOCRText(tesseract, number)
                                               : TessBaseAPIGetUTF8Text(tesseract);
    if (!text)
        die(EX_DATAERR, "the picture can't be used: page %d could not be read", number + 1);
    if (strcmp(format, "tsv") == 0)
        put_table(to, text, times);
    else if (strcmp(format, "hocr") == 0)
        put_html(to, text, times);
    else
        fprintf(to, "%s%s", number ? "\f" : "", text);
    TessDeleteText(text);
}

int main(int count, char **arguments)
{
    const char *language = "eng", *resolution = NULL, *format = "txt";
    int layout = PSM_AUTO;

    for (int i = 1; i < count; i++) {
        const char *option = arguments[i], *value = arguments[i + 1];
        if (strcmp(option, "-l") == 0)
            need_language(value), language = value, i++;
        else if (strcmp(option, "--psm") == 0)
            need_number(option, value, 0, 13), layout = atoi(value), i++;
        else if (strcmp(option, "--dpi") == 0)
            need_number(option, value, 70, 2400), resolution = value, i++;
        else if (strcmp(option, "txt") == 0 || strcmp(option, "tsv") == 0 || strcmp(option, "hocr") == 0)
            format = option;
        else if (strcmp(option, "--help") == 0 || strcmp(option, "-h") == 0)
            return fputs(usage, stdout) < 0;
        else
            misused("unknown argument \"%.40s\"", option);
    }

    silence_libraries();
    TessBaseAPI *tesseract = TessBaseAPICreate();
    if (TessBaseAPIInit3(tesseract, NULL, layout == PSM_OSD_ONLY ? "osd" : language) != 0)
        die(EX_SOFTWARE, "Tesseract can't load the language \"%s\"", language);
    TessBaseAPISetVariable(tesseract, "debug_file", "/dev/null");
    /* Method 2, Sauvola's, judges black and white by the surroundings: light on a real page is never even. */
    TessBaseAPISetVariable(tesseract, "thresholding_method", "2");
    TessBaseAPISetPageSegMode(tesseract, (TessPageSegMode)layout);

    struct picture picture = take_picture();
    long limit_mib = limit_memory();
    char *output;
    size_t length, offset = 0;
    FILE *to = open_memstream(&output, &length);
    if (!to)
        die(EX_OSERR, "no memory for the text");
    if (strcmp(format, "tsv") == 0)
        fputs(table_head, to);
    if (strcmp(format, "hocr") == 0)
        fprintf(to, html_head, TessVersion());
    int number = 0, orientation = orientation_of(&picture), times;
    do {
        PIX *page = prepared(decoded(&picture, &offset, limit_mib), orientation, limit_mib, &times);
        TessBaseAPISetInputName(tesseract, "stdin");
        TessBaseAPISetImage2(tesseract, page);
        if (resolution)
            TessBaseAPISetSourceResolution(tesseract, atoi(resolution) * times);
        if (layout == PSM_OSD_ONLY)
            put_orientation(to, tesseract, number);
        else
            put_page(to, tesseract, format, number, times);
        pixDestroy(&page);
        number++;
    } while (offset);
    if (strcmp(format, "hocr") == 0)
        fputs(" </body>\n</html>\n", to);
    fclose(to);
    pour_out(output, length);
    /* Nothing is taken apart: the process ends, and its memory with it. */
    return 0;
}
