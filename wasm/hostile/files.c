/* Make the file system large, deep or odd: a command with a file system. argv[1] says how. Ends by itself with 0 once it
 * is refused, or is done; prints nothing.
 */
#include <string.h>

#include "wasi.h"

static u8 block[65536];
static u32 number;

static u32 create(u32 folder, const char *name, u32 *fd) {
  return wasi_path_open(folder, 0, at(name), strlen(name), CREATE, ALL_RIGHTS, ALL_RIGHTS, 0, at(fd));
}

static u32 put(u32 fd, u64 offset, u32 size) {
  struct vector vector = {at(block), size};
  return wasi_fd_pwrite(fd, at(&vector), 1, offset, at(&number));
}

/* A name of eight letters. */
static const char *name_of(u32 number) {
  static char name[9];
  for (u32 i = 0; i < 8; i++) name[i] = 'a' + (number >> 4 * i & 15);
  return name;
}

int main(int argc, char **argv) {
  const char *how = argc > 1 ? argv[1] : "";
  u32 fd, folder = 3;
  /* One file that never ends. */
  if (!strcmp(how, "large") && !create(3, "large", &fd))
    for (u64 end = 0; !put(fd, end, sizeof block); end += number) {}
  /* The same, and not taking no for an answer. */
  if (!strcmp(how, "stubborn") && !create(3, "large", &fd))
    for (u64 end = 0;; end += sizeof block) put(fd, end, sizeof block);
  /* A file with a terabyte of nothing in it. */
  if (!strcmp(how, "sparse") && !create(3, "sparse", &fd)) {
    put(fd, (u64)1 << 40, 1);
    wasi_fd_filestat_set_size(fd, (u64)1 << 40);
    wasi_fd_filestat_set_size(fd, ~(u64)0);
    wasi_fd_allocate(fd, 0, (u64)1 << 40);
    wasi_fd_allocate(fd, ~(u64)0, ~(u64)0);
  }
  /* Files of nothing, in one folder. */
  if (!strcmp(how, "many"))
    for (u32 i = 0; !create(3, name_of(i), &fd); i++) wasi_fd_close(fd);
  /* Folders in folders. */
  if (!strcmp(how, "deep"))
    for (u32 i = 0; i < 10000 && !wasi_path_create_directory(folder, at("d"), 1); i++) {
      if (wasi_path_open(folder, 0, at("d"), 1, DIRECTORY, FOLDER_RIGHTS, ALL_RIGHTS, 0, at(&fd))) break;
      if (folder != 3) wasi_fd_close(folder);
      folder = fd;
    }
  /* Links to each other, to folders above, and out. */
  if (!strcmp(how, "links")) {
    wasi_path_symlink(at("b"), 1, 3, at("a"), 1);
    wasi_path_symlink(at("a"), 1, 3, at("b"), 1);
    wasi_path_symlink(at("."), 1, 3, at("here"), 4);
    wasi_path_symlink(at(".."), 2, 3, at("up"), 2);
    wasi_path_symlink(at("../../../../etc/passwd"), 22, 3, at("passwd"), 6);
    wasi_path_symlink(at("/etc"), 4, 3, at("etc"), 3);
  }
  /* A link beside the same file again and again. */
  if (!strcmp(how, "hard links") && !create(3, "one", &fd) && !put(fd, 0, sizeof block))
    for (u32 i = 0; i < 10000 && !wasi_path_link(3, 0, at("one"), 3, 3, at(name_of(i)), 8); i++) {}
  /* Names that are trouble for who lists or packs them. */
  if (!strcmp(how, "names")) {
    static const char *const odd[] = {"...", "..\\up", "\\\\server\\share", "C:", "con", "new\nline", "\x1b[31m",
                                      "\xe2\x80\xae", " ", "-rf", "~", "*", "%00", "\xc0\xae\xc0\xae", "a:b"};
    for (u32 i = 0; i < sizeof odd / sizeof *odd; i++)
      if (!create(3, odd[i], &fd)) put(fd, 0, 1);
    static char longest[256];
    memset(longest, 'x', 255);
    if (!create(3, longest, &fd)) put(fd, 0, 1);
  }
  /* One megabyte of what does not compress, to be brought back. */
  if (!strcmp(how, "artifact") && !create(3, "artifact", &fd))
    for (u32 i = 0; i < 16; i++) {
      wasi_random_get(at(block), sizeof block);
      if (put(fd, (u64)i * sizeof block, sizeof block)) break;
    }
  return 0;
}
