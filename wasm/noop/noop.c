/* Nothing, for benchmarks: run(input, difficulty) returns input at once. */
typedef unsigned long long u64;

__attribute__((export_name("run"))) u64 run(u64 input, u64 difficulty) {
  (void)difficulty;
  return input;
}
