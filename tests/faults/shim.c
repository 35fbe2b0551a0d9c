// A library for LD_PRELOAD that counts the calls which change files, and makes one of them go wrong.
//
// Only calls on paths that contain `scope` count. The calls are: opening for writing, write, fsync, truncate, rename,
// link, mkdir, unlink and rmdir. At the call number `target` the process is killed before it, killed after it, gets a
// signal before it, gets an error, or writes only half. With `sticky`, every later call goes wrong too. A log has one
// line for each call: NUMBER, KIND, PATH and, for rename and link, the path before; separated by tabs.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PATH = 4096 };
enum mode { COUNT = 0, KILL_BEFORE = 1, FAIL = 2, HALF = 3, KILL_AFTER = 4, SIGNAL = 5 };

static int armed, mode, target, sticky, error_number, count, log_fd = -1;
static char scope[PATH];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

// The C library's own function of this name.
#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__) = 0; \
    if (!real) real = dlsym(RTLD_NEXT, name)

void fault_arm(int new_mode, int new_target, int new_error, int new_sticky, const char *new_scope, const char *log) {
    mode = new_mode, target = new_target, error_number = new_error, sticky = new_sticky, count = 0;
    snprintf(scope, sizeof scope, "%s", new_scope);
    if (*log) log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    armed = 1;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static void write_log(int number, const char *kind, const char *path, const char *before) {
    if (log_fd < 0) return;
    REAL(ssize_t, "write", int, const void *, size_t);
    char line[3 * PATH];
    int length = snprintf(line, sizeof line, "%d\t%s\t%s\t%s\n", number, kind, path, before);
    real(log_fd, line, length);
}

// Count a call; what is to happen to it: COUNT (nothing), FAIL, HALF or KILL_AFTER.
static int happens(const char *kind, const char *path, const char *before) {
    if (!armed || !strstr(path, scope)) return COUNT;
    pthread_mutex_lock(&mutex);
    int number = ++count;
    write_log(number, kind, path, before);  // in the order of the numbers: several threads write files
    pthread_mutex_unlock(&mutex);
    if (number != target && !(sticky && target > 0 && number > target)) return COUNT;
    if (mode == KILL_BEFORE) die();
    if (mode == SIGNAL) kill(getpid(), error_number);
    return mode;
}

static const char *path_of(int fd, char *buffer) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, buffer, PATH - 1);
    buffer[length < 0 ? 0 : length] = 0;
    return buffer;
}

static const char *absolute(int folder, const char *path, char *buffer) {
    if (path[0] == '/') return path;
    char start[PATH];
    if (folder != AT_FDCWD) path_of(folder, start);
    else if (!getcwd(start, sizeof start)) start[0] = 0;
    snprintf(buffer, 2 * PATH, "%s/%s", start, path);
    return buffer;
}

// The body of a function: the real one, unless the call is to fail.
#define CALL(kind, path, before, real_call) \
    int what = happens(kind, path, before); \
    if (what == FAIL) { errno = error_number; return -1; } \
    __typeof__(real_call) result = real_call; \
    if (what == KILL_AFTER) die(); \
    return result

#define OPEN(name, folder_parameter, folder, folder_argument, types) \
    int name(folder_parameter const char *path, int flags, ...) { \
        REAL(int, #name, types); \
        mode_t permissions = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list arguments; \
            va_start(arguments, flags); \
            permissions = va_arg(arguments, mode_t); \
            va_end(arguments); \
        } \
        int writes = flags & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC); \
        if (!armed || !writes) return real(folder_argument path, flags, permissions); \
        char buffer[2 * PATH]; \
        CALL("open", absolute(folder, path, buffer), "", real(folder_argument path, flags, permissions)); \
    }
#define COMMA ,
#define NAMED const char *, int, ...
#define BELOW int, const char *, int, ...
OPEN(open, , AT_FDCWD, , NAMED)
OPEN(open64, , AT_FDCWD, , NAMED)
OPEN(openat, int folder COMMA, folder, folder COMMA, BELOW)
OPEN(openat64, int folder COMMA, folder, folder COMMA, BELOW)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (!armed || fd < 3) return real(fd, data, size);
    char path[PATH];
    int what = happens("write", path_of(fd, path), "");
    if (what == FAIL) { errno = error_number; return -1; }
    ssize_t written = real(fd, data, what == HALF && size > 1 ? size / 2 : size);
    if (what == KILL_AFTER) die();
    return written;
}

ssize_t writev(int fd, const struct iovec *parts, int number) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    if (!armed || fd < 3) return real(fd, parts, number);
    char path[PATH];
    CALL("write", path_of(fd, path), "", real(fd, parts, number));
}

#define ON_DESCRIPTOR(name, kind) \
    int name(int fd) { \
        REAL(int, #name, int); \
        if (!armed) return real(fd); \
        char path[PATH]; \
        CALL(kind, path_of(fd, path), "", real(fd)); \
    }
ON_DESCRIPTOR(fsync, "fsync")
ON_DESCRIPTOR(fdatasync, "fsync")

#define TRUNCATE(name) \
    int name(int fd, off_t size) { \
        REAL(int, #name, int, off_t); \
        if (!armed) return real(fd, size); \
        char path[PATH]; \
        CALL("truncate", path_of(fd, path), "", real(fd, size)); \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define ON_PATH(name, kind) \
    int name(const char *path) { \
        REAL(int, #name, const char *); \
        if (!armed) return real(path); \
        char buffer[2 * PATH]; \
        CALL(kind, absolute(AT_FDCWD, path, buffer), "", real(path)); \
    }
ON_PATH(unlink, "unlink")
ON_PATH(rmdir, "unlink")

int unlinkat(int folder, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    if (!armed) return real(folder, path, flags);
    char buffer[2 * PATH];
    CALL("unlink", absolute(folder, path, buffer), "", real(folder, path, flags));
}

int mkdir(const char *path, mode_t permissions) {
    REAL(int, "mkdir", const char *, mode_t);
    if (!armed || access(path, F_OK) == 0) return real(path, permissions);  // a folder that is there is not changed
    char buffer[2 * PATH];
    CALL("mkdir", absolute(AT_FDCWD, path, buffer), "", real(path, permissions));
}

#define TWO_PATHS(name, kind) \
    int name(const char *before, const char *path) { \
        REAL(int, #name, const char *, const char *); \
        if (!armed) return real(before, path); \
        char first[2 * PATH], second[2 * PATH]; \
        CALL(kind, absolute(AT_FDCWD, path, second), absolute(AT_FDCWD, before, first), real(before, path)); \
    }
TWO_PATHS(rename, "rename")
TWO_PATHS(link, "link")

int renameat(int from, const char *before, int to, const char *path) {
    REAL(int, "renameat", int, const char *, int, const char *);
    if (!armed) return real(from, before, to, path);
    char first[2 * PATH], second[2 * PATH];
    CALL("rename", absolute(to, path, second), absolute(from, before, first), real(from, before, to, path));
}

int linkat(int from, const char *before, int to, const char *path, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    if (!armed) return real(from, before, to, path, flags);
    char first[2 * PATH], second[2 * PATH];
    CALL("link", absolute(to, path, second), absolute(from, before, first), real(from, before, to, path, flags));
}
