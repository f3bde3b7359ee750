"""Narrowing float32 to fewer bits: the rules shared by every kernel and its reference.

All values are computed in float32 and narrowed once, at the store. NaN and infinities bypass the rounding.

- *nearest*: to bfloat16, ties to even, as torch casts.
- *stochastic*: to bfloat16, up with the probability of the dropped part: 16 random bits are added below the cut.
  They come from Philox4x32-10 with
  counter `(index // 8, step, stream)` and key `seed`; one call serves the eight elements
  of a group. A finite value never becomes infinite.
- *split*: the float32 pattern is cut in two, lossless: the upper half rounded to nearest (ties away from zero, so
  that the cut can be undone) is the bfloat16 weight, the lower bits are kept beside it.
"""
