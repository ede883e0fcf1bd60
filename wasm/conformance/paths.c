// What can be done with names: path_*, but for path_open, which open.c has.

#include "check.h"

static int dir;

#define LONG_NAME                                                                                                      \
  "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234" \
  "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234" \
  "0123456789012345678901234567"

static u32 type_of(const char *path, u32 length, u32 look) {
  __wasi_filestat_t stat;
  return path_filestat_get(dir, look, path, length, &stat) == SUCCESS ? stat.filetype : 99;
}

static void is_link(u32 line, const char *path, u32 length, const char *wanted, u32 wanted_length) {
  char target[300];
  u32 used = 77;
  equal(line, (u64)path_readlink(dir, path, length, target, sizeof target, &used), SUCCESS);
  if (equal(line, used, wanted_length)) equal(line, (u64)same(target, wanted, used), 1);
}

#define IS_LINK(path, target) is_link(__LINE__, P(path), P(target))

static void make(const char *path, u32 length) { make_file(dir, path, length, path, length); }

static void remove_file(u32 line, const char *path, u32 length) {
  equal(line, (u64)path_unlink_file(dir, path, length), SUCCESS);
}

static void remove_dir(u32 line, const char *path, u32 length) {
  equal(line, (u64)path_remove_directory(dir, path, length), SUCCESS);
}

#define UNLINK(path) remove_file(__LINE__, P(path))
#define RMDIR(path) remove_dir(__LINE__, P(path))
#define MKDIR(path) OK(path_create_directory(dir, P(path)))
#define SYMLINK(target, path) OK(path_symlink(P(target), dir, P(path)))

static void check_create_directory(void) {
  MKDIR("new");
  EQ(type_of(P("new"), NOFOLLOW), __WASI_FILETYPE_DIRECTORY);
  FAILS(EXIST, path_create_directory(dir, P("new")));
  FAILS(EXIST, path_create_directory(dir, P("new/")));
  FAILS(EXIST, path_create_directory(dir, P("./new/.")));
  MKDIR("new/inner");
  MKDIR("new/slash/");
  MKDIR("new/../new/./inner//../dots");
  RMDIR("new/dots");
  RMDIR("new/slash");
  RMDIR("new/inner");
  make(P("file"));
  FAILS(EXIST, path_create_directory(dir, P("file")));
  FAILS(NOTDIR, path_create_directory(dir, P("file/new")));
  FAILS(NOENT, path_create_directory(dir, P("missing/new")));
  SYMLINK("nowhere", "dangling");
  FAILS(EXIST, path_create_directory(dir, P("dangling")));
  SYMLINK("new", "link");
  FAILS(EXIST, path_create_directory(dir, P("link")));
  MKDIR("link/through");
  RMDIR("new/through");
  UNLINK("link");
  UNLINK("dangling");
  UNLINK("file");
  RMDIR("new");
  FAILS(EXIST, path_create_directory(dir, P(".")));
  FAILS(NOENT, path_create_directory(dir, P("")));
}

static void check_remove_directory(void) {
  MKDIR("folder");
  MKDIR("folder/inner");
  FAILS(NOTEMPTY, path_remove_directory(dir, P("folder")));
  RMDIR("folder/inner");
  make(P("folder/file"));
  FAILS(NOTEMPTY, path_remove_directory(dir, P("folder")));
  FAILS(NOTDIR, path_remove_directory(dir, P("folder/file")));
  FAILS(NOTDIR, path_remove_directory(dir, P("folder/file/")));
  UNLINK("folder/file");
  SYMLINK("folder", "link");
  FAILS(NOTDIR, path_remove_directory(dir, P("link")));
  FAILS(NOTDIR, path_remove_directory(dir, P("link/")));
  UNLINK("link");
  RMDIR("folder");
  FAILS(NOENT, path_remove_directory(dir, P("folder")));
  FAILS(NOENT, path_remove_directory(dir, P("missing/folder")));
  // Of a name with slashes at its end wasmtime alone would remove the "." in it, which is INVAL.
  MKDIR("slash");
  RMDIR("slash/");
  FAILS(NOENT, path_remove_directory(dir, P("slash")));
  MKDIR("slash");
  RMDIR("./slash///");
  FAILS(NOENT, path_remove_directory(dir, P("slash/")));
  FAILS(INVAL, path_remove_directory(dir, P(".")));
  FAILS(INVAL, path_remove_directory(dir, P("./")));
  FAILS(PERM, path_remove_directory(dir, P("/")));
  FAILS(PERM, path_remove_directory(dir, P("//")));
  FAILS(NOENT, path_remove_directory(dir, P("")));
}

