"""Dropout whose draws follow from the seed: the same in every block, process and on every device."""

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor, nn

from rlm.errors import InputError

FACTORS = 0x7FEB352D, 0x5851F42D, 0x31848BAB  # odd, so that a product loses no bit
BITS = 2**32 - 1


class Dropout(nn.Module):
    """
    ``torch.nn.Dropout`` for encoders of a block, whose seeds are trained at once.

    A study gives each of these modules another number for every seed and step. The number and the place of a value
    decide whether it is dropped. So a seed drops the same values whatever block it is trained in, and in all arms.
    Without a number, in every evaluation, values pass unchanged, also in the mode that ``nn.Module.train`` sets.

    Parameters
    ----------
    p
        Probability that a value becomes 0, from 0 to less than 1; the others are divided by 1 - p.

    Raises
    ------
    InputError
        If `p` is not in this range.

    References
    ----------
    Srivastava et al., "Dropout", JMLR 15, 2014. A product of hashed places as random bits: Dietzfelbinger et al., "A
    reliable randomized algorithm for the closest-pair problem", Journal of Algorithms 25(1), 1997.

    Examples
    --------
    >>> import rlm, torch
    >>> rlm.zoo.Dropout(0.5)(torch.ones(3))
    tensor([1., 1., 1.])
    """

    draw: Int64[Tensor, ""] | None

    def __init__(self, p: float | int = 0.1) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise InputError(f"expected a probability from 0 to less than 1, found {p}")
        self.p = p
        self.register_buffer("draw", None, persistent=False)

    def forward(
        self, values: Shaped[Tensor, "*place"], rows: Int64[Tensor, " row"] | None = None
    ) -> Shaped[Tensor, "*place"]:
        """Drop values; `rows` number the first dimension, by default from 0, where padding may stand between rows."""
        if self.draw is None or not self.p:
            return values
        places = [torch.arange(size, device=values.device) for size in values.shape]
        if rows is not None:
            places[0] = rows
        *others, last = [mix(place + mix(self.draw + number)) for number, place in enumerate(places)]
        total = torch.zeros((), dtype=torch.int64, device=values.device)
        for number, place in enumerate(others):
            total = total + place.view(-1, *[1] * (len(others) - number))
        bits = ((mix(total) >> 1) | 1) * (last | 1) & BITS  # multiply and shift: its highest bits are as good as random
        return values * (bits >= self.p * 2**32) / (1 - self.p)


def mix(numbers: Int64[Tensor, "*place"]) -> Int64[Tensor, "*place"]:
    """Hash integers of 32 bits, one to one, so that neighbours become unlike: multiply, and fold high bits down."""
    for factor in FACTORS:  # products stay below 2^63, since what compilers make of an overflow differs
        numbers = (numbers & BITS) * factor & BITS
        numbers = numbers ^ (numbers >> 15)
    return numbers
