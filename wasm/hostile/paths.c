/* Try to read and write outside the one folder that is given, as "/" (descriptor 3). Expects inside.txt, which holds
 * "inside\n", folder/file.txt and folder/deep/file.txt in it. Prints every trick that worked, on a line; exit code 0 only when none did,
 * 2 when it was not given what it expects.
 *
 * What leads back into the folder is no escape: a host may refuse "..", or may take the folder for the root of all.
 */
#include <string.h>

#include "wasi.h"

static u32 escapes, number;
static struct {
  u64 device, inode;
  u8 rest[48];
} root, found;
static u8 block[4096];

static void put(const char *text, u32 size) {
  struct vector vector = {at(text), size};
  wasi_fd_write(1, at(&vector), 1, at(&number));
}

static void escape(const char *what, const char *path, u32 size) {
  escapes++;
  put(what, strlen(what));
  put(" ", 1);
  put(path, size < 200 ? size : 200);
  put("\n", 1);
}

static u32 open_at(u32 folder, const char *path, u32 size, u32 follow, u32 flags, u64 rights, u32 *fd) {
  return wasi_path_open(folder, follow, at(path), size, flags, rights, ALL_RIGHTS, 0, at(fd));
}

static int exists_inside(const char *name) {
  return !wasi_path_filestat_get(3, 0, at(name), strlen(name), at(&found));
}

static int made_inside(void) {
  return exists_inside("made") || exists_inside("folder/made") || exists_inside("folder/deep/made") ||
         exists_inside("moved/made");
}

/* Whether that descriptor is of something inside. */
static int is_inside(u32 fd) {
  if (!wasi_fd_filestat_get(fd, at(&found)) && found.device == root.device && found.inode == root.inode) return 1;
  /* A file of ours says so. */
  struct vector vector = {at(block), sizeof block};
  if (!wasi_fd_pread(fd, at(&vector), 1, 0, at(&number)) && number == 7 && !memcmp(block, "inside\n", 7)) return 1;
  /* A folder of ours has a folder "deep", or files of ours. */
  u32 inner;
  static const char *const ours[] = {"inside.txt", "file.txt"};
  for (u32 i = 0; i < sizeof ours / sizeof *ours; i++)
    if (!open_at(fd, ours[i], strlen(ours[i]), 0, 0, READ_RIGHTS, &inner)) {
      wasi_fd_close(inner);
      return 1;
    }
  return 0;
}

/* Try to open what is there, in every way. */
static void read_out(u32 folder, const char *path, u32 size) {
  static const u32 flags[] = {0, DIRECTORY};
  u32 fd;
  for (u32 follow = 0; follow <= FOLLOW; follow++) {
    for (u32 i = 0; i < 2; i++)
      if (!open_at(folder, path, size, follow, flags[i], i ? FOLDER_RIGHTS : READ_RIGHTS, &fd)) {
        if (!is_inside(fd)) escape("read", path, size);
        wasi_fd_close(fd);
      }
    if (!wasi_path_filestat_get(folder, follow, at(path), size, at(&found)) && found.device != root.device)
      escape("looked at", path, size);
  }
}

/* Try to make, change and remove path, whose last part is "made". */
static void write_out(u32 folder, const char *path, u32 size) {
  static const u32 flags[] = {CREATE, CREATE | EXCLUSIVE, CREATE | TRUNCATE};
  u32 fd;
  for (u32 i = 0; i < 6; i++)
    if (!open_at(folder, path, size, i & 1, flags[i / 2], ALL_RIGHTS, &fd)) {
      wasi_fd_close(fd);
      if (!made_inside()) escape("made", path, size);
      wasi_path_unlink_file(folder, at(path), size);
    }
  if (!wasi_path_create_directory(folder, at(path), size)) {
    if (!made_inside()) escape("made folder", path, size);
    wasi_path_remove_directory(folder, at(path), size);
  }
  if (!wasi_path_symlink(at("x"), 1, folder, at(path), size)) {
    if (!made_inside()) escape("made link", path, size);
    wasi_path_unlink_file(folder, at(path), size);
  }
  for (u32 follow = 0; follow <= FOLLOW; follow++)
    if (!wasi_path_link(3, follow, at("inside.txt"), 10, folder, at(path), size)) {
      if (!made_inside()) escape("made hard link", path, size);
      wasi_path_unlink_file(folder, at(path), size);
    }
  if (!open_at(3, "moving", 6, 0, CREATE, ALL_RIGHTS, &fd)) {
    wasi_fd_close(fd);
    if (!wasi_path_rename(3, at("moving"), 6, folder, at(path), size)) {
      if (!made_inside()) escape("moved to", path, size);
      wasi_path_unlink_file(folder, at(path), size);
    }
    wasi_path_unlink_file(3, at("moving"), 6);
  }
}