static void check_unlink_file(void) {
  MKDIR("folder");
  FAILS(ISDIR, path_unlink_file(dir, P("folder")));
  FAILS(ISDIR, path_unlink_file(dir, P("folder/")));
  FAILS(NOENT, path_unlink_file(dir, P("folder/missing")));
  FAILS(NOENT, path_unlink_file(dir, P("missing/missing")));
  make(P("file"));
  FAILS(NOTDIR, path_unlink_file(dir, P("file/")));
  FAILS(NOTDIR, path_unlink_file(dir, P("file/inner")));
  // The link goes, not what it names.
  SYMLINK("file", "link");
  UNLINK("link");
  TRUE(exists(dir, P("file")));
  SYMLINK("folder", "link");
  UNLINK("link");
  TRUE(exists(dir, P("folder")));
  UNLINK("file");
  FAILS(NOENT, path_unlink_file(dir, P("file")));
  RMDIR("folder");
  FAILS(ISDIR, path_unlink_file(dir, P(".")));
  FAILS(NOENT, path_unlink_file(dir, P("")));
}

static void check_rename(void) {
  // Files: to a new name, over another, onto itself.
  make(P("a"));
  OK(path_rename(dir, P("a"), dir, P("b")));
  TRUE(!exists(dir, P("a")));
  make(P("longer"));
  OK(path_rename(dir, P("b"), dir, P("longer")));
  EQ(size_of(dir, P("longer")), 1);
  TRUE(!exists(dir, P("b")));
  OK(path_rename(dir, P("longer"), dir, P("longer")));
  EQ(size_of(dir, P("longer")), 1);
  OK(path_rename(dir, P("longer"), dir, P("a")));
  // Two names of one file: both stay.
  OK(path_link(dir, NOFOLLOW, P("a"), dir, P("b")));
  OK(path_rename(dir, P("a"), dir, P("b")));
  TRUE(exists(dir, P("a")) && exists(dir, P("b")));
  UNLINK("b");
  // Folders: to a new name, over an empty one, never over a full one or into themselves.
  MKDIR("from");
  make(P("from/inner"));
  OK(path_rename(dir, P("from"), dir, P("to")));
  TRUE(exists(dir, P("to/inner")));
  FAILS(NOENT, path_rename(dir, P("from"), dir, P("to")));
  MKDIR("from");
  FAILS(NOTEMPTY, path_rename(dir, P("from"), dir, P("to")));
  OK(path_rename(dir, P("to"), dir, P("from")));
  TRUE(exists(dir, P("from/inner")));
  TRUE(!exists(dir, P("to")));
  FAILS(INVAL, path_rename(dir, P("from"), dir, P("from/within")));
  // One over the other kind.
  FAILS(NOTDIR, path_rename(dir, P("from"), dir, P("a")));
  FAILS(ISDIR, path_rename(dir, P("a"), dir, P("from")));
  MKDIR("empty");
  FAILS(ISDIR, path_rename(dir, P("a"), dir, P("empty")));
  FAILS(NOENT, path_rename(dir, P("missing"), dir, P("b")));
  FAILS(NOENT, path_rename(dir, P("a"), dir, P("missing/b")));
  FAILS(NOTDIR, path_rename(dir, P("a/inner"), dir, P("b")));
  FAILS(NOTDIR, path_rename(dir, P("a"), dir, P("from/inner/b")));
  // Slashes at the end: of folders only.
  OK(path_rename(dir, P("empty/"), dir, P("slash")));
  OK(path_rename(dir, P("slash"), dir, P("empty/")));
  OK(path_rename(dir, P("empty/"), dir, P("slash//")));
  RMDIR("slash");
  FAILS(NOTDIR, path_rename(dir, P("a/"), dir, P("b")));
  FAILS(NOTDIR, path_rename(dir, P("a"), dir, P("b/")));
  // Between folders by their descriptors.
  int from = open_dir(dir, P("from"));
  OK(path_rename(from, P("inner"), dir, P("outer")));
  OK(path_rename(dir, P("outer"), from, P("inner2")));
  TRUE(exists(dir, P("from/inner2")));
  // An open file does not mind.
  int fd = open_file(from, P("inner2"));
  OK(path_rename(from, P("inner2"), from, P("inner3")));
  char text[20];
  u32 size;
  OK(read_text(fd, text, sizeof text, &size));
  EQ(size, 10);
  OK(fd_close(fd));
  OK(fd_close(from));
  UNLINK("from/inner3");
  RMDIR("from");
  // A link is renamed itself, whatever it names.
  SYMLINK("a", "link");
  OK(path_rename(dir, P("link"), dir, P("link2")));
  IS_LINK("link2", "a");
  OK(path_rename(dir, P("a"), dir, P("link2")));
  EQ(type_of(P("link2"), NOFOLLOW), __WASI_FILETYPE_REGULAR_FILE);
  UNLINK("link2");
}

