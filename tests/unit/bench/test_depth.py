from __future__ import annotations

from pathlib import Path

import pytest
import torch

SMALL = {"hidden": 128, "intermediate": 256, "heads": 4, "kv_heads": 2, "vocab": 512}


def test_random_models_load_and_their_weights_are_what_was_said(tmp_path: Path) -> None:
    import random_llama

    from quantship.models import load_float

    size = random_llama.write(tmp_path / "model", layers=3, **SMALL)
    model = load_float(tmp_path / "model")
    assert model.config.num_hidden_layers == 3
    assert sum(one.numel() for one in model.parameters()) * 2 == size
    with torch.inference_mode():
        logits = model(torch.arange(20)[None]).logits
    assert bool(torch.isfinite(logits).all())
    assert float(logits.std()) > 0.1


def test_random_models_of_one_seed_are_equal(tmp_path: Path) -> None:
    import random_llama

    from quantship.artifact import digest_file

    for name in ("one", "other"):
        random_llama.write(tmp_path / name, layers=1, **SMALL)
    files = [tmp_path / name / "model.safetensors" for name in ("one", "other")]
    assert digest_file(files[0]) == digest_file(files[1])


def test_straight_lines_are_told_from_bent_ones() -> None:
    import depth

    layers = [2, 4, 8, 16]
    assert depth.straightness(layers, [5.0, 9.0, 17.0, 33.0]) == pytest.approx(1)
    assert depth.straightness(layers, [float(2**layer) for layer in layers]) < depth.LEAST_R2


def test_bars_are_judged_on_the_deepest_model(tmp_path: Path) -> None:
    import depth

    def row(layers: int, seconds: float, peak: int) -> dict[str, object]:
        cost = {"seconds": seconds, "cpu_seconds": seconds, "peak_rss_bytes": peak}
        return {
            **{"layers": layers, "scheme": "w8a8", "weight_bytes": 1000 * layers, "size_bytes": 1},
            **{"peak_anonymous_bytes": peak, **cost},
        }

    found = [row(2, 10.0, 9000), row(4, 20.0, 9000), row(16, 80.0, 16000)]
    printed = depth.render(found)
    assert "w8a8: seconds: 80.00, at most 60: missed" in printed
    assert "memory by BF16 weights: 1.00, at most 1.3: held" in printed
    depth.draw(found, tmp_path / "depth.svg")
    assert "<svg" in (tmp_path / "depth.svg").read_text()


def test_a_process_of_its_own_answers_and_is_watched(tmp_path: Path) -> None:
    import apart

    script = tmp_path / "script.py"
    script.write_text(
        "import json, os, sys, time\n"
        "held = bytearray(os.urandom(64 << 20)); time.sleep(0.3)\n"
        "print('noise'); print(json.dumps({**json.load(sys.stdin), "
        "'threads': os.environ['OMP_NUM_THREADS']}))\n"
    )
    answer = apart.run(script, {"asked": 1}, threads=3)
    peak = answer.pop("peak_anonymous_bytes")
    assert answer == {"asked": 1, "threads": "3"}
    assert peak is None or peak > 64 << 20


def test_a_process_that_fails_tells_what_it_wrote(tmp_path: Path) -> None:
    import apart

    script = tmp_path / "script.py"
    script.write_text("raise SystemExit('no such thing')")
    with pytest.raises(apart.Failed, match="no such thing"):
        apart.run(script, {}, threads=1)


@pytest.mark.slow
def test_a_killed_quantization_goes_on_to_the_same_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 after two of six blocks, in processes of their own."""
    import killed
    import random_llama
    from datasets import Dataset

    from quantship.tiny import build_tokenizer

    random_llama.write(tmp_path / "model", layers=6, **SMALL)
    build_tokenizer(256).save_pretrained(tmp_path / "model")
    ids = [[5 + (3 * row + at) % 250 for at in range(200)] for row in range(6)]
    Dataset.from_dict({"input_ids": ids, "labels": ids}).save_to_disk(str(tmp_path / "data/train"))
    words = ["--model", str(tmp_path / "model"), "--data", str(tmp_path / "data")]
    killed.main([*words, "--sequences", "4", "--blocks", "2", "--threads", "1"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "Codes are equal to the bit, the files too" in printed
    finished = int(printed.split(" blocks finished")[0].split()[-1])
    assert 2 <= finished == int(printed.split(" blocks reused")[0].split()[-1])
