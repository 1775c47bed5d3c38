"""Tells all viewers what is new, twice a second and when something has changed.

*Runs on* the thread ``hub``. *Takes* viewers, from the threads of their connections. *Gives* each of them
what is newest when all that it was sent before has left: who reads slowly gets fewer and newer updates, and
nobody waits for anybody.
"""

import logging
import threading
import time
import traceback
from dataclasses import dataclass

from fuzzserver.web.limits import SparseLog
from fuzzserver.web.session import AnyTold, Moment
from fuzzserver.web.site import Site
from fuzzserver.web.web_socket import WebSocket

__all__ = ["Hub"]

log = logging.getLogger(__name__)

UPDATE_INTERVAL = 0.5
"""Seconds between two looks at the coverage files, as in Zig."""

FRESH_SECONDS = 0.05
"""For which newcomers are told what others have been: a thousand may come at once."""


@dataclass(slots=True, eq=False)
class _Viewer:
    web_socket: WebSocket
    told: AnyTold


class Hub:
    """Knows all viewers, and what each was told. ``run`` is called on its thread, all else on any."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._sparse_log = SparseLog(log)
        # Guards all that the other threads change; notified when they do.
        self._condition = threading.Condition()
        self._viewers: dict[WebSocket, _Viewer] = {}
        self._newcomers: list[_Viewer] = []
        self._changed = False
        self._stopping = False
        # Of the thread alone.
        self._next_look = 0.0
        self._moment = Moment(site)
        self._fresh_until = 0.0

    def join(self, web_socket: WebSocket, told: AnyTold) -> None:
        """Tell one more viewer what is new, from now on."""
        viewer = _Viewer(web_socket, told)
        with self._condition:
            self._viewers[web_socket] = viewer
            self._newcomers.append(viewer)
            self._condition.notify()

    def leave(self, web_socket: WebSocket) -> None:
        """Forget a viewer."""
        with self._condition:
            self._viewers.pop(web_socket, None)

    def wake(self) -> None:
        """Something has changed: tell it now."""
        with self._condition:
            self._changed = True
            self._condition.notify()

    def stop(self) -> None:
        """Tell the last news and end."""
        with self._condition:
            self._stopping = True
            self._condition.notify()

    def run(self) -> None:
        """Tell viewers until ``stop`` is called."""
        self._site.coverage_files.watch(self.wake)
        stopping = False
        while not stopping:
            # Of what comes while they are told, which may be the last news, they are told by one more turn.
            stopping = self._stopping
            for viewer in self._wait():
                self._tell(viewer)
        self._site.coverage_files.unwatch(self.wake)

    def _wait(self) -> list[_Viewer]:
        """Until somebody must be told something: newcomers, or everybody."""
        with self._condition:
            while not (self._newcomers or self._is_time_for_all()):
                if not self._viewers:
                    self._moment = Moment(self._site)  # It holds maps that may be gone by now.
                self._condition.wait(self._next_look - time.monotonic() if self._viewers else None)
            newcomers, self._newcomers = self._newcomers, []
            for_all = self._is_time_for_all()
            viewers = list(self._viewers.values()) if for_all else newcomers
            self._changed = False
        now = time.monotonic()
        if now >= self._next_look:
            # On the beat, so that viewers see even steps; beats that were missed are left out.
            self._next_look += UPDATE_INTERVAL
            if self._next_look <= now:
                self._next_look = now + UPDATE_INTERVAL
        if for_all or now >= self._fresh_until:
            self._moment = Moment(self._site, self._moment)
            self._fresh_until = now + FRESH_SECONDS
        return viewers

    def _is_time_for_all(self) -> bool:
        is_due = bool(self._viewers) and time.monotonic() >= self._next_look
        return self._changed or self._stopping or is_due

    def _tell(self, viewer: _Viewer) -> None:
        if not viewer.web_socket.is_free:
            return
        try:
            speech = self._moment.speech(viewer.told)
        except Exception:  # A fault of ours must not end the thread, nor fill the log.
            self._sparse_log(
                logging.ERROR, "cannot tell a viewer what is new: %s", traceback.format_exc().rstrip()
            )
            self.leave(viewer.web_socket)
            viewer.web_socket.fail()
            return
        if not speech.data or viewer.web_socket.offer(speech.data):
            viewer.told = speech.told
