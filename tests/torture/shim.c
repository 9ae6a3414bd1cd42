/* Makes one file-system call of a process fail, or be short; to be loaded by LD_PRELOAD, armed by torture_arm().
 *
 * Only calls are looked at whose path, or whose descriptor's path, is below a folder. Each is written to a log, a line
 * a call: its name, its path below the folder, its class, and whether it was made to fail. The n-th call of one name at
 * one path fails with an errno; with "sticky" all that follow fail, too, where a disk in that state would have them
 * fail. An errno of 0 makes a read or a write short; a short first write and then ENOSPC is a disk that runs full.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

/* What a call does, so that a sticky fault hits what it would hit. */
enum { OPENS = 1, READS = 2, WRITES = 4, CREATES = 8, CHANGES = 16, LOOKS = 32, SYNCS = 64, LOCKS = 128, CLOSES = 256, NAMES = 512 };

#define SHORT (-1)
#define MOST 64

static char folder[PATH_MAX], call_at[64], path_at[PATH_MAX];
static int error_at, nth_at, sticky, full, log_fd = -1;
static atomic_int armed, seen, broken;

void torture_arm(const char *below, const char *log, const char *call, const char *path, int nth, int error, int sticks, int runs_full) {
    snprintf(folder, sizeof folder, "%s", below);
    snprintf(call_at, sizeof call_at, "%s", call);
    snprintf(path_at, sizeof path_at, "%s", path);
    nth_at = nth, error_at = error, sticky = sticks, full = runs_full;
    log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    armed = 1;
}

static const char *inside(const char *path) {
    size_t length = strlen(folder);
    if (strncmp(path, folder, length) != 0 || (path[length] != '/' && path[length] != 0)) return NULL;
    return path[length] ? path + length + 1 : ".";
}

static const char *of_fd(int fd, char *buffer) {
    char link[64];
    if (!armed || fd < 0) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    if (length < 0) return NULL;
    buffer[length] = 0;
    char *gone = strstr(buffer, " (deleted)");
    if (gone) *gone = 0;
    return inside(buffer);
}

static const char *of_path(int dir, const char *path, char *buffer) {
    if (!armed || !path) return NULL;
    if (path[0] == '/') return inside(path);
    if (dir == AT_FDCWD ? !getcwd(buffer, PATH_MAX) : of_fd(dir, buffer) == NULL) return NULL;
    size_t length = strlen(buffer);
    if (path[0] && strcmp(path, ".") != 0) snprintf(buffer + length, PATH_MAX - length, "/%s", path);
    return inside(buffer);
}

/* Whether a disk on which everything fails with this errno fails calls of this class. */
int torture_hits(int error, int class) {
    switch (error) {
    case 0: return class & (READS | WRITES);
    case ENOSPC: return class & (WRITES | CREATES | SYNCS);
    case EROFS: return class & (WRITES | CREATES | CHANGES);
    case EACCES: return class & (OPENS | CREATES | CHANGES | NAMES);
    case EMFILE: return class & OPENS;
    default: return 1;
    }
}

int torture_writes(int class) { return class & WRITES; }

/* 0 lets the call pass; SHORT makes it short; any other number is the errno it fails with. */
static int fault(const char *call, const char *path, int class) {
    if (!path) return 0;
    int before = errno, verdict = 0;
    if (nth_at && strcmp(call, call_at) == 0 && strcmp(path, path_at) == 0 && ++seen == nth_at) {
        broken = 1;
        verdict = error_at && !(full && class & WRITES) ? error_at : SHORT;
    } else if (broken && sticky && torture_hits(error_at, class)) {
        verdict = error_at ? error_at : SHORT;
    }
    char line[PATH_MAX + 128];
    int size = snprintf(line, sizeof line, "%s\t%s\t%d\t%d\n", call, path, class, verdict);
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    if (log_fd >= 0) real(log_fd, line, size);
    errno = verdict > 0 ? verdict : before;
    return verdict;
}

#define REAL(type, name, ...) ((type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))
#define FAIL(failed, name, where, class) \
    char buffer[PATH_MAX]; \
    if (fault(name, where, class) > 0) return failed
#define ALIAS(name, real) extern __typeof(real) name __attribute__((alias(#real)))

/* Opening and closing. */

static int class_of(int dir, const char *path, int flags) {
    int class = OPENS;
    if ((flags & O_ACCMODE) != O_RDONLY) class |= CHANGES;
    if (flags & O_CREAT && REAL(int, faccessat, int, const char *, int, int)(dir, path, F_OK, AT_EACCESS) != 0) class |= CREATES;
    return class;
}

int open64(const char *path, int flags, ...) {
    va_list rest; va_start(rest, flags); int mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, int) : 0; va_end(rest);
    FAIL(-1, "open", of_path(AT_FDCWD, path, buffer), class_of(AT_FDCWD, path, flags));
    return REAL(int, open64, const char *, int, ...)(path, flags, mode);
}
ALIAS(open, open64);

