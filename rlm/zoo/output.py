"""Output steps: what some losses ask of embeddings, appended to an encoder so that evaluation sees it too."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rlm.errors import InputError

Output = Literal["unit", "sigmoid"]
STEPS: dict[Output, Callable[[Tensor], Tensor]] = {"unit": lambda x: F.normalize(x, dim=-1), "sigmoid": torch.sigmoid}
TOLERANCE = 1e-3


class WithOutput(nn.Module):
    """
    An encoder whose embeddings take one more step.

    Of embeddings of length 1 the squared distance is 2 - 2 cos, so that distances and cosines rank alike and all
    evaluation stays as it is.

    Parameters
    ----------
    encoder
        Any.
    output
        ``"unit"``: divided by their length. ``"sigmoid"``: squeezed into [0, 1].
    """

    def __init__(self, encoder: nn.Module, output: Output) -> None:
        super().__init__()
        self.encoder = encoder
        self.output = output

    def forward(self, tokens: Int[Tensor, "phrase token"], batch_sizes: Sequence[int]) -> Float[Tensor, "phrase dim"]:
        """
        Embed phrases; see `LSTMEncoder.forward`.

        Parameters
        ----------
        tokens
            Token ids, zeros after the end, the longest phrase first.
        batch_sizes
            For each step, how many rows may still have a token there.

        Returns
        -------
        torch.Tensor
            One embedding per phrase.
        """
        return STEPS[self.output](self.encoder(tokens, batch_sizes))


def check_output(embeddings: Float[Tensor, "phrase dim"], output: Output, loss: str) -> None:
    """
    Check that embeddings come from an output step.

    Parameters
    ----------
    embeddings
        Of some phrases.
    output
        The step.
    loss
        What asks for it, for the error.

    Raises
    ------
    InputError
        If they do not.
    """
    if output == "unit":
        what, values, low = "lengths", torch.linalg.vector_norm(embeddings, dim=1), 1
        expected, remedy = "of length 1", "torch.nn.functional.normalize(embeddings, dim=-1)"
    else:
        what, values, low = "values", embeddings, 0
        expected, remedy = "with values in [0, 1]", "torch.sigmoid(embeddings)"
    least, most = values.min().item(), values.max().item()
    if least < low - TOLERANCE or most > 1 + TOLERANCE:
        raise InputError(
            f"expected embeddings {expected} for the loss {loss}, found {what} from {least:.3g} to {most:.3g}; end the "
            f"encoder's forward with {remedy}"
        )
