// Descriptors 0, 1 and 2, and that none of anything is a socket: fd_* on stdio, fd_renumber of it, sock_*.
//
// Run with "the input\n" on stdin; it writes "one two three\n" to stdout.

#include "check.h"

static void check_reading(void) {
  char text[100] = {0};
  u32 size = 77;
  // Several buffers, one of them empty; what is left comes next, and at the end nothing.
  __wasi_iovec_t parts[] = {{(uint8_t *)text, 3}, {(uint8_t *)text + 50, 0}, {(uint8_t *)text + 3, 4}};
  u32 got = 0;
  FAILS(INTR, fd_read(STDIN, parts, 0, &size));  // of wasmtime's own making: nothing was asked for
  OK(fd_read(STDIN, parts, 3, &size));
  for (got = size; size && got < 10; got += size) OK(read_text(STDIN, text + got, 10 - got, &size));
  EQ(got, 10);
  TRUE(same(text, P("the input\n")));
  OK(read_text(STDIN, text, sizeof text, &size));
  EQ(size, 0);
  OK(read_text(STDIN, text, sizeof text, &size));
  EQ(size, 0);
  // Neither can do the work of the other, which wasmtime says as BADF.
  FAILS(BADF, write_text(STDIN, P("text"), &size));
  FAILS(BADF, read_text(STDOUT, text, sizeof text, &size));
  FAILS(BADF, read_text(STDERR, text, sizeof text, &size));
}

// Write everything, however little a call takes.
static void write_all(int fd, const char *text, u32 length) {
  for (u32 size = 0; length; text += size, length -= size) {
    if (!OK(write_text(fd, text, length, &size)) || !TRUE(size > 0 && size <= length)) return;
  }
}

static void check_writing(void) {
  u32 size = 77;
  __wasi_ciovec_t parts[] = {{(const uint8_t *)"", 0}, {(const uint8_t *)"one ", 4}, {(const uint8_t *)"two", 3}};
  OK(fd_write(STDOUT, parts, 0, &size));
  EQ(size, 0);
  OK(fd_write(STDOUT, parts, 1, &size));
  EQ(size, 0);
  OK(fd_write(STDERR, parts, 1, &size));
  // wasmtime writes the first part that is not empty, as a write may.
  OK(fd_write(STDOUT, parts, 3, &size));
  TRUE(size >= 4 && size <= 7);
  write_all(STDOUT, &"one two"[size], 7 - size);
  FAILS(BADF, fd_write(NO_FD, parts, 1, &size));
  FAILS(BADF, fd_write(-31337, 0, 0, &size));
}

static void check_stat(void) {
  __wasi_fdstat_t fdstat;
  __wasi_filestat_t stat;
  for (int fd = STDIN; fd <= STDERR; fd++) {
    OK(fd_fdstat_get(fd, &fdstat));
    // Neither file nor terminal is told apart: no guest learns what its worker's stdio is.
    EQ(fdstat.fs_filetype, __WASI_FILETYPE_UNKNOWN);
    EQ(fdstat.fs_flags, 0);
    EQ(fdstat.fs_rights_base & (READ | WRITE), fd == STDIN ? READ : WRITE);
    EQ(fdstat.fs_rights_base & (__WASI_RIGHTS_FD_SEEK | __WASI_RIGHTS_FD_TELL), 0);
    OK(fd_filestat_get(fd, &stat));
    EQ(stat.filetype, __WASI_FILETYPE_UNKNOWN);
    EQ(stat.size, 0);
  }
  FAILS(BADF, fd_fdstat_get(NO_FD, &fdstat));
  FAILS(BADF, fd_fdstat_get(-1, &fdstat));
  FAILS(BADF, fd_filestat_get(NO_FD, &stat));
  FAILS(BADF, fd_filestat_get(-1, &stat));
}

