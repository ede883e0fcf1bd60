/* Makes writes and flushes of files under WW_FAULT_DIRECTORY fail while the file WW_FAULT_FLAG is there. It says which:
   "fsync", "write" or "all", the errno, a part of the paths, and "once" to be removed by the first that fails. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int fails(int fd, const char *what) {
  const char *flag = getenv("WW_FAULT_FLAG"), *directory = getenv("WW_FAULT_DIRECTORY");
  int before = errno, number = 0;
  if (flag == NULL || directory == NULL) return 0;
  int file = open(flag, O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    errno = before;
    return 0;
  }
  char text[256] = {0}, which[16] = {0}, part[64] = {0}, once[8] = {0}, link[64], path[4096];
  ssize_t size = read(file, text, sizeof text - 1);
  close(file);
  errno = before;
  if (size <= 0 || sscanf(text, "%15s %d %63s %7s", which, &number, part, once) < 3) return 0;
  if (strcmp(which, "all") != 0 && strcmp(which, what) != 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  size = readlink(link, path, sizeof path - 1);
  errno = before;
  if (size < 0) return 0;
  path[size] = 0;
  if (strncmp(path, directory, strlen(directory)) != 0 || strstr(path + strlen(directory), part) == NULL) return 0;
  if (strcmp(once, "once") == 0) unlink(flag);
  errno = number;
  return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int fd) { return fails(fd, "fsync") ? -1 : NEXT(fsync)(fd); }
int fdatasync(int fd) { return fails(fd, "fsync") ? -1 : NEXT(fdatasync)(fd); }
ssize_t write(int fd, const void *data, size_t size) {
  return fails(fd, "write") ? -1 : NEXT(write)(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
  return fails(fd, "write") ? -1 : NEXT(pwrite)(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  return fails(fd, "write") ? -1 : NEXT(pwrite64)(fd, data, size, at);
}
