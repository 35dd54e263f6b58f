/* Run a command and tell what it cost, to a file:

       timed RESULT COMMAND [WORD]...

   Wall nanoseconds from before its start to after its end, and the kilobytes that its largest process held.  A large
   process that starts another one lends it its own memory for an instant, and the kernel counts that; this one is tiny. */

#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static long long now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

int main(int count, char **words)
{
    if (count < 3) {
        fprintf(stderr, "timed RESULT COMMAND [WORD]...\n");
        return 2;
    }
    FILE *result = fopen(words[1], "we");
    if (!result) {
        perror(words[1]);
        return 2;
    }
    pid_t child;
    int status;
    struct rusage usage;
    long long began = now();
    int error = posix_spawnp(&child, words[2], NULL, NULL, words + 2, environ);
    if (error) {
        fprintf(stderr, "%s: %s\n", words[2], strerror(error));
        return 127;
    }
    if (wait4(child, &status, 0, &usage) < 0) {
        perror("wait4");
        return 2;
    }
    fprintf(result, "%lld %ld\n", now() - began, usage.ru_maxrss);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
