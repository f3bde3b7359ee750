"""The AdamW step and the gradient norm: one launch for many tensors, found through a table of addresses.

A program takes one chunk of one tensor. Whole blocks at 16-byte aligned places run without masks, eight elements per
thread and access, but for gradients that are SHIFTED from such places, which a sharded backward pass makes as views;
RAGGED handles the rest (ends of tensors, odd addresses, scattered element indices) with masks.
"""

import triton
import triton.language as tl

from ..codes import GROUP
from ..codes.kernel import decode_average, decode_variance, divide, encode_average, encode_variance, square_root
from ..rounding.kernel import (
    is_special,
    random_elements,
    random_groups,
    round_stochastic,
    round_to_bf16,
    split,
    unsplit,
    widen_bf16,
)
from .modes import ROUNDINGS, SCALARS, ChunkRow, EntryRow

# The tables' columns, by the names that those who fill them use.
_ENTRY_COLUMNS = tl.constexpr(len(EntryRow._fields))
_WEIGHT = tl.constexpr(EntryRow._fields.index("weight"))
_GRAD = tl.constexpr(EntryRow._fields.index("grad"))
_EXP_AVG = tl.constexpr(EntryRow._fields.index("exp_avg"))
_EXP_AVG_SQ = tl.constexpr(EntryRow._fields.index("exp_avg_sq"))
_LOW = tl.constexpr(EntryRow._fields.index("low"))
_BASE = tl.constexpr(EntryRow._fields.index("base"))
_RUN = tl.constexpr(EntryRow._fields.index("run"))
_STRIDE = tl.constexpr(EntryRow._fields.index("stride"))
_SEED = tl.constexpr(EntryRow._fields.index("seed"))
_SCALARS = tl.constexpr(EntryRow._fields.index("scalars"))
_PLACE = tl.constexpr(EntryRow._fields.index("place"))
_FROZEN = tl.constexpr(EntryRow._fields.index("frozen"))
_COLUMNS = tl.constexpr(EntryRow._fields.index("columns"))
_EXP_AVG_SCALE = tl.constexpr(EntryRow._fields.index("exp_avg_scale"))
_EXP_AVG_SQ_SCALE = tl.constexpr(EntryRow._fields.index("exp_avg_sq_scale"))

_CHUNK_COLUMNS = tl.constexpr(len(ChunkRow._fields))
_ENTRY = tl.constexpr(ChunkRow._fields.index("entry"))
_START = tl.constexpr(ChunkRow._fields.index("start"))
_ELEMENTS = tl.constexpr(ChunkRow._fields.index("elements"))

_SCALAR_COLUMNS = tl.constexpr(len(SCALARS))
_DECAY = tl.constexpr(SCALARS.index("decay"))
_STEP_SIZE = tl.constexpr(SCALARS.index("step_size"))
_VARIANCE_SCALE = tl.constexpr(SCALARS.index("variance_scale"))
_EPS = tl.constexpr(SCALARS.index("eps"))
_BETA1 = tl.constexpr(SCALARS.index("beta1"))
_ONE_MINUS_BETA1 = tl.constexpr(SCALARS.index("one_minus_beta1"))
_BETA2 = tl.constexpr(SCALARS.index("beta2"))
_ONE_MINUS_BETA2 = tl.constexpr(SCALARS.index("one_minus_beta2"))
_STEP = tl.constexpr(SCALARS.index("step"))

_GROUP = tl.constexpr(GROUP)

NEAREST = tl.constexpr(ROUNDINGS.index("nearest"))
STOCHASTIC = tl.constexpr(ROUNDINGS.index("stochastic"))
KAHAN = tl.constexpr(ROUNDINGS.index("kahan"))
SPLIT = tl.constexpr(ROUNDINGS.index("split"))
SPLIT8 = tl.constexpr(ROUNDINGS.index("split8"))


