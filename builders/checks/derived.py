"""What must hold for the configs that are made of the trajectories."""

from dataclasses import dataclass, field
from typing import Final

from cxr_max.builders.checks.base import Defects, Part
from cxr_max.builders.checks.rows import check_coding, question_keys
from cxr_max.builders.checks.texts import check_texts
from cxr_max.findings import SIDES, STATES

SEARCHED: Final = {"consensus": ("text",), "preferences": ("chosen", "rejected")}


@dataclass(slots=True)
class DerivedRows:
    """Looks at the rows of one config as they stream by."""

    config: str
    asked: set[str]
    """Every question that the trajectories answer."""
    studies: set[str]
    defects: Defects
    _seen: set[str] = field(default_factory=set)

    def add(self, part: Part) -> None:
        """Look at some rows."""
        self._check_questions(part)
        check_texts(part, SEARCHED[self.config], self.defects)
        if self.config == "consensus":
            check_coding(part, part.table["findings"], tuple(STATES.values()), "state", self.defects)
            check_coding(part, part.table["sides"], SIDES, "side", self.defects)
        else:
            self._check_lists(part)

    def _check_questions(self, part: Part) -> None:
        studies = part.table["study_id"].to_pylist()
        for row, (key, study) in enumerate(zip(question_keys(part.table).to_pylist(), studies, strict=True)):
            if study not in self.studies:
                message = f"Study {study} has no trajectory in this release."
                self.defects.add("orphan", part.file, message, part.first + row)
            elif key not in self.asked:
                message = "No trajectory is about these images with this prompt."
                self.defects.add("orphan", part.file, message, part.first + row)
            if key in self._seen:
                message = "The same question has another row too."
                self.defects.add("duplicate", part.file, message, part.first + row)
            self._seen.add(key)

    def _check_lists(self, part: Part) -> None:
        import pyarrow.compute as pc

        lengths = [
            pc.list_value_length(part.table[name])
            for name in ("rejected", "rejected_teachers", "conflicts", "agreeing")
        ]
        uneven = pc.not_equal(lengths[0], lengths[1])
        for other in lengths[2:]:
            uneven = pc.or_(uneven, pc.not_equal(lengths[0], other))
        flag = self.defects.flag
        flag("preference", part, uneven, "Texts, teachers, conflicts and agreeing are not equally many.")
        flag("preference", part, pc.equal(lengths[0], 0), "There is no dispreferred text.")
        flag("preference", part, pc.equal(pc.utf8_length(part.table["chosen"]), 0), "The preferred text is empty.")
        conflicts = part.table["conflicts"].combine_chunks()
        values = pc.list_flatten(conflicts)
        bad = pc.invert(pc.and_(pc.greater_equal(values, 0), pc.less_equal(values, 1))).fill_null(False)
        for row in pc.filter(pc.list_parent_indices(conflicts), bad).unique().to_pylist():
            self.defects.add("number", part.file, "A conflict is not between 0 and 1.", part.first + row)
