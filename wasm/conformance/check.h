// What the conformance guests share: the functions of wasi_snapshot_preview1 as the specification has them, and checks.
//
// No call goes through libc, so that every one is the raw one, pointers and lengths and all. A failed check prints one
// line on stderr; the guest's exit code is their number, 125 at most. Source: WASI preview 1, witx/wasi_snapshot_preview1.witx.

#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>
#include <string.h>
#include <wasi/api.h>

#define IMPORT(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name))) extern
typedef uint32_t u32;
typedef uint64_t u64;

IMPORT(args_get) int args_get(char **arguments, char *data);
IMPORT(args_sizes_get) int args_sizes_get(u32 *count, u32 *size);
IMPORT(environ_get) int environ_get(char **variables, char *data);
IMPORT(environ_sizes_get) int environ_sizes_get(u32 *count, u32 *size);
IMPORT(clock_res_get) int clock_res_get(u32 clock, u64 *resolution);
IMPORT(clock_time_get) int clock_time_get(u32 clock, u64 precision, u64 *time);
IMPORT(fd_advise) int fd_advise(int fd, u64 offset, u64 length, u32 advice);
IMPORT(fd_allocate) int fd_allocate(int fd, u64 offset, u64 length);
IMPORT(fd_close) int fd_close(int fd);
IMPORT(fd_datasync) int fd_datasync(int fd);
IMPORT(fd_fdstat_get) int fd_fdstat_get(int fd, __wasi_fdstat_t *stat);
IMPORT(fd_fdstat_set_flags) int fd_fdstat_set_flags(int fd, u32 flags);
IMPORT(fd_fdstat_set_rights) int fd_fdstat_set_rights(int fd, u64 base, u64 inheriting);
IMPORT(fd_filestat_get) int fd_filestat_get(int fd, __wasi_filestat_t *stat);
IMPORT(fd_filestat_set_size) int fd_filestat_set_size(int fd, u64 size);
IMPORT(fd_filestat_set_times) int fd_filestat_set_times(int fd, u64 accessed, u64 modified, u32 flags);
IMPORT(fd_pread) int fd_pread(int fd, const __wasi_iovec_t *parts, u32 count, u64 offset, u32 *size);
IMPORT(fd_prestat_get) int fd_prestat_get(int fd, __wasi_prestat_t *stat);
IMPORT(fd_prestat_dir_name) int fd_prestat_dir_name(int fd, char *name, u32 size);
IMPORT(fd_pwrite) int fd_pwrite(int fd, const __wasi_ciovec_t *parts, u32 count, u64 offset, u32 *size);
IMPORT(fd_read) int fd_read(int fd, const __wasi_iovec_t *parts, u32 count, u32 *size);
IMPORT(fd_readdir) int fd_readdir(int fd, void *entries, u32 size, u64 cookie, u32 *used);
IMPORT(fd_renumber) int fd_renumber(int from, int to);
IMPORT(fd_seek) int fd_seek(int fd, int64_t offset, u32 whence, u64 *position);
IMPORT(fd_sync) int fd_sync(int fd);
IMPORT(fd_tell) int fd_tell(int fd, u64 *position);
IMPORT(fd_write) int fd_write(int fd, const __wasi_ciovec_t *parts, u32 count, u32 *size);
IMPORT(path_create_directory) int path_create_directory(int dir, const char *path, u32 length);
IMPORT(path_filestat_get) int path_filestat_get(int dir, u32 look, const char *path, u32 length, __wasi_filestat_t *);
IMPORT(path_filestat_set_times)
int path_filestat_set_times(int dir, u32 look, const char *path, u32 length, u64 accessed, u64 modified, u32 flags);
IMPORT(path_link)
int path_link(int from, u32 look, const char *old, u32 old_length, int to, const char *new, u32 new_length);
IMPORT(path_open)
int path_open(int dir, u32 look, const char *path, u32 length, u32 oflags, u64 base, u64 inheriting, u32 fdflags,
              int *fd);