@triton.jit
def address(entry_ptr, column: tl.constexpr, dtype: tl.constexpr, start, ALIGNED: tl.constexpr):
    """Pointer to element `start` of a tensor of the entry's row, promised to be a multiple of 16 if ALIGNED."""
    pointer = tl.load(entry_ptr + column).to(tl.pointer_type(dtype)) + start
    return tl.multiple_of(pointer, 16) if ALIGNED else pointer


@triton.jit
def load(pointers, mask, RAGGED: tl.constexpr):
    if RAGGED:
        return tl.load(pointers, mask=mask, other=0)
    else:
        return tl.load(pointers)


@triton.jit
def store(pointers, value, mask, RAGGED: tl.constexpr):
    if RAGGED:
        tl.store(pointers, value, mask=mask)
    else:
        tl.store(pointers, value)


@triton.jit
def as_float(x, WIDE: tl.constexpr):
    """float32 from memory: as it is (WIDE), or from the bits of bfloat16."""
    return x if WIDE else widen_bf16(x)


@triton.jit
def chunk_of(entries_ptr, chunks_ptr, program):
    """A program's row of the table of entries, its first element and how many it has (int32)."""
    chunk_ptr = chunks_ptr + program * _CHUNK_COLUMNS
    entry_ptr = entries_ptr + tl.load(chunk_ptr + _ENTRY) * _ENTRY_COLUMNS
    return entry_ptr, tl.load(chunk_ptr + _START), tl.load(chunk_ptr + _ELEMENTS).to(tl.int32)


@triton.jit
def scalars_of(scalars_ptr, entry_ptr):
    """The entry's row of scalars, in the order of `modes.SCALARS`."""
    row_ptr = scalars_ptr + tl.load(entry_ptr + _SCALARS) * _SCALAR_COLUMNS
    return (
        tl.load(row_ptr + _DECAY),
        tl.load(row_ptr + _STEP_SIZE),
        tl.load(row_ptr + _VARIANCE_SCALE),
        tl.load(row_ptr + _EPS),
        tl.load(row_ptr + _BETA1),
        tl.load(row_ptr + _ONE_MINUS_BETA1),
        tl.load(row_ptr + _BETA2),
        tl.load(row_ptr + _ONE_MINUS_BETA2),
        tl.load(row_ptr + _STEP).to(tl.uint32),
    )


@triton.jit
def random_key(entry_ptr, RANDOM: tl.constexpr, RAGGED: tl.constexpr):
    """Seed, and what tells the elements' places in the model: base, run and stride (of RAGGED chunks)."""
    seed = tl.load(entry_ptr + _SEED) if RANDOM else 0
    base = tl.load(entry_ptr + _BASE) if RANDOM else 0
    run = tl.load(entry_ptr + _RUN) if RANDOM and RAGGED else 1
    stride = tl.load(entry_ptr + _STRIDE) if RANDOM and RAGGED else 1
    return seed, base, run, stride


