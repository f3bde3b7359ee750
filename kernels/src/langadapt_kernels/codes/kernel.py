"""Triton device functions of codes; the bits of the reference, which has the equations."""

import triton
import triton.language as tl

from . import GROUP

_GROUP = tl.constexpr(GROUP)
_MAGNITUDE = tl.constexpr(0x7FFFFFFF)
_INFINITY = tl.constexpr(0x7F800000)
_NAN = tl.constexpr(0x7FC00000)

# Added to a number below 2**22, leaves the nearest integer, ties to even, in the low bits of the pattern.
_TO_INTEGER = tl.constexpr(12582912.0)


@triton.jit
def square_root(x, EXACT: tl.constexpr):
    return tl.sqrt_rn(x) if EXACT else tl.sqrt(x)


@triton.jit
def divide(a, b, EXACT: tl.constexpr):
    return tl.div_rn(a, b) if EXACT else a / b


@triton.jit
def spread(scales, LENGTH: tl.constexpr):
    """float32 `[LENGTH / GROUP]` to an element for each of the group's."""
    return tl.reshape(tl.broadcast_to(scales[:, None], [LENGTH // _GROUP, _GROUP]), [LENGTH])


@triton.jit
def largest(values, still, FROZEN: tl.constexpr):
    """float32 `[n]` to the largest magnitude of each group `[n / GROUP]`, NaN where one is not finite; elements that
    are `still` have no say."""
    patterns = values.to(tl.int32, bitcast=True) & _MAGNITUDE
    if FROZEN:
        patterns = tl.where(still, 0, patterns)
    most = tl.max(tl.reshape(patterns, [values.shape[0] // _GROUP, _GROUP]), axis=1)
    return tl.where(most >= _INFINITY, _NAN, most).to(tl.float32, bitcast=True)


@triton.jit
def decode_average(codes, scales, EXACT: tl.constexpr):
    """int8 `[n]` and float32 `[n / GROUP]` to float32 `[n]`."""
    code = codes.to(tl.float32)
    return divide(code, 254.0 - tl.abs(code), EXACT) * spread(scales, codes.shape[0])


@triton.jit
def decode_variance(codes, scales, EXACT: tl.constexpr):
    """uint8 `[n]` and float32 `[n / GROUP]` to float32 `[n]`."""
    root = codes.to(tl.float32) * spread(divide(scales, 255.0, EXACT), codes.shape[0])
    square = root * root
    return square * square


@triton.jit
def encode_average(values, still, FROZEN: tl.constexpr, EXACT: tl.constexpr):
    """float32 `[n]` to int8 codes `[n]` and float32 scales `[n / GROUP]`."""
    scales = largest(values, still, FROZEN)
    scale = spread(scales, values.shape[0])
    # Where there is no scale there is no code: what is divided by then is of no account.
    ratio = divide(values, tl.where(scale > 0, scale, 1.0) + tl.abs(values), EXACT)
    codes = (ratio * 254.0 + _TO_INTEGER).to(tl.int32, bitcast=True)
    return tl.where(scale > 0, codes, 0).to(tl.int8), scales


@triton.jit
def encode_variance(values, random, still, STOCHASTIC: tl.constexpr, FROZEN: tl.constexpr, EXACT: tl.constexpr):
    """float32 `[n]`, none negative, to uint8 codes `[n]` and float32 scales `[n / GROUP]`; `random` is 16 bits in
    uint32."""
    roots = square_root(square_root(values, EXACT), EXACT)
    scales = largest(roots, still, FROZEN)
    scale = spread(scales, values.shape[0])
    fraction = divide(roots, tl.where(scale > 0, scale, 1.0), EXACT) * 255.0
    fraction = tl.where(scale > 0, fraction, 0.0)
    up = random.to(tl.float32) * (1.0 / 65536) if STOCHASTIC else 0.5
    # A fast division may make the largest a little more than itself.
    codes = tl.minimum((fraction + up).to(tl.int32), 255)
    codes = tl.where((roots > 0) & (scale > 0), tl.maximum(codes, 1), codes)
    return tl.where(scale > 0, codes, 0).to(tl.uint8), scales
