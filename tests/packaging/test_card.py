from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from fixtures.artifacts import add_head, write_facts

from fimaq_deploy.contract import read_contract
from fimaq_deploy.manifest import read_manifest
from fimaq_deploy.packaging.card import card
from fimaq_deploy.packaging.facts import Facts, read_facts
from fimaq_deploy.packaging.packages import package
from fimaq_deploy.runtime.verification import verify_artifact

FIGURES = {"top-1 (%)": {"value": 95.5, "interval": [93.0, 97.0], "of": "photo|graphs"}}


def front(text: str) -> dict[str, object]:
    _, metadata, page = text.split("---\n", 2)
    assert page.lstrip().startswith("# ")
    return yaml.safe_load(metadata)


def test_the_metadata_are_what_the_hub_reads(artifact: Path) -> None:
    facts = read_facts(artifact)
    whole = Facts(facts.artifact, FIGURES, "photographs", 600)
    found = front(card(whole, "timm/vit_tiny_patch16_224"))
    assert found["base_model"] == "timm/vit_tiny_patch16_224" and found["base_model_relation"] == "quantized"
    assert (found["library_name"], found["pipeline_tag"]) == ("onnx", "image-classification")
    (model,) = found["model-index"]  # type: ignore[misc]
    assert model["results"][0]["metrics"][0]["value"] == 95.5
    assert "| top-1 (%) | 95.5 | 93 to 97 | photo\\|graphs |" in card(whole, None)


@pytest.mark.parametrize(
    "kind,task,call",
    [
        ("detection", "object-detection", "Detector"),
        ("segmentation", "image-segmentation", "Segmenter"),
        ("choices", None, "Predictor"),
    ],
)
def test_of_a_whole_model_the_task_is_its_heads(artifact: Path, kind: str, task: str | None, call: str) -> None:
    add_head(artifact, kind)
    text = card(Facts(read_facts(artifact).artifact, FIGURES, "photographs", 600), None)
    found = front(text)
    assert found.get("pipeline_tag") == task and ("model-index" in found) == (task is not None)
    assert f"from fimaq_deploy import {call}\n" in text and "nothing, cat, dog" in text


def test_an_encoder_that_reads_no_images_says_how_it_is_run(artifact: Path) -> None:
    contract = read_contract((read_manifest(artifact) or {})["contract"], "")
    write_facts(artifact, replace(contract, part="body", direct=False))
    text = card(read_facts(artifact), None)
    assert "fimaq_deploy.splice(" in text and "import" not in text.split("## How to run it")[1]


def test_without_the_originals_name_no_relation_is_claimed(artifact: Path) -> None:
    assert "base_model" not in front(card(read_facts(artifact), None))


def test_the_folder_is_the_build_and_its_card(artifact: Path, tmp_path: Path) -> None:
    done = package(artifact, "hf", out=tmp_path / "hub")
    assert {path.name for path in artifact.iterdir()} | {"README.md", "bom.cdx.json"} == {
        path.name for path in done.out.iterdir()
    }
    assert any("--base-model" in note for note in done.notes)
    assert verify_artifact(done.out, targets=["onnxruntime-cpu"], time=False).good


@pytest.mark.parametrize("name", ["a|b", "*a*", "__a__", "`a`", "<b>a</b>", "a\nb", "[a](b)", "&amp;", "#a", "a_b\\"])
def test_what_a_user_named_is_only_text(artifact: Path, name: str) -> None:
    facts = read_facts(artifact)
    manifest = {**facts.artifact.manifest, "model": name}
    whole = Facts(replace(facts.artifact, manifest=manifest), {name: FIGURES["top-1 (%)"]}, name, 600)
    page = card(whole, None).split("---\n", 2)[2]
    markdown_it = pytest.importorskip("markdown_it")
    tokens = markdown_it.MarkdownIt().enable("table").parse(page)
    shown = ["".join(part.content or " " for part in t.children) for t in tokens if t.type == "inline"]
    own = " ".join(name.split())
    assert f"{own}, quantized" in shown and own in shown
    assert any(f"Measured on 600 images: {own}." in text for text in shown)
