"""What counts for the limit of an evaluation: replies that it bought, and those of its suite's other parts."""

from collections.abc import Sequence
from pathlib import Path

from cxr_max.builders.run_folder import RunFolder
from cxr_max.costs import Spent, total
from cxr_max.ledger import Ledger


def by_itself(ledger: Ledger, known: Ledger | None) -> Spent:
    """By an evaluation: what it took over from ``known``, the ledger beside its release, costs nothing again."""
    return ledger.spent(without=None if known is None else known.bought_at())


def by_others(parts: Sequence[Path], own: RunFolder) -> Spent:
    """By all builds and evaluations of a suite's parts but one; what waits in a batch counts as what it can cost.

    Args:
        parts: their folders.
        own: the one that does not count.
    """
    return total(*(one for part in parts for one in _of_part(RunFolder(part), RunFolder(part / "eval"), own)))


def _of_part(built: RunFolder, evaluated: RunFolder, own: RunFolder) -> list[Spent]:
    if not built.ledger.is_file():
        return []
    found = []
    with Ledger(built.ledger) as known:
        if built != own:
            found += [known.spent(), known.most_in_batches()]
        if evaluated != own and evaluated.ledger.is_file():
            with Ledger(evaluated.ledger) as ledger:
                found.append(by_itself(ledger, known))
    return found
