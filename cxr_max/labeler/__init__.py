"""Free text about a chest radiograph -> the 14 findings, each with its state, its side and the words that say so.

States are coded as everywhere here: 1 present, 0 absent, -1 uncertain, ``None`` not mentioned (``cxr_max.findings``).
Rules, with a lexicon of terms and triggers in ``lexicon.toml``; no weights, no download, and linear time.

How mentions of one finding add up: present wins over uncertain, uncertain over absent. Sides add up over the mentions
that have the winning state; left and right in different mentions make bilateral.

No Finding is 1 if the text says that the image is normal or denies at least one finding, no other finding except
Support Devices is present or uncertain, and no abnormality outside the 14 is named (after Irvin et al. 2019). Else it
is ``None``: only a structured answer can say 0.
"""

from cxr_max.labeler.gather import VERSION, Labels, label

__all__ = ["VERSION", "Labels", "label"]
