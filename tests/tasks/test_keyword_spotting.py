"""Sound: files that are refused, frames checked by pure tones, a network that padding cannot change, and files from end to end."""

import csv
import json
import wave

import slm_helpers
from slm_helpers.baselines.keyword_spotting import build_sound_classifier
from slm_helpers.cli import main
from slm_helpers.data.audio import (
    NUM_BANDS,
    RATE,
    check_samples,
    log_mel,
    mask_frames,
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
from slm_helpers.tasks.keyword_spotting import KeywordSpotter
from slm_helpers.training import finetune
from slm_helpers.training.config import TrainConfig

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone


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


def test_masks_cover_frames_and_bands_in_a_row_and_leave_the_rest():
    rng = np.random.default_rng(0)
    frames = np.arange(1, 1201, dtype="int32").reshape(30, 40)
    masked = [mask_frames(frames, rng=rng) for _ in range(50)]
    sizes = []
    for copy in masked:
        hidden = copy == 0
        assert (copy[~hidden] == frames[~hidden]).all()
        rows, bands = hidden.all(axis=1), hidden.all(axis=0)
        assert (hidden == rows[:, None] | bands[None]).all()
        for axis in (rows, bands):
            assert (np.diff(np.flatnonzero(axis)) == 1).all()
        sizes.append((rows.sum(), bands.sum()))
    assert np.max(sizes, axis=0).tolist() == [6, 8] and np.min(sizes, axis=0).tolist() == [0, 0]  # up to a fifth
    assert np.mean(sizes, axis=0).min() > 2 and frames.min() == 1


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


def test_the_same_seed_gives_the_same_network():
    frame = simulate_tone_words(num_speakers=1, num_takes=7)
    spotter = KeywordSpotter(epochs=1, batch_size=64, units=8, num_copies=1, config=TrainConfig(precision="float32"))
    one, other = (clone(spotter).fit_frame(frame).saved_.model.get_weights() for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    baseline = build_sound_classifier().fit(frame["sound"].tolist(), frame["label"].tolist())
    assert (baseline.predict(frame["sound"].tolist()) == frame["label"]).mean() > 0.8


@pytest.fixture
def examples_seen(monkeypatch) -> list:
    """The examples and settings that trainings would have had."""
    seen = []

    def note(model, train, valid, *, config, **options) -> pd.DataFrame:
        seen.append((train, config))
        return pd.DataFrame()

    monkeypatch.setattr(finetune, "fit_examples", note)
    return seen


def few_sounds(num_rows: int = 8) -> pd.DataFrame:
    """Return noise, in which no band and no frame is at its mean."""
    labels, rng = ["a"] * (num_rows - num_rows // 4) + ["b"] * (num_rows // 4), np.random.default_rng(0)
    return pd.DataFrame({"sound": [rng.uniform(-0.5, 0.5, 2400) for _ in labels], "label": labels, "split": "train"})


def test_balanced_gives_every_class_the_same_weight(examples_seen):
    for class_weight in (None, "balanced"):
        KeywordSpotter(epochs=1, class_weight=class_weight, units=4, num_copies=1).fit_frame(few_sounds())
    (plain, _), (balanced, _) = examples_seen
    assert (plain.weights == 1).all() and len(plain) == 16
    assert balanced.weights[np.array(balanced.targets) == 0].sum() == pytest.approx(8)
    assert balanced.weights[np.array(balanced.targets) == 1].sum() == pytest.approx(8)


def test_copies_are_altered_and_masked_and_the_recordings_themselves_are_not(examples_seen):
    for num_copies in (0, 2):
        KeywordSpotter(units=4, num_copies=num_copies).fit_frame(few_sounds())
    (plain, _), (more, _) = examples_seen
    assert len(plain) == 8 and len(more) == 24 and more.targets == plain.targets * 3
    frames = more.inputs["frames"]
    assert all((a == b).all() for a, b in zip(frames[:8], plain.inputs["frames"], strict=True))
    masked = [(rows == 0).all(axis=1).any() or (rows == 0).all(axis=0).any() for rows in frames]
    assert not any(masked[:8]) and np.mean(masked[8:]) > 0.5, "copies are not masked"
    assert len({len(rows) for rows in frames[8:]}) > 1, "copies are not faster or slower"


@pytest.mark.parametrize(("given", "used"), [(None, 16), (32, 32), (64, 64)])
def test_a_given_batch_size_is_used_also_where_recordings_are_few(examples_seen, given, used):
    KeywordSpotter(units=4, num_copies=0, batch_size=given).fit_frame(few_sounds())
    assert examples_seen[0][1].batch_size == used


@pytest.fixture(scope="module")
def spotter() -> KeywordSpotter:
    """Trained on low and high tones with whole numbers as labels."""
    sounds, labels = [tone(300 + 1500 * (i % 2) + i, seconds=0.2) for i in range(16)], [i % 2 for i in range(16)]
    return KeywordSpotter(units=8, epochs=3, learning_rate=0.02, num_copies=1).fit(sounds, labels, validation_data=(sounds[:8], labels[:8]))


def test_recordings_are_paths_or_samples_and_labels_keep_their_type(spotter, tmp_path):
    low, high = tone(310, seconds=0.2), tone(1810, seconds=0.2)
    path = write_wav(tmp_path / "high.wav", high)
    loaded = slm_helpers.load_model(spotter.save(tmp_path / "model"))
    for model in (spotter, loaded):
        assert type(model) is KeywordSpotter and model.classes_.tolist() == [0, 1] and model.classes_.dtype == np.int64
        for sounds in (
            [low, path],
            [low, str(path)],
            (low, high),
            np.stack([low, high]),
            pd.Series([low, path]),
            [{"sound": low}, {"sound": path}],
        ):
            assert model.predict(sounds).tolist() == [0, 1]
        np.testing.assert_allclose(model.predict_proba([low, high]).sum(axis=1), 1)
    assert spotter.score([low, high, path], [0, 1, 1]) == 1.0
    assert [row["prediction"] for row in spotter.predict_rows([{"sound": path}])] == [1]


def test_nothing_in_gives_nothing_out(spotter):
    assert spotter.predict([]).shape == (0,) and spotter.predict_proba([]).shape == (0, 2) and spotter.predict_rows([]) == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda spotter: spotter.predict(tone(300)), TypeError, "one recording"),
        (lambda spotter: spotter.predict("a.wav"), TypeError, "Pass a list"),
        (lambda spotter: spotter.predict(["no such.wav"]), FileNotFoundError, "no such"),
        (lambda spotter: spotter.evaluate([tone(300)], [7]), ValueError, "label '7' is unknown to this model, which knows 0, 1"),
        (lambda spotter: spotter.evaluate([tone(300)], [0, 1]), ValueError, "X has 1 rows and y 2"),
        (lambda spotter: spotter.predict([{"file": "a.wav"}]), ValueError, "'sound' is missing"),
        (lambda spotter: KeywordSpotter().predict([]), ValueError, "has learned nothing yet"),
    ],
)
def test_mistakes_are_told(spotter, call, error, message):
    with pytest.raises(error, match=message):
        call(spotter)


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
