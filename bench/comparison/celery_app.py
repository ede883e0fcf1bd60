"""The celery application: its workers import it, and the process that measures it does (peers.py).

Holds its settings and tasks. Where redis is, is in WW_BENCH_REDIS.
"""

import os

from celery import Celery

from bench.comparison import work

_URL = os.environ["WW_BENCH_REDIS"]
app = Celery("bench", broker=_URL, backend=_URL)
app.conf.update(
    # Pickle takes bytes as they are; JSON would make text of them.
    task_serializer="pickle",
    result_serializer="pickle",
    accept_content=["pickle"],
    # Many runs lie at a worker before it needs them: what the documentation says of short tasks.
    worker_prefetch_multiplier=64,
    worker_disable_rate_limits=True,
    broker_connection_retry_on_startup=True,
)
noop = app.task(work.noop, name="noop")
copy = app.task(work.copy, name="copy")
compute = app.task(work.compute, name="compute")
