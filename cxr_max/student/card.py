"""The card of a trained student: what it is, what it learnt from, and what it must not be taken for."""

import json
from collections.abc import Mapping
from typing import Any

_STAGES = {
    "sft": "supervised fine-tuning on the trajectories of all teachers",
    "apo": "Autonomous Preference Optimization: the consensus preferred to every teacher's trajectory",
}


def card(settings: Mapping[str, Any], base: str, steps: int, last: Mapping[str, float]) -> str:
    """Markdown with the front matter that the Hub reads.

    Args:
        settings: what ``train.json`` holds.
        base: the model's name; of a folder, only the folder's.
        last: the numbers of the last logged step.
    """
    numbers = "".join(f"| {name} | {value:.4g} |\n" for name, value in sorted(last.items()))
    return f"""---
library_name: transformers
pipeline_tag: image-text-to-text
tags: [chest-radiograph, cxr-max, {settings["stage"]}]
---

# A student of chest radiograph teachers

Trained by cxr-max: {_STAGES[settings["stage"]]} (arXiv 2510.04142). Base: `{base}`, fingerprint
`{settings["base"]}`. Data: the release whose trajectories have the digest `{settings["data"]}`. Steps: {steps}.

It is a research model. It is no medical device, was not validated on patients, and must not be used to diagnose.
The terms of the data it was trained on hold for it too: a student of credentialed data is credentialed.

## Last step

| | |
|---|---|
{numbers}
## Course

![The course of the training, step by step](curves.png)

Every logged step stands in `metrics.jsonl` beside the student.

## Settings

```json
{json.dumps({name: settings[name] for name in ("course", "model")}, indent=2, sort_keys=True)}
```
"""
