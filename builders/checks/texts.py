"""Text that looks like an identifier, and text that looks like a key.

Shapes only, after the identifiers that HIPAA's safe harbor lists (45 CFR 164.514(b)(2)): a date, a number of a
patient, an examination or a telephone, an e-mail address, a name after a title, an age over 89. What MIMIC-CXR
puts in their place (``___``) is none. A text that passes may still name somebody in words that have no shape.
"""

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cxr_max.builders.checks.base import Defects, Part

_MONTH: Final = (
    "(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    "|Nov(?:ember)?|Dec(?:ember)?)"
)
IDENTIFIERS: Final[dict[str, str]] = {
    "a date": (
        r"\b(?:\d{1,2}/\d{1,2}/(?:\d{4}|\d{2})|(?:19|20|21)\d{2}[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[01])"
        rf"|\d{{1,2}}\.\d{{1,2}}\.(?:19|20)\d{{2}}|{_MONTH}\.? \d{{1,2}}(?:st|nd|rd|th)?,? (?:19|20|21)\d{{2}}"
        rf"|\d{{1,2}}(?:st|nd|rd|th)? {_MONTH}\.?,? (?:19|20|21)\d{{2}})\b"
    ),
    "a telephone number": (
        r"(?:\(\d{3}\) ?|\b\d{3}[-. ])\d{3}[-.]\d{4}\b|\+\d{1,3}[ -]\d{1,4}[ -]\d{2,4}[ -]\d{3,5}\b"
    ),
    "an e-mail address": r"\b[\w.+-]+@[\w-]+\.[A-Za-z]{2,}\b",
    "a social security number": r"\b\d{3}-\d{2}-\d{4}\b",
    "a patient's or an examination's number": (
        r"(?i:\b(?:MRN|medical record|accession|patient id|exam id|study id)(?: (?:number|no\.?|id))?"
        r"[ :#]*[a-z]{0,4}-?\d{4,})|\b[ps]?\d{7,12}\b|\b1\.2\.840\.\d[\d.]{8,}"
    ),
    "a name": (
        r"\b(?:Dr\.?|Drs\.|Doctor|Prof\.|Mr\.|Mrs\.|Ms\.) (?:[A-Z]\. ?)?[A-Z][a-z]+\b"
        r"|(?i:\bpatient(?:'s)? name) ?(?::|is) ?[A-Z][a-z]+"
    ),
    "an age over 89": r"\b(?:9\d|1[01]\d)(?:[- ]years?[- ]old|[- ]?y/?o\b)",
}
KEYS: Final = (
    r"\b(?:sk|xai|gsk|rk|pk)[-_][A-Za-z0-9_-]{20,}|\bAIza[A-Za-z0-9_-]{30,}|\bhf_[A-Za-z0-9]{20,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}|\bAKIA[A-Z0-9]{16}\b"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|(?i:\bbearer [a-z0-9._~+/=-]{20,})"
)
_ANY: Final = "|".join(f"(?:{pattern})" for pattern in (*IDENTIFIERS.values(), KEYS))


def looks_like(text: str) -> tuple[str, str] | None:
    """What a text holds that looks like an identifier or a key, and where; ``None`` if nothing does.

    Returns:
        ``key`` or ``identifier``, and what was found in words. A key itself is never repeated.
    """
    if re.search(KEYS, text):
        return "key", "a key"
    for what, pattern in IDENTIFIERS.items():
        found = re.search(pattern, text)
        if found:
            return "identifier", f"{what} ({found[0]!r})"
    return None


def check_texts(part: "Part", columns: tuple[str, ...], defects: "Defects") -> None:
    """Look through columns of text, or of lists of texts."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for column in columns:
        values = part.table[column].combine_chunks()
        rows = None
        if pa.types.is_list(values.type):
            rows, values = pc.list_parent_indices(values), pc.list_flatten(values)
        hits = pc.indices_nonzero(pc.match_substring_regex(values, _ANY)).to_pylist()
        for hit in hits:
            found = looks_like(values[hit].as_py())
            if found is not None:
                row = hit if rows is None else rows[hit].as_py()
                check, what = found
                defects.add(check, part.file, f"{column} holds what looks like {what}.", part.first + row)
