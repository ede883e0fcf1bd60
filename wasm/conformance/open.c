// path_open: everything that can be asked for, of everything that can be there.

#include "check.h"

static int dir;

typedef enum { FILE_, FOLDER, MISSING, LINK, DANGLING, FILE_SLASH, FOLDER_SLASH, MISSING_SLASH } Kind;

typedef struct {
  const char *path;
  Kind kind[2];  // as it is met without and with following
} Target;

static const Target TARGETS[] = {
    {"file", {FILE_, FILE_}},
    {"folder", {FOLDER, FOLDER}},
    {"missing", {MISSING, MISSING}},
    {"to-file", {LINK, FILE_}},
    {"to-folder", {LINK, FOLDER}},
    {"dangling", {LINK, DANGLING}},
    {"file/", {FILE_SLASH, FILE_SLASH}},
    {"folder/", {FOLDER_SLASH, FOLDER_SLASH}},
    {"missing/", {MISSING_SLASH, MISSING_SLASH}},
    {"to-file/", {FILE_SLASH, FILE_SLASH}},
    {"to-folder/", {FOLDER_SLASH, FOLDER_SLASH}},
    {"folder/../file", {FILE_, FILE_}},
};

static u32 expected(Kind kind, u32 oflags, u32 fdflags, u64 rights) {
  // wasmtime synchronizes no file.
  if (fdflags & (DSYNC | RSYNC | SYNC)) return NOTSUP;
  if (oflags & DIRECTORY && oflags != DIRECTORY) return INVAL;
  u32 creates = oflags & CREAT, alone = creates && oflags & EXCL, writes = (oflags & TRUNC) || (rights & WRITE);
  switch (kind) {
    case FILE_: return oflags & DIRECTORY ? NOTDIR : alone ? EXIST : SUCCESS;
    case FOLDER: return alone ? EXIST : creates || writes ? ISDIR : SUCCESS;
    case MISSING: return creates ? SUCCESS : NOENT;
    case LINK: return alone ? EXIST : LOOP;
    case DANGLING: return alone ? EXIST : creates ? SUCCESS : NOENT;
    case FILE_SLASH: return creates ? ISDIR : NOTDIR;
    case FOLDER_SLASH: return creates || writes ? ISDIR : SUCCESS;
    case MISSING_SLASH: return creates ? ISDIR : NOENT;
  }
  return 99;
}

static void check_one(const Target *target, u32 look, u32 oflags, u32 fdflags, u64 rights) {
  Kind kind = target->kind[look];
  int fd = 77;
  u32 length = length_of(target->path), size;
  u64 before = size_of(dir, P("file"));
  u32 errno = (u32)path_open(dir, look, target->path, length, oflags, rights, 0, fdflags, &fd);
  if (!EQ(errno, expected(kind, oflags, fdflags, rights))) {
    // Enough to find it by.
    print(STDERR, target->path, length);
    report(look, oflags, "oflags and as line the lookup, fdflags", fdflags);
  }
  TRUE(size_of(dir, P("file")) == (errno || kind != FILE_ || !(oflags & TRUNC) ? before : 0));
  TRUE(exists(dir, P("missing")) == (!errno && kind == MISSING));
  TRUE(exists(dir, P("nowhere")) == (!errno && kind == DANGLING));
  if (errno) {
    EQ(fd, 77);
    return;
  }
  __wasi_fdstat_t stat;
  char text[10];
  OK(fd_fdstat_get(fd, &stat));
  u32 is_folder = kind == FOLDER || kind == FOLDER_SLASH;
  EQ(stat.fs_filetype, is_folder ? __WASI_FILETYPE_DIRECTORY : __WASI_FILETYPE_REGULAR_FILE);
  if (!is_folder) {
    // With neither right the file can be read all the same, and who makes or cuts it off can write it: no guest is
    // kept from anything by rights that it names itself.
    u32 reads = !(rights & WRITE) || rights & READ, writes = oflags & (CREAT | TRUNC) || rights & WRITE;
    EQ(stat.fs_flags, fdflags);
    EQ(stat.fs_rights_base & READ, reads ? READ : 0);
    EQ(stat.fs_rights_base & WRITE, writes ? WRITE : 0);
    EQ(read_text(fd, text, sizeof text, &size), reads ? SUCCESS : BADF);
    if (reads) EQ(size, before == 4 && kind == FILE_ && !(oflags & TRUNC) ? 4 : 0);
    EQ(write_text(fd, P("text"), &size), writes ? SUCCESS : BADF);
    if (writes && kind == FILE_) EQ(size_of(dir, P("file")), oflags & TRUNC || (!reads && !(fdflags & APPEND)) ? 4 : 8);
  }
  OK(fd_close(fd));
  if (exists(dir, P("missing"))) OK(path_unlink_file(dir, P("missing")));
  if (exists(dir, P("nowhere"))) OK(path_unlink_file(dir, P("nowhere")));
  make_file(dir, P("file"), P("text"));
}