/* Try to change or take what is there, where nothing of ours is. */
static void take_out(u32 folder, const char *path, u32 size) {
  for (u32 follow = 0; follow <= FOLLOW; follow++) {
    if (!wasi_path_link(folder, follow, at(path), size, 3, at("taken"), 5)) {
      read_out(3, "taken", 5);
      wasi_path_unlink_file(3, at("taken"), 5);
    }
    if (!wasi_path_filestat_set_times(folder, follow, at(path), size, 0, 0, SET_ACCESS_NOW | SET_MODIFIED_NOW) &&
        !wasi_path_filestat_get(folder, follow, at(path), size, at(&found)) && found.device != root.device)
      escape("changed times of", path, size);
  }
  if (!wasi_path_rename(folder, at(path), size, 3, at("taken"), 5)) escape("moved here", path, size);
  if (!wasi_path_unlink_file(folder, at(path), size)) escape("removed", path, size);
  if (!wasi_path_remove_directory(folder, at(path), size)) escape("removed folder", path, size);
}

static const char *join(const char *before, const char *after) {
  static char path[1024];
  strcpy(path, before);
  strcat(path, after);
  return path;
}

static void try_all(u32 folder, const char *before) {
  static const char *const there[] = {"etc/passwd", "etc", "proc/self/root", "proc/self/cwd", "proc/self/fd/0",
                                      "proc/self/environ", "proc/self/mem", "proc/1/root", "proc", "dev/null",
                                      "dev/fd/3", "sys", "tmp", "root", ""};
  for (u32 i = 0; i < sizeof there / sizeof *there; i++) {
    const char *path = join(before, there[i]);
    read_out(folder, path, strlen(path));
    if (there[i][0]) take_out(folder, path, strlen(path));
  }
  static const char *const made[] = {"made", "tmp/made", "dev/shm/made", "proc/self/made"};
  for (u32 i = 0; i < sizeof made / sizeof *made; i++) {
    const char *path = join(before, made[i]);
    write_out(folder, path, strlen(path));
  }
}

static u32 link(const char *target, const char *name) {
  return wasi_path_symlink(at(target), strlen(target), 3, at(name), strlen(name));
}

