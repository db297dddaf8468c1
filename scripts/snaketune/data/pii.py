"""Find and mask personal data and secrets in texts: addresses, numbers of phones, cards and accounts, and keys."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.base import RegexBasedDetector
from phonenumbers import SUPPORTED_REGIONS, Leniency, PhoneNumberMatcher

from snaketune.core.errors import UserError

KINDS = ("e-mail address", "phone number", "secret key", "payment card number", "IBAN")
# No Unicode word boundaries: Chinese and Japanese put no space around an address.
EMAIL = re.compile(
    r"(?<![A-Za-z0-9.%+-])[\w.%+-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)
# Reserved names, which belong to nobody: RFC 2606.
RESERVED = re.compile(r"(?:^|[@.])(?:example\.(?:com|net|org)|example|test|invalid|localhost)$", re.IGNORECASE)
PHONE = re.compile(r"[+＋][\s(]{0,3}\d")
# 00 stands for the plus sign in most of the world; a space and a plus sign keep its length.
PREFIX = re.compile(r"(?<![A-Za-z0-9_.,+-])00(?=[1-9][\d\s()./-]{7})")
NATIONAL = re.compile(r"\d(?:[\s()./-]{0,3}\d){6}")
# Numbers by issuer, as ISO/IEC 7812 gives them out: Visa, Mastercard, American Express, Diners, Discover, JCB, UnionPay.
CARD = re.compile(
    r"(?<![A-Za-z0-9_-])(?<!\d[.,])(?:4|5[1-5]|2[2-7]|3[4-9]|6[0245])(?:[ -]?\d){11,18}(?![A-Za-z0-9_-]|[.,]\d)"
)
IBAN = re.compile(r"(?<![A-Za-z0-9_])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}")
# Skip texts without any key, at a tenth of the plugins' time: keys have 16 characters or more, apart from
# those of Artifactory, Slack and JSON Web Tokens, which have known prefixes.
MAYBE_SECRET = re.compile(r"[!-~]{16}|://|PRIVATE KEY|AKC|AP[\dA-F]|xox[abposr]-|eyJ|:_authToken")
# Patterns whose time grows with the square of a text's length are searched only if the text contains this.
NEEDED = {"NPM tokens": ":_authToken", "OpenAI Token": "T3BlbkFJ"}
# Machine addresses aren't secret.
NOT_SECRET = {"Public IP (ipv4)"}


def check_regions(regions: Sequence[str]) -> None:
    """Raise a UserError if one isn't an ISO code of a region that has phone numbers."""
    if unknown := sorted(set(regions) - SUPPORTED_REGIONS):
        raise UserError(f"phone_regions: {unknown[0]} isn't a region; give ISO codes, such as US, GB or DE")


def masked(text: str, regions: Sequence[str] = ()) -> str:
    """Mask all personal data and secrets in a text."""
    for _, found, shown in personal_data(text, regions):
        text = text.replace(found, shown)
    return text


def personal_data(text: str, regions: Sequence[str] = ()) -> Iterator[tuple[str, str, str]]:
    """Yield the kind of each finding in a text, the finding, and the finding masked.

    Phone numbers without an international prefix are found as they are written in ``regions``.
    """
    if "@" in text:
        for match in EMAIL.finditer(text):
            if not RESERVED.search(match[0]):
                local, _, domain = match[0].partition("@")
                yield KINDS[0], match[0], f"{local[0]}…@{domain[0]}…"
    for number in dict.fromkeys(_phone_numbers(text, regions)):
        yield KINDS[1], number, f"{number[:3]}…"
    for match in CARD.finditer(text):
        if _is_card(re.sub(r"\D", "", match[0])):
            yield KINDS[3], match[0], f"{match[0][:4]}…"
    for match in IBAN.finditer(text):
        # Words in capitals may follow the number.
        ends = [end for end in range(len(match[0]), 14, -1) if _is_iban(match[0][:end].replace(" ", ""))]
        if ends:
            yield KINDS[4], match[0][: ends[0]], f"{match[0][:4]}…"
    for name, plugin in _plugins() if MAYBE_SECRET.search(text) else ():
        if NEEDED.get(name, "") not in text:
            continue
        for secret in dict.fromkeys(plugin.analyze_string(text)):
            yield KINDS[2], secret, f"{name} {secret[:2]}…"


def _phone_numbers(text: str, regions: Sequence[str]) -> Iterator[str]:
    international = PREFIX.sub(" +", text)
    if PHONE.search(international):
        for number in PhoneNumberMatcher(international, None):
            start = number.start - text.startswith("00", number.start - 1)
            yield text[start : number.end]
    if NATIONAL.search(text):
        for region in regions:
            # Grouped as the region groups them; an article number is digits without a break or a leading zero.
            for number in PhoneNumberMatcher(text, region, leniency=Leniency.STRICT_GROUPING):
                if number.raw_string.startswith("0") or not number.raw_string.isdigit():
                    yield number.raw_string


def _is_card(digits: str) -> bool:
    """Return True for 13 to 19 digits whose last one checks the others: Luhn's sum (ISO/IEC 7812-1, annex B)."""
    doubled = (int(digit) * (1 + number % 2) for number, digit in enumerate(reversed(digits)))
    return 13 <= len(digits) <= 19 and sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


def _is_iban(number: str) -> bool:
    """Return True if the check digits are right: ISO 13616, with letters as 10 to 35 and a remainder of 1 by 97."""
    return 15 <= len(number) <= 34 and int("".join(str(int(one, 36)) for one in number[4:] + number[:4])) % 97 == 1


@cache
def _plugins() -> list[tuple[str, Any]]:
    """Return the detectors that know the form of a key; those that use entropy take any hash for one."""
    found: dict[str, Any] = get_mapping_from_secret_type_to_class()
    return [
        (name, found[name]())
        for name in sorted(found)
        if issubclass(found[name], RegexBasedDetector) and name not in NOT_SECRET
    ]
