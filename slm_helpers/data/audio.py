"""Sound as numbers: WAV files read with care, log-mel frames, and the simple summary that a network of frames has to beat.

All sound here is mono at RATE samples a second, as float32 in [-1, 1], shape (samples,).
"""

import os
import wave
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from slm_helpers._checks import check_positive

import numpy as np

RATE = 8000  # samples a second: telephone quality, enough for single words
NUM_BANDS = 40
MIN_SECONDS, MAX_SECONDS = 0.05, 10.0  # of a recording
WINDOW_SECONDS, HOP_SECONDS = 0.025, 0.010
_SILENCE = 0.002  # loudest sample, as a share of full scale
_WIDTHS = {1: ("u1", 128, 128), 2: ("<i2", 0, 1 << 15), 4: ("<i4", 0, 1 << 31)}  # bytes of a sample: its type, its zero, full scale


def read_wav(path: str | Path, *, rate: int = RATE, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """Return the samples of a WAV file: float32 in [-1, 1], shape (samples,).

    Args:
        path: An uncompressed (PCM) mono WAV file of 8, 16 or 32 bits.
        rate: Samples a second that it must have.
        max_seconds: Longest recording that is taken.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such WAV file, is cut short, has another rate or several channels, is too long or too short, or is silent.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such sound file.")
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, found_rate, num_frames = file.getparams()[:4]
            # Before the samples are read: a header may claim anything, and a long file need not be loaded to be refused.
            if channels != 1:
                raise ValueError(f"{path} has {channels} channels, but one is needed. Mix it down to mono.")
            if found_rate != rate:
                raise ValueError(f"{path} has {found_rate} samples a second, but {rate} are needed. Resample it to {rate} Hz.")
            if width not in _WIDTHS:
                raise ValueError(f"{path} has samples of {8 * width} bits, but 8, 16 or 32 are needed. Save it with 16.")
            if num_frames > max_seconds * rate and os.path.getsize(path) > max_seconds * rate * width:
                raise ValueError(f"{path} lasts {num_frames / rate:.1f} s, but {max_seconds:g} s at most are read. Cut the word out of it.")
            data = file.readframes(num_frames)
    except EOFError as error:
        raise ValueError(f"{path} ends within its header, so it is not a whole WAV file. Copy or record it again.") from error
    except wave.Error as error:
        raise ValueError(f"{path} is no uncompressed WAV file ({error}). Save it as 16-bit PCM.") from error
    if len(data) < num_frames * width:
        raise ValueError(
            f"{path} is cut short: its header promises {num_frames} samples, but {len(data) // width} are there. Copy or record it again."
        )
    kind, zero, scale = _WIDTHS[width]
    return check_samples((np.frombuffer(data, dtype=kind).astype("float32") - zero) / scale, name=str(path), rate=rate)


def write_wav(path: str | Path, samples: np.ndarray, *, rate: int = RATE) -> Path:
    """Write samples in [-1, 1], shape (samples,), as a 16-bit mono WAV file; louder ones are an error."""
    samples = np.asarray(samples)
    if samples.ndim != 1 or not np.isfinite(samples).all() or np.abs(samples).max(initial=0) > 1:
        raise ValueError(f"{path}: samples must be a flat array of finite numbers in [-1, 1]. Divide them by their largest size.")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
    return Path(path)


def check_samples(samples: np.ndarray, *, name: str = "the sound", rate: int = RATE) -> np.ndarray:
    """Return samples as float32 after checking that there is a sound of one channel and of a usable length in them."""
    samples = np.asarray(samples, dtype="float32")
    if samples.ndim != 1:
        raise ValueError(f"{name} has the shape {samples.shape}, but one channel, shape (samples,), is needed.")
    if not np.isfinite(samples).all():
        raise ValueError(f"{name} holds NaN or infinite samples. Record it again.")
    seconds = len(samples) / rate
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise ValueError(f"{name} lasts {seconds:.2f} s, but {MIN_SECONDS:g} to {MAX_SECONDS:g} s are needed.")
    if np.abs(samples - samples.mean()).max() < _SILENCE:
        raise ValueError(
            f"{name} is silent: no sample is louder than {_SILENCE:.1%} of full scale. Check the microphone and record it again."
        )
    return samples


def read_sounds(sounds: Sequence[str | Path | np.ndarray]) -> list[np.ndarray]:
    """Return the checked samples of sounds that are given as samples or as paths of WAV files."""
    return [
        read_wav(sound) if isinstance(sound, str | Path) else check_samples(sound, name=f"sound {number}")
        for number, sound in enumerate(sounds, 1)
    ]


def log_mel(samples: np.ndarray, *, rate: int = RATE, num_bands: int = NUM_BANDS) -> np.ndarray:
    """Return the loudness of a sound by time and pitch: natural log of the power in mel bands, float32, shape (frames, num_bands).

    Frames are windows of 25 ms (Hann), one every 10 ms; bands are triangles, evenly spaced on the mel scale up to half the rate.
    The sound is brought to the same loudness first, and what is far below it is cut off at a floor, so that a quieter
    recording gives the same frames. Its end is filled up with zeros to a whole frame.

    Reference:
        Davis and Mermelstein (1980), "Comparison of parametric representations for monosyllabic word recognition".
    """
    check_positive(rate=rate, num_bands=num_bands)
    window, hop = round(WINDOW_SECONDS * rate), round(HOP_SECONDS * rate)
    samples = np.asarray(samples, dtype="float64")
    samples = samples - samples.mean()
    samples = samples / max(float(np.sqrt((samples**2).mean())), 1e-9)
    num_frames = max(1, 1 + -(-(len(samples) - window) // hop))
    samples = np.pad(samples, (0, max(0, window + (num_frames - 1) * hop - len(samples))))
    cut = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop][:num_frames]
    size = 1 << (window - 1).bit_length()
    power = np.abs(np.fft.rfft(cut * np.hanning(window), n=size)) ** 2 / window
    return np.log(power @ mel_filters(num_bands, size // 2 + 1, rate).T + 1e-4).astype("float32")


@cache
def mel_filters(num_bands: int, num_bins: int, rate: int) -> np.ndarray:
    """Return the weight of each frequency in each band, shape (num_bands, num_bins): triangles of height 1 that overlap by half.

    Mel of a frequency f in hertz is 2595 log10(1 + f / 700); bins run from 0 to half the rate.
    """
    highest = 2595 * np.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, highest, num_bands + 2) / 2595) - 1)
    bins = np.linspace(0, rate / 2, num_bins)
    # A band narrower than the bins would catch none of them.
    step = bins[1]
    low, middle, high = (corners[i : num_bands + i, None] for i in range(3))
    rise = (bins - low) / np.maximum(middle - low, step)
    fall = (high - bins) / np.maximum(high - middle, step)
    return np.maximum(0.0, np.minimum(rise, fall)) + np.maximum(0.0, 1 - np.abs(bins - middle) / step) * (high - low < 2 * step)


def mfcc(frames: np.ndarray, *, num_coefficients: int = 13) -> np.ndarray:
    """Return mel-frequency cepstral coefficients, the cosine transform of log-mel frames: shape (frames, num_coefficients)."""
    from scipy.fft import dct

    return dct(np.asarray(frames, dtype="float64"), axis=1, norm="ortho")[:, :num_coefficients]


def sound_summary(samples: np.ndarray, *, num_parts: int = 4) -> np.ndarray:
    """Return the mean coefficients of each quarter of a sound and their spread over all of it: what a linear model can weigh.

    Shape (13 * (num_parts + 1),). The level (the first coefficient) is taken relative to its mean over the sound.
    """
    coefficients = mfcc(log_mel(samples))
    coefficients[:, 0] -= coefficients[:, 0].mean()
    # A sound of fewer frames than parts gives some of them twice.
    edges = np.linspace(0, len(coefficients), num_parts + 1)
    means = [coefficients[int(a) : max(int(a) + 1, round(b))].mean(axis=0) for a, b in pairwise(edges)]
    return np.concatenate([*means, coefficients.std(axis=0)])


def vary(samples: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Return a sound as another take of it might be: up to 15 % slower or faster (and so lower or higher), louder or quieter, noisier.

    Reference:
        Ko et al. (2015), "Audio Augmentation for Speech Recognition" (speed perturbation).
    """
    speed = float(np.exp(rng.uniform(-0.15, 0.15)))
    length = max(2, round(len(samples) / speed))
    changed = np.interp(np.linspace(0, len(samples) - 1, length), np.arange(len(samples)), samples)
    level = float(np.sqrt((changed**2).mean()))
    changed = changed + rng.normal(0, level * 10 ** (-rng.uniform(10, 40) / 20), length)
    return (changed * rng.uniform(0.5, 1.0) / max(1.0, float(np.abs(changed).max()))).astype("float32")


def mask_frames(frames: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Return frames, shape (frames, bands), with up to a fifth of the frames and of the bands in a row set to 0, the mean.

    The network must not rely on any one of them.

    Reference:
        Park et al. (2019), "SpecAugment", arXiv:1904.08779.
    """
    frames = frames.copy()
    for axis, most in ((0, len(frames) // 5), (1, frames.shape[1] // 5)):
        size = int(rng.integers(0, most + 1))
        start = int(rng.integers(0, frames.shape[axis] - size + 1))
        frames[(slice(None),) * axis + (slice(start, start + size),)] = 0
    return frames


def read_recordings(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the recordings of an .npz file: dictionaries of sound, label, speaker and id.

    The file holds audio (int16, all recordings joined), length (samples of each), label, speaker, index and rate.
    """
    with np.load(path, allow_pickle=False) as file:
        missing = [name for name in ("audio", "length", "label", "speaker", "index", "rate") if name not in file]
        if missing:
            raise ValueError(f"{path} has no {missing[0]}. Copy the set again.")
        audio, lengths, labels, speakers, numbers, rate = (file[name] for name in ("audio", "length", "label", "speaker", "index", "rate"))
    if int(rate) != RATE or lengths.sum() != len(audio):
        raise ValueError(
            f"{path} has {int(rate)} Hz and {len(audio)} samples for lengths of {lengths.sum()}, but {RATE} Hz and as many are needed."
        )
    sounds = np.split(audio.astype("float32") / (1 << 15), np.cumsum(lengths)[:-1])
    for sound, label, speaker, number in zip(sounds, labels, speakers, numbers, strict=True):
        yield {"sound": sound, "label": str(label), "speaker": str(speaker), "id": f"{label}_{speaker}_{number}"}
