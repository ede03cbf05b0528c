"""A saved model as a graph of ONNX, which other languages and devices run, beside its tokenizer."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rlm.encoder import LSTMEncoder, MeanEncoder, OutputStep
from rlm.errors import naming_extras
from rlm.zoo.encoders import BiLSTMEncoder, StackedLSTMEncoder

GRAPH = """
<ir_version: 8, opset_import: ["": 17]>
encoder (int64[phrase, token] tokens) => (float[phrase, dim] embeddings) {{
    axis_0 = Constant <value = int64[1] {{0}}> ()
    axis_1 = Constant <value = int64[1] {{1}}> ()
    padding = Equal (tokens, axis_0)
    words = Not (padding)
    vectors = Gather (words_weight, tokens)
    {body}
    embeddings = {end} (state)
}}
"""
MEAN = """
    ones = Cast <to = 1> (words)
    counted = ReduceSum <keepdims = 1> (ones, axis_1)
    least = Constant <value = float {1.0}> ()
    counts = Max (counted, least)
    axis_2 = Constant <value = int64[1] {2}> ()
    mask = Unsqueeze (ones, axis_2)
    kept = Mul (vectors, mask)
    total = ReduceSum <keepdims = 0> (kept, axis_1)
    mean = Div (total, counts)
    state = Gemm <transB = 1> (mean, output_weight, output_bias)
"""
READ = """
    whole = Cast <to = 6> (words)
    lengths = ReduceSum <keepdims = 0> (whole, axis_1)
    steps = Transpose <perm = [1, 0, 2]> (vectors)
"""
CELL = """
    {cell}_every, {cell}_last = LSTM <direction = "{direction}", hidden_size = {dim}> (
        {steps}, {cell}_weight_ih, {cell}_weight_hh, {cell}_bias, lengths
    )
    {cell}_state = Squeeze ({cell}_last, axis_0)
    {cell}_steps = Squeeze ({cell}_every, axis_1)
"""
# The cells of each encoder in the order of its forward, with what they read, and the embedding.
CELLS: dict[type[nn.Module], tuple[list[tuple[str, str, str]], str]] = {
    MeanEncoder: ([], MEAN),
    LSTMEncoder: ([("cell", "reverse", "steps")], "state = Identity (cell_state)"),
    BiLSTMEncoder: (
        [("backward_cell", "reverse", "steps"), ("forward_cell", "forward", "steps")],
        "state = Concat <axis = 1> (backward_cell_state, forward_cell_state)",
    ),
    StackedLSTMEncoder: (
        [("first", "forward", "steps"), ("second", "forward", "first_steps")],
        "state = Identity (second_state)",
    ),
}
ENDS = {None: "Identity", "unit": "LpNormalization <axis = 1>", "sigmoid": "Sigmoid"}


def to_graph(encoder: nn.Module, state: Mapping[str, Tensor]) -> bytes:
    """Return the graph of an encoder of `CELLS` with some weights: from tokens, 0 after the end, to embeddings."""
    with naming_extras():
        import onnx

    inner, output = (encoder.encoder, encoder.output) if isinstance(encoder, OutputStep) else (encoder, None)
    cells, end = CELLS[type(inner)]
    weights = {name.replace(".", "_"): weight for name, weight in state.items()}
    lines = [READ] if cells else []
    for cell, direction, steps in cells:
        of_gates = [weights.pop(f"{cell}_{name}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        ih, hh, *biases = map(_reorder, of_gates)
        weights |= {f"{cell}_weight_ih": ih, f"{cell}_weight_hh": hh, f"{cell}_bias": torch.cat(biases, dim=1)}
        lines.append(CELL.format(cell=cell, direction=direction, steps=steps, dim=hh.shape[2]))
    graph = onnx.parser.parse_model(GRAPH.format(body="".join([*lines, end]), end=ENDS[output]))
    for name, weight in weights.items():
        graph.graph.initializer.append(onnx.numpy_helper.from_array(weight.detach().cpu().numpy(), name))
    onnx.checker.check_model(graph, full_check=True)
    return graph.SerializeToString()


def _reorder(gates: Tensor) -> Tensor:
    """Put the gates into ONNX's order: input, output, forget, cell."""
    i, f, g, o = gates.chunk(4)
    return torch.cat([i, o, f, g])[None]
