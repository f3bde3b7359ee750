"""Triton device functions of the narrowing rules.

bfloat16 is handled as its 16 bits throughout: widening is a shift, narrowing one of the functions below.
Arithmetic never happens in bfloat16.
"""

import triton
import triton.language as tl

from ..backend import interpreting

# Patterns of float32 without sign: infinity, and the least value that rounds up to it.
_INFINITY = tl.constexpr(0x7F800000)
_LAST = tl.constexpr(0x7F7F0000)

# The interpreter's cast to bfloat16 truncates; there the rounding is spelt out in integers. On a GPU the cast rounds to
# nearest even in hardware, two elements per instruction instead of a dozen instructions for one: on an H200 the
# spelt-out version alone would take a third of the time that memory takes.
_HARDWARE_CASTS = tl.constexpr(not interpreting())


@triton.jit
def widen_bf16(bits):
    """uint16 bits of bfloat16 to float32."""
    return (bits.to(tl.uint32) << 16).to(tl.float32, bitcast=True)


@triton.jit
def is_special(pattern):
    """Whether the uint32 pattern of a float32 is an infinity or NaN.

    NaN may be cut to its upper half: arithmetic makes it quiet, by a bit that lies there.
    """
    return (pattern & 0x7FFFFFFF) >= _INFINITY


@triton.jit
def upper_half(pattern):
    """uint32 patterns to the uint16 bits of the bfloat16 in their upper half."""
    return (pattern >> 16).to(tl.uint16)


@triton.jit
def round_to_bf16(x):
    """float32 to the uint16 bits of the nearest bfloat16, ties to even."""
    if _HARDWARE_CASTS:
        return x.to(tl.bfloat16).to(tl.uint16, bitcast=True)
    else:
        pattern = x.to(tl.uint32, bitcast=True)
        half = tl.where(is_special(pattern), 0, 0x7FFF + ((pattern >> 16) & 1))
        return upper_half(pattern + half)


@triton.jit
def round_stochastic(x, random):
    """float32 to the uint16 bits of bfloat16: up with the probability of the dropped part; `random` is 16 bits in
    uint32."""
    pattern = x.to(tl.uint32, bitcast=True)
    # In the last binade a carry would reach infinity: such a value is cut instead, as are infinity and NaN.
    return upper_half(pattern + tl.where((pattern & 0x7FFFFFFF) >= _LAST, 0, random))


@triton.jit
def split(x, LOW_BITS: tl.constexpr):
    """float32 to the bits of a bfloat16 weight (uint16) and the LOW_BITS bits below it (uint16 or uint8)."""
    pattern = x.to(tl.uint32, bitcast=True)
    special = is_special(pattern)
    if LOW_BITS == 8:
        pattern += tl.where(special, 0, 0x7F + ((pattern >> 8) & 1))
    high = upper_half(pattern + tl.where(special, 0, 0x8000))
    if LOW_BITS == 8:
        return high, tl.where(special, 0, pattern >> 8).to(tl.uint8)
    else:
        return high, tl.where(special, 0, pattern).to(tl.uint16)


@triton.jit
def unsplit(high, low, LOW_BITS: tl.constexpr):
    """Undo `split`: the weight was rounded up where the part below it is half a unit or more."""
    below = low.to(tl.uint32)
    if LOW_BITS == 8:
        below = below << 8
    pattern = ((high.to(tl.uint32) << 16) - ((below & 0x8000) << 1)) | below
    return pattern.to(tl.float32, bitcast=True)


@triton.jit
def random_groups(seed, group, step, stream: tl.constexpr):
    """16 random bits for each element of the groups `group` (int64 `[n]`, consecutive): uint32 `[8 * n]`.

    One Philox call serves eight elements; the words are taken in order, their lower half first.
    """
    a, b, c, d = _philox(seed, group, step, stream)
    words = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [4 * a.shape[0]])
    return tl.reshape(tl.join(words & 0xFFFF, words >> 16), [8 * a.shape[0]])


@triton.jit
def random_elements(seed, index, step, stream: tl.constexpr):
    """The same bits for elements at any places (int64 `[n]`): uint32 `[n]`, at a whole Philox call per element."""
    a, b, c, d = _philox(seed, index >> 3, step, stream)
    lane = (index & 7).to(tl.int32)
    word = tl.where(lane < 4, tl.where(lane < 2, a, b), tl.where(lane < 6, c, d))
    return tl.where((lane & 1) == 1, word >> 16, word & 0xFFFF)


@triton.jit
def _philox(seed, group, step, stream: tl.constexpr):
    """Philox4x32-10 as `tl.philox` computes it, with one wide multiplication where that takes a high and a low one."""
    c0 = group.to(tl.uint32)
    c1 = (group >> 32).to(tl.uint32)
    c2 = c0 * 0 + step
    c3 = c0 * 0 + stream
    k0 = (seed & 0xFFFFFFFF).to(tl.uint32)
    k1 = ((seed >> 32) & 0xFFFFFFFF).to(tl.uint32)
    for _ in tl.static_range(10):
        product0 = c0.to(tl.uint64) * 0xD2511F53
        product2 = c2.to(tl.uint64) * 0xCD9E8D57
        c0 = (product2 >> 32).to(tl.uint32) ^ c1 ^ k0
        c2 = (product0 >> 32).to(tl.uint32) ^ c3 ^ k1
        c1 = product2.to(tl.uint32)
        c3 = product0.to(tl.uint32)
        k0 = tl.add(k0, 0x9E3779B9, sanitize_overflow=False)
        k1 = tl.add(k1, 0xBB67AE85, sanitize_overflow=False)
    return c0, c1, c2, c3
