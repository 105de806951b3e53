/* ocr: the text of a scanned page, from a picture on standard input to UTF-8 on standard output, by Tesseract.
 *
 * Tesseract's own arguments name files to write and settings to change; those here are the few that make sense of one
 * page, each checked.
 */
#include "../picture.h"

const char program[] = "ocr";

static const char usage[] =
    "usage: ocr [-l LANGUAGE] [--psm 0..13] [--dpi 70..2400] [txt|tsv|hocr] < picture > text\n"
    "  -l         language of the page, as installed: eng (the default), osd\n"
    "  --psm      how the page is laid out: 3 automatic (the default), 4 one column, 6 one block, 7 one line, ...\n"
    "  --dpi      resolution of the scan, where the picture doesn't tell\n"
    "  tsv, hocr  words with their places, as a table or as HTML\n";

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

int main(int count, char **arguments)
{
    const char *language = "eng", *layout = "3", *resolution = NULL, *format = "txt";

    for (int i = 1; i < count; i++) {
        const char *option = arguments[i], *value = arguments[i + 1];
        if (strcmp(option, "-l") == 0)
            need_language(value), language = value, i++;
        else if (strcmp(option, "--psm") == 0)
            need_number(option, value, 0, 13), layout = value, i++;
        else if (strcmp(option, "--dpi") == 0)
            need_number(option, value, 70, 2400), resolution = value, i++;
        else if (strcmp(option, "txt") == 0 || strcmp(option, "tsv") == 0 || strcmp(option, "hocr") == 0)
            format = option;
        else if (strcmp(option, "--help") == 0 || strcmp(option, "-h") == 0)
            return fputs(usage, stdout) < 0;
        else
            misused("unknown argument \"%.40s\"", option);
    }
    take_picture();

    /* Tesseract knows no limit of its own. With this one a huge picture is an error with a message, else the kernel would
     * have to kill it without a word. */
    struct rlimit limit = {(rlim_t)memory_mib() << 20, (rlim_t)memory_mib() << 20};
    setrlimit(RLIMIT_AS, &limit);

    /* Method 2, Sauvola's, judges black and white by the surroundings: light on a real page is never even. */
    const char *command[16] = {"/usr/bin/tesseract", "stdin", "stdout", "-l",    language,
                               "--psm",              layout,  "-c",     "thresholding_method=2"};
    size_t words = 9;
    if (resolution)
        command[words++] = "--dpi", command[words++] = resolution;
    command[words++] = format;
    return run((char *const *)command);
}
