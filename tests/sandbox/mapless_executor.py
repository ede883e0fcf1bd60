"""A sandbox process that cannot see which of its pages differ, as on a kernel before 6.7."""

from ww.sandbox import executor, process

process.open_pagemap = lambda: -1
if __name__ == "__main__":
    executor.main()
