"""Sound: files that are refused, frames checked by pure tones, a network that padding cannot change, and files from end to end."""

import csv
import json
import wave

from slm_helpers.cli import main
from slm_helpers.data.audio import (
    NUM_BANDS,
    RATE,
    check_samples,
    log_mel,
    mel_filters,
    mfcc,
    read_recordings,
    read_wav,
    sound_summary,
    vary,
    write_wav,
)
from slm_helpers.data.loading import load_dataset
from slm_helpers.data.simulated import TONE_WORDS, simulate_tone_words
from slm_helpers.models.classifiers import build_keyword_spotter
from slm_helpers.models.saved import load_model
from slm_helpers.tasks import keyword_spotting as listen
from slm_helpers.training.config import TrainConfig

import keras
import numpy as np
import pandas as pd
import pytest


def tone(frequency: float, *, seconds: float = 0.3, loudness: float = 0.5) -> np.ndarray:
    return (loudness * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)).astype("float32")


def raw_wav(path, samples, *, channels: int = 1, rate: int = RATE, width: int = 2):
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
    return path


# Files


def test_what_is_written_is_read_back(tmp_path):
    samples = tone(440)
    np.testing.assert_allclose(read_wav(write_wav(tmp_path / "a.wav", samples)), samples, atol=1e-4)
    with pytest.raises(ValueError, match="in \\[-1, 1\\]"):
        write_wav(tmp_path / "b.wav", 3 * samples)


def test_files_that_cannot_be_used_are_refused_with_the_reason(tmp_path):
    samples = tone(440)
    whole = raw_wav(tmp_path / "whole.wav", samples).read_bytes()
    files = {
        "rate.wav": (lambda path: raw_wav(path, samples, rate=16000), "16000 samples a second, but 8000"),
        "stereo.wav": (lambda path: raw_wav(path, np.repeat(samples, 2), channels=2), "2 channels"),
        "silent.wav": (lambda path: raw_wav(path, 0 * samples), "is silent"),
        "hum.wav": (lambda path: raw_wav(path, 0 * samples + 0.4), "is silent"),  # a constant is no sound
        "long.wav": (lambda path: raw_wav(path, np.tile(samples, 40)), "lasts 12.0 s, but 10 s at most"),
        "short.wav": (lambda path: raw_wav(path, samples[:100]), "lasts 0.01 s"),
        "cut.wav": (lambda path: path.write_bytes(whole[:2000]), "is cut short: its header promises 2400 samples, but 978"),
        "header.wav": (lambda path: path.write_bytes(whole[:20]), "is not a whole WAV file"),
        "empty.wav": (lambda path: path.write_bytes(b""), "is not a whole WAV file"),
        "text.wav": (lambda path: path.write_bytes(b"no sound at all, but a text that is long enough"), "no uncompressed WAV file"),
    }
    for name, (make, message) in files.items():
        make(tmp_path / name)
        with pytest.raises(ValueError, match=message) as error:
            read_wav(tmp_path / name)
        assert name in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"none\.wav"):
        read_wav(tmp_path / "none.wav")


def test_samples_are_checked_too():
    for samples, message in ((np.zeros((9, 2)), "one channel"), (np.full(4000, np.nan), "NaN"), (np.zeros(4000), "silent")):
        with pytest.raises(ValueError, match=message):
            check_samples(samples)


# Frames


def test_frames_are_25_ms_long_and_10_ms_apart():
    assert log_mel(tone(440, seconds=0.025)).shape == (1, NUM_BANDS)
    assert log_mel(tone(440, seconds=0.035)).shape == (2, NUM_BANDS)
    assert log_mel(tone(440, seconds=0.0351)).shape == (3, NUM_BANDS)  # filled up
    assert log_mel(tone(440, seconds=1.005)).shape == (99, NUM_BANDS) and log_mel(tone(440)).dtype == "float32"


@pytest.mark.parametrize("frequency", [300, 1000, 2200, 3500])
def test_a_pure_tone_is_loudest_in_the_band_around_it(frequency):
    loudest = int(log_mel(tone(frequency))[5].argmax())
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), NUM_BANDS + 2) / 2595) - 1)
    assert corners[loudest] - 40 <= frequency <= corners[loudest + 2] + 40  # 40: about the width of a bin


def test_loudness_changes_no_frame_and_a_later_start_moves_them():
    sound = np.concatenate([tone(400), tone(1500)])
    np.testing.assert_allclose(log_mel(0.1 * sound), log_mel(sound), atol=1e-4)
    later = np.concatenate([np.zeros(160, "float32"), sound])  # two frames
    shifted = log_mel(later)[2:-2] - log_mel(sound)[:-2]
    assert shifted.std() < 0.05  # but for the loudness of the whole


