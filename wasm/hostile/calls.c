/* Call the host with what no libc would: pointers, sizes and descriptors that are none.
 *
 * Entries but the first two return how many of the calls that must be refused were not: 0 is well. They are given
 * nothing: no arguments, environment, stdin or files.
 */
#include "wasi.h"

static u8 buffer[64];
static u32 number;
static struct vector vectors[4];
static char name[1 << 20];

static u64 state;

/* splitmix64 */
static u64 next(void) {
  u64 mixed = state += 0x9e3779b97f4a7c15u;
  mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9u;
  mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebu;
  return mixed ^ mixed >> 31;
}

/* A number of the kind that makes trouble. */
__attribute__((noinline)) static u64 any(void) {
  static const u64 edges[] = {0, 1, 2, 3, 4, 5, 7, 8, 255, 4096, 65535, 65536, 0x1ffffc, 0x7fffffff, 0x80000000u,
                              0xfffffffcu, 0xffffffffu, 0x100000000u, 0x7fffffffffffffffu, ~(u64)0};
  u64 choice = next();
  return choice % 4 ? edges[(choice >> 8) % (sizeof edges / sizeof *edges)] : next() >> (choice >> 8) % 64;
}

/* Mostly what is no trap at once, so that there is a next call: something aligned in the half of the name that is
 * written over, a size that stays in it, one of the first few. */
__attribute__((noinline)) static u32 pointer(void) {
  return next() % 4096 ? at(name) + (u32)(next() % (sizeof name / 4)) / 8 * 8 : (u32)any();
}
__attribute__((noinline)) static u32 size(void) {
  return next() % 4096 ? (u32)(next() >> next() % 64) % (sizeof name / 2) : (u32)any();
}
__attribute__((noinline)) static u32 few(u32 count) { return next() % 4096 ? (u32)(next() % count) : (u32)any(); }

#define FD few(8)
#define P pointer()
#define N size()
#define F(count) few(count)
#define W any()

/* One call, of all but those that end the guest (proc_exit, proc_raise) or wait (poll_oneoff). */
static void one(void) {
  *(struct vector *)(name + next() % 32 * 8) = (struct vector){P, N};
  switch (next() % 42) {
    case 0: wasi_args_get(P, P); break;
    case 1: wasi_args_sizes_get(P, P); break;
    case 2: wasi_clock_res_get(F(4), P); break;
    case 3: wasi_clock_time_get(F(4), W, P); break;
    case 4: wasi_environ_get(P, P); break;
    case 5: wasi_environ_sizes_get(P, P); break;
    case 6: wasi_fd_advise(FD, W, W, F(6)); break;
    case 7: wasi_fd_allocate(FD, W, W); break;
    case 8: if (next() % 64 == 0) wasi_fd_close(FD); break;
    case 9: wasi_fd_datasync(FD); break;
    case 10: wasi_fd_fdstat_get(FD, P); break;
    case 11: wasi_fd_fdstat_set_flags(FD, F(32)); break;
    case 12: wasi_fd_fdstat_set_rights(FD, W & ALL_RIGHTS, W & ALL_RIGHTS); break;
    case 13: wasi_fd_filestat_get(FD, P); break;
    case 14: wasi_fd_filestat_set_size(FD, W); break;
    case 15: wasi_fd_filestat_set_times(FD, W, W, F(16)); break;
    case 16: wasi_fd_pread(FD, at(name), F(32), W, P); break;
    case 17: wasi_fd_prestat_dir_name(FD, P, N); break;
    case 18: wasi_fd_prestat_get(FD, P); break;
    case 19: wasi_fd_pwrite(FD, at(name), F(32), W, P); break;
    case 20: wasi_fd_read(FD, at(name), F(32), P); break;
    case 21: wasi_fd_readdir(FD, P, N, W, P); break;
    case 22: if (next() % 64 == 0) wasi_fd_renumber(FD, FD); break;
    case 23: wasi_fd_seek(FD, W, F(3), P); break;
    case 24: wasi_fd_sync(FD); break;
    case 25: wasi_fd_tell(FD, P); break;
    case 26: wasi_fd_write(FD, at(name), F(32), P); break;
    case 27: wasi_path_create_directory(FD, P, N); break;
    case 28: wasi_path_filestat_get(FD, F(2), P, N, P); break;
    case 29: wasi_path_filestat_set_times(FD, F(2), P, N, W, W, F(16)); break;
    case 30: wasi_path_link(FD, F(2), P, N, FD, P, N); break;
    case 31: wasi_path_open(FD, F(2), P, F(3), F(16), W & ALL_RIGHTS, W & ALL_RIGHTS, F(32), P); break;
    case 32: wasi_path_readlink(FD, P, N, P, N, P); break;
    case 33: wasi_path_remove_directory(FD, P, F(3)); break;
    case 34: wasi_path_rename(FD, P, F(3), FD, P, F(3)); break;
    case 35: wasi_path_symlink(P, N, FD, P, F(3)); break;
    case 36: wasi_path_unlink_file(FD, P, F(3)); break;
    case 37: wasi_random_get(P, N); break;
    case 38: wasi_sock_accept(FD, F(32), P); break;
    case 39: wasi_sock_recv(FD, at(name), F(32), F(4), P, P); break;
    case 40: wasi_sock_send(FD, at(name), F(32), 0, P); break;
    case 41: wasi_sock_shutdown(FD, F(4)); break;
  }
}

