"""The defences of the server, each with the quickest test that must fail without it."""

import errno
import re
import signal
from dataclasses import dataclass

from tests.support_careless import (
    SwitchOff,
    any_kind_of_file,
    any_port,
    cut_off,
    data_like_pages,
    deadline_of_each_byte,
    for_all_origins,
    header_values,
    hosts_by_their_beginning,
    limits,
    links_to_everything,
    logged_targets,
    mapped_coverage,
    mended,
    no_authority,
    no_token,
    not_seen,
    offered_deflate,
    one_of_several,
    open_after_refusal,
    opened_by_name,
    parts_that_wait,
    patience_with_silence,
    plain_compare,
    put,
    readable_cookie,
    told_resets,
    ungated_upgrades,
    whole_files_in_archives,
    without_flag,
    without_header,
)

FOR_EVER = 1000.0
NO_LIMIT = 1 << 62
NEVER = re.compile("(?!)")


@dataclass(frozen=True)
class Defence:
    """One defence."""

    name: str
    switch_off: SwitchOff
    test: str
    """Its node id in the folder of tests."""
    says: str
    """A part of what the test says then: it fails for this reason and for no other."""
    in_vain: bool = False
    """Whether the test waits then for what never comes."""


BYTEWISE = "test_probes.py::test_probe_byte_by_byte"
HEAD_PROBE = "test_request_head.py::test_probe"
OTHER_PAGES = "test_refusals.py::test_other_pages_on_all_routes[cross-site]"
OF_401 = "test_refusals.py::test_headers_of_401"
OF_503 = "test_refusals.py::test_headers_of_503"
SLOW = "test_server_limits.py::test_slow_requests"
HARM = "test_coverage_faults.py::test_harm_is_told_once_and_the_next_good_file_is_shown"

GATE = (
    Defence(
        "Host", put("web.gate.Gate._is_ours", lambda *_: True), f"{BYTEWISE}[foreign Host]", "[200] == [421]"
    ),
    Defence("port of Host", any_port, "test_gate.py::test_other_hosts[b'localhost:1']", "None == 421"),
    Defence(
        "whole Host",
        hosts_by_their_beginning,
        "test_gate.py::test_other_hosts[b'localhost.evil.test:PORT']",
        "None == 421",
    ),
    Defence(
        "one Host",
        header_values(lambda _, values: values[:1]),
        f"{BYTEWISE}[Host twice, the other one foreign]",
        "[200] == [400]",
    ),
    Defence("host in the target", no_authority, f"{BYTEWISE}[absolute, other host]", "[200] == [421]"),
    Defence(
        "no address of no machine",
        put("web.gate._is_address", lambda _: True),
        "test_gate.py::test_any_address[0.0.0.0:8000-False]",
        "None == 421",
    ),
    Defence("Origin", not_seen("origin"), "test_gate.py::test_origin_is_that_of_the_host", "None == 403"),
    Defence(
        "Sec-Fetch-Site",
        put("web.gate._from_our_page_or_user", lambda _: True),
        OTHER_PAGES,
        "(200, b'GET /",
    ),
    Defence(
        "links lead to the page alone",
        links_to_everything,
        "test_gate.py::test_what_browsers_say",
        "None == 403",
    ),
    Defence("gate in front of WebSockets", ungated_upgrades, OTHER_PAGES, "(101, b'GET /"),
    Defence("token", no_token, OF_401, "404 == 401"),
    Defence(
        "token for other machines",
        put("web.entrance._is_loopback", lambda _: True),
        "test_entrance.py::test_server_on_all_addresses",
        "200 == 401",
    ),
    Defence(
        "token in constant time",
        plain_compare,
        "test_gate.py::test_token_is_compared_in_constant_time",
        "(0 == 1",
    ),
    Defence(
        "token out of the log",
        logged_targets,
        "test_refusals.py::test_cookie_of_the_page",
        'not in "/?token=',
    ),
    Defence(
        "token out of reach of scripts",
        readable_cookie,
        "test_refusals.py::test_cookie_of_the_page",
        "; Path=/; SameSite=Lax' !=",
    ),
)

ANSWERS = (
    *(
        Defence(f"header {name}", without_header(name), OF_401, f"(401, '{name}')")
        for name in (
            "cross-origin-resource-policy",
            "cross-origin-opener-policy",
            "x-content-type-options",
            "referrer-policy",
            "x-frame-options",
        )
    ),
    Defence(
        "header content-security-policy",
        without_header("content-security-policy"),
        OF_401,
        "(None is not None)",
    ),
    Defence(
        "policy of data", data_like_pages, OF_401, "- default-src 'none'; frame-ancestors 'none'; sandbox"
    ),
    Defence("no other origin", for_all_origins, OF_401, "not ['access-control-allow-origin']"),
    Defence(
        "no header out of another",
        put("web.response._VALUE", re.compile(".*", re.DOTALL)),
        "test_refusals.py::test_response_splitting",
        "DID NOT RAISE",
    ),
)

