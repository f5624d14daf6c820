"""Each external data set in miniature: the owners' layout and column names, quirks included, phantoms for images.

Every number, word and picture is invented or drawn.
"""
