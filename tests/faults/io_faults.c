/* Library to preload (LD_PRELOAD): writes to files below a folder fail or are delayed.
 *
 * IO_FAULTS_FOLDER  the folder
 * IO_FAULTS_ERRORS  a file that holds one byte per write that is still to fail with EIO; each failure removes one byte
 * IO_FAULTS_MS      delay of every write and flush
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int must_fail(int descriptor) {
    const char *folder = getenv("IO_FAULTS_FOLDER"), *errors = getenv("IO_FAULTS_ERRORS"), *wait = getenv("IO_FAULTS_MS");
    char link[64], path[PATH_MAX];
    if (!folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder))) return 0;
    if (wait) {
        long ms = atol(wait);
        struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
        nanosleep(&pause, NULL);
    }
    if (!errors) return 0;
    int left = open(errors, O_RDWR);
    if (left < 0) return 0;
    off_t size = lseek(left, 0, SEEK_END);
    int has_error = size > 0 && ftruncate(left, size - 1) == 0;
    close(left);
    return has_error;
}

#define WRAP(type, name, parameters, arguments)                    \
    type name parameters {                                         \
        static type(*real) parameters;                             \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);      \
        if (must_fail(descriptor)) {                                   \
            errno = EIO;                                           \
            return -1;                                             \
        }                                                          \
        return real arguments;                                     \
    }

WRAP(ssize_t, write, (int descriptor, const void *data, size_t size), (descriptor, data, size))
WRAP(ssize_t, pwrite, (int descriptor, const void *data, size_t size, off_t at), (descriptor, data, size, at))
WRAP(ssize_t, pwrite64, (int descriptor, const void *data, size_t size, off_t at), (descriptor, data, size, at))
WRAP(int, fsync, (int descriptor), (descriptor))
