/* A WASI command that shows everything a command gets.
 *
 * stdout: its arguments joined by blanks, on a line, when there are any; then stdin as it is.
 * stderr: its environment, NAME=VALUE a line.
 * Exit code: what EXIT in the environment says (0 to 255), else 0.
 */
#include <stdio.h>
#include <stdlib.h>

extern char **environ;

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) printf("%s%s", argv[i], i + 1 < argc ? " " : "\n");
  static char buffer[16384];
  for (size_t count; (count = fread(buffer, 1, sizeof buffer, stdin)) > 0;) fwrite(buffer, 1, count, stdout);
  fflush(stdout);
  const char *code = getenv("EXIT");
  for (char **variable = environ; variable && *variable; variable++) fprintf(stderr, "%s\n", *variable);
  return code ? atoi(code) : 0;
}
