// What can be done with an open file or folder: fd_*.

#include "check.h"

static int dir;

static int open_new(const char *path, u32 length, u32 fdflags) {
  int fd = -1;
  OK(path_open(dir, NOFOLLOW, path, length, CREAT | TRUNC, FILE_RIGHTS, 0, fdflags, &fd));
  TRUE(fd > ROOT);
  return fd;
}

static void write_it(u32 line, int fd, const char *text, u32 length) {
  u32 size = 77;
  equal(line, (u64)write_text(fd, text, length, &size), SUCCESS);
  equal(line, size, length);
}

static void holds(u32 line, int fd, const char *text, u32 length) {
  char got[300];
  u32 size = 77;
  __wasi_iovec_t into = {(uint8_t *)got, sizeof got};
  equal(line, (u64)fd_pread(fd, &into, 1, 0, &size), SUCCESS);
  if (equal(line, size, length)) equal(line, (u64)same(got, text, length), 1);
}

static void is_at(u32 line, int fd, u64 wanted) {
  u64 position = 77;
  equal(line, (u64)fd_tell(fd, &position), SUCCESS);
  equal(line, position, wanted);
}

#define WRITE_IT(fd, text) write_it(__LINE__, fd, P(text))
#define HOLDS(fd, text) holds(__LINE__, fd, P(text))
#define IS_AT(fd, position) is_at(__LINE__, fd, position)

static u64 size_at(int fd) {
  __wasi_filestat_t stat = {.size = 77};
  OK(fd_filestat_get(fd, &stat));
  return stat.size;
}

static int same_stat(const __wasi_filestat_t *one, const __wasi_filestat_t *other) {
  return one->dev == other->dev && one->ino == other->ino && one->filetype == other->filetype &&
         one->nlink == other->nlink && one->size == other->size && one->atim == other->atim &&
         one->mtim == other->mtim && one->ctim == other->ctim;
}

static void check_read_and_write(void) {
  char text[100] = {0};
  u32 size = 77;
  u64 position;
  int fd = open_new(P("file"), 0);
  IS_AT(fd, 0);
  OK(read_text(fd, text, sizeof text, &size));
  EQ(size, 0);
  WRITE_IT(fd, "0123456789");
  IS_AT(fd, 10);
  EQ(size_at(fd), 10);
  OK(fd_seek(fd, 0, SET, &position));
  EQ(position, 0);
  OK(read_text(fd, text, 4, &size));
  EQ(size, 4);
  TRUE(same(text, "0123", 5));
  IS_AT(fd, 4);
  OK(read_text(fd, text, sizeof text, &size));
  EQ(size, 6);
  TRUE(same(text, "456789", 6));
  OK(read_text(fd, text, sizeof text, &size));
  EQ(size, 0);
  // Several buffers: as many as the host likes to fill at once, in order, without a gap.
  __wasi_iovec_t into[] = {{(uint8_t *)text, 0}, {(uint8_t *)text, 3}, {(uint8_t *)text + 3, 0}, {(uint8_t *)text + 3, 4}};
  OK(fd_seek(fd, 1, SET, &position));
  memset(text, 'x', sizeof text);
  OK(fd_read(fd, into, 4, &size));
  TRUE(size >= 3 && size <= 7);
  TRUE(same(text, "1234567", size));
  EQ(text[size], 'x');
  IS_AT(fd, 1 + size);
  OK(fd_read(fd, into, 0, &size));
  EQ(size, 0);
  __wasi_ciovec_t from[] = {{(const uint8_t *)"", 0}, {(const uint8_t *)"ab", 2}, {(const uint8_t *)"cd", 2}};
  OK(fd_seek(fd, 0, SET, &position));
  OK(fd_write(fd, from, 3, &size));
  TRUE(size >= 2 && size <= 4);
  IS_AT(fd, size);
  OK(fd_write(fd, from, 0, &size));
  EQ(size, 0);
  OK(fd_write(fd, from, 1, &size));
  EQ(size, 0);
  // Behind the end there is a gap of zeros.
  OK(fd_filestat_set_size(fd, 0));
  OK(fd_seek(fd, 3, SET, &position));
  WRITE_IT(fd, "end");
  HOLDS(fd, "\0\0\0end");
  OK(fd_close(fd));
  // One descriptor sees at once what another writes.
  int reader = open_file(dir, P("file")), writer = -1;
  OK(path_open(dir, NOFOLLOW, P("file"), 0, WRITE, 0, 0, &writer));
  WRITE_IT(writer, "new");
  OK(read_text(reader, text, sizeof text, &size));
  EQ(size, 6);
  TRUE(same(text, "newend", 6));
  OK(fd_close(writer));
  OK(fd_close(reader));
  FAILS(BADF, fd_close(reader));
  FAILS(BADF, fd_close(NO_FD));
  FAILS(BADF, fd_close(-1));
  FAILS(BADF, read_text(reader, text, 1, &size));
  FAILS(BADF, write_text(reader, text, 1, &size));
}

