// A slot's init that does nothing: process 1, alone, as a guest is that waits to be dressed. With "child" it has a child.
#include <string.h>
#include <unistd.h>

int main(int argc, char **args) {
    if (argc > 1 && !strcmp(args[1], "child")) fork();
    for (;;) pause();
}
