/* A disk whose flush takes longer: each fsync and fdatasync waits FLUSH_MS (3.5) before it is done.
 *
 *   cc -O2 -shared -fPIC -o /tmp/slow_flush.so benchmarks/slow_flush.c
 *   LD_PRELOAD=/tmp/slow_flush.so python benchmarks/one_change.py --files 3
 *
 * For machines whose flushes are quicker than those of the small machines that bots run on.  Agent and floor meet the
 * same disk; flushes side by side wait side by side, as those that share one commit of a journal do.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static int slowed(const char *name, int fd) {
    const char *wish = getenv("FLUSH_MS");
    long us = (long)((wish ? atof(wish) : 3.5) * 1000);
    struct timespec pause = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&pause, NULL);
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}

int fsync(int fd) { return slowed("fsync", fd); }
int fdatasync(int fd) { return slowed("fdatasync", fd); }