static void check_large(void) {
  static char large[200000];
  u32 size, total = 0;
  u64 position;
  int fd = open_new(P("large"), 0);
  for (u32 i = 0; i < sizeof large; i++) large[i] = (char)(i * 7 + i / 251);
  for (u32 at = 0; at < sizeof large; at += size)
    if (!OK(write_text(fd, large + at, sizeof large - at, &size)) || !TRUE(size > 0)) return;
  EQ(size_at(fd), sizeof large);
  OK(fd_seek(fd, 0, SET, &position));
  memset(large, 0, sizeof large);
  do OK(read_text(fd, large + total, sizeof large - total, &size));
  while (size && (total += size) < sizeof large);
  EQ(total, sizeof large);
  u32 wrong = 0;
  for (u32 i = 0; i < sizeof large; i++) wrong += large[i] != (char)(i * 7 + i / 251);
  EQ(wrong, 0);
  OK(fd_close(fd));
}

static void check_seek(void) {
  u64 position = 77;
  int fd = open_new(P("file"), 0);
  WRITE_IT(fd, "0123456789");
  OK(fd_seek(fd, -5, CUR, &position));
  EQ(position, 5);
  OK(fd_seek(fd, 2, CUR, &position));
  EQ(position, 7);
  OK(fd_seek(fd, 0, CUR, &position));
  EQ(position, 7);
  OK(fd_seek(fd, 0, END, &position));
  EQ(position, 10);
  OK(fd_seek(fd, -10, END, &position));
  EQ(position, 0);
  OK(fd_seek(fd, 1000, END, &position));
  EQ(position, 1010);
  EQ(size_at(fd), 10);
  OK(fd_seek(fd, 3, SET, &position));
  // Before the beginning is nowhere, and the place stays.
  FAILS(INVAL, fd_seek(fd, -1, SET, &position));
  FAILS(INVAL, fd_seek(fd, -4, CUR, &position));
  FAILS(INVAL, fd_seek(fd, -11, END, &position));
  FAILS(INVAL, fd_seek(fd, INT64_MIN, SET, &position));
  IS_AT(fd, 3);
  OK(fd_close(fd));
  FAILS(BADF, fd_seek(fd, 0, CUR, &position));
  FAILS(BADF, fd_tell(fd, &position));
  FAILS(BADF, fd_seek(NO_FD, 0, CUR, &position));
  FAILS(BADF, fd_tell(NO_FD, &position));
}

