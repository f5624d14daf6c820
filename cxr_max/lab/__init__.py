"""The drift lab: the whole paper (arXiv 2510.04142) on phantoms, with known truth, on a CPU.

It only calls what the other pieces offer. ``world`` says which data sets and teachers there are, ``plan`` which
stages a preset has, ``schedule`` runs them as processes and remembers what is done, ``stages`` is what each does,
``school`` makes the base student, ``claims`` judges by a rule stated before, and ``report`` writes the page.
"""
