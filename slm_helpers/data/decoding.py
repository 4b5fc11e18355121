"""Open a person's text file: unpacked, decoded, and read line by line in bounded memory."""

import codecs
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

MAX_LINE_CHARS = 1 << 24  # a packed file of some kilobytes can hold a line that fills the memory
_SAMPLE_BYTES = 1 << 16
# The longer marks first: that of UTF-32 begins like that of UTF-16.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_EAST_ASIAN = {"gb18030": r"[\u4e00-\u9fff\u3000-\u303f\uff00-\uffef]", "shift_jis": r"[\u3040-\u30ff\u4e00-\u9fff\u3000-\u303f]",
               "euc_kr": r"[\uac00-\ud7af]", "big5": r"[\u4e00-\u9fff\u3000-\u303f\uff00-\uffef]"}  # fmt: skip


def check_file(path: str | Path) -> Path:
    """Return `path` if it is a regular file with something in it.

    Raises:
        FileNotFoundError: If there is nothing of that name.
        ValueError: For a folder, a pipe or a device (which may never end), and an empty file.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, but a file is needed.")
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file. Check the spelling and the folder ({Path.cwd()}).")
    if not path.is_file():
        raise ValueError(f"{path} is a pipe or a device, but a file is needed, which can be read twice. Write its content to a file first.")
    return path


@contextmanager
def open_binary(path: Path) -> Iterator[IO[bytes]]:
    """Open a file as bytes, unpacked if it ends in .gz or .zip; a damaged archive is a ValueError."""
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive, archive.open(zip_member(path)) as file:
                yield file
        else:
            with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as file:
                yield file
    except (gzip.BadGzipFile, EOFError, zlib.error, zipfile.BadZipFile) as error:
        kind = "zip" if path.suffix.lower() == ".zip" else "gzip"
        raise ValueError(f"{path}: the {kind} file is damaged or cut short ({error}). Copy it again.") from error


def zip_member(path: Path) -> str:
    """Return the name of the one file in a zip archive; several, none or one with a password are a ValueError."""
    try:
        with zipfile.ZipFile(path) as archive:
            # A Mac adds a shadow of each file.
            members = [info for info in archive.infolist() if not info.is_dir() and not re.search(r"(^|/)(__MACOSX/|\.)", info.filename)]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: the zip file is damaged or cut short ({error}). Copy it again.") from error
    if len(members) != 1:
        names = ", ".join(info.filename for info in members[:5]) or "none"
        raise ValueError(f"{path}: the archive holds {len(members)} files ({names}), but one table is needed. Unpack it and name the file.")
    if members[0].flag_bits & 1:
        raise ValueError(f"{path}: the archive has a password. Unpack it and name the file.")
    return members[0].filename


@contextmanager
def open_text(path: Path, encoding: str = "utf-8") -> Iterator[IO[str]]:
    """Open text, unpacked; a byte order mark decides the encoding, and bytes that do not fit it are a ValueError with their line.

    Line ends are left as they are where the file has a `\\n`, for there a lone `\\r` is part of a text; else a `\\r` ends a line.
    """
    with open_binary(path) as binary:
        sample = binary.read(_SAMPLE_BYTES)
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if sample.startswith(mark)), encoding)
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise ValueError(f"{path}: the encoding {encoding!r} is not known. Try 'utf-8', 'cp1252' or 'utf-16'.") from error
    if encoding.lower() in ("utf-8", "utf8") and sample.count(0) > len(sample) / 5:  # they would pass as UTF-8
        raise ValueError(f"{path}, line 1: the bytes are not utf-8 text (every other one is 0). {_encoding_advice(path, encoding)}")
    newline = "\n" if "\n" in sample.decode(encoding, errors="ignore") or "\r" not in sample.decode(encoding, errors="ignore") else None
    try:
        with open_binary(path) as binary, io.TextIOWrapper(binary, encoding=encoding, newline=newline) as file:
            yield file
    except UnicodeError as error:  # plain UnicodeError where UTF-16 lacks its byte order mark
        raise ValueError(
            f"{path}, line {_undecodable_line(path, encoding)}: the bytes are not {encoding.removesuffix('-sig')} text "
            f"({getattr(error, 'reason', error)}). {_encoding_advice(path, encoding)}"
        ) from error


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """Yield the lines of a text file without their ends; a lone `\\r` within a line becomes a space.

    Raises:
        ValueError: If a line is longer than MAX_LINE_CHARS, or the bytes are not in `encoding`.
    """
    with open_text(path, encoding) as file:
        number = 0
        while line := file.readline(MAX_LINE_CHARS + 1):
            number += 1
            if len(line) > MAX_LINE_CHARS:
                raise ValueError(f"{path}, line {number}: the line has more than {MAX_LINE_CHARS:,} characters. Split it into rows.")
            yield line.removesuffix("\n").removesuffix("\r").replace("\r", " ")


def read_text(path: str | Path, *, encoding: str = "utf-8") -> str:
    """Return a whole text file as one string, line ends as `\\n`, without a byte order mark."""
    with open_text(check_file(path), encoding) as file:
        return file.read().replace("\r\n", "\n")


def fitting_encodings(data: bytes) -> list[str]:
    """Return the encodings that bytes which are no UTF-8 are most likely in, the likeliest first; "latin-1" fits everything."""
    half = max(len(data) // 2, 1)
    if data[1::2].count(0) > 0.3 * half:
        return ["utf-16-le"]
    if data[0::2].count(0) > 0.3 * half:
        return ["utf-16-be"]
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", data)]
    beyond = sum(runs)
    # Accented letters stand alone among plain ones; other alphabets and two bytes a character make long runs.
    if sum(length for length in runs if length > 3) > beyond / 2 or beyond > 0.3 * len(data):
        if len(re.findall(rb"[\xc0-\xff]", data)) > 0.95 * beyond:
            return ["cp1251", "koi8-r", "cp1253", "cp1256"]  # Cyrillic, Greek, Arabic: bytes alone do not tell
        fits = [name for name, script in _EAST_ASIAN.items() if _share_of(data, name, script) > 0.9]
        if fits:
            return fits
    return ["cp1252"] if _decodes(data, "cp1252") else ["latin-1"]


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeError:
        return False
    return True


def _share_of(data: bytes, encoding: str, script: str) -> float:
    """Return which share of the characters of two bytes are of a script; what cannot be decoded speaks against the encoding too."""
    beyond = re.sub(r"[\x00-\x7f]", "", data.decode(encoding, errors="replace"))
    return len(re.findall(script, beyond)) / max(len(beyond), 1)


def _encoding_advice(path: Path, tried: str) -> str:
    with open_binary(path) as file:
        data = file.read(1 << 24)
    broken = data.decode("utf-8", errors="replace").count("\ufffd")
    if tried.removesuffix("-sig") in ("utf-8", "utf8") and broken < 0.05 * len(re.findall(rb"[\xc2-\xf4][\x80-\xbf]", data)):
        return f"All but {broken:,} of its characters are UTF-8, so it mixes encodings: write this line anew."
    if tried.removesuffix("-sig") not in ("utf-8", "utf8") and _decodes(data, "utf-8"):
        names = ["utf-8"]
    else:
        names = [name for name in fitting_encodings(data) if name != tried.lower()] or ["latin-1"]
    more = f" (or {', '.join(names[1:])})" if names[1:] else ""
    return (
        f"The bytes fit encoding={names[0]!r}{more}, in the shell --encoding {names[0]}: name it and look whether the first rows read "
        "well, or save the file as UTF-8."
    )


def _undecodable_line(path: Path, encoding: str) -> int:
    decoder = codecs.getincrementaldecoder(encoding)()
    number = 1
    with open_binary(path) as file:
        try:
            # Count decoded line ends: in UTF-16 the byte 0x0a also stands inside other characters.
            while chunk := file.read(_SAMPLE_BYTES):
                number += decoder.decode(chunk).count("\n")
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            number += error.object[: error.start].decode(encoding, errors="ignore").count("\n")
        except UnicodeError:
            pass
    return number