static void check_pread_and_pwrite(void) {
  char text[10] = {0};
  u32 size = 77;
  int fd = open_new(P("file"), 0);
  __wasi_ciovec_t from[] = {{(const uint8_t *)"ab", 2}, {(const uint8_t *)"cdef", 4}};
  __wasi_iovec_t into[] = {{(uint8_t *)text, 2}, {(uint8_t *)text + 2, 8}};
  OK(fd_pwrite(fd, from, 1, 0, &size));
  EQ(size, 2);
  OK(fd_pwrite(fd, from + 1, 1, 2, &size));
  EQ(size, 4);
  IS_AT(fd, 0);
  HOLDS(fd, "abcdef");
  OK(fd_pread(fd, into + 1, 1, 2, &size));
  EQ(size, 4);
  TRUE(same(text + 2, "cdef", 5));
  OK(fd_pread(fd, into, 2, 1, &size));
  TRUE(size >= 2 && size <= 5);
  TRUE(same(text, "bcdef", size));
  OK(fd_pread(fd, into, 1, 6, &size));
  EQ(size, 0);
  OK(fd_pread(fd, into, 1, 1 << 20, &size));
  EQ(size, 0);
  OK(fd_pread(fd, into, 0, 0, &size));
  EQ(size, 0);
  OK(fd_pwrite(fd, from, 0, 0, &size));
  EQ(size, 0);
  OK(fd_pwrite(fd, from, 1, 8, &size));
  HOLDS(fd, "abcdef\0\0ab");
  IS_AT(fd, 0);
  // An offset that is negative to the system.
  FAILS(INVAL, fd_pread(fd, into, 1, ~0ULL, &size));
  FAILS(INVAL, fd_pwrite(fd, from, 1, ~0ULL, &size));
  OK(fd_close(fd));
  FAILS(BADF, fd_pread(fd, into, 1, 0, &size));
  FAILS(BADF, fd_pwrite(fd, from, 1, 0, &size));
  OK(path_open(dir, NOFOLLOW, P("file"), 0, READ, 0, 0, &fd));
  FAILS(BADF, fd_pwrite(fd, from, 1, 0, &size));
  OK(fd_close(fd));
  OK(path_open(dir, NOFOLLOW, P("file"), 0, WRITE, 0, 0, &fd));
  FAILS(BADF, fd_pread(fd, into, 1, 0, &size));
  OK(fd_close(fd));
}

static void check_append_and_flags(void) {
  u64 position;
  __wasi_fdstat_t stat;
  u32 size;
  int fd = open_new(P("file"), APPEND);
  OK(fd_fdstat_get(fd, &stat));
  EQ(stat.fs_filetype, __WASI_FILETYPE_REGULAR_FILE);
  EQ(stat.fs_flags, APPEND);
  WRITE_IT(fd, "one");
  OK(fd_seek(fd, 0, SET, &position));
  WRITE_IT(fd, "two");
  HOLDS(fd, "onetwo");
  IS_AT(fd, 6);
  // POSIX would have it where it says, Linux has it at the end.
  __wasi_ciovec_t from = {(const uint8_t *)"X", 1};
  OK(fd_pwrite(fd, &from, 1, 0, &size));
  IS_AT(fd, 6);
  HOLDS(fd, "onetwoX");
  OK(fd_filestat_set_size(fd, 6));
  OK(fd_fdstat_set_flags(fd, 0));
  OK(fd_fdstat_get(fd, &stat));
  EQ(stat.fs_flags, 0);
  OK(fd_seek(fd, 0, SET, &position));
  WRITE_IT(fd, "ONE");
  HOLDS(fd, "ONEtwo");
  OK(fd_fdstat_set_flags(fd, APPEND));
  OK(fd_fdstat_get(fd, &stat));
  EQ(stat.fs_flags, APPEND);
  OK(fd_seek(fd, 0, SET, &position));
  WRITE_IT(fd, "!");
  HOLDS(fd, "ONEtwo!");
  OK(fd_fdstat_set_flags(fd, NONBLOCK));
  OK(fd_fdstat_get(fd, &stat));
  EQ(stat.fs_flags, NONBLOCK);
  OK(fd_fdstat_set_flags(fd, NONBLOCK | APPEND));
  OK(fd_fdstat_get(fd, &stat));
  EQ(stat.fs_flags, NONBLOCK | APPEND);
  // Of a file that is open, wasmtime cannot change how it is synchronized.
  const u32 syncs[] = {SYNC, DSYNC, RSYNC, SYNC | APPEND, 31};
  for (u32 i = 0; i < sizeof syncs / sizeof *syncs; i++) FAILS(INVAL, fd_fdstat_set_flags(fd, syncs[i]));
  OK(fd_fdstat_get(fd, &stat));
  EQ(stat.fs_flags, NONBLOCK | APPEND);
  OK(fd_close(fd));
  FAILS(BADF, fd_fdstat_set_flags(fd, 0));
  FAILS(BADF, fd_fdstat_set_flags(NO_FD, 0));
  FAILS(BADF, fd_fdstat_set_flags(dir, 0));
}