static void check_link(void) {
  __wasi_filestat_t one, other;
  make(P("file"));
  OK(path_link(dir, NOFOLLOW, P("file"), dir, P("link")));
  OK(path_filestat_get(dir, NOFOLLOW, P("file"), &one));
  OK(path_filestat_get(dir, NOFOLLOW, P("link"), &other));
  EQ(one.ino, other.ino);
  EQ(one.dev, other.dev);
  EQ(one.nlink, 2);
  EQ(other.nlink, 2);
  EQ(other.filetype, __WASI_FILETYPE_REGULAR_FILE);
  make_file(dir, P("link"), P("changed text"));
  EQ(size_of(dir, P("file")), 12);
  UNLINK("file");
  EQ(size_of(dir, P("link")), 12);
  OK(path_rename(dir, P("link"), dir, P("file")));
  int folder = make_dir(dir, P("folder"));
  OK(path_link(dir, NOFOLLOW, P("file"), folder, P("link")));
  OK(path_link(folder, NOFOLLOW, P("link"), dir, P("back")));
  OK(path_filestat_get(dir, NOFOLLOW, P("back"), &one));
  EQ(one.nlink, 3);
  UNLINK("back");
  UNLINK("folder/link");
  OK(fd_close(folder));
  // Never over what is there, and never to a folder.
  FAILS(EXIST, path_link(dir, NOFOLLOW, P("file"), dir, P("file")));
  FAILS(EXIST, path_link(dir, NOFOLLOW, P("file"), dir, P("folder")));
  SYMLINK("nowhere", "dangling");
  FAILS(EXIST, path_link(dir, NOFOLLOW, P("file"), dir, P("dangling")));
  FAILS(PERM, path_link(dir, NOFOLLOW, P("folder"), dir, P("link")));
  FAILS(NOENT, path_link(dir, NOFOLLOW, P("missing"), dir, P("link")));
  FAILS(NOENT, path_link(dir, NOFOLLOW, P("file"), dir, P("missing/link")));
  FAILS(NOENT, path_link(dir, NOFOLLOW, P("file"), dir, P("link/")));
  FAILS(NOTDIR, path_link(dir, NOFOLLOW, P("file/"), dir, P("link")));
  // A link itself has a second name, wherever it leads; following it is refused.
  OK(path_link(dir, NOFOLLOW, P("dangling"), dir, P("link")));
  IS_LINK("link", "nowhere");
  UNLINK("link");
  FAILS(INVAL, path_link(dir, FOLLOW, P("dangling"), dir, P("link")));
  FAILS(INVAL, path_link(dir, FOLLOW, P("file"), dir, P("link")));
  TRUE(!exists(dir, P("link")));
  UNLINK("dangling");
  SYMLINK("loop", "loop");
  OK(path_link(dir, NOFOLLOW, P("loop"), dir, P("link")));
  UNLINK("link");
  UNLINK("loop");
  RMDIR("folder");
  UNLINK("file");
}

