"""Controls: pre-trained weights with their content destroyed, which tell memorisation from mere weight scale."""

import dataclasses

import torch

from rlm.block import Block
from rlm.seeding import stream


def rescale(initial: Block, pretrained: Block) -> Block:
    """
    Initial weights brought to the mean and standard deviation of the pre-trained ones, tensor by tensor.

    What pre-training gains by the scale of the weights alone stays; see Maennel et al., "What do neural networks
    learn when trained with random labels?", NeurIPS 2020, arXiv 2006.10455, section 3.

    Parameters
    ----------
    initial, pretrained
        The same seeds, before and after pre-training.

    Returns
    -------
    Block
        A tensor that pre-training left alone, or whose values are all equal at first, is the pre-trained one.
    """
    weights = {}
    for name, after in pretrained.weights.items():
        before = initial.weights[name].flatten(1).double()
        spread = before.std(dim=1, correction=0, keepdim=True)
        wanted = after.flatten(1).double()
        standard = (before - before.mean(dim=1, keepdim=True)) / spread.clamp(min=torch.finfo(torch.float64).tiny)
        moved = standard * wanted.std(dim=1, correction=0, keepdim=True) + wanted.mean(dim=1, keepdim=True)
        is_kept = (spread == 0) | (before == wanted).all(dim=1, keepdim=True)
        weights[name] = torch.where(is_kept, wanted, moved).view_as(after).to(after.dtype)
    return dataclasses.replace(pretrained, weights=weights)


def shuffle(pretrained: Block) -> Block:
    """
    Pre-trained weights in random order inside each tensor.

    Parameters
    ----------
    pretrained
        After pre-training.

    Returns
    -------
    Block
        Each seed shuffled by its stream ``shuffle``.
    """
    weights = {name: weight.clone() for name, weight in pretrained.weights.items()}
    for row, seed in enumerate(pretrained.seeds):
        generator = stream(seed, "shuffle")
        for weight in weights.values():
            order = torch.from_numpy(generator.permutation(weight[row].numel())).to(weight.device)
            weight[row] = weight[row].flatten()[order].view_as(weight[row])
    return dataclasses.replace(pretrained, weights=weights)
