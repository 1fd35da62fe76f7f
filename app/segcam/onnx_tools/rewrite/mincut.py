"""The cheapest way to divide things between two sides (a minimum cut, found as a maximum flow)."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

INFINITE = float("inf")


class Division:
    """Things to be divided between left and right, with a price for each separation; ``left_side`` solves it."""

    LEFT: Hashable = "left"
    RIGHT: Hashable = "right"

    def __init__(self) -> None:
        self._capacity: dict[Hashable, dict[Hashable, float]] = {self.LEFT: {}, self.RIGHT: {}}

    def price(self, one: Hashable, other: Hashable, cost: float) -> None:
        """Having ``one`` on the left while ``other`` is on the right costs this much (added to what it cost before)."""
        self._capacity.setdefault(one, {}).setdefault(other, 0.0)
        self._capacity.setdefault(other, {}).setdefault(one, 0.0)
        self._capacity[one][other] += cost

    def left_side(self) -> set[Hashable]:
        """What is on the left in the cheapest division (of several, the one with the smallest left side)."""
        while True:
            before: dict[Hashable, Hashable] = {self.LEFT: self.LEFT}
            queue = deque([self.LEFT])
            while queue and self.RIGHT not in before:
                at = queue.popleft()
                for to, free in self._capacity[at].items():
                    # Rounding leaves specks behind that would make endless tiny steps.
                    if free > 1e-9 and to not in before:
                        before[to] = at
                        queue.append(to)
            if self.RIGHT not in before:
                return set(before) - {self.LEFT}
            path, at = [], self.RIGHT
            while at != self.LEFT:
                path.append((before[at], at))
                at = before[at]
            amount = min(self._capacity[a][b] for a, b in path)
            for a, b in path:
                self._capacity[a][b] -= amount
                self._capacity[b][a] += amount