static void check_symlink_and_readlink(void) {
  char target[300];
  u32 used = 77;
  SYMLINK("target", "link");
  EQ(type_of(P("link"), NOFOLLOW), __WASI_FILETYPE_SYMBOLIC_LINK);
  EQ(size_of(dir, P("link")), 6);
  IS_LINK("link", "target");
  memset(target, 'x', sizeof target);
  OK(path_readlink(dir, P("link"), target, sizeof target, &used));
  EQ(target[6], 'x');
  // What does not fit is cut off, and it is no error.
  memset(target, 'x', sizeof target);
  OK(path_readlink(dir, P("link"), target, 4, &used));
  EQ(used, 4);
  TRUE(same(target, "targx", 5));
  OK(path_readlink(dir, P("link"), target, 6, &used));
  EQ(used, 6);
  OK(path_readlink(dir, P("link"), target, 0, &used));
  EQ(used, 0);
  FAILS(EXIST, path_symlink(P("other"), dir, P("link")));
  UNLINK("link");
  // What it says need not exist, nor be tidy; but it may not begin at a root.
  SYMLINK("a/../b//./c/", "link");
  IS_LINK("link", "a/../b//./c/");
  UNLINK("link");
  SYMLINK(LONG_NAME, "link");
  IS_LINK("link", LONG_NAME);
  UNLINK("link");
  SYMLINK("../../..", "link");
  IS_LINK("link", "../../..");
  UNLINK("link");
  SYMLINK("żółw", "łącze");
  IS_LINK("łącze", "żółw");
  UNLINK("łącze");
  FAILS(PERM, path_symlink(P("/"), dir, P("link")));
  FAILS(PERM, path_symlink(P("/etc/passwd"), dir, P("link")));
  FAILS(NOENT, path_symlink(P(""), dir, P("link")));
  TRUE(!exists(dir, P("link")));
  FAILS(NOENT, path_symlink(P("target"), dir, P("link/")));
  FAILS(NOENT, path_symlink(P("target"), dir, P("missing/link")));
  MKDIR("folder");
  FAILS(EXIST, path_symlink(P("target"), dir, P("folder")));
  FAILS(EXIST, path_symlink(P("target"), dir, P("folder/")));
  make(P("file"));
  FAILS(EXIST, path_symlink(P("target"), dir, P("file")));
  FAILS(NOTDIR, path_symlink(P("target"), dir, P("file/")));
  FAILS(NOTDIR, path_symlink(P("target"), dir, P("file/link")));
  FAILS(INVAL, path_readlink(dir, P("file"), target, sizeof target, &used));
  FAILS(INVAL, path_readlink(dir, P("folder"), target, sizeof target, &used));
  FAILS(INVAL, path_readlink(dir, P("."), target, sizeof target, &used));
  FAILS(NOENT, path_readlink(dir, P("missing"), target, sizeof target, &used));
  FAILS(NOENT, path_readlink(dir, P(""), target, sizeof target, &used));
  FAILS(NOTDIR, path_readlink(dir, P("file/link"), target, sizeof target, &used));
  UNLINK("file");
  RMDIR("folder");
}

