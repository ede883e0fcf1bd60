"""A sandbox process that has to read which of its pages differ, as before Linux 6.7."""

from ww.sandbox import checkpoint, executor

checkpoint.PAGEMAP_SCAN = 0
if __name__ == "__main__":
    executor.main()