def test_every_band_weighs_some_frequency_and_neighbours_overlap():
    filters = mel_filters(NUM_BANDS, 129, RATE)
    assert filters.shape == (NUM_BANDS, 129) and filters.min() >= 0 and filters.max() <= 1 + 1e-9
    assert (filters.sum(axis=1) > 0.5).all()
    assert (filters[:, 8:120].sum(axis=0) > 0.5).all()  # no frequency is lost


def test_coefficients_are_a_cosine_transform():
    frames = np.random.default_rng(0).normal(size=(3, 8))
    place = (np.arange(8) + 0.5) * np.pi / 8
    by_hand = np.sqrt(2 / 8) * (frames * np.cos(2 * place)).sum(axis=1)
    np.testing.assert_allclose(mfcc(frames)[:, 2], by_hand)


def test_the_summary_tells_the_order_of_two_sounds():
    one, other = np.concatenate([tone(400), tone(1500)]), np.concatenate([tone(1500), tone(400)])
    assert sound_summary(one).shape == (65,)
    halves = sound_summary(one)[:52].reshape(4, 13)
    np.testing.assert_allclose(halves[0], sound_summary(other)[:52].reshape(4, 13)[3], atol=1.5)
    assert np.abs(sound_summary(one) - sound_summary(other)).max() > 1


def test_altered_copies_differ_in_length_and_stay_within_bounds():
    rng = np.random.default_rng(0)
    copies = [vary(tone(440), rng=rng) for _ in range(20)]
    lengths = np.array([len(copy) for copy in copies]) / len(tone(440))
    assert lengths.min() > 0.85 and lengths.max() < 1.18 and len(set(lengths)) > 10
    assert all(np.abs(copy).max() <= 1 for copy in copies)
    frames = listen.hide_some(np.ones((30, 40), "int32"), rng=rng)
    assert 0.5 < frames.mean() <= 1


# The network and the task


def test_padding_changes_no_score_of_a_sound():
    keras.utils.set_random_seed(1)
    model = build_keyword_spotter(num_classes=3, units=6)
    frames = np.random.default_rng(0).integers(-200, 200, (1, 9, NUM_BANDS)).astype("int32")
    real = np.ones((1, 9), "int32")
    scores = keras.ops.convert_to_numpy(model([frames, real]))
    padded = model([np.pad(frames, ((0, 0), (0, 7), (0, 0))), np.pad(real, ((0, 0), (0, 7)))])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(padded), scores, atol=1e-5)
    turned = keras.ops.convert_to_numpy(model([frames[:, ::-1], real]))
    assert np.abs(turned - scores).max() > 1e-4


def test_tone_words_are_the_same_for_the_same_seed_and_hold_every_word_voice_and_split():
    frame = simulate_tone_words(num_speakers=2, num_takes=10)
    assert frame["split"].value_counts().to_dict() == {"train": 120, "test": 60, "valid": 20}
    assert sorted(frame["label"].unique()) == [str(n) for n in range(len(TONE_WORDS))] and frame["id"].is_unique
    again = simulate_tone_words(num_speakers=2, num_takes=10)
    assert all(np.array_equal(a, b) for a, b in zip(frame["sound"], again["sound"], strict=True))
    assert all(0.1 < len(sound) / RATE < 2 and np.abs(sound).max() <= 0.3001 for sound in frame["sound"])
    assert not {word for word in TONE_WORDS if "-".join(reversed(word.split("-"))) not in TONE_WORDS}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """WAV files of two tones, a table of them, and a listener trained on it by the shell."""
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        name = ("low", "high")[i % 2]
        sound = tone({"low": 300, "high": 1800}[name] * rng.uniform(0.9, 1.1), seconds=0.2) + rng.normal(0, 0.05, 1600)
        write_wav(folder / f"{i}.wav", np.clip(sound, -1, 1))
        rows.append((str(folder / f"{i}.wav"), name, "train" if i < 40 else "valid" if i < 48 else "test"))
    pd.DataFrame(rows, columns=["file", "word", "split"]).to_csv(folder / "sounds.csv", index=False)
    columns = ["--sound", "file", "--label", "word"]
    arguments = ["finetune", "listen", "--train", folder / "sounds.csv", *columns, "--epochs", 5, "--out", folder / "model"]
    assert main([str(argument) for argument in arguments]) == 0
    return folder