static void check_stat(void) {
  __wasi_filestat_t stat;
  MKDIR("folder");
  make(P("folder/file"));
  EQ(type_of(P("folder"), NOFOLLOW), __WASI_FILETYPE_DIRECTORY);
  EQ(type_of(P("folder"), FOLLOW), __WASI_FILETYPE_DIRECTORY);
  EQ(type_of(P("folder/"), NOFOLLOW), __WASI_FILETYPE_DIRECTORY);
  EQ(type_of(P("."), NOFOLLOW), __WASI_FILETYPE_DIRECTORY);
  EQ(type_of(P("folder/.."), NOFOLLOW), __WASI_FILETYPE_DIRECTORY);
  EQ(type_of(P("folder/file"), NOFOLLOW), __WASI_FILETYPE_REGULAR_FILE);
  EQ(type_of(P("folder/file"), FOLLOW), __WASI_FILETYPE_REGULAR_FILE);
  FAILS(NOTDIR, path_filestat_get(dir, NOFOLLOW, P("folder/file/"), &stat));
  FAILS(NOTDIR, path_filestat_get(dir, NOFOLLOW, P("folder/file/inner"), &stat));
  FAILS(NOENT, path_filestat_get(dir, NOFOLLOW, P("folder/missing"), &stat));
  FAILS(NOENT, path_filestat_get(dir, NOFOLLOW, P("missing/missing"), &stat));
  FAILS(NOENT, path_filestat_get(dir, NOFOLLOW, P(""), &stat));
  SYMLINK("folder/file", "to-file");
  SYMLINK("folder", "to-folder");
  SYMLINK("to-folder", "to-link");
  SYMLINK("nowhere", "dangling");
  EQ(type_of(P("to-file"), NOFOLLOW), __WASI_FILETYPE_SYMBOLIC_LINK);
  EQ(type_of(P("to-file"), FOLLOW), __WASI_FILETYPE_REGULAR_FILE);
  EQ(type_of(P("to-folder"), NOFOLLOW), __WASI_FILETYPE_SYMBOLIC_LINK);
  EQ(type_of(P("to-folder"), FOLLOW), __WASI_FILETYPE_DIRECTORY);
  EQ(type_of(P("to-folder/"), NOFOLLOW), __WASI_FILETYPE_DIRECTORY);
  EQ(type_of(P("to-link"), FOLLOW), __WASI_FILETYPE_DIRECTORY);
  // Whatever is before the last name is always followed.
  EQ(type_of(P("to-link/file"), NOFOLLOW), __WASI_FILETYPE_REGULAR_FILE);
  EQ(type_of(P("dangling"), NOFOLLOW), __WASI_FILETYPE_SYMBOLIC_LINK);
  FAILS(NOENT, path_filestat_get(dir, FOLLOW, P("dangling"), &stat));
  OK(path_filestat_get(dir, FOLLOW, P("to-file"), &stat));
  EQ(stat.size, 11);
  EQ(stat.nlink, 1);
  // Times, of the link or of what it names.
  OK(path_filestat_set_times(dir, NOFOLLOW, P("folder/file"), 1000000001, 2000000002, ATIM | MTIM));
  OK(path_filestat_get(dir, NOFOLLOW, P("folder/file"), &stat));
  EQ(stat.atim, 1000000001);
  EQ(stat.mtim, 2000000002);
  OK(path_filestat_set_times(dir, NOFOLLOW, P("to-file"), 3000000003, 4000000004, ATIM | MTIM));
  OK(path_filestat_get(dir, NOFOLLOW, P("to-file"), &stat));
  EQ(stat.mtim, 4000000004);
  OK(path_filestat_get(dir, FOLLOW, P("to-file"), &stat));
  EQ(stat.mtim, 2000000002);
  OK(path_filestat_set_times(dir, FOLLOW, P("to-file"), 5, 6000000006, MTIM));
  OK(path_filestat_get(dir, NOFOLLOW, P("folder/file"), &stat));
  EQ(stat.atim, 1000000001);
  EQ(stat.mtim, 6000000006);
  OK(path_filestat_set_times(dir, FOLLOW, P("folder/file"), 7000000007, 5, ATIM | MTIM_NOW));
  OK(path_filestat_get(dir, NOFOLLOW, P("folder/file"), &stat));
  EQ(stat.atim, 7000000007);
  TRUE(stat.mtim > 1600000000000000000);
  OK(path_filestat_set_times(dir, NOFOLLOW, P("folder/"), 1000000001, 2000000002, MTIM));
  OK(path_filestat_get(dir, NOFOLLOW, P("folder"), &stat));
  EQ(stat.mtim, 2000000002);
  OK(path_filestat_set_times(dir, NOFOLLOW, P("dangling"), 5, 2000000002, MTIM));
  OK(path_filestat_set_times(dir, NOFOLLOW, P("folder/file"), 5, 5, 0));
  FAILS(INVAL, path_filestat_set_times(dir, NOFOLLOW, P("folder/file"), 5, 5, MTIM | MTIM_NOW));
  FAILS(INVAL, path_filestat_set_times(dir, NOFOLLOW, P("folder/file"), 5, 5, ATIM | ATIM_NOW));
  OK(path_filestat_get(dir, NOFOLLOW, P("folder/file"), &stat));
  EQ(stat.atim, 7000000007);
  FAILS(NOENT, path_filestat_set_times(dir, FOLLOW, P("dangling"), 5, 5, MTIM));
  FAILS(NOENT, path_filestat_set_times(dir, NOFOLLOW, P("missing"), 5, 5, MTIM));
  FAILS(NOTDIR, path_filestat_set_times(dir, NOFOLLOW, P("folder/file/"), 5, 5, MTIM));
  UNLINK("to-file");
  UNLINK("to-folder");
  UNLINK("to-link");
  UNLINK("dangling");
  UNLINK("folder/file");
  RMDIR("folder");
}