static void check_combinations(void) {
  static const u32 FDFLAGS[] = {0, APPEND, NONBLOCK, APPEND | NONBLOCK, DSYNC, RSYNC, SYNC, 31};
  static const u64 RIGHTS[] = {0, READ, WRITE, READ | WRITE};
  make_file(dir, P("file"), P("text"));
  OK(path_create_directory(dir, P("folder")));
  OK(path_symlink(P("file"), dir, P("to-file")));
  OK(path_symlink(P("folder"), dir, P("to-folder")));
  OK(path_symlink(P("nowhere"), dir, P("dangling")));
  for (u32 i = 0; i < sizeof TARGETS / sizeof *TARGETS; i++)
    for (u32 look = NOFOLLOW; look <= FOLLOW; look++)
      for (u32 oflags = 0; oflags < 16; oflags++)
        for (u32 k = 0; k < 8; k++)
          for (u32 j = 0; j < 4; j++) check_one(&TARGETS[i], look, oflags, FDFLAGS[k], RIGHTS[j]);
}

// What a program that goes by rights may say of a folder: wasmtime takes note of no inheriting ones.
static void check_folders(void) {
  __wasi_fdstat_t stat;
  __wasi_filestat_t one, other;
  int fd = -1;
  OK(fd_fdstat_get(ROOT, &stat));
  OK(path_open(ROOT, NOFOLLOW, P("."), 0, stat.fs_rights_base, stat.fs_rights_inheriting, 0, &fd));
  OK(fd_filestat_get(ROOT, &one));
  OK(fd_filestat_get(fd, &other));
  EQ(one.ino, other.ino);
  OK(fd_close(fd));
  const u64 rights[] = {0, READ, __WASI_RIGHTS_FD_READDIR, __WASI_RIGHTS_FD_SEEK, READ | __WASI_RIGHTS_PATH_OPEN};
  for (u32 i = 0; i < sizeof rights / sizeof *rights; i++)
    for (u32 oflags = 0; oflags <= DIRECTORY; oflags += DIRECTORY) {
      OK(path_open(ROOT, NOFOLLOW, P("."), oflags, rights[i], 0, 0, &fd));
      OK(fd_fdstat_get(fd, &stat));
      EQ(stat.fs_filetype, __WASI_FILETYPE_DIRECTORY);
      EQ(stat.fs_rights_base & __WASI_RIGHTS_FD_SEEK, 0);
      OK(fd_close(fd));
    }
  FAILS(ISDIR, path_open(ROOT, NOFOLLOW, P("."), DIRECTORY, READ | WRITE, 0, 0, &fd));
  FAILS(ISDIR, path_open(ROOT, NOFOLLOW, P("."), 0, WRITE, 0, 0, &fd));
  OK(path_open(ROOT, NOFOLLOW, P("."), 0, 0, 0, NONBLOCK, &fd));
  OK(fd_close(fd));
  // One folder from another, as far as that one reaches.
  int folder = open_dir(dir, P("folder"));
  make_file(folder, P("inner"), P("inner text"));
  EQ(size_of(dir, P("folder/inner")), 10);
  FAILS(PERM, path_open(folder, NOFOLLOW, P("../file"), 0, READ, 0, 0, &fd));
  FAILS(PERM, path_open(folder, NOFOLLOW, P(".."), DIRECTORY, READ, 0, 0, &fd));
  FAILS(NOTDIR, path_open(dir, NOFOLLOW, P("file/inner"), CREAT, READ | WRITE, 0, 0, &fd));
  FAILS(NOENT, path_open(dir, NOFOLLOW, P("missing/inner"), CREAT, READ | WRITE, 0, 0, &fd));
  FAILS(NOENT, path_open(dir, NOFOLLOW, P(""), CREAT, READ | WRITE, 0, 0, &fd));
  OK(path_open(dir, NOFOLLOW, P("folder/.//../folder/./../folder///inner"), 0, READ, 0, 0, &fd));
  OK(fd_close(fd));
  OK(path_open(dir, NOFOLLOW, P("folder///"), 0, READ, 0, 0, &fd));
  OK(fd_close(fd));
  OK(path_open(dir, NOFOLLOW, P("to-folder/inner"), 0, READ, 0, 0, &fd));
  OK(fd_close(fd));
  OK(fd_close(folder));
}

static void check(void) {
  dir = make_dir(ROOT, P("work"));
  check_combinations();
  check_folders();
}
