"""The work of the flows, a room for each kind of it."""

import gc

# Imports make objects by the million, and they stay: to look through them for garbage as often as Python does by
# default took a fifth of the start of every process.
gc.set_threshold(20_000, 10, 10)