IMPORT(path_readlink) int path_readlink(int dir, const char *path, u32 length, char *target, u32 size, u32 *used);
IMPORT(path_remove_directory) int path_remove_directory(int dir, const char *path, u32 length);
IMPORT(path_rename) int path_rename(int from, const char *old, u32 old_length, int to, const char *new, u32 new_length);
IMPORT(path_symlink) int path_symlink(const char *target, u32 target_length, int dir, const char *path, u32 length);
IMPORT(path_unlink_file) int path_unlink_file(int dir, const char *path, u32 length);
IMPORT(poll_oneoff)
int poll_oneoff(const __wasi_subscription_t *subscriptions, __wasi_event_t *events, u32 count, u32 *happened);
IMPORT(proc_exit) _Noreturn void proc_exit(u32 code);
IMPORT(proc_raise) int proc_raise(u32 signal);
IMPORT(random_get) int random_get(void *bytes, u32 size);
IMPORT(sched_yield) int sched_yield(void);
IMPORT(sock_accept) int sock_accept(int fd, u32 flags, int *accepted);
IMPORT(sock_recv) int sock_recv(int fd, const __wasi_iovec_t *parts, u32 count, u32 how, u32 *size, uint16_t *flags);
IMPORT(sock_send) int sock_send(int fd, const __wasi_ciovec_t *parts, u32 count, u32 how, u32 *size);
IMPORT(sock_shutdown) int sock_shutdown(int fd, u32 how);

// The names that the checks use most, without their prefixes.
enum {
  SUCCESS = 0, BADF = 8, EXIST = 20, FAULT = 21, FBIG = 22, ILSEQ = 25, INTR = 27, INVAL = 28, IO = 29, ISDIR = 31,
  LOOP = 32, NAMETOOLONG = 37, NOENT = 44, NOTDIR = 54, NOTEMPTY = 55, NOTSOCK = 57, NOTSUP = 58, PERM = 63, SPIPE = 70,
  NOTCAPABLE = 76,
};
enum { CREAT = 1, DIRECTORY = 2, EXCL = 4, TRUNC = 8 };
enum { APPEND = 1, DSYNC = 2, NONBLOCK = 4, RSYNC = 8, SYNC = 16 };
enum { ATIM = 1, ATIM_NOW = 2, MTIM = 4, MTIM_NOW = 8 };
enum { NOFOLLOW = 0, FOLLOW = 1 };
enum { SET = 0, CUR = 1, END = 2 };
enum { REALTIME = 0, MONOTONIC = 1, PROCESS_CPUTIME = 2, THREAD_CPUTIME = 3 };
#define READ __WASI_RIGHTS_FD_READ
#define WRITE __WASI_RIGHTS_FD_WRITE
// Everything that a file can be asked for.
#define FILE_RIGHTS                                                                                                    \
  (READ | WRITE | __WASI_RIGHTS_FD_SEEK | __WASI_RIGHTS_FD_TELL | __WASI_RIGHTS_FD_FDSTAT_SET_FLAGS |                  \
   __WASI_RIGHTS_FD_SYNC | __WASI_RIGHTS_FD_DATASYNC | __WASI_RIGHTS_FD_ADVISE | __WASI_RIGHTS_FD_ALLOCATE |           \
   __WASI_RIGHTS_FD_FILESTAT_GET | __WASI_RIGHTS_FD_FILESTAT_SET_SIZE | __WASI_RIGHTS_FD_FILESTAT_SET_TIMES |          \
   __WASI_RIGHTS_POLL_FD_READWRITE)

// A path, and any text, as the two arguments that it is.
#define P(text) (text), sizeof(text) - 1
// No descriptor: never opened, and past any table.
enum { NO_FD = 1000, STDIN = 0, STDOUT = 1, STDERR = 2, ROOT = 3 };

static u32 failures;

static inline u32 length_of(const char *text) {
  u32 length = 0;
  while (text[length]) length++;
  return length;
}

