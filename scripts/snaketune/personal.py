"""Personal data and secrets in texts: e-mail addresses, phone numbers and keys, shown masked."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.base import RegexBasedDetector
from phonenumbers import PhoneNumberMatcher

KINDS = ("e-mail address", "phone number", "secret key")
EMAIL = re.compile(
    r"(?<![\w.%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![\w-])"
)
# Names that belong to nobody: RFC 2606.
RESERVED = re.compile(r"(?:^|[@.])(?:example\.(?:com|net|org)|example|test|invalid|localhost)$", re.IGNORECASE)
# Without a plus sign, numbers of articles and dates would pass for phone numbers.
PHONE = re.compile(r"[+＋][\s(]{0,3}\d")
# No key is shorter: what all the plugins would search in vain is found out first, at a tenth of their time.
MAYBE_SECRET = re.compile(r"[!-~]{16}|://|PRIVATE KEY")
# Addresses of machines aren't secret.
NOT_SECRET = {"Public IP (ipv4)"}


def personal_data(text: str) -> Iterator[tuple[str, str]]:
    """Each finding of a text: its kind and itself, masked."""
    if "@" in text:
        for match in EMAIL.finditer(text):
            if not RESERVED.search(match[0]):
                local, _, domain = match[0].partition("@")
                yield KINDS[0], f"{local[0]}…@{domain[0]}…"
    if PHONE.search(text):
        for number in PhoneNumberMatcher(text, None):
            yield KINDS[1], f"{number.raw_string[:3]}…"
    for name, plugin in _plugins() if MAYBE_SECRET.search(text) else ():
        for secret in plugin.analyze_string(text):
            yield KINDS[2], f"{name} {secret[:2]}…"


@cache
def _plugins() -> list[tuple[str, Any]]:
    """The detectors that know how a key looks; those that go by entropy take any hash for one."""
    found: dict[str, Any] = get_mapping_from_secret_type_to_class()
    return [
        (name, found[name]())
        for name in sorted(found)
        if issubclass(found[name], RegexBasedDetector) and name not in NOT_SECRET
    ]