static void check_rights(void) {
  __wasi_fdstat_t stat;
  int fd;
  u32 size;
  char text[10];
  make_file(dir, P("file"), P("text"));
  // What was not asked for is not given.
  OK(path_open(dir, NOFOLLOW, P("file"), 0, READ, 0, 0, &fd));
  OK(fd_fdstat_get(fd, &stat));
  EQ(stat.fs_rights_base & (READ | WRITE), READ);
  FAILS(BADF, write_text(fd, P("text"), &size));
  OK(read_text(fd, text, sizeof text, &size));
  EQ(size, 4);
  OK(fd_close(fd));
  OK(path_open(dir, NOFOLLOW, P("file"), 0, WRITE, 0, 0, &fd));
  OK(fd_fdstat_get(fd, &stat));
  EQ(stat.fs_rights_base & (READ | WRITE), WRITE);
  FAILS(BADF, read_text(fd, text, sizeof text, &size));
  WRITE_IT(fd, "TEXT");
  OK(fd_close(fd));
  fd = open_file(dir, P("file"));
  OK(fd_fdstat_get(fd, &stat));
  EQ(stat.fs_rights_base & (READ | WRITE), READ | WRITE);
  HOLDS(fd, "TEXT");
  // Rights are past: wasmtime changes none of them, where the specification lets them shrink.
  FAILS(NOTSUP, fd_fdstat_set_rights(fd, stat.fs_rights_base, stat.fs_rights_inheriting));
  FAILS(NOTSUP, fd_fdstat_set_rights(fd, 0, 0));
  FAILS(NOTSUP, fd_fdstat_set_rights(fd, FILE_RIGHTS | __WASI_RIGHTS_SOCK_ACCEPT, FILE_RIGHTS));
  FAILS(NOTSUP, fd_fdstat_set_rights(dir, 0, 0));
  OK(fd_close(fd));
  FAILS(BADF, fd_fdstat_set_rights(fd, 0, 0));
  FAILS(BADF, fd_fdstat_set_rights(NO_FD, 0, 0));
  // Those of a folder are what programs in the field look for.
  OK(fd_fdstat_get(ROOT, &stat));
  const u64 folder = (__WASI_RIGHTS_PATH_UNLINK_FILE << 1) - __WASI_RIGHTS_PATH_CREATE_DIRECTORY;
  const u64 not_folder = __WASI_RIGHTS_PATH_FILESTAT_SET_SIZE | __WASI_RIGHTS_FD_FILESTAT_SET_SIZE;
  EQ(stat.fs_rights_base & folder & ~not_folder, folder & ~not_folder);
  EQ(stat.fs_rights_base & (__WASI_RIGHTS_FD_SEEK | __WASI_RIGHTS_FD_FILESTAT_SET_SIZE), 0);
  EQ(stat.fs_rights_inheriting & (FILE_RIGHTS | READ | WRITE), FILE_RIGHTS);
}

static void check_size(void) {
  int fd = open_new(P("file"), 0);
  u64 position;
  WRITE_IT(fd, "0123456789");
  OK(fd_filestat_set_size(fd, 4));
  HOLDS(fd, "0123");
  IS_AT(fd, 10);
  OK(fd_filestat_set_size(fd, 8));
  HOLDS(fd, "0123\0\0\0\0");
  OK(fd_filestat_set_size(fd, 8));
  OK(fd_filestat_set_size(fd, 0));
  EQ(size_at(fd), 0);
  FAILS(INVAL, fd_filestat_set_size(fd, ~0ULL));
  OK(fd_seek(fd, 0, SET, &position));
  // wasmtime does not allocate; the specification lets it.
  FAILS(NOTSUP, fd_allocate(fd, 0, 100));
  FAILS(NOTSUP, fd_allocate(fd, 10, 10));
  EQ(size_at(fd), 0);
  WRITE_IT(fd, "0123456789");
  for (u32 advice = __WASI_ADVICE_NORMAL; advice <= __WASI_ADVICE_NOREUSE; advice++) {
    OK(fd_advise(fd, 0, 0, advice));
    OK(fd_advise(fd, 5, 100, advice));
  }
  HOLDS(fd, "0123456789");
  OK(fd_sync(fd));
  OK(fd_datasync(fd));
  HOLDS(fd, "0123456789");
  OK(fd_close(fd));
  FAILS(BADF, fd_filestat_set_size(fd, 0));
  FAILS(BADF, fd_allocate(fd, 0, 100));
  FAILS(BADF, fd_advise(fd, 0, 0, __WASI_ADVICE_NORMAL));
  FAILS(BADF, fd_sync(fd));
  FAILS(BADF, fd_datasync(fd));
  OK(path_open(dir, NOFOLLOW, P("file"), 0, READ, 0, 0, &fd));
  FAILS(INVAL, fd_filestat_set_size(fd, 0));
  EQ(size_at(fd), 10);
  OK(fd_sync(fd));
  OK(fd_datasync(fd));
  OK(fd_close(fd));
}

