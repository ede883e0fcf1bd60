/* A spinner, to show deadlines, cancelling and the loss of a worker.
 *
 * run(input, difficulty) spins for `input` rounds of a million steps and returns input; 0 means for ever. A round takes
 * about a millisecond, and the same number of instructions every time. difficulty is ignored.
 */
typedef unsigned long long u64;

__attribute__((export_name("run"))) u64 run(u64 input, u64 difficulty) {
  (void)difficulty;
  for (u64 round = 0; input == 0 || round < input; round++) {
    /* volatile: a loop that does nothing else may be optimised away. */
    for (volatile u64 step = 0; step < 1000000; step++) {
    }
  }
  return input;
}
