"""How programs talk to a coordinator: `AsyncClient` and its thin sync form `Client`.

`protocol` is the table of methods with their requests and answers; a `transport` carries them (unix
socket, Ray actor call, later HTTP). Not here: decisions about tasks, and anything that runs a handler.
"""
