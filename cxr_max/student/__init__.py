"""The student: a Qwen2.5-VL that learns from all teachers, is told their consensus, and is trained to prefer it.

The one place that imports torch, transformers, peft and accelerate (``pip install "cxr-max[train]"``). The method
is that of arXiv 2510.04142 ("learn, compare, critique").
"""
