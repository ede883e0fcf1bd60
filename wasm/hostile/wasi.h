/* The host calls of WASI preview 1 as they are, without a libc that is careful on the guest's behalf. */
#include <stddef.h>
#include <stdint.h>

typedef uint32_t u32;
typedef uint64_t u64;
typedef uint8_t u8;

#define HOST(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name))) extern u32 wasi_##name
#define ENTRY(name) __attribute__((export_name(#name))) u32 name

/* Pointers are numbers here: most of them point nowhere. */
HOST(args_get)(u32, u32);
HOST(args_sizes_get)(u32, u32);
HOST(clock_res_get)(u32, u32);
HOST(clock_time_get)(u32, u64, u32);
HOST(environ_get)(u32, u32);
HOST(environ_sizes_get)(u32, u32);
HOST(fd_advise)(u32, u64, u64, u32);
HOST(fd_allocate)(u32, u64, u64);
HOST(fd_close)(u32);
HOST(fd_datasync)(u32);
HOST(fd_fdstat_get)(u32, u32);
HOST(fd_fdstat_set_flags)(u32, u32);
HOST(fd_fdstat_set_rights)(u32, u64, u64);
HOST(fd_filestat_get)(u32, u32);
HOST(fd_filestat_set_size)(u32, u64);
HOST(fd_filestat_set_times)(u32, u64, u64, u32);
HOST(fd_pread)(u32, u32, u32, u64, u32);
HOST(fd_prestat_dir_name)(u32, u32, u32);
HOST(fd_prestat_get)(u32, u32);
HOST(fd_pwrite)(u32, u32, u32, u64, u32);
HOST(fd_read)(u32, u32, u32, u32);
HOST(fd_readdir)(u32, u32, u32, u64, u32);
HOST(fd_renumber)(u32, u32);
HOST(fd_seek)(u32, u64, u32, u32);
HOST(fd_sync)(u32);
HOST(fd_tell)(u32, u32);
HOST(fd_write)(u32, u32, u32, u32);
HOST(path_create_directory)(u32, u32, u32);
HOST(path_filestat_get)(u32, u32, u32, u32, u32);
HOST(path_filestat_set_times)(u32, u32, u32, u32, u64, u64, u32);
HOST(path_link)(u32, u32, u32, u32, u32, u32, u32);
HOST(path_open)(u32, u32, u32, u32, u32, u64, u64, u32, u32);
HOST(path_readlink)(u32, u32, u32, u32, u32, u32);
HOST(path_remove_directory)(u32, u32, u32);
HOST(path_rename)(u32, u32, u32, u32, u32, u32);
HOST(path_symlink)(u32, u32, u32, u32, u32);
HOST(path_unlink_file)(u32, u32, u32);
HOST(poll_oneoff)(u32, u32, u32, u32);
HOST(random_get)(u32, u32);
HOST(sched_yield)(void);
HOST(sock_accept)(u32, u32, u32);
HOST(sock_recv)(u32, u32, u32, u32, u32, u32);
HOST(sock_send)(u32, u32, u32, u32, u32);
HOST(sock_shutdown)(u32, u32);

enum { BAD_DESCRIPTOR = 8, IS_OPEN = 0 };
enum { CREATE = 1, DIRECTORY = 2, EXCLUSIVE = 4, TRUNCATE = 8, FOLLOW = 1 };
enum { SET_ACCESS = 1, SET_ACCESS_NOW = 2, SET_MODIFIED_NOW = 8 };
#define ALL_RIGHTS 0x1fffffffu
/* Without those to write, by which no folder is opened. */
#define FOLDER_RIGHTS (ALL_RIGHTS & ~(1u << 6 | 1u << 8 | 1u << 22))
#define READ_RIGHTS (1u << 1 | 1u << 2 | 1u << 5 | 1u << 13 | 1u << 14 | 1u << 21)

struct vector {
  u32 from, size;
};

static inline u32 at(const void *pointer) { return (u32)(uintptr_t)pointer; }
