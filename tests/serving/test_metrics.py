from __future__ import annotations

from fimaq_deploy.serving.metrics import Metrics


def test_two_servers_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.request("m", 200, 0.003)
    first.batch("m", 3, 0.002)
    first.running(2)
    text = first.text().decode()
    assert 'fimaq_requests_total{model="m",status="200"} 1.0' in text
    assert 'fimaq_request_seconds_bucket{le="0.005",model="m"} 1.0' in text
    assert 'fimaq_batch_images_sum{model="m"} 3.0' in text and "fimaq_running_requests 2.0" in text
    assert 'model="m"' not in second.text().decode()