static void check_stat_and_times(void) {
  __wasi_filestat_t stat, again;
  u64 now;
  OK(clock_time_get(REALTIME, 0, &now));
  int fd = open_new(P("times"), 0);
  WRITE_IT(fd, "12345");
  OK(fd_filestat_get(fd, &stat));
  EQ(stat.filetype, __WASI_FILETYPE_REGULAR_FILE);
  EQ(stat.size, 5);
  EQ(stat.nlink, 1);
  TRUE(stat.ino != 0);
  // Not older than a second before it was made: clocks of file systems are coarse.
  TRUE(stat.mtim > now - 1000000000 && stat.mtim < now + 60000000000);
  TRUE(stat.ctim > now - 1000000000 && stat.ctim < now + 60000000000);
  OK(path_filestat_get(dir, NOFOLLOW, P("times"), &again));
  TRUE(same_stat(&stat, &again));
  OK(fd_filestat_set_times(fd, 1000000001, 2000000002, ATIM | MTIM));
  OK(fd_filestat_get(fd, &stat));
  EQ(stat.atim, 1000000001);
  EQ(stat.mtim, 2000000002);
  OK(fd_filestat_set_times(fd, 3000000003, 4000000004, MTIM));
  OK(fd_filestat_get(fd, &stat));
  EQ(stat.atim, 1000000001);
  EQ(stat.mtim, 4000000004);
  OK(fd_filestat_set_times(fd, 5000000005, 6000000006, ATIM));
  OK(fd_filestat_get(fd, &stat));
  EQ(stat.atim, 5000000005);
  EQ(stat.mtim, 4000000004);
  OK(fd_filestat_set_times(fd, 7, 7, 0));
  OK(fd_filestat_get(fd, &stat));
  EQ(stat.atim, 5000000005);
  EQ(stat.mtim, 4000000004);
  OK(fd_filestat_set_times(fd, 7, 7, ATIM_NOW));
  OK(fd_filestat_get(fd, &stat));
  TRUE(stat.atim > now - 1000000000);
  EQ(stat.mtim, 4000000004);
  OK(fd_filestat_set_times(fd, 8000000008, 7, ATIM | MTIM_NOW));
  OK(fd_filestat_get(fd, &stat));
  EQ(stat.atim, 8000000008);
  TRUE(stat.mtim > now - 1000000000);
  // A time and now at once is a contradiction, and nothing changes.
  FAILS(INVAL, fd_filestat_set_times(fd, 7, 7, MTIM | MTIM_NOW));
  FAILS(INVAL, fd_filestat_set_times(fd, 7, 7, ATIM | ATIM_NOW));
  FAILS(INVAL, fd_filestat_set_times(fd, 7, 7, ATIM | MTIM | MTIM_NOW));
  OK(fd_filestat_get(fd, &again));
  TRUE(same_stat(&stat, &again));
  EQ(stat.size, 5);
  OK(fd_close(fd));
  FAILS(BADF, fd_filestat_get(fd, &stat));
  FAILS(BADF, fd_filestat_set_times(fd, 7, 7, MTIM));
  OK(fd_filestat_set_times(dir, 1000000001, 2000000002, ATIM | MTIM));
  OK(fd_filestat_get(dir, &stat));
  EQ(stat.filetype, __WASI_FILETYPE_DIRECTORY);
  EQ(stat.mtim, 2000000002);
  // A removed file lives on until it is closed.
  fd = open_file(dir, P("times"));
  OK(path_unlink_file(dir, P("times")));
  HOLDS(fd, "12345");
  OK(fd_filestat_get(fd, &stat));
  EQ(stat.nlink, 0);
  OK(fd_close(fd));
  // Files in one place are told apart by their numbers.
  int one = open_new(P("one"), 0), other = open_new(P("other"), 0);
  OK(fd_filestat_get(one, &stat));
  OK(fd_filestat_get(other, &again));
  EQ(stat.dev, again.dev);
  TRUE(stat.ino != again.ino);
  OK(fd_close(one));
  OK(fd_close(other));
}

