"""Streams of random numbers: golden numbers, SHA-256 written out again, and independence from torch's global generator."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys

import pytest
import torch

from metaflowkit.seeding import generator_for, seed_for

GOLDEN = {(0, "tasks/train", 0): 779101275040633790, (0, "tasks/train", 1): 3350627397031098053, (7, "init", 0): 2238889084986783490}


@pytest.mark.parametrize(("arguments", "number"), GOLDEN.items(), ids=str)
def test_golden_seeds(arguments, number) -> None:
    assert seed_for(*arguments) == number


def test_golden_draws() -> None:
    generator = generator_for(0, "tasks/train", 1)
    assert torch.randint(0, 1000, (5,), generator=generator).tolist() == [136, 538, 350, 168, 214]


@pytest.mark.parametrize("arguments", [(0, "a", 0), (12, "tasks/val", 34), (2**62, "ü", 10**9)])
def test_the_seed_is_the_first_63_bits_of_sha256(arguments) -> None:
    bits = bin(int(hashlib.sha256("\0".join(map(str, arguments)).encode()).hexdigest(), 16))[2:].zfill(256)
    assert seed_for(*arguments) == int(bits[:63], 2)


def test_index_defaults_to_zero() -> None:
    assert seed_for(5, "x") == seed_for(5, "x", 0)
    assert torch.equal(torch.rand(3, generator=generator_for(5, "x")), torch.rand(3, generator=generator_for(5, "x", 0)))


def test_any_argument_changes_the_stream() -> None:
    # (1, "2", 3) and (12, "", 3) and the like would meet if the three were joined without a separator
    arguments = list(itertools.product((0, 1, 12, 112), ("", "1", "2", "12", "tasks/train", "tasks/val"), (0, 1, 2, 11)))
    assert len({seed_for(*a) for a in arguments}) == len(arguments)
    draws = {tuple(torch.rand(4, generator=generator_for(*a)).tolist()) for a in arguments}
    assert len(draws) == len(arguments)


def test_streams_ignore_and_leave_the_global_generator() -> None:
    first = torch.rand(5, generator=generator_for(3, "views", 2))
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = torch.rand(5, generator=generator_for(3, "views", 2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)


def test_drawing_from_one_stream_leaves_the_others() -> None:
    alone = torch.rand(5, generator=generator_for(0, "b", 1))
    a, b = generator_for(0, "a", 1), generator_for(0, "b", 1)
    torch.rand(1000, generator=a)
    assert torch.equal(torch.rand(5, generator=b), alone)


def test_neighbouring_indices_are_uncorrelated() -> None:
    rows = torch.stack([torch.rand(2000, generator=generator_for(0, "tasks/train", i), dtype=torch.float64) for i in range(8)])
    correlation = torch.corrcoef(rows) - torch.eye(8)
    assert correlation.abs().max() < 0.1  # 4.5 standard deviations of 1 / sqrt(2000)


def test_generators_live_on_the_cpu_and_seeds_need_no_torch() -> None:
    assert generator_for(0, "x").device.type == "cpu"
    code = "import sys; from metaflowkit.seeding import seed_for; seed_for(0, 'x'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(p for p in sys.path if p)}).returncode == 0