REQUESTS = (
    Defence("CR LF", mended(rb"\r?\n", b"\r\n"), f"{HEAD_PROBE}[bare LF everywhere]", "None == 400"),
    Defence(
        "no control characters",
        put("web.head._STRAY", re.compile(rb"(?!)")),
        f"{HEAD_PROBE}[bare LF everywhere]",
        "None == 400",
    ),
    Defence("no folded line", mended(rb"\r\n[ \t]+", b" "), f"{HEAD_PROBE}[folded value]", "None == 400"),
    Defence(
        "no space before a colon",
        mended(rb" +:", b":"),
        f"{HEAD_PROBE}[space before the colon of Host]",
        "None == 400",
    ),
    Defence(
        "one Content-Length",
        one_of_several,
        "test_probes.py::test_probe[Content-Length 0 and a request]",
        "(2 == 1",
    ),
    Defence(
        "digits of Content-Length",
        put("web.head._LENGTH", re.compile(".+")),
        "test_probes.py::test_probe[Content-Length '+5']",
        "(2 == 1",
    ),
    Defence(
        "no Transfer-Encoding",
        not_seen("transfer-encoding"),
        "test_probes.py::test_probe[Transfer-Encoding 'chunked']",
        "(2 == 1",
    ),
    Defence(
        "bytes of a head",
        put("web.head.MAX_HEAD", NO_LIMIT),
        f"{HEAD_PROBE}[head that is too long in short lines]",
        "None == 431",
    ),
    Defence(
        "bytes of a line",
        put("web.head.MAX_LINE", NO_LIMIT),
        f"{HEAD_PROBE}[header that is too long]",
        "None == 431",
    ),
    Defence(
        "number of headers",
        put("web.head.MAX_HEADERS", NO_LIMIT),
        f"{HEAD_PROBE}[101 headers]",
        "None == 431",
    ),
    Defence(
        "unread bodies",
        put("web.connection.Connection._drop_body", lambda *_: None),
        "test_probes.py::test_probe[body of POST]",
        "[421] == [404, 404]",
    ),
    Defence(
        "bytes of a body",
        put("web.connection.MAX_BODY", NO_LIMIT),
        f"{BYTEWISE}[length of a body that never comes]",
        "[] == [413]",
    ),
    Defence(
        "no paths of files",
        put("web.routes.PAGE_FILE", re.compile(r"(?:/debug)?/(.+\.(?:js|css))")),
        "test_web_server.py::test_files_that_are_none_of_the_page[/../secret.js]",
        "b'secret') == (404",
    ),
)

CONNECTIONS = (
    Defence(
        "deadline of a head",
        limits(head_seconds=FOR_EVER),
        f"{SLOW}[slow target]",
        "bears with it for ever",
        in_vain=True,
    ),
    Defence(
        "one deadline for all of a head",
        deadline_of_each_byte,
        f"{SLOW}[slow target]",
        "bears with it for ever",
        in_vain=True,
    ),
    Defence(
        "deadline of a body",
        limits(body_seconds=FOR_EVER),
        f"{SLOW}[slow body]",
        "bears with it for ever",
        in_vain=True,
    ),
    Defence(
        "deadline of a handshake",
        limits(head_seconds=FOR_EVER),
        "test_entrance.py::test_silence_instead_of_a_handshake",
        "bears with it for ever",
        in_vain=True,
    ),
    Defence(
        "deadline of an answer",
        limits(write_seconds=FOR_EVER),
        "test_server_limits.py::test_slow_readers_are_dropped",
        "assert time.monotonic() < begun",
        in_vain=True,
    ),
    Defence(
        "bytes that wait for slow readers",
        put("web.connection.UNSENT_BYTES", 1 << 30),
        "test_server_limits.py::test_little_waits_for_a_client_that_does_not_read",
        "< (512 * ",
    ),
    Defence(
        "number of connections",
        limits(connections=NO_LIMIT, head_seconds=FOR_EVER),
        "test_server_limits.py::test_too_many_connections",
        "TimeoutError",
        in_vain=True,
    ),
    Defence("number of viewers", limits(viewers=NO_LIMIT), OF_503, "101 == 503"),
    Defence("number of archives", limits(archives=NO_LIMIT), OF_503, "200 == 503"),
    Defence("number of reports", limits(reports=NO_LIMIT), OF_503, "200 == 503"),
    Defence(
        "queue of connections",
        put("web.server.HttpServer.request_queue_size", 5),
        "test_server_limits.py::test_burst_waits_to_be_accepted",
        "TimeoutError",
        in_vain=True,
    ),
    Defence(
        "pause if nothing can be accepted",
        put("web.server.ACCEPT_PAUSE", 0.0),
        f"test_server_limits.py::test_connections_that_cannot_be_accepted[{errno.EMFILE}]",
        "> 0.09",
    ),
    Defence(
        "no waiting for parts",
        parts_that_wait,
        "test_server_limits.py::test_parts_of_an_answer_do_not_wait_for_each_other",
        "< 0.03",
    ),
    Defence("end after a refusal", open_after_refusal, OTHER_PAGES, "answer.closes and"),
    Defence(
        "last answers that arrive",
        put("web.connection.Connection._linger", lambda _: None),
        "test_probes.py::test_last_answers_arrive_that_were_on_their_way",
        "ConnectionResetError",
    ),
    Defence(
        "one line a second",
        put("web.limits.SparseLog.INTERVAL", 0.0),
        "test_server_limits.py::test_too_many_connections",
        "300 <=",
    ),
    Defence(
        "silence about resets",
        told_resets,
        "test_web_server.py::test_client_that_resets_is_no_error",
        "a client has gone",
    ),
)

