"""Find exact and near duplicates among texts."""

import hashlib
from functools import cache

import numpy as np
from datasketch import MinHash, MinHashLSH

from snaketune.data.words import plain, words

# An estimate from 64 permutations is off by 0.06 on average; a margin of four times that loses nothing.
SLACK = 0.25
LOW_BITS = np.uint64(0xFFFFFFFF)
# Digits of pi, made odd: any three different odd numbers would do.
ODD = np.array([0x243F6A8885A308D3, 0x13198A2E03707345, 0xA4093822299F31D1], dtype=np.uint64)


class Duplicates:
    """Index the texts kept so far; MinHash finds candidates, their exact Jaccard similarity decides.

    A text may have several parts, such as question and passage: each must be like the other's.
    Broder, "On the resemblance and containment of documents" (1997).
    """

    def __init__(self, threshold: float, permutations: int):
        self.threshold = threshold
        # Bands of three rows let one pair of 170 at a similarity of 0.6 escape, one of 10,000 at 0.71.
        self.index = MinHashLSH(num_perm=permutations, params=(permutations // 3, 3))
        self.blank = MinHash(num_perm=permutations, seed=1, hashfunc=int)
        self.signatures: list[np.ndarray] = []
        self.kept: list[list[np.ndarray]] = []
        self.exact: dict[bytes, int] = {}

    def add(self, parts: tuple[str, ...]) -> tuple[str, list[int]]:
        """Keep a text unless it is like a kept one.

        Returns:
            An empty string and no numbers if it was kept; else "exact" (only letter case, white space
            and what can't be seen differ) or "near", and the numbers of the kept texts that it is like, counted from 0.
        """
        grams = [_grams(part, number) for number, part in enumerate(parts)]
        whole = hashlib.blake2b("\0".join(_plain(part) for part in parts).encode(), digest_size=16).digest()
        if whole in self.exact:
            return "exact", [self.exact[whole]]
        hashed = self.blank.copy()
        hashed.update_batch((np.concatenate(grams) & LOW_BITS).tolist())
        if near := [number for number in self._candidates(hashed) if self._alike(grams, self.kept[number])]:
            return "near", near
        self.exact[whole] = len(self.kept)
        self.index.insert(len(self.kept), hashed, check_duplication=False)
        self.signatures.append(hashed.hashvalues)
        self.kept.append(grams)
        return "", []

    def _candidates(self, hashed: MinHash) -> list[int]:
        if not (found := sorted(self.index.query(hashed))):
            return []
        estimates = (np.array([self.signatures[n] for n in found]) == hashed.hashvalues).mean(axis=1)
        return [n for n, estimate in zip(found, estimates, strict=True) if estimate >= self.threshold - SLACK]

    def _alike(self, grams: list[np.ndarray], others: list[np.ndarray]) -> bool:
        pairs = list(zip(grams, others, strict=True))
        shared = (len(np.intersect1d(*pair, assume_unique=True)) for pair in pairs)
        return all(n >= self.threshold * (len(a) + len(b) - n) for n, (a, b) in zip(shared, pairs, strict=True))


def _plain(text: str) -> str:
    return " ".join(plain(text).split())


@cache
def _hashed(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def _grams(text: str, part: int) -> np.ndarray:
    """Return the sorted 64-bit hashes of the word trigrams, or of the whole text if it has fewer than three words.

    Each sign is a word: 3 + 4 isn't 3 - 4.
    """
    found = words(text, signs=True)
    if len(found) < 3:
        found = ["", "", _plain(text)]
    hashed = np.array([_hashed(word) for word in found], dtype=np.uint64)
    first, second, third = (hashed[i : len(hashed) - 2 + i] for i in range(3))
    return np.unique(first * ODD[0] + second * ODD[1] + third * ODD[2] + np.uint64(part))
