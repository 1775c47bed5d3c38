"""What the fuzzer has given, besides coverage: targets, findings and corpora, as HTTP answers.

===========================  ==============================================================
``/targets.json``            all targets and their tests
``/findings.json``           all findings, the oldest first
``/findings/ID.json``        one finding with stack, input and command
``/findings/ID.input``       its input
``/corpus.json``             the corpora: test, number of inputs, bytes, and each input
``/corpus/INDEX.tar``        all inputs of one corpus
``/corpus/INDEX/NUMBER``     one input
===========================  ==============================================================

Nothing in a path is used as a file name: it is looked up among what there is.
"""

import io
import json
import re
import tarfile
from collections.abc import Callable
from functools import partial
from typing import Any

from fuzzserver.corpus import Corpus
from fuzzserver.errors import InputError
from fuzzserver.web.answer import Answer, Archive, Sink
from fuzzserver.web.site import Site

__all__ = ["corpora_json", "fuzz_data"]

TAR_BUFFER = 64 * 1024
"""Bytes of an archive that are sent at once."""


def fuzz_data(site: Site, path: str) -> Answer | Archive | None:
    """The answer to a request for ``path``; None if there is nothing. InputError if it cannot be read."""
    for pattern, answer in ROUTES:
        match = re.fullmatch(pattern, path)
        if match is not None:
            return answer(site, *match.groups())
    return None


def _targets(site: Site) -> Answer:
    return _json({"targets": site.status()["targets"]})


def _findings(site: Site) -> Answer:
    return _json({"findings": site.status()["findings"]})


def _finding(site: Site, finding_id: str) -> Answer | None:
    store = site.findings()
    details = None if store is None else store.details(finding_id)
    return None if details is None else _json(details)


def _finding_input(site: Site, finding_id: str) -> Answer | None:
    store = site.findings()
    if store is None or store.get(finding_id) is None:
        return None
    return _download(store.input(finding_id), f"{finding_id}.input")


def _corpora(site: Site) -> Answer:
    return _json(corpora_json(site))


def corpora_json(site: Site) -> dict[str, Any]:
    """All corpora with the numbers of their inputs, for JSON."""
    answer = []
    for index, corpus in enumerate(site.corpora()):
        inputs = corpus.inputs()
        answer.append(
            {
                "index": index,
                "target": corpus.target,
                "test": corpus.test,
                "form": corpus.form,
                "count": len(inputs),
                "size": sum(each.size for each in inputs),
                "inputs": [{"number": each.number, "size": each.size, "time": each.time} for each in inputs],
            }
        )
    return {"corpora": answer}


def _corpus_input(site: Site, index: str, number: str) -> Answer | None:
    corpus = _corpus(site, index)
    if corpus is None:
        return None
    try:
        return _download(corpus.input(int(number)), f"{index}-{number}.input")
    except InputError:
        return None


def _corpus_tar(site: Site, index: str) -> Archive | None:
    corpus = _corpus(site, index)
    if corpus is None:
        return None
    return Archive(partial(_write_corpus, corpus), (_as_download(f"corpus-{index}.tar"),))


def _write_corpus(corpus: Corpus, sink: Sink) -> None:
    stream: Any = sink  # All that tarfile wants of a stream is that it can be written to.
    with tarfile.open(fileobj=stream, mode="w|", bufsize=TAR_BUFFER) as tar:
        for each in corpus.inputs():
            try:
                data = corpus.input(each.number)
            except InputError:
                continue  # It was tidied away just now.
            member = tarfile.TarInfo(str(each.number))
            member.size, member.mtime = len(data), int(each.time)
            tar.addfile(member, io.BytesIO(data))


def _corpus(site: Site, index: str) -> Corpus | None:
    corpora = site.corpora()
    return corpora[int(index)] if int(index) < len(corpora) else None


def _json(value: object) -> Answer:
    return Answer("application/json", json.dumps(value).encode())


def _download(content: bytes, name: str) -> Answer:
    return Answer("application/octet-stream", content, (_as_download(name),))


def _as_download(name: str) -> tuple[str, str]:
    # An input may be a page with a script in it: no browser may show it as one of ours.
    return "content-disposition", f'attachment; filename="{name}"'


ROUTES: tuple[tuple[str, Callable[..., Answer | Archive | None]], ...] = (
    (r"/targets\.json", _targets),
    (r"/findings\.json", _findings),
    (r"/findings/([0-9a-f]{1,64})\.json", _finding),
    (r"/findings/([0-9a-f]{1,64})\.input", _finding_input),
    (r"/corpus\.json", _corpora),
    (r"/corpus/([0-9]{1,6})/([0-9]{1,18})", _corpus_input),
    (r"/corpus/([0-9]{1,6})\.tar", _corpus_tar),
)
