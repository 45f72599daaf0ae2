"""The server as others use it: NVIDIA's client, a plain HTTP client, and somebody who means no good."""

from __future__ import annotations

import http.client
import io
import json
import random
import threading
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fimaq_deploy.engines.load import load_engine
from fimaq_deploy.runtime.artifact import open_artifact
from fimaq_deploy.runtime.head import load_head
from fimaq_deploy.runtime.objects import Detector, Segmenter
from fimaq_deploy.runtime.predictor import Classifier
from fimaq_deploy.serving.limits import Limits

triton = pytest.importorskip("tritonclient.http")
NAME = "tiny"


@pytest.fixture
def client(served: Any) -> Any:
    return triton.InferenceServerClient(served.address)


def images(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(count, 3, 8, 8)).astype(np.float32)


def tensor(batch: Any, binary: bool = True, name: str = "images", kind: str = "FP32") -> Any:
    found = triton.InferInput(name, list(batch.shape), kind)
    found.set_data_from_numpy(batch, binary_data=binary)
    return found


def ask(served: Any, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(served.address, timeout=20)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, json.loads(data) if data[:1] in b"[{" and data else data


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(NAME) and client.is_model_ready(NAME, "1")
    assert not client.is_model_ready("other") and not client.is_model_ready(NAME, "2")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    found = client.get_model_metadata(NAME)
    assert found["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 3, 8, 8]}]
    assert found["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}]
    assert [one["name"] for one in client.get_model_repository_index()] == [NAME, "second"]


@pytest.mark.parametrize("ask_binary", [True, False])
@pytest.mark.parametrize("send_binary", [True, False])
@pytest.mark.parametrize("count", [1, 5, 40])
def test_answers_are_the_engines(client: Any, served: Any, count: int, send_binary: bool, ask_binary: bool) -> None:
    batch = images(count)
    wanted = [triton.InferRequestedOutput("logits", binary_data=ask_binary)]
    result = client.infer(NAME, [tensor(batch, send_binary)], outputs=wanted, request_id="seven")
    own = load_engine(served.artifact / "model.onnx")(batch)
    assert np.allclose(result.as_numpy("logits"), own, atol=1e-5)
    assert result.get_response()["id"] == "seven" and result.get_response()["model_name"] == NAME


def test_without_outputs_all_come_as_bytes(client: Any) -> None:
    assert client.infer("second", [tensor(images(2))]).as_numpy("logits").shape == (2, 10)


def test_what_is_wrong_is_said(client: Any) -> None:
    wrong = {
        "expected \\[-1, 3, 8, 8\\]": lambda: client.infer(NAME, [tensor(images(1)[:, :1])]),
        "expected FP32": lambda: client.infer(NAME, [tensor(images(1).astype(np.float64), kind="FP64")]),
        "the model reads images": lambda: client.infer(NAME, [tensor(images(1), name="pictures")]),
        "the model returns logits": lambda: client.infer(
            NAME, [tensor(images(1))], outputs=[triton.InferRequestedOutput("scores")]
        ),
        "expected one tensor": lambda: client.infer(NAME, [tensor(images(1)), tensor(images(1))]),
        "no model other": lambda: client.infer("other", [tensor(images(1))]),
        "NaN": lambda: client.infer(NAME, [tensor(images(1) * np.float32("nan"))]),
    }
    for message, call in wrong.items():
        with pytest.raises(triton.InferenceServerException, match=message):
            call()


def test_many_clients_at_once_get_their_own_answers(client: Any, served: Any) -> None:
    engine = load_engine(served.artifact / "model.onnx")
    batches = [images(1 + seed % 3, seed) for seed in range(60)]
    found: dict[int, Any] = {}

    def work(first: int) -> None:
        own = triton.InferenceServerClient(served.address)
        for number in range(first, len(batches), 6):
            found[number] = own.infer(NAME, [tensor(batches[number])]).as_numpy("logits")

    threads = [threading.Thread(target=work, args=(first,)) for first in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == len(batches)
    assert all(np.allclose(found[number], engine(batch), atol=1e-5) for number, batch in enumerate(batches))


def encoded(size: tuple[int, int] = (30, 20), kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind)
    return data.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_gets_the_answer_of_the_library_and_of_the_original(served: Any, kind: str) -> None:
    status, found = ask(served, "POST", f"/models/{NAME}/predict", encoded(kind=kind))
    with Image.open(io.BytesIO(encoded(kind=kind))) as image:
        own = Classifier(served.artifact, target="onnxruntime-cpu").predict(image.copy())
    assert status == 200 and [one["name"] for one in found["top"]] == [name for _, name, _ in own.top]
    assert found["original"]["top"][0]["name"] == own.name and found["run_ms"] > 0


def test_images_that_are_none_are_refused(served: Any) -> None:
    whole = encoded()
    for data in (b"", b"no image", whole[: len(whole) // 2], b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        status, found = ask(served, "POST", f"/models/{NAME}/predict", data)
        assert status == 400 and "the image" in found["error"]


def test_a_bomb_is_not_decoded(serving: Any) -> None:
    with serving(limits=Limits(most_pixels=500)) as served:
        assert ask(served, "POST", f"/models/{NAME}/predict", encoded((20, 20)))[0] == 200
        status, found = ask(served, "POST", f"/models/{NAME}/predict", encoded((30, 20)))
        assert status == 400 and "expected at most 500" in found["error"]


def test_limits_on_size_number_and_time_are_kept(serving: Any) -> None:
    with serving(limits=Limits(body_bytes=2000)) as served:
        assert ask(served, "POST", f"/v2/models/{NAME}/infer", b"x" * 2001)[0] == 413
        assert ask(served, "POST", f"/v2/models/{NAME}/infer", b"x", Content_Length="9" * 30)[0] in (400, 413)
    with serving(limits=Limits(running=0)) as served:
        status, found = ask(served, "POST", f"/models/{NAME}/predict", encoded())
        assert status == 503 and "try again" in found["error"]
        assert ask(served, "GET", "/v2/health/live")[0] == 200
    with serving(limits=Limits(seconds=0.3)) as served:
        connection = http.client.HTTPConnection(served.address, timeout=20)
        connection.putrequest("POST", f"/v2/models/{NAME}/infer")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"slow")
        assert connection.getresponse().status == 504


def test_who_asks_under_another_name_is_refused(served: Any) -> None:
    from starlette.testclient import TestClient

    from fimaq_deploy.serving.server import create_app

    app = create_app([served.artifact], target="onnxruntime-cpu", hosts=["localhost"])
    with TestClient(app, base_url="http://evil.example") as client:
        assert client.get("/v2").status_code == 400
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/v2").status_code == 200


@pytest.mark.parametrize(
    "path", ["/../manifest.json", "/models/..%2f..%2fetc/contract", "/models/%00/contract", "/v2/models/../../x", "/x"]
)
def test_no_path_leads_into_the_file_system(served: Any, path: str) -> None:
    status, found = ask(served, "GET", path)
    assert status == 404 and "error" in found


def test_anything_at_all_is_answered_and_the_server_stays_up(served: Any) -> None:
    """Whole requests with a few bytes or values changed."""
    chance = random.Random(0)
    document = {"inputs": [{"name": "images", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": [0.5] * 192}]}
    odd = [None, -1, 10**400, "x", [], {}, True, 1e308, "\ud800", [[[]]], {"binary_data_size": -5}]
    connection = http.client.HTTPConnection(served.address, timeout=20)
    for number in range(300):
        changed = json.loads(json.dumps(document))
        place = chance.choice([changed, changed["inputs"][0]])
        place[chance.choice([*place, "parameters", "outputs", "id"])] = chance.choice(odd)
        body = bytearray(json.dumps(changed).encode())
        for _ in range(chance.choice([0, 0, 1, 5])):
            body[chance.randrange(len(body))] = chance.randrange(256)
        headers = (
            {"Inference-Header-Content-Length": chance.choice(["-1", "x", "10", "999999"])} if number % 4 == 0 else {}
        )
        connection.request("POST", f"/v2/models/{NAME}/infer", bytes(body), headers)
        response = connection.getresponse()
        found = json.loads(response.read())
        assert response.status == 200 or (response.status == 400 and found["error"])
    connection.close()
    assert ask(served, "GET", "/v2/health/ready")[0] == 200


def test_metrics_count_requests_and_batches(served: Any, client: Any) -> None:
    client.infer(NAME, [tensor(images(3))])
    status, text = ask(served, "GET", "/metrics")
    assert status == 200
    assert f'fimaq_requests_total{{model="{NAME}",status="200"}}' in text.decode()
    assert f'fimaq_batch_images_count{{model="{NAME}"}}' in text.decode()


def test_the_page_asks_for_what_is_there(served: Any) -> None:
    status, page = ask(served, "GET", "/")
    assert status == 200 and b"models/${encodeURIComponent" in page and b"v2/repository/index" in page
    status, found = ask(served, "GET", f"/models/{NAME}/contract")
    assert status == 200 and found["schema"] == "fimaq-deploy/contract/1" and found["original"] is True


def test_a_detector_answers_its_objects(with_heads: Any, photographs: Any) -> None:
    """By the protocol in pixels of the input, many clients at once; of an encoded image in pixels of that."""
    client = triton.InferenceServerClient(with_heads.address, concurrency=8)
    assert client.get_model_metadata(NAME)["inputs"][0]["shape"] == [1, 3, 8, 8]
    head, run = load_head(open_artifact(with_heads.artifact)), load_engine(with_heads.artifact / "model.onnx")
    batches = [images(1, seed) for seed in range(8)]
    asked = [client.async_infer(NAME, [tensor(one)]) for one in batches]
    for one, answer in zip(batches, asked, strict=True):
        result, (own,) = answer.get_result(), head(run.outputs(one))
        for name in ("boxes", "scores", "labels"):
            assert np.allclose(result.as_numpy(name), own[name], atol=1e-5), name
    with pytest.raises(triton.InferenceServerException, match="answers one a request"):
        client.infer(NAME, [tensor(images(2))])
    file = photographs(2)[1]
    status, found = ask(with_heads, "POST", f"/models/{NAME}/predict", file.read_bytes())
    own = Detector(with_heads.artifact, target="onnxruntime-cpu").predict(file)
    assert status == 200 and own and found["size"] == [21, 30] and found["original"]["objects"]
    assert [(one["name"], one["box"]) for one in found["objects"]] == [(one.name, list(one.box)) for one in own]


def test_a_segmenter_answers_its_scores_and_a_map(with_heads: Any, photographs: Any) -> None:
    client = triton.InferenceServerClient(with_heads.address)
    assert client.infer("segmenter", [tensor(images(1))]).as_numpy("output").shape == (3, 4, 2)
    file = photographs(1)[0]
    status, found = ask(with_heads, "POST", "/models/segmenter/predict", file.read_bytes())
    own = Segmenter(with_heads.artifact.parent / "segmentation", target="onnxruntime-cpu").predict(file).shares()
    assert status == 200 and found["map"].startswith("data:image/png;base64,")
    assert {one["name"]: one["share"] for one in found["segments"]} == own


def test_a_build_of_a_bare_onnx_file_is_served(serving: Any, built_from_onnx: Any, bare_images: Any) -> None:
    with serving(built_from_onnx.out) as running:
        found = triton.InferenceServerClient(running.address).infer("tiny", [tensor(bare_images[:3])])
    own = load_engine(built_from_onnx.out / "model.onnx")(bare_images[:3])
    assert np.allclose(found.as_numpy(found.get_response()["outputs"][0]["name"]), own, atol=1e-5)
