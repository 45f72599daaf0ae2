from __future__ import annotations

from pathlib import Path

import numpy as np

from fimaq_deploy.graph_calibration.intake import read_network
from fimaq_deploy.graph_calibration.parts import find_parts
from fimaq_deploy.graph_calibration.segments import Running, cut, over, windows


def test_pieces_end_where_one_activation_is_alive(bare_onnx: Path) -> None:
    graph = read_network(bare_onnx).graph
    pieces = cut(graph, [layer.node for layer in find_parts(graph).layers])
    ends = [piece.result for piece in pieces]
    assert [piece.source for piece in pieces] == ["images", *ends[:-1]]
    assert "block.0/Add:0" in ends and ends[-1] is None
    assert sum(len(piece.nodes) for piece in pieces) == len(graph)


def test_pieces_one_after_another_compute_what_the_graph_does(bare_onnx: Path, bare_images: np.ndarray) -> None:
    network = read_network(bare_onnx)
    pieces = cut(network.graph, [layer.node for layer in find_parts(network.graph).layers])
    pictures = [bare_images[:8], bare_images[8:]]
    with Running(network.model) as running:
        whole = running.piece("images", ["scores"])
        wanted = [array for (array,) in over(whole, pictures, pictures)]
        at = pictures
        for piece in pieces:
            at = [array for (array,) in over(running.piece(piece.source, [piece.result or "scores"]), at, pictures)]
    assert all(np.abs(found - own).max() < 1e-5 for found, own in zip(at, wanted, strict=True))


def test_windows_are_rows_in_the_order_of_a_kernel() -> None:
    images = np.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    rows = windows(images, (2, 2))
    assert rows.shape == (8, 12)
    assert (rows[1] == images[0, :, :2, 2:].reshape(-1)).all()
