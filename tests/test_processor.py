"""What is said of a processor, and the precision that a measurement chooses and the cache folder remembers."""

import json
import subprocess
import sys

from slm_helpers import _processor as processor

import pytest

FACTS = {"vendor": "GenuineIntel", "family": "6", "model": "143", "name": "Intel(R) Xeon(R)", "flags": "sse2 avx avx2 avx512f avx512_bf16"}


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """No choice from an earlier test, and a cache folder of its own."""
    monkeypatch.setenv("SLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("SLM_PRECISION", raising=False)
    processor.faster_precision.cache_clear()
    yield
    processor.faster_precision.cache_clear()


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (FACTS, "Intel Sapphire Rapids, {}, 512-bit vectors"),
        (FACTS | {"vendor": "AuthenticAMD", "family": "25", "model": "1", "flags": "sse2 avx avx2 bmi2"}, "AMD Zen 3, {}, 256-bit vectors"),
        (FACTS | {"vendor": "AuthenticAMD", "family": "25", "model": "97"}, "AMD Zen 4, {}, 512-bit vectors"),
        (FACTS | {"vendor": "AuthenticAMD", "family": "26", "model": "2"}, "AMD Zen 5, {}, 512-bit vectors"),
        (FACTS | {"model": "9", "name": "Intel(R) Core(TM) i5", "flags": "sse2"}, "Intel(R) Core(TM) i5, {}, 128-bit vectors"),
        (FACTS | {"vendor": "", "family": "", "model": "", "name": "Cortex-A76", "flags": "fp asimd"}, "Cortex-A76, {}, 128-bit vectors"),
    ],
)
def test_a_machine_is_described_by_kind_and_vectors(monkeypatch, facts, expected):
    monkeypatch.setattr(processor, "_cpu_facts", lambda: facts)
    monkeypatch.setattr(processor, "_num_cores", lambda: 2)
    assert processor.describe_machine() == f"2 cores, {expected.format(processor.platform.machine())}"


def test_a_machine_that_tells_nothing_is_described_all_the_same(monkeypatch):
    monkeypatch.setattr(processor, "_cpu_facts", lambda: dict.fromkeys(FACTS, ""))
    monkeypatch.setattr(processor.platform, "processor", lambda: "")
    assert processor.describe_machine().endswith(f"cores, unknown processor, {processor.platform.machine()}")


def test_this_machine_has_a_kind_and_no_host_name():
    text = processor.describe_machine()
    assert "cores, " in text and processor.platform.node() not in text


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [
        ({"float32": 10, "bfloat16": 6}, "bfloat16"),
        ({"float32": 10, "bfloat16": 9}, "float32"),  # too little: there is casting to and fro
        ({"float32": 10, "bfloat16": 17}, "float32"),
        ({"float32": 10, "bfloat16": 90}, "float32"),
    ],
)
def test_the_clock_decides_and_not_the_flags(monkeypatch, milliseconds, expected):
    now, calls = [0.0], []

    def product_of(ops, name):
        def product():
            calls.append(name)
            now[0] += milliseconds[name] / 1000

        return product

    monkeypatch.setattr(processor, "_cpu_facts", lambda: FACTS)
    monkeypatch.setattr(processor, "_products", product_of)
    monkeypatch.setattr(processor.time, "perf_counter", lambda: now[0])
    assert processor.faster_precision() == expected
    assert calls.count("bfloat16") == (1 if milliseconds["bfloat16"] > 20 else 3)


def test_a_choice_is_remembered_for_this_kind_of_machine_only(monkeypatch, tmp_path):
    measured = []
    monkeypatch.setattr(processor, "_measure", lambda: measured.append(1) or "bfloat16")
    for _ in range(2):
        assert processor.faster_precision() == "bfloat16"
        processor.faster_precision.cache_clear()
    assert len(measured) == 1
    (path,) = (tmp_path / "cache").iterdir()
    assert json.loads(path.read_text()) == {"precision": "bfloat16"}
    monkeypatch.setattr(processor, "_cpu_facts", lambda: FACTS | {"model": "207"})
    processor.faster_precision()
    assert len(measured) == 2


@pytest.mark.parametrize("text", ["", "[]", '{"precision": "int8"}', '{"precision": 3}', "\x00"])
def test_a_cache_file_that_says_nothing_sensible_is_written_anew(monkeypatch, text):
    monkeypatch.setattr(processor, "_measure", lambda: "float32")
    path = processor._cache_file()
    path.parent.mkdir()
    path.write_text(text)
    assert processor.faster_precision() == "float32"
    assert json.loads(path.read_text()) == {"precision": "float32"}


def test_a_folder_that_cannot_be_written_to_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setattr(processor, "_measure", lambda: "float32")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SLM_CACHE_DIR", str(tmp_path / "file"))
    assert processor.faster_precision() == "float32"


def test_without_a_home_the_folder_for_temporary_files_is_used(monkeypatch, tmp_path):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SLM_CACHE_DIR")
    monkeypatch.setattr(processor.Path, "home", no_home)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert processor._cache_file().is_relative_to(tmp_path)


def test_the_environment_overrules_the_measurement(monkeypatch):
    monkeypatch.setenv("SLM_PRECISION", "bfloat16")
    monkeypatch.setattr(processor, "_measure", lambda: pytest.fail("measured"))
    assert processor.faster_precision() == "bfloat16"


def test_describing_the_machine_loads_no_keras():
    code = "import sys; from slm_helpers._processor import describe_machine; describe_machine(); print('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
