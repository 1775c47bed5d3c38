"""HTTP and WebSocket. Nothing in here starts a compiler: it is handed a ``build_wasm`` callable.

* ``sources_tar`` -- the source files as one stream
* ``answer``, ``fuzz_data``, ``map_data`` -- answers about what was found, and about one coverage map
* ``news`` -- what a client that speaks our subprotocol has not been told yet
* ``session`` -- one WebSocket client
* ``server`` -- connections, routes, and what they serve
"""

__all__: list[str] = []
