/* A WASI command that shows everything a command gets.
 *
 * stdout: argv[1..] joined by blanks, on a line, when there are any; then stdin, byte by byte as it is.
 * stderr: the environment, a NAME=VALUE line each.
 * Exit code: the decimal number in EXIT (0 to 255), 0 when EXIT is not set; 2 when it is no such number,
 * 1 when reading or writing fails.
 *
 * read and write instead of stdio: an eighth of the size, and nothing is left in a buffer when the guest is stopped.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

/* Write everything, in as many calls as it takes. */
static void put(int fd, const char *bytes, size_t count) {
  while (count > 0) {
    ssize_t written = write(fd, bytes, count);
    if (written < 0) _Exit(1);
    bytes += written;
    count -= (size_t)written;
  }
}

/* Read EXIT, which may be absent. */
static int exit_code(const char *text) {
  if (!text) return 0;
  int code = 0;
  for (const char *at = text; *at; at++) {
    if (*at < '0' || *at > '9') return 2;
    code = code * 10 + (*at - '0');
    if (code > 255) return 2;
  }
  return *text ? code : 2;
}

int main(int argc, char **argv) {
  static char buffer[16384];
  for (int i = 1; i < argc; i++) {
    put(STDOUT_FILENO, argv[i], strlen(argv[i]));
    put(STDOUT_FILENO, i + 1 < argc ? " " : "\n", 1);
  }
  ssize_t count;
  while ((count = read(STDIN_FILENO, buffer, sizeof buffer)) > 0) put(STDOUT_FILENO, buffer, (size_t)count);
  if (count < 0) return 1;
  for (char **variable = environ; *variable; variable++) {
    put(STDERR_FILENO, *variable, strlen(*variable));
    put(STDERR_FILENO, "\n", 1);
  }
  return exit_code(getenv("EXIT"));
}
