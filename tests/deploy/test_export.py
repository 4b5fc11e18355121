"""An exported file runs without this package and tells what it is."""

import json

from slm_helpers.cli import main
from slm_helpers.models.encoder_decoder import build_encoder_decoder
from slm_helpers.models.language_model import build_language_model, build_transformer_language_model
from slm_helpers.models.saved import save_model
from slm_helpers.text.tokenizers import train_bpe_tokenizer

import numpy as np
import onnxruntime
import pytest

TOKENIZER = train_bpe_tokenizer(["the cat sat on the mat"], vocab_size=270)


def test_language_model(tmp_path, capsys):
    model = build_language_model(TOKENIZER.vocab_size, embedding_dim=6, units=8)
    save_model(tmp_path / "model", model, tokenizer=TOKENIZER)
    out = tmp_path / "out" / "m.onnx"
    assert main(["export", "--model", str(tmp_path / "model"), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out} ({out.stat().st_size / 1e6:.1f} MB)\n"
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    ids = TOKENIZER.encode("the mat")[None]
    found = session.run(["logits"], {"token_ids": ids, "state_0": np.zeros((1, 8), "float32")})[0]
    np.testing.assert_allclose(found, model.predict_on_batch(ids), atol=1e-5)
    about = session.get_modelmeta().custom_metadata_map
    assert about["task"] == "lm" and about["tokenizer.json"] == (tmp_path / "model" / "tokenizer.json").read_text()


def test_encoder_decoder_gives_two_files(tmp_path):
    model = build_encoder_decoder(TOKENIZER.vocab_size, embedding_dim=6, encoder_units=4, units=8)
    save_model(tmp_path / "model", model, tokenizer=TOKENIZER, task="translate", labels=["es"])
    assert main(["export", "--model", str(tmp_path / "model"), "--out", str(tmp_path / "m.onnx")]) == 0
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == ["m.encoder.onnx", "m.step.onnx"]


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(tmp_path, capsys):
    save_model(tmp_path / "gpt", build_transformer_language_model(9, size=8, num_layers=1, num_heads=2))
    folder = save_model(tmp_path / "gru", build_language_model(9, embedding_dim=6, units=8))
    config = json.loads((folder / "config.json").read_text())
    config["arguments"]["units"] = 6
    (tmp_path / "gru" / "config.json").write_text(json.dumps(config))
    for name, out, message in (
        ("gpt", "m.onnx", "There is no ONNX graph for models of build_transformer_language_model"),
        ("gru", "m.onnx", "its weights and settings do not fit together"),
        ("gru", "m.html", "a file with the ending .onnx"),
        ("none", "m.onnx", "neither a model folder nor a pretrained model"),
    ):
        assert main(["export", "--model", str(tmp_path / name), "--out", str(tmp_path / out)]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    assert not list(tmp_path.glob("m.*"))
    with pytest.raises(SystemExit):
        main(["export", "--model", str(folder), "--to", "pdf", "--out", "x.onnx"])
