"""Where one trajectory stands against a consensus, finding by finding.

Value coding: 1 present, 0 absent, -1 uncertain, ``None`` not mentioned; not mentioned is not absent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from cxr_max.consensus import takes_part
from cxr_max.findings import FINDINGS, LATERAL, Findings, Side, Sides, State
from cxr_max.records import Consensus, Trajectory

Relation = Literal["agree", "hedged", "contradict", "side", "unsupported", "missed"]
RELATIONS: Final[tuple[Relation, ...]] = get_args(Relation)
COMPARED: Final[frozenset[Relation]] = frozenset({"agree", "hedged", "contradict", "side"})
OPPOSED: Final[frozenset[Relation]] = frozenset({"contradict", "side"})


@dataclass(frozen=True, slots=True)
class Conflict:
    """One trajectory against one consensus."""

    relations: Mapping[str, Relation | None]
    """All 14 findings; ``None`` where there is nothing to hold against each other."""
    score: float | None
    """0 (none) to 1: opposed findings over compared ones; ``None`` where none is compared."""
    compared: int
    """Findings on which both have an opinion."""


def conflict(findings: Findings, sides: Sides | None, consensus: Consensus) -> Conflict:
    """Hold a trajectory's findings against a consensus.

    Per finding, with the trajectory's state t and the consensus's c:

    - ``contradict``: one is present and the other absent;
    - ``side``: both are present or uncertain, both name a side, and the sides differ (left is not bilateral); only
      where a side means something;
    - ``agree``: the same state otherwise;
    - ``hedged``: one is uncertain and the other is not;
    - ``unsupported``: t is present or uncertain, c is ``None``;
    - ``missed``: c is present, t is ``None``;
    - no relation: anything else with a ``None``.

    The score is (contradict + side) / (agree + hedged + contradict + side): a share of findings, 0 to 1. What is
    unsupported or missed is no conflict, since one of the two is silent. Source: this project; the paper (arXiv
    2510.04142) speaks of conflicts between teachers, laterality among them, and gives no formula.

    Raises:
        ValueError: a state is none of 1, 0, -1 and ``None``.
    """
    ours, theirs = sides or {}, consensus.sides
    relations = {
        name: _relation(name, findings.get(name), consensus.findings.get(name), ours.get(name), theirs.get(name))
        for name in FINDINGS
    }
    compared = sum(relation in COMPARED for relation in relations.values())
    opposed = sum(relation in OPPOSED for relation in relations.values())
    return Conflict(relations, opposed / compared if compared else None, compared)


def says(trajectory: Trajectory, consensus: Consensus) -> bool:
    """Whether a trajectory takes part and claims exactly what the consensus claims.

    Every finding on which both have an opinion agrees, its side too; nothing is claimed that the consensus does
    not claim, and nothing present is missed. What the consensus calls absent or uncertain may go unmentioned.
    """
    if not takes_part(trajectory):
        return False
    held = conflict(trajectory.findings or {}, trajectory.sides, consensus)
    return set(held.relations.values()) <= {"agree", None}


def _relation(
    name: str, state: State | None, agreed: State | None, side: Side | None, agreed_side: Side | None
) -> Relation | None:
    if not {state, agreed} <= {1, 0, -1, None}:
        raise ValueError(f"{name} has the states {state} and {agreed}: each is 1, 0, -1 or None")
    if state is None:
        return "missed" if agreed == 1 else None
    if agreed is None:
        return "unsupported" if state != 0 else None
    if {state, agreed} == {0, 1}:
        return "contradict"
    both_claim = 0 not in (state, agreed) and name in LATERAL
    if both_claim and side is not None and agreed_side is not None and side != agreed_side:
        return "side"
    return "agree" if state == agreed else "hedged"
