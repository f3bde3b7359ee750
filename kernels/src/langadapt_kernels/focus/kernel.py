"""The FOCUS combination in Triton, in four launches, with memory for a few candidates per new token.

1. `bounds_kernel` computes all similarities in bfloat16 on the matrix units, and folds each row of them to the maxima
   of COLUMNS columns; their sparsemax threshold, as that of any part of the row, is a lower bound of the row's.
   A program's new tokens are KEPT in shared memory where they fit; read again beside each tile of anchors, they
   would be half of what goes through the L2 cache.
2. `candidates_kernel` computes them again and keeps the anchors above the bound. It allows for the error of bfloat16,
   so that no member of the support can be missed.
3. `weights_kernel` computes the similarities of the candidates in float32, and their exact sparsemax.
4. `gather_kernel` adds up the rows of the support in float32, once per matrix.

A row with more candidates than the buffer holds (ties, duplicated anchors) is left to the reference.
"""

import triton
import triton.language as tl

from ..rounding.kernel import round_to_bf16, widen_bf16
from ..sparsemax.kernel import threshold

# A similarity of unit vectors rounded to bfloat16 (unit roundoff 2**-9 each) is off by at most 2**-8 + 2**-18 by
# the Cauchy-Schwarz inequality; 2**-13 covers the float32 sums. A threshold moves by no more than its entries do,
# so the bound may be too high by one such error, and a member of the support may seem too low by another.
_MARGIN = tl.constexpr(2 * (2**-8 + 2**-13))


@triton.jit
def slices(ptr, row, WIDTH: tl.constexpr, START: tl.constexpr, STEP: tl.constexpr):
    """The columns of the rows `row` from START on as a tuple of tensors `[rows, STEP]`."""
    part = tl.load(ptr + START + (row[:, None] * WIDTH + tl.arange(0, STEP)[None, :]))
    if START + STEP >= WIDTH:
        return (part,)
    else:
        rest = slices(ptr, row, WIDTH, START + STEP, STEP)
        return (part,) + rest  # noqa: RUF005 (Triton cannot unpack)


@triton.jit
def kept_rows(new_ptr, WIDTH: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr, KEPT: tl.constexpr):
    """The new tokens of a program, if they are KEPT in shared memory."""
    return slices(new_ptr, tl.arange(0, ROWS), WIDTH, 0, STEP) if KEPT else ()