// Streams have no place, no size and no times. Where the specification has INVAL or SPIPE, wasmtime mostly has BADF.
static void check_file_calls(void) {
  char text[10];
  u64 position;
  u32 size;
  __wasi_iovec_t into = {(uint8_t *)text, sizeof text};
  __wasi_ciovec_t from = {(const uint8_t *)text, sizeof text};
  for (int fd = STDIN; fd <= STDERR; fd++) {
    for (u32 whence = SET; whence <= END; whence++) FAILS(SPIPE, fd_seek(fd, 0, whence, &position));
    FAILS(SPIPE, fd_tell(fd, &position));
    FAILS(fd == STDIN ? SPIPE : BADF, fd_pread(fd, &into, 1, 0, &size));
    FAILS(fd == STDIN ? BADF : SPIPE, fd_pwrite(fd, &from, 1, 0, &size));
    FAILS(BADF, fd_advise(fd, 0, 10, __WASI_ADVICE_NORMAL));
    FAILS(BADF, fd_allocate(fd, 0, 10));
    FAILS(BADF, fd_filestat_set_size(fd, 0));
    FAILS(BADF, fd_filestat_set_times(fd, 0, 0, MTIM_NOW));
    FAILS(BADF, fd_sync(fd));
    FAILS(BADF, fd_datasync(fd));
    FAILS(BADF, fd_fdstat_set_flags(fd, 0));
    FAILS(BADF, fd_fdstat_set_rights(fd, 0, 0));
  }
}

static void check_sockets(void) {
  u32 size;
  uint16_t flags;
  int fd, file;
  char text[10];
  __wasi_iovec_t into = {(uint8_t *)text, sizeof text};
  __wasi_ciovec_t from = {(const uint8_t *)text, sizeof text};
  OK(path_open(ROOT, NOFOLLOW, P("file"), CREAT, FILE_RIGHTS, 0, 0, &file));
  const int others[] = {STDIN, STDOUT, STDERR, ROOT, file};
  for (u32 i = 0; i < sizeof others / sizeof *others; i++) {
    FAILS(NOTSOCK, sock_accept(others[i], 0, &fd));
    FAILS(NOTSOCK, sock_accept(others[i], NONBLOCK, &fd));
    FAILS(NOTSOCK, sock_recv(others[i], &into, 1, 0, &size, &flags));
    FAILS(NOTSOCK, sock_recv(others[i], &into, 1, __WASI_RIFLAGS_RECV_PEEK, &size, &flags));
    FAILS(NOTSOCK, sock_send(others[i], &from, 1, 0, &size));
    for (u32 how = 0; how <= 3; how++) FAILS(NOTSOCK, sock_shutdown(others[i], how));
  }
  const int closed[] = {file + 1, NO_FD, -1};
  for (u32 i = 0; i < sizeof closed / sizeof *closed; i++) {
    FAILS(BADF, sock_accept(closed[i], 0, &fd));
    FAILS(BADF, sock_recv(closed[i], &into, 1, 0, &size, &flags));
    FAILS(BADF, sock_send(closed[i], &from, 1, 0, &size));
    FAILS(BADF, sock_shutdown(closed[i], __WASI_SDFLAGS_RD));
  }
  OK(fd_close(file));
}

// Stdio is descriptors like others: they can be moved away, replaced by files and closed.
static void check_renumber(void) {
  __wasi_fdstat_t fdstat;
  int file, moved;
  char text[10];
  u32 size;
  OK(path_open(ROOT, NOFOLLOW, P("moved"), CREAT, FILE_RIGHTS, 0, 0, &moved));
  OK(fd_renumber(STDOUT, moved));
  FAILS(BADF, fd_fdstat_get(STDOUT, &fdstat));
  FAILS(BADF, write_text(STDOUT, P("lost"), &size));
  FAILS(BADF, fd_renumber(STDOUT, moved));
  FAILS(BADF, fd_close(STDOUT));
  write_all(moved, P(" three"));
  // The number is free for another.
  OK(path_open(ROOT, NOFOLLOW, P("file"), CREAT, FILE_RIGHTS, 0, 0, &file));
  EQ(file, STDOUT);
  write_all(STDOUT, P("to a file"));
  EQ(size_of(ROOT, P("file")), 9);
  OK(fd_renumber(moved, STDOUT));
  write_all(STDOUT, P("\n"));
  EQ(size_of(ROOT, P("file")), 9);
  OK(path_open(ROOT, NOFOLLOW, P("file"), 0, FILE_RIGHTS, 0, 0, &file));
  OK(fd_renumber(file, STDIN));
  OK(read_text(STDIN, text, sizeof text, &size));
  EQ(size, 9);
  TRUE(same(text, P("to a file")));
  OK(fd_close(STDIN));
  FAILS(BADF, read_text(STDIN, text, sizeof text, &size));
  OK(fd_close(STDOUT));
  FAILS(BADF, write_text(STDOUT, P("lost"), &size));
}

static void check(void) {
  check_reading();
  check_writing();
  check_stat();
  check_file_calls();
  check_sockets();
  check_renumber();
}