static inline int same(const void *one, const void *other, u32 size) {
  for (u32 i = 0; i < size; i++)
    if (((const char *)one)[i] != ((const char *)other)[i]) return 0;
  return 1;
}

static inline char *append(char *at, const char *text) {
  while (*text) *at++ = *text++;
  return at;
}

static inline char *append_number(char *at, u64 number) {
  char digits[20];
  u32 count = 0;
  do digits[count++] = (char)('0' + number % 10);
  while (number /= 10);
  while (count) *at++ = digits[--count];
  return at;
}

static inline void print(int fd, const char *text, u32 length) {
  __wasi_ciovec_t part = {(const uint8_t *)text, length};
  u32 size;
  fd_write(fd, &part, 1, &size);
}

__attribute__((noinline, unused)) static void report(u32 line, u64 got, const char *expected, u64 wanted) {
  char text[200], *at = append(text, __BASE_FILE__ ":");
  at = append_number(append(append_number(at, line), ": got "), got);
  at = append_number(append(append(append(at, ", "), expected), " "), wanted);
  *at++ = '\n';
  print(STDERR, text, (u32)(at - text));
  failures++;
}

__attribute__((noinline, unused)) static int equal(u32 line, u64 got, u64 wanted) {
  if (got != wanted) report(line, got, "expected", wanted);
  return got == wanted;
}

__attribute__((noinline, unused)) static void either(u32 line, u64 got, u64 one, u64 other) {
  if (got != one && got != other) report(line, got, "expected another number or", other);
}

#define EQ(got, wanted) equal(__LINE__, (u64)(got), (u64)(wanted))
#define OK(call) equal(__LINE__, (u64)(call), SUCCESS)
#define FAILS(errno, call) equal(__LINE__, (u64)(call), (errno))
#define FAILS_EITHER(one, other, call) either(__LINE__, (u64)(call), (one), (other))
#define TRUE(condition) equal(__LINE__, !!(condition), 1)

static inline int write_text(int fd, const char *text, u32 length, u32 *size) {
  __wasi_ciovec_t part = {(const uint8_t *)text, length};
  return fd_write(fd, &part, 1, size);
}

static inline int read_text(int fd, char *text, u32 length, u32 *size) {
  __wasi_iovec_t part = {(uint8_t *)text, length};
  return fd_read(fd, &part, 1, size);
}

// Make a file with that content, or replace one.
static inline void make_file(int dir, const char *path, u32 path_length, const char *content, u32 length) {
  int fd = -1;
  u32 size = 0;
  OK(path_open(dir, NOFOLLOW, path, path_length, CREAT | TRUNC, FILE_RIGHTS, 0, 0, &fd));
  OK(write_text(fd, content, length, &size));
  EQ(size, length);
  OK(fd_close(fd));
}

// Open what is there, as it can be.
static inline int open_file(int dir, const char *path, u32 length) {
  int fd = -1;
  OK(path_open(dir, NOFOLLOW, path, length, 0, FILE_RIGHTS, 0, 0, &fd));
  return fd;
}

static inline int open_dir(int dir, const char *path, u32 length) {
  int fd = -1;
  OK(path_open(dir, NOFOLLOW, path, length, DIRECTORY, READ | __WASI_RIGHTS_FD_READDIR, ~0ULL >> 34, 0, &fd));
  return fd;
}

static inline int make_dir(int dir, const char *path, u32 length) {
  OK(path_create_directory(dir, path, length));
  return open_dir(dir, path, length);
}

static inline int exists(int dir, const char *path, u32 length) {
  __wasi_filestat_t stat;
  return path_filestat_get(dir, NOFOLLOW, path, length, &stat) == SUCCESS;
}

static inline u64 size_of(int dir, const char *path, u32 length) {
  __wasi_filestat_t stat;
  return path_filestat_get(dir, NOFOLLOW, path, length, &stat) == SUCCESS ? stat.size : ~0ULL;
}

static void check(void);

int main(void) {
  check();
  return failures < 125 ? (int)failures : 125;
}

#endif
