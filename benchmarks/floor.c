/* The least that a durable copy costs: read, write beside, flush, rename, flush the folder; nothing else.

       floor FOLDER FILE...        one flush for each file, and one for the folder
       floor -s FOLDER FILE...     one flush of the whole file system instead

   Prints the nanoseconds of wall time and of processor time that this took, without the start of the process. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char chunk[1 << 20];

static long long now(clockid_t clock)
{
    struct timespec at;
    clock_gettime(clock, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static int must(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return result;
}

static void names_of(const char *path, char *temporary, char *final, size_t room)
{
    const char *base = strrchr(path, '/');
    base = base ? base + 1 : path;
    snprintf(temporary, room, "%s.tmp", base);
    snprintf(final, room, "%s.copy", base);
}

static int copy(int folder, const char *path)
{
    char temporary[256], final[256];
    names_of(path, temporary, final, sizeof final);
    int from = must(open(path, O_RDONLY | O_CLOEXEC), path);
    int to = must(openat(folder, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), temporary);
    ssize_t length;
    while ((length = read(from, chunk, sizeof chunk)) > 0)
        for (ssize_t done = 0; done < length;)
            done += must(write(to, chunk + done, length - done), temporary);
    must(length, path);
    close(from);
    return to;
}

int main(int count, char **words)
{
    int whole = count > 1 && strcmp(words[1], "-s") == 0;
    if (count < 3 + whole) {
        fprintf(stderr, "floor [-s] FOLDER FILE...\n");
        return 2;
    }
    char **files = words + 2 + whole;
    int many = count - 2 - whole;
    int *copies = calloc(many, sizeof *copies);
    long long wall = now(CLOCK_MONOTONIC), processor = now(CLOCK_PROCESS_CPUTIME_ID);

    int folder = must(open(words[1 + whole], O_RDONLY | O_DIRECTORY | O_CLOEXEC), words[1 + whole]);
    for (int i = 0; i < many; i++)
        copies[i] = copy(folder, files[i]);
    for (int i = 0; i < many && !whole; i++)
        must(fsync(copies[i]), files[i]);
    if (whole)
        must(syncfs(folder), "syncfs");
    for (int i = 0; i < many; i++) {
        char temporary[256], final[256];
        names_of(files[i], temporary, final, sizeof final);
        must(renameat(folder, temporary, folder, final), temporary);
    }
    must(fsync(folder), "folder");

    printf("%lld %lld\n", now(CLOCK_MONOTONIC) - wall, now(CLOCK_PROCESS_CPUTIME_ID) - processor);
    return 0;
}
