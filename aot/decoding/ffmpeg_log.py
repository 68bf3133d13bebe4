"""Watch the log of decord's FFmpeg for problems in the data.

decord returns the images that FFmpeg makes up for damaged data, and scales frames whose size changes, without an error.
Only FFmpeg's log mentions either, before the frame is returned.
"""

from __future__ import annotations

import atexit
import ctypes
import re
from functools import lru_cache
from pathlib import Path

# libavutil/log.h: AV_LOG_WARNING and AV_LOG_INFO; smaller numbers are more serious.
_WARNING, _INFO = 24, 32

# Decoders only inform of images that they had to make up ("concealing … errors").
_DECODER_CLASS = b"AVCodecContext"

# These convert decoded images; what they warn about (such as an unspecified colour range) is no damage.
_HARMLESS_CLASSES = (b"SWScaler", b"SwsContext", b"AVFilter")

# Written, not always as a warning, for every frame that differs from what was expected: in its size or its description.
_OTHER_FRAME = b"filter context - w: %d h: %d"
_SIZES = re.compile(rb"w: (\d+) h: (\d+) .*incoming frame - w: (\d+) h: (\d+) ")

# Formats are constants of the library: this is more than it has.
_MAX_KNOWN_FORMATS = 10_000

# Arguments: context, level, format, and the arguments of the format, which are passed on by reference.
_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class FFmpegLog:
    """The log of one copy of FFmpeg, which is no longer printed.

    Args:
        libavutil: path of the library of this copy, already loaded.
    Raises:
        OSError: it is not a library.
        AttributeError: it has no log.
    """

    def __init__(self, libavutil: Path) -> None:
        self.num_messages = 0
        """Messages so far, of all levels: FFmpeg passes on even those that it would not print."""
        self.num_problems = 0
        """Messages so far about problems in the data, of all files that are open."""
        library = ctypes.CDLL(str(libavutil))
        self._format_line = library.av_log_format_line
        self._known_formats: dict[int | None, bool] = {}
        # Kept: FFmpeg's threads call it for as long as it is set. They wait for the GIL, so every call of this copy of
        # FFmpeg must release it, as ctypes does.
        self._callback = _CALLBACK(self._count)
        library.av_log_set_callback(self._callback)
        # A message after the interpreter has shut down would crash the process.
        atexit.register(library.av_log_set_callback, None)

    def _count(self, context: int | None, level: int, text: int | None, arguments: int | None) -> None:
        self.num_messages += 1
        is_problem = level <= _INFO and _is_about_data(level, _class_name(context))
        if is_problem or (self._is_about_frames(text) and self._is_other_size(context, level, text, arguments)):
            self.num_problems += 1

    def _is_about_frames(self, text: int | None) -> bool:
        known = self._known_formats.get(text)
        if known is None:
            known = text is not None and ctypes.string_at(text).startswith(_OTHER_FRAME)
            if len(self._known_formats) < _MAX_KNOWN_FORMATS:
                self._known_formats[text] = known
        return known

    def _is_other_size(self, context: int | None, level: int, text: int | None, arguments: int | None) -> bool:
        line, prefix = ctypes.create_string_buffer(1024), ctypes.c_int(0)
        pointers = (ctypes.c_void_p(context), ctypes.c_int(level), ctypes.c_void_p(text), ctypes.c_void_p(arguments))
        self._format_line(*pointers, line, len(line), ctypes.byref(prefix))
        sizes = _SIZES.search(line.value)
        return sizes is None or sizes.group(1, 2) != sizes.group(3, 4)


@lru_cache(maxsize=1)
def watch_log(libavutil: Path) -> FFmpegLog:
    """The log of the copy of FFmpeg with this library, watched from the first call on."""
    return FFmpegLog(libavutil)


def _is_about_data(level: int, class_name: bytes) -> bool:
    return class_name == _DECODER_CLASS or (level <= _WARNING and not class_name.startswith(_HARMLESS_CLASSES))


def _class_name(context: int | None) -> bytes:
    """Name of the FFmpeg class that logs, the first field of its AVClass; a context begins with a pointer to that."""
    if not context:
        return b""
    av_class = ctypes.cast(context, ctypes.POINTER(ctypes.POINTER(ctypes.c_char_p)))[0]
    return (av_class[0] or b"") if av_class else b""
