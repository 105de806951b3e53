// hostile list            the cases, one JSON object a line
// hostile CASE [ARG...]   try one
#include "hostile.h"

extern const struct hostile_case *const __start_cases[], *const __stop_cases[];

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc < 2) {
        fprintf(stderr, "usage: hostile list | CASE [ARG...]\n");
        return 64;
    }
    for (const struct hostile_case *const *c = __start_cases; c < __stop_cases; c++) {
        if (!strcmp(argv[1], "list"))
            printf("{\"name\": \"%s\", \"tries\": \"%s\", \"must\": \"%s\", \"why\": \"%s\", \"outputs\": \"%s\", \"kept\": \"%s\"}\n",
                   (*c)->name, (*c)->tries, (*c)->must, (*c)->why, (*c)->outputs, (*c)->kept);
        else if (!strcmp(argv[1], (*c)->name)) {
            (*c)->run(argc - 2, argv + 2);
            printf("contained\n");
            return 0;
        }
    }
    if (!strcmp(argv[1], "list")) return 0;
    fprintf(stderr, "hostile: there is no case %s\n", argv[1]);
    return 64;
}