@triton.jit
def similarity_tile(
    news,  # of `kept_rows`
    new_ptr,  # [ROWS, WIDTH]
    anchor_ptr,  # [COLUMNS, WIDTH]
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    KEPT: tl.constexpr,
):
    """Similarities of ROWS new tokens and COLUMNS anchors: float32 `[ROWS, COLUMNS]`."""
    row, column, inner = tl.arange(0, ROWS), tl.arange(0, COLUMNS), tl.arange(0, STEP)
    product = tl.zeros([ROWS, COLUMNS], tl.float32)
    if KEPT:
        # Unrolled: then it is the loop over anchors whose copies are started ahead, over the ends of tiles.
        for i in tl.static_range(WIDTH // STEP):
            anchor = tl.load(anchor_ptr + i * STEP + (column[None, :] * WIDTH + inner[:, None]))
            product = tl.dot(news[i], anchor, product)
    else:
        for k in range(0, WIDTH, STEP):
            new = tl.load(new_ptr + k + (row[:, None] * WIDTH + inner[None, :]))
            anchor = tl.load(anchor_ptr + k + (column[None, :] * WIDTH + inner[:, None]))
            product = tl.dot(new, anchor, product)
    return product


@triton.jit
def lower_bound(x, SIZE: tl.constexpr):
    """For each row of `x` `[rows, SIZE]` a lower bound of its sparsemax threshold, mostly the threshold itself."""
    largest = tl.max(x, axis=1)
    z = x - largest[:, None]
    tau = tl.full([x.shape[0]], -1.0, tl.float32)
    # Each step of Michelot's algorithm is a bound; a dozen nearly always reach the end.
    for _ in range(12):
        above = z > tau[:, None]
        total = tl.sum(tl.where(above, z, 0.0), axis=1)
        size = tl.sum(above.to(tl.int32), axis=1)
        tau = tl.maximum(tau, (total - 1.0) / tl.maximum(size, 1).to(tl.float32))
    return tau + largest


# What is padding among the anchors needs no mask, which would cost 50 registers: it is unlike everything.
@triton.jit(do_not_specialize=["n_new", "n_anchor"])
def bounds_kernel(
    new_ptr,  # bfloat16 [multiple of ROWS, WIDTH], unit rows
    anchor_ptr,  # bfloat16 [multiple of COLUMNS, WIDTH]
    bound_ptr,  # float32 [n_new], written: the support of a row lies above
    n_new,
    n_anchor,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    KEPT: tl.constexpr,
):
    first = tl.program_id(0).to(tl.int64) * ROWS
    row = first + tl.arange(0, ROWS)
    new_ptr += first * WIDTH
    news = kept_rows(new_ptr, WIDTH, ROWS, STEP, KEPT)
    folded = tl.full([ROWS, COLUMNS], float("-inf"), tl.float32)
    for start in range(0, n_anchor, COLUMNS):
        anchors_ptr = anchor_ptr + tl.cast(start, tl.int64) * WIDTH
        tile = similarity_tile(news, new_ptr, anchors_ptr, WIDTH, ROWS, COLUMNS, STEP, KEPT)
        folded = tl.maximum(folded, tile)
    tl.store(bound_ptr + row, lower_bound(folded, COLUMNS) - _MARGIN, mask=row < n_new)


@triton.jit
def columns_of(x, ROWS: tl.constexpr, SIZE: tl.constexpr):
    """The columns of `x` `[ROWS, SIZE]` as SIZE tensors `[ROWS]`, in the order of `reversed_bits`."""
    if SIZE == 2:
        return tl.split(x)
    else:
        even, odd = tl.split(tl.reshape(x, [ROWS, SIZE // 2, 2]))
        return columns_of(even, ROWS, SIZE // 2) + columns_of(odd, ROWS, SIZE // 2)


@triton.constexpr_function
def reversed_bits(i, size):
    """Where splitting into even and odd, again and again, puts item `i` of `size`."""
    place = 0
    while size > 1:
        place, i, size = 2 * place + i % 2, i // 2, size // 2
    return place


@triton.jit(do_not_specialize=["n_new", "n_anchor"])
def candidates_kernel(
    new_ptr,  # bfloat16 [multiple of ROWS, WIDTH], unit rows
    anchor_ptr,  # bfloat16 [multiple of COLUMNS, WIDTH]
    bound_ptr,  # float32 [n_new]
    word_ptr,  # int32 [n_new, WORDS], written: a bit for each of 32 anchors, at least one set
    index_ptr,  # int32 [n_new, WORDS], written: which 32 anchors they are, ascending
    count_ptr,  # int32 [n_new], written: how many words there are, also where they exceed WORDS
    n_new,
    n_anchor,
    WIDTH: tl.constexpr,
    WORDS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    KEPT: tl.constexpr,
):
    first = tl.program_id(0).to(tl.int64) * ROWS
    row = first + tl.arange(0, ROWS)
    new_ptr += first * WIDTH
    news = kept_rows(new_ptr, WIDTH, ROWS, STEP, KEPT)
    bound = tl.load(bound_ptr + row, mask=row < n_new, other=float("inf"))
    lane = tl.arange(0, COLUMNS)
    count = tl.zeros([ROWS], tl.int32)
    for start in range(0, n_anchor, COLUMNS):
        anchors_ptr = anchor_ptr + tl.cast(start, tl.int64) * WIDTH
        tile = similarity_tile(news, new_ptr, anchors_ptr, WIDTH, ROWS, COLUMNS, STEP, KEPT)
        bits = (tile > bound[:, None]).to(tl.int32) << (lane & 31)[None, :]
        words = tl.sum(tl.reshape(bits, [ROWS, COLUMNS // 32, 32]), axis=2)
        # Word by word: a scan over them would go through shared memory four times as often.
        parts = columns_of(words, ROWS, COLUMNS // 32)
        for j in tl.static_range(COLUMNS // 32):
            word = parts[reversed_bits(j, COLUMNS // 32)]
            mask = (word != 0) & (count < WORDS)
            tl.store(word_ptr + row * WORDS + count, word, mask=mask)
            tl.store(index_ptr + row * WORDS + count, start // 32 + j, mask=mask)
            count += (word != 0).to(tl.int32)
    tl.store(count_ptr + row, count, mask=row < n_new)


@triton.jit
def collect(word_ptr, index_ptr, count, candidate_ptr, CAPACITY: tl.constexpr, GROUP: tl.constexpr):
    """List the candidates of a row's `count` words; their number, also where it exceeds CAPACITY."""
    total = 0
    member = tl.arange(0, GROUP)
    for start in range(0, count, GROUP):
        mask = start + member < count
        word = tl.load(word_ptr + start + member, mask=mask, other=0)
        first = tl.load(index_ptr + start + member, mask=mask, other=0) * 32
        bit = tl.reshape((word[:, None] >> tl.arange(0, 32)[None, :]) & 1, [32 * GROUP])
        anchor = tl.reshape(first[:, None] + tl.arange(0, 32)[None, :], [32 * GROUP])
        place = total + tl.cumsum(bit, axis=0) - 1
        tl.store(candidate_ptr + place, anchor, mask=(bit > 0) & (place < CAPACITY))
        total += tl.sum(bit)
    return total


@triton.jit
def weights_kernel(
    new_ptr,  # float32 [n_new, WIDTH], unit rows
    anchor_ptr,  # float32 [n_anchor, WIDTH]
    word_ptr,  # int32 [n_new, WORDS]
    index_ptr,  # int32 [n_new, WORDS]
    count_ptr,  # int32 [n_new]
    candidate_ptr,  # int32 [n_new, CAPACITY], written: the support
    weight_ptr,  # float32 [n_new, CAPACITY], written: its weights
    size_ptr,  # int32 [n_new], written: its size, -1 for rows with too many candidates
    WIDTH: tl.constexpr,
    CAPACITY: tl.constexpr,
    WORDS: tl.constexpr,
    GROUP: tl.constexpr,  # candidates at a time
    STEP: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    candidate_ptr += row * CAPACITY
    weight_ptr += row * CAPACITY
    words = tl.load(count_ptr + row)
    count = collect(
        word_ptr + row * WORDS, index_ptr + row * WORDS, tl.minimum(words, WORDS), candidate_ptr, CAPACITY, GROUP
    )
    count = tl.where((words > WORDS) | (count > CAPACITY), -1, count)
    tl.debug_barrier()
    inner = tl.arange(0, STEP)
    member = tl.arange(0, GROUP)
    for start in range(0, count, GROUP):
        mask = start + member < count
        anchor = tl.load(candidate_ptr + start + member, mask=mask, other=0).to(tl.int64)
        product = tl.zeros([GROUP, STEP], tl.float32)
        for k in range(0, WIDTH, STEP):
            new = tl.load(new_ptr + row * WIDTH + k + inner)
            product += tl.load(anchor_ptr + anchor[:, None] * WIDTH + (k + inner)[None, :]) * new[None, :]
        tl.store(weight_ptr + start + member, tl.sum(product, axis=1), mask=mask)
    # Other threads' stores are read back from here on, and then overwritten.
    tl.debug_barrier()
    if count > 0:
        lane = tl.arange(0, CAPACITY)
        x = tl.load(weight_ptr + lane, mask=lane < count, other=float("-inf"))
        anchor = tl.load(candidate_ptr + lane, mask=lane < count, other=0)
        tl.debug_barrier()
        z = x - tl.max(x)
        tau, _ = threshold(z, tl.full([], -1.0, tl.float32), tl.full([], -1.0, tl.float32))
        support = (z > tau).to(tl.int32)
        place = tl.cumsum(support, axis=0) - 1
        tl.store(weight_ptr + place, z - tau, mask=support > 0)
        tl.store(candidate_ptr + place, anchor, mask=support > 0)
        count = tl.sum(support)
    tl.store(size_ptr + row, count)


@triton.jit
def gather_kernel(
    candidate_ptr,  # int32 [n_new, CAPACITY]
    size_ptr,  # int32 [n_new]
    weight_ptr,  # float32 [n_new, CAPACITY]
    rows_ptr,  # [n_anchor, d]
    output_ptr,  # [n_new, d], written
    d,
    BF16: tl.constexpr,  # rows and output are bits of bfloat16
    CAPACITY: tl.constexpr,
    GROUP: tl.constexpr,  # rows read at a time
    BLOCK: tl.constexpr,  # columns per program
):
    # Programs of one block of columns run one after the other: that strip of the matrix then stays in the L2 cache.
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    member = tl.arange(0, GROUP)
    count = tl.load(size_ptr + row)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, count, GROUP):
        mask = start + member < count
        anchor = tl.load(candidate_ptr + row * CAPACITY + start + member, mask=mask, other=0).to(tl.int64)
        weight = tl.load(weight_ptr + row * CAPACITY + start + member, mask=mask, other=0.0)
        values = tl.load(
            rows_ptr + anchor[:, None] * d + column[None, :], mask=mask[:, None] & (column < d)[None, :], other=0
        )
        values = widen_bf16(values) if BF16 else values.to(tl.float32)
        total += tl.sum(values * weight[:, None], axis=0)
    result = round_to_bf16(total) if BF16 else total
    tl.store(output_ptr + row * d + column, result, mask=column < d)