def run(capsys, *arguments):
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_a_listener_is_trained_scored_and_asked_from_the_shell(trained, tmp_path, capsys):
    saved = load_model(trained / "model", task="listen")
    assert saved.labels == ["high", "low"] and "random weights" in (trained / "model" / "card.md").read_text()
    columns = ["--sound", "file", "--label", "word"]
    code, out, _ = run(capsys, "evaluate", "--model", trained / "model", "--test", trained / "sounds.csv", *columns, "--json")
    assert code == 0 and json.loads(out)["metrics"]["accuracy"]["value"] > 0.9
    files = ["--input", trained / "sounds.csv", "--output", tmp_path / "out.csv"]
    assert run(capsys, "predict", "--model", trained / "model", *files, "--sound", "file")[0] == 0
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert np.mean([row["prediction"] == row["word"] for row in rows]) > 0.9


def test_bad_sounds_are_refused_in_one_line_through_the_shell(trained, tmp_path, capsys):
    samples = tone(300)
    raw_wav(tmp_path / "rate.wav", samples, rate=44100)
    raw_wav(tmp_path / "silent.wav", 0 * samples)
    (tmp_path / "cut.wav").write_bytes(raw_wav(tmp_path / "whole.wav", samples).read_bytes()[:1000])
    for name, part in (("rate", "44100"), ("silent", "silent"), ("cut", "cut short"), ("none", "no such sound file")):
        pd.DataFrame({"sound": [str(tmp_path / f"{name}.wav")]}).to_csv(tmp_path / "in.csv", index=False)
        code, _, err = run(
            capsys, "predict", "--model", trained / "model", "--input", tmp_path / "in.csv", "--output", tmp_path / "out.csv"
        )
        assert code == 2 and part in err and err.count("\n") == 1 and not (tmp_path / "out.csv").exists()


def test_the_same_seed_gives_the_same_listener():
    frame = simulate_tone_words(num_speakers=1, num_takes=7)
    config = TrainConfig(epochs=1, batch_size=64, precision="float32")
    one, other = (listen.train(frame, config=config, units=8, copies=1)[0] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one.model.get_weights(), other.model.get_weights(), strict=True))
    baseline = listen.build_sound_baseline().fit(frame["sound"].tolist(), frame["label"].tolist())
    assert (baseline.predict(frame["sound"].tolist()) == frame["label"]).mean() > 0.8


def test_balanced_lets_every_class_count_alike(monkeypatch):
    frame = pd.DataFrame({"sound": [tone(300 + 10 * i) for i in range(8)], "label": ["a"] * 6 + ["b"] * 2, "split": "train"})
    seen = []
    monkeypatch.setattr(listen, "fit_examples", lambda model, train, valid, config: seen.append(train))
    for class_weight in (None, "balanced"):
        listen.train(frame, config=TrainConfig(epochs=1, class_weight=class_weight), units=4, copies=1)
    assert (seen[0].weights == 1).all() and len(seen[0]) == 16
    assert seen[1].weights[np.array(seen[1].targets) == 0].sum() == pytest.approx(8)
    assert seen[1].weights[np.array(seen[1].targets) == 1].sum() == pytest.approx(8)


# Public recordings


def test_recordings_are_read_from_the_mirror_with_their_speakers(tmp_path, monkeypatch):
    folder = tmp_path / "spoken_digits"
    folder.mkdir()
    lengths = np.full(30, 1600, dtype="int32")
    audio = np.concatenate([np.round(10000 * tone(200 + 50 * i, seconds=0.2)) for i in range(30)]).astype("int16")
    parts = {"audio": audio, "length": lengths, "label": np.arange(30, dtype="int8") % 10, "speaker": np.array(["ada", "bo", "cy"] * 10)}
    for name in ("train", "test"):
        np.savez(folder / f"{name}.npz", **parts, index=np.arange(30, dtype="int16"), rate=np.int64(8000))
    monkeypatch.setenv("SLM_DATA_DIR", str(tmp_path))
    frame = load_dataset("spoken_digits")
    assert frame["split"].value_counts().to_dict() == {"test": 30, "train": 27, "valid": 3}
    assert set(frame.columns) == {"sound", "label", "speaker", "id", "split"} and frame["label"].iloc[3] == "3"
    np.testing.assert_allclose(frame["sound"].iloc[0], audio[:1600] / 32768, atol=1e-6)
    np.savez(folder / "odd.npz", **parts | {"length": lengths[:-1]}, index=np.arange(30), rate=np.int64(8000))
    with pytest.raises(ValueError, match=r"odd\.npz has 8000 Hz"):
        list(read_recordings(folder / "odd.npz"))
    np.savez(folder / "bare.npz", audio=audio)
    with pytest.raises(ValueError, match="has no length"):
        list(read_recordings(folder / "bare.npz"))
