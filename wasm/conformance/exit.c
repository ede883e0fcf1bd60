// proc_exit with the code given as the first argument, in decimal; with none, a plain return.
//
// What was written before must be there, and nothing of what comes after. Two more words as the code: "deep" exits from
// many calls down, "main" returns from them all.

#include "check.h"

static u32 deep(volatile u32 calls) {
  if (!calls) proc_exit(77);
  return deep(calls - 1) + calls;
}

static void check(void) {
  u32 count, size, code = 0;
  char *arguments[3], data[200];
  OK(args_sizes_get(&count, &size));
  if (count < 2) return;
  OK(args_get(arguments, data));
  print(STDOUT, P("before"));
  if (*arguments[1] == 'd') code = deep(100);
  for (const char *digit = arguments[1]; *digit; digit++) code = code * 10 + (u32)(*digit - '0');
  proc_exit(code);
  print(STDOUT, P("after"));
}
