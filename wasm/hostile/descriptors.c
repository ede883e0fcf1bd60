/* Use up descriptors: a command with a file system. Prints nothing; exit code 0 when it was refused at some point, 1 when
 * it never was, 2 when there is nothing to open.
 *
 * With an argument it goes on for ever: it opens, closes all, and opens again.
 */
#include "wasi.h"

int main(int argc, char **argv) {
  (void)argv;
  static u32 opened[100000];
  u32 count = 0, most = sizeof opened / sizeof *opened;
  do {
    count = 0;
    while (count < most && !wasi_path_open(3, 0, at("."), 1, DIRECTORY, READ_RIGHTS, ALL_RIGHTS, 0, at(&opened[count])))
      count++;
    if (argc > 1)
      for (u32 i = 0; i < count; i++) wasi_fd_close(opened[i]);
  } while (argc > 1);
  return count == 0 ? 2 : count == most;
}
