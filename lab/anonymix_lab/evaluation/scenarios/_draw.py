"""Which protected faces a run needs, and getting them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from anonymix_lab.data import Protocol
from anonymix_lab.data.keys import GUIDED_SCOPE, SHARED_SCOPE
from anonymix_lab.matchers import Extractor, Request, Table
from anonymix_lab.protections import KeyName, Protection

Integers = npt.NDArray[np.int64]

OWN: Final = "own"
GUIDED: Final = GUIDED_SCOPE
ELSEWHERE: Final = "elsewhere"


@dataclass(frozen=True, eq=False)
class Claims:
    """What becomes of the pairs where the keystore keeps references, one row a pair.

    The first photo of a pair enrols its person. The second one claims to be that person, whoever is on it: it
    is protected under that person's key and by that person's reference.

    Attributes:
        entries: The enrolled faces.
        probes: The faces that claim.
    """

    entries: Table
    probes: Table


@dataclass(frozen=True, eq=False)
class Drawn:
    """Protected faces of one protection, and the photos they were made from.

    Attributes:
        original: The n samples as they are.
        own: The n samples under the key of their subject.
        shared: The n samples under the shared key of their fold, or nothing.
        shared_key: (n,) number of that key.
        again: (m,) which samples were drawn under other keys of their subject: one a person.
        renewed: Those under the next version of the key.
        elsewhere: Those under the key of another scope.
        claims: (k,) which impostor pairs have a probe under the claimed person's key.
        claimed: Those probes.
        guided: The pairs guided by references, a key each; None where that was not asked for.
        guided_shared: The same under the shared key of their fold.
        codes: The n samples' codes, under the name `CODE`; None without references.
    """

    original: Table
    own: Table
    shared: Table
    shared_key: Integers
    again: Integers
    renewed: Table
    elsewhere: Table
    claims: Integers
    claimed: Table
    guided: Claims | None = None
    guided_shared: Claims | None = None
    codes: Table | None = None


def draw(
    protocol: Protocol,
    protection: Protection,
    extractor: Extractor,
    *,
    shared_keys: int,
    claimed: bool = True,
    scopes: bool = True,
    guided: Protection | None = None,
    reader: Extractor | None = None,
) -> Drawn:
    """Get everything that the scenarios need.

    Args:
        protocol: What is compared.
        protection: What is measured.
        extractor: Gets it from the cache, or makes it.
        shared_keys: How many keys for everybody: fold f is under number f mod `shared_keys`; 0 leaves those faces out.
        claimed: Whether impostors' probes are also drawn under the claimed person's key.
        scopes: Whether probes are also drawn under the keys of another application.
        guided: Makes faces by references; None leaves those scenarios out.
        reader: Reads the codes that references are made of; None leaves them out.
    """
    samples = protocol.samples
    title = protection.title
    original = extractor.table([Request(sample) for sample in samples], None, "photos as they are")
    own = extractor.table(
        [Request(sample, KeyName(OWN, sample.person)) for sample in samples],
        protection,
        f"{title}: a key each",
    )
    number = np.array([sample.fold % max(shared_keys, 1) for sample in samples], np.int64)
    shared = extractor.table(
        [
            Request(sample, KeyName(f"{SHARED_SCOPE} {key + 1}", sample.person))
            for sample, key in zip(samples, number, strict=True)
            if shared_keys
        ],
        protection,
        f"{title}: one key for everybody",
    )
    again = probes(protocol)
    chosen = [samples[int(i)] for i in again]
    renewed = extractor.table(
        [Request(sample, KeyName(OWN, sample.person, 2)) for sample in chosen],
        protection,
        f"{title}: renewed keys",
    )
    elsewhere = extractor.table(
        [Request(sample, KeyName(ELSEWHERE, sample.person)) for sample in chosen] if scopes else [],
        protection,
        f"{title}: another application",
    )
    impostor = protocol.impostor()
    claims = np.arange(len(impostor)) if claimed else np.zeros(0, np.int64)
    probe = extractor.table(
        [
            Request(samples[int(impostor.second[i])], KeyName(OWN, samples[int(impostor.first[i])].person))
            for i in claims
        ],
        protection,
        f"{title}: impostors who claim to be somebody",
    )
    claimants = None if guided is None else _claims(protocol, guided, extractor, None)
    shared_claimants = None
    if guided is not None and shared_keys:
        shared_claimants = _claims(protocol, guided, extractor, shared_keys)
    codes = None
    if reader is not None:
        codes = reader.table([Request(sample) for sample in samples], None, "codes of photos")
    return Drawn(
        original,
        own,
        shared,
        number,
        again,
        renewed,
        elsewhere,
        claims,
        probe,
        claimants,
        shared_claimants,
        codes,
    )


def _claims(protocol: Protocol, guided: Protection, extractor: Extractor, shared_keys: int | None) -> Claims:
    samples, pairs = protocol.samples, protocol.pairs
    names = []
    for first in pairs.first:
        sample = samples[int(first)]
        scope = GUIDED if shared_keys is None else f"{SHARED_SCOPE} {sample.fold % shared_keys + 1} {GUIDED}"
        names.append(KeyName(scope, sample.person, enrolled=sample))
    keys = "a key each" if shared_keys is None else "one key for everybody"
    entries, probes = (
        extractor.table(
            [Request(samples[int(row)], name) for row, name in zip(rows, names, strict=True)],
            guided,
            f"{guided.title}: {keys}, {what}",
        )
        for rows, what in ((pairs.first, "enrolled"), (pairs.second, "claims"))
    )
    return Claims(entries, probes)


def probes(protocol: Protocol) -> Integers:
    """The probe of the first genuine pair of each person: the photo that is drawn under further keys."""
    genuine = protocol.genuine()
    chosen: dict[str, int] = {}
    for second in genuine.second:
        chosen.setdefault(protocol.samples[int(second)].person, int(second))
    return np.array(sorted(chosen.values()), np.int64)
