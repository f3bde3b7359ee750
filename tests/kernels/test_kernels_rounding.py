"""The narrowing rules against oracles written with Python integers and fractions."""

import math
import struct
from fractions import Fraction

import pytest
import torch

from langadapt_kernels.rounding.reference import (
    philox,
    random_bits,
    random_bits_at,
    round_stochastic,
    split,
    unsplit,
)


def patterns(count: int, seed: int = 0) -> torch.Tensor:
    """float32 of all exponents, with the awkward ones in front."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(-(2**31), 2**31, (count,), generator=generator, dtype=torch.int64)
    edges = [0, 0x80000000, 0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0x7F7F8000, 0x7F7F7FFF]
    edges += [0x7F800000, 0xFF800000]
    return torch.cat((torch.tensor(edges), drawn)).to(torch.int32).view(torch.float32)


def philox_by_hand(key: tuple[int, int], counter: tuple[int, int, int, int]) -> list[int]:
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p2 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p2 >> 32) ^ c[1] ^ k0, p2 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k1, p0 & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def test_philox_known_answers():
    # From the authors' Random123, kat_vectors: philox4x32 10.
    assert philox_by_hand((0, 0), (0, 0, 0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox(0, torch.tensor([0]), 0, 0).tolist() == [[0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]]
    seed, group, step, stream = 0xFEDC_BA98_7654_3210, (7 << 32) + 123456789, 4242, 1
    expected = philox_by_hand((seed & 0xFFFFFFFF, seed >> 32), (group & 0xFFFFFFFF, group >> 32, step, stream))
    assert philox(seed, torch.tensor([group]), step, stream).tolist() == [expected]


def test_random_bits_of_runs_and_of_scattered_elements_agree():
    run = random_bits(5, 1003, 50, 9, stream=0, device=torch.device("cpu"))
    scattered = random_bits_at(5, torch.arange(1003, 1053).flip(0), 9, 0)
    assert torch.equal(run, scattered.flip(0))
    assert not torch.equal(run, random_bits(5, 1003, 50, 10, stream=0, device=torch.device("cpu")))
    assert not torch.equal(run, random_bits(6, 1003, 50, 9, stream=0, device=torch.device("cpu")))
    assert not torch.equal(run, random_bits(5, 1003, 50, 9, stream=1, device=torch.device("cpu")))


def test_split_is_lossless_and_its_weight_is_the_nearest():
    x = patterns(20000)
    x = x[~x.isnan()]
    weight, low = split(x, 16)
    assert torch.equal(unsplit(weight, low).view(torch.int32), x.view(torch.int32))
    nearest = x.to(torch.bfloat16)
    ties = (x.view(torch.int32) & 0xFFFF) == 0x8000
    assert torch.equal(weight[~ties], nearest[~ties])
    assert (low.dtype, split(x, 8)[1].dtype) == (torch.int16, torch.uint8)


def test_split8_keeps_sixteen_bits_of_mantissa():
    x = patterns(20000, seed=1)
    x = x[x.isfinite() & (x.abs() > 1e-37) & (x.abs() < 3e38)]
    weight, low = split(x, 8)
    restored = unsplit(weight, low)
    assert ((restored.double() - x.double()).abs() <= x.double().abs() * 2.0**-16).all()
    again = split(restored, 8)
    assert torch.equal(again[0], weight) and torch.equal(again[1], low)


@pytest.mark.parametrize("low_bits", [16, 8])
def test_not_a_number_survives_the_split(low_bits):
    weight, low = split(torch.tensor([math.nan, -math.nan]), low_bits)
    assert weight.isnan().all() and unsplit(weight, low).isnan().all()


def test_stochastic_rounding_goes_up_with_the_right_probability_exactly():
    """All 65,536 values of the random bits: the share that rounds up is the dropped part over 65,536."""
    every = torch.arange(65536, dtype=torch.int32)
    for pattern in (0x3F800001, 0x3F80C000, 0x3F80FFFF, 0x41230000, 0xBF804321, 0x00000123):
        x = struct.unpack("<f", struct.pack("<I", pattern))[0]
        values, counts = round_stochastic(torch.full((65536,), x), every).double().unique(return_counts=True)
        pairs = zip(values.tolist(), counts.tolist(), strict=True)
        assert sum(Fraction(value) * count for value, count in pairs) / 65536 == Fraction(x)


def test_stochastic_rounding_is_unbiased_and_exercises_every_bit():
    """Within five standard errors, with the generator's bits; and every bit of the dropped mantissa decides
    roundings."""
    count = 1 << 18
    noise = random_bits(3, 0, count, 1, stream=0, device=torch.device("cpu"))
    share = torch.stack([((noise >> bit) & 1).double().mean() for bit in range(16)])
    assert ((share - 0.5).abs() < 5 * 0.5 / math.sqrt(count)).all()
    for bit in range(16):
        x = torch.full((count,), 1.0).view(torch.int32) | (1 << bit)
        up = (round_stochastic(x.view(torch.float32), noise).float() > 1.0).double().mean()
        probability = 2.0 ** (bit - 16)
        error = math.sqrt(probability * (1 - probability) / count)
        assert up > 0 and abs(up - probability) < 5 * error


def test_stochastic_rounding_never_makes_infinity_of_a_finite_value():
    x = patterns(20000, seed=2)
    highest = torch.full_like(x, 65535, dtype=torch.int32)
    rounded = round_stochastic(x, highest)
    assert torch.equal(rounded.isinf(), x.isinf())
    assert torch.equal(rounded.isnan(), x.isnan())