int main(void) {
  u32 fd, folder, deep, inner;
  static u8 prestat[8];
  static char preopened[64];
  if (wasi_fd_filestat_get(3, at(&root)) || !exists_inside("inside.txt") || !exists_inside("folder/file.txt") ||
      !exists_inside("folder/deep/file.txt"))
    return 2;
  /* Nothing else is open, whatever it may be called. */
  for (fd = 4; fd < 256; fd++) {
    if (!wasi_fd_prestat_get(fd, at(prestat))) escape("a second folder", "", 0);
    if (!wasi_fd_filestat_get(fd, at(&found))) escape("a descriptor", "", 0);
  }
  if (wasi_fd_prestat_get(3, at(prestat)) || prestat[4] != 1 || wasi_fd_prestat_dir_name(3, at(preopened), 1) ||
      preopened[0] != '/')
    escape("the folder is called", preopened, sizeof preopened);

  /* Dots and slashes. */
  static const char *const ways[] = {
      "../", "../../../../../../", "/", "//", "/../", "./../", ".//..//", "folder/../../", "folder/deep/../../../",
      "folder/./../..//", "inside.txt/../../", "missing/../../", "folder/missing/../../../", "\xc0\xae\xc0\xae/",
      "\xef\xbc\x8e\xef\xbc\x8e/", "... /", ".. /", "/./../", "/proc/self/root/", "/proc/self/cwd/",
      "/dev/fd/3/../", "~/", "file:///", "..;/"};
  for (u32 i = 0; i < sizeof ways / sizeof *ways; i++) try_all(3, ways[i]);
  /* What separates folders elsewhere is part of a name here: made of it is inside. */
  static const char *const others[] = {"..\\", "\\..\\", "folder/..\\..\\", "%2e%2e%2f", "C:\\", "\\\\?\\", "..:"};
  for (u32 i = 0; i < sizeof others / sizeof *others; i++) {
    const char *path = join(others[i], "etc/passwd");
    read_out(3, path, strlen(path));
    read_out(3, others[i], strlen(others[i]));
  }
  static const char *const folders[] = {"..", "../", "../.", "/", "/.", "/..", "folder/../..", "folder/deep/../../..",
                                        "inside.txt/../..", "inside.txt/..", "", "inside.txt/", "inside.txt/."};
  for (u32 i = 0; i < sizeof folders / sizeof *folders; i++) read_out(3, folders[i], strlen(folders[i]));

  /* NUL, where one side may stop reading and the other may not. */
  read_out(3, "..\0/inside.txt", 14);
  read_out(3, "/etc/passwd\0inside.txt", 22);
  read_out(3, "inside.txt\0/../../etc/passwd", 28);
  write_out(3, "../made\0", 8);
  write_out(3, "../../tmp/made\0made", 19);

  /* Names that are not text, and far too long. */
  static char long_name[1 << 16];
  for (u32 i = 0; i + 3 <= sizeof long_name; i += 3) memcpy(long_name + i, "../", 3);
  read_out(3, long_name, sizeof long_name - 1);
  for (u32 size = 3; size < 300; size += 3) read_out(3, long_name, size);
  read_out(3, "\xff\xfe", 2);

  /* Links of its own that point out. */
  static const char *const targets[] = {"..", "../", "../..", "/", "/etc", "/proc/self/root", "/proc/self/cwd", "/tmp",
                                        "../../../../../..", "folder/../..", "/proc/self/fd/3/..", "./.."};
  for (u32 i = 0; i < sizeof targets / sizeof *targets; i++)
    if (!link(targets[i], "out")) {
      try_all(3, "out/");
      read_out(3, "out", 3);
      wasi_path_unlink_file(3, at("out"), 3);
    }
  static const char *const files[] = {"../../../etc/passwd", "/etc/passwd", "/proc/self/environ", "/proc/self/mem",
                                      "/dev/null", "/proc/self/exe", "/proc/self/maps"};
  for (u32 i = 0; i < sizeof files / sizeof *files; i++)
    if (!link(files[i], "out")) {
      read_out(3, "out", 3);
      read_out(3, "out/", 4);
      if (!open_at(3, "out", 3, FOLLOW, CREATE | TRUNCATE, ALL_RIGHTS, &fd)) {
        wasi_fd_close(fd);
        escape("wrote through a link to", files[i], strlen(files[i]));
      }
      wasi_path_unlink_file(3, at("out"), 3);
    }
  /* A link to what is not there yet: making it is writing outside. */
  if (!link("../made", "out")) {
    for (u32 flags = 1; flags < 16; flags += 2)
      if (!open_at(3, "out", 3, FOLLOW, flags & ~DIRECTORY, ALL_RIGHTS, &fd)) {
        wasi_fd_close(fd);
        escape("made through a link", "../made", 7);
      }
    wasi_path_unlink_file(3, at("out"), 3);
  }

  /* Links in links: each one looks as if it stayed inside. */
  if (!link("folder", "one") && !link("one/deep", "two") && !link("two/../../..", "three")) {
    read_out(3, "three", 5);
    try_all(3, "three/");
    try_all(3, "two/../../../");
  }
  if (!link("four", "five") && !link("five", "four")) {
    read_out(3, "four", 4);
    read_out(3, "five/x", 6);
    write_out(3, "five/made", 9);
  }
  if (!wasi_path_symlink(at("../../.."), 8, 3, at("folder/deep/up"), 14)) {
    try_all(3, "folder/deep/up/");
    read_out(3, "folder/deep/up", 14);
  }
  static char chain[3] = "c0";
  for (u32 i = 0; i < 9; i++) {
    char before[3] = {'c', (char)('0' + i), 0}, after[3] = {'c', (char)('1' + i), 0};
    if (i == 0) link("..", chain);
    link(before, after);
  }
  read_out(3, "c9", 2);
  try_all(3, "c9/");

  /* From a folder further down, and after that was moved up. */
  if (open_at(3, "folder", 6, 0, DIRECTORY, FOLDER_RIGHTS, &folder) ||
      open_at(3, "folder/deep", 11, 0, DIRECTORY, FOLDER_RIGHTS, &deep)) {
    escape("cannot even open", "folder", 6);
  } else {
    try_all(folder, "../../");
    try_all(deep, "../../../");
    if (!wasi_path_rename(3, at("folder/deep"), 11, 3, at("moved"), 5)) {
      try_all(deep, "../../");
      try_all(folder, "../../");
      try_all(folder, "deep/../../../");
      /* A link where the folder was. */
      if (!link("../..", "folder/deep")) {
        try_all(folder, "deep/");
        try_all(3, "folder/deep/");
        wasi_path_unlink_file(3, at("folder/deep"), 11);
      }
      /* Back and forth while it is open: none of the ways there may lead further up than the folder. */
      for (u32 i = 0; i < 20; i++) {
        wasi_path_rename(3, at("moved"), 5, 3, at("folder/deep"), 11);
        read_out(deep, "../../..", 8);
        wasi_path_rename(3, at("folder/deep"), 11, 3, at("moved"), 5);
        read_out(deep, "../..", 5);
        read_out(deep, "../../etc/passwd", 16);
      }
    }
    /* Removed while it is open. */
    if (!wasi_path_create_directory(3, at("gone"), 4) &&
        !open_at(3, "gone", 4, 0, DIRECTORY, FOLDER_RIGHTS, &inner) && !wasi_path_remove_directory(3, at("gone"), 4)) {
      try_all(inner, "");
      try_all(inner, "../../");
    }
  }

  /* The folder itself. */
  if (!wasi_path_remove_directory(3, at("."), 1)) escape("removed", ".", 1);
  if (!wasi_path_rename(3, at("."), 1, 3, at("elsewhere"), 9)) escape("moved", ".", 1);
  if (!wasi_path_rename(3, at("folder"), 6, 3, at("folder/itself"), 13)) escape("moved into itself", "folder", 6);

  /* More rights than were given. */
  if (!open_at(3, "inside.txt", 10, 0, 0, READ_RIGHTS, &fd)) {
    wasi_fd_fdstat_set_rights(fd, ALL_RIGHTS, ALL_RIGHTS);
    struct vector vector = {at("over\n"), 5};
    if (!wasi_fd_pwrite(fd, at(&vector), 1, 0, at(&number))) escape("wrote what was opened to read", "inside.txt", 10);
    wasi_fd_close(fd);
  }
  /* A file for a folder. */
  if (!open_at(3, "inside.txt", 10, 0, DIRECTORY, FOLDER_RIGHTS, &fd)) escape("opened as a folder", "inside.txt", 10);
  if (!open_at(3, "inside.txt", 10, 0, 0, READ_RIGHTS, &fd)) {
    try_all(fd, "");
    try_all(fd, "../");
  }
  return escapes != 0;
}
