// What is open at the start, and what is in a folder: fd_prestat_get, fd_prestat_dir_name, fd_readdir.
//
// The arguments are the names of the preopened folders, in order. The first must be empty.

#include "check.h"

static char names[8][100];
static u32 opened;

static void check_preopens(void) {
  u32 count, size;
  char *arguments[9], data[1000], name[100];
  __wasi_prestat_t stat;
  __wasi_fdstat_t fdstat;
  OK(args_sizes_get(&count, &size));
  if (!TRUE(count > 1 && count < 9)) return;
  OK(args_get(arguments, data));
  for (u32 i = 1; i < count; i++) {
    const char *wanted = arguments[i];
    int fd = ROOT + (int)i - 1;
    u32 length = length_of(wanted);
    stat.tag = 77;
    if (!OK(fd_prestat_get(fd, &stat))) continue;
    opened++;
    EQ(stat.tag, __WASI_PREOPENTYPE_DIR);
    EQ(stat.u.dir.pr_name_len, length);
    memset(name, 'x', sizeof name);
    OK(fd_prestat_dir_name(fd, name, length));
    TRUE(same(name, wanted, length));
    EQ(name[length], 'x');  // no zero at its end
    memcpy(names[i], name, length);
    // A larger buffer is fine and keeps its rest; a smaller one is too small.
    OK(fd_prestat_dir_name(fd, name, length + 1));
    EQ(name[length], 'x');
    FAILS(NAMETOOLONG, fd_prestat_dir_name(fd, name, length - 1));
    FAILS(NAMETOOLONG, fd_prestat_dir_name(fd, name, 0));
    OK(fd_fdstat_get(fd, &fdstat));
    EQ(fdstat.fs_filetype, __WASI_FILETYPE_DIRECTORY);
    EQ(fdstat.fs_flags, 0);
  }
  // Nothing else is preopened. The specification says BADF; of stdio wasmtime says so and NOTDIR.
  const int others[] = {ROOT + (int)opened, NO_FD, -1};
  for (u32 i = 0; i < sizeof others / sizeof *others; i++) {
    FAILS(BADF, fd_prestat_get(others[i], &stat));
    FAILS(BADF, fd_prestat_dir_name(others[i], name, 100));
  }
  for (int fd = STDIN; fd <= STDERR; fd++) {
    FAILS(BADF, fd_prestat_get(fd, &stat));
    FAILS(NOTDIR, fd_prestat_dir_name(fd, name, 100));
  }
  int fd = make_dir(ROOT, P("opened"));
  FAILS(BADF, fd_prestat_get(fd, &stat));
  OK(fd_close(fd));
  OK(path_remove_directory(ROOT, P("opened")));
}

// One pass over a folder in calls of that buffer size. Entries are told apart by their last letter.
typedef struct {
  u32 entries, files, folders, links, dots, calls;
  u64 seen;  // a bit for each file a to z
} Listing;

static char buffer[9000];

static Listing list(int dir, u32 buffer_size) {
  Listing listing = {0};
  u64 cookie = 0;
  for (;;) {
    u32 used = 77;
    memset(buffer, 'x', sizeof buffer);
    if (!OK(fd_readdir(dir, buffer, buffer_size, cookie, &used))) return listing;
    TRUE(used <= buffer_size);
    EQ(buffer[buffer_size], 'x');
    u32 at = 0, whole = 0;
    while (used - at >= sizeof(__wasi_dirent_t)) {
      __wasi_dirent_t entry;
      memcpy(&entry, buffer + at, sizeof entry);
      if (used - at - sizeof entry < entry.d_namlen) break;
      const char *name = buffer + at + sizeof entry;
      __wasi_filestat_t stat;
      u32 is_up = entry.d_namlen == 2 && same(name, "..", 2);
      if (is_up || (entry.d_namlen == 1 && *name == '.')) listing.dots++;
      // Up from the folder itself need not be reachable.
      if (!is_up && OK(path_filestat_get(dir, NOFOLLOW, name, entry.d_namlen, &stat))) {
        EQ(entry.d_type, stat.filetype);
        EQ(entry.d_ino, stat.ino);
      }
      listing.files += entry.d_type == __WASI_FILETYPE_REGULAR_FILE;
      listing.folders += entry.d_type == __WASI_FILETYPE_DIRECTORY;
      listing.links += entry.d_type == __WASI_FILETYPE_SYMBOLIC_LINK;
      if (entry.d_type == __WASI_FILETYPE_REGULAR_FILE) listing.seen |= 1ULL << (name[entry.d_namlen - 1] - 'a');
      TRUE(entry.d_next != cookie);
      cookie = entry.d_next;
      listing.entries++;
      whole++;
      at += sizeof entry + entry.d_namlen;
    }
    listing.calls++;
    // Less than the buffer holds is the end.
    if (used < buffer_size || !TRUE(whole > 0)) return listing;
  }
}

