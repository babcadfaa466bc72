/* Copyright (c) 2026 The gpu-tenant authors
 * SPDX-License-Identifier: MIT
 *
 * Preloaded into a training: SIGKILL at the n-th file event below one folder, whoever makes it: Python, the C++ of
 * torch, the Rust of safetensors. Events are the calls that change files; a write is two, before it and at its half.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[4096];
static atomic_long count, die_at = -1;

void killer_arm(const char *path, long event) {
    strncpy(folder, path, sizeof folder - 1);
    count = 0;
    die_at = event;
}

long killer_count(void) { return count; }

static int inside(const char *path) { return folder[0] && path && !strncmp(path, folder, strlen(folder)); }

static int inside_fd(int fd) {
    char link[64], path[4096];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return inside(path);
}

static int last_moment(void) { return atomic_fetch_add(&count, 1) == die_at; }

static void event(void) {
    if (last_moment()) kill(getpid(), SIGKILL);
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
        if ((flags & (O_WRONLY | O_RDWR | O_CREAT)) && inside(path)) event(); \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { \
        REAL(name); \
        va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
        if ((flags & (O_WRONLY | O_RDWR | O_CREAT)) && inside(path)) event(); \
        return real(at, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) { \
        REAL(name); \
        if (mode[0] != 'r' && inside(path)) event(); \
        return real(path, mode); \
    }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    if (inside_fd(fd)) {
        event();
        if (last_moment()) {
            real(fd, data, size / 2);
            kill(getpid(), SIGKILL);
        }
    }
    return real(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int number) {
    REAL(writev);
    if (inside_fd(fd)) {
        event();
        if (last_moment()) {
            real(fd, parts, number > 1 ? number / 2 : 1);
            kill(getpid(), SIGKILL);
        }
    }
    return real(fd, parts, number);
}

#define PATH(name) \
    int name(const char *path) { REAL(name); if (inside(path)) event(); return real(path); }
PATH(unlink)
PATH(rmdir)

#define FD(name) \
    int name(int fd) { REAL(name); if (inside_fd(fd)) event(); return real(fd); }
FD(fsync)
FD(fdatasync)

int mkdir(const char *path, mode_t mode) { REAL(mkdir); if (inside(path)) event(); return real(path, mode); }
int unlinkat(int at, const char *path, int flags) {
    REAL(unlinkat);
    if (inside_fd(at) || inside(path)) event();
    return real(at, path, flags);
}
int rename(const char *from, const char *to) { REAL(rename); if (inside(to)) event(); return real(from, to); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); if (inside_fd(fd)) event(); return real(fd, size); }
