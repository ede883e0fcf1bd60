// poll_oneoff: clocks, stdio, files, and what is neither.
//
// Run with some bytes on stdin. It never waits for more than a second in all.

#include "check.h"

enum { MS = 1000000, MANY = 64 };

static __wasi_subscription_t subs[MANY];
static __wasi_event_t events[MANY + 1];
static u32 happened;

static void clock_of(u32 i, u32 id, u64 timeout, u32 flags) {
  memset(&subs[i], 0, sizeof subs[i]);
  subs[i].userdata = 0xfedcba9876543210 + i;
  subs[i].u.tag = __WASI_EVENTTYPE_CLOCK;
  subs[i].u.u.clock.id = id;
  subs[i].u.u.clock.timeout = timeout;
  subs[i].u.u.clock.precision = i * 1000;
  subs[i].u.u.clock.flags = (uint16_t)flags;
}

static void fd_of(u32 i, int fd, u32 tag) {
  memset(&subs[i], 0, sizeof subs[i]);
  subs[i].userdata = 0xfedcba9876543210 + i;
  subs[i].u.tag = (uint8_t)tag;
  subs[i].u.u.fd_read.file_descriptor = fd;
}

static u64 now(u32 clock) {
  u64 time = 0;
  OK(clock_time_get(clock, 0, &time));
  return time;
}

// Poll the first subscriptions; return the errno. Whatever happened is one of them each, and nothing is written behind.
static int poll(u32 line, u32 count) {
  memset(events, 0x55, sizeof events);
  happened = 77;
  int errno = poll_oneoff(subs, events, count, &happened);
  if (errno) return errno;
  if (!equal(line, happened >= 1 && happened <= count, 1)) happened = 0;
  u64 seen = 0;
  for (u32 i = 0; i < happened; i++) {
    u64 which = events[i].userdata - 0xfedcba9876543210;
    if (!equal(line, which < count, 1)) continue;
    equal(line, seen & 1ULL << which, 0);
    seen |= 1ULL << which;
    equal(line, events[i].type, subs[which].u.tag);
  }
  if (happened < MANY) equal(line, events[happened].userdata, 0x5555555555555555);
  return SUCCESS;
}

static const __wasi_event_t *event_of(u32 i) {
  for (u32 j = 0; j < happened; j++)
    if (events[j].userdata == 0xfedcba9876543210 + i) return &events[j];
  return 0;
}

// That subscription has come true.
static void is_true(u32 line, u32 i) {
  const __wasi_event_t *event = event_of(i);
  if (equal(line, event != 0, 1)) equal(line, event->error, SUCCESS);
}

// Nothing can come of that subscription. The specification tells by its event; wasmtime fails the whole call.
static void is_bad(u32 line, u32 errno, u32 count, u32 i) {
  u32 got = (u32)poll(line, count);
  if (got) {
    equal(line, got, errno);
    return;
  }
  const __wasi_event_t *event = event_of(i);
  if (equal(line, event != 0, 1)) equal(line, event->error, errno);
}

#define POLL(count) OK(poll(__LINE__, count))
#define HAPPENED(i) is_true(__LINE__, i)
#define BAD(errno, count, i) is_bad(__LINE__, errno, count, i)

// The first subscription is an hour off; the second and the third come before it, if not together.
static void all_ready(u32 line) {
  equal(line, (u64)poll(line, 3), SUCCESS);
  equal(line, event_of(0) == 0, 1);
  for (u32 i = 1; i <= 2; i++)
    if (event_of(i)) {
      is_true(line, i);
      if (happened == 2) continue;
      __wasi_subscription_t other = subs[3 - i];
      subs[1] = other;
      subs[1].userdata = 0xfedcba9876543210 + 1;
      equal(line, (u64)poll(line, 2), SUCCESS);
      equal(line, event_of(0) == 0, 1);
      is_true(line, 1);
      return;
    }
}

#define ALL_READY() all_ready(__LINE__)

