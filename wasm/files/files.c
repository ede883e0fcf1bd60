// A WASI command that works with files, for tests of the file system that a guest is given. Its arguments are commands,
// run one after the other; each prints a line with an errno, 0 for success:
//   put PATH TEXT | cat PATH | link TARGET PATH | open PATH | mkdir PATH | fill PATH | many COUNT | deep COUNT | all
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wasi/api.h>

static char block[65536];

static void put(const char *path, const char *text) {
  errno = 0;
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (fd >= 0 && write(fd, text, strlen(text)) >= 0) errno = 0;
  printf("put %d\n", errno);
  if (fd >= 0) close(fd);
}

static void cat(const char *path) {
  errno = 0;
  int fd = open(path, O_RDONLY);
  ssize_t count = fd < 0 ? 0 : read(fd, block, sizeof block);
  printf("cat %d %.*s\n", count < 0 || fd < 0 ? errno : 0, count < 0 ? 0 : (int)count, block);
  if (fd >= 0) close(fd);
}

// Write to a file until it takes no more, and keep it.
static void fill(const char *path) {
  long long total = 0;
  ssize_t count = 0;
  errno = 0;
  int fd = open(path, O_WRONLY | O_CREAT, 0600);
  while (fd >= 0 && (count = write(fd, block, sizeof block)) > 0) total += count;
  printf("fill %d %lld\n", errno, total);
  if (fd >= 0) close(fd);
}

static void many(int most) {
  int made = 0;
  char name[32];
  errno = 0;
  for (; made < most; made++) {
    snprintf(name, sizeof name, "many-%d", made);
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd < 0) break;
    close(fd);
  }
  printf("many %d %d\n", made < most ? errno : 0, made);
}

// Nest folders, deeper than a path can be long.
static void deep(int most) {
  int made = 0, here = open(".", O_RDONLY | O_DIRECTORY);
  errno = 0;
  for (; made < most && here >= 0; made++) {
    if (mkdirat(here, "d", 0700) < 0) break;
    int below = openat(here, "d", O_RDONLY | O_DIRECTORY);
    close(here);
    here = below;
  }
  printf("deep %d %d\n", made < most ? errno : 0, made);
  if (here >= 0) close(here);
}

#define SAY(call) printf(#call " %d\n", (int)(result = (call)))

