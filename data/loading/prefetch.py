"""Results computed ahead by threads, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def read_ahead(
    calls: Iterable[Callable[[], Result]], num_workers: int
) -> Generator[Result, None, None]:
    """Results of the calls, in their order, each called in one of `num_workers` threads while
    the consumer is busy, with at most two per thread waiting or under way; 0 = called here.

    A call's error is raised where its result would have come. The threads have ended when the
    generator is exhausted, closed or has raised.
    """
    if num_workers == 0:
        for call in calls:
            yield call()
        return
    ahead: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_workers, thread_name_prefix="batches") as pool:
        try:
            for call in calls:
                ahead.append(pool.submit(call))
                if len(ahead) > 2 * num_workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
