"""Character sets of the log: which one a collation has, and what turns its bytes into the UTF-8 a SELECT would bring.

Python's codecs are the servers' but for the characters written down here, which were found by asking MySQL 9.7 and
MariaDB 11.8 for all of them. What has no character in Unicode is ``?``, as it is in a result.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable

Convert = Callable[[bytes], bytes]

BYTES_PER_CHARACTER = {
    "utf8": 3, "utf8mb3": 3, "utf8mb4": 4, "ucs2": 2, "utf16": 4, "utf16le": 4, "utf32": 4, "big5": 2, "cp932": 2,
    "euckr": 2, "gb2312": 2, "gbk": 2, "sjis": 2, "ujis": 3, "eucjpms": 3, "gb18030": 4,
}  # fmt: skip
"""The most a character takes; 1 in all others."""

# Numbers below 1024; a MariaDB collation that pads nothing has that of the padding one and 1024.
_COLLATIONS: dict[str, tuple[Iterable[int], ...]] = {
    "armscii8": ((32, 64),), "ascii": ((11, 65),), "big5": ((1, 84),), "binary": ((63,),),
    "cp1250": ((26, 34, 44, 66, 99),), "cp1251": ((14, 23, 50, 51, 52),), "cp1256": ((57, 67),),
    "cp1257": ((29, 58, 59),), "cp850": ((4, 80),), "cp852": ((40, 81),), "cp866": ((36, 68),), "cp932": ((95, 96),),
    "dec8": ((3, 69),), "eucjpms": ((97, 98),), "euckr": ((19, 85),), "gb18030": ((248, 249, 250),),
    "gb2312": ((24, 86),), "gbk": ((28, 87),), "geostd8": ((92, 93),), "greek": ((25, 70),), "hebrew": ((16, 71),),
    "hp8": ((6, 72),), "keybcs2": ((37, 73),), "koi8r": ((7, 74),), "koi8u": ((22, 75),),
    "latin1": ((5, 8, 15, 31, 47, 48, 49, 94),), "latin2": ((2, 9, 21, 27, 77),), "latin5": ((30, 78),),
    "latin7": ((20, 41, 42, 79),), "macce": ((38, 43),), "macroman": ((39, 53),), "sjis": ((13, 88),),
    "swe7": ((10, 82),), "tis620": ((18, 89),), "ujis": ((12, 91),),
    "ucs2": ((35, 90), range(128, 160), range(640, 672)), "utf16": ((54, 55), range(101, 125), range(672, 704)),
    "utf16le": ((56, 62),), "utf32": ((60, 61), range(160, 184), range(736, 768)),
    "utf8mb3": ((33, 76, 83), range(192, 224), range(576, 608)),
    "utf8mb4": ((45, 46), range(224, 248), range(255, 324), range(608, 640)),
}  # fmt: skip
_OF_COLLATION = {number: name for name, sets in _COLLATIONS.items() for numbers in sets for number in numbers}
# MariaDB's collations by UCA 14 begin at 2048, 256 of them for each of these.
_UCA1400 = ("utf8mb3", "utf8mb4", "ucs2", "utf16", "utf32")


def charset_of(collation: int) -> str | None:
    """The character set of a collation, by its number; None for one that is not known."""
    if 2048 <= collation < 2048 + 256 * len(_UCA1400):
        return _UCA1400[(collation - 2048) // 256]
    return _OF_COLLATION.get(collation % 1024 if collation < 2048 else collation)


def utf8(charset: str) -> Convert | None:
    """What turns text of a character set into UTF-8; None where it is that already. KeyError for one not known."""
    if charset in ("utf8", "utf8mb3", "utf8mb4", "binary"):
        return None
    if charset in _WIDE:
        return _wide(*_WIDE[charset])
    return _multi_byte(charset) if charset in _CHARACTERS else _single_byte(charset)


def keeps_ascii(charset: str) -> bool:
    """Whether bytes below 0x80 are what they are in ASCII, wherever no other byte is near."""
    return charset not in _WIDE and charset != "swe7"


# -- two or four bytes a character ------------------------------------------------------------------------------------

_WIDE = {"ucs2": ("utf-16-be", 2), "utf16": ("utf-16-be", 2), "utf16le": ("utf-16-le", 2), "utf32": ("utf-32-be", 4)}


def _wide(codec: str, width: int) -> Convert:
    def convert(text: bytes) -> bytes:
        if len(text) % width:
            raise ValueError(f"{len(text)} bytes are no text of {codec}")
        return text.decode(codec, "surrogatepass").encode("utf-8", "replace")

    return convert


# -- one byte a character ---------------------------------------------------------------------------------------------

_C1 = "".join(map(chr, range(0x80, 0xA0)))

# From 0x80 on, where Python has no codec.
_UPPER = {
    "ascii": "?" * 128,
    "swe7": "?" * 128,
    "armscii8": _C1 + "\xa0❁§։)(»«—.՝,-՟…՜՛՞ԱաԲբԳգԴդԵեԶզԷէԸըԹթԺժԻիԼլԽխԾծԿկՀհՁձՂղՃճՄմՅյՆնՇշՈոՉչՊպՋջՌռՍսՎվՏտՐրՑցՒւՓփՔքՕօՖֆ’'",
    "dec8": _C1 + "\xa0¡¢£?¥?§¤©ª«????°±²³?µ¶·?¹º»¼½?¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏ?ÑÒÓÔÕÖŒØÙÚÛÜŸ?ßàáâãäåæçèéêëìíîï?ñòóôõöœøùúûüÿ??",
    "geostd8": "€?‚?„…†‡?‰?‹?????‘’“”•–—???›????\xa0¡¢£¤¥¦§¨©ª«¬\xad®¯°±²³´µ¶·¸¹º»¼½¾¿აბგდევზჱთიკლმნჲოპჟრსტჳუფქღყშჩცძწჭხჴჯჰჵ"
    + "?" * 23 + "№??",
    "keybcs2": "ČüéďäĎŤčěĚĹÍľĺÄÁÉžŽôöÓůÚýÖÜŠĽÝŘťáíóúňŇŮÔšřŕŔ¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩"
    "≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\xa0",
}  # fmt: skip
_PYTHON = {
    "cp1250": "cp1250", "cp1251": "cp1251", "cp1256": "cp1256", "cp1257": "cp1257", "cp850": "cp850", "cp852": "cp852",
    "cp866": "cp866", "greek": "iso8859-7", "hebrew": "iso8859-8", "hp8": "hp-roman8", "koi8r": "koi8-r",
    "koi8u": "koi8-u", "latin1": "cp1252", "latin2": "iso8859-2", "latin5": "iso8859-9", "latin7": "iso8859-13",
    "macce": "mac-latin2", "macroman": "mac-roman", "tis620": "tis-620",
}  # fmt: skip
_OTHERWISE: dict[str, dict[int, str]] = {
    "latin1": {place: chr(place) for place in (0x81, 0x8D, 0x8F, 0x90, 0x9D)},
    "cp1256": dict.fromkeys((0x8A, 0x8F, 0x98, 0x9A, 0x9F, 0xAA, 0xC0, 0xFF), "?"),
    "cp866": {0xFC: "ⁿ", 0xFD: "²"},
    "greek": {0xA1: "ʽ", 0xA2: "ʼ", 0xA4: "?", 0xA5: "?", 0xAA: "?"},
    "hebrew": {0xAF: "‾"},
    "koi8u": {0x95: "•"},
    "tis620": dict.fromkeys((0xA0, *range(0xDB, 0xDF), *range(0xFC, 0x100)), "\ufffd"),
    "swe7": dict(zip(b"@[\\]^`{|}~\x7f", "ÉÄÖÅÜéäöåü?", strict=True)),
}


def _single_byte(charset: str) -> Convert:
    if charset in _UPPER:
        characters = [*map(chr, range(128)), *_UPPER[charset]]
    else:
        characters = [_decoded(bytes([place]), _PYTHON[charset]) for place in range(256)]
    for place, character in _OTHERWISE.get(charset, {}).items():
        characters[place] = character
    table = "".join(characters)
    return lambda text: codecs.charmap_decode(text, "strict", table)[0].encode()


def _decoded(character: bytes, codec: str) -> str:
    try:
        return character.decode(codec)
    except UnicodeDecodeError:
        return "?"


# -- several bytes a character ----------------------------------------------------------------------------------------

# Well-formed characters beside ASCII, as the servers' my_ismbchar has them.
_CHARACTERS = {
    "big5": rb"[\xa1-\xf9][\x40-\x7e\xa1-\xfe]",
    "cp932": rb"[\x81-\x9f\xe0-\xfc][\x40-\x7e\x80-\xfc]",
    "sjis": rb"[\x81-\x9f\xe0-\xfc][\x40-\x7e\x80-\xfc]",
    "euckr": rb"[\x81-\xfe][\x41-\x5a\x61-\x7a\x81-\xfe]",
    "gb2312": rb"[\xa1-\xf7][\xa1-\xfe]",
    "gbk": rb"[\x81-\xfe][\x40-\x7e\x80-\xfe]",
    "gb18030": rb"[\x81-\xfe](?:[\x40-\x7e\x80-\xfe]|[\x30-\x39][\x81-\xfe][\x30-\x39])",
    "ujis": rb"\x8e[\xa1-\xdf]|\x8f[\xa1-\xfe]{2}|[\xa1-\xfe]{2}",
    "eucjpms": rb"\x8e[\xa1-\xdf]|\x8f[\xa1-\xfe]{2}|[\xa1-\xfe]{2}",
}
_CODECS = {"euckr": "cp949", "sjis": "shift_jis", "ujis": "euc-jp", "eucjpms": "euc-jp"}
_UNMAPPED = "\ufffd"  # MySQL's tables have it as the character of what they leave out
_EXCEPTIONS: dict[str, dict[bytes, str]] = {
    "big5": {
        **{bytes.fromhex(code): _UNMAPPED for code in ("a15a", "a1c3", "a1c5", "a1fe", "a240", "a2cc", "a2ce")},
        **{bytes([0xF9, 0xD6 + place]): character for place, character in enumerate("碁銹裏墻恒粧嫺")},
    },
    "gb18030": {b"\xa8\xbc": "ḿ", b"\x81\x35\xf4\x37": "\ue7c7"},
    "sjis": {b"\x81\x5f": "\\"},
    "ujis": {b"\xa1\xc0": "\\"},
    "eucjpms": {b"\x8f\xa2\xb7": "～", b"\x8f\xa2\xc3": "￤"},
}
# IBM's characters from 8F F3 F3 on, which only eucjpms has. An editor that normalizes would change those in escapes.
_IBM = (
    "ⅰⅱⅲⅳⅴⅵⅶⅷⅸⅹⅠⅡⅢⅣⅤⅥⅦⅧⅨⅩ＇＂㈱№℡炻仼僴凬匇匤\ufa0e咊坙"
    "\ufa0f\ufa10增寬峵嵓\ufa11德悅愠敎昻晥\ufa12\uf929栁\ufa13\ufa14橫櫢淸淲瀨\ufa15\ufa16甁皂皞\ufa17礰\ufa18\ufa19\ufa1a\ufa1b竧\ufa1c"
    "\ufa1d綠緖\ufa1e荢\ufa1f薰\ufa20\ufa21蠇\ufa22譿賴赶\ufa23\ufa24\ufa25郞\ufa26鄕\ufa27\ufa28閒\uf9dc\ufa29霻靍靑\ufa2a\ufa2b\ufa2c馞髙魲\ufa2d黑"
)
_ROW = 94  # characters of a row of JIS; the first byte, and the first character of a row, is A1


class _Characters(dict[bytes, bytes]):
    """Pieces of a text → their UTF-8, worked out when they are first met."""

    _MOST = 1 << 16

    def __init__(self, charset: str) -> None:
        self._charset = charset
        self._exceptions = _EXCEPTIONS.get(charset, {})

    def __missing__(self, piece: bytes) -> bytes:
        if len(self) >= self._MOST:
            self.clear()
        text = self[piece] = self._text(piece).encode()
        return text

    def _text(self, piece: bytes) -> str:
        if piece in self._exceptions:
            return self._exceptions[piece]
        if self._charset in ("ujis", "eucjpms") and (found := _of_japan(piece, self._charset == "eucjpms")):
            return found
        return _decoded(piece, _CODECS.get(self._charset, self._charset))


def _of_japan(piece: bytes, by_microsoft: bool) -> str | None:
    """Characters of EUC-JP that Python does not have: for private use, and those of Microsoft's variant."""
    if len(piece) < 2 or piece[0] < 0x8F:
        return None
    row, place = piece[-2] - 0xA1, piece[-1] - 0xA1
    if piece[-2] >= 0xF5:
        return chr((0xE3AC if len(piece) == 3 else 0xE000) + (row - 84) * _ROW + place)
    if not by_microsoft:
        return None
    if len(piece) == 3:
        ibm = row * _ROW + place - (82 * _ROW + 82)
        return _IBM[ibm] if 0 <= ibm < len(_IBM) else None
    lead = row // 2 + (0x81 if row < 62 else 0xC1)
    trail = place + (0x9F if row % 2 else 0x40 + (place >= 63))
    return _decoded(bytes([lead, trail]), "cp932")


def _multi_byte(charset: str) -> Convert:
    # A lone byte that begins no character is its own piece, and becomes a question mark.
    pieces = re.compile(rb"[\x00-\x7f]+|" + _CHARACTERS[charset] + rb"|.", re.DOTALL).findall
    known = _Characters(charset)
    return lambda text: b"".join(map(known.__getitem__, pieces(text)))