/* Make that many calls at random, 0: for ever; return how many. It traps where one of them points nowhere. */
ENTRY(random)(u32 seed, u32 rounds) {
  for (u32 round = 0; rounds == 0 || round < rounds; round++) {
    state = (u64)seed << 32 | round;
    one();
  }
  return rounds;
}

/* One call, of the number that the first says, with a pointer that the second is; return its errno. */
ENTRY(pointers)(u32 which, u32 far) {
  vectors[0] = (struct vector){at(buffer), 1};
  vectors[1] = (struct vector){far, 64};
  vectors[2] = (struct vector){at(buffer), far};
  u32 good = at(vectors), number_at = at(&number);
  switch (which) {
    case 0: return wasi_args_get(far, far);
    case 1: return wasi_args_sizes_get(far, number_at);
    case 2: return wasi_args_sizes_get(number_at, far);
    case 3: return wasi_environ_get(far, far);
    case 4: return wasi_environ_sizes_get(far, number_at);
    case 5: return wasi_environ_sizes_get(number_at, far);
    case 6: return wasi_clock_res_get(1, far);
    case 7: return wasi_clock_time_get(1, 0, far);
    case 8: return wasi_clock_time_get(far, 0, at(buffer));
    case 9: return wasi_random_get(far, 64);
    case 10: return wasi_random_get(at(buffer), far);
    case 11: return wasi_fd_fdstat_get(1, far);
    case 12: return wasi_fd_filestat_get(1, far);
    case 13: return wasi_fd_write(1, far, 1, number_at);
    case 14: return wasi_fd_write(1, good, far, number_at);
    case 15: return wasi_fd_write(1, good, 1, far);
    case 16: return wasi_fd_write(1, good + 8, 1, number_at);
    case 17: return wasi_fd_write(1, good + 16, 1, number_at);
    case 18: return wasi_fd_read(0, far, 1, number_at);
    case 19: return wasi_fd_read(0, good, far, number_at);
    case 20: return wasi_fd_read(0, good + 8, 1, number_at);
    case 21: return wasi_fd_read(0, good + 16, 1, number_at);
    case 22: return wasi_fd_readdir(3, far, 64, 0, number_at);
    case 23: return wasi_fd_readdir(3, at(buffer), far, 0, number_at);
    case 24: return wasi_fd_prestat_get(3, far);
    case 25: return wasi_fd_prestat_dir_name(3, far, 1);
    case 26: return wasi_path_open(3, 0, far, 1, 0, ALL_RIGHTS, ALL_RIGHTS, 0, number_at);
    case 27: return wasi_path_open(3, 0, at(buffer), far, 0, ALL_RIGHTS, ALL_RIGHTS, 0, number_at);
    case 28: return wasi_path_open(3, 0, at("."), 1, DIRECTORY, FOLDER_RIGHTS, ALL_RIGHTS, 0, far);
    case 29: return wasi_path_filestat_get(3, 0, at("."), 1, far);
    case 30: return wasi_path_readlink(3, at("x"), 1, far, 64, number_at);
    case 31: return wasi_poll_oneoff(far, at(buffer), 1, number_at);
    case 32: return wasi_poll_oneoff(good, far, 1, number_at);
    case 33: return wasi_poll_oneoff(good, at(buffer), far, number_at);
  }
  return 1;
}

