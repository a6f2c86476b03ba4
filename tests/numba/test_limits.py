"""The machine's limit: what it is measured with."""

from kernels import limits


def test_more_sums_than_two_pipes_of_five_cycles_hold():
    """Six of 16 registers, of which each waited for its own last multiply-add, came to three quarters of the peak."""
    assert limits._SHAPE.rows * limits._SHAPE.vectors >= 10
