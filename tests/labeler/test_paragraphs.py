"""Whole replies in the styles of language models, read by hand: every finding, every side, and nothing else."""

from dataclasses import dataclass

import pytest

from cxr_max.findings import FINDINGS
from cxr_max.labeler import label

STATES = {"present": 1, "absent": 0, "uncertain": -1}


@dataclass(frozen=True)
class Case:
    """A reply, and what it says as ``Finding: state, side`` lines; the findings it does not name are ``None``."""

    name: str
    text: str
    says: str
    given: tuple[str, ...] = ()
    structured: bool = False


CASES = (
    Case(
        "headings and bullets",
        """### Technical quality
The film is slightly rotated, inspiration is adequate.

### Lungs
- Dense opacity in the **right lower lobe** with air bronchograms, consistent with consolidation.
- The left lung is clear.

### Pleura
- Small right pleural effusion with blunting of the right costophrenic angle.
- No pneumothorax on either side.

### Heart and mediastinum
- Heart size is at the upper limit of normal.
- Mediastinal contours are unremarkable.

### Bones
- No acute fracture.
""",
        """Lung Opacity: present, right
Consolidation: present, right
Pleural Effusion: present, right
Pneumothorax: absent
Cardiomegaly: uncertain
Enlarged Cardiomediastinum: absent
Fracture: absent""",
    ),
    Case(
        "check marks",
        """✅ **Cardiomegaly** – the heart takes up well over half of the thoracic width
✅ **Pleural effusion** – both costophrenic angles are blunted, more so on the left
❌ **Pneumothorax** – no pleural line, lung markings reach the chest wall
❌ **Fracture**
❓ **Pneumonia** – hazy area at the left base, hard to separate from atelectasis""",
        """Cardiomegaly: present
Pleural Effusion: present, bilateral
Pneumothorax: absent
Fracture: absent
Pneumonia: uncertain, left
Atelectasis: uncertain, left""",
    ),
    Case(
        "one line",
        "Bilateral pleural effusions, left greater than right, with left basilar atelectasis; no pneumothorax.",
        """Pleural Effusion: present, bilateral
Atelectasis: present, left
Pneumothorax: absent""",
    ),
    Case(
        "plain prose",
        """The frontal radiograph shows a dual-chamber pacemaker whose generator projects over the left chest, with
leads in the right atrium and right ventricle. The heart is moderately enlarged. There is haziness around the hila
and the upper-lobe vessels are prominent, findings that are consistent with mild pulmonary edema. I do not see a
pneumothorax. A small effusion on the right cannot be excluded. The bones are intact.""",
        """Support Devices: present
Cardiomegaly: present
Edema: present
Pneumothorax: absent
Pleural Effusion: uncertain, right
Fracture: absent""",
    ),
    Case(
        "table",
        """| Finding | Status | Comment |
|---|---|---|
| Pneumothorax | Present | Thin line at the left apex |
| Pleural Effusion | Absent | Angles sharp |
| Lung Lesion | Uncertain | Round shadow over the right hilum |
| Support Devices | Yes | Left chest tube |""",
        """Pneumothorax: present, left
Pleural Effusion: absent
Lung Lesion: uncertain, right
Support Devices: present""",
    ),
    Case(
        "follow-up",
        """Compared with the previous film, the right upper lobe consolidation has resolved. The left pleural
effusion is unchanged. There is no change in the position of the endotracheal tube. No new opacity.""",
        """Consolidation: absent
Pleural Effusion: present, left
Support Devices: present
Lung Opacity: absent""",
    ),
    Case(
        "normal with hardware",
        "Sternotomy wires and a right-sided port. The lungs are clear. Heart size is normal. No effusion.",
        """Support Devices: present
Consolidation: absent
Lung Opacity: absent
Cardiomegaly: absent
Pleural Effusion: absent
No Finding: present""",
    ),
    Case(
        "supports the given diagnoses",
        """The findings that support atelectasis and pleural effusion are:

1. **Atelectasis**
   - Linear density at the left base with elevation of the left hemidiaphragm.
2. **Pleural effusion**
   - The right costophrenic angle is filled in, with a meniscus along the right chest wall.

These signs would be missing in a normal study. If there were no effusion, the angle would be sharp.""",
        """Atelectasis: present, left
Pleural Effusion: present, right""",
        given=("Atelectasis", "Pleural Effusion"),
    ),
    Case(
        "repeats the given diagnoses",
        """Diagnoses: Atelectasis, Pleural Effusion

The diagnosis of atelectasis and pleural effusion is based on characteristic radiographic features.
Pleural effusion is identified by blunting of the costophrenic angles.
Atelectasis typically appears as a linear opacity.""",
        "",
        given=("Atelectasis", "Pleural Effusion"),
    ),
    Case(
        "refuses and defines",
        """As an AI, I'm not capable of interpreting medical images. In general, pleural effusion appears as
blunting of the costophrenic angle, and atelectasis as linear opacities at the bases.
Please ask a radiologist.""",
        "",
    ),
    Case(
        "answer block over text",
        """There is a moderate left effusion. The heart is enlarged. No pneumothorax.

**ANSWER**
- Pleural Effusion: present, right
- Cardiomegaly: absent
- Edema: uncertain""",
        """Pleural Effusion: present, right
Cardiomegaly: absent
Edema: uncertain
Pneumothorax: absent""",
        structured=True,
    ),
    Case(
        "different sides",
        """There is consolidation in the left lower lobe. A second area of consolidation lies in the right upper
lobe. The right heart border is obscured.
A left subclavian catheter ends in the superior vena cava, and there is a
right apical pneumothorax. The trachea is shifted to the left.""",
        """Consolidation: present, bilateral
Support Devices: present
Pneumothorax: present, right""",
    ),
    Case(
        "numbered reasoning",
        """**Step 1: Image quality.** AP projection, adequate penetration.
**Step 2: Lungs.** I see patchy opacities in both lower lobes. These may represent pneumonia or aspiration.
**Step 3: Pleura.** The costophrenic angles are sharp, so I find no evidence of effusion. While there is no
pneumothorax, mild pleural thickening is seen at the right apex.
**Step 4: Heart.** The cardiac silhouette is not enlarged.
**Step 5: Devices.** None.""",
        """Lung Opacity: present, bilateral
Pneumonia: uncertain, bilateral
Pleural Effusion: absent
Pneumothorax: absent
Pleural Other: present, right
Cardiomegaly: absent
Support Devices: absent""",
    ),
)


def said(case: Case) -> dict[str, tuple[int | None, str | None]]:
    expected: dict[str, tuple[int | None, str | None]] = dict.fromkeys(FINDINGS, (None, None))
    for line in case.says.splitlines():
        name, _, verdict = line.partition(": ")
        state, _, side = verdict.partition(", ")
        expected[name] = STATES[state], side or None
    return expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_reply_is_read_as_a_radiologist_reads_it(case: Case) -> None:
    labels = label(case.text, structured=case.structured, given=case.given)
    read = {name: (labels[name], labels.sides[name]) for name in FINDINGS}
    expected = said(case)
    assert {name: read[name] for name in FINDINGS if read[name] != expected[name]} == {}, expected
