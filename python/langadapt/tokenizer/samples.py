"""Texts that the acceptance test of a tokenizer tries: what readers see, and what code and rare scripts need."""

from __future__ import annotations

PROSE = (
    "Die Würde des Menschen ist unantastbar. „Zwölf Boxkämpfer“ – so heißt es – jagen Viktor quer über den Deich.",
    "It's 10:45, and they've paid 1,234.50 € for 2 tickets; won't you come?",
    "السلام عليكم ورحمة الله وبركاته، كيف حالك اليوم؟ وَبَرَكَاتُه",
    "春眠不觉晓，处处闻啼鸟。",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "हिन्दी ไทย 한국어 Ελλάς ქართული",
)
"""Ordinary sentences: what differs here is seen by every reader."""

WHITE_SPACE = (
    "two  spaces,   three,    four",
    "lines\nand\n\nempty lines\n",
    "tabs\tand\r\nWindows lines",
    " one space in front",
    "    four in front, two behind  ",
    "no-break\u00a0space, thin\u2009space, ideographic\u3000space",
)
"""White space that text and code mean."""

CHARACTERS = (
    "ﬁne ligatures, x² + y³ = ½, №5, ①, Å, …, ™",
    "e\u0301 u\u0308 composed by marks, é ü at once",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪",
    "zero\u200bwidth, joiner\u200d, mark \ufeff",
    "\x00\x07\x7f controls, \ue000 private, \U0010fffd far away",
)
"""Characters that normalization would change, and rare ones."""

CODE = (
    "def f(x):\n    if x <= 10:\n        return {'a': [x, 'b'], \"c\": 3}\n\treturn None  # ok\n",
    "<html><body class=\"a\">&amp; $HOME/bin | grep -E '^[a-z]+$' > out.txt 2>&1</body></html>\n",
    "for (int i = 0; i < n; ++i) { sum += a[i] * b[i] % 7; } // ~!@#^`\\\n",
)
"""Program text: all of ASCII, and indentation."""

MARKED = (
    "हिन्दी में लिखा हुआ वाक्य",
    "தமிழ் மொழியில் எழுதப்பட்டது",
    "বাংলা ভাষায় লেখা",
    "မြန်မာ ဘာသာ",
    "nǹkan ọ́jà",
)
"""Words whose vowels or tones are combining marks."""

SAMPLES = {"prose": PROSE, "white space": WHITE_SPACE, "characters": CHARACTERS, "code": CODE}