static u32 wrong;

static void refused(u32 errno) { wrong += errno == 0; }

/* Names of a megabyte, and descriptors of folders where none was given. */
ENTRY(names)(u32 ignored, u32 also_ignored) {
  (void)ignored, (void)also_ignored;
  static const char *const fillings[] = {"a", "/", "../", "./", "a/", "\xff", "\n", ""};
  for (u32 filling = 0; filling < sizeof fillings / sizeof *fillings; filling++) {
    const char *text = fillings[filling];
    for (u32 i = 0, from = 0; i < sizeof name; i++, from++) {
      if (!text[from]) from = 0;
      name[i] = text[from];
    }
    for (u32 fd = 0; fd < 8; fd++) {
      u32 long_name = at(name), size = sizeof name;
      refused(wasi_path_open(fd, FOLLOW, long_name, size, CREATE, ALL_RIGHTS, ALL_RIGHTS, 0, at(&number)));
      refused(wasi_path_create_directory(fd, long_name, size));
      refused(wasi_path_filestat_get(fd, FOLLOW, long_name, size, at(buffer)));
      refused(wasi_path_link(fd, FOLLOW, long_name, size, fd, long_name, size));
      refused(wasi_path_symlink(long_name, size, fd, long_name, size));
      refused(wasi_path_rename(fd, long_name, size, fd, long_name, size));
      refused(wasi_path_unlink_file(fd, long_name, size));
    }
  }
  return wrong;
}

/* Sockets of any number, which nobody gave it. */
ENTRY(sockets)(u32 ignored, u32 also_ignored) {
  (void)ignored, (void)also_ignored;
  vectors[0] = (struct vector){at(buffer), sizeof buffer};
  for (u32 fd = 0; fd < 128; fd++) {
    refused(wasi_sock_accept(fd, 0, at(&number)));
    refused(wasi_sock_recv(fd, at(vectors), 1, 0, at(&number), at(buffer)));
    refused(wasi_sock_send(fd, at(vectors), 1, 0, at(&number)));
    refused(wasi_sock_shutdown(fd, 3));
  }
  return wrong;
}

/* Make what is behind stdout and stderr large without writing. */
ENTRY(sizes)(u32 ignored, u32 also_ignored) {
  (void)ignored, (void)also_ignored;
  vectors[0] = (struct vector){at(buffer), sizeof buffer};
  for (u32 fd = 1; fd <= 2; fd++) {
    refused(wasi_fd_filestat_set_size(fd, (u64)1 << 40));
    refused(wasi_fd_allocate(fd, 0, (u64)1 << 40));
    refused(wasi_fd_pwrite(fd, at(vectors), 1, (u64)1 << 40, at(&number)));
    refused(wasi_fd_seek(fd, (u64)1 << 40, 0, at(buffer)));
    refused(wasi_fd_seek(fd, 0, 2, at(buffer)));
    refused(wasi_fd_tell(fd, at(buffer)));
  }
  return wrong;
}

/* Close and renumber stdin, stdout and stderr, and use them afterwards. They are the host's own, too. */
ENTRY(stdio)(u32 ignored, u32 also_ignored) {
  (void)ignored, (void)also_ignored;
  vectors[0] = (struct vector){at("gone\n"), 5};
  wasi_fd_renumber(1, 2);
  refused(wasi_fd_write(1, at(vectors), 1, at(&number)));
  wasi_fd_renumber(2, 0);
  for (u32 fd = 0; fd < 128; fd++) wasi_fd_close(fd);
  for (u32 fd = 0; fd < 128; fd++) {
    refused(wasi_fd_write(fd, at(vectors), 1, at(&number)));
    refused(wasi_fd_close(fd));
    refused(wasi_fd_renumber(fd, 127 - fd));
  }
  return wrong;
}
