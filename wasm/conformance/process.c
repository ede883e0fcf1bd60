// The program and its world: arguments, environment, clocks, random numbers, the processor, signals.
//
// Run with the arguments and the environment that are expected below, in that order.

#include "check.h"

static const char *const ARGUMENTS[] = {0, "first", "the \"second\" arg", "", "żółw 🐢", "new\nline", "--=x"};
static const char *const VARIABLES[] = {"a=text", "b=escap \" ing", "c=new\nline", "EMPTY=", "U=żółw 🐢", "E=x=y"};
enum { ARGUMENT_COUNT = sizeof ARGUMENTS / sizeof *ARGUMENTS, VARIABLE_COUNT = sizeof VARIABLES / sizeof *VARIABLES };

static void is_text(u32 line, const char *got, const char *wanted) {
  equal(line, length_of(got), length_of(wanted));
  equal(line, same(got, wanted, length_of(wanted) + 1), 1);
}

static void check_arguments(void) {
  u32 count = 0, size = 0;
  OK(args_sizes_get(&count, &size));
  if (!EQ(count, ARGUMENT_COUNT)) return;
  char *arguments[ARGUMENT_COUNT + 1], data[1000];
  memset(data, 'x', sizeof data);
  arguments[count] = data;
  OK(args_get(arguments, data));
  EQ(arguments[count], data);  // no null pointer after the last, as C would have it
  // The texts stand one after the other, each with its zero, and fill the size exactly.
  EQ(arguments[0], data);
  u32 at = 0;
  for (u32 i = 0; i < count; i++) {
    EQ(arguments[i], data + at);
    if (i) is_text(__LINE__, arguments[i], ARGUMENTS[i]);
    at += length_of(arguments[i]) + 1;
  }
  TRUE(length_of(arguments[0]) > 0);
  EQ(at, size);
  EQ(data[size], 'x');
}

static void check_environment(void) {
  u32 count = 0, size = 0;
  OK(environ_sizes_get(&count, &size));
  if (!EQ(count, VARIABLE_COUNT)) return;
  char *variables[VARIABLE_COUNT + 1], data[1000];
  memset(data, 'x', sizeof data);
  variables[count] = data;
  OK(environ_get(variables, data));
  EQ(variables[count], data);
  u32 at = 0;
  for (u32 i = 0; i < count; i++) {
    EQ(variables[i], data + at);
    is_text(__LINE__, variables[i], VARIABLES[i]);
    at += length_of(variables[i]) + 1;
  }
  EQ(at, size);
  EQ(data[size], 'x');
}

static void check_clocks(void) {
  u64 resolution = 0, first = 0, second = 0;
  for (u32 clock = REALTIME; clock <= MONOTONIC; clock++) {
    OK(clock_res_get(clock, &resolution));
    TRUE(resolution >= 1 && resolution <= 1000000000);
    // Whatever the precision asked for, it is a lag that is allowed, never an error.
    OK(clock_time_get(clock, 0, &first));
    OK(clock_time_get(clock, 1, &first));
    OK(clock_time_get(clock, 1000000000, &first));
    OK(clock_time_get(clock, ~0ULL, &first));
  }
  OK(clock_time_get(REALTIME, 0, &first));
  TRUE(first > 1600000000000000000);  // September 2020
  OK(clock_time_get(MONOTONIC, 0, &first));
  u32 advances = 0;
  for (u32 i = 0; i < 1000; i++, first = second) {
    OK(clock_time_get(MONOTONIC, 0, &second));
    TRUE(second >= first);
    advances += second > first;
  }
  TRUE(advances > 0);
  // The processor time clocks are optional; wasmtime has none and says BADF, where the specification would allow INVAL
  // and NOTSUP too.
  for (u32 clock = PROCESS_CPUTIME; clock <= THREAD_CPUTIME; clock++) {
    FAILS(BADF, clock_res_get(clock, &resolution));
    FAILS(BADF, clock_time_get(clock, 0, &first));
  }
}

static uint8_t noise[70000], other[70000];

static void check_random(void) {
  static const u32 SIZES[] = {1, 7, 256, 257, 4096, 65536, 65537, sizeof noise - 1};
  for (u32 i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
    u32 size = SIZES[i];
    memset(noise, 0, sizeof noise);
    OK(random_get(noise, size));
    EQ(noise[size], 0);
    u32 set = 0;
    for (u32 j = 0; j < size; j++) set += noise[j] != 0;
    // Of n bytes n/256 are zero; of 7 all are once in 10^17.
    if (size >= 7) TRUE(set > size - size / 64 - 7);
  }
  OK(random_get(other, sizeof other));
  TRUE(!same(noise, other, 1000));
  memset(noise, 1, 8);
  OK(random_get(noise, 0));
  for (u32 j = 0; j < 8; j++) EQ(noise[j], 1);
}

static void check(void) {
  check_arguments();
  check_environment();
  check_clocks();
  check_random();
  for (u32 i = 0; i < 100; i++) OK(sched_yield());
  // Signals do not exist in wasmtime: NOTSUP, where the specification would have most of them end the guest.
  for (u32 signal = 0; signal <= 30; signal++) FAILS(NOTSUP, proc_raise(signal));
}
