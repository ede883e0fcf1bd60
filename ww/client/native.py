"""The native clients, which speak to a gateway by capabilities: no HTTP, and the fastest way there is.

    from ww.client.native import NativeClient

    with NativeClient("12D3KooW...") as client:
        task = client.submit_batch("hash.wasm", [{"input": n, "difficulty": 3} for n in range(10_000)])
        for result in client.stream(task.id):
            print(result.run, result.result)

Holds names alone. Importing it takes what a node takes, so ww.client imports it when it is needed. Read native_aio.py.
"""

from ww.client.native_aio import AsyncNativeClient
from ww.client.native_link import LinkConfig, Target
from ww.client.native_sync import NativeClient

__all__ = ["AsyncNativeClient", "LinkConfig", "NativeClient", "Target"]
