/* Writes down, in order, what a process does to the files of one folder: every write with its bytes, every sync,
 * truncation, rename and removal. Loaded with LD_PRELOAD; used by trace.py to build what a power cut could have left.
 *
 *   MANYHANDS_TRACE_FOLDER   absolute folder whose files are watched
 *   MANYHANDS_TRACE_LOG      the log, outside that folder
 *   MANYHANDS_FAIL_SYNC      if set, a number n: the n-th sync of the store's log (`-wal`) fails with EIO
 *
 * A record: kind (1 byte: O open-and-truncate, W write, S sync, T truncate, R rename, U unlink), name length (uint32),
 * offset or size (uint64), data length (uint64), name, data. Numbers are in the machine's byte order. One lock is held
 * over each call and its record, so the log's order is the order of the calls.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FDS 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *names[MAX_FDS];
static const char *folder;
static size_t folder_length;
static int log_fd = -1;
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    real_write = REAL(write);
    real_open = REAL(open);
    real_close = REAL(close);
    folder = getenv("MANYHANDS_TRACE_FOLDER");
    const char *path = getenv("MANYHANDS_TRACE_LOG");
    if (folder == NULL || path == NULL)
        return;
    folder_length = strlen(folder);
    log_fd = real_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_watched_path(const char *path) {
    return log_fd >= 0 && path != NULL && strncmp(path, folder, folder_length) == 0;
}

static const char *watched(int fd) { return fd >= 0 && fd < MAX_FDS ? names[fd] : NULL; }

static int fails_now(const char *name) {
    static int left = -1;
    if (left < 0)
        left = getenv("MANYHANDS_FAIL_SYNC") ? atoi(getenv("MANYHANDS_FAIL_SYNC")) : 0;
    if (left == 0 || name == NULL || strlen(name) < 4 || strcmp(name + strlen(name) - 4, "-wal") != 0)
        return 0;
    return --left == 0;
}

static void put(const void *data, size_t length) {
    const char *at = data;
    while (length > 0) {
        ssize_t written = real_write(log_fd, at, length);
        if (written <= 0)
            _exit(99); /* a log with a hole proves nothing */
        at += written;
        length -= (size_t)written;
    }
}

static void record(char kind, const char *name, uint64_t offset, const void *data, uint64_t length) {
    char head[21];
    uint32_t name_length = (uint32_t)strlen(name);
    head[0] = kind;
    memcpy(head + 1, &name_length, 4);
    memcpy(head + 5, &offset, 8);
    memcpy(head + 13, &length, 8);
    put(head, sizeof head);
    put(name, name_length);
    put(data, length);
}

static int opened(int fd, const char *path, int flags) {
    if (fd >= 0 && fd < MAX_FDS && is_watched_path(path)) {
        free(names[fd]);
        names[fd] = strdup(path);
        if (flags & O_TRUNC)
            record('O', path, 0, "", 0);
    }
    return fd;
}

#define OPEN(name)                                                                                                             \
    int name(const char *path, int flags, ...) {                                                                               \
        va_list rest;                                                                                                          \
        va_start(rest, flags);                                                                                                 \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                                \
        va_end(rest);                                                                                                          \
        pthread_mutex_lock(&lock);                                                                                             \
        int fd = opened(REAL(name)(path, flags, mode), path, flags);                                                           \
        pthread_mutex_unlock(&lock);                                                                                           \
        return fd;                                                                                                             \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    pthread_mutex_lock(&lock);
    if (watched(fd)) {
        free(names[fd]);
        names[fd] = NULL;
    }
    int result = real_close(fd);
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t write(int fd, const void *data, size_t length) {
    if (watched(fd) == NULL)
        return real_write(fd, data, length);
    pthread_mutex_lock(&lock);
    ssize_t written = real_write(fd, data, length);
    if (written > 0)
        record('W', watched(fd), (uint64_t)(lseek(fd, 0, SEEK_CUR) - written), data, (uint64_t)written);
    pthread_mutex_unlock(&lock);
    return written;
}

#define PWRITE(name, offset_type)                                                                                              \
    ssize_t name(int fd, const void *data, size_t length, offset_type offset) {                                                \
        pthread_mutex_lock(&lock);                                                                                             \
        ssize_t written = REAL(name)(fd, data, length, offset);                                                                \
        if (written > 0 && watched(fd))                                                                                        \
            record('W', watched(fd), (uint64_t)offset, data, (uint64_t)written);                                               \
        pthread_mutex_unlock(&lock);                                                                                           \
        return written;                                                                                                        \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define SYNC(name)                                                                                                             \
    int name(int fd) {                                                                                                         \
        pthread_mutex_lock(&lock);                                                                                             \
        int result = fails_now(watched(fd)) ? (errno = EIO, -1) : REAL(name)(fd);                                              \
        if (result == 0 && watched(fd))                                                                                        \
            record('S', watched(fd), 0, "", 0);                                                                                \
        pthread_mutex_unlock(&lock);                                                                                           \
        return result;                                                                                                         \
    }
SYNC(fsync)
SYNC(fdatasync)

#define TRUNCATE(name, size_type)                                                                                              \
    int name(int fd, size_type size) {                                                                                         \
        pthread_mutex_lock(&lock);                                                                                             \
        int result = REAL(name)(fd, size);                                                                                     \
        if (result == 0 && watched(fd))                                                                                        \
            record('T', watched(fd), (uint64_t)size, "", 0);                                                                   \
        pthread_mutex_unlock(&lock);                                                                                           \
        return result;                                                                                                         \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

int rename(const char *from, const char *to) {
    pthread_mutex_lock(&lock);
    int result = REAL(rename)(from, to);
    if (result == 0 && is_watched_path(from))
        record('R', from, 0, to, strlen(to));
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) {
    pthread_mutex_lock(&lock);
    int result = REAL(unlink)(path);
    if (result == 0 && is_watched_path(path))
        record('U', path, 0, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}

/* What a trace could not replay must not happen unseen. */
ssize_t writev(int fd, const struct iovec *pieces, int count) {
    if (watched(fd))
        _exit(98);
    return REAL(writev)(fd, pieces, count);
}
