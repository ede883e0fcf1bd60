"""Runs guests nobody trusts, in child processes. The only place that imports wasmtime. Start with pool.py."""