// Every function that takes a path, with one that leads nowhere good: the errno is the same, but for path_open's.
static void refuse(u32 line, u32 errno, u32 open_errno, int at, const char *path, u32 length) {
  __wasi_filestat_t stat;
  char target[10];
  u32 used;
  int fd = -1;
  make(P("kept"));
  equal(line, (u64)path_create_directory(at, path, length), errno);
  equal(line, (u64)path_filestat_get(at, NOFOLLOW, path, length, &stat), errno);
  equal(line, (u64)path_filestat_get(at, FOLLOW, path, length, &stat), errno);
  equal(line, (u64)path_filestat_set_times(at, NOFOLLOW, path, length, 0, 0, MTIM_NOW), errno);
  equal(line, (u64)path_filestat_set_times(at, FOLLOW, path, length, 0, 0, MTIM_NOW), errno);
  equal(line, (u64)path_link(at, NOFOLLOW, path, length, dir, P("link")), errno);
  equal(line, (u64)path_link(dir, NOFOLLOW, P("kept"), at, path, length), errno);
  equal(line, (u64)path_open(at, NOFOLLOW, path, length, 0, READ, 0, 0, &fd), open_errno);
  equal(line, (u64)path_open(at, FOLLOW, path, length, 0, READ, 0, 0, &fd), open_errno);
  equal(line, (u64)path_open(at, NOFOLLOW, path, length, CREAT, READ | WRITE, 0, 0, &fd), open_errno);
  equal(line, (u64)path_open(at, NOFOLLOW, path, length, DIRECTORY, READ, 0, 0, &fd), open_errno);
  equal(line, (u64)path_readlink(at, path, length, target, sizeof target, &used), errno);
  equal(line, (u64)path_remove_directory(at, path, length), errno);
  equal(line, (u64)path_rename(at, path, length, dir, P("renamed")), errno);
  equal(line, (u64)path_rename(dir, P("kept"), at, path, length), errno);
  equal(line, (u64)path_symlink(P("target"), at, path, length), errno);
  equal(line, (u64)path_unlink_file(at, path, length), errno);
  EQ(fd, -1);
  remove_file(line, P("kept"));
}

#define REFUSED(errno, at, path) refuse(__LINE__, errno, errno, at, P(path))