static void check_listing(void) {
  int dir = make_dir(ROOT, P("listed")), fd;
  u32 used = 77;
  Listing empty = list(dir, 500);
  EQ(empty.entries, 2);
  EQ(empty.dots, 2);
  for (char name[] = "file-a"; name[5] <= 'z'; name[5]++) make_file(dir, name, 6, P("content"));
  OK(path_create_directory(dir, P("folder")));
  OK(path_symlink(P("nowhere"), dir, P("link")));
  // From a buffer that holds the longest entry and no more, to one that holds them all.
  const u32 sizes[] = {30, 31, 50, 57, 60, 64, 65, 100, 256, 1000, 8192};
  for (u32 i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    Listing listing = list(dir, sizes[i]);
    EQ(listing.entries, 26 + 2 + 2);
    EQ(listing.files, 26);
    EQ(listing.seen, (1ULL << 26) - 1);
    EQ(listing.folders, 3);
    EQ(listing.links, 1);
    EQ(listing.dots, 2);
    if (sizes[i] == 8192) EQ(listing.calls, 1);
  }
  // What is too small for an entry is filled with its beginning, so that the reader sees that there is more.
  for (u32 size = 0; size < 25; size++) {
    memset(buffer, 'x', sizeof buffer);
    OK(fd_readdir(dir, buffer, size, 0, &used));
    EQ(used, size);
    EQ(buffer[size], 'x');
  }
  // A cookie that was given can be used again, in any order; 0 is the beginning.
  u32 first_used, again_used;
  char first[300];
  OK(fd_readdir(dir, first, sizeof first, 0, &first_used));
  __wasi_dirent_t entry;
  memcpy(&entry, first, sizeof entry);
  u32 second = sizeof entry + entry.d_namlen;
  OK(fd_readdir(dir, buffer, sizeof first, entry.d_next, &again_used));
  TRUE(same(first + second, buffer, sizeof first - second));
  OK(fd_readdir(dir, buffer, sizeof first, 0, &again_used));
  EQ(first_used, again_used);
  TRUE(same(first, buffer, first_used));
  // Past the end there is nothing.
  OK(fd_readdir(dir, buffer, sizeof buffer, 1 << 20, &used));
  EQ(used, 0);
  // From the beginning again, what has come and gone meanwhile is noticed.
  OK(path_unlink_file(dir, P("file-c")));
  make_file(dir, P("file-{"), P("late"));
  Listing changed = list(dir, 256);
  EQ(changed.files, 26);
  EQ(changed.seen, ((1ULL << 27) - 1) & ~4ULL);
  // A second descriptor of the folder has its own place.
  fd = open_dir(ROOT, P("listed"));
  EQ(list(fd, 100).entries, 30);
  OK(fd_close(fd));
  FAILS(BADF, fd_readdir(fd, buffer, 100, 0, &used));
  fd = open_file(dir, P("file-a"));
  // What is no folder is BADF to wasmtime, where the specification has NOTDIR.
  FAILS(BADF, fd_readdir(fd, buffer, 100, 0, &used));
  OK(fd_close(fd));
  FAILS(BADF, fd_readdir(STDIN, buffer, 100, 0, &used));
  FAILS(BADF, fd_readdir(STDOUT, buffer, 100, 0, &used));
  FAILS(BADF, fd_readdir(NO_FD, buffer, 100, 0, &used));
  for (char name[] = "file-a"; name[5] <= '{'; name[5]++)
    if (name[5] != 'c') OK(path_unlink_file(dir, name, 6));
  OK(path_unlink_file(dir, P("link")));
  OK(path_remove_directory(dir, P("folder")));
  EQ(list(dir, 500).entries, 2);
  // Removed while it is open: empty, without so much as itself.
  OK(path_remove_directory(ROOT, P("listed")));
  FAILS(NOENT, path_create_directory(dir, P("new")));
  FAILS(NOENT, path_open(dir, NOFOLLOW, P("new"), CREAT, FILE_RIGHTS, 0, 0, &fd));
  OK(fd_close(dir));
}

static void check_many(void) {
  int dir = make_dir(ROOT, P("many"));
  enum { MANY = 1000 };
  char name[] = "000.a";
  for (u32 i = 0; i < MANY; i++) {
    name[0] = (char)('0' + i / 100), name[1] = (char)('0' + i / 10 % 10), name[2] = (char)('0' + i % 10);
    make_file(dir, name, 5, "", 0);
  }
  EQ(list(dir, 256).entries, MANY + 2);
  EQ(list(dir, 4096).entries, MANY + 2);
  FAILS(NOTEMPTY, path_remove_directory(ROOT, P("many")));
  for (u32 i = 0; i < MANY; i++) {
    name[0] = (char)('0' + i / 100), name[1] = (char)('0' + i / 10 % 10), name[2] = (char)('0' + i % 10);
    OK(path_unlink_file(dir, name, 5));
  }
  EQ(list(dir, 256).entries, 2);
  OK(fd_close(dir));
  OK(path_remove_directory(ROOT, P("many")));
}

// A preopened folder is a descriptor like others: it can be closed and be replaced.
static void check_close(void) {
  __wasi_prestat_t stat;
  __wasi_fdstat_t fdstat;
  __wasi_filestat_t one, other;
  int last = ROOT + (int)opened - 1, fd = make_dir(last, P("inner"));
  OK(fd_filestat_get(fd, &one));
  OK(fd_renumber(fd, last));
  FAILS(BADF, fd_fdstat_get(fd, &fdstat));
  OK(fd_filestat_get(last, &other));
  EQ(one.ino, other.ino);
  EQ(one.dev, other.dev);
  OK(path_create_directory(last, P("within")));
  OK(path_remove_directory(last, P("within")));
  OK(fd_close(last));
  FAILS(BADF, fd_fdstat_get(last, &fdstat));
  FAILS(BADF, fd_prestat_get(last, &stat));
  FAILS(BADF, path_create_directory(last, P("within")));
  FAILS(BADF, fd_close(last));
  if (opened > 1) OK(fd_prestat_get(ROOT, &stat));
}

static void check(void) {
  check_preopens();
  EQ(list(ROOT, 500).entries, 2);
  check_listing();
  check_many();
  check_close();
}
