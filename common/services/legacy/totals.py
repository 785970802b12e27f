"""What was read, what became of it, and whether that adds up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal


@dataclass(slots=True)
class Totals:
    """The account of one legacy table. Every row is new, known from an earlier run, or skipped for a reason."""

    table: str
    rows: int = 0
    new: int = 0
    known: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)  # worth knowing; a row may have several
    sums: dict[str, Decimal] = field(default_factory=dict)

    def add(self, name: str, amount: Decimal | int) -> None:
        """Add to one of the sums."""
        self.sums[name] = self.sums.get(name, Decimal(0)) + amount

    @property
    def imported(self) -> int:
        return self.new + self.known

    def unaccounted(self) -> int:
        """Rows that became nothing, for no reason."""
        return self.rows - self.imported - sum(self.skipped.values())

    def lines(self) -> list[str]:
        """For the operator."""
        head = f"{self.table}: {self.rows} rows = {self.new} new + {self.known} known"
        skipped = sum(self.skipped.values())
        if skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.skipped.items()))
            head += f" + {skipped} skipped ({reasons})"
        sums = [f"  {name}: {_number(amount)}" for name, amount in self.sums.items()]
        return [head, *sums, *(f"  {name}: {count}" for name, count in sorted(self.notes.items()))]


def _number(amount: Decimal | int) -> str:
    return format(Decimal(amount).normalize(), "f")
