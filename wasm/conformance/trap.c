// Calls that no correct program makes: pointers out of memory, numbers that are in no enumeration.
//
// The first argument says which; without it the exit code is how many there are. A host may end the guest, as the
// specification has it and wasmtime mostly does, or refuse with an errno, which then is the exit code; it must do nothing
// else, so that a plain end is a failure. Only of pointers that are not aligned it may think nothing: exit code 100.

#include "check.h"

#define AWAY ((void *)0xfffffff0u)  // past the end of any memory this guest has
#define OVER ((void *)0xffffffffu)

static int case_of(u32 number) {
  static char text[64];
  static const char *path = "file";
  u32 size, zero = 0;
  int fd;
  __wasi_ciovec_t there = {(const uint8_t *)"x", 1}, away = {AWAY, 1}, huge = {(const uint8_t *)text, 0xffffffff};
  __wasi_iovec_t into = {AWAY, 1};
  __wasi_subscription_t clock = {.u.tag = __WASI_EVENTTYPE_CLOCK, .u.u.clock.id = MONOTONIC}, bad = clock;
  __wasi_event_t event;
  __wasi_filestat_t stat;
  u64 big;
  OK(path_open(ROOT, NOFOLLOW, P("file"), CREAT, FILE_RIGHTS, 0, 0, &fd));
  switch (number) {
    case 0: return args_sizes_get(AWAY, &size);
    case 1: return args_sizes_get(&size, AWAY);
    case 2: return args_get(AWAY, text);
    case 3: return args_get((char **)text, AWAY);
    case 4: return environ_sizes_get(AWAY, &size);
    case 5: return environ_sizes_get(&size, OVER);
    case 6: return environ_get((char **)text, AWAY);
    case 7: return environ_get(AWAY, text);
    case 8: return clock_res_get(MONOTONIC, AWAY);
    case 9: return clock_time_get(MONOTONIC, 0, AWAY);
    case 10: return clock_res_get(4, &big);
    case 11: return clock_time_get(4, 0, &big);
    case 12: return clock_time_get(0xffffffff, 0, &big);
    case 13: return fd_advise(fd, 0, 0, 6);
    case 14: return fd_fdstat_get(fd, AWAY);
    case 15: return fd_fdstat_set_flags(fd, 1 << 5);
    case 16: return fd_filestat_get(fd, AWAY);
    case 17: return fd_filestat_set_times(fd, 0, 0, 1 << 4);
    case 18: return fd_pread(fd, AWAY, 1, 0, &size);
    case 19: return fd_prestat_get(ROOT, AWAY);
    case 20: return fd_prestat_dir_name(ROOT, AWAY, 100);
    case 21: return fd_pwrite(fd, &away, 1, 0, &size);
    case 22: return fd_pwrite(fd, AWAY, 1, 0, &size);
    case 23: return write_text(fd, P("text"), &size) || fd_seek(fd, 0, SET, &big) || fd_read(fd, &into, 1, &size);
    case 24: return fd_read(fd, AWAY, 1, &size);
    case 25: return fd_readdir(ROOT, AWAY, 100, 0, &size);
    case 26: return fd_readdir(ROOT, text, sizeof text, 0, AWAY);
    case 27: return fd_seek(fd, 0, 3, &big);
    case 28: return fd_seek(fd, 0, SET, AWAY);
    case 29: return fd_tell(fd, AWAY);
    case 30: return fd_write(STDOUT, &away, 1, &size);
    case 31: return fd_write(STDOUT, &huge, 1, &size);
    case 32: return fd_write(STDOUT, &there, 0x20000000, &size);
    case 33: return fd_write(STDOUT, AWAY, 1, &size);
    case 34: return path_create_directory(ROOT, AWAY, 100);
    case 35: return path_create_directory(ROOT, path, 0xffffffff);
    case 36: return path_filestat_get(ROOT, NOFOLLOW, AWAY, 100, &stat);
    case 37: return path_filestat_get(ROOT, NOFOLLOW, path, 4, AWAY);
    case 38: return path_filestat_get(ROOT, 2, path, 4, &stat);
    case 39: return path_filestat_set_times(ROOT, NOFOLLOW, AWAY, 4, 0, 0, 0);
    case 40: return path_filestat_set_times(ROOT, NOFOLLOW, path, 4, 0, 0, 1 << 4);
    case 41: return path_link(ROOT, NOFOLLOW, AWAY, 4, ROOT, path, 4);
    case 42: return path_link(ROOT, NOFOLLOW, path, 4, ROOT, AWAY, 4);
    case 43: return path_open(ROOT, NOFOLLOW, AWAY, 100, 0, 0, 0, 0, &fd);
    case 44: return path_open(ROOT, NOFOLLOW, path, 4, 0, 0, 0, 0, AWAY);
    case 45: return path_open(ROOT, NOFOLLOW, path, 4, 1 << 4, 0, 0, 0, &fd);
    case 46: return path_open(ROOT, NOFOLLOW, path, 4, 0, 0, 0, 1 << 5, &fd);
    case 47: return path_open(ROOT, 2, path, 4, 0, 0, 0, 0, &fd);
    case 48: return path_readlink(ROOT, AWAY, 4, text, sizeof text, &size);
    case 49: return path_symlink(path, 4, ROOT, P("to")) || path_readlink(ROOT, P("to"), AWAY, 4, &size);
    case 50: return path_remove_directory(ROOT, AWAY, 4);
    case 51: return path_rename(ROOT, AWAY, 4, ROOT, path, 4);
    case 52: return path_rename(ROOT, path, 4, ROOT, AWAY, 4);
    case 53: return path_symlink(AWAY, 4, ROOT, path, 4);
    case 54: return path_symlink(path, 4, ROOT, AWAY, 4);
    case 55: return path_unlink_file(ROOT, AWAY, 4);
    case 56: return poll_oneoff(AWAY, &event, 1, &size);
    case 57: return poll_oneoff(&clock, AWAY, 1, &size);
    case 58: return poll_oneoff(&clock, &event, 1, AWAY);
    case 59: return poll_oneoff(&clock, &event, 0x10000000, &size);
    case 60: return poll_oneoff(&clock, &event, 0xffffffff, &size);
    case 61: bad.u.tag = 3; return poll_oneoff(&bad, &event, 1, &size);
    case 62: bad.u.tag = 255; return poll_oneoff(&bad, &event, 1, &size);
    case 63: bad.u.u.clock.id = 4; return poll_oneoff(&bad, &event, 1, &size);
    case 64: bad.u.u.clock.flags = 2; return poll_oneoff(&bad, &event, 1, &size);
    case 65: return poll_oneoff(OVER, OVER, 1, OVER);
    case 66: return poll_oneoff(&clock, (void *)0x7ffffff0, 1, &size);
    case 67: return proc_raise(31);
    case 68: return random_get(AWAY, 100);
    case 69: return random_get(text, 0xffffffff);
    case 70: return sock_accept(ROOT, 1 << 5, &fd);
    case 71: return sock_recv(ROOT, &into, 1, 1 << 2, &size, (uint16_t *)text);
    case 72: return sock_shutdown(ROOT, 1 << 2);
    // Not aligned as their types are.
    case 73: return poll_oneoff((void *)((char *)&clock + 1), &event, 1, &size);
    case 74: return poll_oneoff(&clock, (void *)((char *)&event + 1), 1, &size);
    case 75: return clock_time_get(MONOTONIC, 0, (u64 *)(text + 1));
    case 76: return fd_write(STDOUT, (void *)((char *)&there + 1), 1, &zero);
    default: return -1;
  }
}

enum { MISALIGNED = 73, CASES = 77 };

static void check(void) {
  u32 count, size, number = 0;
  char *arguments[3], data[200];
  OK(args_sizes_get(&count, &size));
  if (count < 2) proc_exit(CASES);
  OK(args_get(arguments, data));
  for (const char *digit = arguments[1]; *digit; digit++) number = number * 10 + (u32)(*digit - '0');
  int errno = case_of(number);
  proc_exit(number >= MISALIGNED && !errno ? 100 : (u32)errno);
}