static void check_renumber(void) {
  __wasi_fdstat_t stat;
  int from = open_new(P("from"), APPEND), to = open_new(P("to"), 0);
  WRITE_IT(from, "from");
  WRITE_IT(to, "to");
  OK(fd_renumber(from, to));
  FAILS(BADF, fd_fdstat_get(from, &stat));
  OK(fd_fdstat_get(to, &stat));
  EQ(stat.fs_flags, APPEND);
  HOLDS(to, "from");
  IS_AT(to, 4);
  FAILS(BADF, fd_renumber(from, to));
  FAILS(BADF, fd_renumber(to, from));
  FAILS(BADF, fd_renumber(to, NO_FD));
  FAILS(BADF, fd_renumber(NO_FD, to));
  FAILS(BADF, fd_renumber(-1, to));
  HOLDS(to, "from");
  // Onto itself changes nothing.
  OK(fd_renumber(to, to));
  HOLDS(to, "from");
  // The number is free for another.
  int again = open_new(P("again"), 0);
  EQ(again, from);
  OK(fd_close(again));
  OK(fd_close(to));
  EQ(size_of(dir, P("to")), 2);
}

// A folder is not to be read or written like a file; wasmtime says BADF, where Linux has ISDIR, INVAL and success.
static void check_folder(void) {
  char text[10];
  u32 size;
  u64 position;
  __wasi_iovec_t into = {(uint8_t *)text, sizeof text};
  __wasi_ciovec_t from = {(const uint8_t *)text, sizeof text};
  const int folders[] = {ROOT, dir};
  for (u32 i = 0; i < 2; i++) {
    int fd = folders[i];
    FAILS(BADF, fd_read(fd, &into, 1, &size));
    FAILS(BADF, fd_write(fd, &from, 1, &size));
    FAILS(BADF, fd_pread(fd, &into, 1, 0, &size));
    FAILS(BADF, fd_pwrite(fd, &from, 1, 0, &size));
    for (u32 whence = SET; whence <= END; whence++) FAILS(BADF, fd_seek(fd, 0, whence, &position));
    FAILS(BADF, fd_tell(fd, &position));
    FAILS(BADF, fd_allocate(fd, 0, 10));
    FAILS(BADF, fd_filestat_set_size(fd, 0));
    FAILS(BADF, fd_advise(fd, 0, 0, __WASI_ADVICE_NORMAL));
    FAILS(BADF, fd_sync(fd));
    FAILS(BADF, fd_datasync(fd));
  }
}

static void check_many(void) {
  enum { MANY = 200 };
  // Each has its own number, and free ones are used again; in which order is not said.
  int fds[MANY];
  for (u32 i = 0; i < MANY; i++) {
    fds[i] = open_new(P("file"), 0);
    for (u32 j = 0; j < i; j++) TRUE(fds[j] != fds[i]);
    TRUE(fds[i] < MANY + 20);
  }
  for (u32 i = 0; i < MANY; i++) OK(fd_close(fds[i]));
}

static void check(void) {
  dir = make_dir(ROOT, P("work"));
  check_read_and_write();
  check_large();
  check_seek();
  check_pread_and_pwrite();
  check_append_and_flags();
  check_rights();
  check_size();
  check_stat_and_times();
  check_renumber();
  check_folder();
  check_many();
}
