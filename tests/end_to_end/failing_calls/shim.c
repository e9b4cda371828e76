// Makes calls to the system fail, below libraries that know nothing of tests. Loaded with LD_PRELOAD; settings come from
// the environment:
//
//   FAIL_CALL   write | sync | open | rename | resize: which calls
//   FAIL_PATH   only at files whose path has this in it
//   FAIL_ERRNO  the error
//   FAIL_AT     the first call that fails, from 1
//   FAIL_COUNT  how many fail; 0: all from then on
//   FAIL_MARK   this file is made when the first one fails
//
// With FAIL_COUNT=0, as on a disk that is full, the first write that fails writes half of its bytes before.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long passed;

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

// 0: goes on; 1: fails; 2: fails for the first time.
static int fails_at(const char *call, const char *path) {
    const char *wanted = getenv("FAIL_CALL"), *part = getenv("FAIL_PATH");
    if (!wanted || !part || strcmp(wanted, call) != 0 || !strstr(path, part)) return 0;
    long at = atomic_fetch_add(&passed, 1) + 1, first = number("FAIL_AT"), count = number("FAIL_COUNT");
    if (at < first || (count > 0 && at >= first + count)) return 0;
    if (at == first) {
        const char *mark = getenv("FAIL_MARK");
        long fd = mark ? syscall(SYS_openat, AT_FDCWD, mark, O_CREAT | O_WRONLY, 0600) : -1;
        if (fd >= 0) syscall(SYS_close, fd);
    }
    errno = (int)number("FAIL_ERRNO");
    return at == first ? 2 : 1;
}

static int fails(const char *call, int fd) {
    char link[64], path[PATH_MAX];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    errno = before;
    if (length <= 0) return 0;
    path[length] = 0;
    return fails_at(call, path);
}

static int is_torn(void) { return number("FAIL_COUNT") == 0; }

ssize_t write(int fd, const void *bytes, size_t size) {
    int failing = fails("write", fd);
    if (failing == 2 && is_torn() && size > 1) return syscall(SYS_write, fd, bytes, size / 2);
    return failing ? -1 : syscall(SYS_write, fd, bytes, size);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at) {
    int failing = fails("write", fd);
    if (failing == 2 && is_torn() && size > 1) return syscall(SYS_pwrite64, fd, bytes, size / 2, at);
    return failing ? -1 : syscall(SYS_pwrite64, fd, bytes, size, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return fails("write", fd) ? -1 : syscall(SYS_writev, fd, parts, count);
}

int fsync(int fd) { return fails("sync", fd) ? -1 : (int)syscall(SYS_fsync, fd); }

int fdatasync(int fd) { return fails("sync", fd) ? -1 : (int)syscall(SYS_fdatasync, fd); }

int ftruncate64(int fd, off64_t size) { return fails("resize", fd) ? -1 : (int)syscall(SYS_ftruncate, fd, size); }

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int rename(const char *from, const char *to) {
    return fails_at("rename", to) ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

static int open_with(const char *path, int flags, mode_t mode) {
    if ((flags & (O_CREAT | O_WRONLY | O_RDWR)) && fails_at("open", path)) return -1;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static mode_t mode_of(int flags, va_list rest) {
    int makes = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
    return makes ? va_arg(rest, mode_t) : 0;
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return open_with(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return open_with(path, flags, mode);
}
