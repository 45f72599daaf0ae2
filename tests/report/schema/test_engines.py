from __future__ import annotations

from fimaq_deploy import report as r


def test_an_audit_of_an_older_report_has_no_products_in_few_bits_of_floats() -> None:
    told = {"name": "b", "kernels": 9, "gemms": 4, "int8_gemms": 4, "dequantized_weights": 0, "conversions": 1}
    block = r.AuditBlock.model_validate(told)
    assert (block.fp8_gemms, block.fp4_gemms, block.left_alone, block.twin_kernels) == (0, 0, 0, None)


def test_a_stage_whose_difference_is_endless_says_none() -> None:
    stage = r.StageParity(name="blocks.0", largest_difference=float("inf"), differing=100.0)
    assert stage.largest_difference is None
    parity = r.Parity(to="pytorch-fp32", stages=[stage], first_parting=stage.name)
    assert r.Parity.model_validate_json(parity.model_dump_json()) == parity


def test_a_target_is_built_run_and_compiled_until_it_says_otherwise() -> None:
    status = r.TargetStatus(name="onnxruntime-cpu")
    assert (status.not_built, status.not_run, status.failed, status.compile_seconds) == (None, None, False, None)