static void check_clocks(void) {
  for (u32 clock = REALTIME; clock <= MONOTONIC; clock++) {
    // Relative, and absolute.
    u64 start = now(MONOTONIC);
    clock_of(0, clock, 20 * MS, 0);
    POLL(1);
    HAPPENED(0);
    u64 took = now(MONOTONIC) - start;
    // A millisecond is left for clocks that do not run alike.
    TRUE(took >= 19 * MS && took < 5000ULL * MS);
    start = now(MONOTONIC);
    clock_of(0, clock, now(clock) + 20 * MS, __WASI_SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME);
    POLL(1);
    HAPPENED(0);
    took = now(MONOTONIC) - start;
    TRUE(took >= 19 * MS && took < 5000ULL * MS);
    // The clock of the day may be corrected meanwhile; the other must have got there.
    TRUE(now(clock) + (clock == REALTIME ? MS : 0) >= subs[0].u.u.clock.timeout);
    // At once: no time at all, and a time that is past.
    start = now(MONOTONIC);
    clock_of(0, clock, 0, 0);
    POLL(1);
    HAPPENED(0);
    clock_of(0, clock, 1, 0);
    POLL(1);
    HAPPENED(0);
    clock_of(0, clock, 0, __WASI_SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME);
    POLL(1);
    HAPPENED(0);
    clock_of(0, clock, now(clock) / 2, __WASI_SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME);
    POLL(1);
    HAPPENED(0);
    TRUE(now(MONOTONIC) - start < 1000ULL * MS);
  }
  // Of several the first to come ends it, wherever it stands; one that is far off is no event.
  for (u32 first = 0; first < 3; first++) {
    u64 start = now(MONOTONIC);
    for (u32 i = 0; i < 3; i++) clock_of(i, i % 2 ? REALTIME : MONOTONIC, (i == first ? 10ULL : 3600000ULL) * MS, 0);
    POLL(3);
    EQ(happened, 1);
    HAPPENED(first);
    u64 took = now(MONOTONIC) - start;
    TRUE(took >= 9 * MS && took < 5000ULL * MS);
  }
  // Of what is due at once one comes at least.
  for (u32 i = 0; i < 4; i++) clock_of(i, MONOTONIC, i == 2 ? 3600000ULL * MS : 0, 0);
  POLL(4);
  TRUE(!event_of(2));
  // The furthest times there are, next to a near one.
  clock_of(0, MONOTONIC, ~0ULL, 0);
  clock_of(1, MONOTONIC, 5 * MS, 0);
  clock_of(2, REALTIME, ~0ULL, __WASI_SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME);
  clock_of(3, MONOTONIC, ~0ULL, __WASI_SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME);
  POLL(4);
  EQ(happened, 1);
  HAPPENED(1);
  // As many as fit, the last of them the first.
  for (u32 i = 0; i < MANY; i++) clock_of(i, MONOTONIC, (MANY - i) * 1000ULL * MS, 0);
  clock_of(MANY - 1, MONOTONIC, 5 * MS, 0);
  POLL(MANY);
  EQ(happened, 1);
  HAPPENED(MANY - 1);
  FAILS(INVAL, poll(__LINE__, 0));
  // Clocks of processor time have nothing to wait for.
  for (u32 clock = PROCESS_CPUTIME; clock <= THREAD_CPUTIME; clock++) {
    clock_of(0, clock, 0, 0);
    BAD(INVAL, 1, 0);
  }
}

static void check_stdio(void) {
  char text[100];
  u32 size;
  u64 start = now(MONOTONIC);
  clock_of(0, MONOTONIC, 3600000ULL * MS, 0);
  fd_of(1, STDIN, __WASI_EVENTTYPE_FD_READ);
  POLL(2);
  EQ(happened, 1);
  HAPPENED(1);
  do OK(read_text(STDIN, text, sizeof text, &size));
  while (size);
  // The end is something to read, too.
  POLL(2);
  EQ(happened, 1);
  HAPPENED(1);
  // Each that is ready comes with the first call or a later one.
  fd_of(1, STDOUT, __WASI_EVENTTYPE_FD_WRITE);
  fd_of(2, STDERR, __WASI_EVENTTYPE_FD_WRITE);
  ALL_READY();
  fd_of(0, STDOUT, __WASI_EVENTTYPE_FD_WRITE);
  POLL(1);
  HAPPENED(0);
  for (u32 i = 0; i < MANY; i++) fd_of(i, STDERR, __WASI_EVENTTYPE_FD_WRITE);
  POLL(MANY);
  for (u32 i = 0; i < MANY; i++) TRUE(!event_of(i) || event_of(i)->error == SUCCESS);
  TRUE(now(MONOTONIC) - start < 5000ULL * MS);
}

static void check_files(void) {
  int fd, dir;
  u64 position;
  make_file(ROOT, P("file"), P("0123456789"));
  fd = open_file(ROOT, P("file"));
  // A file is always ready.
  clock_of(0, MONOTONIC, 3600000ULL * MS, 0);
  fd_of(1, fd, __WASI_EVENTTYPE_FD_READ);
  fd_of(2, fd, __WASI_EVENTTYPE_FD_WRITE);
  ALL_READY();
  OK(fd_seek(fd, 0, END, &position));
  POLL(2);
  HAPPENED(1);
  int moved = open_file(ROOT, P("file"));
  // The number is what counts: a file in stdin's place is a file.
  OK(fd_renumber(moved, STDIN));
  fd_of(1, STDIN, __WASI_EVENTTYPE_FD_READ);
  fd_of(2, moved, __WASI_EVENTTYPE_FD_READ);
  POLL(2);
  EQ(happened, 1);
  HAPPENED(1);
  BAD(BADF, 3, 2);
  OK(fd_close(STDIN));
  BAD(BADF, 2, 1);
  // A folder has nothing to read, nor has what is closed, and nobody waits for it.
  dir = open_dir(ROOT, P("."));
  clock_of(0, MONOTONIC, 3600000ULL * MS, 0);
  const int bad[] = {ROOT, dir, NO_FD, -1};
  for (u32 i = 0; i < sizeof bad / sizeof *bad; i++)
    for (u32 tag = __WASI_EVENTTYPE_FD_READ; tag <= __WASI_EVENTTYPE_FD_WRITE; tag++) {
      fd_of(1, bad[i], tag);
      BAD(BADF, 2, 1);
      fd_of(0, bad[i], tag);
      BAD(BADF, 1, 0);
      clock_of(0, MONOTONIC, 3600000ULL * MS, 0);
    }
  OK(fd_close(dir));
  OK(fd_close(fd));
  fd_of(1, fd, __WASI_EVENTTYPE_FD_READ);
  BAD(BADF, 2, 1);
  // The wrong way round.
  fd_of(1, STDOUT, __WASI_EVENTTYPE_FD_READ);
  BAD(BADF, 2, 1);
}

static void check(void) {
  check_clocks();
  check_stdio();
  check_files();
}
