"""Which names look like others: `аdmin` with a Cyrillic а is not `admin`, and reads the same.

Only what can be taken for Latin letters is known here, since that is what administrators' names
are mostly made of. Knows no users.

Source: confusables.txt of Unicode's UTS #39, letters of the Basic Multilingual Plane. A table of
our own, because the packages that carry the whole file are not kept up or need a compiler.
"""

import unicodedata
from typing import Final

RESERVED: Final = frozenset(
    {
        *("admin", "administrator", "moderator", "operator", "root"),
        *("security", "staff", "superuser", "support", "system"),
    }
)
"""Nobody may look like these. Whoever comes first may have one as it is written here."""

_LOOKALIKES: Final = {
    "a": "ɑΑαАаᎪᗅꓮ",
    "b": "ƄΒВЬᏏᏴᑲᖯᗷꓐꞴ",
    "c": "СсᏟᴄⲤⲥꓚꮯ",
    "d": "ԁᎠᏧᑯᗞᗪꓒꓓ",
    "e": "ΕЕеҽᎬⴹꓰꬲ",
    "f": "ϜքᖴẝꓝꞘꞙꬵ",
    "g": "ƍɡԌցᏀᏳᶃꓖ",
    "h": "ΗНһհᎻᏂᕼⲎꓧ",
    "i": "ıɩɪΙιІіӀӏᎥꙇꭵ",
    "j": "ͿϳЈјᎫᒍꓙꞲ",
    "k": "ΚКᏦᛕⲔꓗ",
    "l": "Ɩǀ۱ᏞᒪᛁⲒⳐⵏꓡꓲ",
    "m": "ΜϺМᎷᗰᛖⲘꓟ",
    "n": "ΝոռⲚꓠ",
    "o": "ΟοσОоՕօ۵०০੦૦ଠ୦௦౦೦ഠ൦๐໐ဝ၀ჿዐᴏᴑⲞⲟⵔ〇ꓳꬽ",
    "p": "ΡρРрᏢᑭⲢⲣꓑ",
    "q": "ԛգզⵕ",
    "r": "ƦгᎡᏒᖇᴦⲅꓣꭇꭈꮁ",
    "s": "ƽЅѕՏᏕᏚꓢꜱꮪ",
    "t": "ΤТᎢⲦꓔ",
    "u": "ʋυՍսሀᑌᴜꓴꞟꭎꭒ",
    "v": "νѴѵ۷Ꮩᐯᴠⴸꓦꛟꮩ",
    "w": "ɯѡԜԝաᎳᏔᴡꓪꮃ",
    "x": "ΧХхᕁᕽᚷⲬⵝꓫꞳ",
    "y": "ɣʏΥγУуҮүყᎩᎽᶌỿⲨꓬꭚ",
    "z": "ΖᏃᴢꓜꮓ",
}
_LATIN: Final = {
    # the other case of a lookalike too, where it isn't another letter's: к as К
    **{ord(c.casefold()): k for k, s in _LOOKALIKES.items() for c in s if len(c.casefold()) == 1},
    **{ord(c): k for k, s in _LOOKALIKES.items() for c in s},
}
# I, l, i and 1 in one another's places, 0 for o
_ALIKE: Final = str.maketrans("i10", "llo")


def looks_like(name: str, others: frozenset[str]) -> bool:
    """Tell whether a name can be taken for one of some others without being it.

    Args:
        name: a valid name; case does not count.
        others: valid names.
    """
    normal = unicodedata.normalize("NFKC", name)
    if normal.casefold() in {other.casefold() for other in others}:
        return False
    return _skeleton(normal) in map(_skeleton, others)


def _skeleton(normal: str) -> str:
    """Make what names that look alike have in common."""
    latin = normal.translate(_LATIN).casefold()
    return latin.translate(_ALIKE).replace("rn", "m").replace("vv", "w")