@triton.jit
def random_bits(key, offset, lane, step, stream: tl.constexpr, RAGGED: tl.constexpr):
    """uint32 of 16 random bits for the elements from `offset` on, keyed by their places in the model."""
    seed, base, run, stride = key
    if RAGGED:
        place = base + ((offset + lane) // run) * stride + (offset + lane) % run
        return random_elements(seed, place, step, stream)
    else:
        return random_groups(seed, (base + offset) // 8 + tl.arange(0, lane.shape[0] // 8), step, stream)


@triton.jit
def read_weight(weight, low, WEIGHT_WIDE: tl.constexpr, MODE: tl.constexpr):
    """The weight in float32, together with what is kept beside it."""
    if WEIGHT_WIDE:
        return weight
    elif MODE == KAHAN:
        return widen_bf16(weight) + widen_bf16(low)
    elif MODE == SPLIT:
        return unsplit(weight, low, 16)
    elif MODE == SPLIT8:
        return unsplit(weight, low, 8)
    else:
        return widen_bf16(weight)


@triton.jit
def narrow_weight(updated, random, low, WEIGHT_WIDE: tl.constexpr, MODE: tl.constexpr):
    """The weight as it is stored, and what is kept beside it (`low` as it was where nothing is)."""
    if WEIGHT_WIDE:
        return updated, low
    elif MODE == STOCHASTIC:
        return round_stochastic(updated, random), low
    elif MODE == KAHAN:
        weight = round_to_bf16(updated)
        # The subtraction is exact. Beside an infinite weight the difference has no meaning.
        missing = updated - widen_bf16(weight)
        missing = tl.where(is_special(missing.to(tl.uint32, bitcast=True)), 0.0, missing)
        return weight, round_to_bf16(missing)
    elif MODE == SPLIT:
        return split(updated, 16)
    elif MODE == SPLIT8:
        return split(updated, 8)
    else:
        return round_to_bf16(updated), low


@triton.jit
def narrow_state(value, random, STATE_WIDE: tl.constexpr, STOCHASTIC: tl.constexpr):
    """A moment as it is stored."""
    if STATE_WIDE:
        return value
    elif STOCHASTIC:
        return round_stochastic(value, random)
    else:
        return round_to_bf16(value)


@triton.jit
def is_frozen(entry_ptr, offset, lane):
    """Whether the elements from `offset` on are in columns that stay as they are."""
    columns = tl.load(entry_ptr + _COLUMNS)
    # The remainder in 64 bits once: rows are shorter than 2**31.
    column = ((offset % columns).to(tl.int32) + lane) % columns.to(tl.int32)
    bits = tl.load(tl.load(entry_ptr + _FROZEN).to(tl.pointer_type(tl.uint8)) + column // 8)
    return ((bits.to(tl.int32) >> (column % 8)) & 1) == 1


@triton.jit
def read_moments(
    average,
    variance,
    average_scales,
    variance_scales,
    mask,
    STATE_WIDE: tl.constexpr,
    STATE_CODED: tl.constexpr,
    RAGGED: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Both moments in float32; the scales of codes come by pointers."""
    if STATE_CODED:
        average_scale, variance_scale = load(average_scales, mask, RAGGED), load(variance_scales, mask, RAGGED)
        return decode_average(average, average_scale, EXACT), decode_variance(variance, variance_scale, EXACT)
    else:
        return as_float(average, STATE_WIDE), as_float(variance, STATE_WIDE)


@triton.jit
def adamw_kernel(
    entries_ptr,  # int64 [n_entries, len(EntryRow)]
    chunks_ptr,  # int64 [n_programs, len(ChunkRow)]: entry, first element, elements (of whole blocks if not RAGGED)
    scalars_ptr,  # float32 [n_rows, len(SCALARS)], see modes.SCALARS
    grad_scale_ptr,  # float32 [1], read if CLIP
    stale_ptr,  # int32 [n_programs], written if COUNT_STALE
    WEIGHT_WIDE: tl.constexpr,  # float32 weights; else bfloat16
    GRAD_WIDE: tl.constexpr,
    STATE_WIDE: tl.constexpr,
    STATE_CODED: tl.constexpr,  # moments are codes with scales
    MODE: tl.constexpr,
    STOCHASTIC_VARIANCE: tl.constexpr,
    FROZEN: tl.constexpr,  # some columns stay as they are
    CLIP: tl.constexpr,
    COUNT_STALE: tl.constexpr,
    EXACT: tl.constexpr,  # IEEE square root and division, as on a CPU
    RAGGED: tl.constexpr,
    SHIFTED: tl.constexpr,  # whole blocks, but the gradient lies at any address
    BLOCK: tl.constexpr,  # elements at a time
):
    # Long: a mask, a meter and five roundings of one pass over memory.
    # 64-bit from the first multiply: addresses, element offsets and table rows all are.
    program = tl.program_id(0).to(tl.int64)
    entry_ptr, start, count = chunk_of(entries_ptr, chunks_ptr, program)
    decay, step_size, variance_scale, eps, beta1, one_minus_beta1, beta2, one_minus_beta2, step = scalars_of(
        scalars_ptr, entry_ptr
    )
    grad_scale = tl.load(grad_scale_ptr) if CLIP else 1.0
    key = random_key(entry_ptr, (MODE == STOCHASTIC) or STOCHASTIC_VARIANCE, RAGGED)
    WEIGHT: tl.constexpr = tl.float32 if WEIGHT_WIDE else tl.uint16
    GRAD: tl.constexpr = tl.float32 if GRAD_WIDE else tl.uint16
    STATE: tl.constexpr = tl.float32 if STATE_WIDE else tl.uint16
    LOW: tl.constexpr = tl.uint8 if MODE == SPLIT8 else tl.uint16
    HAS_LOW: tl.constexpr = (MODE >= KAHAN) and (not WEIGHT_WIDE)
    weights = address(entry_ptr, _WEIGHT, WEIGHT, start, not RAGGED)
    grads = address(entry_ptr, _GRAD, GRAD, start, not (RAGGED or SHIFTED))
    exp_avgs = address(entry_ptr, _EXP_AVG, tl.int8 if STATE_CODED else STATE, start, not RAGGED)
    exp_avg_sqs = address(entry_ptr, _EXP_AVG_SQ, tl.uint8 if STATE_CODED else STATE, start, not RAGGED)
    average_scales = address(entry_ptr, _EXP_AVG_SCALE, tl.float32, start // _GROUP, not RAGGED)
    variance_scales = address(entry_ptr, _EXP_AVG_SQ_SCALE, tl.float32, start // _GROUP, not RAGGED)
    lows = address(entry_ptr, _LOW, LOW, start, not RAGGED)

    lane = tl.arange(0, BLOCK)
    unmoved = tl.zeros([BLOCK // 8], tl.int32)
    for at in range(0, count, BLOCK):
        here = at + lane
        mask = lane < count - at
        weight = load(weights + here, mask, RAGGED)
        grad = as_float(load(grads + here, mask, RAGGED), GRAD_WIDE)
        old_average = load(exp_avgs + here, mask, RAGGED)
        old_variance = load(exp_avg_sqs + here, mask, RAGGED)
        group = at // _GROUP + tl.arange(0, BLOCK // _GROUP)
        groups = group < count // _GROUP
        exp_avg, exp_avg_sq = read_moments(
            old_average,
            old_variance,
            average_scales + group,
            variance_scales + group,
            groups,
            STATE_WIDE,
            STATE_CODED,
            RAGGED,
            EXACT,
        )
        low = load(lows + here, mask, RAGGED) if HAS_LOW else weight

        if CLIP:
            grad = grad * grad_scale
        exp_avg = exp_avg * beta1 + grad * one_minus_beta1
        exp_avg_sq = exp_avg_sq * beta2 + (grad * grad) * one_minus_beta2
        ratio = divide(exp_avg, square_root(exp_avg_sq, EXACT) * variance_scale + eps, EXACT)
        updated = read_weight(weight, low, WEIGHT_WIDE, MODE) * decay - ratio * step_size

        random, random_variance = 0, 0
        if MODE == STOCHASTIC:
            random = random_bits(key, start + at, lane, step, 0, RAGGED)
        if STOCHASTIC_VARIANCE:
            random_variance = random_bits(key, start + at, lane, step, 1, RAGGED)
        new_weight, new_low = narrow_weight(updated, random, low, WEIGHT_WIDE, MODE)
        still = is_frozen(entry_ptr, start + at, lane) if FROZEN else mask
        if STATE_CODED:
            new_average, new_average_scales = encode_average(exp_avg, still, FROZEN, EXACT)
            new_variance, new_variance_scales = encode_variance(
                exp_avg_sq, random_variance, still, STOCHASTIC_VARIANCE, FROZEN, EXACT
            )
            store(average_scales + group, new_average_scales, groups, RAGGED)
            store(variance_scales + group, new_variance_scales, groups, RAGGED)
        else:
            new_average = narrow_state(exp_avg, 0, STATE_WIDE, False)
            new_variance = narrow_state(exp_avg_sq, random_variance, STATE_WIDE, STOCHASTIC_VARIANCE)
        if FROZEN:
            new_weight, new_low = tl.where(still, weight, new_weight), tl.where(still, low, new_low)
            new_average = tl.where(still, old_average, new_average)
            new_variance = tl.where(still, old_variance, new_variance)
        store(weights + here, new_weight, mask, RAGGED)
        store(exp_avgs + here, new_average, mask, RAGGED)
        store(exp_avg_sqs + here, new_variance, mask, RAGGED)
        if HAS_LOW:
            store(lows + here, new_low, mask, RAGGED)
        if COUNT_STALE:
            same = same_bits(new_weight, weight, WEIGHT_WIDE)
            if HAS_LOW:
                same &= new_low == low
            if RAGGED:
                same &= mask
            unmoved += tl.sum(tl.reshape(same.to(tl.int32), [BLOCK // 8, 8]), axis=1)
    if COUNT_STALE:
        tl.store(stale_ptr + program, tl.sum(unmoved))


@triton.jit
def same_bits(a, b, WIDE: tl.constexpr):
    """Bit equality: NaN equals itself, 0.0 and -0.0 differ."""
    return a.to(tl.uint32, bitcast=True) == b.to(tl.uint32, bitcast=True) if WIDE else a == b


@triton.jit
def square_sum(
    grads,  # pointer to the chunk
    count,  # its elements, int32
    GRAD_WIDE: tl.constexpr,
    RAGGED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum of squares of a chunk: eight neighbours as a float32 tree, the rest in float64, whatever the blocks."""
    lane = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK // 8], tl.float64)
    for at in range(0, count, BLOCK):
        grad = as_float(load(grads + at + lane, at + lane < count, RAGGED), GRAD_WIDE)
        first, second = tl.split(tl.reshape(grad * grad, [BLOCK // 2, 2]))
        first, second = tl.split(tl.reshape(first + second, [BLOCK // 4, 2]))
        first, second = tl.split(tl.reshape(first + second, [BLOCK // 8, 2]))
        total += (first + second).to(tl.float64)
    return tl.sum(total)


@triton.jit
def square_sum_kernel(
    entries_ptr,  # int64 [n_entries, len(EntryRow)]
    chunks_ptr,  # int64 [n_programs, len(ChunkRow)]: entry, first element, elements (CHUNK if not RAGGED)
    partial_ptr,  # float64, written: a sum per chunk, from the place on that the entry names
    GRAD_WIDE: tl.constexpr,
    RAGGED: tl.constexpr,
    SHIFTED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sums of squares of the chunks of all gradients; no atomics."""
    entry_ptr, start, count = chunk_of(entries_ptr, chunks_ptr, tl.program_id(0).to(tl.int64))
    place = tl.load(entry_ptr + _PLACE) + start // CHUNK
    GRAD: tl.constexpr = tl.float32 if GRAD_WIDE else tl.uint16
    grads = address(entry_ptr, _GRAD, GRAD, start, not (RAGGED or SHIFTED))
    # As a constant, the number of steps lets the compiler read ahead.
    count = count if RAGGED else CHUNK
    tl.store(partial_ptr + place, square_sum(grads, count, GRAD_WIDE, RAGGED, BLOCK))


@triton.jit(do_not_specialize=["first", "numel"])
def tensor_square_sum_kernel(
    grad_ptr,  # float32 or the bits of bfloat16 [numel]
    partial_ptr,  # float64, written from `first` on: a sum per chunk
    first,
    numel,
    GRAD_WIDE: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sums of squares of the chunks of one gradient."""
    program = tl.program_id(0).to(tl.int64)
    start = program * CHUNK
    if start + CHUNK <= numel:
        total = square_sum(grad_ptr + start, CHUNK, GRAD_WIDE, False, BLOCK)
    else:
        total = square_sum(grad_ptr + start, (numel - start).to(tl.int32), GRAD_WIDE, True, BLOCK)
    tl.store(partial_ptr + first + program, total)
