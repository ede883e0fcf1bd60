"""A sandbox process that cannot see which of its pages differ, as where /proc is not mounted."""

from ww.sandbox import executor, process

process.open_pagemap = lambda: -1
if __name__ == "__main__":
    executor.main()
