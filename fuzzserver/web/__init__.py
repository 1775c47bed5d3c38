"""HTTP and WebSocket. Nothing in here starts a compiler: it is handed a ``build_wasm`` callable.

* ``sources_tar`` -- the source files as one stream
* ``session`` -- one WebSocket client
* ``server`` -- connections, routes, and what they serve
"""

__all__: list[str] = []