// Call every function of wasi_snapshot_preview1 that has to do with files.
static void all(void) {
  const __wasi_fd_t root = 3;
  int result;
  __wasi_fd_t fd, other, folder;
  __wasi_size_t size;
  __wasi_filesize_t at;
  __wasi_filestat_t status;
  __wasi_fdstat_t flags;
  __wasi_prestat_t opened;
  __wasi_ciovec_t out = {(const uint8_t *)"0123456789", 10};
  __wasi_iovec_t in = {(uint8_t *)block, sizeof block};
  const __wasi_rights_t rights = 0x1fffffff, look = rights & ~__WASI_RIGHTS_FD_WRITE;
  uint8_t name[8];

  SAY(__wasi_fd_prestat_get(root, &opened));
  SAY(__wasi_fd_prestat_dir_name(root, name, opened.u.dir.pr_name_len));
  SAY(__wasi_path_create_directory(root, "all"));
  SAY(__wasi_path_open(root, 1, "all", __WASI_OFLAGS_DIRECTORY, look, rights, 0, &folder));
  SAY(__wasi_path_open(folder, 1, "file", __WASI_OFLAGS_CREAT | __WASI_OFLAGS_EXCL, rights, rights, 0, &fd));
  SAY(__wasi_fd_write(fd, &out, 1, &size));
  SAY(__wasi_fd_pwrite(fd, &out, 1, 20, &size));
  SAY(__wasi_fd_seek(fd, 0, __WASI_WHENCE_SET, &at));
  SAY(__wasi_fd_tell(fd, &at));
  SAY(__wasi_fd_read(fd, &in, 1, &size));
  SAY(__wasi_fd_pread(fd, &in, 1, 0, &size));
  SAY(__wasi_fd_advise(fd, 0, 10, __WASI_ADVICE_SEQUENTIAL));
  SAY(__wasi_fd_allocate(fd, 0, 8192));
  SAY(__wasi_fd_datasync(fd));
  SAY(__wasi_fd_sync(fd));
  SAY(__wasi_fd_sync(folder));
  SAY(__wasi_fd_fdstat_get(fd, &flags));
  SAY(__wasi_fd_fdstat_set_flags(fd, __WASI_FDFLAGS_APPEND));
  SAY(__wasi_fd_fdstat_set_flags(fd, __WASI_FDFLAGS_NONBLOCK));
  SAY(__wasi_fd_fdstat_set_rights(fd, flags.fs_rights_base, flags.fs_rights_inheriting));
  SAY(__wasi_fd_filestat_get(fd, &status));
  SAY(__wasi_fd_filestat_get(folder, &status));
  SAY(__wasi_fd_filestat_set_size(fd, 100));
  SAY(__wasi_fd_filestat_set_times(fd, 1000000000, 2000000000, __WASI_FSTFLAGS_ATIM | __WASI_FSTFLAGS_MTIM));
  SAY(__wasi_fd_filestat_set_times(folder, 0, 0, __WASI_FSTFLAGS_ATIM_NOW | __WASI_FSTFLAGS_MTIM_NOW));
  SAY(__wasi_path_filestat_get(root, 1, "all/file", &status));
  SAY(__wasi_path_filestat_get(root, 0, "all/file", &status));
  SAY(__wasi_path_filestat_set_times(root, 1, "all/file", 0, 0, __WASI_FSTFLAGS_MTIM_NOW));
  SAY(__wasi_path_filestat_set_times(root, 0, "all/file", 1000, 1000, __WASI_FSTFLAGS_ATIM | __WASI_FSTFLAGS_MTIM));
  SAY(__wasi_path_link(root, 0, "all/file", folder, "hard"));
  SAY(__wasi_path_symlink("file", folder, "soft"));
  SAY(__wasi_path_readlink(folder, "soft", (uint8_t *)block, sizeof block, &size));
  SAY(__wasi_path_open(folder, 1, "soft", __WASI_OFLAGS_TRUNC, rights, rights, __WASI_FDFLAGS_APPEND, &other));
  SAY(__wasi_fd_write(other, &out, 1, &size));
  SAY(__wasi_fd_renumber(other, fd));
  SAY(__wasi_path_rename(folder, "hard", root, "moved"));
  SAY(__wasi_path_rename(root, "all", root, "renamed"));
  SAY(__wasi_fd_readdir(folder, (uint8_t *)block, sizeof block, 0, &size));
  SAY(__wasi_fd_readdir(root, (uint8_t *)block, 100, 0, &size));
  SAY(__wasi_path_unlink_file(root, "moved"));
  SAY(__wasi_path_unlink_file(folder, "soft"));
  SAY(__wasi_path_unlink_file(folder, "file"));
  SAY(__wasi_fd_close(folder));
  SAY(__wasi_path_remove_directory(root, "renamed"));
  SAY(__wasi_path_open(root, 1, ".", __WASI_OFLAGS_DIRECTORY, look, rights, 0, &folder));
  SAY(__wasi_path_open(folder, 1, "synced", __WASI_OFLAGS_CREAT, rights, rights, __WASI_FDFLAGS_SYNC, &other));
  SAY(__wasi_fd_write(other, &out, 1, &size));
  SAY(__wasi_path_unlink_file(folder, "synced"));
  SAY(__wasi_path_symlink("/etc/passwd", folder, "absolute"));
  SAY(__wasi_path_symlink("../../etc/passwd", folder, "relative"));
  SAY(__wasi_path_open(folder, 1, "relative", 0, rights, rights, 0, &other));
  SAY(__wasi_path_open(folder, 0, "relative", 0, rights, rights, 0, &other));
  SAY(__wasi_path_open(folder, 1, "../etc/passwd", 0, rights, rights, 0, &other));
  SAY(__wasi_path_open(folder, 1, "/etc/passwd", 0, rights, rights, 0, &other));
  SAY(__wasi_path_unlink_file(folder, "relative"));
}

int main(int count, char **words) {
  for (int i = 1; i < count; i++) {
    const char *word = words[i];
    const char *first = i + 1 < count ? words[i + 1] : "", *second = i + 2 < count ? words[i + 2] : "";
    errno = 0;
    if (!strcmp(word, "all")) {
      all();
      continue;
    }
    i++;
    if (!strcmp(word, "put")) put(first, second), i++;
    else if (!strcmp(word, "cat")) cat(first);
    else if (!strcmp(word, "link")) printf("link %d\n", symlink(first, second) < 0 ? errno : 0), i++;
    else if (!strcmp(word, "open")) printf("open %d\n", open(first, O_RDONLY) < 0 ? errno : 0);
    else if (!strcmp(word, "mkdir")) printf("mkdir %d\n", mkdir(first, 0700) < 0 ? errno : 0);
    else if (!strcmp(word, "fill")) fill(first);
    else if (!strcmp(word, "many")) many(atoi(first));
    else if (!strcmp(word, "deep")) deep(atoi(first));
    else return 2;
  }
  return 0;
}
