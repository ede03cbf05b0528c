"""Our encoders made of PyTorch's own layers; in a module of its own, since PyTorch takes seconds to import."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

TORCH_NAMES = {
    "lstm": {
        "cell.weight_ih": "layer.weight_ih_l0",
        "cell.weight_hh": "layer.weight_hh_l0",
        "cell.bias_ih": "layer.bias_ih_l0",
        "cell.bias_hh": "layer.bias_hh_l0",
    },
    "mean": {"output.weight": "layer.weight", "output.bias": "layer.bias"},
}


class TorchTwin(nn.Module):
    """The encoder of the same name made of PyTorch's own layers."""

    def __init__(self, kind, weights):
        super().__init__()
        self.kind = kind
        self.names = {"words.weight": "words.weight"} | TORCH_NAMES[kind]
        vocabulary, word_dim = weights["words.weight"].shape
        self.words = nn.Embedding(vocabulary, word_dim)
        if kind == "lstm":
            self.layer = nn.LSTM(word_dim, weights["cell.weight_hh"].shape[1])
        else:
            self.layer = nn.Linear(word_dim, len(weights["output.weight"]))
        self.to(weights["words.weight"].dtype)
        self.load_state_dict({theirs: weights[ours].detach() for ours, theirs in self.names.items()})

    def forward(self, tokens):
        phrases = [phrase[phrase != 0] for phrase in tokens]
        if self.kind == "mean":
            return torch.stack([self.layer(self.words(phrase).mean(dim=0)) for phrase in phrases])
        backwards = [self.words(phrase.flip(0)) for phrase in phrases]
        return self.layer(pack_sequence(backwards, enforce_sorted=False))[1][0][0]

    def weights(self):
        mine = dict(self.named_parameters())
        return {ours: mine[theirs] for ours, theirs in self.names.items()}
