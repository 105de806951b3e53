#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/types.h>

#include "flow.h"
#include "self.h"

#define MOVED_BYTES (1 << 20)

struct pollfd wait_for(const struct flow *f) { return f->full ? (struct pollfd){f->to, POLLOUT, 0} : (struct pollfd){f->from, POLLIN, 0}; }

void stop(struct flow *f) {
    shut(&f->from);
    shut(&f->to);
}

// Pages go from pipe to pipe as they are.
void move(struct flow *f) {
    ssize_t n = splice(f->from, NULL, f->to, NULL, MOVED_BYTES, SPLICE_F_NONBLOCK);
    f->full = false;
    if (n > 0 || (n < 0 && errno == EINTR)) return;
    if (!n || errno != EAGAIN) {
        stop(f);
        return;
    }
    // The kernel does not tell which of the two it was.
    struct pollfd p = {f->from, POLLIN, 0};
    f->full = poll(&p, 1, 0) > 0;
}
