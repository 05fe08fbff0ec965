"""The number of stage transitions that an API process knows is recent."""

import asyncio

from shared.ledger import RecentEpoch
from shared.settings import LedgerSettings


class _Redis:
    """Holds a number, and answers a moment later."""

    def __init__(self) -> None:
        self.asked = 0

    async def get(self, _: str) -> str:
        self.asked += 1
        await asyncio.sleep(0.01)
        return "7"


def test_calls_at_once_know_the_number_after_one_question() -> None:
    redis = _Redis()

    async def calling() -> list[int]:
        epoch = RecentEpoch(redis, LedgerSettings())  # type: ignore[arg-type]
        return await asyncio.gather(*(epoch.now() for _ in range(5)))

    assert asyncio.run(calling()) == [7] * 5, "none goes by the number of an hour ago"
    assert redis.asked == 1
