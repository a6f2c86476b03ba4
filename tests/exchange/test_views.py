"""Views: transposing and reshaping as bookkeeping, held against NumPy doing it."""

from __future__ import annotations

import numpy as np
import pytest

from models.exchange.views import BATCH, Atom, View, extent, flat, fresh, refined, regrouped, transposed, turned

N = 2


def image() -> View:
    """(N, 4, 5, 6) in memory, (N, 6, 4, 5) in the file."""
    return fresh("node", (4, 5, 6), (0, 3, 1, 2))


def numbers(view: View, memory: np.ndarray) -> np.ndarray:
    """The file's tensor, from what lies in memory."""
    atoms = [BATCH, *view.memory]
    place = {atom: at for at, atom in enumerate(atoms)}
    spread = memory.reshape(N, *(atom.size for atom in view.memory))
    turned_ = spread.transpose([place[atom] for atom in flat(view.axes)])
    return turned_.reshape([extent(axis) * (N if BATCH in axis else 1) for axis in view.axes])


MEMORY = np.arange(N * 4 * 5 * 6).reshape(N, 4, 5, 6)
FILE = MEMORY.transpose(0, 3, 1, 2)


@pytest.mark.parametrize(
    "shape",
    [(2, 120), (2, 6, 20), (2, 2, 3, 4, 5), (12, 4, 5), (2, 6, 1, 4, 1, 5), (2, 3, 2, 2, 2, 5), (2, 1, 24, 5), (240,)],
)
def test_reshapes_are_numpys(shape: tuple[int, ...]) -> None:
    view = regrouped(image(), shape, N)
    assert view is not None
    assert np.array_equal(numbers(view, MEMORY), FILE.reshape(shape))


def test_a_channel_shuffle_is_no_work_until_it_is_asked_for() -> None:
    view = regrouped(image(), (2, 2, 3, 4, 5), N)
    assert view is not None
    view = regrouped(transposed(view, (0, 2, 1, 3, 4)), (2, 6, 4, 5), N)
    assert view is not None
    want = FILE.reshape(2, 2, 3, 4, 5).transpose(0, 2, 1, 3, 4).reshape(2, 6, 4, 5)
    assert np.array_equal(numbers(view, MEMORY), want)
    runs, order = refined(view, [view.axes[2], view.axes[3], view.axes[1]])
    assert (runs, order) == ([20, 2, 3], [0, 2, 1])
    here = MEMORY.reshape(N, 20, 2, 3).transpose(0, 1, 3, 2).reshape(N, 4, 5, 6)
    assert np.array_equal(here, want.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("shape", [(2, 4, 30), (2, 9, 40), (3, 80), (8, 30), (2, 119)])
def test_what_no_factors_allow_is_none(shape: tuple[int, ...]) -> None:
    assert regrouped(image(), shape, N) is None


def test_a_batch_of_one_stays_with_the_first_axis() -> None:
    view = regrouped(fresh("node", (3, 4), (0, 1, 2)), (1, 12), 1)
    assert view is not None
    assert view.axes[0] == (BATCH,)
    joined = regrouped(view, (12,), 1)
    assert joined is not None
    assert joined.axes[0][0] is BATCH


@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 4, 5), (6, 4, 5), (1, 1, 1), (1, 1, 5)])
def test_an_operand_broadcasts_as_in_the_file(shape: tuple[int, ...]) -> None:
    view = image()
    operand = np.random.default_rng(0).random(shape)
    own = [view.axes[2], view.axes[3], view.axes[1]]
    here = turned(operand, view.axes[1:], own)
    assert np.array_equal((FILE * operand).transpose(0, 2, 3, 1), MEMORY * here)


def test_an_operand_over_a_part_of_a_flattened_axis_is_filled_up() -> None:
    c, h = Atom(2), Atom(3)
    operand = np.array([[1.0, 2.0, 3.0]])
    assert np.array_equal(turned(operand, [(c,), (h,)], [(h, c)]), [1, 1, 2, 2, 3, 3])