static void check_refusals(void) {
  MKDIR("folder");
  make(P("file"));
  // Out of the folder, by any way; that it would come back in does not help.
  REFUSED(PERM, dir, "../outside");
  REFUSED(PERM, dir, "../work/file");
  REFUSED(PERM, dir, "folder/../../outside");
  REFUSED(PERM, dir, "./folder/../../work/file");
  REFUSED(PERM, dir, "/");
  REFUSED(PERM, dir, "/file");
  REFUSED(PERM, dir, "//file");
  REFUSED(PERM, ROOT, "../etc/passwd");
  REFUSED(PERM, ROOT, "../../../../../../../../etc/passwd");
  REFUSED(PERM, ROOT, "/etc/passwd");
  // By links, which are followed on the way.
  SYMLINK("..", "up");
  SYMLINK("../..", "far-up");
  SYMLINK("folder/../..", "round-about");
  SYMLINK("up", "up-again");
  REFUSED(PERM, dir, "up/outside");
  REFUSED(PERM, dir, "far-up/outside");
  REFUSED(PERM, dir, "round-about/outside");
  REFUSED(PERM, dir, "up-again/outside");
  REFUSED(PERM, dir, "folder/../up/outside");
  int inner = open_dir(dir, P("folder"));
  SYMLINK("../file", "folder/leads-out");
  EQ(type_of(P("folder/leads-out"), FOLLOW), __WASI_FILETYPE_REGULAR_FILE);
  int fd = -1;
  __wasi_filestat_t stat;
  FAILS(PERM, path_filestat_get(inner, FOLLOW, P("leads-out"), &stat));
  FAILS(PERM, path_open(inner, FOLLOW, P("leads-out"), 0, READ, 0, 0, &fd));
  FAILS(PERM, path_open(inner, FOLLOW, P("leads-out"), CREAT, READ | WRITE, 0, 0, &fd));
  OK(fd_close(inner));
  UNLINK("folder/leads-out");
  UNLINK("up");
  UNLINK("far-up");
  UNLINK("round-about");
  UNLINK("up-again");
  // Links that never end.
  SYMLINK("one", "two");
  SYMLINK("two", "one");
  SYMLINK("self", "self");
  REFUSED(LOOP, dir, "one/file");
  REFUSED(LOOP, dir, "self/file");
  FAILS(LOOP, path_filestat_get(dir, FOLLOW, P("one"), &stat));
  FAILS(LOOP, path_filestat_get(dir, FOLLOW, P("self"), &stat));
  FAILS(LOOP, path_filestat_set_times(dir, FOLLOW, P("self"), 0, 0, MTIM_NOW));
  FAILS(LOOP, path_open(dir, FOLLOW, P("self"), 0, READ, 0, 0, &fd));
  EQ(type_of(P("self"), NOFOLLOW), __WASI_FILETYPE_SYMBOLIC_LINK);
  UNLINK("one");
  UNLINK("two");
  UNLINK("self");
  // Names that are none.
  REFUSED(NAMETOOLONG, dir, LONG_NAME);
  REFUSED(NAMETOOLONG, dir, "folder/" LONG_NAME);
  REFUSED(INVAL, dir, "file\0");
  REFUSED(INVAL, dir, "fi\0le");
  REFUSED(ILSEQ, dir, "\xff\xfe");
  REFUSED(ILSEQ, dir, "folder/\xc3(");
  // Descriptors that are no folders: BADF to wasmtime, where the specification has NOTDIR.
  fd = open_file(dir, P("file"));
  refuse(__LINE__, BADF, NOTDIR, fd, P("inner"));
  OK(fd_close(fd));
  REFUSED(BADF, fd, "inner");
  REFUSED(BADF, NO_FD, "inner");
  REFUSED(BADF, -1, "inner");
  REFUSED(BADF, STDIN, "inner");
  REFUSED(BADF, STDOUT, "inner");
  UNLINK("file");
  RMDIR("folder");
}

static void check_chain(void) {
  // As many links as Linux follows on the way, and more than it does.
  make(P("l0"));
  char name[] = "l00", before[] = "l00";
  for (u32 i = 1; i <= 60; i++) {
    name[1] = (char)('0' + i / 10), name[2] = (char)('0' + i % 10);
    before[1] = (char)('0' + (i - 1) / 10), before[2] = (char)('0' + (i - 1) % 10);
    OK(path_symlink(i == 1 ? "l0" : before, i == 1 ? 2 : 3, dir, name, 3));
  }
  EQ(type_of(P("l20"), FOLLOW), __WASI_FILETYPE_REGULAR_FILE);
  __wasi_filestat_t stat;
  FAILS(LOOP, path_filestat_get(dir, FOLLOW, P("l60"), &stat));
  for (u32 i = 1; i <= 60; i++) {
    name[1] = (char)('0' + i / 10), name[2] = (char)('0' + i % 10);
    remove_file(__LINE__, name, 3);
  }
  UNLINK("l0");
}

static void check_deep(void) {
  // Fifty folders down, and back up by as many "..".
  static char path[400];
  for (u32 depth = 0; depth < 50; depth++) {
    memcpy(path + 2 * depth, "d/", 2);
    OK(path_create_directory(dir, path, 2 * depth + 1));
  }
  for (u32 i = 0; i < 50; i++) memcpy(path + 100 + 3 * i, "../", 3);
  EQ(type_of(path, 250, NOFOLLOW), __WASI_FILETYPE_DIRECTORY);
  __wasi_filestat_t stat;
  memcpy(path + 250, "..", 2);
  FAILS(PERM, path_filestat_get(dir, NOFOLLOW, path, 252, &stat));
  for (u32 depth = 50; depth-- > 0;) OK(path_remove_directory(dir, path, 2 * depth + 1));
}

static void check(void) {
  dir = make_dir(ROOT, P("work"));
  check_create_directory();
  check_remove_directory();
  check_unlink_file();
  check_rename();
  check_link();
  check_symlink_and_readlink();
  check_stat();
  check_refusals();
  check_chain();
  check_deep();
  // Nothing is left behind.
  OK(fd_close(dir));
  OK(path_remove_directory(ROOT, P("work")));
}
