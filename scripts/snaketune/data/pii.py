"""Find and mask personal data and secrets in texts: e-mail addresses, phone numbers and keys."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.base import RegexBasedDetector
from phonenumbers import PhoneNumberMatcher

KINDS = ("e-mail address", "phone number", "secret key")
# No Unicode word boundaries: Chinese and Japanese put no space around an address.
EMAIL = re.compile(
    r"(?<![A-Za-z0-9.%+-])[\w.%+-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)
# Reserved names, which belong to nobody: RFC 2606.
RESERVED = re.compile(r"(?:^|[@.])(?:example\.(?:com|net|org)|example|test|invalid|localhost)$", re.IGNORECASE)
# Without a plus sign, article numbers and dates would pass for phone numbers.
PHONE = re.compile(r"[+＋][\s(]{0,3}\d")
# Skip texts without any key, at a tenth of the plugins' time: keys have 16 characters or more, apart from
# those of Artifactory, Slack and JSON Web Tokens, which have known prefixes.
MAYBE_SECRET = re.compile(r"[!-~]{16}|://|PRIVATE KEY|AKC|AP[\dA-F]|xox[abposr]-|eyJ|:_authToken")
# Patterns whose time grows with the square of a text's length are searched only if the text contains this.
NEEDED = {"NPM tokens": ":_authToken", "OpenAI Token": "T3BlbkFJ"}
# Machine addresses aren't secret.
NOT_SECRET = {"Public IP (ipv4)"}


def personal_data(text: str) -> Iterator[tuple[str, str]]:
    """Yield the kind of each finding in a text, and the finding masked."""
    for kind, _, shown in _findings(text):
        yield kind, shown


def masked(text: str) -> str:
    """Mask all personal data and secrets in a text."""
    for _, found, shown in _findings(text):
        text = text.replace(found, shown)
    return text


def _findings(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield kind, finding and masked finding."""
    if "@" in text:
        for match in EMAIL.finditer(text):
            if not RESERVED.search(match[0]):
                local, _, domain = match[0].partition("@")
                yield KINDS[0], match[0], f"{local[0]}…@{domain[0]}…"
    if PHONE.search(text):
        for number in PhoneNumberMatcher(text, None):
            yield KINDS[1], number.raw_string, f"{number.raw_string[:3]}…"
    for name, plugin in _plugins() if MAYBE_SECRET.search(text) else ():
        if NEEDED.get(name, "") not in text:
            continue
        for secret in dict.fromkeys(plugin.analyze_string(text)):
            yield KINDS[2], secret, f"{name} {secret[:2]}…"


@cache
def _plugins() -> list[tuple[str, Any]]:
    """Return the detectors that know the form of a key; those that use entropy take any hash for one."""
    found: dict[str, Any] = get_mapping_from_secret_type_to_class()
    return [
        (name, found[name]())
        for name in sorted(found)
        if issubclass(found[name], RegexBasedDetector) and name not in NOT_SECRET
    ]