WEB_SOCKETS = (
    Defence(
        "bytes of a message",
        limits(message_bytes=NO_LIMIT),
        "test_web_socket.py::test_violations[whole]",
        "still open after",
        in_vain=True,
    ),
    Defence(
        "messages a second",
        limits(messages_per_second=float(NO_LIMIT)),
        "test_web_socket.py::test_allowance_comes_back",
        "still open after",
        in_vain=True,
    ),
    Defence(
        "end of who does not answer",
        patience_with_silence,
        "test_web_socket.py::test_silent_client_is_asked_and_dropped",
        "TimeoutError",
        in_vain=True,
    ),
    Defence(
        "no compression",
        offered_deflate,
        "test_web_socket.py::test_accepted_handshakes[deflate]",
        "sec-websocket-extensions: permessage-deflate",
    ),
    Defence(
        "good-bye at the end",
        cut_off,
        "test_session.py::test_stopping_server_says_good_bye",
        "no close frame received",
    ),
)

FILES = (
    Defence(
        "no maps of coverage files",
        mapped_coverage,
        f"{HARM}[empty-good_in_place]",
        f"ended with {-signal.SIGBUS}",
    ),
    Defence(
        "look for replaced coverage files",
        put("coverage.seen_pcs.SeenPcs.is_at_path", lambda _: True),
        f"{HARM}[delete-good_replaced]",
        "in ((None or ''))",
    ),
    Defence(
        "size of coverage files",
        put("coverage.seen_pcs.SeenPcs.check_size", lambda _: None),
        f"{HARM}[grow-good_in_place]",
        "in ((None or ''))",
    ),
    Defence(
        "addresses of coverage files",
        put("coverage.seen_pcs._Part._check_pcs", lambda *_: None),
        "test_coverage_faults.py::test_a_file_of_another_build_with_fewer_points_is_refused",
        "files=2) ==",
    ),
    Defence(
        "no links out of the sources",
        put("web.source_files._is_below", lambda *_: True),
        "test_served_files.py::test_folder_in_a_folder_is_no_way_out",
        "DID NOT RAISE",
    ),
    Defence(
        "no secret names",
        put("web.source_files._check_name", lambda _: None),
        "test_served_files.py::test_secret_names[.ssh/config]",
        "DID NOT RAISE",
    ),
    Defence(
        "no files of the system",
        put("web.source_files._SYSTEM", NEVER),
        "test_served_files.py::test_files_of_the_system[/proc/self/environ]",
        "DID NOT RAISE",
    ),
    Defence(
        "opened is what was looked at",
        opened_by_name,
        "test_served_files.py::test_what_was_looked_at_is_what_is_opened[fstat]",
        "== b'mine'",
    ),
    Defence(
        "regular files alone",
        any_kind_of_file,
        "test_sources_tar.py::test_what_is_no_readable_file_is_skipped_and_logged",
        "pipe",
    ),
    Defence(
        "no waiting for files",
        without_flag("O_NONBLOCK"),
        "test_served_files.py::test_lease_keeps_nobody_waiting",
        "'None' == 'Resource tem",
        in_vain=True,
    ),
    Defence(
        "no links in place of inputs",
        without_flag("O_NOFOLLOW"),
        "test_served_files.py::test_finding_whose_input_is_no_file[link]",
        "200 == 500",
    ),
    Defence(
        "sizes in archives",
        whole_files_in_archives,
        "test_sources_tar.py::test_a_file_that_changes_while_it_is_read_does_not_break_the_archive[1-grow]",
        "assert {",
    ),
)

COMPILERS = (
    Defence(
        "one compiler at a time",
        put("zig.shared_builds.SharedBuilds.run", lambda self, key, build: build()),
        "test_compiler_faults.py::test_one_build_at_a_time",
        "(500, b'",
    ),
    Defence(
        "end of what compilers leave",
        put("zig.process.end_carriers", lambda *_: None),
        "test_compiler_faults.py::test_what_outlives_a_good_compile",
        "a child lives on",
        in_vain=True,
    ),
    Defence(
        "results of compilers",
        put("zig.compile_client.CompileResult.artifact", lambda self, name: self.output_dir / name),
        "test_compiler_faults.py::test_broken[result_elsewhere]",
        "DID NOT RAISE",
    ),
)

DEFENCES = (*GATE, *ANSWERS, *REQUESTS, *CONNECTIONS, *WEB_SOCKETS, *FILES, *COMPILERS)