int openat64(int dir, const char *path, int flags, ...) {
    va_list rest; va_start(rest, flags); int mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, int) : 0; va_end(rest);
    FAIL(-1, "open", of_path(dir, path, buffer), class_of(dir, path, flags));
    return REAL(int, openat64, int, const char *, int, ...)(dir, path, flags, mode);
}
ALIAS(openat, openat64);

int close(int fd) {
    char buffer[PATH_MAX];
    int verdict = fault("close", of_fd(fd, buffer), CLOSES), done = REAL(int, close, int)(fd); /* as on NFS: it is closed */
    if (verdict <= 0) return done;
    errno = verdict;
    return -1;
}

DIR *opendir(const char *path) {
    FAIL(NULL, "opendir", of_path(AT_FDCWD, path, buffer), OPENS);
    return REAL(DIR *, opendir, const char *)(path);
}
DIR *fdopendir(int fd) {
    FAIL(NULL, "fdopendir", of_fd(fd, buffer), READS);
    return REAL(DIR *, fdopendir, int)(fd);
}
struct dirent64 *readdir64(DIR *dir) {
    FAIL(NULL, "readdir", of_fd(dirfd(dir), buffer), LOOKS);
    return REAL(struct dirent64 *, readdir64, DIR *)(dir);
}

/* Reading and writing: the first of these that may be short. */

static size_t half(size_t size) { return size > 1 ? size / 2 : size; }

#define SOME(type, name, told, fd, class, args, types, halved) \
    char buffer[PATH_MAX]; \
    int verdict = fault(told, of_fd(fd, buffer), class); \
    if (verdict > 0) return -1; \
    if (verdict == SHORT) return REAL(type, name, types) halved; \
    return REAL(type, name, types) args
#define TYPES(...) __VA_ARGS__

ssize_t read(int fd, void *data, size_t size) {
    SOME(ssize_t, read, "read", fd, READS, (fd, data, size), TYPES(int, void *, size_t), (fd, data, half(size)));
}
ssize_t write(int fd, const void *data, size_t size) {
    SOME(ssize_t, write, "write", fd, WRITES, (fd, data, size), TYPES(int, const void *, size_t), (fd, data, half(size)));
}
ssize_t pread64(int fd, void *data, size_t size, off64_t at) {
    SOME(ssize_t, pread64, "pread", fd, READS, (fd, data, size, at), TYPES(int, void *, size_t, off64_t), (fd, data, half(size), at));
}
ALIAS(pread, pread64);
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    SOME(ssize_t, pwrite64, "pwrite", fd, WRITES, (fd, data, size, at), TYPES(int, const void *, size_t, off64_t), (fd, data, half(size), at));
}
ALIAS(pwrite, pwrite64);

/* The first half of what several buffers hold. */
static int halve(const struct iovec *from, int count, struct iovec *to) {
    size_t left = 0;
    for (int i = 0; i < count; i++) left += from[i].iov_len;
    left = half(left);
    int taken = 0;
    while (taken < count && taken < MOST && left > 0) {
        to[taken] = from[taken];
        if (to[taken].iov_len > left) to[taken].iov_len = left;
        left -= to[taken++].iov_len;
    }
    return taken;
}

ssize_t pwritev64v2(int fd, const struct iovec *data, int count, off64_t at, int flags) {
    struct iovec first[MOST];
    SOME(ssize_t, pwritev64v2, "pwrite", fd, WRITES, (fd, data, count, at, flags), TYPES(int, const struct iovec *, int, off64_t, int),
         (fd, first, halve(data, count, first), at, flags));
}
ssize_t preadv64v2(int fd, const struct iovec *data, int count, off64_t at, int flags) {
    FAIL(-1, "pread", of_fd(fd, buffer), READS);
    return REAL(ssize_t, preadv64v2, int, const struct iovec *, int, off64_t, int)(fd, data, count, at, flags);
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) {
    SOME(ssize_t, sendfile64, "sendfile", to, WRITES, (to, from, at, size), TYPES(int, int, off64_t *, size_t), (to, from, at, half(size)));
}
ALIAS(sendfile, sendfile64);
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *there, size_t size, unsigned flags) {
    SOME(ssize_t, copy_file_range, "copy_file_range", to, WRITES, (from, at, to, there, size, flags),
         TYPES(int, off64_t *, int, off64_t *, size_t, unsigned), (from, at, to, there, half(size), flags));
}

/* Everything else fails or does not. */

#define PLAIN(type, name, told, where, class, params, types, args) \
    type name params { \
        FAIL(-1, told, where, class); \
        return REAL(type, name, types) args; \
    }
#define AT(dir, path) of_path(dir, path, buffer)
#define HERE(path) AT(AT_FDCWD, path)
#define FD(fd) of_fd(fd, buffer)

