"""Free text about a chest radiograph -> the 14 findings: state, side, and the words that say so.

States are coded as everywhere here: 1 present, 0 absent, -1 uncertain, ``None`` not mentioned
(``cxr_max.findings``). Rules, with their terms and triggers in ``lexicon.toml``: no weights, no download, linear
time. The method is ConText's (Harkema et al. 2009): triggers reach forward or backward to the findings in their
scope. The classes of triggers follow NegBio (Peng et al. 2018), the findings CheXpert (Irvin et al. 2019).

- Mentions of one finding add up: present wins over uncertain, uncertain over absent. There is no exception for an
  impression. Sides add up over the mentions that have the winning state: left and right make bilateral.
- Normal structures deny: a heart of normal size Cardiomegaly, sharp costophrenic angles Pleural Effusion, clear
  lungs Consolidation and Lung Opacity (not Edema, which clear lungs often coexist with in words), intact bones
  Fracture. "No acute cardiopulmonary abnormality" denies nothing by name; it counts towards No Finding.
- A word that only points to a finding leaves it uncertain: blunted angles (scars blunt them too), vascular
  congestion (before edema), nodular opacities (vessels, nipples), volume loss, infection.
- No Finding is 1 if the text calls the image normal or denies at least one finding, no other finding except
  Support Devices is present or uncertain, and no disease outside the 14 is named (after CheXpert). Else it is
  ``None``: only a structured answer can say 0.
- A refusal, a definition, a supposition and an echo of the prompt are no findings.
"""

from cxr_max.labeler.gather import VERSION, Labels, label

__all__ = ["VERSION", "Labels", "label"]
