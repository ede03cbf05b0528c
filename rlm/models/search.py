"""Search: the nearest of many embeddings by cosine, exactly or through faiss."""

from math import isqrt
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from rlm.errors import InputError, naming_extras
from rlm.evaluation.heads import score_all

Method = Literal["exact", "ivf", "hnsw", "lsh"]
EXACT_UP_TO = 100_000
SCORES_AT_ONCE = 2**26


class Neighbours(NamedTuple):
    """
    Similarities and rows of the nearest vectors, nearest first; row -1 if an approximate index found none.

    Similarities are cosines in [-1, 1], or the scores of a head.
    """

    similarity: Float32[np.ndarray, "query k"]
    row: Int64[np.ndarray, "query k"]


class Index:
    """
    Vectors that can be searched for those of the largest cosine, or of the largest score of a head.

    Parameters
    ----------
    vectors
        At least one, none of length zero.
    method
        ``"exact"``: matrix product. ``"ivf"``: inverted lists of the vectors nearest to each of 2 sqrt(n) centres; a
        search reads the 80 lists nearest to the query. ``"hnsw"``: a graph of near vectors. ``"lsh"``: exact comparison
        of those 10 k vectors whose signs under 256 random projections differ least. The default is exact up to 100,000
        vectors, otherwise ``"ivf"``. All but exact need the extra ``search``.
    head
        A head, see `rlm.evaluation.train_head`; it scores every vector, so that its search is exact.

    Raises
    ------
    InputError
        If there is no vector, the method is not exact with a head, or faiss is needed and not installed.

    References
    ----------
    ivf: Jégou, Douze and Schmid, "Product quantization for nearest neighbor search", PAMI 33, 2011, section IV, without
    the quantisation. hnsw: Malkov and Yashunin, PAMI 42, 2020. lsh: Charikar, "Similarity estimation techniques from
    rounding algorithms", STOC 2002, section 3.

    Examples
    --------
    >>> import numpy as np, rlm
    >>> index = rlm.models.Index(np.array([[1, 0], [0, 1], [1, 1]], np.float32))
    >>> index.search(np.array([[2, 0]], np.float32), k=2).row.tolist()
    [[0, 2]]
    """

    def __init__(
        self, vectors: Float32[np.ndarray, "vector dim"], method: Method | None = None, head: nn.Module | None = None
    ) -> None:
        if not len(vectors):
            raise InputError("expected at least one vector to search, found none; give at least one")
        self.count, self._head = len(vectors), head
        if head is not None:
            if method not in (None, "exact"):
                raise InputError(
                    f"expected the method exact for a head, which scores every vector, found {method}; drop it"
                )
            self.method, self._index = "exact", torch.from_numpy(vectors)
            return
        self.method = method or ("exact" if self.count <= EXACT_UP_TO else "ivf")
        unit = F.normalize(torch.from_numpy(vectors))
        self._index = unit if self.method == "exact" else _faiss_index(unit, self.method)

    def search(self, queries: Float32[np.ndarray, "query dim"], k: int = 10) -> Neighbours:
        """Find the `k` nearest vectors of every query, at least 1, or all if there are fewer."""
        if k < 1:
            raise InputError(f"expected k of at least 1, found {k}")
        k = min(k, self.count)
        if self._head is not None:
            similarity, row = score_all(self._head, torch.from_numpy(queries), self._index).topk(k)
            return Neighbours(similarity.numpy(), row.numpy())
        unit = F.normalize(torch.from_numpy(queries))
        if isinstance(self._index, Tensor):
            parts = unit.split(max(1, SCORES_AT_ONCE // self.count))
            found = [(some @ self._index.T).topk(k) for some in parts]
            similarity, row = (torch.cat(columns) for columns in zip(*found, strict=True))
            return Neighbours(similarity.clamp(-1, 1).numpy(), row.numpy())
        squared_distance, row = self._index.search(unit.numpy(), k)
        return Neighbours((1 - squared_distance / 2).clip(-1, 1), row)  # of unit vectors: |a - b|^2 = 2 - 2 cos


def _faiss_index(vectors: Float32[Tensor, "vector dim"], method: Method) -> Any:  # noqa: ANN401
    with naming_extras(f", or use exact (--method exact), which is slower beyond {EXACT_UP_TO:,} vectors"):
        import faiss
    count, dim = vectors.shape
    if method == "ivf":
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, min(2 * isqrt(count), count))
        index.nprobe = 80
    elif method == "hnsw":
        index = faiss.IndexHNSWFlat(dim, 32)
        index.hnsw.efSearch = 128
    else:
        codes = faiss.IndexLSH(dim, 256)
        index = faiss.IndexRefineFlat(codes)
        index.k_factor = 10
    index.train(vectors.numpy())
    index.add(vectors.numpy())
    return index
