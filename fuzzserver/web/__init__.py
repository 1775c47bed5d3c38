"""HTTP and WebSocket. Nothing in here starts a compiler: it is handed a ``build_wasm`` callable.

* ``head``, ``gate``, ``handshake`` -- what is asked for, by whom
* ``routes``, ``bundle``, ``fuzz_data``, ``map_data``, ``sources_tar``, ``kept_sources`` -- what is answered
* ``connection``, ``body``, ``server`` -- connections, their threads and limits
* ``session``, ``news``, ``frames`` -- what viewers are sent
* ``static_page`` -- the page as a file, with all of it inside
* ``hub``, ``web_socket`` -- how it gets to them
"""

__all__: list[str] = []