PLAIN(int, fsync, "fsync", FD(fd), SYNCS, (int fd), TYPES(int), (fd))
PLAIN(int, fdatasync, "fsync", FD(fd), SYNCS, (int fd), TYPES(int), (fd))
PLAIN(int, ftruncate64, "truncate", FD(fd), WRITES, (int fd, off64_t size), TYPES(int, off64_t), (fd, size))
ALIAS(ftruncate, ftruncate64);
PLAIN(int, truncate64, "truncate", HERE(path), WRITES, (const char *path, off64_t size), TYPES(const char *, off64_t), (path, size))
ALIAS(truncate, truncate64);
PLAIN(int, rename, "rename", HERE(from), CHANGES | CREATES | NAMES, (const char *from, const char *to), TYPES(const char *, const char *), (from, to))
PLAIN(int, renameat, "rename", AT(fdir, from), CHANGES | CREATES | NAMES, (int fdir, const char *from, int dir, const char *to),
      TYPES(int, const char *, int, const char *), (fdir, from, dir, to))
PLAIN(int, link, "link", HERE(to), CREATES | NAMES, (const char *from, const char *to), TYPES(const char *, const char *), (from, to))
PLAIN(int, linkat, "link", AT(dir, to), CREATES | NAMES, (int fdir, const char *from, int dir, const char *to, int flags),
      TYPES(int, const char *, int, const char *, int), (fdir, from, dir, to, flags))
PLAIN(int, unlink, "unlink", HERE(path), CHANGES | NAMES, (const char *path), TYPES(const char *), (path))
PLAIN(int, unlinkat, "unlink", AT(dir, path), CHANGES | NAMES, (int dir, const char *path, int flags), TYPES(int, const char *, int), (dir, path, flags))
PLAIN(int, rmdir, "rmdir", HERE(path), CHANGES | NAMES, (const char *path), TYPES(const char *), (path))
PLAIN(int, mkdir, "mkdir", HERE(path), CREATES | NAMES, (const char *path, mode_t mode), TYPES(const char *, mode_t), (path, mode))
PLAIN(int, mkdirat, "mkdir", AT(dir, path), CREATES | NAMES, (int dir, const char *path, mode_t mode), TYPES(int, const char *, mode_t), (dir, path, mode))
PLAIN(int, chmod, "chmod", HERE(path), CHANGES, (const char *path, mode_t mode), TYPES(const char *, mode_t), (path, mode))
PLAIN(int, fchmod, "chmod", FD(fd), CHANGES, (int fd, mode_t mode), TYPES(int, mode_t), (fd, mode))
PLAIN(int, utimensat, "utimens", AT(dir, path), CHANGES, (int dir, const char *path, const struct timespec times[2], int flags),
      TYPES(int, const char *, const struct timespec *, int), (dir, path, times, flags))
PLAIN(int, access, "access", HERE(path), LOOKS, (const char *path, int mode), TYPES(const char *, int), (path, mode))
PLAIN(int, faccessat, "access", AT(dir, path), LOOKS, (int dir, const char *path, int mode, int flags), TYPES(int, const char *, int, int), (dir, path, mode, flags))
PLAIN(int, stat64, "stat", HERE(path), LOOKS, (const char *path, struct stat64 *found), TYPES(const char *, struct stat64 *), (path, found))
PLAIN(int, lstat64, "stat", HERE(path), LOOKS, (const char *path, struct stat64 *found), TYPES(const char *, struct stat64 *), (path, found))
PLAIN(int, fstat64, "fstat", FD(fd), LOOKS, (int fd, struct stat64 *found), TYPES(int, struct stat64 *), (fd, found))
PLAIN(int, fstatat64, "stat", AT(dir, path), LOOKS, (int dir, const char *path, struct stat64 *found, int flags),
      TYPES(int, const char *, struct stat64 *, int), (dir, path, found, flags))
PLAIN(int, statvfs64, "statvfs", HERE(path), LOOKS, (const char *path, struct statvfs64 *found), TYPES(const char *, struct statvfs64 *), (path, found))
PLAIN(int, flock, "flock", FD(fd), LOCKS, (int fd, int how), TYPES(int, int), (fd, how))

int fcntl64(int fd, int what, ...) {
    va_list rest; va_start(rest, what); void *argument = va_arg(rest, void *); va_end(rest);
    if (what == F_SETLK || what == F_SETLKW || what == F_OFD_SETLK || what == F_OFD_SETLKW) {
        FAIL(-1, "lock", FD(fd), LOCKS);
    }
    return REAL(int, fcntl64, int, int, ...)(fd, what, argument);
}
ALIAS(fcntl, fcntl64);

int posix_fallocate64(int fd, off64_t at, off64_t size) {
    char buffer[PATH_MAX];
    int verdict = fault("fallocate", FD(fd), WRITES);
    return verdict > 0 ? verdict : REAL(int, posix_fallocate64, int, off64_t, off64_t)(fd, at, size);
}

void *mmap64(void *where, size_t size, int protection, int flags, int fd, off64_t at) {
    FAIL(MAP_FAILED, "mmap", FD(fd), READS);
    return REAL(void *, mmap64, void *, size_t, int, int, int, off64_t)(where, size, protection, flags, fd, at);
}
ALIAS(mmap, mmap64);
