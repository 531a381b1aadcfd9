"""Orders of a shop, in a file whose columns are called as nobody would call them."""

from __future__ import annotations

import csv
from datetime import date, timedelta
from pathlib import Path
from typing import Any

HEAD = ["order", "group", "items", "is new", "Größe", "weight", "comment", "country", "day", "back", "spent"]


def _order(i: int) -> list[Any]:
    group, items, size = ("a, b", "yes", "no")[i % 3], i * 7 % 11, ("S", "M", "L")[i * 5 % 3]
    weight = "" if i % 17 == 0 else round(0.3 * items + i % 5, 2)
    spent = round(5 + 3 * items + 10 * (group == "yes") + i % 4 / 7, 2)
    day = date(2024, 1, 1) + timedelta(days=i)
    return [1000 + i, group, items, i % 2 == 0, size, weight, f"said {i}", "AT", day, int(spent > 25), spent]


SHOP = [HEAD, *(_order(i) for i in range(200))]


def write_shop(path: Path, without: str = "") -> Path:
    """The orders as a CSV file."""
    keep = [i for i, name in enumerate(HEAD) if name != without]
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([row[i] for i in keep] for row in SHOP)
    return path
